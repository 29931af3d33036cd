"""Which days a spine reaches into, and what is said of those that are not there."""

import time
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from millrace.calendar import LAST_MS
from millrace.days import Days, day_ranges
from millrace.durations import DAY_MS
from millrace.errors import DataError
from millrace.plan import ViewPlan
from millrace.resolve import resolve
from millrace.spec import BatchSource, Entity, Feature, FeatureView, Source, Specs
from offline.tables.history import find_history, reached_days
from offline.tables.partition_log import append_partition_log
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env

START = date(2024, 1, 1)
START_MS = (START - date(1970, 1, 1)).days * DAY_MS
HOUR_MS = 3_600_000
RAW = BatchSource("parquet", "orders.parquet")
SOURCE = Source("orders", {"ts": "timestamp", "who": "int64"}, "ts", batch=RAW)


def view_of(*features: Feature) -> ViewPlan:
    view = FeatureView("buyers", ("buyer",), "orders", START.isoformat(), features)
    return resolve(Specs((SOURCE,), (Entity("buyer", "who", "int64"),), (view,))).views["buyers"]


def reached(view: ViewPlan, *query_ms: int) -> list[int]:
    """Return the days reached into, counted from the start."""
    ranges = reached_days(view, pa.array(query_ms, pa.int64()))
    return [(day - START).days for some in ranges for day in some]


HOURLY = Feature("n", "count", "1h")


def test_a_query_at_midnight_does_not_reach_into_its_own_day() -> None:
    assert reached(view_of(HOURLY), START_MS + 3 * DAY_MS) == [2]
    assert reached(view_of(HOURLY), START_MS + 3 * DAY_MS + 1) == [2, 3]


def test_the_tail_reaches_back_to_its_hop_and_no_further() -> None:
    weekly = view_of(Feature("n", "count", "7d", hop="1d"))
    assert reached(weekly, START_MS + 9 * DAY_MS + 12 * HOUR_MS) == list(range(2, 10))


def test_days_between_far_queries_are_not_reached() -> None:
    view = view_of(HOURLY)
    asked = [START_MS + d * DAY_MS + 12 * HOUR_MS for d in (1, 5)]
    assert reached(view, *asked) == [1, 5]


def test_an_offset_reaches_into_the_past_alone() -> None:
    view = view_of(Feature("n", "count", "1d", offset="3d", hop="1d"))
    assert reached(view, START_MS + 10 * DAY_MS + 1) == [6]


def test_a_lifetime_reaches_to_the_start() -> None:
    view = view_of(HOURLY, Feature("m", "count", "lifetime"))
    assert reached(view, START_MS + 3 * DAY_MS + 1) == [0, 1, 2, 3]


def test_nothing_before_the_start_is_reached() -> None:
    view = view_of(Feature("n", "count", "30d"))
    assert reached(view, START_MS + 1) == [0]
    assert reached(view, START_MS, START_MS - DAY_MS) == []
    assert reached(view) == []


# ---- what is there


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    return replace(settings_from_env({}), lake=str(tmp_path / "lake"))


def write_days(lake: Settings, fingerprint: str, outcomes: dict[int, str | None]) -> None:
    """Write one event a day and log each day's outcome; days count from the start."""
    days = [START + timedelta(days=d) for d in outcomes]
    times = pa.array([START_MS + d * DAY_MS for d in outcomes])
    table = pa.table(
        {"who": [1] * len(days), "_event_ms": times, "_ingest_ms": times, "event_date": days}
    )
    write_deltalake(f"{lake.lake}/events/orders", table, partition_by=["event_date"], mode="append")
    logged = tuple(
        PartitionOutcome(START + timedelta(days=d), rows=1, error=error)
        for d, error in outcomes.items()
    )
    append_partition_log(lake, BuildReport("events/orders", None, 0, logged), fingerprint)


def asked_on_days(*days: int) -> pa.Array:
    return pa.array([START_MS + d * DAY_MS + 2 * HOUR_MS for d in days], pa.int64())


def test_a_whole_history_has_no_warnings(lake: Settings) -> None:
    view = view_of(HOURLY)
    write_days(lake, view.source.fingerprint, {0: None, 1: None, 2: None})
    history = find_history(lake, view, asked_on_days(1, 2))
    assert history.warnings == ()
    assert (history.rows, history.version, history.has_null_keys) == (2, 0, False)


def test_missing_failed_and_outdated_days_are_named_with_the_mend(lake: Settings) -> None:
    view = view_of(HOURLY)
    write_days(lake, view.source.fingerprint, {0: None, 1: "raw/2.parquet: truncated"})
    write_days(lake, "of another declaration", {2: None})
    history = find_history(lake, view, asked_on_days(0, 1, 2, 3, 5))
    found = {w.code: w for w in history.warnings}
    assert set(found) == {"days_never_built", "days_failed", "days_outdated"}
    never = found["days_never_built"]
    assert never.days == tuple(day_ranges([START + timedelta(days=d) for d in (3, 5)]))
    assert "[2024-01-04, 2024-01-05), [2024-01-06, 2024-01-07)" in never.what
    assert never.fix == "millrace backfill buyers --start 2024-01-04 --end 2024-01-07"
    assert "raw/2.parquet: truncated" in found["days_failed"].what
    assert found["days_failed"].days == (Days(date(2024, 1, 2), date(2024, 1, 3)),)
    assert found["days_outdated"].days == (Days(date(2024, 1, 3), date(2024, 1, 4)),)
    assert never.as_json()["days"] == [["2024-01-04", "2024-01-05"], ["2024-01-06", "2024-01-07"]]


def test_days_that_were_built_before_their_last_events_could_come_are_named(
    lake: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(HOURLY)
    write_days(lake, view.source.fingerprint, {0: None})
    closed_us = (START_MS + 2 * DAY_MS + HOUR_MS) * 1000
    monkeypatch.setattr("offline.tables.partition_log._now_us", lambda: closed_us - 1)
    write_days(lake, view.source.fingerprint, {1: None})
    (warning,) = find_history(lake, view, asked_on_days(0, 1)).warnings
    assert warning.code == "days_open"
    assert warning.days == (Days(date(2024, 1, 2), date(2024, 1, 3)),)
    assert (
        "built before their last events could come, or not as a whole: [2024-01-02, 2024-01-03)"
        in warning.what
    )
    monkeypatch.setattr("offline.tables.partition_log._now_us", lambda: closed_us)
    write_days(lake, view.source.fingerprint, {1: None})
    assert find_history(lake, view, asked_on_days(0, 1)).warnings == ()


def test_one_row_at_the_end_of_the_calendar_costs_no_look_at_each_day_before(
    lake: Settings,
) -> None:
    view = view_of(Feature("all", "count", window="lifetime"))
    write_days(lake, view.source.fingerprint, {0: None, 1: None, 4: None})
    far = pa.array([LAST_MS, START_MS + 2 * HOUR_MS], pa.int64())
    began = time.process_time()
    history = find_history(lake, view, far)
    assert time.process_time() - began < 1
    assert history.days == tuple(START + timedelta(days=d) for d in (0, 1, 4))
    [never] = history.warnings
    assert never.days == (
        Days(date(2024, 1, 3), date(2024, 1, 5)),
        Days(date(2024, 1, 6), None),
    )
    assert never.what.startswith("2913171 day(s) of events/orders")


def test_rows_before_the_start_are_counted(lake: Settings) -> None:
    view = view_of(HOURLY)
    write_days(lake, view.source.fingerprint, {0: None})
    (warning,) = find_history(lake, view, asked_on_days(0, -1, -2)).warnings
    assert warning.code == "before_start"
    assert "2 row(s) of the spine lie before the view's start 2024-01-01" in warning.what


def test_a_source_without_a_table_asks_for_a_backfill(lake: Settings) -> None:
    with pytest.raises(DataError) as caught:
        find_history(lake, view_of(HOURLY), asked_on_days(4))
    message = str(caught.value)
    assert "no events of source orders" in message
    assert "millrace backfill buyers --start 2024-01-01 --end 2024-01-06" in message
    assert "events/orders" in message
