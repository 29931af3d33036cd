"""How the platform's own parts are seen: daemons, ticks of schedules and sensors, sinks."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from alerts.outbox import SinkStatus
from jobs.alerts.platform import (
    DAEMON_SILENT_MS,
    SINK_DOWN_MS,
    TICK_LATE_MS,
    daemon_facts,
    sink_facts,
    tick_facts,
)

HOUR_S = 3_600
NOON_S = datetime(2020, 1, 8, 12, tzinfo=UTC).timestamp()
ERROR = SerializableErrorInfo("the folder is gone", [], "OSError")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


@dg.job
def daily() -> None:
    """Nothing."""


SCHEDULE = dg.ScheduleDefinition(
    name="daily_payments", job=daily, cron_schedule="30 1 * * *", execution_timezone="UTC"
)
REPOSITORY = dg.Definitions(jobs=[daily], schedules=[SCHEDULE]).get_repository_def()


def start(
    instance: dg.DagsterInstance, name: str, kind: InstigatorType, status: InstigatorStatus
) -> InstigatorState:
    location = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=4000, location_name="millrace")
    repository = RemoteRepositoryOrigin(location, "__repository__")
    is_schedule = kind is InstigatorType.SCHEDULE
    state = InstigatorState(
        RemoteInstigatorOrigin(repository, name),
        kind,
        status,
        ScheduleInstigatorData("30 1 * * *", NOON_S - 48 * HOUR_S)
        if is_schedule
        else SensorInstigatorData(),
    )
    return instance.add_instigator_state(state)


def tick(
    instance: dg.DagsterInstance, state: InstigatorState, at_s: float, status: TickStatus
) -> None:
    error = ERROR if status is TickStatus.FAILURE else None
    instance.create_tick(
        TickData(
            state.instigator_origin_id,
            state.instigator_name,
            state.instigator_type,
            status,
            at_s,
            run_ids=["run"],
            selector_id=state.selector_id,
            error=error,
        )
    )


def told(instance: dg.DagsterInstance, now_s: float) -> dict[str, tuple[bool, str]]:
    facts = tick_facts(instance, REPOSITORY, int(now_s * 1000))
    return {one.subject.name: (one.is_ok, one.story.summary) for one in facts}


def test_a_sensor_is_as_its_newest_ended_tick(instance: dg.DagsterInstance) -> None:
    running = InstigatorStatus.RUNNING
    state = start(instance, "stream_reconciler", InstigatorType.SENSOR, running)
    assert told(instance, NOON_S)["stream_reconciler"][0]
    tick(instance, state, NOON_S, TickStatus.FAILURE)
    tick(instance, state, NOON_S + 1, TickStatus.STARTED)
    assert told(instance, NOON_S + 2)["stream_reconciler"] == (False, "the folder is gone")
    tick(instance, state, NOON_S + 3, TickStatus.SKIPPED)
    assert told(instance, NOON_S + 4)["stream_reconciler"][0]


def test_what_was_stopped_by_hand_is_well(instance: dg.DagsterInstance) -> None:
    stopped = InstigatorStatus.STOPPED
    state = start(instance, "stream_reconciler", InstigatorType.SENSOR, stopped)
    tick(instance, state, NOON_S, TickStatus.FAILURE)
    assert told(instance, NOON_S)["stream_reconciler"] == (True, "it is stopped")


def test_a_schedule_whose_tick_does_not_come_is_late(instance: dg.DagsterInstance) -> None:
    running = InstigatorStatus.RUNNING
    state = start(instance, "daily_payments", InstigatorType.SCHEDULE, running)
    due_s = NOON_S - 10.5 * HOUR_S
    tick(instance, state, due_s - 24 * HOUR_S, TickStatus.SUCCESS)
    late_s = due_s + TICK_LATE_MS / 1000
    assert told(instance, late_s - 1)["daily_payments"][0]
    assert told(instance, late_s + 1)["daily_payments"] == (
        False,
        "the tick of 2020-01-08T01:30:00Z did not come",
    )
    tick(instance, state, due_s, TickStatus.SKIPPED)
    assert told(instance, late_s + 1)["daily_payments"][0]


def test_a_daemon_that_is_silent_or_reports_errors_is_not_well(
    instance: dg.DagsterInstance,
) -> None:
    instance.add_daemon_heartbeat(DaemonHeartbeat(NOON_S, "SENSOR", "one"))
    instance.add_daemon_heartbeat(DaemonHeartbeat(NOON_S, "SCHEDULER", "two", [ERROR]))
    instance.add_daemon_heartbeat(DaemonHeartbeat(NOON_S, "RETIRED_DAEMON", "three"))

    def seen(after_ms: int) -> dict[str, tuple[bool, str]]:
        facts = daemon_facts(instance, int(NOON_S * 1000) + after_ms)
        return {one.subject.name: (one.is_ok, one.story.summary) for one in facts}

    assert seen(DAEMON_SILENT_MS) == {
        "SENSOR": (True, "it is alive"),
        "SCHEDULER": (False, "the folder is gone"),
    }
    assert seen(DAEMON_SILENT_MS + 1)["SENSOR"] == (False, "no sign of life for 300 s")


def test_a_sink_is_down_only_after_a_while_and_refusals_are_told_at_once() -> None:
    def seen(status: SinkStatus, now_ms: int) -> dict[str, bool]:
        return {one.subject.aspect: one.is_ok for one in sink_facts([status], now_ms)}

    failing = SinkStatus("hook", pending=2, failures=3, down_since_ms=0, error="answered 503")
    assert seen(failing, SINK_DOWN_MS) == {"refused": True}
    assert seen(failing, SINK_DOWN_MS + 1) == {"": False, "refused": True}
    assert seen(SinkStatus("hook", parked=1), 0) == {"": True, "refused": False}
