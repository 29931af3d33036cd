"""What is read of packed tiles is what the codec decodes; states grow by them as their algebras say."""

import math
from contextlib import suppress
from functools import reduce
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.aggregates import AGGREGATES, Aggregate, Place
from millrace.codec import Codec, Packed
from millrace.errors import StoreError
from millrace.layouts import Slot
from millrace.online.folding import HeldTiles, columns_of, fold_of
from millrace.online.tile_reading import TileReader
from millrace.packed_values import from_struct
from millrace.types import FLOAT64, INT64, DataType
from tests.property.test_codec_round_trip import PRINT, SLOT_VALUES, slots_and_values
from tests.support.oracle import bound_to

BOUND: dict[str, list[Aggregate]] = {}
"""Aggregates of every type, by their algebra and what it keeps."""
for _name, _entry in AGGREGATES.items():
    for _type in filter(_entry.accepts, SLOT_VALUES):
        _bound = bound_to(_name, _type)
        _kept = [type(partial).__name__ for partial in _bound.partials]
        BOUND.setdefault(" ".join([type(_bound.algebra).__name__, *_kept]), []).append(_bound)


def columns_read(codec: Codec, columns: list[int], data: bytes) -> list[Any]:
    """Values of some slots as a reader gives them, converted as the codec's are."""
    reader = TileReader(codec, columns)
    (once,), is_full = reader.rows([data])
    (again, other), _ = reader.rows([data, data])
    assert once == again == other
    assert is_full == (None not in once)
    found = []
    for column, value in zip(columns, once, strict=True):
        convert = from_struct(codec.slots[column].type)
        found.append(value if convert is None or value is None else convert(value))
    return found


@given(packed=slots_and_values(), data=st.data())
def test_some_columns_of_a_tile_are_those_that_were_packed(
    packed: tuple[list[Slot], tuple[Any, ...]], data: st.DataObject
) -> None:
    slots, values = packed
    codec = Codec("tile", PRINT, slots)
    tile = codec.encode(Packed(values, 5))
    plain = [i for i, slot in enumerate(slots) if not slot.is_edge]
    columns = sorted(data.draw(st.sets(st.sampled_from(plain)) if plain else st.just(set())))
    want = [values[column] for column in columns]
    assert columns_read(codec, columns, tile) == want
    cut = tile[: data.draw(st.integers(0, len(tile) - 1))]
    with suppress(StoreError):
        assert columns_read(codec, columns, cut) == want  # cut behind all that was read


def test_tiles_of_another_version_are_not_read() -> None:
    slots = [Slot("n", INT64)]
    tile = Codec("tile", "f" * 16, slots).encode(Packed((1,), 5))
    with pytest.raises(StoreError, match="belongs to the fingerprint ffffffffffffffff"):
        TileReader(Codec("tile", PRINT, slots), [0]).rows([tile])


def tiles_of(data: st.DataObject, aggregate: Aggregate) -> tuple[list[list[Any]], int, int]:
    """Values of the events of tiles, where a window begins, and a shorter one inside it."""
    assert aggregate.input is not None
    value = st.one_of(st.none(), *[values_of(aggregate.input)] * 3)
    tiles = data.draw(st.lists(st.lists(value, max_size=4), min_size=3, max_size=7))
    first = data.draw(st.integers(0, len(tiles) - 1))
    return tiles, first, data.draw(st.integers(first, len(tiles)))


def values_of(type_: DataType) -> st.SearchStrategy[Any]:
    return st.floats(-1e6, 1e6) if type_ == FLOAT64 else SLOT_VALUES[type_]


@pytest.mark.parametrize("kind", BOUND)
@given(data=st.data())
@settings(max_examples=25)
def test_a_state_grows_by_tiles_as_its_algebra_merges_them(kind: str, data: st.DataObject) -> None:
    aggregate = data.draw(st.sampled_from(BOUND[kind]))
    tiles, first, newer = tiles_of(data, aggregate)
    algebra = aggregate.algebra
    states = []
    for i, values in enumerate(tiles):
        state = algebra.init()
        for n, value in enumerate(values):
            state = algebra.update(state, value, Place(10 * i + n, 10 * i + n, n))
        states.append(algebra.unpack(algebra.pack(state)))
    slots = [
        Slot(partial.name, partial.type, is_edge=partial.holds_edge, id_type=INT64)
        for partial in algebra.partials
    ]
    codec = Codec("tile", PRINT, slots)
    packed = [codec.encode(Packed(tuple(algebra.pack(state)), 0)) for state in states]
    own = tuple(range(len(slots)))
    reader = TileReader(codec, columns_of(algebra, own))
    rows, is_full = reader.rows(packed)
    columns = (
        dict(zip(reader.columns, zip(*rows, strict=True), strict=True)) if reader.columns else {}
    )
    held = HeldTiles(codec, columns, packed, is_full)
    fold = fold_of(algebra, own)
    state = fold(algebra.init(), held, newer, len(tiles))  # the newest first, then what is older
    state = fold(state, held, first, newer)
    got = aggregate.finalize(state)
    want = aggregate.finalize(reduce(algebra.merge, reversed(states[first:]), algebra.init()))
    assert is_near(got, want, tiles), (got, want)


def is_near(got: Any, want: Any, tiles: list[list[Any]]) -> bool:
    if isinstance(want, list):
        return len(got) == len(want) and all(
            is_near(*pair, tiles) for pair in zip(got, want, strict=True)
        )
    if not isinstance(want, float) or not isinstance(got, float):
        return bool(got == want) and type(got) is type(want)
    sizes = [
        abs(float(value))
        for values in tiles
        for one in values
        if one is not None
        for value in (one if isinstance(one, list) else [one])
    ]
    return math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-12 * max(1.0, *sizes, 0.0) ** 2)
