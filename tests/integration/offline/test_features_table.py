"""From a declaration to ``tiles/<view>`` and ``features/<view>`` on real Spark, against the oracle."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.plan import FeaturePlan, Plan, ViewPlan
from resources.declarations import load_plan
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests import reference
from tests.support.lake_builds import LakeBuilds
from tests.support.oracle import oracle_derived, oracle_feature

_log = logging.getLogger(__name__)

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 1)
DAY_MS = 86_400_000
START_MS = (FIRST - date(1970, 1, 1)).days * DAY_MS
MINUTE_MS = 60_000

VIEWS = """
version: millrace/v1
sources:
  - name: orders
    columns: {id: int64, at: timestamp, arrived_at: timestamp, shop: string, who: int64, cents: int64, price: 'decimal(12,2)', weight: float64}
    event_time: at
    event_id: id
    ingest_time: arrived_at
    allowed_lateness: 2h
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities:
  - {name: shop, join_key: shop, type: string}
  - {name: buyer, join_key: who, type: int64}
feature_views:
  - name: shop_orders
    entity: shop
    source: orders
    start: 2024-03-01
    filter: "cents > 10"
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: cents_10m, aggregate: sum, column: cents, window: 10m}
      - {name: price_1d, aggregate: sum, column: price, window: 1d}
      - {name: price_max_2h, aggregate: max, column: price, window: 2h, hop: 1s}
      - {name: weight_avg_1d, aggregate: avg, column: weight, window: 1d}
      - {name: weight_sd_1d, aggregate: stddev, column: weight, window: 1d, offset: 1d}
      - {name: last_who, aggregate: last, column: who, window: lifetime}
      - {name: cheap_2d, aggregate: sum, expr: "CASE WHEN price < 5 THEN 1 ELSE 0 END", window: 2d, hop: 1d}
  - name: pair_orders
    entities: [buyer, shop]
    source: orders
    start: 2024-03-02
    features:
      - {name: price_left, derive: "first_price / NULLIF(n_1d, 0) + HOUR(AS_OF())", default: -1}
      - {name: n_1d, aggregate: count, window: 1d}
      - {name: weight_min_6h, aggregate: min, column: weight, window: 6h}
      - {name: first_price, aggregate: first, column: price, window: lifetime}
"""


def orders(count: int = 900) -> list[dict[str, Any]]:
    """Rows over four days: several a minute on some minutes, none on others, late and null ones."""
    rows = []
    for i in range(count):
        at = START_MS + (i * 389_903) // MINUTE_MS * MINUTE_MS + (i % 3) * 1_000
        lag = (0, 0, 0, 40, 30 * MINUTE_MS, 119 * MINUTE_MS, 121 * MINUTE_MS)[i % 7]
        rows.append(
            {
                "id": i,
                "at": at,
                "arrived_at": at + lag,
                "shop": None if i % 41 == 0 else f"shop {i * i % 4}",
                "who": None if i % 53 == 0 else i % 3,
                "cents": None if i % 17 == 0 else i * 7 % 100,
                "price": float(i % 37) / 4,
                "weight": float("nan") if i % 29 == 0 else 1e9 + (i % 11) / 7,
            }
        )
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        [{**r, "at": r["at"] * 1000, "arrived_at": r["arrived_at"] * 1000} for r in rows],
        schema=pa.schema(
            {
                "id": pa.int64(),
                "at": pa.int64(),
                "arrived_at": pa.int64(),
                "shop": pa.string(),
                "who": pa.int64(),
                "cents": pa.int64(),
                "price": pa.float64(),
                "weight": pa.float64(),
            }
        ),
    )
    for name in ("at", "arrived_at"):
        index = table.column_names.index(name)
        table = table.set_column(index, name, table[name].cast(pa.timestamp("us", tz="UTC")))
    pq.write_table(table, path)


@pytest.fixture
def plan(settings: Settings, tmp_path: Path) -> Plan:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "orders.yaml").write_text(VIEWS)
    return load_plan(settings)


def days(start: int, end: int) -> Days:
    return Days(FIRST + timedelta(days=start), FIRST + timedelta(days=end))


def backfill(settings: Settings, view: ViewPlan, span: Days) -> list[BuildReport]:
    store = LakeBuilds(settings)
    return [
        store.build_events(view.source, (view,), span, progress=_log.info),
        store.build_tiles(view, span, progress=_log.info),
        store.build_features(view, span, progress=_log.info),
    ]


def oracle_events(
    rows: Sequence[dict[str, Any]], view: ViewPlan, feature: FeaturePlan
) -> list[reference.Event]:
    kept = [r for r in rows if view.filter is None or (r["cents"] or 0) > 10]
    events = [
        reference.Event(
            tuple(r[k] for k in view.join_keys),
            r["at"],
            r["arrived_at"],
            _measured(r, feature),
            r["id"],
        )
        for r in kept
    ]
    judged = reference.judge(events, allowed_lateness_ms=7_200_000, clock_skew_ms=5_000)
    return reference.accepted(judged)


def _measured(row: dict[str, Any], feature: FeaturePlan) -> Any:
    if feature.measure is None:
        return 1
    if feature.name == "cheap_2d":
        return int(row["price"] < 5)
    (column,) = feature.measure.expression.columns
    value = row[column]
    return Decimal(str(value)).quantize(Decimal("0.01")) if column == "price" else value


def check_against_oracle(
    settings: Settings, view: ViewPlan, rows: Sequence[dict[str, Any]], span: Days
) -> int:
    table = DeltaTable(f"{settings.lake}/features/{view.name}/v1").to_pyarrow_table().to_pylist()
    compared = 0
    for feature in view.features:
        events = oracle_events(rows, view, feature)
        asked = oracle_feature(feature)
        for row in table:
            key = tuple(row[k] for k in view.join_keys)
            q_ms = round(row["event_time"].timestamp() * 1000)
            wanted = reference.value(events, asked, key, q_ms, start_ms=view.start_ms)
            if isinstance(wanted, float):
                wanted = pytest.approx(wanted, rel=1e-9)
            assert row[feature.name] == wanted, (feature.name, key, q_ms)
            compared += 1
        expected = sorted(
            (e.event_ms or 0)
            for e in events
            if isinstance(e.key, tuple)
            and None not in e.key
            and max(span.start_ms, view.start_ms) <= (e.event_ms or 0) < span.end_ms
        )
        assert sorted(round(r["event_time"].timestamp() * 1000) for r in table) == expected
    derived = {f.name: oracle_derived(f) for f in view.derived}
    for row in table:
        q_ms = round(row["event_time"].timestamp() * 1000)
        wanted_row = reference.derive({f.name: row[f.name] for f in view.features}, derived, q_ms)
        assert {name: row[name] for name in wanted_row} == wanted_row, q_ms
    return compared


def test_every_value_of_every_event_is_the_oracles(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    rows = orders()
    write_rows(tmp_path / "data" / "all.parquet", rows)
    for name in ("shop_orders", "pair_orders"):
        view = plan.view(name)
        span = Days(view.start, FIRST + timedelta(days=5))
        reports = backfill(settings, view, span)
        assert [r.failed for r in reports] == [(), (), ()]
        assert check_against_oracle(settings, view, rows, span) > 1000
    null_keys = sum(o.null_keys for o in reports[2].outcomes)
    assert null_keys == sum(
        1
        for r in rows
        if (r["shop"] is None or r["who"] is None)
        and r["arrived_at"] - r["at"] <= 7_200_000
        and r["at"] >= START_MS + DAY_MS
    )


def test_a_single_day_fetches_the_history_its_windows_need_and_equals_the_whole_range(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data" / "all.parquet", orders())
    view = plan.view("shop_orders")
    events, _, features = backfill(settings, view, days(2, 3))
    assert [o.day for o in events.outcomes] == list(days(0, 3))
    assert [o.day for o in features.outcomes] == list(days(2, 3))
    alone = content(settings, "features/shop_orders/v1", "2024-03-03")
    backfill(settings, view, days(0, 5))
    assert content(settings, "features/shop_orders/v1", "2024-03-03") == alone


def content(settings: Settings, table: str, day: str) -> list[dict[str, Any]]:
    found = DeltaTable(f"{settings.lake}/{table}").to_pyarrow_table().to_pylist()
    return sorted((r for r in found if str(r["event_date"]) == day), key=str)


def test_a_day_that_missed_events_says_so_and_is_restated_when_they_come(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    rows = orders()
    view = plan.view("shop_orders")
    bad = write_daily_files(tmp_path, rows)[1]
    healthy = bad.read_bytes()
    bad.write_bytes(b"not parquet")

    events, tiles, features = backfill(settings, view, days(0, 5))
    for report in (events, tiles, features):
        assert [o.day for o in report.failed] == [FIRST + timedelta(days=1)]
    later = [o for o in features.built if o.day > FIRST + timedelta(days=1)]
    assert all(o.missing_days == (FIRST + timedelta(days=1),) for o in later)

    bad.write_bytes(healthy)
    _, _, restated = backfill(settings, view, days(1, 2))
    assert [o.day for o in restated.built] == list(days(1, 5))
    assert check_against_oracle(settings, view, rows, days(0, 5)) > 1000


def test_a_later_day_whose_own_events_are_bad_now_is_left_as_it_stands(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    rows = orders()
    view = plan.view("shop_orders")
    files = write_daily_files(tmp_path, rows)
    healthy = {n: files[n].read_bytes() for n in (1, 3)}
    files[1].write_bytes(b"not parquet")
    backfill(settings, view, days(0, 5))
    files[3].write_bytes(b"not parquet")
    store = LakeBuilds(settings)
    bad = store.build_events(view.source, [view], days(3, 4), progress=lambda _: None)
    assert [o.day for o in bad.failed] == [FIRST + timedelta(days=3)]

    files[1].write_bytes(healthy[1])
    _, _, restated = backfill(settings, view, days(1, 2))
    assert restated.failed == ()
    assert [o.day for o in restated.built] == [FIRST + timedelta(days=n) for n in (1, 2, 4)]

    files[3].write_bytes(healthy[3])
    _, _, healed = backfill(settings, view, days(3, 4))
    assert [o.day for o in healed.built] == list(days(3, 5))
    assert check_against_oracle(settings, view, rows, days(0, 5)) > 1000


def write_daily_files(folder: Path, rows: list[dict[str, Any]]) -> list[Path]:
    """Write five days of orders, a file each."""
    files = [folder / "data" / f"{FIRST + timedelta(days=day)}.parquet" for day in range(5)]
    for day, file in enumerate(files):
        low, high = START_MS + day * DAY_MS, START_MS + (day + 1) * DAY_MS
        write_rows(file, [r for r in rows if low <= r["at"] < high])
    return files


def test_tiles_hold_what_their_events_add_up_to(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    rows = orders()
    write_rows(tmp_path / "data" / "all.parquet", rows)
    view = plan.view("shop_orders")
    backfill(settings, view, days(0, 5))
    tiles = DeltaTable(f"{settings.lake}/tiles/shop_orders/v1").to_pyarrow_table().to_pylist()
    events = oracle_events(rows, view, view.feature("cents_10m"))
    wanted: dict[tuple[Any, int], list[reference.Event]] = {}
    for e in events:
        assert isinstance(e.key, tuple)
        if e.key[0] is not None:
            start = (e.event_ms or 0) // view.tile_hop_ms * view.tile_hop_ms
            wanted.setdefault((e.key[0], start), []).append(e)
    assert {(t["shop"], t["tile_start_ms"]) for t in tiles} == set(wanted)
    for tile in tiles:
        inside = wanted[tile["shop"], tile["tile_start_ms"]]
        assert tile["rows"] == len(inside)
        assert tile["last_event_ms"] == max(e.event_ms or 0 for e in inside)
        day = datetime.fromtimestamp(tile["tile_start_ms"] / 1000, tz=UTC).date()
        assert tile["event_date"] == day


def test_a_changed_view_is_a_new_version_beside_the_old_one(
    settings: Settings, plan: Plan, tmp_path: Path
) -> None:
    write_rows(tmp_path / "data" / "all.parquet", orders(200))
    view = plan.view("pair_orders")
    backfill(settings, view, days(1, 2))
    (tmp_path / "views" / "orders.yaml").write_text(VIEWS.replace("window: 6h", "window: 12h"))
    changed = load_plan(settings).view("pair_orders")
    reports = backfill(settings, changed, days(1, 2))
    assert reports[2].version == "v2"
    assert DeltaTable.is_deltatable(f"{settings.lake}/features/pair_orders/v1")
    assert DeltaTable.is_deltatable(f"{settings.lake}/features/pair_orders/v2")
