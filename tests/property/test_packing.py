"""The fast packer writes the bytes that the codec writes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace.codec import Codec, Packed, hash_tag, online_key
from millrace.errors import DataError
from millrace.layouts import Slot
from millrace.packing import EntityKeys, TilePacker, rows_place
from millrace.types import DATE, INT32, INT64, STRING, decimal
from tests.property.test_codec_round_trip import INSTANTS, keys, slots_and_values

PRINT = "00ff10ef01fe80aa"
ROWS = Slot("rows", INT64)


@given(case=slots_and_values(), event_ms=INSTANTS)
def test_the_packer_and_the_codec_write_the_same_bytes(
    case: tuple[list[Slot], tuple[Any, ...]], event_ms: int
) -> None:
    slots, values = case
    codec = Codec("tile", PRINT, slots)
    packer = TilePacker(codec)
    expected = codec.encode(Packed(values, event_ms))
    assert packer.pack(values, event_ms) == expected
    assert packer.pack(list(values), event_ms) == expected, "compiled patterns are used again"


@given(case=slots_and_values(), rows=st.integers(0, 2**63 - 1))
def test_rows_stand_at_one_place_whatever_follows(
    case: tuple[list[Slot], tuple[Any, ...]], rows: int
) -> None:
    slots, values = [ROWS, *case[0]], (rows, *case[1])
    packer = TilePacker(Codec("tile", PRINT, slots))
    packed = packer.pack(values, 5)
    assert packer.rows_at == rows_place(len(slots))
    assert int.from_bytes(packed[packer.rows_at : packer.rows_at + 8], "big") == rows


@given(case=keys())
def test_keys_are_those_of_the_codec(case: tuple[Any, dict[str, Any]]) -> None:
    join_keys, values = case
    found = EntityKeys("view", PRINT, join_keys)
    expected = online_key("tile", "view", PRINT, join_keys, values)
    for _ in range(2):
        tag, key = found.find(tuple(values[name] for name, _ in join_keys))
        assert key == expected
        assert expected[2:6] == b"{%02x}" % tag


def test_an_entity_is_found_under_its_own_tag() -> None:
    found = EntityKeys("view", PRINT, (("k", STRING),))
    tag, key = found.find(("abc",))
    assert tag == hash_tag(key[-(1 + 4 + 3) :])


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        (Slot("v", INT32), 2**31),
        (Slot("v", INT64), "7"),
        (Slot("v", decimal(4, 2)), 100),
        (Slot("v", DATE), 17),
        (Slot("v", STRING), "\ud800"),
    ],
)
def test_what_does_not_fit_is_refused(slot: Slot, value: object) -> None:
    packer = TilePacker(Codec("tile", PRINT, [ROWS, slot]))
    with pytest.raises(DataError, match="does not fit its slot"):
        packer.pack((1, value), 0)
