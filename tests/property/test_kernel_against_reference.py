"""The kernel equals the reference for every aggregate, type and kind of window."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millrace.aggregates import AGGREGATES
from millrace.types import INT64, STRING, parse_type
from millrace.window import Window
from millrace.windows import Lifetime, Sliding
from tests import reference
from tests.support import window_cases
from tests.support.kernel_cases import EVERY, Query, accepting, bound, default_of, kernel_values
from tests.support.oracle import agree_as_vectors, told
from tests.support.window_cases import STAGE, reference_fields

# On hop edges, one millisecond beside them, and anywhere; before and after the stage's origin.
INSTANTS = st.builds(
    lambda stage, hop, off: stage.origin_ms + hop * stage.step_ms + off,
    STAGE,
    st.integers(-30, 30),
    st.sampled_from([0, 0, 0, 1, -1, 137]),
)


def _fixed(step_ms: int) -> tuple[Window, ...]:
    """Short, hopping, offset, offset without common measure, lifetimes."""
    return (
        Sliding(step_ms, step_ms),
        Sliding(12 * step_ms, 3 * step_ms),
        Sliding(30 * step_ms, 10 * step_ms),
        Sliding(4 * step_ms, 2 * step_ms, 5 * step_ms),
        Sliding(6 * step_ms, 3 * step_ms, 3 * step_ms + 1),
        Lifetime(step_ms),
        Lifetime(4 * step_ms, 7 * step_ms),
    )


WINDOWS: st.SearchStrategy[list[Window]] = st.builds(
    lambda stage, places, drawn: [*(_fixed(stage.step_ms)[i] for i in places), *drawn],
    STAGE,
    st.lists(st.integers(0, 6), min_size=3, max_size=3, unique=True),
    st.lists(window_cases.WINDOWS, min_size=3, max_size=4, unique=True),
)
DELAYS = st.one_of(
    st.just(0),
    st.integers(0, 3),
    st.builds(lambda stage, n: n * stage.step_ms // 1000, STAGE, st.integers(0, 50_000)),
)

NUMBERS: dict[str, st.SearchStrategy[object]] = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.one_of(
        st.integers(-3, 3),
        st.sampled_from([2**63 - 1, -(2**63), 2**62, -(2**62)]),
        st.integers(-(2**63), 2**63 - 1),
    ),
    "float64": st.one_of(
        st.sampled_from(
            [0.0, -0.0, 1e9 + 0.001, 1e9 - 0.001, 1e16, -1e16, 1.0, math.nan, math.inf]
        ),
        st.floats(-1e6, 1e6),
        st.floats(allow_nan=True, allow_infinity=True),
    ),
    "decimal(5,2)": st.integers(-99_999, 99_999).map(lambda u: Decimal(u).scaleb(-2)),
    "decimal(18,6)": st.integers(-(10**18) + 1, 10**18 - 1).map(
        lambda u: Decimal((int(u < 0), Decimal(abs(u)).as_tuple().digits, -6))
    ),
    "decimal(38,10)": st.one_of(
        st.integers(-(10**38) + 1, 10**38 - 1),
        st.sampled_from([10**38 - 1, -(10**38) + 1, 0, 1]),
    ).map(lambda u: Decimal((int(u < 0), Decimal(abs(u)).as_tuple().digits, -10))),
}
OTHERS: dict[str, st.SearchStrategy[object]] = {
    "string": st.sampled_from(["", "a", "A", "ä", "ab", "b", "z\x00", "\U0001f600"]),
    "bytes": st.binary(max_size=2),
    "bool": st.booleans(),
    "timestamp": st.integers(-(10**9), 10**12).map(
        lambda ms: datetime.fromtimestamp(ms / 1000, tz=UTC)
    ),
    "date": st.dates(date(1960, 1, 1), date(2100, 1, 1)),
    # Few different ones, so that ties are settled by a later element; and any.
    "vector(3)": st.one_of(
        st.lists(st.sampled_from([0.0, -0.0, 1.5]), min_size=3, max_size=3),
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
    ),
}
ADDED = tuple(entry.name for entry in AGGREGATES.values() if entry.is_added)
COMPARED = tuple(name for name in EVERY if name not in ADDED)


def event_lists(values: st.SearchStrategy[object]) -> st.SearchStrategy[list[reference.Event]]:
    event = st.builds(
        lambda key, at, delay, value, name: reference.Event(key, at, at + delay, value, name),
        st.sampled_from(["a", "b", "", None]),
        INSTANTS,
        DELAYS,
        st.one_of(st.none(), values),
        st.sampled_from([None, "1", "2", "3"]),
    )
    return st.lists(event, max_size=25)


QUERIES = st.lists(
    st.builds(Query, st.sampled_from(["a", "b", "", "never seen", None]), INSTANTS), max_size=12
)


def agree(feature: reference.Feature, got: object, wanted: object) -> bool:
    aggregate = feature.aggregate
    as_vectors = agree_as_vectors(bound(aggregate, parse_type(feature.type)), got, wanted)
    if as_vectors is not None:
        return as_vectors
    if not isinstance(wanted, float) or not isinstance(got, float):
        return type(got) is type(wanted) and got == wanted
    # Sums are rounded once; a mean is divided twice; squares of tiny numbers leave the doubles.
    relative = {"sum": 2.3e-16, "avg": 1e-15, "percentile": 0.0, "median": 0.0}.get(aggregate, 1e-9)
    return math.isclose(got, wanted, rel_tol=relative, abs_tol=5e-324)


def features_of(
    aggregates: Sequence[str], windows: Sequence[Window], type_: str = "int64"
) -> list[reference.Feature]:
    return [
        reference.Feature(
            a, **reference_fields(w), type=type_, parameters=told(a.removesuffix("_rows"))
        )
        for a in aggregates
        for w in windows
    ]


def check(
    type_: str,
    aggregates: Sequence[str],
    events: list[reference.Event],
    queries: list[Query],
    windows: Sequence[Window],
    *,
    hindsight: bool,
    has_event_id: bool,
) -> None:
    features = features_of(accepting(aggregates, type_), windows, type_)
    features += [
        replace(f, default=default_of(f.aggregate, parse_type(type_))) for f in features[::2]
    ]
    if not has_event_id:
        events = [reference.Event(e.key, e.event_ms, e.ingest_ms, e.value) for e in events]
    rows = kernel_values(events, features, queries, hindsight=hindsight, has_event_id=has_event_id)
    assert len(rows) == len(queries)
    for query, row in zip(queries, rows, strict=True):
        for one, got in zip(features, row, strict=True):
            wanted = reference.value(events, one, query.key, query.q_ms, hindsight=hindsight)
            assert agree(one, got, wanted), (query, one, got, wanted)


@pytest.mark.parametrize("type_", [*NUMBERS, *OTHERS])
@given(data=st.data(), queries=QUERIES, hindsight=st.booleans(), has_event_id=st.booleans())
def test_counts_extremes_and_edges_of_every_type_equal_the_reference(
    type_: str, data: st.DataObject, queries: list[Query], *, hindsight: bool, has_event_id: bool
) -> None:
    events = data.draw(event_lists({**NUMBERS, **OTHERS}[type_]))
    windows = data.draw(WINDOWS)
    check(type_, COMPARED, events, queries, windows, hindsight=hindsight, has_event_id=has_event_id)


@pytest.mark.parametrize("type_", [*NUMBERS, "vector(3)"])
@given(data=st.data(), queries=QUERIES, hindsight=st.booleans())
def test_sums_means_and_spreads_of_every_number_equal_the_reference(
    type_: str, data: st.DataObject, queries: list[Query], *, hindsight: bool
) -> None:
    events = data.draw(event_lists({**NUMBERS, **OTHERS}[type_]))
    windows = data.draw(WINDOWS)
    check(type_, ADDED, events, queries, windows, hindsight=hindsight, has_event_id=True)


@pytest.mark.parametrize(
    "values",
    [
        [1e308, 1e308, -1e308],
        [1.7e308, 1.7e308],
        [5e-324, 1e308, -1e308],
        [1e16, 1.0, -1e16],
        [1e9 + 0.001, 1e9 - 0.001, 1e9, 1e9 + 0.0005],
        [4.9e-324, 4.9e-324, 1e-310],
        [1e200, 1e200, 1e-200],
        [0.1] * 10,
        [2.0**1023, -(2.0**970), 2.0**1023],
    ],
)
def test_sums_and_spreads_of_hard_doubles_do_not_cancel(values: list[float]) -> None:
    events = [reference.Event("a", i, i, v) for i, v in enumerate(values)]
    queries = [Query("a", q) for q in range(len(values) + 1)]
    check("float64", ADDED, events, queries, _fixed(1000), hindsight=False, has_event_id=False)


def test_a_tiny_spread_around_a_far_mean_survives_other_magnitudes_in_the_key() -> None:
    near = [0.0, 3.0, 1e-3, 1e150]
    values = [*near, *(1e9 + i % 7 * 1e-3 for i in range(50))]
    events = [reference.Event("a", 1000 * i, 1000 * i, v) for i, v in enumerate(values)]
    queries = [Query("a", 1000 * i + 1) for i in range(len(values))]
    spreads, windows = ("variance", "stddev"), _fixed(1000)
    check("float64", spreads, events, queries, windows, hindsight=False, has_event_id=False)


@given(
    events=event_lists(NUMBERS["int64"]),
    queries=QUERIES,
    limit=st.sampled_from([1, 3, 8]),
    threads=st.sampled_from([1, 2]),
    order=st.randoms(use_true_random=False),
    hindsight=st.booleans(),
    windows=WINDOWS,
)
def test_order_chunks_and_threads_change_nothing(
    events: list[reference.Event],
    queries: list[Query],
    limit: int,
    threads: int,
    order: random.Random,
    windows: list[Window],
    *,
    hindsight: bool,
) -> None:
    features = features_of(("sum", "min", "last", "variance"), windows)
    plain = kernel_values(events, features, queries, hindsight=hindsight)
    shuffled, places = list(events), list(range(len(queries)))
    order.shuffle(shuffled)
    order.shuffle(places)
    split = kernel_values(
        shuffled,
        features,
        [queries[i] for i in places],
        hindsight=hindsight,
        max_rows_per_chunk=limit,
        threads=threads,
    )
    assert [plain[i] for i in places] == split


@given(
    events=event_lists(NUMBERS["int64"]),
    unseen=event_lists(NUMBERS["int64"]),
    key=st.sampled_from(["a", "b", ""]),
    q_ms=INSTANTS,
    windows=WINDOWS,
)
def test_what_happens_or_arrives_at_the_query_or_later_changes_nothing(
    events: list[reference.Event],
    unseen: list[reference.Event],
    key: str,
    q_ms: int,
    windows: list[Window],
) -> None:
    features = features_of(("count_rows", "sum", "max", "first", "stddev"), windows)
    later = [e for e in unseen if max(e.event_ms or 0, e.ingest_ms) >= q_ms]
    query = [Query(key, q_ms)]
    assert kernel_values([*events, *later], features, query) == kernel_values(
        events, features, query
    )


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["1", "12", "", None]),
            st.sampled_from([3, 23, -1, 2**63 - 1, None]),
            st.integers(-5, 5),
        ),
        max_size=12,
    ),
    asked=st.lists(
        st.tuples(
            st.sampled_from(["1", "12", "", "x", None]),
            st.sampled_from([3, 23, -1, 2**63 - 1, 7, None]),
        ),
        max_size=8,
    ),
)
@example(rows=[("1", 23, 1), ("12", 3, 2)], asked=[("1", 23), ("12", 3)])
def test_composite_keys_stay_apart(
    rows: list[tuple[str | None, int | None, int]], asked: list[tuple[str | None, int | None]]
) -> None:
    features = [reference.Feature("sum", None, 1000), reference.Feature("count_rows", 1000, 1000)]
    events = [
        reference.Event((text, number), i, i, value) for i, (text, number, value) in enumerate(rows)
    ]
    got = kernel_values(
        events,
        features,
        [Query(key, 500) for key in asked],
        has_event_id=False,
        key_types=(STRING, INT64),
    )
    assert got == [[reference.value(events, f, key, 500) for f in features] for key in asked]
