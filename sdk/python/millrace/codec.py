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
from decimal import Context, Decimal, InvalidOperation
from math import isfinite
from typing import Any, Literal

from millrace.aggregates import Edge, check_forms
from millrace.calendar import day_number
from millrace.errors import DataError, StoreError
from millrace.layouts import DECIMAL_BYTES, Cut, Layout
from millrace.types import INT64, KIND_RECORDS, DataType

FORMAT = 1
"""The layout that this module writes; the first byte of every packed value."""

KEY_PREFIX = b"m1"
TAGS = 256

_MOST_LAYOUTS = 1024  # kept by one codec; beyond them a layout is compiled for each value
_BIAS = 2**63  # instants are stored unsigned, so that their bytes compare as they do
_NEVER = -(2**63)
_EXACT = Context(prec=100, traps=[InvalidOperation])
_HEADER = struct.Struct(">Bc8sQ")
_UNTIL = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_FIXED = {
    kind: struct.Struct(f">{record.packed}")
    for kind, record in KIND_RECORDS.items()
    if record.packed is not None
}
# A whole number will do for a double or a decimal, a tuple for a list.
_WIDER: Mapping[str, tuple[type, ...]] = {
    "float64": (float, int),
    "decimal": (Decimal, int),
    "list": (list, tuple),
}
_PYTHON_TYPES = {kind: _WIDER.get(kind, (record.python,)) for kind, record in KIND_RECORDS.items()}
_INTEGER_PART = INT64.record.key_tag + _U32.pack(8)

Kind = Literal["row", "tile"]
_KIND_BYTES: Mapping[Kind, bytes] = {"row": b"R", "tile": b"T"}


@dataclass(frozen=True)
class Slot:
    """One value of a packed row or tile.

    Attributes:
        type: type of the value; of the value inside the edge where ``is_edge``.
        is_edge: the slot holds a ``millrace.aggregates.Edge``.
        id_type: type of an edge's event id; None where the source names no event id.
    """

    name: str
    type: DataType
    is_edge: bool = False
    id_type: DataType | None = None


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
    """

    def __init__(self, kind: Kind, fingerprint: str, slots: Sequence[Slot]) -> None:
        self.kind: Kind = kind
        self.fingerprint = fingerprint
        self.slots = tuple(slots)
        self._name = bytes.fromhex(fingerprint)
        self._bitmap_bytes = (len(self.slots) + 7) // 8
        self._bits_at = _HEADER.size + (_UNTIL.size if kind == "row" else 0)
        self._layouts: dict[bytes, Layout] = {}

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
        for slot, value in zip(self.slots, packed.values, strict=True):
            if value is not None:
                parts.append(_slot_bytes(slot, value))
        return b"".join(parts)

    def decode(self, data: bytes) -> Packed:
        """Return what ``encode`` was given.

        Raises:
            StoreError: the bytes are of another format, kind or version of the view, or broken.
        """
        at = self._bits_at
        end = at + self._bitmap_bytes
        if len(data) < end:
            raise _broken(self._where, f"it ends at byte {len(data)} of at least {end}")
        version, kind, name, event = _HEADER.unpack_from(data)
        if version != FORMAT or kind != _KIND_BYTES[self.kind] or name != self._name:
            raise self._foreign(version, kind, name)
        bits = data[at:end]
        layout = self._layouts.get(bits) or self._layout(bits)
        try:
            values = layout.read(data, end)
        except (struct.error, UnicodeDecodeError, OverflowError, Cut) as error:
            raise _broken(
                self._where, f"a value is cut off or not of its type ({error})"
            ) from error
        until = _UNTIL.unpack_from(data, _HEADER.size)[0] if self.kind == "row" else 0
        return Packed(values, event - _BIAS if event else None, until - _BIAS if until else None)

    @property
    def _where(self) -> str:
        return f"{self.kind} of {self.fingerprint}"

    def _layout(self, bits: bytes) -> Layout:
        """Compile, and keep, how values with these presence bits are read."""
        present = [bool(bits[i // 8] >> (i % 8) & 1) for i in range(len(self.slots))]
        if bits != _bitmap(present, self._bitmap_bytes):
            raise _broken(self._where, "presence bits beyond the last slot")
        layout = Layout(self.slots, present)
        if len(self._layouts) < _MOST_LAYOUTS:
            self._layouts[bits] = layout
        return layout

    def _foreign(self, version: int, kind: bytes, name: bytes) -> StoreError:
        if version != FORMAT:
            return StoreError(
                f"a packed value has format {version}; this build reads format {FORMAT}",
                where=self._where,
                fix="upgrade the reader, or upload the view again with this build",
            )
        if kind != _KIND_BYTES[self.kind]:
            return _broken(self._where, f"its kind is {kind!r}, not {_KIND_BYTES[self.kind]!r}")
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


class _Reader:
    """A position in bytes that were stored."""

    def __init__(self, data: bytes, where: str) -> None:
        self.where = where
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise self.broken(f"it ends at byte {len(self._data)} of at least {end}")
        taken, self._at = self._data[self._at : end], end
        return taken

    def finish(self) -> None:
        if self._at != len(self._data):
            raise self.broken(f"{len(self._data) - self._at} bytes follow its end")

    def broken(self, what: str) -> StoreError:
        return _broken(self.where, what)


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


def _slot_bytes(slot: Slot, value: Any) -> bytes:
    if not slot.is_edge:
        return value_bytes(slot.name, slot.type, value)
    edge = Edge(*value)
    parts = [value_bytes(slot.name, INT64, edge.event_ms)]
    parts.append(value_bytes(slot.name, INT64, edge.ingest_ms))
    if slot.id_type is not None:
        parts.append(b"\0" if edge.event_id is None else b"\1")
        if edge.event_id is not None:
            parts.append(value_bytes(slot.name, slot.id_type, edge.event_id))
    return b"".join([*parts, value_bytes(slot.name, slot.type, edge.value)])


def value_bytes(name: str, type_: DataType, value: Any) -> bytes:
    """Return the bytes of one value that is not null, as rows and tiles have it.

    Raises:
        DataError: it does not fit the type: nothing is ever cut or rounded.
    """
    is_of_type: bool = isinstance(value, _PYTHON_TYPES[type_.kind])
    if not is_of_type or (isinstance(value, bool) and type_.kind != "bool"):
        raise _misfit(name, type_, value)
    try:
        return _WRITERS[type_.kind](type_, value)
    except (struct.error, OverflowError, UnicodeEncodeError, InvalidOperation, TypeError) as error:
        raise _misfit(name, type_, value) from error


def _fixed(type_: DataType, value: Any) -> bytes:
    return _FIXED[type_.kind].pack(value)


def _double_bytes(type_: DataType, value: float) -> bytes:
    if not isfinite(value):
        raise OverflowError
    return _fixed(type_, value)


def _decimal_bytes(type_: DataType, value: Any) -> bytes:
    return _unscaled(type_, Decimal(value)).to_bytes(DECIMAL_BYTES, "big", signed=True)


def _date_bytes(type_: DataType, value: Any) -> bytes:
    return _fixed(type_, day_number(value))


def _string_bytes(type_: DataType, value: str) -> bytes:
    return _raw_bytes(type_, value.encode())


def _raw_bytes(type_: DataType, value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _list_bytes(type_: DataType, value: Sequence[Any]) -> bytes:
    item = type_.values
    return _U32.pack(len(value)) + b"".join(value_bytes("a value", item, one) for one in value)


_WRITERS: Mapping[str, Callable[[DataType, Any], bytes]] = {
    "int32": _fixed,
    "int64": _fixed,
    "float64": _double_bytes,
    "decimal": _decimal_bytes,
    "bool": _fixed,
    "string": _string_bytes,
    "timestamp": _fixed,
    "date": _date_bytes,
    "bytes": _raw_bytes,
    "list": _list_bytes,
}
check_forms("the codec", KIND_RECORDS, _WRITERS)


def _unscaled(type_: DataType, value: Decimal) -> int:
    if not value.is_finite():
        raise OverflowError
    shifted = value.scaleb(type_.scale, context=_EXACT)
    unscaled = int(shifted)
    if unscaled != shifted or abs(unscaled) >= 10**type_.precision:
        raise OverflowError
    return unscaled


def _key_part(name: str, type_: DataType, value: Any) -> bytes:
    if type(value) is int and type_.is_integer and -_BIAS <= value < _BIAS:
        return _INTEGER_PART + _FIXED["int64"].pack(value)  # by far the most common key
    if value is None:
        raise DataError(
            f"the join key {name!r} is null or absent",
            where=f"join key {name}",
            fix="give every join key a value; a null key is served to nobody",
        )
    if type_.kind == "float64" and value == 0:
        value = 0.0  # both zeros are one key
    kept = INT64 if type_.is_integer else type_
    data = value_bytes(name, kept, value)
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
