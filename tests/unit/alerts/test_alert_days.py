"""Recent days that were left out: told of the table, until they are built."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, DagsterEventType
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from alerts.facts import Story
from feature_assets.timing import due_ms
from jobs.alerts.days import day_facts
from jobs.batch.arrivals import Watch
from millrace.plan import Plan
from resources.dagster.asset_keys import arrived_sensor
from resources.declarations import plan_of
from tests.support.fake_offline import DECLARATIONS, plan_in

NOW = datetime(2020, 1, 20, 12, tzinfo=UTC)
EVENTS, SPEND, HABITS = "events/payments_events", "features/spend", "features/habits"
TABLES = (EVENTS, SPEND, HABITS)
NEWEST = 19


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_in(tmp_path)


@dg.job
def daily() -> None:
    """Nothing."""


def build(instance: dg.DagsterInstance, table: str, *days: int) -> None:
    for day in days:
        partition = date(2020, 1, day).isoformat()
        key = dg.AssetKey.from_user_string(table)
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


def told(instance: dg.DagsterInstance, plan: Plan, now: datetime = NOW) -> dict[str, str]:
    """What is wrong, by table."""
    facts = list(day_facts(instance, plan, int(now.timestamp() * 1000)))
    assert [fact.subject.name for fact in facts if fact.subject.kind == "days"] == list(TABLES)
    return {fact.subject.name: fact.story.summary for fact in facts if not fact.is_ok}


def test_nothing_is_said_of_tables_that_nobody_builds(
    instance: dg.DagsterInstance, plan: Plan
) -> None:
    assert told(instance, plan) == {}


def test_days_between_and_after_are_left_out_until_they_are_built(
    instance: dg.DagsterInstance, plan: Plan
) -> None:
    for table in TABLES:
        build(instance, table, *(day for day in range(10, NEWEST) if day != 14))
    assert told(instance, plan) == {
        EVENTS: "2 of the newest days were never built: 2020-01-14, 2020-01-19"
    }
    build(instance, EVENTS, 14, NEWEST)
    without = "2 of the newest days were never built: 2020-01-14, 2020-01-19"
    assert told(instance, plan) == {SPEND: without, HABITS: without}
    for table in (SPEND, HABITS):
        build(instance, table, 14, NEWEST)
    assert told(instance, plan) == {}


def test_a_day_is_due_three_hours_after_its_tick(instance: dg.DagsterInstance, plan: Plan) -> None:
    for table in TABLES:
        build(instance, table, 17, 18)
    # The tick comes at 01:30, when the last event of the day before can have come.
    assert told(instance, plan, datetime(2020, 1, 20, 4, 29, tzinfo=UTC)) == {}
    assert EVENTS in told(instance, plan, datetime(2020, 1, 20, 4, 31, tzinfo=UTC))


def test_old_history_and_days_before_the_start_of_a_view_are_not_looked_at(
    instance: dg.DagsterInstance, plan: Plan
) -> None:
    for table in (EVENTS, SPEND):
        build(instance, table, *range(3, NEWEST + 1))
    build(instance, HABITS, *range(5, NEWEST + 1))
    assert told(instance, plan) == {}
    # In March nothing recent is built: the data has ended, or nobody wants it.
    assert told(instance, plan, datetime(2020, 3, 20, 12, tzinfo=UTC)) == {}


def test_a_day_that_a_run_was_to_build_is_left_to_that_run(
    instance: dg.DagsterInstance, plan: Plan
) -> None:
    for table in TABLES:
        build(instance, table, *(day for day in range(10, NEWEST + 1) if day != 14))
    run = instance.create_run_for_job(daily)
    key = dg.AssetKey.from_user_string(EVENTS)
    planned = AssetMaterializationPlannedData(key, partition="2020-01-14")
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
        job_name="daily",
        event_specific_data=planned,
    )
    instance.report_dagster_event(event, run.run_id)
    assert set(told(instance, plan)) == {SPEND, HABITS}


def wait(instance: dg.DagsterInstance, plan: Plan, days: tuple[int, ...], looked: datetime) -> None:
    """Let the sensor of the files remember that it waits for days."""
    source = plan.sources["payments"]
    waiting = {date(2020, 1, n): due_ms(source, date(2020, 1, n)) for n in days}
    looked_ms = int(looked.timestamp() * 1000)
    watch = Watch(date(2020, 1, 10), looked_ms, looked_ms, waiting, "it waits for payments.parquet")
    name = arrived_sensor("payments")
    origin = RemoteInstigatorOrigin(
        RemoteRepositoryOrigin(InProcessCodeLocationOrigin(_loadable()), "repository"), name
    )
    data = SensorInstigatorData(cursor=watch.cursor)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data)
    known = instance.all_instigator_state()
    (instance.update_instigator_state if known else instance.add_instigator_state)(state)


def _loadable() -> LoadableTargetOrigin:
    return LoadableTargetOrigin(module_name="jobs.definitions")


def late_plan(folder: Path) -> Plan:
    file = folder / "late.yaml"
    rules = "lateness: 90m\n    late_after: 6h"
    file.write_text(DECLARATIONS.replace("lateness: 90m", rules), encoding="utf-8")
    return plan_of([file])


def test_a_day_that_waits_for_its_files_is_late_and_not_left_out(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    plan = late_plan(tmp_path)
    for table in TABLES:
        build(instance, table, *(day for day in range(10, NEWEST) if day != 14))
    for hour, is_late in ((7, False), (8, True)):
        now = datetime(2020, 1, 20, hour, tzinfo=UTC)
        wait(instance, plan, (NEWEST,), now)
        facts = list(day_facts(instance, plan, int(now.timestamp() * 1000)))
        [late] = [fact for fact in facts if fact.subject.kind == "late"]
        assert (late.subject.name, late.severity, not late.is_ok) == (EVENTS, "error", is_late)
        assert told(instance, plan, now) == {
            EVENTS: "1 of the newest days were never built: 2020-01-14",
            **({EVENTS: late.story.summary} if is_late else {}),
        }
    assert late.story.summary == "it waits for payments.parquet"
    assert late.story.details["late"] == late.story.days == "2020-01-19"
    assert Story.from_json(late.story.to_json()) == late.story


def test_a_sensor_that_was_switched_off_waits_for_nothing(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    plan = late_plan(tmp_path)
    for table in TABLES:
        build(instance, table, *range(10, NEWEST))
    wait(instance, plan, (NEWEST,), datetime(2020, 1, 20, 8, tzinfo=UTC))
    left = "1 of the newest days were never built: 2020-01-19"
    assert told(instance, plan) == {EVENTS: left}


def test_without_a_declared_time_a_waiting_day_is_told_of_by_nobody(
    instance: dg.DagsterInstance, plan: Plan
) -> None:
    for table in TABLES:
        build(instance, table, *range(10, NEWEST))
    wait(instance, plan, (NEWEST,), NOW)
    assert told(instance, plan) == {}
