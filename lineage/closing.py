"""Ends runs whose process died before it could: every START gets its COMPLETE, FAIL or ABORT."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lineage import events
from lineage.outbox import OpenRun, Outbox
from lineage.runs import End, is_process_gone
from resources.settings import Settings

_ABANDONED_MS = 86_400_000
"""Work of a process on another machine is given up after a day: nobody there told its end."""


@dataclass(frozen=True)
class Ended:
    """How a run ended, as whoever knows says.

    Attributes:
        at: when; None for now.
        reason: why it did not complete; empty if it did.
    """

    state: End
    reason: str = ""
    at: datetime | None = None


Verdict = Callable[[OpenRun], Ended | None]
"""Says how a run ended; None if it goes on or that is not known."""


def close_ended(settings: Settings, verdict: Verdict, now: datetime) -> int:
    """End the open runs that are over; returns how many.

    The outermost run is ended last, and a run that ends by itself meanwhile keeps its own end.

    Args:
        settings: names the outbox.
        verdict: asked about every open run, inner ones first.
        now: aware.
    """
    outbox, closed = Outbox.of(settings), 0
    # A Dagster run is told of before the work in it, so the newest go first.
    for run in reversed(outbox.open_runs()):
        ended = verdict(run)
        if ended is not None:
            event = events.ending_of(run.start, ended.state, ended.at or now, ended.reason)
            closed += outbox.end(run.run_id, ended.state, event)
    return closed


def process_verdict(run: OpenRun) -> Ended | None:
    """Judge work of a process: aborted if the process has ended."""
    if not run.owner.startswith("process:"):
        return None
    is_gone = is_process_gone(run.owner)
    if is_gone is None:
        age_ms = datetime.now(tz=UTC).timestamp() * 1000 - run.started_ms
        is_gone = age_ms > _ABANDONED_MS
    return Ended("ABORT", "the process ended before the work did") if is_gone else None
