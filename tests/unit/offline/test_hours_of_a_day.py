"""An hour is a slice of a day: ranges, keys, predicates, and what the partition log makes of them."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from millrace.calendar import day_ms
from millrace.days import ALL_HOURS, Days, Hours
from millrace.errors import PlatformError
from offline.store import OfflineStore
from offline.tables.events import count_archived_events
from offline.tables.partition_log import (
    PartitionState,
    append_partition_log,
    built_days,
    ended_days,
    published_days,
    quarantined_days,
    read_partition_log,
    whole_days,
)
from resources.dagster.partition_keys import (
    closing_key,
    key_day,
    key_range,
    partition_keys,
    range_tags,
)
from resources.declarations import plan_of
from resources.lake.delta import rows_by_hour
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.writing import Slices
from resources.settings import Settings, settings_from_env

MONDAY, TUESDAY, WEDNESDAY = (date(2024, 3, day) for day in (4, 5, 6))
HOUR_MS = 3_600_000
TABLE, PRINT = "events/orders", "0123456789abcdef"

instants = st.integers(0, 24 * 40).map(
    lambda hours: datetime(2024, 2, 1, tzinfo=UTC) + timedelta(hours=hours)
)


# Ranges and their keys.


@given(instants, st.integers(1, 24 * 5))
def test_a_range_of_hours_is_its_keys_and_back(start: datetime, length: int) -> None:
    days = Days.between(start, start + timedelta(hours=length))
    keys = partition_keys(days, by_hour=True)
    assert len(keys) == length == (days.end_ms - days.start_ms) // HOUR_MS
    assert keys == sorted(keys)
    assert keys[0] == f"{start:%Y-%m-%d-%H}:00"
    assert key_range(keys[0], keys[-1]) == days
    assert {key_day(key) for key in keys} == set(days)
    assert days.parts.keys() <= {days.start, days.last}
    assert all(days.hours(day) == days.parts.get(day, ALL_HOURS) for day in days)


@given(instants, st.integers(1, 24 * 5), st.data())
def test_a_part_of_a_range_holds_what_the_range_holds_of_its_days(
    start: datetime, length: int, data: st.DataObject
) -> None:
    days = Days.between(start, start + timedelta(hours=length))
    some = data.draw(st.lists(st.sampled_from(list(days)), min_size=1, unique=True))
    part = days.within(some)
    assert set(some) <= set(part)
    assert all(part.hours(day) == days.hours(day) for day in part)
    since = days.since(min(some))
    assert list(since) == [day for day in days if day >= min(some)]
    assert all(since.hours(day) == days.hours(day) for day in since)


def test_days_are_whole_unless_hours_are_named() -> None:
    days = Days.parse("2024-03-04", "2024-03-06")
    assert (days.is_whole, days.parts, str(days)) == (True, {}, "[2024-03-04, 2024-03-06)")
    assert partition_keys(days, by_hour=False) == ["2024-03-04", "2024-03-05"]
    assert len(partition_keys(days, by_hour=True)) == 48
    hours = Days.parse("2024-03-04T22:00", "2024-03-06T03:00Z")
    assert hours.parts == {MONDAY: range(22, 24), WEDNESDAY: range(3)}
    assert str(hours) == "[2024-03-04T22:00, 2024-03-06T03:00)"
    assert range_tags(hours, by_hour=True) == {
        "dagster/asset_partition_range_start": "2024-03-04-22:00",
        "dagster/asset_partition_range_end": "2024-03-06-02:00",
    }


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("2024-03-04T05:00", "2024-03-04T05:00", "holds no hour"),
        ("2024-03-04", "2024-03-04", "holds no day"),
        ("2024-03-04T05:30", "2024-03-05", "'2024-03-04T05:30' is not a day"),
        ("2024-03-04 05:00", "2024-03-05", "is not a day"),
    ],
)
def test_a_range_that_is_none_is_refused(start: str, end: str, told: str) -> None:
    with pytest.raises(PlatformError, match=told):
        Days.parse(start, end)


def test_a_day_is_told_at_its_last_hour() -> None:
    assert closing_key(MONDAY, by_hour=True) == "2024-03-04-23:00"
    assert closing_key(MONDAY, by_hour=False) == "2024-03-04"


# What is replaced.


def test_whole_days_are_replaced_as_partitions_and_parts_by_the_instant() -> None:
    assert Slices.of_hours([MONDAY, TUESDAY], {}).predicate("t") == (
        "(event_date >= DATE'2024-03-04' AND event_date <= DATE'2024-03-05')"
    )
    slices = Slices.of_hours([MONDAY, TUESDAY], {TUESDAY: range(2, 4), WEDNESDAY: range(1)})
    start = day_ms(TUESDAY) + 2 * HOUR_MS
    assert slices.predicate("t") == (
        "(event_date >= DATE'2024-03-04' AND event_date <= DATE'2024-03-04') OR "
        f"(event_date = DATE'2024-03-05' AND t >= {start} AND t < {start + 2 * HOUR_MS})"
    )
    assert slices.ranges_ms == [
        (day_ms(MONDAY), day_ms(TUESDAY)),
        (start, start + 2 * HOUR_MS),
    ]


def test_nothing_is_replaced_where_nothing_is_built() -> None:
    assert Slices.of_hours([], {MONDAY: range(2)}).predicate("t") == "false"


@pytest.mark.parametrize(
    ("hop_ms", "hours", "wanted"),
    [
        (60_000, range(5, 7), (5, 7)),
        (3 * HOUR_MS, range(5, 7), (3, 9)),
        (24 * HOUR_MS, range(5, 7), (0, 24)),
        (HOUR_MS * 3 // 2, range(5, 7), (4.5, 7.5)),
    ],
)
def test_a_tile_is_not_cut(hop_ms: int, hours: Hours, wanted: tuple[float, float]) -> None:
    [bounds] = Slices.of_hours([MONDAY], {MONDAY: hours}, hop_ms=hop_ms).bounds.values()
    assert bounds == tuple(day_ms(MONDAY) + edge * HOUR_MS for edge in wanted)


# The partition log.


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    return replace(settings_from_env({}), lake=str(tmp_path))


class Log:
    def __init__(self, lake: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lake, self.now_ms = lake, day_ms(MONDAY)
        monkeypatch.setattr("offline.tables.partition_log._now_us", lambda: self.now_ms * 1000)

    def add(
        self,
        hours: Hours = ALL_HOURS,
        *,
        at: float = 0,
        fingerprint: str = PRINT,
        held: str | None = None,
        error: str | None = None,
        missing: tuple[date, ...] = (),
        rows: int = 7,
    ) -> PartitionState:
        """Write an entry of Monday, ``at`` so many hours after its midnight; return what stands."""
        self.now_ms = day_ms(MONDAY) + int(at * HOUR_MS)
        outcome = PartitionOutcome(MONDAY, hours, rows=rows, error=error, missing_days=missing)
        report = BuildReport(TABLE, None, 1, (outcome,))
        append_partition_log(self.lake, report, fingerprint, held={MONDAY: held} if held else None)
        return self.state

    @property
    def state(self) -> PartitionState:
        return read_partition_log(self.lake, TABLE)[MONDAY]


@pytest.fixture
def log(lake: Settings, monkeypatch: pytest.MonkeyPatch) -> Log:
    return Log(lake, monkeypatch)


def test_a_day_is_whole_once_all_of_its_hours_were_built(log: Log) -> None:
    state = log.add(range(3, 24), at=25)
    assert (state.is_whole, state.hours) == (False, range(3, 24))
    assert state.lacks(range(2, 4))
    assert not state.lacks(range(3, 24))
    states = read_partition_log(log.lake, TABLE)
    assert built_days(states, PRINT) == {MONDAY}
    assert whole_days(states, PRINT) == frozenset()
    assert published_days(states, PRINT) == frozenset()
    state = log.add(range(3), at=26)
    assert (state.is_whole, state.lacks(ALL_HOURS)) == (True, False)
    assert published_days(read_partition_log(log.lake, TABLE), PRINT) == {MONDAY}


def test_a_day_was_over_if_each_hour_was(log: Log) -> None:
    for hour in range(24):
        log.add(range(hour, hour + 1), at=hour + 2.5)
    states = read_partition_log(log.lake, TABLE)
    assert ended_days(states, PRINT, int(1.5 * HOUR_MS)) == {MONDAY}
    assert ended_days(states, PRINT, int(1.5 * HOUR_MS) + 1) == frozenset()
    assert log.add(at=30).was_over(HOUR_MS)


def test_a_day_of_which_one_hour_was_built_too_early_was_not_over(log: Log) -> None:
    for hour in range(24):
        log.add(range(hour, hour + 1), at=hour + (0.9 if hour == 5 else 1))
    assert ended_days(read_partition_log(log.lake, TABLE), PRINT) == frozenset()


def test_hours_of_an_older_definition_make_the_day_outdated(log: Log) -> None:
    log.add(at=30, fingerprint="old")
    state = log.add(range(5, 24), at=31)
    assert state.fingerprint == "old"
    assert log.add(range(5), at=32).fingerprint == PRINT


def test_an_hour_that_failed_is_the_day_s_error_until_it_is_mended(log: Log) -> None:
    log.add(range(10), at=30, rows=50)
    state = log.add(range(3, 4), at=31, error="cut off", rows=0)
    assert (state.error, state.rows) == ("cut off", 50)
    assert [hour for hour in range(10) if state.lacks(range(hour, hour + 1))] == [3]
    assert log.add(range(10, 24), at=32, rows=90).error == "cut off"
    assert log.add(range(3, 4), at=33, rows=91).error is None


def test_what_hours_miss_is_missing_until_they_are_built_again(log: Log) -> None:
    sunday = MONDAY - timedelta(days=1)
    log.add(range(5), at=30, missing=(sunday,))
    assert log.add(range(5, 9), at=31).missing_days == (sunday,)
    assert log.add(range(9), at=32).missing_days == ()


def test_an_hour_leaves_a_day_held_back_until_it_is_judged_anew(log: Log) -> None:
    log.add(at=30, held="rows: 0")
    log.add(range(5, 6), at=31, held="its checks have not run")
    assert quarantined_days(read_partition_log(log.lake, TABLE)) == {
        MONDAY: "its checks have not run"
    }
    log.add(range(5, 6), at=32, error="cut off")
    assert quarantined_days(read_partition_log(log.lake, TABLE)) == {
        MONDAY: "its checks have not run"
    }
    log.add(at=33)
    assert quarantined_days(read_partition_log(log.lake, TABLE)) == {}


def test_rows_are_counted_by_the_hour_of_either_kind_of_time(lake: Settings) -> None:
    at = [day_ms(MONDAY), day_ms(MONDAY) + HOUR_MS - 1, day_ms(TUESDAY) - 1]
    table = pa.table(
        {
            "_event_ms": pa.array(at, pa.int64()),
            "event_time": pa.array([ms * 1000 for ms in at], pa.timestamp("us", tz="UTC")),
            "event_date": pa.array([MONDAY] * 3, pa.date32()),
        }
    )
    write_deltalake(f"{lake.lake}/t", table, partition_by=["event_date"])
    wanted = {MONDAY: (2, *(0,) * 22, 1), TUESDAY: (0,) * 24}
    for column in ("_event_ms", "event_time"):
        assert rows_by_hour(lake, "t", [MONDAY, TUESDAY], column) == wanted
    assert rows_by_hour(lake, "nothing", [MONDAY], "_event_ms") == {MONDAY: (0,) * 24}


# Hours of a source without files.

TAPS = """
version: millrace/v1
sources:
  - name: taps
    columns: {id: int64, at: timestamp, card: int64}
    event_time: at
    schedule: {refresh: hourly}
    stream: {topic: gate.taps, format: json}
entities: [{name: card, join_key: card, type: int64}]
feature_views:
  - name: rides
    entity: card
    source: taps
    start: 2024-03-04
    features: [{name: taps_2h, aggregate: count, window: 2h}]
"""


def test_archived_hours_are_counted_with_those_before_them(lake: Settings, tmp_path: Path) -> None:
    file = tmp_path / "taps.yaml"
    file.write_text(TAPS, encoding="utf-8")
    plan = plan_of([file])
    source, views = plan.sources["taps"], plan.views_of("taps")
    at = [day_ms(TUESDAY) + hour * HOUR_MS for hour in (1, 5, 5, 6)]
    events = pa.table(
        {
            "_event_ms": pa.array(at, pa.int64()),
            "_offset": pa.array(range(4), pa.int64()),
            "event_date": pa.array([TUESDAY] * 4, pa.date32()),
        }
    )
    write_deltalake(f"{lake.lake}/events/taps", events, partition_by=["event_date"])

    def counted(start: str, end: str) -> dict[date, Hours]:
        stages = OfflineStore(lake).plan(source, views, Days.parse(start, end))
        report = count_archived_events(lake, stages[0])
        [last] = [o for o in report.built if o.day == TUESDAY]
        assert (last.rows, last.rows_by_hour[5]) == (4, 2)
        return {o.day: o.hours for o in report.built}

    first = counted("2024-03-05T05:00", "2024-03-05T07:00")
    assert first == {MONDAY: ALL_HOURS, TUESDAY: range(7)}
    assert counted("2024-03-05T06:00", "2024-03-05T08:00") == {TUESDAY: range(6, 8)}
