"""The compiled queries of the golden views, run by Spark, equal the algebra tile by tile."""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from millrace.aggregates import Edge, Place
from millrace.compile.spark import measure_query, tile_query
from millrace.expressions import evaluate
from millrace.plan import ViewPlan
from millrace.tiles import TILE_START, Tile, TileEvent, build_tile, tile_columns, tile_start_ms
from millrace.types import INT64, DataType
from tests.golden.rewrite import golden_plan

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

EVENTS = 3_000
PLAN = golden_plan()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]

VALUES: Mapping[str, Callable[[random.Random], Any]] = {
    "int32": lambda r: r.choice([r.randint(-3, 3), 2**31 - 1, -(2**31)]),
    "int64": lambda r: r.choice([r.randint(-3, 3), 2**63 - 1, -(2**63)]),
    "float64": lambda r: r.choice([r.uniform(0, 1e6), 0.1, math.nan, math.inf, -math.inf]),
    "bool": lambda r: r.random() < 0.5,
    "string": lambda r: r.choice(["", "a", "ab", "é", "\U0001f600", "\uffee"]),
    "timestamp": lambda r: r.randint(-(10**11), 10**12),
    "date": lambda r: date(1969, 12, 1) + timedelta(days=r.randint(0, 60)),
    "bytes": lambda r: r.choice([b"", b"\x7f", b"\x80", b"a"]),
    "vector": lambda r: [r.choice([0.0, -0.0, 0.25, 1e5 * 2**-20]) for _ in range(3)],
}


def a_value(type_: DataType, chance: random.Random) -> Any:
    if chance.random() < 0.15:
        return None
    if type_.kind != "decimal":
        return VALUES[type_.kind](chance)
    # Of the widest only a quarter of the range, so that no tile of these runs out of digits.
    digits = min(type_.precision, 36)
    return Decimal(chance.randint(-(10**digits) + 1, 10**digits - 1)).scaleb(-type_.scale)


def some_events(view: ViewPlan, chance: random.Random) -> list[Row]:
    """Events around the view's start, few keys and instants, so that tiles fill and ties occur."""
    rows = []
    keys = {
        k: [a_value(view.source.column(k).type, chance) for _ in range(4)] for k in view.join_keys
    }
    for _ in range(EVENTS):
        row = {c.name: a_value(c.type, chance) for c in view.source.columns}
        row |= {name: chance.choice(values) for name, values in keys.items()}
        event_ms = view.start_ms + chance.randint(-5, 400) * view.tile_hop_ms // 7
        row |= {"_event_ms": event_ms, "_ingest_ms": event_ms + chance.randint(0, 2)}
        rows.append(row)
    return rows


def as_arrow(view: ViewPlan, rows: list[Row]) -> "pa.Table":
    import pyarrow as pa

    from millrace.kernel.arrow import arrow_type

    types = {c.name: c.type for c in view.source.columns} | {
        "_event_ms": INT64,
        "_ingest_ms": INT64,
    }
    arrays = {}
    for name, type_ in types.items():
        values = [row[name] for row in rows]
        if type_.kind == "timestamp":
            values = [None if v is None else EPOCH + timedelta(milliseconds=v) for v in values]
        arrays[name] = pa.array(values, arrow_type(type_))
    return pa.table(arrays)


def expected_tiles(view: ViewPlan, rows: list[Row]) -> dict[tuple[Any, ...], Tile]:
    held: dict[tuple[Any, ...], list[TileEvent]] = defaultdict(list)
    for row in rows:
        key = tuple(row[name] for name in view.join_keys)
        is_held = view.filter is None or evaluate(view.filter, row) is True
        if row["_event_ms"] < view.start_ms or None in key or not is_held:
            continue
        event_id = None if view.source.event_id is None else row[view.source.event_id]
        place = Place(row["_event_ms"], row["_ingest_ms"], event_id)
        measures = {m.name: evaluate(m.expression, row) for m in view.measures}
        tile = tile_start_ms(row["_event_ms"], view.tile_hop_ms)
        held[*key, tile].append(TileEvent(place, measures))
    return {key: build_tile(view, events) for key, events in held.items()}


def as_plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    if isinstance(value, dict):
        plain = {name: as_plain(inner) for name, inner in value.items()}
        return Edge(plain["event_ms"], plain["ingest_ms"], plain.get("event_id"), plain["value"])
    return value


def assert_same(name: str, got: Any, want: Any) -> None:
    if isinstance(want, list) and isinstance(got, list):
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            assert_same(f"{name}[{i}]", one, other)
    elif isinstance(want, float) and isinstance(got, float):
        assert math.isclose(got, want, rel_tol=1e-9), (name, got, want)
    else:
        assert got == want, (name, got, want)


@pytest.mark.parametrize("view", PLAN.views.values(), ids=PLAN.views)
def test_tiles_on_spark_equal_the_algebra(view: ViewPlan, spark: "SparkSession") -> None:
    rows = some_events(view, random.Random(7))
    spark.createDataFrame(as_arrow(view, rows)).createOrReplaceTempView("golden_events")
    found = spark.sql(tile_query(view, "golden_events")).toArrow().to_pylist()
    expected = expected_tiles(view, rows)
    got = {tuple(as_plain(r[k]) for k in (*view.join_keys, TILE_START)): r for r in found}
    assert len(found) == len(got)
    assert got.keys() == expected.keys()
    assert len(got) > 50
    for key, tile in expected.items():
        for column in tile_columns(view):
            assert_same(f"{key} {column.name}", as_plain(got[key][column.name]), tile[column.name])
        day = date(1970, 1, 1) + timedelta(milliseconds=key[-1])
        assert got[key]["event_date"] == day


@pytest.mark.parametrize("view", PLAN.views.values(), ids=PLAN.views)
def test_measures_on_spark_equal_the_expressions(view: ViewPlan, spark: "SparkSession") -> None:
    rows = some_events(view, random.Random(11))
    spark.createDataFrame(as_arrow(view, rows)).createOrReplaceTempView("golden_events")
    table = spark.sql(measure_query(view, "golden_events")).toArrow()
    id_column = [] if view.source.event_id is None else ["_event_id"]
    assert table.column_names == [
        *view.join_keys,
        "_event_ms",
        "_ingest_ms",
        *id_column,
        *(m.name for m in view.measures),
    ]
    kept = [
        row
        for row in rows
        if row["_event_ms"] >= view.start_ms
        and all(row[name] is not None for name in view.join_keys)
        and (view.filter is None or evaluate(view.filter, row) is True)
    ]
    expected = [tuple(evaluate(m.expression, row) for m in view.measures) for row in kept]
    got = [tuple(as_plain(row[m.name]) for m in view.measures) for row in table.to_pylist()]
    assert sorted(map(repr, got)) == sorted(map(repr, expected))


def test_a_tile_whose_sum_needs_more_than_38_digits_has_none(spark: "SparkSession") -> None:
    view = PLAN.view("typed_values")
    largest = Decimal("9" * 34 + ".9999")
    empty = {c.name: None for c in view.source.columns}
    row = {**empty, "sensor": 1, "_event_ms": view.start_ms, "_ingest_ms": view.start_ms}
    rows = [{**row, "total": largest}] * 2
    spark.createDataFrame(as_arrow(view, rows)).createOrReplaceTempView("golden_events")
    (found,) = spark.sql(tile_query(view, "golden_events")).toArrow().to_pylist()
    assert (found["m4_count"], found["m4_sum"]) == (2, None)
