"""Tiles merged by the algebra equal the reference, in any order and at any finer hop."""

import math
import random
from datetime import date
from decimal import Decimal
from math import gcd
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from millrace.aggregates import AGGREGATES, Place
from millrace.expressions import column_expression
from millrace.online.merging import span_of
from millrace.plan import EntityPlan, FeaturePlan, Measure, SourcePlan, ViewPlan
from millrace.tiles import (
    FIRST_EVENT,
    LAST_EVENT,
    Tile,
    TileEvent,
    build_tile,
    feature_columns,
    merge_tiles,
    tile_columns,
    tile_start_ms,
)
from millrace.types import FLOAT64, INT32, INT64, STRING, DataType, decimal, vector
from millrace.window import Window
from millrace.windows import Session, Sliding
from tests import reference
from tests.support.oracle import agree_as_vectors, bound_to, oracle_feature
from tests.support.window_cases import STAGE, WINDOWS, Stage

HOP_MS = 10_000
MONEY, WIDEST = decimal(12, 2), decimal(38, 4)
INT64_VALUES = st.one_of(
    st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1])
)
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    INT32: st.integers(-(2**31), 2**31 - 1),
    INT64: INT64_VALUES,
    # Sums of these agree to 1e-9 whatever cancels: a tile's own sum is rounded once.
    FLOAT64: st.one_of(
        st.floats(0, 1e6, allow_subnormal=False), st.just(math.nan), st.just(-math.inf)
    ),
    MONEY: st.decimals(-(10**10) + 1, 10**10 - 1, places=2, allow_nan=False),
    WIDEST: st.integers(-(10**38) + 1, 10**38 - 1).map(lambda n: Decimal(n).scaleb(-4)),
    STRING: st.text(max_size=3),
    vector(2): st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=2),
}


def instants(lowest: int, highest: int) -> st.SearchStrategy[int]:
    """Instants of the stage, so many halves of a step from its origin."""
    return st.builds(
        lambda stage, n: stage.origin_ms + n * stage.step_ms // 2,
        STAGE,
        st.integers(lowest, highest),
    )


def events_of(type_: DataType) -> st.SearchStrategy[list[reference.Event]]:
    event = st.builds(
        lambda at, delay, value, event_id: reference.Event("k", at, at + delay, value, event_id),
        instants(-20, 20),
        st.integers(0, 2),
        st.one_of(st.none(), VALUES[type_]),
        st.one_of(st.none(), st.integers(0, 5)),
    )
    return st.lists(event, max_size=25)


@st.composite
def cases(draw: st.DrawFn) -> tuple[FeaturePlan, list[reference.Event], int]:
    aggregate = AGGREGATES[draw(st.sampled_from(sorted(AGGREGATES)))]
    type_ = draw(st.sampled_from([t for t in VALUES if aggregate.accepts(t)]))
    is_row_count = not aggregate.needs_input and draw(st.booleans())
    feature = feature_of(aggregate.name, type_, draw(WINDOWS), is_row_count=is_row_count)
    return feature, draw(events_of(type_)), draw(instants(-40, 400)) + draw(st.integers(0, 1))


def feature_of(
    aggregate: str, type_: DataType, window: Window, *, is_row_count: bool = False
) -> FeaturePlan:
    measure = None if is_row_count else Measure("m0", column_expression("v", type_))
    bound = bound_to(aggregate, None if is_row_count else type_)
    return FeaturePlan("f", bound, measure, window)


def view_of(*features: FeaturePlan) -> ViewPlan:
    source = SourcePlan("s", (), "at", "id", None, 0, 0, 0, None, None, "", "0" * 16)
    measures = tuple(dict.fromkeys(f.measure for f in features if f.measure is not None))
    return ViewPlan(
        name="view",
        entities=(EntityPlan("e", "k", STRING),),
        source=source,
        start=date(1960, 1, 1),
        filter=None,
        measures=measures,
        features=features,
        ttl_ms=None,
        freshness_ms=None,
        owner=None,
        tags={},
        checks=(),
        description="",
        fingerprint="0" * 16,
    )


def tiles_of(
    view: ViewPlan, events: list[reference.Event], hop_ms: int, bounds: tuple[int | None, int]
) -> list[Tile]:
    """The tiles that a query reads: whole ones, but for the head, which the query cuts."""
    start_ms, end_ms = bounds
    by_tile: dict[int, list[TileEvent]] = {}
    for event in events:
        assert event.event_ms is not None
        tile = tile_start_ms(event.event_ms, hop_ms)
        if event.event_ms < end_ms and (start_ms is None or tile >= start_ms):
            place = Place(event.event_ms, event.ingest_ms, event.event_id)
            by_tile.setdefault(tile, []).append(TileEvent(place, {"m0": event.value}))
    return [build_tile(view, held) for held in by_tile.values()]


def of_window(window: Window, tiles: list[Tile], q_ms: int) -> list[Tile]:
    """Return those of the tiles between its bounds that a window holds."""
    ordered = sorted(tiles, key=lambda tile: tile[LAST_EVENT])

    def edges(place: int) -> tuple[int, int]:
        tile = ordered[place]
        return tile.get(FIRST_EVENT, tile[LAST_EVENT]), tile[LAST_EVENT]

    starts = [tile[LAST_EVENT] for tile in ordered]
    first, end = span_of(window, q_ms, -(2**62), starts, edges)
    return ordered[first:end] if isinstance(window, Session) else tiles


def expected(feature: FeaturePlan, events: list[reference.Event], q_ms: int) -> object:
    return reference.value(events, oracle_feature(feature), "k", q_ms, hindsight=True)


def assert_agree(feature: FeaturePlan, got: object, want: object) -> None:
    as_vectors = agree_as_vectors(feature.aggregate, got, want)
    if as_vectors is not None:
        assert as_vectors, (got, want)
    elif isinstance(want, float) and isinstance(got, float):
        # Of a spread, what is small beside the values themselves is rounding.
        tolerance = 1e-9 * 1e6 if feature.aggregate.name in {"variance", "stddev"} else 0.0
        assert math.isclose(got, want, rel_tol=1e-9, abs_tol=tolerance)
    else:
        assert got == want


@given(
    case=cases(), stage=STAGE, seed=st.integers(0, 2**16), refinement=st.sampled_from([1, 2, 10])
)
def test_merged_tiles_equal_the_reference(
    case: tuple[FeaturePlan, list[reference.Event], int], stage: Stage, seed: int, refinement: int
) -> None:
    feature, events, q_ms = case
    # A tile has 38 digits for its sum: see the next test.
    assume(feature.aggregate.input != WIDEST or feature.aggregate.name not in {"sum", "avg"})
    # Variances of values of 19 digits are compared in doubles only where they are moderate.
    is_spread = feature.aggregate.name in {"variance", "stddev"}
    assume(not is_spread or not any(_is_huge(e.value) for e in events))
    view = view_of(feature)
    hop_ms = gcd(stage.step_ms, feature.window.hop_ms) // refinement
    tiles = tiles_of(view, events, hop_ms, feature.window.bounds(q_ms))
    tiles = of_window(feature.window, tiles, q_ms)
    random.Random(seed).shuffle(tiles)
    assert_agree(feature, merge_tiles(feature, tiles, q_ms), expected(feature, events, q_ms))


def _is_huge(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and abs(float(value)) > 1e6


@given(events=events_of(WIDEST), q_ms=instants(-40, 100))
@example(events=[reference.Event("k", 0, 0, Decimal(10**34 - 1), 1)] * 2, q_ms=1)
def test_widest_decimals_are_exact_or_null(events: list[reference.Event], q_ms: int) -> None:
    feature = feature_of("sum", WIDEST, Sliding(60_000, HOP_MS))
    tiles = tiles_of(view_of(feature), events, HOP_MS, feature.window.bounds(q_ms))
    got, want = merge_tiles(feature, tiles, q_ms), expected(feature, events, q_ms)
    if any(tile["m0_count"] and tile["m0_sum"] is None for tile in tiles):
        assert got is None
    else:
        assert got == want


@given(case=cases(), seed=st.integers(0, 2**16))
def test_any_grouping_of_merges_gives_one_value(
    case: tuple[FeaturePlan, list[reference.Event], int], seed: int
) -> None:
    feature, events, _ = case
    aggregate, chance = feature.aggregate, random.Random(seed)
    algebra = aggregate.algebra
    states = []
    for event in events:
        place = Place(event.event_ms or 0, event.ingest_ms, event.event_id)
        value = 1 if feature.measure is None else event.value
        states.append(algebra.update(algebra.init(), value, place))
    in_order = algebra.init()
    for state in states:
        in_order = algebra.merge(in_order, state)
    while len(states) > 1:
        right = states.pop(chance.randrange(len(states)))
        left = states.pop(chance.randrange(len(states)))
        states.append(algebra.merge(left, right))
    grouped = aggregate.finalize(states[0] if states else algebra.init())
    want = aggregate.finalize(in_order)
    as_vectors = agree_as_vectors(aggregate, grouped, want)
    if as_vectors is not None:
        assert as_vectors, (grouped, want)
    elif isinstance(want, float):
        scale = max((_size(e.value) for e in events), default=0.0)
        is_square = feature.aggregate.name in {"variance", "stddev"}
        tolerance = 1e-9 * (scale**2 if feature.aggregate.name == "variance" else scale)
        assert math.isclose(grouped, want, rel_tol=1e-9, abs_tol=tolerance if is_square else 0.0)
    else:
        assert grouped == want


def _size(value: object) -> float:
    size = abs(float(value)) if isinstance(value, (int, float, Decimal)) else 0.0
    return size if math.isfinite(size) else 0.0


@pytest.mark.parametrize(("event_ms", "start_ms"), [(0, 0), (-1, -1000), (999, 0), (1000, 1000)])
def test_a_tile_starts_at_the_floor(event_ms: int, start_ms: int) -> None:
    assert tile_start_ms(event_ms, 1000) == start_ms


def test_features_share_partials_of_the_same_measure() -> None:
    window = Sliding(60_000, HOP_MS)
    names = ("sum", "avg", "variance", "last", "min")
    view = view_of(*(feature_of(name, INT64, window) for name in names))
    assert [column.name for column in tile_columns(view)] == [
        "rows",
        "m0_count",
        "m0_sum",
        "m0_min",
        "m0_mean",
        "m0_m2",
        "m0_last",
        "last_event_ms",
    ]
    assert feature_columns(view.features[1]) == ("m0_count", "m0_sum")


def test_an_entity_never_seen_counts_zero() -> None:
    window = Sliding(60_000, HOP_MS)
    assert merge_tiles(feature_of("count", INT64, window, is_row_count=True), [], 0) == 0
    assert merge_tiles(feature_of("sum", INT64, window), [], 0) is None


@pytest.mark.parametrize(
    "edge", [(5, 6, "a", 7), {"event_ms": 5, "ingest_ms": 6, "event_id": "a", "value": 7}]
)
def test_edges_may_come_as_plain_tuples_and_structs(edge: object) -> None:
    feature = feature_of("last", INT64, Sliding(60_000, HOP_MS))
    assert merge_tiles(feature, [{"m0_last": edge}, {"m0_last": None}], 0) == 7
