"""A small shop for training-set tests: generated events in a Delta lake, and what the oracle says.

Two sources (with and without event ids), four views (two entities, one pair of them), late
arrivals, null keys and values, ties.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from millrace.days import Days
from millrace.durations import DAY_MS
from millrace.expressions import evaluate
from millrace.kernel.arrow import arrow_type
from millrace.plan import DerivedPlan, FeaturePlan, Output, Plan, SourcePlan, ViewPlan
from offline.tables.partition_log import append_partition_log
from resources.declarations import load_plan
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings
from tests import reference
from tests.support.oracle import oracle_derived, oracle_feature

FIRST = date(2024, 3, 1)
DAYS = Days(FIRST, FIRST + timedelta(days=6))
SECOND_MS = 1000

VIEWS = """
version: millrace/v1
sources:
  - name: orders
    columns: {id: int64, at: timestamp, shop: string, who: int64, cents: int64,
              price: 'decimal(12,2)', weight: float64, paid: bool, due: date,
              taste: vector(2)}
    event_time: at
    event_id: id
    allowed_lateness: 2h
    batch: {format: parquet, path: orders.parquet}
  - name: visits
    columns: {seen: timestamp, who: int64, page: string, seconds: int32}
    event_time: seen
    batch: {format: parquet, path: visits.parquet}
entities:
  - {name: shop, join_key: shop, type: string}
  - {name: buyer, join_key: who, type: int64}
feature_views:
  - name: shop_orders
    entity: shop
    source: orders
    start: 2024-03-01
    filter: "cents > 10 AND COALESCE(paid, FALSE)"
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: cents_sum_1d, aggregate: sum, column: cents, window: 1d}
      - {name: price_sum_1d, aggregate: sum, column: price, window: 1d}
      - {name: price_max_2h, aggregate: max, column: price, window: 2h, hop: 1s}
      - {name: weight_avg_1d, aggregate: avg, column: weight, window: 1d}
      - {name: weight_sd_2d, aggregate: stddev, column: weight, window: 2d, offset: 1d, hop: 1d}
      - {name: dear_2d, aggregate: sum, expr: "CASE WHEN price > 50 THEN 1 ELSE 0 END", window: 2d, default: 0}
      - {name: last_buyer, aggregate: last, column: who, window: lifetime}
      - {name: last_taste, aggregate: last, column: taste, window: lifetime}
      - {name: first_taste_2h, aggregate: first, column: taste, window: 2h}
      - {name: tastes_1d, aggregate: count, column: taste, window: 1d}
      - {name: mean_taste_2d, aggregate: avg, column: taste, window: 2d, offset: 1h}
      - {name: dear_share, derive: "dear_2d / NULLIF(busy, 0)", default: -1}
      - {name: busy, derive: "n_1h * 2 + HOUR(AS_OF())"}
  - name: buyer_orders
    entity: buyer
    source: orders
    start: 2024-03-02
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: first_shop_1d, aggregate: first, column: shop, window: 1d, default: none}
      - {name: last_due, aggregate: last, column: due, window: lifetime, default: 2024-02-29}
      - {name: weighed_3d, aggregate: count, column: weight, window: 3d}
      - {name: is_due, derive: "last_due < CAST(AS_OF() AS date) AND first_shop_1d <> 'none'"}
  - name: pair_orders
    entities: [buyer, shop]
    source: orders
    start: 2024-03-01
    features:
      - {name: pair_n_1d, aggregate: count, window: 1d}
      - {name: pair_cents_min, aggregate: min, column: cents, window: lifetime}
  - name: buyer_visits
    entity: buyer
    source: visits
    start: 2024-03-01
    features:
      - {name: visit_seconds_avg_6h, aggregate: avg, column: seconds, window: 6h}
      - {name: last_page_1d, aggregate: last, column: page, window: 1d}
feature_services:
  - {name: shop_model, features: ["shop_orders:*", "buyer_visits:last_page_1d"]}
"""

ALL_FEATURES = ("shop_orders:*", "buyer_orders:*", "pair_orders:*", "buyer_visits:*")


@dataclass(frozen=True)
class Row:
    """One event of a source: its declared columns, and its instants."""

    columns: Mapping[str, Any]
    event_ms: int
    ingest_ms: int


@dataclass(frozen=True)
class Shop:
    """A lake with events, the plan over it, and the same events as the oracle takes them."""

    settings: Settings
    plan: Plan
    rows: Mapping[str, Sequence[Row]]


def open_shop(settings: Settings, *, events: int = 400, seed: int = 7) -> Shop:
    """Write the declarations and the lake; everything follows from the seed."""
    folder = settings.views[0]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shop.yaml").write_text(VIEWS, encoding="utf-8")
    plan = load_plan(settings)
    draw = random.Random(seed)
    rows = {
        "orders": _rows(draw, events, plan.sources["orders"]),
        "visits": _rows(draw, events, plan.sources["visits"]),
    }
    for name, found in rows.items():
        _write_events(settings, plan.sources[name], found)
    return Shop(settings, plan, rows)


def _rows(draw: random.Random, count: int, source: SourcePlan) -> list[Row]:
    made = []
    for number in range(count):
        # Few distinct seconds in few hours of each day: windows fill, edges and ties happen.
        day, second = draw.randrange(len(DAYS)), 60 * draw.randrange(0, 360, 15)
        event_ms = DAYS.start_ms + day * DAY_MS + second * SECOND_MS + draw.choice([0, 0, 1])
        late_ms = draw.choice([0, 0, 0, 1, 900 * SECOND_MS, 7_000 * SECOND_MS])
        made.append(Row(_cells(draw, number, event_ms, source), event_ms, event_ms + late_ms))
    return made


def _cells(draw: random.Random, number: int, event_ms: int, source: SourcePlan) -> dict[str, Any]:
    cells = {
        "id": number,
        source.event_time: datetime.fromtimestamp(event_ms / 1000, tz=UTC),
        "shop": draw.choice(["a", "b", "ab", "", None]),
        "who": draw.choice([1, 2, 3, 12, None]),
        "cents": draw.choice([None, 5, 11, 2**40, draw.randrange(1000)]),
        "price": draw.choice([None, Decimal("0.01"), Decimal("99.99"), Decimal("12.34")]),
        "weight": draw.choice([None, float("nan"), 0.1, 2.5, draw.random()]),
        "paid": draw.choice([True, True, False, None]),
        "due": draw.choice([None, FIRST + timedelta(days=draw.randrange(30))]),
        "taste": draw.choice([None, [0.5, -1.5], [0.25, 2.0**-140]]),
        "page": draw.choice(["home", "cart", "söld out", None]),
        "seconds": draw.choice([None, 0, draw.randrange(600)]),
    }
    return {c.name: cells[c.name] for c in source.columns}


def _write_events(settings: Settings, source: SourcePlan, rows: Sequence[Row]) -> None:
    columns = {
        c.name: pa.array([r.columns[c.name] for r in rows], arrow_type(c.type))
        for c in source.columns
    }
    columns["_event_ms"] = pa.array([r.event_ms for r in rows], pa.int64())
    columns["_ingest_ms"] = pa.array([r.ingest_ms for r in rows], pa.int64())
    days = [FIRST + timedelta(days=(r.event_ms - DAYS.start_ms) // DAY_MS) for r in rows]
    columns["event_date"] = pa.array(days, pa.date32())
    table = f"events/{source.name}"
    write_deltalake(f"{settings.lake}/{table}", pa.table(columns), partition_by=["event_date"])
    outcomes = tuple(PartitionOutcome(day, rows=days.count(day)) for day in DAYS)
    append_partition_log(settings, BuildReport(table, None, 0, outcomes), source.fingerprint)


def shop_spine(rows: int = 120, seed: int = 11) -> pa.Table:
    """Return spine rows in no order: known, unknown and null keys, times on and off the edges."""
    draw = random.Random(seed)
    times = [
        DAYS.start_ms
        + draw.randrange(len(DAYS)) * DAY_MS
        + draw.choice([0, 1, 3_600_000, 7_200_001, 21_600_000, draw.randrange(DAY_MS)])
        for _ in range(rows)
    ]
    return pa.table(
        {
            "label": pa.array([draw.randrange(2) for _ in range(rows)], pa.int8()),
            "shop": [draw.choice(["a", "b", "ab", "", "zz", None]) for _ in range(rows)],
            "event_timestamp": pa.array([t * 1000 for t in times], pa.timestamp("us", "UTC")),
            "who": pa.array([draw.choice([1, 2, 3, 12, 99, None]) for _ in range(rows)]),
            "note": [draw.choice(["x", "", None]) for _ in range(rows)],
        }
    )


def expected_values(
    shop: Shop, view: ViewPlan, feature: Output, spine: pa.Table, *, hindsight: bool = False
) -> list[object]:
    """Return what the oracle says of each spine row."""
    times = spine.column("event_timestamp").cast(pa.int64()).to_pylist()
    if isinstance(feature, DerivedPlan):
        made_of = view.aggregates_of(feature)
        columns = [expected_values(shop, view, f, spine, hindsight=hindsight) for f in made_of]
        derived = {
            f.name: oracle_derived(f)
            for f in view.derived
            if set(view.aggregates_of(f)) <= set(made_of)
        }
        rows = [
            dict(zip((f.name for f in made_of), (column[i] for column in columns), strict=True))
            for i in range(len(times))
        ]
        return [
            reference.derive(row, derived, time // 1000)[feature.name]
            for row, time in zip(rows, times, strict=True)
        ]
    events = [_event(view, feature, r) for r in shop.rows[view.source.name] if _counts(view, r)]
    asked = oracle_feature(feature)
    return [
        reference.value(
            events,
            asked,
            tuple(row[k] for k in view.join_keys),
            time // 1000,
            hindsight=hindsight,
            start_ms=view.start_ms,
        )
        for row, time in zip(spine.to_pylist(), times, strict=True)
    ]


def _cells_as_meant(view: ViewPlan, row: Row) -> dict[str, Any]:
    return {**row.columns, view.source.event_time: row.event_ms}


def _counts(view: ViewPlan, row: Row) -> bool:
    return view.filter is None or evaluate(view.filter, _cells_as_meant(view, row)) is True


def _event(view: ViewPlan, feature: FeaturePlan, row: Row) -> reference.Event:
    measure = feature.measure
    value = None if measure is None else evaluate(measure.expression, _cells_as_meant(view, row))
    event_id = row.columns[view.source.event_id] if view.source.event_id else None
    key = tuple(row.columns[k] for k in view.join_keys)
    return reference.Event(key, row.event_ms, row.ingest_ms, value, event_id)


def agree(got: object, expected: object) -> bool:
    """Doubles agree to a relative 1e-9, all else exactly."""
    if isinstance(got, float) and isinstance(expected, float):
        return abs(got - expected) <= 1e-9 * max(abs(got), abs(expected), 1e-9)
    return got == expected


def shop_settings(base: Settings, folder: Path) -> Settings:
    """Return settings whose lake and declarations lie in a folder of the test."""
    from dataclasses import replace

    return replace(base, lake=str(folder / "lake"), views=(folder / "views",))
