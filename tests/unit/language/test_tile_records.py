"""Records of a tile topic: every type of the language, in the forms that Flink writes."""

import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from millrace.aggregates import Edge
from millrace.codec import online_key, read_tile_field
from millrace.compile.serving import codec_of
from millrace.errors import DataError
from millrace.types import parse_type
from streaming.writer.records import TileReader

GOLDEN = Path(__file__).parents[2] / "golden" / "serving"
START = 1_709_251_200_000
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "int32": (-7, -7),
    "int64": (2**62, 2**62),
    "float64": (1.5e-7, 1.5e-7),
    "bool": (True, True),
    "string": ('Ünïcode \u0000 "q"', 'Ünïcode \u0000 "q"'),
    "timestamp": (1_709_251_200_123, 1_709_251_200_123),
    "date": ("2024-02-29", date(2024, 2, 29)),
    "bytes": ("AP8Q", b"\x00\xff\x10"),
    "vector(3)": ([0.5, -2.0, 1.0], [0.5, -2.0, 1.0]),
    "list<float64>": ([0.1, 1e300], [0.1, 1e300]),
}
"""By kind: as it stands in the JSON, and the value it means."""


def example(type_: str) -> tuple[Any, Any]:
    if type_.startswith("decimal"):
        scale = parse_type(type_).scale
        digits = 12345678901234567890 if "38" in type_ else 1234
        value = Decimal(digits).scaleb(-scale)
        return value, value
    return EXAMPLES[type_]


def document(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    return read


def record_of(plan: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The record of a full tile as JSON values, and what it means by column."""
    sent: dict[str, Any] = {"tile_start_ms": START, "last_event_ms": START + 9}
    meant: dict[str, Any] = {}
    for key in plan["join_keys"]:
        sent[key["name"]], meant[key["name"]] = example(key["type"])
    for slot in plan["slots"]["tile"]:
        sent_value, value = example(slot["type"])
        if slot["is_edge"]:
            edge: dict[str, Any] = {"event_ms": 1, "ingest_ms": 2, "value": sent_value}
            event_id = None
            if slot["id_type"] is not None:
                edge["event_id"], event_id = example(slot["id_type"])
            sent_value, value = edge, Edge(1, 2, event_id, value)
        sent[slot["name"]], meant[slot["name"]] = sent_value, value
    sent["rows"] = meant["rows"] = 3
    return sent, meant


def as_json(record: dict[str, Any]) -> bytes:
    """Decimals become plain numbers, as Flink writes them."""
    marked = json.dumps(record, default=lambda value: f"<{value:f}>", ensure_ascii=False)
    return marked.replace('"<', "").replace('>"', "").encode()


PLANS = sorted(path.stem for path in GOLDEN.glob("*.json"))


@pytest.mark.parametrize("name", PLANS)
def test_a_record_becomes_the_packed_tile_it_says(name: str) -> None:
    plan = document(name)
    sent, meant = record_of(plan)
    tile = TileReader(plan).read(as_json(sent))
    join_keys = [(key["name"], parse_type(key["type"])) for key in plan["join_keys"]]
    assert tile.key == online_key("tile", plan["view"], plan["fingerprint"], join_keys, meant)
    assert (tile.start_ms, read_tile_field(tile.field)) == (START, START)
    decoded = codec_of(plan, "tile").decode(tile.packed)
    assert decoded.values == tuple(meant[slot["name"]] for slot in plan["slots"]["tile"])
    assert decoded.event_ms == START + 9


@pytest.mark.parametrize("name", PLANS)
def test_absent_and_null_columns_are_null(name: str) -> None:
    plan = document(name)
    sent, _ = record_of(plan)
    for place, slot in enumerate(plan["slots"]["tile"][1:]):
        if place % 2:
            del sent[slot["name"]]
        else:
            sent[slot["name"]] = None
    tile = TileReader(plan).read(as_json(sent))
    decoded = codec_of(plan, "tile").decode(tile.packed)
    assert decoded.values == (3, *[None] * (len(plan["slots"]["tile"]) - 1))


def test_decimals_without_their_trailing_zeros_are_the_same() -> None:
    plan = document("typed_values")
    sent, _ = record_of(plan)
    sent["m4_sum"] = Decimal("1200")
    tile = TileReader(plan).read(as_json(sent))
    codec = codec_of(plan, "tile")
    place = [slot.name for slot in codec.slots].index("m4_sum")
    assert codec.decode(tile.packed).values[place] == Decimal("1200.0000")


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no rows": lambda r: r.pop("rows"),
    "null rows": lambda r: r.update(rows=None),
    "no tile": lambda r: r.pop("tile_start_ms"),
    "null key": lambda r: r.update(sensor=None),
    "key of another type": lambda r: r.update(sensor="7"),
    "key out of range": lambda r: r.update(sensor=2**70),
    "no newest event": lambda r: r.update(last_event_ms=None),
    "a value of another type": lambda r: r.update(m4_count="many"),
    "a vector of another length": lambda r: r["m6_last"].update(value=[1.0, 2.0]),
    "a hole in a vector": lambda r: r["m6_last"].update(value=[1.0, None, 2.0]),
    "too many digits": lambda r: r.update(m4_sum=Decimal(10**38)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_record_of_another_shape_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    plan = document("typed_values")
    sent, _ = record_of(plan)
    change(sent)
    with pytest.raises(DataError):
        TileReader(plan).read(as_json(sent))


@pytest.mark.parametrize(
    "value", [None, b"", b"{", b"[]", b"null", b"\xff", b'{"a": "\xff"}', b"{} {}"]
)
def test_foreign_bytes_are_refused(value: bytes | None) -> None:
    with pytest.raises(DataError):
        TileReader(document("typed_values")).read(value)
