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
from millrace.windows import Window
from tests import reference
from tests.oracle import bound_to
from tests.property.test_tiles_against_reference import (
    INT64_VALUES,
    assert_agree,
    feature_of,
    tiles_of,
    view_of,
)

HOP_MS = 10_000
WINDOWS = st.builds(
    Window,
    length_ms=st.one_of(st.none(), st.integers(1, 12).map(lambda n: n * 6 * HOP_MS)),
    hop_ms=st.sampled_from([HOP_MS, 2 * HOP_MS, 3 * HOP_MS]),
    offset_ms=st.sampled_from([0, 1, HOP_MS, 70_000]),
)
OF_TYPE: dict[str, DataType] = {"sum": decimal(12, 2), "max": STRING}
AGGREGATED = {name: OF_TYPE.get(name, INT64) for name in AGGREGATES}
"""Every aggregate, with the type of what it is of here."""
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    decimal(12, 2): st.decimals(-(10**9), 10**9, places=2, allow_nan=False),
    STRING: st.text(max_size=2),
    INT64: INT64_VALUES,
}


def by_start(view: ViewPlan, events: list[reference.Event]) -> dict[int, Tile]:
    held: dict[int, list[reference.Event]] = {}
    for event in events:
        assert event.event_ms is not None
        held.setdefault(event.event_ms // HOP_MS * HOP_MS, []).append(event)
    everything = (None, 2**62)
    return {start: tiles_of(view, group, HOP_MS, everything)[0] for start, group in held.items()}


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
    return merge_tiles(feature, inside, q_ms)


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
        st.integers(0, 90).map(lambda n: n * 9_000),
        st.one_of(st.none(), values),
        st.one_of(st.none(), st.integers(0, 5)),
    )
    return st.lists(event, max_size=30)


@given(
    data=st.data(),
    case=views(),
    query_from=st.integers(0, 900_000),
    sealed=st.integers(0, 90).map(lambda n: n * HOP_MS),
)
def test_coarse_tiles_answer_as_fine_ones(
    data: st.DataObject, case: tuple[ViewPlan, str], query_from: int, sealed: int
) -> None:
    view, aggregate = case
    sealed = min(sealed, query_from // HOP_MS * HOP_MS)
    tiles = by_start(view, data.draw(events_of(aggregate)))
    merged = coarse(view, tiles, Coarsening.of(view, query_from, sealed))
    assert len(merged) <= len(tiles)
    for q_ms in data.draw(st.lists(st.integers(query_from, query_from + 900_000), max_size=5)):
        for feature in view.features:
            assert_agree(feature, value_at(feature, merged, q_ms), value_at(feature, tiles, q_ms))


@given(
    case=views(),
    starts=st.lists(st.integers(0, 90).map(lambda n: n * HOP_MS), min_size=1),
    first=st.integers(0, 900_000),
    later=st.integers(0, 500_000),
)
@example(
    case=(view_of(feature_of("sum", INT64, Window(60_000, 20_000))), "sum"),
    starts=[0, 10_000, 20_000],
    first=30_000,
    later=30_000,
)
def test_later_ranges_are_unions_of_earlier_ones(
    case: tuple[ViewPlan, str], starts: list[int], first: int, later: int
) -> None:
    view, _ = case
    then = Coarsening.of(view, first, first // HOP_MS * HOP_MS)
    now = Coarsening.of(view, first + later, (first + later) // HOP_MS * HOP_MS)
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
        feature_of("sum", INT64, Window(None, 86_400_000)),
        feature_of("sum", INT64, Window(60_000, 10_000)),
    )
    events = [reference.Event("k", at, at, 1, None) for at in range(0, 1_000_000, 5_000)]
    merged = coarse(view, by_start(view, events), Coarsening.of(view, 1_000_000, 1_000_000))
    assert sorted(merged) == [view.start_ms, *range(940_000, 1_000_000, HOP_MS)]
    assert merged[view.start_ms]["rows"] == 188


def test_nothing_of_what_no_window_reaches_is_kept() -> None:
    view = view_of(feature_of("sum", INT64, Window(60_000, 10_000)))
    assert Coarsening.of(view, 1_000_000, 500_000).reach_from_ms == 940_000


def test_every_column_of_a_merged_tile_is_that_of_all_its_events() -> None:
    money = decimal(12, 2)
    measure = Measure("m0", column_expression("v", money))
    features = [
        FeaturePlan(name, bound_to(name, money), measure, Window(60_000, HOP_MS))
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
