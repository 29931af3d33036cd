"""The online store's bytes: keys, packed rows and packed tiles.

``docs/formats.md`` is the contract; other languages and server-side functions read the same bytes.
Everything is big-endian. A change of layout raises ``FORMAT`` and keeps a reader for the old one.

- A key names a view, its fingerprint and the entity. Each part carries its length and each key
  value its type, so two different keys never share bytes: ``("1", "23")`` is not ``("12", "3")``,
  and 1 is not ``"1"``.
- All keys of an entity carry the same hash tag, one of 256, so that a cluster holds them together
  and a writer can keep one marker a tag.
- A packed row or tile is a header, one presence bit for each slot, and the present values. It
  names its fingerprint, so it is never read with another version's slots.

Source: Feast's written online format; the layout follows what was measured for packed strings.
"""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal

from millrace.aggregates import Edge, check_forms
from millrace.errors import DataError, StoreError
from millrace.layouts import Layout, Slot
from millrace.packed_values import READERS, WRITERS, Cut, Writer, value_writer
from millrace.types import FLOAT64, INT64, KIND_RECORDS, DataType

FORMAT = 1
"""The layout that this module writes; the first byte of every packed value."""

KEY_PREFIX = b"m1"
TAGS = 256

_MOST_LAYOUTS = 1024  # kept by one codec; beyond them a layout is compiled for each value
_BIAS = 2**63  # instants are stored unsigned, so that their bytes compare as they do
_NEVER = -(2**63)
_HEADER = struct.Struct(">Bc8sQ")
_INSTANT = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_I64 = struct.Struct(">q")
_INTEGER_PART = INT64.record.key_tag + _U32.pack(8)

Kind = Literal["row", "tile"]
_KIND_BYTES: Mapping[Kind, bytes] = {"row": b"R", "tile": b"T"}


@dataclass(frozen=True)
class Packed:
    """What a packed row or tile says.

    Attributes:
        values: one per slot, None for null.
        event_ms: event time of the newest event in it; None if there is none. An upsert with an
            older one loses.
        valid_until_ms: rows only: the instant from which a value may have changed by time alone;
            None: never.
    """

    values: tuple[Any, ...]
    event_ms: int | None = None
    valid_until_ms: int | None = None


class Codec:
    """Packs and unpacks the rows, or the tiles, of one version of a view.

    Types are looked at once, here, and not for each value.

    Attributes:
        head: how each of them begins: format, kind and fingerprint.
        bits_at: offset of the presence bits.
        values_at: offset of the values.
    """

    def __init__(self, kind: Kind, fingerprint: str, slots: Sequence[Slot]) -> None:
        self.kind: Kind = kind
        self.fingerprint = fingerprint
        self.slots = tuple(slots)
        self._name = bytes.fromhex(fingerprint)
        self._bitmap_bytes = (len(self.slots) + 7) // 8
        self.head = bytes([FORMAT]) + _KIND_BYTES[kind] + self._name
        self.bits_at = _HEADER.size + (_INSTANT.size if kind == "row" else 0)
        self.values_at = self.bits_at + self._bitmap_bytes
        self._layouts: dict[bytes, Layout] = {}
        self._writers = [_slot_writer(slot) for slot in self.slots]

    def encode(self, packed: Packed) -> bytes:
        """Return the bytes of a row or tile.

        Raises:
            DataError: not one value per slot, or a value that is not of its slot's type.
        """
        if len(packed.values) != len(self.slots):
            raise DataError(
                f"{len(packed.values)} values for {len(self.slots)} slots",
                where=f"{self.kind} of {self.fingerprint}",
                fix="give one value per slot, None for null",
            )
        parts = [_HEADER.pack(FORMAT, _KIND_BYTES[self.kind], self._name, _biased(packed.event_ms))]
        if self.kind == "row":
            parts.append(struct.pack(">Q", _biased(packed.valid_until_ms)))
        present = [value is not None for value in packed.values]
        parts.append(_bitmap(present, self._bitmap_bytes))
        for write, value in zip(self._writers, packed.values, strict=True):
            if value is not None:
                parts.append(write(value))
        return b"".join(parts)

    def decode(self, data: bytes) -> Packed:
        """Return what ``encode`` was given.

        Raises:
            StoreError: the bytes are of another format, kind or version of the view, or broken.
        """
        _, values, event_ms, until_ms = self.read(data)
        return Packed(values, event_ms, until_ms)

    def read(self, data: bytes) -> tuple[bytes, tuple[Any, ...], int | None, int | None]:
        """Return the presence bits, and the three fields of ``Packed`` as ``decode`` gives them.

        For who reads thousands a request: making a ``Packed`` costs more than unpacking it.

        Raises:
            StoreError: as ``decode``.
        """
        bits = self.bits(data)
        layout = self._layouts.get(bits) or self._layout(bits)
        try:
            values = layout.read(data, self.values_at)
        except (struct.error, UnicodeDecodeError, OverflowError, Cut) as error:
            raise self.broken(f"a value is cut off or not of its type ({error})") from error
        (event,) = _INSTANT.unpack_from(data, len(self.head))
        until = _INSTANT.unpack_from(data, _HEADER.size)[0] if self.kind == "row" else 0
        return bits, values, event - _BIAS if event else None, until - _BIAS if until else None

    def bits(self, data: bytes) -> bytes:
        """Return the presence bits; the header is looked at.

        Raises:
            StoreError: it is of another format, kind or version of the view, or ends too early.
        """
        if not data.startswith(self.head) or len(data) < self.values_at:
            raise self._foreign(data)
        return data[self.bits_at : self.values_at]

    def event_ms(self, data: bytes) -> int | None:
        """Return the event time of the newest event, as ``Packed`` has it; nothing else is read.

        Raises:
            StoreError: as ``bits``.
        """
        self.bits(data)
        event: int = _INSTANT.unpack_from(data, len(self.head))[0]
        return event - _BIAS if event else None

    def present(self, bits: bytes) -> list[bool]:
        """Return of each slot whether presence bits say that it has a value.

        Raises:
            StoreError: they are those of more slots.
        """
        present = [bool(bits[i // 8] >> (i % 8) & 1) for i in range(len(self.slots))]
        if bits != _bitmap(present, self._bitmap_bytes):
            raise self.broken("presence bits beyond the last slot")
        return present

    def broken(self, what: str) -> StoreError:
        """Return the error of bytes that cannot be read."""
        return _broken(self._where, what)

    @property
    def _where(self) -> str:
        return f"{self.kind} of {self.fingerprint}"

    def _layout(self, bits: bytes) -> Layout:
        """Compile, and keep, how values with these presence bits are read."""
        layout = Layout(self.slots, self.present(bits))
        if len(self._layouts) < _MOST_LAYOUTS:
            self._layouts[bits] = layout
        return layout

    def _foreign(self, data: bytes) -> StoreError:
        if len(data) < self.values_at:
            return self.broken(f"it ends at byte {len(data)} of at least {self.values_at}")
        version, kind, name, _ = _HEADER.unpack_from(data)
        if version != FORMAT:
            return StoreError(
                f"a packed value has format {version}; this build reads format {FORMAT}",
                where=self._where,
                fix="upgrade the reader, or upload the view again with this build",
            )
        if kind != _KIND_BYTES[self.kind]:
            return self.broken(f"its kind is {kind!r}, not {_KIND_BYTES[self.kind]!r}")
        return StoreError(
            f"a packed value belongs to the fingerprint {name.hex()}",
            where=self._where,
            fix="read it with the serving plan of that fingerprint",
        )


def online_key(
    kind: Kind,
    view: str,
    fingerprint: str,
    join_keys: Sequence[tuple[str, DataType]],
    values: Mapping[str, Any],
) -> bytes:
    """Return the store's key of an entity's row, or of the hash that holds its tiles.

    Args:
        kind: row or tile.
        view: name of the view.
        fingerprint: the view's fingerprint, 16 hex digits.
        join_keys: names and types, in declared order; it decides, not the order of ``values``.
        values: value by join key.

    Raises:
        DataError: a join key is absent, null, or not of its type.
    """
    entity = entity_bytes(join_keys, values)
    return key_head(hash_tag(entity)) + key_tail(kind, view, fingerprint) + entity


def entity_bytes(join_keys: Sequence[tuple[str, DataType]], values: Mapping[str, Any]) -> bytes:
    """Return the encoded key values of an entity: the end of each of its keys, in every view.

    Raises:
        DataError: a join key is absent, null, or not of its type.
    """
    return b"".join(_key_part(name, type_, values.get(name)) for name, type_ in join_keys)


def integer_part(value: int) -> bytes:
    """Return the encoded value of an integer join key; it must be one of 64 bits."""
    return _INTEGER_PART + _I64.pack(value)


def key_head(tag: int) -> bytes:
    """Return how every key with a hash tag begins."""
    return KEY_PREFIX + b"{%02x}" % tag


def key_tail(kind: Kind, view: str, fingerprint: str) -> bytes:
    """Return what stands between the hash tag of a key and the entity."""
    name = view.encode()
    return _KIND_BYTES[kind] + bytes.fromhex(fingerprint) + _U32.pack(len(name)) + name


def hash_tag(entity: bytes) -> int:
    """Return the tag, 0 to 255, of an entity's encoded key values."""
    return zlib.crc32(entity) % TAGS


def tile_field(tile_start_ms: int) -> bytes:
    """Return the field of a tile in its entity's hash: 8 bytes that sort as time does."""
    return struct.pack(">Q", tile_start_ms + _BIAS)


def read_tile_field(field: bytes) -> int:
    """Return the start of the tile that a field names, epoch milliseconds."""
    return int(struct.unpack(">Q", field)[0]) - _BIAS


def read_tile_fields(fields: Sequence[bytes]) -> list[int]:
    """Return the starts of the tiles that fields name."""
    return [start - _BIAS for start in struct.unpack(f">{len(fields)}Q", b"".join(fields))]


def _broken(where: str, what: str) -> StoreError:
    return StoreError(
        f"the stored bytes are broken: {what}",
        where=where,
        fix="delete the key; it is written again by the next upload",
    )


def _bitmap(present: Sequence[bool], length: int) -> bytes:
    bits = sum(1 << i for i, there in enumerate(present) if there)
    return bits.to_bytes(length, "little")


def _biased(instant_ms: int | None) -> int:
    return (_NEVER if instant_ms is None else instant_ms) + _BIAS


def _slot_writer(slot: Slot) -> Writer:
    write = _checked_writer(slot.name, slot.type)
    if not slot.is_edge:
        return write
    write_ms = _checked_writer(slot.name, INT64)
    write_id = None if slot.id_type is None else _checked_writer(slot.name, slot.id_type)

    def write_edge(value: Any) -> bytes:
        edge = Edge(*value)
        parts = [write_ms(edge.event_ms), write_ms(edge.ingest_ms)]
        if write_id is not None:
            parts.append(b"\0" if edge.event_id is None else b"\1" + write_id(edge.event_id))
        return b"".join([*parts, write(edge.value)])

    return write_edge


def _checked_writer(name: str, type_: DataType) -> Writer:
    """Return the writer of values of a type that refuses what does not fit; nothing is cut or rounded."""
    fits, write = _CHECKS[type_.kind](type_), value_writer(type_)

    def write_checked(value: Any) -> bytes:
        if not fits(value):
            raise _misfit(name, type_, value)
        try:
            return write(value)
        except (
            struct.error,
            OverflowError,
            UnicodeEncodeError,
            InvalidOperation,
            TypeError,
            ValueError,
        ) as error:
            raise _misfit(name, type_, value) from error

    return write_checked


Check = Callable[[Any], bool]


def _is_a(*classes: type) -> Callable[[DataType], Check]:
    return lambda _: lambda value: isinstance(value, classes) and not isinstance(value, bool)


def _vector_check(type_: DataType) -> Check:
    fits = _CHECKS["float64"](FLOAT64)
    return lambda value: (
        isinstance(value, (list, tuple)) and len(value) == type_.length and all(map(fits, value))
    )


def _list_check(type_: DataType) -> Check:
    fits = _CHECKS[type_.values.kind](type_.values)
    return lambda value: isinstance(value, (list, tuple)) and all(map(fits, value))


# A whole number will do for a double or a decimal.
_CHECKS: Mapping[str, Callable[[DataType], Check]] = {
    "int32": _is_a(int),
    "int64": _is_a(int),
    "float64": lambda _: (
        lambda value: (
            isinstance(value, (float, int)) and not isinstance(value, bool) and isfinite(value)
        )
    ),
    "decimal": _is_a(Decimal, int),
    "bool": lambda _: lambda value: isinstance(value, bool),
    "string": _is_a(str),
    "timestamp": _is_a(int),
    "date": _is_a(date),
    "bytes": _is_a(bytes),
    "vector": _vector_check,
    "list": _list_check,
}
for _what, _table in (("checks", _CHECKS), ("readers", READERS), ("writers", WRITERS)):
    check_forms(f"the codec's {_what}", KIND_RECORDS, _table)


def _key_part(name: str, type_: DataType, value: Any) -> bytes:
    if type(value) is int and type_.is_integer and -_BIAS <= value < _BIAS:
        return integer_part(value)  # by far the most common key
    if value is None:
        raise DataError(
            f"the join key {name!r} is null or absent",
            where=f"join key {name}",
            fix="give every join key a value; a null key is served to nobody",
        )
    if type_.kind == "float64" and value == 0:
        value = 0.0  # both zeros are one key
    kept = INT64 if type_.is_integer else type_
    data = _checked_writer(name, kept)(value)
    if type_.kind in {"string", "bytes"}:
        data = data[_U32.size :]
    elif type_.kind == "decimal":  # 100 at scale 0 is not 1.00 at scale 2
        data = bytes([type_.scale]) + data
    return type_.record.key_tag + _U32.pack(len(data)) + data


def _misfit(name: str, type_: DataType, value: Any) -> DataError:
    shown = repr(value)
    return DataError(
        f"{shown[:60]}{'…' if len(shown) > 60 else ''} does not fit {type_}",  # noqa: PLR2004
        where=name,
        fix=f"give a finite value of type {type_}, or null",
    )
