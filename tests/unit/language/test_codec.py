"""The online bytes: pinned examples, refusals, and what must never collide."""

from decimal import Decimal

import pytest

from millrace.aggregates import Edge
from millrace.codec import Codec, Packed, hash_tag, online_key, read_tile_field, tile_field
from millrace.errors import DataError, StoreError
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
)

PRINT = "0123456789abcdef"
CUSTOMER = (("customer_id", INT64),)
PAIR = (("a", STRING), ("b", STRING))


def key_of(join_keys: tuple[tuple[str, DataType], ...], **values: object) -> bytes:
    return online_key("row", "spend", PRINT, join_keys, values)


def test_the_bytes_of_a_key() -> None:
    entity = bytes.fromhex("69 00000008 0000000000000065".replace(" ", ""))
    tag = f"{hash_tag(entity):02x}".encode()
    expected = b"m1{" + tag + b"}R" + bytes.fromhex(PRINT) + b"\0\0\0\x05spend" + entity
    assert key_of(CUSTOMER, customer_id=101) == expected


def test_the_bytes_of_a_row() -> None:
    slots = [Slot("n", INT64), Slot("avg", FLOAT64), Slot("last", STRING), Slot("ok", BOOL)]
    got = Codec("row", PRINT, slots).encode(Packed((12, None, "é", True), 1000, 2000))
    assert got.hex(" ", 1) == " ".join(
        [
            "01 52 01 23 45 67 89 ab cd ef",  # format, 'R', fingerprint
            "80 00 00 00 00 00 03 e8",  # event time, biased
            "80 00 00 00 00 00 07 d0",  # valid until
            "0d",  # slots 0, 2 and 3 are there
            "00 00 00 00 00 00 00 0c",
            "00 00 00 02 c3 a9",
            "01",
        ]
    )


def test_the_bytes_of_a_tile() -> None:
    slots = [Slot("m0_sum", decimal(38, 0)), Slot("m0_last", INT64, is_edge=True, id_type=STRING)]
    edge = Edge(5, 6, "a", 7)
    got = Codec("tile", PRINT, slots).encode(Packed((Decimal(-1), edge), -1))
    assert got.hex(" ", 1) == " ".join(
        [
            "01 54 01 23 45 67 89 ab cd ef",
            "7f ff ff ff ff ff ff ff",
            "03",
            *["ff"] * 16,
            "00 00 00 00 00 00 00 05 00 00 00 00 00 00 00 06",
            "01 00 00 00 01 61",
            "00 00 00 00 00 00 00 07",
        ]
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (key_of(PAIR, a="1", b="23"), key_of(PAIR, a="12", b="3")),
        (key_of(PAIR, a="", b="x"), key_of(PAIR, a="x", b="")),
        (key_of((("k", INT64),), k=1), key_of((("k", STRING),), k="1")),
        (key_of((("k", STRING),), k="1"), key_of((("k", BYTES),), k=b"1")),
        (key_of((("k", TIMESTAMP),), k=1), key_of((("k", INT64),), k=1)),
        (key_of((("k", STRING),), k=""), key_of((("k", STRING),), k="\0")),
        (online_key("row", "v", PRINT, (), {}), online_key("tile", "v", PRINT, (), {})),
    ],
)
def test_different_keys_never_share_bytes(one: bytes, other: bytes) -> None:
    assert one != other


def test_widening_an_integer_key_keeps_its_bytes() -> None:
    assert key_of((("k", INT32),), k=7) == key_of((("k", INT64),), k=7)


def test_both_zeros_are_one_key() -> None:
    assert key_of((("k", FLOAT64),), k=0.0) == key_of((("k", FLOAT64),), k=-0.0)


def test_all_views_of_an_entity_share_a_hash_tag() -> None:
    spend = online_key("row", "spend", PRINT, CUSTOMER, {"customer_id": 9})
    risk = online_key("tile", "risk", "f" * 16, CUSTOMER, {"customer_id": 9})
    assert spend[2:6] == risk[2:6]
    assert (spend[2:3], spend[5:6]) == (b"{", b"}")


@pytest.mark.parametrize("values", [{"customer_id": None}, {}])
def test_a_null_or_absent_join_key_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(DataError) as caught:
        online_key("row", "spend", PRINT, CUSTOMER, values)
    assert "the join key 'customer_id' is null or absent" in caught.value.what


@pytest.mark.parametrize("value", ["7", 7.0, True, 2**63])
def test_a_key_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(DataError) as caught:
        key_of(CUSTOMER, customer_id=value)
    assert f"{value!r} does not fit int64" in caught.value.what
    assert caught.value.where == "customer_id"


def test_tile_fields_sort_as_time_does() -> None:
    starts = [-(2**63), -86_400_000, -1, 0, 1, 2**63 - 1]
    fields = [tile_field(start) for start in starts]
    assert fields == sorted(fields)
    assert [read_tile_field(field) for field in fields] == starts


def test_another_format_is_named_and_not_read() -> None:
    codec = Codec("row", PRINT, [Slot("n", INT64)])
    data = codec.encode(Packed((1,)))
    with pytest.raises(StoreError) as caught:
        codec.decode(b"\x02" + data[1:])
    assert caught.value.what == "a packed value has format 2; this build reads format 1"
    assert "upgrade" in caught.value.fix


def test_a_value_of_another_version_is_not_read() -> None:
    slots = [Slot("n", INT64)]
    data = Codec("row", "f" * 16, slots).encode(Packed((1,)))
    with pytest.raises(StoreError, match="belongs to the fingerprint ffffffffffffffff"):
        Codec("row", PRINT, slots).decode(data)


def test_a_tile_is_not_read_as_a_row() -> None:
    slots = [Slot("n", INT64)]
    data = Codec("tile", PRINT, slots).encode(Packed((1,)))
    with pytest.raises(StoreError, match="kind is b'T'"):
        Codec("row", PRINT, slots).decode(data)


def test_cut_and_padded_bytes_are_broken() -> None:
    codec = Codec("row", PRINT, [Slot("n", INT64), Slot("s", STRING)])
    data = codec.encode(Packed((1, "abc")))
    for broken in [data[:i] for i in range(len(data))] + [data + b"\0"]:
        with pytest.raises(StoreError, match="broken"):
            codec.decode(broken)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (INT32, 2**31),
        (INT64, 2**63),
        (INT64, 1.5),
        (INT64, True),
        (FLOAT64, float("nan")),
        (FLOAT64, float("inf")),
        (decimal(4, 2), Decimal("100.00")),
        (decimal(4, 2), Decimal("0.001")),
        (decimal(4, 2), Decimal("NaN")),
        (STRING, b"x"),
        (STRING, "\ud800"),
        (DATE, 5),
        (BOOL, 1),
    ],
)
def test_what_does_not_fit_its_type_is_refused(type_: DataType, value: object) -> None:
    with pytest.raises(DataError) as caught:
        Codec("row", PRINT, [Slot("total", type_)]).encode(Packed((value,)))
    assert f"does not fit {type_}" in caught.value.what
    assert caught.value.where == "total"


def test_a_long_misfit_is_shown_in_part() -> None:
    with pytest.raises(DataError) as caught:
        Codec("row", PRINT, [Slot("n", INT64)]).encode(Packed(("x" * 1000,)))
    assert len(caught.value.what) < 100


def test_one_value_per_slot() -> None:
    with pytest.raises(DataError, match="2 values for 1 slots"):
        Codec("row", PRINT, [Slot("n", INT64)]).encode(Packed((1, 2)))
