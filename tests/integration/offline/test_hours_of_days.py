"""Hours as partitions on real Spark: however days are cut into hours, the tables are the same."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from checks.quality.gate import JudgedTable, judge_build
from feature_assets.timing import open_hours
from millrace.days import Days
from millrace.plan import Plan
from offline.tables.history import find_history
from offline.tables.partition_log import quarantined_days, read_partition_log, whole_days
from resources.declarations import load_plan
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests.support.lake_builds import LakeBuilds

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 4)
MIDNIGHT = datetime(2024, 3, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)
WHOLE = Days(FIRST, FIRST + timedelta(days=3))
FAR_MS = Days(FIRST, FIRST + timedelta(days=400)).end_ms

VIEWS = """
version: millrace/v1
sources:
  - name: orders
    columns: {id: int64, at: timestamp, arrived_at: timestamp, shop: string, cents: int64, weight: float64}
    event_time: at
    event_id: id
    ingest_time: arrived_at
    allowed_lateness: 90m
    schedule: {refresh: hourly}
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities:
  - {name: shop, join_key: shop, type: string}
feature_views:
  - name: quick
    entity: shop
    source: orders
    start: 2024-03-04
    filter: "cents > 10"
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: cents_30m, aggregate: sum, column: cents, window: 30m, offset: 10m}
      - {name: heaviest, aggregate: max, column: weight, window: lifetime}
    checks:
      - {type: null_rate, column: weight, max: 0.5, severity: error}
  - name: slow
    entity: shop
    source: orders
    start: 2024-03-04
    features:
      - {name: n_2d, aggregate: count, window: 2d, hop: 1d}
      - {name: last_cents, aggregate: last, column: cents, window: 6h, hop: 3h}
"""

TABLES = (
    "events/orders",
    "dead_letters/orders",
    "tiles/quick/v1",
    "tiles/slow/v1",
    "features/quick/v1",
)


def orders(weights: float = 1.0) -> list[dict[str, Any]]:
    """Three days: events at hours' edges, late ones, copies, ones without a time or a key."""
    rows = []
    for i in range(864):
        at = MIDNIGHT + timedelta(minutes=5 * i)
        lag = (0, 0, 7, 40, 89, 90, 91)[i % 7]
        row = {
            "id": i,
            "at": at - timedelta(milliseconds=i % 12 == 11),
            "arrived_at": at + timedelta(minutes=lag),
            "shop": None if i % 41 == 0 else f"shop {i * i % 4}",
            "cents": i * 7 % 100,
            "weight": None if i % 100 >= 100 * weights else 10 + (i % 11) / 7,
        }
        rows.append(row)
        if i % 13 == 0:
            rows.append({**row, "arrived_at": at + timedelta(minutes=lag + i % 60)})
        if i % 97 == 0:
            rows.append({**row, "id": 10_000 + i, "at": None})
    return rows


def write_rows(
    settings: Settings, rows: list[dict[str, Any]], until: datetime | None = None
) -> None:
    """Write what had arrived until an instant."""
    stamp = pa.timestamp("us", tz="UTC")
    table = pa.Table.from_pylist(
        [row for row in rows if until is None or row["arrived_at"] < until],
        schema=pa.schema(
            {
                "id": pa.int64(),
                "at": stamp,
                "arrived_at": stamp,
                "shop": pa.string(),
                "cents": pa.int64(),
                "weight": pa.float64(),
            }
        ),
    )
    folder = Path(str(settings.data))
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / "orders.parquet")


@pytest.fixture
def plan(settings: Settings, tmp_path: Path) -> Plan:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "orders.yaml").write_text(VIEWS)
    return load_plan(settings)


def build(settings: Settings, plan: Plan, days: Days) -> list[BuildReport]:
    """Build tiles of a short hop and of one longer than an hour, and features."""
    store, views = LakeBuilds(settings), plan.views_of("orders")
    told: Any = {"progress": lambda _: None}
    return [
        store.build_events(plan.sources["orders"], views, days, **told),
        *(store.build_tiles(view, days, **told) for view in views),
        store.build_features(plan.views["quick"], days, **told),
    ]


def contents(settings: Settings) -> dict[str, list[str]]:
    return {
        table: sorted(
            map(repr, DeltaTable(f"{settings.lake}/{table}").to_pyarrow_table().to_pylist())
        )
        for table in TABLES
    }


def built_whole(settings: Settings, plan: Plan) -> dict[str, list[str]]:
    elsewhere = replace(settings, lake=f"{settings.lake}_whole")
    build(elsewhere, plan, WHOLE)
    return contents(elsewhere)


def between(start: int, end: int) -> Days:
    """The hours from ``start`` to ``end``, counted from the first midnight."""
    return Days.between(MIDNIGHT + start * HOUR, MIDNIGHT + end * HOUR)


def assert_same(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> None:
    for table in TABLES:
        assert found[table] == wanted[table], table


def test_hours_in_any_order_and_any_ranges_make_the_tables_of_whole_days(
    settings: Settings, plan: Plan
) -> None:
    write_rows(settings, orders())
    # The middle first, and the edges of the ranges twice.
    for days in (between(31, 46), between(44, 72), between(0, 33)):
        reports = build(settings, plan, days)
        for report in reports:
            assert not report.failed, (report.table, report.failed)
    assert_same(contents(settings), built_whole(settings, plan))
    log = read_partition_log(settings, "events/orders")
    assert whole_days(log, plan.sources["orders"].fingerprint) == frozenset(WHOLE)
    for report in reports:
        first, second = (outcome for outcome in report.built if outcome.day < WHOLE.last)
        assert (first.hours, second.hours) == (range(24), range(9))
        assert sum(first.rows_by_hour) == first.rows
        hours = 8 if report.table == "tiles/slow/v1" else 24
        assert len([n for n in second.rows_by_hour if n]) == hours


def test_ticks_alone_keep_up_with_what_arrives(settings: Settings, plan: Plan) -> None:
    """Each hour is built for the last time when nothing of it can arrive any more."""
    rows, source, view = orders(), plan.sources["orders"], plan.views["quick"]
    store, told = LakeBuilds(settings), lambda _: None
    closed = MIDNIGHT + 25 * HOUR

    def build_at(tick: datetime, hours: Days) -> list[BuildReport]:
        write_rows(settings, rows, tick)
        return [
            store.build_events(source, (view,), hours, progress=told),
            store.build_features(view, hours, progress=told),
        ]

    build_at(MIDNIGHT + timedelta(hours=23, minutes=30), between(0, 24))
    for number in (24, 25, 26):
        tick = MIDNIGHT + number * HOUR + timedelta(minutes=30)
        reports = build_at(tick, open_hours(source, tick))
        assert not any(report.failed for report in reports)
    found = before(settings, closed)
    settings = replace(settings, lake=f"{settings.lake}_whole")
    store = LakeBuilds(settings)
    build_at(closed + timedelta(days=9), WHOLE)
    assert found == before(settings, closed)


def before(settings: Settings, instant: datetime) -> list[str]:
    """The values of the quick view as of events before an instant."""
    table = DeltaTable(f"{settings.lake}/features/quick/v1").to_pyarrow_table()
    return sorted(repr(row) for row in table.to_pylist() if row["event_time"] < instant)


def test_features_of_hours_without_events_fail_by_name(settings: Settings, plan: Plan) -> None:
    write_rows(settings, orders())
    store, view = LakeBuilds(settings), plan.views["quick"]
    store.build_events(
        plan.sources["orders"], plan.views_of("orders"), between(0, 5), progress=lambda _: None
    )
    report = store.build_features(view, between(4, 6), progress=lambda _: None)
    [failed] = report.failed
    assert (failed.hours, "has only 5 of its hours" in (failed.error or "")) == (range(4, 6), True)
    report = store.build_features(view, between(3, 5), progress=lambda _: None)
    assert [o.hours for o in report.built] == [range(3, 5)]


def test_hours_that_failed_are_built_with_the_next_once_they_can_be(
    settings: Settings, plan: Plan
) -> None:
    write_rows(settings, orders())
    store, view = LakeBuilds(settings), plan.views["quick"]

    def build_quick(hours: Days) -> list[BuildReport]:
        told: Any = {"progress": lambda _: None}
        events = store.build_events(view.source, (view,), hours, **told)
        return [events, store.build_features(view, hours, **told)]

    build_quick(between(0, 4))
    file = Path(str(settings.data)) / "orders.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert [len(report.failed) for report in build_quick(between(4, 5))] == [1, 1]
    file.write_bytes(whole)
    events, features = build_quick(between(5, 6))
    assert [outcome.hours for outcome in events.built] == [range(4, 6)]
    assert [outcome.hours for outcome in features.built] == [range(5, 6)]
    stamps = before(settings, MIDNIGHT + 7 * HOUR)
    store.build_features(view, between(0, 6), progress=lambda _: None)
    assert len(before(settings, MIDNIGHT + 7 * HOUR)) > len(stamps)


def test_a_day_is_judged_once_all_of_its_hours_are_there(settings: Settings, plan: Plan) -> None:
    write_rows(settings, orders(weights=0.3))
    source, view = plan.sources["orders"], plan.views["quick"]
    events = JudgedTable.of_source(source, plan.views_of("orders"))
    features = JudgedTable.of_view(view, "v1")
    store, told = LakeBuilds(settings, gated=True), lambda _: None

    def judged(days: Days) -> list[tuple[list[date], tuple[date, ...]]]:
        """Build and judge as a step does: what is judged good is read by the next."""
        report = store.build_events(source, plan.views_of("orders"), days, progress=told)
        found = [judge_build(settings, events, report, told, now_ms=FAR_MS)]
        report = store.build_features(view, days, progress=told)
        found.append(judge_build(settings, features, report, told, now_ms=FAR_MS))
        return [([one.day for one in j.days], j.open_days) for j in found]

    assert judged(between(0, 23)) == [([], (FIRST,))] * 2
    for table in (events, features):
        assert quarantined_days(read_partition_log(settings, table.name)) == {}
    warned = find_history(settings, view, _instants(20)).warnings
    assert [one.code for one in warned] == ["days_open"]

    assert judged(between(23, 24))[0] == ([FIRST], ())
    log = read_partition_log(settings, "events/orders")
    assert FIRST in quarantined_days(log)
    assert log[FIRST].is_whole
    assert log[FIRST].was_over(0)


def _instants(hour: int) -> "pa.Array":
    moment = MIDNIGHT + hour * HOUR
    return pa.array([int(moment.timestamp() * 1000)], pa.int64())
