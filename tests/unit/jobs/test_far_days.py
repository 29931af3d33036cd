"""The first and the last days there are: ranges of them, and declarations that begin there."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest

from feature_assets.specs import source_partitions
from jobs.batch.backfill_plan import range_runs
from jobs.definitions import build_definitions
from lineage.facets import nominal_days
from millrace.calendar import FIRST_DAY, FIRST_MS, LAST_DAY, LAST_MS, day_ms, day_of, days_between
from millrace.compile.checks import check_rules, source_rules
from millrace.days import Days, day_ranges
from millrace.errors import PlatformError
from millrace.plan import Plan
from millrace.quality.baseline import baseline_of
from millrace.quality.judge import judge_day
from millrace.quality.profile import DayProfile
from offline.tables.stages import history_start
from resources.dagster.partition_keys import key_range, partition_keys
from resources.declarations import plan_of
from resources.lake.writing import Slices
from resources.settings import settings_from_env
from streaming.archive.tables import days_of
from streaming.produce.producer import _stamped
from tests.support.fake_offline import DECLARATIONS, FakeOffline, payments_there

STARTS = ("0001-01-01", "1582-10-05", "1969-12-31", "9999-12-30", "9999-12-31")
NOW = datetime(2024, 3, 1, 12, tzinfo=UTC)


def plan_from(folder: Path, start: str, schedule: str = "") -> Plan:
    file = folder / "payments.yaml"
    text = DECLARATIONS.replace("2020-01-01", start).replace(
        "lateness: 90m", f"lateness: 90m{schedule}"
    )
    file.write_text(text, encoding="utf-8")
    return plan_of([file])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as instance:
        yield instance


def test_a_range_holds_the_last_day() -> None:
    days = Days.parse("9999-12-30", "10000-01-01")
    assert list(days) == [date(9999, 12, 30), LAST_DAY]
    assert (len(days), days.last, LAST_DAY in days) == (2, LAST_DAY, True)
    assert (str(days), days.end_text) == ("[9999-12-30, 10000-01-01)", "10000-01-01")
    assert days.end_ms == LAST_MS + 1
    assert Days.covering([LAST_DAY]) == days.within([LAST_DAY]) == days.since(LAST_DAY)


def test_a_range_holds_hours_of_the_last_day() -> None:
    days = Days.parse("9999-12-31T22:00", "10000-01-01")
    assert days.parts == {LAST_DAY: range(22, 24)}
    keys = partition_keys(days, by_hour=True)
    assert keys == ["9999-12-31-22:00", "9999-12-31-23:00"]
    assert key_range(keys[0], keys[-1]) == days
    assert Days.parse("9999-12-31T22:00", "9999-12-31T23:00").end_ms == LAST_MS + 1 - 3_600_000


@pytest.mark.parametrize(
    ("start", "end"), [("0001-01-01", "0001-01-01"), ("9999-12-31", "9999-12-31")]
)
def test_an_empty_range_at_either_end_is_refused_with_the_next_day(start: str, end: str) -> None:
    following = {"0001-01-01": "0001-01-02", "9999-12-31": "10000-01-01"}[start]
    with pytest.raises(PlatformError, match=f"(?s)holds no day.*such as {following}"):
        Days.parse(start, end)


def test_days_next_to_each_other_join_up_to_either_end() -> None:
    ranges = day_ranges([LAST_DAY, date(9999, 12, 30), FIRST_DAY])
    assert ranges == [Days.covering([FIRST_DAY]), Days(date(9999, 12, 30), None)]
    slices = Slices.of_hours([LAST_DAY, FIRST_DAY], {})
    assert slices.ranges_ms == [
        (FIRST_MS, FIRST_MS + 86_400_000),
        (LAST_MS - 86_399_999, LAST_MS + 1),
    ]
    assert "'10000" not in slices.predicate("t")


def test_a_day_out_of_reach_is_the_nearest_there_is() -> None:
    assert (day_of(FIRST_MS - 1), day_of(LAST_MS + 1)) == (FIRST_DAY, LAST_DAY)
    assert days_between(LAST_DAY, FIRST_DAY) == []


def test_the_range_of_a_run_on_the_last_day_ends_with_the_calendar() -> None:
    facet = nominal_days([LAST_DAY])
    assert facet["nominalEndTime"].startswith("9999-12-31T23:59:59.999")


@pytest.mark.parametrize("schedule", ["", "\n    schedule: {refresh: hourly}"])
@pytest.mark.parametrize("start", STARTS)
def test_a_far_start_takes_nothing_of_the_code_location_down(
    tmp_path: Path, instance: dg.DagsterInstance, start: str, schedule: str
) -> None:
    plan = plan_from(tmp_path, start, schedule)
    payments_there(tmp_path)
    settings = settings_from_env({"MILLRACE_DATA": str(tmp_path), "MILLRACE_LAKE": "/lake"})
    defs = build_definitions(plan, settings, offline=FakeOffline())
    assert dg.AssetKey(["features", "spend"]) in defs.resolve_asset_graph().get_all_asset_keys()
    views = plan.views_of("payments")
    partitions = source_partitions(views)
    assert partitions.get_num_partitions() > 0
    # Of both views: the other one begins in 2020, and is due.
    daily = defs.resolve_schedule_def("daily_payments")
    with dg.build_schedule_context(
        instance, scheduled_execution_time=NOW, repository_def=defs.get_repository_def()
    ) as context:
        assert daily.evaluate_tick(context).run_requests
    for view in views:
        assert check_rules(view)
        assert history_start(view, FIRST_DAY) == FIRST_DAY
    assert source_rules(plan.sources["payments"], views)


@pytest.mark.parametrize("start", ["9999-12-30", "9999-12-31"])
def test_where_every_view_begins_in_the_year_9999_nothing_is_due(
    tmp_path: Path, instance: dg.DagsterInstance, start: str
) -> None:
    file = tmp_path / "payments.yaml"
    text = DECLARATIONS.replace("2020-01-01", start).replace("2020-01-05", start)
    file.write_text(text, encoding="utf-8")
    plan = plan_of([file])
    assert source_partitions(plan.views_of("payments")).get_num_partitions() == 0
    settings = settings_from_env({"MILLRACE_DATA": str(tmp_path)})
    defs = build_definitions(plan, settings, offline=FakeOffline())
    daily = defs.resolve_schedule_def("daily_payments")
    with dg.build_schedule_context(
        instance, scheduled_execution_time=NOW, repository_def=defs.get_repository_def()
    ) as context:
        skipped = daily.evaluate_tick(context).skip_message
    assert skipped == f"2024-02-29 is before the start of payments, {start}"


def test_days_that_are_to_come_are_refused_up_to_the_last(tmp_path: Path) -> None:
    plan = plan_from(tmp_path, "0001-01-01")
    with pytest.raises(PlatformError, match=r"(?s)9999-12-31 is not over.*--end 2024-03-01"):
        range_runs(plan, ["spend"], Days.parse("9999-12-31", "10000-01-01"), NOW)


def test_partitions_begin_with_the_year_1000(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    plan = plan_from(tmp_path, "0001-01-01")
    offline = FakeOffline(beyond=(FIRST_DAY, date(999, 12, 31)))
    with pytest.raises(PlatformError, match=r"0001-01-01 is no partition"):
        range_runs(plan, ["spend"], Days.parse("0001-01-01", "1000-01-02"), NOW)
    defs = build_definitions(plan, settings_from_env({}), offline=offline)
    run = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(["events", "payments_events"])],
        tags={
            "dagster/asset_partition_range_start": "1000-01-01",
            "dagster/asset_partition_range_end": "1000-01-02",
        },
    )
    logged = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    told = [e.asset_materialization for e in logged if e.asset_materialization]
    days = [one.partition for one in told if one.asset_key.path[0] == "events"]
    assert days == ["1000-01-01", "1000-01-02"]


def test_the_archive_knows_the_days_of_both_ends_and_none_beyond() -> None:
    found = days_of([FIRST_MS, LAST_MS, FIRST_MS - 1, LAST_MS + 1, None])
    assert found.to_pylist() == [FIRST_DAY, LAST_DAY, None, None, None]


@pytest.mark.parametrize(
    ("value", "moved"),
    [
        ("2024-03-01T00:00:01.000Z", "2026-03-01T00:00:01.000Z"),
        ("9999-12-31T00:00:00.000Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_what_is_shifted_to_now_stays_within_the_calendar(value: str, moved: str) -> None:
    then, now = day_ms(date(2024, 3, 1)), day_ms(date(2026, 3, 1))
    assert _stamped(value, "timestamp", then, now) == moved


def test_a_baseline_of_the_first_days_is_what_there_is() -> None:
    profile = DayProfile("events/payments", FIRST_DAY, 1)
    assert baseline_of(FIRST_DAY, [profile], {}).days == ()
    assert judge_day(profile, [profile], ()) == ()
