"""The sensor that ships lineage and ends what died, and the same by hand.

It is the one sensor that acts by itself: a run costs a process of several seconds, what waits is
a handful of events, and where they are is kept in the outbox, not in a cursor. A tick takes at most
a few seconds however long the queue is; the next goes on.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import dagster as dg

from jobs.instance.run_kinds import UPKEEP
from millrace.errors import EngineUnavailable
from resources.settings import Settings

if TYPE_CHECKING:
    from lineage.closing import Ended, Verdict
    from lineage.outbox import OpenRun
    from lineage.runs import End

SENSOR = "send_lineage"
JOB = "send_lineage_now"
LOUD_AFTER_MS = 900_000
"""A receiver that has been away for so long fails the ticks that try it, to be seen."""

_INTERVAL_S = 10
_BY_HAND_S = 60.0
_REASON_TAG = "dagster/failure_reason"
_INTERRUPTED = "UNEXPECTED_TERMINATION"
"""What Dagster says of a run whose process was sent TERM and that nobody had cancelled."""

_RUN_ENDS: "Mapping[dg.DagsterRunStatus, End]" = MappingProxyType(
    {
        dg.DagsterRunStatus.SUCCESS: "COMPLETE",
        dg.DagsterRunStatus.FAILURE: "FAIL",
        dg.DagsterRunStatus.CANCELED: "ABORT",
    }
)
_BACKFILL_ENDS: "Mapping[str, End]" = MappingProxyType(
    {
        "COMPLETED": "COMPLETE",
        "COMPLETED_SUCCESS": "COMPLETE",
        "COMPLETED_FAILED": "FAIL",
        "FAILED": "FAIL",
        "CANCELED": "ABORT",
    }
)


def lineage_sensor(settings: Settings, ship_lineage: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor; on by default, every ten seconds."""

    @dg.sensor(
        name=SENSOR,
        job=ship_lineage,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends OpenLineage events on, and ends the runs whose process died.",
    )
    def ship_lineage_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        return dg.SkipReason(tick(settings, context.instance))

    return ship_lineage_sensor


def lineage_job(settings: Settings) -> dg.JobDefinition:
    """Return ``send_lineage_now``: everything that waits, now, also to receivers left alone."""

    @dg.op(description="Ends runs whose process died and sends on what waits.")
    def ship_now(context: dg.OpExecutionContext) -> None:
        from lineage.shipping import ship

        _close(settings, context.instance)
        for found in ship(settings, budget_s=_BY_HAND_S, is_forced=True):
            context.log.info(str(found))
            if found.error:
                raise dg.Failure(str(found), allow_retries=False)

    @dg.job(
        name=JOB,
        tags=dict(UPKEEP),
        description="Sends all waiting OpenLineage events now; the sensor does it anyway.",
        executor_def=dg.in_process_executor,
    )
    def ship_lineage() -> None:
        ship_now()

    return ship_lineage


def tick(settings: Settings, instance: dg.DagsterInstance) -> str:
    """End what died, send what waits; returns how it stands, in words.

    Raises:
        EngineUnavailable: a receiver has been away for long; nothing is lost, and it is tried on.
        SetupError: ``MILLRACE_LINEAGE`` names no receiver.
    """
    from lineage.shipping import ship

    closed = _close(settings, instance)
    done = ship(settings)
    now_ms = time.time_ns() // 1_000_000
    late = [
        found
        for found in done
        if found.was_tried
        and found.away_since_ms is not None
        and now_ms - found.away_since_ms > LOUD_AFTER_MS
    ]
    if late:
        raise EngineUnavailable(
            "; ".join(str(found) for found in late),
            where="lineage",
            fix="mend the receiver or MILLRACE_LINEAGE; what waits is kept in the outbox",
        )
    ended = [f"{closed} dead run(s) ended"] if closed else []
    return "; ".join([*ended, *map(str, done)]) or "no events yet"


def _close(settings: Settings, instance: dg.DagsterInstance) -> int:
    from lineage.closing import close_ended
    from lineage.receivers import is_off

    if is_off(settings):
        return 0
    return close_ended(settings, dagster_verdict(instance), datetime.now(tz=UTC))


def dagster_verdict(instance: dg.DagsterInstance) -> "Verdict":
    """Return the judge of open runs: what Dagster says of its own, what the system says of others.

    Work that is still open when its Dagster run is over is aborted: its process died, for it tells
    of its end before the run ends.
    """
    from lineage.closing import process_verdict

    def verdict(run: "OpenRun") -> "Ended | None":
        kind, _, name = run.owner.partition(":")
        if kind == "dagster":
            return _of_run(instance, run, name)
        if kind == "backfill":
            return _of_backfill(instance, name)
        return process_verdict(run)

    return verdict


def _of_run(instance: dg.DagsterInstance, run: "OpenRun", dagster_id: str) -> "Ended | None":
    from lineage.closing import Ended

    record = instance.get_run_record_by_id(dagster_id)
    if record is None:
        return Ended("ABORT", "the Dagster run was deleted")
    status = record.dagster_run.status
    if status not in _RUN_ENDS:
        return None
    at = _instant(record.end_time)
    if run.run_id == dagster_id:
        if record.dagster_run.tags.get(_REASON_TAG) == _INTERRUPTED:
            return Ended("ABORT", "its process was told to end, as by `millrace down`", at)
        return Ended(_RUN_ENDS[status], _why(status.value), at)
    return Ended("ABORT", "the Dagster run ended before the work did", at)


def _of_backfill(instance: dg.DagsterInstance, backfill_id: str) -> "Ended | None":
    from lineage.closing import Ended

    found = instance.get_backfill(backfill_id)
    if found is None:
        return Ended("ABORT", "the backfill was deleted")
    state, at = _BACKFILL_ENDS.get(found.status.value), _instant(found.backfill_end_timestamp)
    return None if state is None else Ended(state, _why(found.status.value), at)


def _instant(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, tz=UTC)


def _why(status: str) -> str:
    return "" if "SUCCESS" in status or status == "COMPLETED" else f"Dagster says {status}"
