"""What a version that is to serve still waits for, while the one before it answers.

A version follows once it knows all that the serving one knows: each day of history that the serving one
was uploaded with and that its own windows reach must be built of it. Of a stream it must also have read
what the topic held when its job was first submitted, and the writer must have stored that.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from millrace.calendar import day_of
from millrace.coarsen import Coarsening
from millrace.days import Days
from millrace.errors import EngineError
from millrace.names import events_table, tiles_table
from millrace.plan import ViewPlan
from offline.tables.partition_log import PartitionState, built_days, read_partition_log
from resources.dagster.client import HISTORY_JOB
from resources.lake.view_versions import deployed_version
from resources.settings import Settings
from streaming.control.offsets import read_offsets
from streaming.upload.plan import CLOCK_SLACK_MS

if TYPE_CHECKING:
    from resources.flink.rest import CheckpointReport
    from streaming.engines import Engines
    from streaming.publications.records import StreamRecord
    from streaming.publications.uploaded_views import UploadedView

PROGRESS_FRESH_MS = 15_000

StoredProgress = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class History:
    """What a version has not built of the days that the serving one answers from.

    Attributes:
        days: ascending.
        tables: what is to be built of them; ``events/…`` only where a day of it is of another
            declaration.
        has_files: False if the archive alone has the events of these days.
    """

    days: tuple[date, ...] = ()
    tables: tuple[str, ...] = ()
    has_files: bool = True

    def command(self, view: str) -> str | None:
        """Return the command that builds them; None without any, or where a command cannot."""
        if not self.days or not self.has_files:
            return None
        span = Days.covering(self.days)
        return f"millrace backfill {view} --start {span.start} --end {span.end}"


@dataclass(frozen=True)
class Waiting:
    """A version beside the one that serves.

    Attributes:
        version: the one that waits; ``a new version`` if the lake never saw it.
        serving: the one that answers lookups meanwhile.
        history: what nobody has built of it; empty if it waits for something else.
        reasons: what it waits for, in words; at least one.
    """

    view: str
    version: str
    serving: str
    history: History
    reasons: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it in a line."""
        return f"{self.serving} serves until {self.version} is complete: " + "; ".join(self.reasons)

    def to_json(self) -> dict[str, Any]:
        """Return what ``stream status --json`` shows of it."""
        return {
            "version": self.version,
            "reasons": list(self.reasons),
            "missing_days": [day.isoformat() for day in self.history.days],
            "missing_tables": list(self.history.tables),
            "command": self.history.command(self.view),
            "job": HISTORY_JOB if self.history.days else None,
        }


def missing_history(
    settings: Settings,
    view: ViewPlan,
    serving: "StreamRecord | UploadedView",
    now_ms: int,
) -> History:
    """Return what has to be built of a view before it knows what the serving version knows.

    Args:
        settings: name the lake; only its logs are read.
        view: the meaning that is to follow.
        serving: the version that answers now; without uploaded tiles nothing is missing.
        now_ms: the present instant.
    """
    if serving.cut_over_ms is None:
        return History()
    query_from_ms = min(serving.cut_over_ms, now_ms) - CLOCK_SLACK_MS
    reach_from_ms = Coarsening.of(view, query_from_ms, view.start_ms).reach_from_ms
    known = read_partition_log(settings, tiles_table(view.name, serving.version))
    first, last = day_of(reach_from_ms), day_of(serving.cut_over_ms - 1)
    reached = {day for day in known if first <= day <= last}
    version = deployed_version(settings, view)
    table = f"tiles/{view.name} of a new version"
    own: dict[date, PartitionState] = {}
    if version is not None:
        table = tiles_table(view.name, version)
        own = read_partition_log(settings, table)
    missing = reached & built_days(known, serving.fingerprint) - built_days(own, view.fingerprint)
    if not missing:
        return History()
    events = events_table(view.source.name)
    standing = built_days(read_partition_log(settings, events), view.source.fingerprint)
    return History(
        tuple(sorted(missing)),
        (table,) if missing <= standing else (events, table),
        has_files=view.source.batch is not None,
    )


def history_reason(view: str, history: History) -> str:
    """Say which days lack, and what builds them."""
    span = Days.covering(history.days)
    how = history.command(view)
    job = f"Dagster's job {HISTORY_JOB}"
    return (
        f"{len(history.days)} day(s) of {' and '.join(history.tables)} are not built, {span}: "
        + (f"{how}, or {job}" if how else job)
    )


def waiting_upload(
    settings: Settings, view: ViewPlan | None, record: "UploadedView", now_ms: int
) -> Waiting | None:
    """Return what a changed view without a stream waits for; None if it serves as declared."""
    if view is None or not view.is_online or view.fingerprint == record.fingerprint:
        return None
    history = missing_history(settings, view, record, now_ms)
    reason = "its tiles are built, and uploaded next"
    if history.days:
        reason = history_reason(view.name, history)
    version = deployed_version(settings, view) or "a new version"
    return Waiting(view.name, version, record.version, history, (reason,))


def waiting_stream(
    engines: "Engines",
    view: ViewPlan | None,
    record: "StreamRecord",
    state: str | None,
    checkpoints: "CheckpointReport | None",
    progress: StoredProgress,
) -> Waiting | None:
    """Return what a stream's newest version waits for; None if it is complete, or the only one.

    Args:
        engines: the lake, Kafka and the clock.
        view: the declaration; None if that is not known.
        record: of the newest version.
        state: what Flink says of its job; None if every task of it runs.
        checkpoints: the same of its checkpoints.
        progress: what the writer last said.
    """
    older = record.previous
    if older is None:
        return None
    history = History()
    is_meant = view is not None and view.fingerprint == record.fingerprint
    lacks_tiles = older.cut_over_ms is not None and record.cut_over_ms is None
    if view is not None and is_meant and lacks_tiles:
        history = missing_history(engines.settings, view, older, engines.now_ms())
    reasons = []
    if history.days:
        reasons.append(history_reason(record.view, history))
    elif lacks_tiles:
        reasons.append("its batch tiles are not uploaded yet")
    reasons += _live_reasons(engines, record, state, checkpoints, progress)
    if not reasons:
        return None
    return Waiting(record.view, record.version, older.version, history, tuple(reasons))


def _live_reasons(
    engines: "Engines",
    record: "StreamRecord",
    state: str | None,
    checkpoints: "CheckpointReport | None",
    progress: StoredProgress,
) -> Iterator[str]:
    if state is not None:
        yield f"its job is {state}"
        return
    try:
        read = read_offsets(engines, record, checkpoints)
    except EngineError as error:
        yield f"how far its job has read is not known: {error}"
        return
    left = sum(max(end - read.get(int(p), 0), 0) for p, end in record.catch_up.items())
    if left:
        yield f"its job has {left} event(s) to read of those that came before it"
    told = progress.get((record.view, record.fingerprint))
    if told is None or engines.now_ms() - told["at_ms"] > PROGRESS_FRESH_MS:
        yield "the writer says nothing of it"
    elif not left and (told["progress_ms"] or 0) < record.submitted_at_ms:
        yield "the writer has tiles of it to store"
