"""How the platform itself does: Dagster's daemons, the ticks of schedules and sensors, our sinks.

All of this is sampled at every look, so a fact's time is the look's.
"""

from collections.abc import Collection, Iterator
from datetime import UTC, datetime

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorType, TickStatus
from dagster._utils.schedules import get_latest_completed_cron_tick

from alerts.facts import Fact, Story, Subject
from alerts.message import iso
from alerts.outbox import SinkStatus

DAEMON_SILENT_MS = 300_000
"""A daemon notes that it is alive every thirty seconds."""
TICK_LATE_MS = 600_000
"""The scheduler looks every few seconds; after an outage it catches up."""
SINK_DOWN_MS = 120_000
"""Others are told of a sink that has taken nothing for so long."""

_HOLD_MS = 120_000
"""A code server that is being replaced makes ticks fail for a moment."""
_ERROR_LENGTH = 500


def daemon_facts(instance: dg.DagsterInstance, now_ms: int) -> Iterator[Fact]:
    """Yield whether each daemon that this instance needs has said lately that it is alive."""
    needed = set(instance.get_required_daemon_types())
    for name, beat in instance.get_daemon_heartbeats().items():
        if name not in needed:
            continue
        silent_ms = now_ms - int(beat.timestamp * 1000)
        is_ok = silent_ms <= DAEMON_SILENT_MS and not beat.errors
        summary = "it is alive"
        if beat.errors:
            summary = beat.errors[0].message.strip()[:_ERROR_LENGTH]
        elif not is_ok:
            summary = f"no sign of life for {silent_ms // 1000} s"
        story = Story(summary)
        yield Fact(Subject("daemon", name), "error", is_ok, now_ms, story, hold_ms=_HOLD_MS)


def tick_facts(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None, now_ms: int
) -> Iterator[Fact]:
    """Yield whether the newest tick of each schedule and sensor went well, and came on time.

    One that was stopped by hand is well. ``repository`` knows the schedules' times; without it,
    lateness is not judged.
    """
    if instance.is_ephemeral:
        # It has no daemons, so nothing ticks.
        return
    crons = {} if repository is None else {one.name: one for one in repository.schedule_defs}
    for state in instance.all_instigator_state():
        subject = Subject("tick", state.instigator_name)
        if not state.is_running:
            yield Fact(subject, "error", is_ok=True, at_ms=now_ms, story=Story("it is stopped"))
            continue
        wrong = _tick_error(instance, state)
        if wrong is None and state.instigator_type is InstigatorType.SCHEDULE:
            wrong = _lateness(instance, state, crons.get(state.instigator_name), now_ms)
        story = Story(wrong or "its newest tick went well")
        yield Fact(subject, "error", wrong is None, now_ms, story, hold_ms=_HOLD_MS)


def _tick_error(instance: dg.DagsterInstance, state: InstigatorState) -> str | None:
    ended = [TickStatus.FAILURE, TickStatus.SKIPPED, TickStatus.SUCCESS]
    ticks = instance.get_ticks(
        state.instigator_origin_id, state.selector_id, limit=1, statuses=ended
    )
    if not ticks or ticks[0].status is not TickStatus.FAILURE:
        return None
    error = ticks[0].error
    return "the tick failed" if error is None else error.message.strip()[:_ERROR_LENGTH]


def _lateness(
    instance: dg.DagsterInstance,
    state: InstigatorState,
    schedule: dg.ScheduleDefinition | None,
    now_ms: int,
) -> str | None:
    data = state.instigator_data
    started_s = getattr(data, "start_timestamp", None)
    if schedule is None or started_s is None or not isinstance(schedule.cron_schedule, str):
        return None
    must_have = datetime.fromtimestamp((now_ms - TICK_LATE_MS) / 1000, tz=UTC)
    due = get_latest_completed_cron_tick(
        schedule.cron_schedule, must_have, schedule.execution_timezone
    )
    if due.timestamp() <= started_s:
        return None
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
    if ticks and ticks[0].timestamp >= due.timestamp():
        return None
    return f"the tick of {iso(int(due.timestamp() * 1000))} did not come"


def sink_facts(statuses: Collection[SinkStatus], now_ms: int) -> Iterator[Fact]:
    """Yield whether each sink takes messages, and whether it has refused any for good."""
    for one in statuses:
        down_ms = 0 if one.down_since_ms is None else now_ms - one.down_since_ms
        is_up = down_ms <= SINK_DOWN_MS
        summary = "it takes messages" if is_up else one.error.splitlines()[0]
        details = {"waiting": str(one.pending), "attempts": str(one.failures)}
        # A sink between failure and verdict is neither.
        if is_up == (one.down_since_ms is None):
            subject, story = Subject("sink", one.name), Story(summary, {} if is_up else details)
            yield Fact(subject, "error", is_up, now_ms, story)
        refused = (
            f"{one.parked} messages were refused for good; `millrace alerts status` shows them"
        )
        story = Story(refused if one.parked else "no message is refused")
        yield Fact(Subject("sink", one.name, "refused"), "error", not one.parked, now_ms, story)
