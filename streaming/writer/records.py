"""Records of a tile topic, as Flink wrote them, into packed tiles and the keys they belong under."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from millrace.codec import tile_field
from millrace.compile.serving import codec_of
from millrace.errors import DataError
from millrace.layouts import Slot
from millrace.packing import EntityKeys, TilePacker
from millrace.tiles import LAST_EVENT, ROWS, TILE_START
from millrace.types import DataType, parse_type


class PackedTile(NamedTuple):
    """A tile ready to be stored.

    Attributes:
        tag: hash tag of its entity.
        key: of the entity's tiles hash.
        start_ms: start of the tile; ``field`` is the same as bytes.
    """

    tag: int
    key: bytes
    start_ms: int
    field: bytes
    packed: bytes


class TileReader:
    """Reads the records of one version's tile topic."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Compile the reader of a serving plan's tiles.

        Raises:
            StoreError: the document, or the codec it was written for, is of another version.
        """
        codec = codec_of(document, "tile")
        join_keys = [(key["name"], parse_type(key["type"])) for key in document["join_keys"]]
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(
            _record_type(join_keys, codec.slots)
        ).decode
        self._keys = EntityKeys(document["view"], document["fingerprint"], join_keys)
        self._packer = TilePacker(codec)
        self._key_count = len(join_keys)
        self._edges = [
            place for place, slot in enumerate(codec.slots, self._key_count + 2) if slot.is_edge
        ]
        self.rows_at = self._packer.rows_at

    def read(self, value: bytes | None) -> PackedTile:
        """Return the tile of a record's value.

        Raises:
            DataError: the value is no tile of this version. A tombstone is none either: Flink's
                tiles only grow, so its job deletes nothing.
        """
        if value is None:
            raise DataError("the record is a tombstone", where="tile topic")
        try:
            columns = msgspec.structs.astuple(self._decode(value))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"the record is no tile: {error}", where="tile topic") from error
        if self._edges:
            columns = self._with_edges(columns)
        first = self._key_count
        tag, key = self._keys.find(columns[:first])
        start_ms = columns[first]
        packed = self._packer.pack(columns[first + 2 :], columns[first + 1])
        return PackedTile(tag, key, start_ms, tile_field(start_ms), packed)

    def _with_edges(self, columns: tuple[Any, ...]) -> tuple[Any, ...]:
        plain = list(columns)
        for place in self._edges:
            if plain[place] is not None:
                plain[place] = msgspec.structs.astuple(plain[place])
        return tuple(plain)


def _record_type(join_keys: list[tuple[str, DataType]], slots: tuple[Slot, ...]) -> type:
    """Return the type of a record: the join keys, the tile, its newest event, then the slots."""
    names = {f"key{place}": name for place, (name, _) in enumerate(join_keys)}
    fields: list[Any] = [
        (field, _python_type(type_)) for field, (_, type_) in zip(names, join_keys, strict=True)
    ]
    fields += [("start", int), ("newest", int)]
    names |= {"start": TILE_START, "newest": LAST_EVENT}
    for place, slot in enumerate(slots):
        kept = _edge_type(slot) if slot.is_edge else _python_type(slot.type)
        is_needed = slot.name == ROWS
        fields.append((f"slot{place}", kept) if is_needed else (f"slot{place}", kept | None, None))
        names[f"slot{place}"] = slot.name
    return msgspec.defstruct("TileRecord", fields, rename=names, gc=False)


def _edge_type(slot: Slot) -> type:
    id_type = Any if slot.id_type is None else _python_type(slot.id_type)
    return msgspec.defstruct(
        "EdgeRecord",
        [
            ("event_ms", int),
            ("ingest_ms", int),
            ("event_id", id_type | None, None),
            ("value", _python_type(slot.type)),
        ],
        kw_only=True,
        gc=False,
    )


def _python_type(type_: DataType) -> Any:
    return type_.record.python
