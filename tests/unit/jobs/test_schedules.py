"""When a source's days are built by themselves: ticks, what they ask for, and open days' readers."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._core.definitions.freshness import CronFreshnessPolicy, TimeWindowFreshnessPolicy
from dagster._utils.schedules import schedule_execution_time_iterator

from feature_assets.specs import source_partitions, view_specs
from feature_assets.timing import complete_day, due_days, hourly_cron, open_hours
from jobs.definitions import build_definitions
from millrace.durations import DAY_MS, HOUR_MS
from millrace.errors import DataError
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.declarations import plan_of
from resources.settings import Settings, settings_from_env
from streaming.upload.plan import Held, UploadPlan, plan_upload
from tests.support import tile_lakes
from tests.support.fake_offline import DECLARATIONS, FakeOffline, payments_there

BERLIN = ZoneInfo("Europe/Berlin")
DAILY_AT_SIX = '{at: "06:00", timezone: Europe/Berlin}'


def plan_with(folder: Path, schedule: str | None, lateness: str = "90m") -> Plan:
    """Return the plan of the fake declarations with a schedule, and with promised freshness."""
    text = DECLARATIONS.replace("filter:", "freshness: 1h\n    filter:", 1)
    rules = f"lateness: {lateness}" + (f"\n    schedule: {schedule}" if schedule else "")
    file = folder / "scheduled.yaml"
    file.write_text(text.replace("lateness: 90m", rules), encoding="utf-8")
    return plan_of([file])


def source_with(folder: Path, schedule: str | None, lateness: str = "90m") -> SourcePlan:
    return plan_with(folder, schedule, lateness).sources["payments"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as instance:
        yield instance


def location(folder: Path, schedule: str | None, lateness: str = "90m") -> dg.Definitions:
    """Return a code location whose raw file is there."""
    payments_there(folder)
    settings = settings_from_env({"MILLRACE_DATA": str(folder)})
    return build_definitions(plan_with(folder, schedule, lateness), settings, offline=FakeOffline())


def tick(defs: dg.Definitions, name: str, at: datetime, instance: dg.DagsterInstance) -> Any:
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=defs.get_repository_def()
    )
    return defs.resolve_schedule_def(name).evaluate_tick(context)


def ticks_of(defs: dg.Definitions, first: datetime) -> Iterator[datetime]:
    """Return the daily ticks from an instant on, as Dagster finds them."""
    daily = defs.resolve_schedule_def("daily_payments")
    zone = daily.execution_timezone
    return schedule_execution_time_iterator(first.timestamp(), daily.cron_schedule, zone)


def asked(done: Any) -> list[str | None]:
    return [request.partition_key for request in done.run_requests]


def utc(month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=UTC)


# The daily tick.


def test_a_day_is_complete_by_the_same_instant_in_every_zone() -> None:
    early, late = utc(6, 2, 1, 29), utc(6, 2, 1, 30)
    lateness_ms = 90 * 60_000
    for zone in (UTC, BERLIN, ZoneInfo("Pacific/Auckland"), ZoneInfo("America/Los_Angeles")):
        assert complete_day(early.astimezone(zone), lateness_ms) == date(2026, 5, 31)
        assert complete_day(late.astimezone(zone), lateness_ms) == date(2026, 6, 1)


def test_a_tick_has_the_time_and_the_zone_of_its_source(tmp_path: Path) -> None:
    daily = location(tmp_path, DAILY_AT_SIX).resolve_schedule_def("daily_payments")
    assert (daily.cron_schedule, daily.execution_timezone) == ("0 6 * * *", "Europe/Berlin")
    daily = location(tmp_path, None).resolve_schedule_def("daily_payments")
    assert (daily.cron_schedule, daily.execution_timezone) == ("30 1 * * *", "UTC")


def test_a_tick_in_a_zone_asks_for_the_newest_complete_day(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, DAILY_AT_SIX)
    done = tick(defs, "daily_payments", datetime(2026, 7, 9, 6, 0, tzinfo=BERLIN), instance)
    [request] = done.run_requests
    assert (request.partition_key, request.run_key) == ("2026-07-08", "2026-07-08")
    # By this tag an hourly tick knows the run.
    assert request.tags["dagster/schedule_name"] == "daily_payments"


def test_a_tick_before_yesterday_is_complete_asks_for_the_day_before(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, '{at: "00:30"}')
    assert asked(tick(defs, "daily_payments", utc(7, 9, 0, 30), instance)) == ["2026-07-07"]


@pytest.mark.parametrize(
    ("first", "instants"),
    [
        (utc(3, 28), [utc(3, 28, 1, 30), utc(3, 29, 1, 0), utc(3, 30, 0, 30)]),
        (utc(10, 24), [utc(10, 24, 0, 30), utc(10, 25, 1, 30), utc(10, 26, 1, 30)]),
    ],
    ids=["spring", "autumn"],
)
def test_a_time_that_a_zone_skips_or_repeats_ticks_once(
    tmp_path: Path, first: datetime, instants: list[datetime]
) -> None:
    defs = location(tmp_path, '{at: "02:30", timezone: Europe/Berlin}')
    assert [one.astimezone(UTC) for one in islice(ticks_of(defs, first), 3)] == instants


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("at", ["00:30", "02:30", "03:00", "11:15", "19:45", "21:00"])
def test_every_day_of_a_year_is_asked_for_wherever_the_clock_is_put(
    tmp_path: Path, zone: str, at: str
) -> None:
    defs = location(tmp_path, f'{{at: "{at}", timezone: {zone}}}')
    source = source_with(tmp_path, f'{{at: "{at}", timezone: {zone}}}')
    due = [due_days(source, one) for one in islice(ticks_of(defs, utc(1, 3)), 365)]
    days = {day for of_one in due for day in of_one}
    assert days == {min(days) + timedelta(days=n) for n in range(len(days))}
    assert len(days) in {365, 366}
    assert max(len(of_one) for of_one in due) <= 2


def test_a_tick_that_closes_two_days_asks_for_each_by_its_key(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, '{at: "02:30", timezone: Europe/Berlin}')
    done = tick(defs, "daily_payments", utc(10, 25, 1, 30).astimezone(BERLIN), instance)
    assert asked(done) == ["2026-10-23", "2026-10-24"]
    assert [request.run_key for request in done.run_requests] == asked(done)


# The hourly tick.


def test_only_a_source_that_asks_for_it_is_built_each_hour(tmp_path: Path) -> None:
    names = {one.name for one in location(tmp_path, None).get_repository_def().schedule_defs}
    assert "hourly_payments" not in names
    hourly = location(tmp_path, "{refresh: hourly}").resolve_schedule_def("hourly_payments")
    assert (hourly.cron_schedule, hourly.execution_timezone) == ("30 * * * *", "UTC")
    assert hourly.default_status is dg.DefaultScheduleStatus.RUNNING


@pytest.mark.parametrize(
    ("lateness_ms", "cron"),
    [(0, "0 * * * *"), (HOUR_MS, "0 * * * *"), (90_001, "2 * * * *"), (59 * 60_001, "0 * * * *")],
)
def test_an_hourly_tick_comes_when_a_day_may_close(lateness_ms: int, cron: str) -> None:
    assert hourly_cron(lateness_ms) == cron


@pytest.mark.parametrize(
    ("lateness", "at", "hours"),
    [
        ("90m", utc(6, 9, 14, 30), "[2026-06-09T12:00, 2026-06-09T15:00)"),
        ("90m", utc(6, 9, 0, 30), "[2026-06-08T22:00, 2026-06-09T01:00)"),
        ("1h", utc(6, 9), "[2026-06-08T22:00, 2026-06-09)"),
        ("0s", utc(6, 9, 1), "[2026-06-09T00:00, 2026-06-09T01:00)"),
        ("26h", utc(6, 9, 1), "[2026-06-07T22:00, 2026-06-09T01:00)"),
    ],
)
def test_the_hours_that_have_begun_and_were_not_complete_an_hour_ago_are_built(
    tmp_path: Path, lateness: str, at: datetime, hours: str
) -> None:
    assert str(open_hours(source_with(tmp_path, "{refresh: hourly}", lateness), at)) == hours


@pytest.mark.parametrize("lateness", ["0s", "10m", "1h", "90m", "26h"])
def test_every_hour_is_built_at_the_tick_at_which_it_closes(tmp_path: Path, lateness: str) -> None:
    source = source_with(tmp_path, "{refresh: hourly}", lateness)
    late = timedelta(milliseconds=source.allowed_lateness_ms)
    for hour in range(48):
        close = utc(6, 9) + timedelta(hours=hour + 1) + late
        built = open_hours(source, close)
        begin_ms = int((utc(6, 9) + timedelta(hours=hour)).timestamp() * 1000)
        assert built.start_ms <= begin_ms < built.end_ms


def test_an_hourly_tick_asks_for_the_open_hours_in_one_run(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, "{refresh: hourly}")
    [request] = tick(defs, "hourly_payments", utc(6, 9, 0, 30), instance).run_requests
    assert request.run_key == "2026-06-09T00"
    assert request.tags["dagster/asset_partition_range_start"] == "2026-06-08-22:00"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-06-09-00:00"


def test_the_daily_tick_of_a_source_of_hours_builds_the_hours_of_the_day(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    [request] = tick(
        location(tmp_path, "{refresh: hourly}"), "daily_payments", utc(6, 9, 1, 30), instance
    ).run_requests
    assert request.run_key == "2026-06-08"
    assert request.tags["dagster/asset_partition_range_start"] == "2026-06-08-00:00"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-06-08-23:00"


def test_an_hourly_tick_is_skipped_with_the_reason(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, "{refresh: hourly}", "0s")

    def said(at: datetime) -> str:
        return str(tick(defs, "hourly_payments", at, instance).skip_message)

    before = datetime(2019, 12, 31, 5, tzinfo=UTC)
    assert "2019-12-31 is before the start of payments, 2020-01-01" in said(before)
    (tmp_path / "payments.parquet").unlink()
    assert str(tmp_path / "payments.parquet") in said(utc(6, 9, 5))


def test_hours_before_the_start_are_left_out(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    defs = location(tmp_path, "{refresh: hourly}")
    [request] = tick(
        defs, "hourly_payments", datetime(2020, 1, 1, 0, 30, tzinfo=UTC), instance
    ).run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2020-01-01-00:00"


def test_an_hourly_tick_waits_for_runs_of_its_job_but_not_for_the_daily_one(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    defs = location(tmp_path, "{refresh: hourly}")
    job, at = defs.resolve_job_def("daily_payments"), utc(6, 9, 1, 30)
    instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.STARTED,
        tags={
            "dagster/schedule_name": "daily_payments",
            "dagster/asset_partition_range_start": "2026-06-08-00:00",
            "dagster/asset_partition_range_end": "2026-06-08-23:00",
        },
    )
    assert tick(defs, "hourly_payments", at, instance).run_requests
    run = instance.create_run_for_job(
        job,
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={"dagster/schedule_name": "hourly_payments"},
    )
    assert tick(defs, "hourly_payments", at, instance).skip_message == (
        "daily_payments is under way"
    )
    instance.delete_run(run.run_id)
    assert tick(defs, "hourly_payments", at, instance).run_requests


# Partitions and deadlines.


def test_the_partitions_are_days_or_the_hours_up_to_the_one_that_is_open(tmp_path: Path) -> None:
    now = datetime(2020, 1, 9, 5, 20, tzinfo=UTC)
    for schedule, first, last in (
        (None, "2020-01-01", "2020-01-08"),
        ("{refresh: hourly}", "2020-01-01-00:00", "2020-01-09-05:00"),
    ):
        found = source_partitions(plan_with(tmp_path, schedule).views_of("payments"))
        keys = found.get_partition_keys(current_time=now)
        assert (keys[0], keys[-1]) == (first, last)


def test_an_open_hour_can_be_built_in_a_run(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """The newest partition of the definition is the current hour, whichever that is."""
    defs = location(tmp_path, "{refresh: hourly}")
    days = source_partitions(plan_with(tmp_path, "{refresh: hourly}").views_of("payments"))
    key = days.get_last_partition_key()
    assert key is not None
    tags = {
        "dagster/asset_partition_range_start": key,
        "dagster/asset_partition_range_end": key,
    }
    job = defs.resolve_job_def("daily_payments")
    assert job.execute_in_process(instance=instance, tags=tags).success
    built = instance.get_materialized_partitions(dg.AssetKey(["features", "spend"]))
    assert built == {key}


def policy_of(folder: Path, schedule: str | None) -> Any:
    view = plan_with(folder, schedule).views["spend"]
    return view_specs(view, source_partitions([view]), "/lake")[1].freshness_policy


def test_a_deadline_follows_the_schedule(tmp_path: Path) -> None:
    at_six = policy_of(tmp_path, DAILY_AT_SIX)
    assert isinstance(at_six, CronFreshnessPolicy)
    assert (at_six.deadline_cron, at_six.timezone) == ("0 9 * * *", "Europe/Berlin")
    assert at_six.lower_bound_delta == timedelta(hours=4)
    late = policy_of(tmp_path, '{at: "22:30"}')
    assert (late.deadline_cron, late.timezone) == ("30 1 * * *", "UTC")
    hourly = policy_of(tmp_path, "{refresh: hourly}")
    assert isinstance(hourly, TimeWindowFreshnessPolicy)
    assert hourly.fail_window.to_timedelta() == timedelta(hours=4)


# Uploads.


class TileLake:
    """A lake of tiles whose days were built at instants of the test's choice."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.settings: Settings = settings_from_env(
            {
                "MILLRACE_HOME": str(home),
                "MILLRACE_LAKE": str(home / "lake"),
                "MILLRACE_VIEWS": str(home / "views"),
            }
        )
        self.view: ViewPlan = tile_lakes.plan_of(self.settings).views["upload_windows"]
        self._monkeypatch = monkeypatch

    def build(self, number: int, at_ms: int) -> None:
        """Build a day, counted from the start; ``at_ms`` from the start as well."""
        now_us = (tile_lakes.START_MS + at_ms) * 1000
        self._monkeypatch.setattr("offline.tables.partition_log._now_us", lambda: now_us)
        tiles = tile_lakes.random_tiles(self.view, seed=number, days=5)
        tile_lakes.build(self.settings, self.view, tiles, [tile_day(number)])

    def plan(self, at_ms: int, held: Held | None = None) -> UploadPlan:
        now_ms = tile_lakes.START_MS + at_ms
        return plan_upload(self.settings, self.view, held or Held(), now_ms)


def tile_day(number: int) -> date:
    return tile_lakes.START + timedelta(days=number)


@pytest.fixture
def tile_lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TileLake:
    return TileLake(tmp_path, monkeypatch)


def test_an_open_day_does_not_move_the_cut_over(tile_lake: TileLake) -> None:
    tile_lake.build(0, DAY_MS + HOUR_MS)
    before = tile_lake.plan(DAY_MS + 2 * HOUR_MS)
    for hour in (2, 3):
        tile_lake.build(1, DAY_MS + hour * HOUR_MS)
        found = tile_lake.plan(DAY_MS + hour * HOUR_MS)
        # Nothing new to upload either: the sensor goes by when these days were built.
        assert (found.days, found.cut_over_ms, found.built_ms) == (
            before.days,
            before.cut_over_ms,
            before.built_ms,
        )
    assert found.cut_over_ms == tile_lakes.START_MS + DAY_MS
    assert found.missing_days == ()
    tile_lake.build(1, 2 * DAY_MS + HOUR_MS)
    found = tile_lake.plan(2 * DAY_MS + HOUR_MS)
    assert found.days == (tile_day(0), tile_day(1))
    assert found.cut_over_ms == tile_lakes.START_MS + 2 * DAY_MS
    assert found.built_ms == tile_lakes.START_MS + 2 * DAY_MS + HOUR_MS


def test_a_day_that_nobody_built_after_its_end_is_uploaded_and_not_sealed(
    tile_lake: TileLake,
) -> None:
    tile_lake.build(0, DAY_MS + HOUR_MS)
    tile_lake.build(1, DAY_MS + 3 * HOUR_MS)
    tile_lake.build(2, 3 * DAY_MS + HOUR_MS)
    tile_lake.build(3, 4 * DAY_MS + HOUR_MS)
    found = tile_lake.plan(5 * DAY_MS)
    assert found.days == tuple(tile_day(n) for n in range(4))
    assert found.outdated_days == (tile_day(1),)
    assert found.missing_days == ()
    assert found.sealed_before_ms == tile_lakes.START_MS + DAY_MS


def test_open_days_alone_are_nothing_to_upload(tile_lake: TileLake) -> None:
    tile_lake.build(0, 5 * HOUR_MS)
    with pytest.raises(DataError, match="no day of the tiles of upload_windows is built and over"):
        tile_lake.plan(5 * HOUR_MS)
