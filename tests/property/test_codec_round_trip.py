"""What the codec packs, it unpacks; different keys have different bytes."""

from datetime import date
from decimal import Decimal
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from millrace.aggregates import Edge
from millrace.codec import Codec, Kind, Packed, online_key
from millrace.layouts import Slot
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
    list_of,
    vector,
)

PRINT = "00ff10ef01fe80aa"
INSTANTS = st.integers(-(2**63) + 1, 2**63 - 1)
KINDS: st.SearchStrategy[Kind] = st.sampled_from(["row", "tile"])
VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    INT32: st.integers(-(2**31), 2**31 - 1),
    INT64: st.integers(-(2**63), 2**63 - 1),
    FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    BOOL: st.booleans(),
    STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    TIMESTAMP: INSTANTS,
    DATE: st.dates(date(1, 1, 1), date(9999, 12, 31)),
    BYTES: st.binary(max_size=20),
    decimal(12, 2): st.integers(-(10**12) + 1, 10**12 - 1).map(lambda n: Decimal(n).scaleb(-2)),
    decimal(38, 38): st.integers(-(10**37), 10**37).map(lambda n: Decimal(n).scaleb(-38)),
    decimal(38, 0): st.sampled_from([Decimal(10**38 - 1), Decimal(1 - 10**38), Decimal(0)]),
}
TYPES = st.sampled_from(list(VALUES))
LISTS = {list_of(type_): st.lists(values, max_size=4) for type_, values in VALUES.items()}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = {vector(n): st.lists(FLOATS, min_size=n, max_size=n) for n in (1, 3)}
SLOT_VALUES = {**VALUES, **VECTORS, **LISTS}
SLOT_TYPES = st.sampled_from(list(SLOT_VALUES))


@st.composite
def slots_and_values(draw: st.DrawFn) -> tuple[list[Slot], tuple[Any, ...]]:
    slots, values = [], []
    for i in range(draw(st.integers(0, 20))):
        type_ = draw(SLOT_TYPES)
        is_edge = type_ not in LISTS and draw(st.booleans())
        id_type = draw(st.one_of(st.none(), TYPES)) if is_edge else None
        value = draw(st.one_of(st.none(), SLOT_VALUES[type_]))
        if is_edge and value is not None:
            event_id = None if id_type is None else draw(st.one_of(st.none(), VALUES[id_type]))
            value = Edge(draw(INSTANTS), draw(INSTANTS), event_id, value)
        slots.append(Slot(f"s{i}", type_, is_edge=is_edge, id_type=id_type))
        values.append(value)
    return slots, tuple(values)


@st.composite
def keys(draw: st.DrawFn) -> tuple[tuple[tuple[str, DataType], ...], dict[str, Any]]:
    types = draw(st.lists(TYPES, min_size=1, max_size=3))
    join_keys = tuple((f"k{i}", type_) for i, type_ in enumerate(types))
    return join_keys, {name: draw(VALUES[type_]) for name, type_ in join_keys}


@given(kind=KINDS, packed=slots_and_values(), event_ms=st.none() | INSTANTS, until=INSTANTS)
def test_packed_values_come_back(
    kind: Kind,
    packed: tuple[list[Slot], tuple[Any, ...]],
    event_ms: int | None,
    until: int,
) -> None:
    slots, values = packed
    given_ = Packed(values, event_ms, until if kind == "row" else None)
    codec = Codec(kind, PRINT, slots)
    found = codec.decode(codec.encode(given_))
    assert found == given_
    assert list(map(type, found.values)) == list(map(type, values))


@given(kind=KINDS, key=keys(), view=st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
def test_keys_do_not_mind_the_order_of_values(
    kind: Kind, key: tuple[tuple[tuple[str, DataType], ...], dict[str, Any]], view: str
) -> None:
    join_keys, values = key
    data = online_key(kind, view, PRINT, join_keys, values)
    turned = dict(reversed(values.items()))
    assert online_key(kind, view, PRINT, join_keys, turned) == data


@given(one=keys(), other=keys())
@example(
    one=((("k", decimal(12, 2)),), {"k": Decimal("1.00")}),
    other=((("k", decimal(38, 0)),), {"k": Decimal(100)}),
)
@example(
    one=((("a", STRING), ("b", STRING)), {"a": "1", "b": "23"}),
    other=((("a", STRING), ("b", STRING)), {"a": "12", "b": "3"}),
)
def test_keys_are_equal_only_where_their_values_are(
    one: tuple[tuple[tuple[str, DataType], ...], dict[str, Any]],
    other: tuple[tuple[tuple[str, DataType], ...], dict[str, Any]],
) -> None:
    is_same_value = _tagged(one) == _tagged(other)
    is_same_key = _key(one) == _key(other)
    assert is_same_key == is_same_value


def _key(key: tuple[tuple[tuple[str, DataType], ...], dict[str, Any]]) -> bytes:
    return online_key("row", "view", PRINT, *key)


def _tagged(key: tuple[tuple[tuple[str, DataType], ...], dict[str, Any]]) -> list[Any]:
    """Values with what tells them apart; widening a type keeps its keys."""
    join_keys, values = key
    kinds = [("int" if t.is_integer else t.kind, t.scale) for _, t in join_keys]
    return list(zip(kinds, values.values(), strict=True))
