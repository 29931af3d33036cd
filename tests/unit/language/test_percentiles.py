"""Percentiles: how far off a bucket's midpoint may be, and many of them in one declaration."""

import math
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millrace import percentile
from millrace.aggregates import AGGREGATES
from millrace.aggregates.buckets import Buckets, bucket_of, midpoint_of, rank_of
from millrace.errors import SpecError
from millrace.export import to_python, to_yaml
from millrace.kernel.buckets import buckets
from millrace.kernel.columns import read_measure
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.types import FLOAT64, DataType, decimal
from millrace.values.arrow import arrow_type

DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
WIDE = Context(prec=60)
EDGES = [0.0, 5e-324, 2.0**-1022, 2.0**-1023, 1.0, math.nextafter(1.0, 0), 1.7976931348623157e308]


@given(value=DOUBLES)
@example(value=5e-324)
@example(value=2.0**-1022)
@example(value=math.nextafter(2.0**-1022, 0))
@example(value=1.7976931348623157e308)
def test_a_midpoint_is_near_each_value_of_its_bucket(value: float) -> None:
    assert abs(midpoint_of(bucket_of(value)) - value) <= abs(value) / 256


@given(values=st.lists(DOUBLES, max_size=30))
@example(values=EDGES)
def test_buckets_ascend_as_values_do(values: list[float]) -> None:
    for lower, upper in pairwise(sorted(values)):
        assert bucket_of(lower) <= bucket_of(upper)
        assert bucket_of(-lower) == -bucket_of(lower)


@given(counts=st.dictionaries(st.integers(-268_544, 268_544), st.integers(1, 2**40), max_size=20))
def test_counts_of_any_size_come_back(counts: dict[int, int]) -> None:
    algebra = Buckets(FLOAT64)
    packed = algebra.pack((counts,))
    assert algebra.unpack(packed) == (counts,)


def _kernel(type_: DataType, values: list[Any]) -> list[int]:
    column, _ = read_measure(
        pa.chunked_array([pa.array(values, arrow_type(type_))]), type_, ordered=False
    )
    found: list[int] = buckets(column).tolist()
    return found


@given(values=st.lists(DOUBLES, min_size=1, max_size=30))
@example(values=EDGES)
def test_the_kernel_finds_the_same_buckets(values: list[float]) -> None:
    assert _kernel(FLOAT64, values) == [bucket_of(value) for value in values]


@pytest.mark.parametrize(
    "type_", [decimal(18, 6), decimal(38, 10), decimal(38, 0), decimal(38, 38)]
)
def test_decimals_beside_the_edge_of_a_bucket_fall_where_their_nearest_double_does(
    type_: DataType,
) -> None:
    chance = np.random.default_rng(3)
    most = 10**type_.precision - 1
    unscaled = [0, 1, most, -most]
    for _ in range(300):
        edge = midpoint_of(int(chance.integers(200_000, 268_000))) % 1 + 1
        near = int(Decimal(int(edge * 256) / 256) * 10 ** int(chance.integers(12, type_.precision)))
        unscaled += [near + int(step) for step in chance.integers(-2, 3, 3)]
        unscaled.append(2 ** int(chance.integers(50, 59)) + int(chance.integers(-3, 3)))
    values = [Decimal(n).scaleb(-type_.scale, context=WIDE) for n in unscaled if abs(n) <= most]
    assert _kernel(type_, values) == [bucket_of(float(value)) for value in values]


def test_ranks_are_counted_exactly() -> None:
    assert [rank_of(p, 20) for p in (0, 5, 5.000001, 55, 100)] == [1, 1, 2, 11, 20]


def test_a_percentage_is_a_number_of_a_hundred() -> None:
    for p, said in ((101, "outside 0 to 100"), (math.nan, "not a number"), (True, "not a number")):
        with pytest.raises(SpecError, match=said):
            AGGREGATES["percentile"].bind(FLOAT64, {"p": p})


DECLARED = """\
version: millrace/v1
sources:
  - {name: s, columns: {at: timestamp, who: int64, amount: float64}, event_time: at,
     batch: {format: parquet, path: s.parquet}}
entities:
  - {name: customer, join_key: who, type: int64}
feature_views:
  - name: v
    entity: customer
    source: s
    start: 2024-01-01
    features:
      - FEATURE
"""


def _declared(feature: str) -> tuple[Any, list[str]]:
    specs, faults = read_yaml(DECLARED.replace("FEATURE", feature), "x.yaml")
    _, more = resolve_as_far_as_read(specs, is_complete=not faults)
    return specs, [f"{fault.what} | {fault.fix}" for fault in [*faults, *more]]


def test_one_entry_may_ask_for_many_percentiles_over_many_windows() -> None:
    specs, faults = _declared(
        '{name: "p{p}_{window}", aggregate: percentile, column: amount, ps: [50, 99.9], windows: [1d, 7d]}'
    )
    assert not faults
    features = resolve(specs).view("v").features
    assert [(f.name, dict(f.aggregate.parameters)) for f in features] == [
        ("p50_1d", {"p": 50}),
        ("p99_9_1d", {"p": 99.9}),
        ("p50_7d", {"p": 50}),
        ("p99_9_7d", {"p": 99.9}),
    ]
    for text, read in ((to_yaml(specs), read_yaml), (to_python(specs), read_python)):
        again, _ = read(text, "y")
        assert resolve(again).view("v").fingerprint == resolve(specs).view("v").fingerprint


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("{name: p, aggregate: percentile, column: amount, ps: [1, 2], window: 1d}", "2 percentiles would all be named 'p' | put the percentile into the name: p_{p}"),
        ("{name: p, aggregate: percentile, column: amount, p: 5, ps: [1], window: 1d}", "a feature has p and ps | keep one of them"),
        ("{name: 'p_{p}', aggregate: percentile, column: amount, p: 5, ps: [1], window: 1d}", "a feature has p and ps | keep one of them"),
        ("{name: p, aggregate: percentile, column: amount, ps: [], window: 1d}", "ps is empty | write ps: [50, 95]"),
        ("{name: 'p_{p}', aggregate: percentile, column: amount, ps: [], window: 1d}", "ps is empty | write ps: [50, 95]"),
        ("{name: 'p_{p}', aggregate: percentile, column: amount, ps: 50, window: 1d}", "ps is the text '50', not a list | write ps: [ … ]"),
        ("{name: p, aggregate: percentile, column: amount, p: '5', window: 1d}", "p is the text '5', not a number | write a plain number: 5 or 0.2"),
        ("{name: p, aggregate: percentile, column: amount, window: 1d}", "p is missing | p: which percentile, 0 to 100"),
    ],
)  # fmt: skip
def test_each_fault_of_percentiles_is_said_once(feature: str, said: str) -> None:
    (fault,) = _declared(feature)[1]
    assert said in fault


def test_a_percentile_is_shown_with_all_its_digits() -> None:
    fine = AGGREGATES["percentile"].bind(FLOAT64, {"p": 99.9999999})
    assert fine.of("amount") == "percentile(amount, p=99.9999999)"
    assert AGGREGATES["percentile"].bind(FLOAT64, {"p": 95.0}).of("x") == "percentile(x, p=95)"


def test_builders_name_percentiles() -> None:
    named = [f.name for f in percentile("amount", ps=[50, 99.9]).over("1d", "7d")]
    assert named == ["amount_p50_1d", "amount_p99_9_1d", "amount_p50_7d", "amount_p99_9_7d"]
    assert [f.parameters for f in percentile("amount", p=5).over("1d")] == [{"p": 5}]
    with pytest.raises(SpecError, match="2 percentiles would all be named 'x'"):
        list(percentile("amount", ps=[1, 2]).over("1d").named("x"))
    with pytest.raises(SpecError, match="p and ps"):
        percentile("amount", p=1, ps=[2])
