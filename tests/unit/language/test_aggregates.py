"""The algebra of aggregates: types, refusals, nulls, extremes and what a tile keeps."""

import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import millrace
from millrace.aggregates import AGGREGATES, Edge, Place, aggregate_named
from millrace.aggregates.page import page
from millrace.errors import SpecError
from millrace.types import (
    BOOL,
    BYTES,
    DATE,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
)
from tests.support.oracle import bound_to

ANY_PLACE = Place(0, 0)


def value_of(name: str, type_: DataType | None, values: list[Any]) -> Any:
    aggregate = bound_to(name, type_)
    state = aggregate.algebra.init()
    for i, value in enumerate(values):
        state = aggregate.algebra.update(state, value, Place(i, i))
    return aggregate.finalize(state)


def test_the_aggregates_are_there_in_the_order_of_messages() -> None:
    names = "count sum avg min max stddev variance first last time_since_first time_since_last"
    kept = "distinct first_k last_k approx_distinct percentile median top_k mode"
    assert list(AGGREGATES) == [*names.split(), *kept.split()]


def test_an_unknown_aggregate_names_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        aggregate_named("averag")
    assert caught.value.what == "there is no aggregate 'averag'"
    assert "'avg'" in caught.value.fix or "known" in caught.value.fix


@pytest.mark.parametrize("name", ["sum", "avg", "variance", "stddev"])
@pytest.mark.parametrize("type_", [BOOL, STRING, DATE, TIMESTAMP, BYTES])
def test_what_cannot_be_added_is_not_accepted(name: str, type_: DataType) -> None:
    assert not AGGREGATES[name].accepts(type_)


@pytest.mark.parametrize("name", ["count", "min", "max", "first", "last"])
@pytest.mark.parametrize("type_", [BOOL, STRING, DATE, TIMESTAMP, BYTES, INT32, decimal(38, 0)])
def test_what_can_be_compared_is_accepted(name: str, type_: DataType) -> None:
    assert AGGREGATES[name].accepts(type_)


@pytest.mark.parametrize(
    ("name", "type_", "result"),
    [
        ("count", None, INT64),
        ("count", STRING, INT64),
        ("sum", INT32, INT64),
        ("sum", INT64, INT64),
        ("sum", decimal(12, 2), decimal(22, 2)),
        ("sum", decimal(30, 4), decimal(38, 4)),
        ("sum", FLOAT64, FLOAT64),
        ("avg", INT64, FLOAT64),
        ("variance", decimal(12, 2), FLOAT64),
        ("min", decimal(12, 2), decimal(12, 2)),
        ("last", STRING, STRING),
    ],
)
def test_result_types(name: str, type_: DataType | None, result: DataType) -> None:
    assert AGGREGATES[name].bind(type_).type == result


def test_counts_and_ages_work_without_a_measure() -> None:
    without = [a.name for a in AGGREGATES.values() if not a.needs_input]
    assert without == ["count", "time_since_first", "time_since_last"]
    with pytest.raises(SpecError, match="needs a column or an expression"):
        AGGREGATES["sum"].bind(None)


def test_a_window_without_events_counts_zero_and_has_no_other_value() -> None:
    empty = {name: value_of(name, INT64, []) for name in AGGREGATES}
    none = {
        "count": 0,
        "distinct": 0,
        "approx_distinct": 0,
        "first_k": [],
        "last_k": [],
        "top_k": [],
    }
    assert empty == {**dict.fromkeys(AGGREGATES), **none}


@pytest.mark.parametrize("null", [None, math.nan, math.inf, -math.inf])
def test_null_and_non_finite_values_do_not_count(null: object) -> None:
    values = [null, 1.0, null, 3.0, null]
    got = {n: value_of(n, FLOAT64, values) for n, e in AGGREGATES.items() if e.accepts(FLOAT64)}
    assert got == {
        "count": 2,
        "sum": 4.0,
        "avg": 2.0,
        "min": 1.0,
        "max": 3.0,
        "stddev": math.sqrt(2.0),
        "variance": 2.0,
        "first": 1.0,
        "last": 3.0,
        "time_since_first": 1,
        "time_since_last": 3,
        "first_k": [1.0, 3.0],
        "last_k": [3.0, 1.0],
        "approx_distinct": 2,
        "percentile": 3.0078125,
        "median": 1.00390625,
    }


def test_the_sample_variance_needs_two_values() -> None:
    assert value_of("variance", INT64, [5]) is None
    assert value_of("stddev", INT64, [5, 5]) == 0.0


def test_an_integer_sum_may_leave_int64_and_come_back() -> None:
    top = 2**63 - 1
    assert value_of("sum", INT64, [top, top, -top]) == top
    assert value_of("sum", INT64, [top, 1]) is None
    assert value_of("sum", INT64, [-top, -1]) == -(2**63)
    assert value_of("avg", INT64, [top, top]) == float(top)


def test_decimal_sums_are_exact_to_38_digits_and_null_beyond() -> None:
    wide, largest = decimal(38, 2), Decimal("9" * 36 + ".99")
    assert value_of("sum", wide, [largest, Decimal("-0.01")]) == Decimal("9" * 36 + ".98")
    assert value_of("sum", wide, [largest, Decimal("0.01")]) is None
    assert value_of("sum", wide, [largest, largest, largest.copy_negate()]) == largest


def test_a_sum_of_doubles_keeps_what_rounding_would_lose() -> None:
    assert value_of("sum", FLOAT64, [1e16, 1.0, 1.0, -1e16]) == 2.0
    assert value_of("sum", FLOAT64, [1.7e308, 1.7e308]) is None


def test_the_variance_of_large_numbers_survives() -> None:
    assert value_of("variance", FLOAT64, [1e9 + d for d in (4, 7, 13, 16)]) == pytest.approx(30.0)


def test_first_and_last_break_ties_by_ingest_time_then_id_then_value() -> None:
    events = [
        (Place(1, 5, "b"), "wrong id"),
        (Place(1, 5, "a"), "x"),
        (Place(1, 5, "a"), "y"),
        (Place(1, 9, "z"), "arrived last"),
        (Place(0, 99, "z"), None),
    ]
    for ordered in (events, events[::-1]):
        found = {}
        for name in ("first", "last"):
            aggregate = AGGREGATES[name].bind(STRING)
            state = aggregate.algebra.init()
            for place, value in ordered:
                state = aggregate.algebra.update(state, value, place)
            found[name] = aggregate.finalize(state)
        assert found == {"first": "x", "last": "arrived last"}


def test_an_event_without_an_id_comes_before_those_with_one() -> None:
    last = AGGREGATES["last"].bind(INT64)
    state = last.algebra.init()
    for event_id, value in ((7, 1), (None, 2)):
        state = last.algebra.update(state, value, Place(1, 1, event_id))
    assert last.finalize(state) == 1


@pytest.mark.parametrize("name", list(AGGREGATES))
@pytest.mark.parametrize(
    ("type_", "values"),
    [
        (INT64, [3, None, -(2**63), 2**63 - 1, 3]),
        (decimal(12, 2), [Decimal("1.25"), Decimal("-0.50")]),
        (FLOAT64, [0.1, 0.2, None]),
        (INT64, []),
    ],
)
def test_a_packed_state_unpacks_to_the_same_value(
    name: str, type_: DataType, values: list[Any]
) -> None:
    if not AGGREGATES[name].accepts(type_):
        with pytest.raises(SpecError, match="has no meaning"):
            bound_to(name, type_)
        return
    aggregate = bound_to(name, type_)
    algebra = aggregate.algebra
    state = algebra.init()
    for i, value in enumerate(values):
        state = algebra.update(state, value, Place(i, i, i))
    packed = algebra.pack(state)
    assert len(packed) == len(aggregate.partials)
    assert aggregate.finalize(algebra.unpack(packed)) == aggregate.finalize(state)


def test_a_tile_without_room_for_its_sum_makes_every_sum_over_it_null() -> None:
    wide, largest = decimal(38, 0), Decimal(10**38 - 1)
    aggregate = AGGREGATES["sum"].bind(wide)
    algebra = aggregate.algebra
    state = algebra.update(algebra.init(), largest, ANY_PLACE)
    state = algebra.update(state, largest, ANY_PLACE)
    packed = algebra.pack(state)
    assert packed == (2, None)
    merged = algebra.merge(algebra.unpack(packed), algebra.init())
    assert aggregate.finalize(merged) is None


def test_tile_columns_are_named_by_what_they_keep() -> None:
    suffixes = {name: [p.name for p in bound_to(name, INT64).partials] for name in AGGREGATES}
    assert suffixes == {
        "count": ["count"],
        "sum": ["count", "sum"],
        "avg": ["count", "sum"],
        "min": ["min"],
        "max": ["max"],
        "stddev": ["count", "mean", "m2"],
        "variance": ["count", "mean", "m2"],
        "first": ["first"],
        "last": ["last"],
        "time_since_first": ["first_ms"],
        "time_since_last": ["last_ms"],
        "distinct": ["distinct_3"],
        "first_k": ["first_k_2"],
        "last_k": ["last_k_2"],
        "top_k": ["value_counts_3"],
        "mode": ["value_counts_3"],
        "approx_distinct": ["registers_8"],
        "percentile": ["buckets"],
        "median": ["buckets"],
    }
    assert [p.suffix for p in AGGREGATES["count"].bind(None).partials] == ["rows"]
    assert [str(p.type) for p in AGGREGATES["sum"].bind(INT64).partials] == [
        "int64",
        "decimal(38,0)",
    ]


def test_an_age_grows_with_time_alone() -> None:
    age = AGGREGATES["time_since_last"].bind(None)
    state = age.algebra.update(age.algebra.init(), 1, Place(1_000, 1_002))
    assert [age.value_at(q_ms, age.finalize(state)) for q_ms in (1_001, 5_000)] == [1, 4_000]
    assert age.value_at(5_000, age.empty) is None


def test_extremes_of_dates_are_dates() -> None:
    days = [date(2024, 2, 29), date(1969, 12, 31)]
    assert value_of("min", DATE, days) == date(1969, 12, 31)
    assert value_of("last", DATE, days) == date(1969, 12, 31)


def test_an_edge_ranks_by_its_place() -> None:
    assert Edge(1, 1, None, 5).rank < Edge(1, 1, 0, 4).rank < Edge(1, 2, 0, 0).rank


def test_the_page_of_aggregates_is_that_of_the_registry() -> None:
    written = (Path(__file__).parents[3] / "docs/aggregates.md").read_text(encoding="utf-8")
    assert written == page(), "run: python -m millrace.aggregates.page > docs/aggregates.md"


@pytest.mark.parametrize("name", list(AGGREGATES))
def test_every_aggregate_has_a_builder(name: str) -> None:
    assert name in millrace.__all__
