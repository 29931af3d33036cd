"""A closed source, ``end:``: no partitions, no schedule and no backfill from that day on."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from feature_assets.specs import source_partitions
from feature_assets.timing import features_freshness
from jobs.alerts.days import day_facts
from jobs.batch.automation import late_requests
from jobs.batch.backfill_plan import range_runs
from jobs.definitions import build_definitions
from millrace.days import Days
from millrace.durations import DAY_MS
from millrace.errors import PlatformError
from millrace.plan import Plan
from offline.tables.history import reached_days
from offline.tables.late_days import LateDays
from resources.declarations import plan_of
from resources.settings import settings_from_env
from tests.support.fake_offline import DECLARATIONS, FakeOffline, payments_there

END = date(2020, 3, 1)
EARLY, LATER = datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 6, 1, tzinfo=UTC)


def closed_plan(folder: Path, schedule: str = "") -> Plan:
    """Return the plan of the fake declarations, their source closed."""
    file = folder / "closed.yaml"
    rules = f"lateness: 90m\n    end: 2020-03-01{schedule}"
    text = DECLARATIONS.replace("lateness: 90m", rules)
    file.write_text(text.replace("filter:", "freshness: 1h\n    filter:", 1), encoding="utf-8")
    return plan_of([file])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as instance:
        yield instance


def location(folder: Path, schedule: str = "", now: datetime = EARLY) -> dg.Definitions:
    """Return the code location as it is loaded at an instant."""
    payments_there(folder)
    settings = settings_from_env({"MILLRACE_DATA": str(folder)})
    plan = closed_plan(folder, schedule)
    return build_definitions(plan, settings, offline=FakeOffline(), now=now)


def tick(folder: Path, name: str, at: datetime, instance: Any, schedule: str = "") -> Any:
    """Return what a schedule asks for at an instant."""
    defs = location(folder, schedule)
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=defs.get_repository_def()
    )
    return defs.resolve_schedule_def(name).evaluate_tick(context)


HOURLY = "\n    schedule: {refresh: hourly}"


def test_partitions_end_with_the_source(tmp_path: Path) -> None:
    for schedule, last in (("", "2020-02-29"), (HOURLY, "2020-02-29-23:00")):
        found = source_partitions(closed_plan(tmp_path, schedule).views_of("payments"))
        assert found.get_partition_keys(current_time=LATER)[-1] == last
        early = datetime(2020, 2, 10, 5, 20, tzinfo=UTC)
        assert found.get_partition_keys(current_time=early)[-1] < last


def test_the_last_day_is_built_and_none_after_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    last = tick(tmp_path, "daily_payments", datetime(2020, 3, 1, 1, 30, tzinfo=UTC), instance)
    assert [request.partition_key for request in last.run_requests] == ["2020-02-29"]
    done = tick(tmp_path, "daily_payments", datetime(2020, 3, 2, 1, 30, tzinfo=UTC), instance)
    assert done.skip_message == "source payments is closed: it ends on 2020-03-01"


def test_the_last_hour_is_built_and_none_after_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    at = datetime(2020, 3, 1, 0, 30, tzinfo=UTC)
    [request] = tick(tmp_path, "hourly_payments", at, instance, HOURLY).run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2020-02-29-22:00"
    assert request.tags["dagster/asset_partition_range_end"] == "2020-02-29-23:00"
    done = tick(tmp_path, "hourly_payments", LATER, instance, HOURLY)
    assert done.skip_message == "source payments is closed: it ends on 2020-03-01"


def test_nothing_ticks_for_a_source_that_is_over(tmp_path: Path) -> None:
    ours = {"daily_payments", "hourly_payments", "build_arrived_payments"}

    def ticking(now: datetime) -> set[str]:
        found = location(tmp_path, HOURLY, now).get_repository_def()
        schedules = {one.name for one in found.schedule_defs}
        return ours & (schedules | {one.name for one in found.sensor_defs})

    assert ticking(datetime(2020, 3, 2, 1, 29, tzinfo=UTC)) == ours
    # A file of its last days may still be late.
    assert ticking(datetime(2020, 3, 2, 1, 31, tzinfo=UTC)) == {"build_arrived_payments"}
    assert ticking(LATER) == set()


def test_late_days_from_the_end_on_are_not_built_again(tmp_path: Path) -> None:
    source = closed_plan(tmp_path).sources["payments"]
    found = LateDays((date(2020, 3, 1), date(2020, 2, 29)), 7)
    [request] = late_requests(source, found, date(2020, 1, 1), LATER)
    assert "2020-02-29|2020-03-01" in str(request.run_key)


def test_a_backfill_beyond_the_end_is_refused_with_it(tmp_path: Path) -> None:
    plan = closed_plan(tmp_path)
    range_runs(plan, ["spend"], Days.parse("2020-02-01", "2020-03-01"), LATER)
    with pytest.raises(PlatformError) as caught:
        range_runs(plan, ["spend"], Days.parse("2020-02-01", "2020-03-02"), LATER)
    assert caught.value.what == (
        "source payments is closed: it ends on 2020-03-01, and 2020-03-01 is asked for"
    )
    assert "--end 2020-03-01" in caught.value.fix


def test_a_closed_source_lacks_no_days_and_promises_no_freshness(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    plan = closed_plan(tmp_path)
    facts = list(day_facts(instance, plan, int(LATER.timestamp() * 1000)))
    assert facts
    assert all(fact.is_ok for fact in facts)
    assert features_freshness(plan.view("spend")) is None


def test_a_spine_beyond_the_end_misses_no_day(tmp_path: Path) -> None:
    view = closed_plan(tmp_path).view("spend")
    end_ms = (END - date(1970, 1, 1)).days * DAY_MS
    ranges = reached_days(view, pa.array(np.array([end_ms + DAY_MS])))
    assert all(some.last < END for some in ranges)
