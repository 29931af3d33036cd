"""Rows merged of packed tiles equal the reference, at every instant a row says it holds for."""

import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from millrace.aggregates import AGGREGATES
from millrace.codec import Packed, tile_field
from millrace.durations import DAY_MS, SECOND_MS
from millrace.online.answers import Answer
from millrace.online.view import CLOCK_MARGIN_MS, OnlineView
from millrace.plan import FeaturePlan, ViewPlan
from millrace.types import FLOAT64, INT64, STRING, DataType, decimal, vector
from millrace.windows import Lifetime, Session, Sliding
from tests import reference
from tests.support.kernel_cases import default_of
from tests.support.online_cases import (
    document_of,
    expected,
    expected_status,
    expected_ts,
    feature_of,
    packed_tiles,
    size_of,
    view_of,
)
from tests.support.oracle import agree_as_vectors
from tests.support.window_cases import STAGE, WINDOWS, Stage

MONEY = decimal(12, 2)
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    INT64: st.one_of(st.integers(-3, 3), st.sampled_from([-(2**63), 2**63 - 1])),
    FLOAT64: st.floats(0, 1e6, allow_subnormal=False),
    MONEY: st.decimals(-(10**6), 10**6, places=2, allow_nan=False),
    STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    vector(2): st.lists(st.floats(0, 1e6, width=32), min_size=2, max_size=2),
}
START = date(1970, 1, 1)


@st.composite
def views(draw: st.DrawFn) -> tuple[ViewPlan, DataType]:
    type_ = draw(st.sampled_from(list(VALUES)))
    names = [a.name for a in AGGREGATES.values() if a.accepts(type_)]
    # Windows of one aggregate are merged together, so half of the views have nothing else.
    kinds = [_aggregated(draw, names, type_)]
    features = []
    for i in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            kinds.append(_aggregated(draw, names, type_))
        name, measured = draw(st.sampled_from(kinds))
        default = default_of(name, type_) if draw(st.booleans()) else None
        features.append(feature_of(f"f{i}", name, draw(WINDOWS), measured, default))
    # From the first day of the stage, so that some events lie before the start; or from well before.
    origin = datetime.fromtimestamp(draw(STAGE).origin_ms // 1000, UTC).date()
    start = origin - timedelta(days=draw(st.sampled_from([0, 70])))
    return view_of(features, start=start), type_


def _aggregated(draw: st.DrawFn, names: list[str], type_: DataType) -> tuple[str, DataType | None]:
    name = draw(st.sampled_from(names))
    is_rows = not AGGREGATES[name].needs_input and draw(st.booleans())
    return name, None if is_rows else type_


@st.composite
def cases(draw: st.DrawFn) -> tuple[ViewPlan, list[reference.Event], int]:
    (view, type_), (origin_ms, step_ms) = draw(views()), draw(STAGE)
    event = st.builds(
        lambda at, delay, value, event_id: reference.Event("k", at, at + delay, value, event_id),
        # From before the origin; on whole steps, where the edges lie, and beside them.
        st.integers(-50, 300).flatmap(
            lambda n: st.sampled_from(
                [n * step_ms, n * step_ms - 1, n * step_ms * 997 // 1000]
            ).map(lambda at: origin_ms + at)
        ),
        st.integers(0, 2),
        st.one_of(st.none(), VALUES[type_]),
        st.one_of(st.none(), st.integers(0, 5)),
    )
    events = draw(st.lists(event, max_size=15))
    newest = max((e.event_ms for e in events if e.event_ms is not None), default=origin_ms)
    later = st.integers(0, 400_000).map(lambda n: n * step_ms // 1000)
    return view, events, newest + 1 + draw(st.one_of(st.just(0), later))


def check(view: ViewPlan, events: list[reference.Event], answers: list[Answer], q_ms: int) -> None:
    scale = size_of(e.value for e in events)
    for feature, answer in zip(view.features, answers, strict=True):
        want = expected(feature, view, events, q_ms)
        value, ts_ms, status = answer
        assert is_close(feature, value, want, scale), (feature, answer, want, q_ms)
        assert ts_ms == expected_ts(feature, view, events, q_ms), (feature, q_ms)
        assert status == expected_status(feature, view, events, q_ms)


def is_close(feature: FeaturePlan, got: object, want: object, scale: float) -> bool:
    as_vectors = agree_as_vectors(feature.aggregate, got, want)
    if as_vectors is not None:
        return as_vectors
    if isinstance(want, float) and isinstance(got, float):
        tolerance = {"variance": scale**2, "stddev": scale}.get(feature.aggregate.name, 0.0)
        return math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-9 * tolerance)
    return got == want and type(got) is type(want)


OVER = view_of(
    [
        feature_of("run", "count", Session(3_000, 12_000, 1_000)),
        feature_of("n", "count", Sliding(5_000, 1_000)),
        feature_of("before", "count", Sliding(5_000, 1_000, 3_000)),
    ],
    start=START,
)
"""A session that is over by an event that a shorter window still holds."""


@given(case=cases(), is_coarse=st.booleans())
@example(case=(OVER, [reference.Event("k", 11_252, 11_252)], 14_268), is_coarse=False)
def test_a_merged_row_is_what_the_reference_says(
    case: tuple[ViewPlan, list[reference.Event], int], *, is_coarse: bool
) -> None:
    view, events, q_ms = case
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, events, coarse_for_ms=q_ms if is_coarse else None)
    row = online.rows.decode(online.rows.encode(online.merge(tiles, q_ms)))
    check(view, events, online.answer(row, q_ms, q_ms), q_ms)
    if tiles:
        seen = [e.event_ms for e in events if e.event_ms is not None]
        seen = [at for at in seen if at >= view.start_ms]
        assert row.event_ms == max(seen)


@given(case=cases(), stage=STAGE)
@example(
    stage=Stage(0, 1_000),
    case=(
        view_of([feature_of("f", "count", Sliding(2_000, 1_000))], start=START),
        [reference.Event("k", 999, 999)],
        1_000,
    ),
)
def test_a_row_holds_at_every_step_until_it_ends_and_not_beyond(
    case: tuple[ViewPlan, list[reference.Event], int], stage: Stage
) -> None:
    (view, events, q_ms), step_ms = case, stage.step_ms
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, events)
    while True:
        row = online.merge(tiles, q_ms)
        until = row.valid_until_ms
        last = q_ms + 400 * step_ms if until is None else until - 1
        assert last >= q_ms
        stride_ms = max(1, (last - q_ms) // step_ms // 50) * step_ms
        for at in {q_ms, last, *range(-(-q_ms // step_ms) * step_ms, last, stride_ms)}:
            assert online.holds(row, at)
            fresh = online.merge(tiles, at)
            assert online.answer(row, at, at) == online.answer(fresh, at, at)
        check(view, events, online.answer(row, last, last), last)
        assert not online.holds(row, q_ms - 1)
        if until is None:
            break
        assert not online.holds(row, until)
        q_ms = until


@given(case=cases(), later=st.integers(0, 20) | st.just(400 * 86_400))
def test_dropping_what_is_out_of_reach_changes_nothing(
    case: tuple[ViewPlan, list[reference.Event], int], later: int
) -> None:
    view, events, q_ms = case
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, events)
    at = q_ms + later * SECOND_MS
    dropped = online.out_of_reach(tiles, at)
    left = {field: data for field, data in tiles.items() if field not in dropped}
    assert online.merge(left, at) == online.merge(tiles, at)
    assert bool(left) == bool(tiles)
    if view.reach_ms is None:
        assert dropped == []
    elif at - q_ms > view.reach_ms + CLOCK_MARGIN_MS:
        assert len(left) <= 1


def test_fields_that_are_no_tiles_are_passed_over() -> None:
    view = view_of([feature_of("n", "count", Sliding(60_000, 1_000))])
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, [reference.Event("k", 5, 5)])
    assert online.merge({**tiles, b"s": b"7"}, 6) == online.merge(tiles, 6)
    assert online.out_of_reach({b"s": b"7"}, 10**13) == []


def test_an_entity_without_tiles_is_worth_the_empty_value() -> None:
    window = Sliding(60_000, 1_000)
    view = view_of([feature_of("n", "count", window), feature_of("s", "sum", window, INT64)])
    online = OnlineView.from_plan(document_of(view))
    row = online.merge({}, 6)
    assert (row.values[:2], row.event_ms, row.valid_until_ms) == ((0, None), None, None)
    assert online.absent(0) == [(0, None, "NOT_FOUND"), (None, None, "NOT_FOUND")]
    assert online.absent(0, [1]) == [(None, None, "NOT_FOUND")]


def answers(view: ViewPlan, age_ms: int, progress_age_ms: int | None) -> list[tuple[Any, str]]:
    online, now = OnlineView.from_plan(document_of(view)), 10**12
    tiles = packed_tiles(view, [reference.Event("k", now - age_ms, now, None, 1)])
    row = online.merge(tiles, now)
    progress = None if progress_age_ms is None else now - progress_age_ms
    return [(value, status) for value, _, status in online.answer(row, now, progress)]


def test_age_is_an_answer_and_the_value_is_still_given() -> None:
    ever = Lifetime(DAY_MS)
    features = [feature_of("n", "count", ever), feature_of("s", "sum", ever, INT64)]
    view = view_of(features, ttl_ms=1_000, freshness_ms=60_000)
    assert answers(view, 1_000, 0) == [(1, "PRESENT"), (None, "NULL_VALUE")]
    assert answers(view, 1_001, 0) == [(1, "OUTSIDE_MAX_AGE"), (None, "NULL_VALUE")]
    assert answers(view, 1_000, 60_000)[0] == (1, "PRESENT")
    assert answers(view, 1_000, 60_001) == [(1, "STALE"), (None, "NULL_VALUE")]
    assert answers(view, 1_000, None)[0] == (1, "STALE")
    assert answers(view, 1_001, 60_001)[0] == (1, "OUTSIDE_MAX_AGE")


def test_without_promises_nothing_is_too_old() -> None:
    view = view_of([feature_of("n", "count", Lifetime(DAY_MS))])
    assert answers(view, 10**11, None) == [(1, "PRESENT")]


def test_an_empty_window_has_a_count_and_no_ts() -> None:
    view = view_of([feature_of("n", "count", Sliding(60_000, 1_000))], ttl_ms=1_000)
    online = OnlineView.from_plan(document_of(view))
    row = online.merge(packed_tiles(view, [reference.Event("k", 0, 0)]), 10**9)
    assert online.answer(row, 10**9, 10**9) == [(0, None, "PRESENT")]
    assert row == Packed((0, 10**9), event_ms=0, valid_until_ms=None)


def test_only_the_newest_of_what_left_is_kept() -> None:
    view = view_of([feature_of("n", "count", Sliding(60_000, 1_000))])
    online = OnlineView.from_plan(document_of(view))
    tiles = packed_tiles(view, [reference.Event("k", at, at) for at in (0, 5_000, 9_000)])
    assert online.out_of_reach(tiles, 69_000 + 2 * DAY_MS) == [tile_field(0), tile_field(5_000)]
    assert online.out_of_reach(tiles, 60_999) == []
