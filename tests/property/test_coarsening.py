"""Coarse tiles give the values of the fine ones, at every instant that may still be asked."""

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
from hypothesis import assume, example, given
from hypothesis import strategies as st

from millrace.aggregates import AGGREGATES
from millrace.coarsen import Coarsening, TileMerger
from millrace.expressions import column_expression
from millrace.plan import FeaturePlan, Measure, ViewPlan
from millrace.tiles import LAST_EVENT, Tile, merge_tiles, tile_columns
from millrace.types import INT64, STRING, DataType, decimal
from millrace.windows import Lifetime, Sliding
from tests import reference
from tests.property.test_tiles_against_reference import (
    INT64_VALUES,
    assert_agree,
    feature_of,
    instants,
    of_window,
    tiles_of,
    view_of,
)
from tests.support.oracle import bound_to
from tests.support.window_cases import STAGE, WINDOWS, Stage

HOP_MS = 10_000
OF_TYPE: dict[str, DataType] = {"sum": decimal(12, 2), "max": STRING}
AGGREGATED = {name: OF_TYPE.get(name, INT64) for name in AGGREGATES}
"""Every aggregate, with the type of what it is of here."""
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    decimal(12, 2): st.decimals(-(10**9), 10**9, places=2, allow_nan=False),
    STRING: st.text(max_size=2),
    INT64: INT64_VALUES,
}


def by_start(
    view: ViewPlan, events: list[reference.Event], hop_ms: int = HOP_MS
) -> dict[int, Tile]:
    held: dict[int, list[reference.Event]] = {}
    for event in events:
        assert event.event_ms is not None
        held.setdefault(event.event_ms // hop_ms * hop_ms, []).append(event)
    everything = (None, 2**62)
    return {start: tiles_of(view, group, hop_ms, everything)[0] for start, group in held.items()}


def merged_tile(view: ViewPlan, tiles: list[Tile]) -> Tile:
    names = [column.name for column in tile_columns(view)]
    rows = [tuple(tile[name] for name in names) for tile in tiles]
    return dict(zip(names, TileMerger(view).merge(rows), strict=True))


def coarse(view: ViewPlan, tiles: dict[int, Tile], coarsening: Coarsening) -> dict[int, Tile]:
    merged = {s: t for s, t in tiles.items() if s >= coarsening.sealed_before_ms}
    starts = sorted(s for s in tiles if coarsening.reach_from_ms <= s < coarsening.sealed_before_ms)
    begins, ends = coarsening.ranges(np.array(starts, dtype=np.int64))
    groups: dict[int, list[Tile]] = {}
    for start, begin, end in zip(starts, begins.tolist(), ends.tolist(), strict=True):
        assert begin <= start < end <= coarsening.sealed_before_ms
        groups.setdefault(begin, []).append(tiles[start])
    return merged | {begin: merged_tile(view, group) for begin, group in groups.items()}


def value_at(feature: FeaturePlan, tiles: dict[int, Tile], q_ms: int) -> object:
    tail, end = feature.window.bounds(q_ms)
    inside = [t for start, t in tiles.items() if start < end and (tail is None or start >= tail)]
    return merge_tiles(feature, of_window(feature.window, inside, q_ms), q_ms)


@st.composite
def views(draw: st.DrawFn) -> tuple[ViewPlan, str]:
    aggregate = draw(st.sampled_from(sorted(AGGREGATED)))
    windows = draw(st.lists(WINDOWS, min_size=1, max_size=3))
    type_ = AGGREGATED[aggregate]
    return view_of(*(feature_of(aggregate, type_, window) for window in windows)), aggregate


def events_of(aggregate: str) -> st.SearchStrategy[list[reference.Event]]:
    # Rounding is of the size of the values, not of their spread.
    is_added = AGGREGATES[aggregate].is_added and AGGREGATED[aggregate] == INT64
    values = st.integers(-1000, 1000) if is_added else VALUES[AGGREGATED[aggregate]]
    event = st.builds(
        lambda at, value, event_id: reference.Event("k", at, at, value, event_id),
        instants(0, 180),
        st.one_of(st.none(), values),
        st.one_of(st.none(), st.integers(0, 5)),
    )
    return st.lists(event, max_size=30)


@given(
    data=st.data(),
    case=views(),
    stage=STAGE,
    query_from=instants(0, 200),
    sealed=instants(0, 200),
)
def test_coarse_tiles_answer_as_fine_ones(
    data: st.DataObject, case: tuple[ViewPlan, str], stage: Stage, query_from: int, sealed: int
) -> None:
    view, aggregate = case
    sealed = min(sealed, query_from) // stage.step_ms * stage.step_ms
    tiles = by_start(view, data.draw(events_of(aggregate)), stage.step_ms)
    merged = coarse(view, tiles, Coarsening.of(view, query_from, sealed))
    assert len(merged) <= len(tiles)
    later = st.integers(0, 400).map(lambda n: query_from + n * stage.step_ms // 2)
    for q_ms in data.draw(st.lists(later, max_size=5)):
        for feature in view.features:
            assert_agree(feature, value_at(feature, merged, q_ms), value_at(feature, tiles, q_ms))


@given(
    case=views(),
    stage=STAGE,
    starts=st.lists(instants(0, 90), min_size=20),
    first=instants(0, 90),
    later=st.integers(0, 50),
)
@example(
    case=(view_of(feature_of("sum", INT64, Sliding(60_000, 20_000))), "sum"),
    stage=Stage(0, 10_000),
    starts=[0, 10_000, 20_000],
    first=30_000,
    later=3,
)
def test_later_ranges_are_unions_of_earlier_ones(
    case: tuple[ViewPlan, str], stage: Stage, starts: list[int], first: int, later: int
) -> None:
    view, step_ms = case[0], stage.step_ms
    starts = [start // step_ms * step_ms for start in starts]
    afterwards = first + later * step_ms
    then = Coarsening.of(view, first, first // step_ms * step_ms)
    now = Coarsening.of(view, afterwards, afterwards // step_ms * step_ms)
    kept = [s for s in starts if now.reach_from_ms <= s < then.sealed_before_ms]
    kept = [s for s in kept if s >= then.reach_from_ms]
    assume(kept)
    old = zip(*then.ranges(np.array(kept)), strict=True)
    new = zip(*now.ranges(np.array(kept)), strict=True)
    for (begin, end), (new_begin, new_end) in zip(old, new, strict=True):
        assert new_begin <= begin
        assert end <= new_end


def test_the_old_part_of_a_lifetime_is_one_tile() -> None:
    view = view_of(
        feature_of("sum", INT64, Lifetime(86_400_000)),
        feature_of("sum", INT64, Sliding(60_000, 10_000)),
    )
    events = [reference.Event("k", at, at, 1, None) for at in range(0, 1_000_000, 5_000)]
    merged = coarse(view, by_start(view, events), Coarsening.of(view, 1_000_000, 1_000_000))
    assert sorted(merged) == [view.start_ms, *range(940_000, 1_000_000, HOP_MS)]
    assert merged[view.start_ms]["rows"] == 188


def test_nothing_of_what_no_window_reaches_is_kept() -> None:
    view = view_of(feature_of("sum", INT64, Sliding(60_000, 10_000)))
    assert Coarsening.of(view, 1_000_000, 500_000).reach_from_ms == 940_000


def test_every_column_of_a_merged_tile_is_that_of_all_its_events() -> None:
    money = decimal(12, 2)
    measure = Measure("m0", column_expression("v", money))
    features = [
        FeaturePlan(name, bound_to(name, money), measure, Sliding(60_000, HOP_MS))
        for name, entry in AGGREGATES.items()
        if entry.accepts(money)
    ]
    view = view_of(*features)
    events = [
        reference.Event("k", at, at + at % 3, Decimal(at % 7).scaleb(-1), at // 2_000)
        for at in range(0, 50_000, 1_000)
    ]
    whole = tiles_of(view, events, 100_000, (None, 2**62))[0]
    merged = merged_tile(view, list(by_start(view, events).values()))
    assert merged.keys() == whole.keys()
    for column in tile_columns(view):
        if column.partial.suffix in {"mean", "m2"}:
            assert abs(merged[column.name] - whole[column.name]) < 1e-9
        else:
            assert merged[column.name] == whole[column.name], column.name
    assert merged[LAST_EVENT] == 49_000
    assert view.start == date(1960, 1, 1)
