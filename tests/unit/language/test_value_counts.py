"""``top_k`` and ``mode``: what is most frequent, what a tile keeps of it, and too many values."""

from collections import Counter
from typing import Any

import pytest

from millrace.aggregates import AGGREGATES, Aggregate, Place, State
from millrace.codec import Packed, tile_field
from millrace.online.view import OnlineView
from millrace.tiles import TileEvent, build_tile
from millrace.types import FLOAT64, INT64, STRING, DataType, decimal
from millrace.windows import Sliding
from tests.support.online_cases import document_of, feature_of, view_of

DAY = Sliding(86_400_000, 3_600_000)


def top(type_: DataType = INT64, k: int = 3, limit: int = 4) -> Aggregate:
    return AGGREGATES["top_k"].bind(type_, {"k": k, "limit": limit})


def counted(aggregate: Aggregate, values: list[Any]) -> State:
    state = aggregate.algebra.init()
    for value in values:
        state = aggregate.algebra.update(state, value, Place(0, 0))
    return state


def test_equally_frequent_values_come_smallest_first() -> None:
    aggregate = top()
    assert aggregate.finalize(counted(aggregate, [5, -7, 5, 2, -7, 300])) == [-7, 5, 2]
    mode = AGGREGATES["mode"].bind(INT64)
    assert mode.finalize(counted(mode, [5, -7, 2])) == -7
    assert (aggregate.empty, mode.empty) == ([], None)
    assert aggregate.type.item == INT64


def test_of_more_different_values_than_the_limit_there_is_none() -> None:
    aggregate = top(limit=2)
    one, other = counted(aggregate, [1, 1, 2]), counted(aggregate, [3])
    algebra = aggregate.algebra
    merged = algebra.merge(one, other)
    assert aggregate.finalize(merged) is None
    assert algebra.pack(merged) == (b"",)
    for again in (algebra.merge(algebra.unpack((b"",)), one), algebra.merge(one, merged)):
        assert aggregate.finalize(again) is None
    assert aggregate.finalize(one) == [1, 2]


@pytest.mark.parametrize(
    ("type_", "values", "wanted"),
    [
        (INT64, [-1, 2, 2], f"{2:016x} {2:016x} {'f' * 16} {1:016x}"),
        (STRING, ["é", "a", "a"], f"00000001 61 {2:016x} 00000002 c3a9 {1:016x}"),
    ],
)
def test_the_bytes_of_counts(type_: DataType, values: list[Any], wanted: str) -> None:
    algebra = top(type_).algebra
    (packed,) = algebra.pack(counted(top(type_), values))
    assert packed.hex() == wanted.replace(" ", "")
    assert algebra.pack(algebra.unpack((packed,))) == (packed,)


def test_doubles_are_not_told_apart() -> None:
    assert not AGGREGATES["top_k"].accepts(FLOAT64)
    assert AGGREGATES["mode"].accepts(decimal(12, 2))


def test_a_window_of_too_many_values_is_served_as_over_its_limit() -> None:
    features = [
        AGGREGATES["top_k"].bind(INT64, {"k": 2, "limit": 2}),
        AGGREGATES["mode"].bind(INT64, {"limit": 2}),
        AGGREGATES["mode"].bind(INT64, {"limit": 2}),
    ]
    plain = [feature_of(f"f{i}", "mode", DAY, INT64, -1 if i == 2 else None) for i in range(3)]
    view = view_of(
        [
            type(one)(one.name, bound, one.measure, one.window, default=one.default)
            for one, bound in zip(plain, features, strict=True)
        ]
    )
    online = OnlineView.from_plan(document_of(view))

    def answers(values: list[int | None]) -> list[tuple[Any, str]]:
        (measure,) = view.measures
        events = [TileEvent(Place(5, 5, i), {measure.name: v}) for i, v in enumerate(values)]
        tile = build_tile(view, events)
        slots = tuple(tile[slot.name] for slot in online.tiles.slots)
        packed = {tile_field(0): online.tiles.encode(Packed(slots, tile["last_event_ms"]))}
        row = online.rows.decode(online.rows.encode(online.merge(packed, 1_000)))
        return [(value, status) for value, _, status in online.answer(row, 1_000, 1_000)]

    assert answers([7, 7, 3]) == [([7, 3], "PRESENT"), (7, "PRESENT"), (7, "PRESENT")]
    over = "OVER_LIMIT"
    assert answers([1, 2, 3]) == [(None, over), (None, over), (-1, over)]
    assert answers([None]) == [([], "PRESENT"), (None, "NULL_VALUE"), (-1, "PRESENT")]
    assert [row for row, _, _ in online.absent(1_000)] == [[], None, -1]


def test_counting_all_at_once_gives_the_same_bytes() -> None:
    for values in ([3, 1, 3, None], [1, 2, 3, 4, 5], []):
        algebra = top().algebra
        assert hasattr(algebra, "encode_all")
        one_by_one = algebra.pack(counted(top(), values))
        assert algebra.encode_all(values, None) == one_by_one[0], Counter(values)
