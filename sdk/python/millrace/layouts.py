"""How packed values are read fast: one compiled layout for each pattern of presence bits.

``millrace.codec`` says what the bytes mean and writes them; this module only reads the part behind
the presence bits. Slots of fixed width that follow one another are unpacked by one call; strings,
bytes, lists and edges end such a run.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from millrace.aggregates import Edge, check_forms
from millrace.calendar import EPOCH
from millrace.types import KIND_RECORDS, DataType

if TYPE_CHECKING:
    from millrace.codec import Slot

DECIMAL_BYTES = struct.calcsize(f">{KIND_RECORDS['decimal'].packed}")

_U32 = struct.Struct(">I")
_PLACE = struct.Struct(">qq")
_EXACT = Context(prec=100, traps=[InvalidOperation])

Reader = Callable[[bytes, int], tuple[Any, int]]
"""Reads the value that starts at an offset; returns it with the offset behind it."""


class Cut(Exception):
    """The bytes end too early or too late."""


class Layout:
    """How the values behind one pattern of presence bits are read."""

    def __init__(self, slots: "Sequence[Slot]", present: Sequence[bool]) -> None:
        self._size = len(slots)
        self._runs: list[tuple[struct.Struct, list[int], int, Reader]] = []
        self._converted: list[tuple[int, Callable[[Any], Any]]] = []
        run: list[int] = []
        for i, (slot, there) in enumerate(zip(slots, present, strict=True)):
            if not there:
                continue
            if slot.is_edge or slot.type.record.packed is None:
                self._runs.append((_form(slots, run), run, i, slot_reader(slot)))
                run = []
                continue
            run.append(i)
            convert = conversion(slot.type)
            if convert is not None:
                self._converted.append((i, convert))
        self._last, self._last_run = _form(slots, run), run
        # All there, of fixed width and as they are: the unpacked tuple is the answer.
        self._is_plain = len(run) == self._size and not self._converted

    def read(self, data: bytes, at: int) -> tuple[Any, ...]:
        """Return the values from ``at`` to the end of the data, None where absent.

        Raises:
            struct.error, UnicodeDecodeError, OverflowError, Cut: the bytes are broken.
        """
        if self._is_plain and at + self._last.size == len(data):
            return self._last.unpack_from(data, at)
        values: list[Any] = [None] * self._size
        for form, run, i, reader in self._runs:
            for place, value in zip(run, form.unpack_from(data, at), strict=True):
                values[place] = value
            values[i], at = reader(data, at + form.size)
        for place, value in zip(self._last_run, self._last.unpack_from(data, at), strict=True):
            values[place] = value
        if at + self._last.size != len(data):
            raise Cut(f"{len(data)} bytes, not {at + self._last.size}")
        for place, convert in self._converted:
            values[place] = convert(values[place])
        return tuple(values)


def _form(slots: "Sequence[Slot]", run: Sequence[int]) -> struct.Struct:
    return struct.Struct(">" + "".join(slots[i].type.record.packed or "" for i in run))


def slot_reader(slot: "Slot") -> Reader:
    """Return the reader of one slot's value."""
    read_value = value_reader(slot.type)
    if not slot.is_edge:
        return read_value
    if slot.id_type is None:
        return _edge_without_id(read_value)
    return _edge_with_id(read_value, value_reader(slot.id_type))


def value_reader(type_: DataType) -> Reader:
    """Return the reader of a bare value of a type."""
    return _READERS[type_.kind](type_)


def _fixed_reader(type_: DataType) -> Reader:
    form, convert = struct.Struct(f">{type_.record.packed}"), conversion(type_)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        (value,) = form.unpack_from(data, at)
        return (value if convert is None else convert(value)), at + form.size

    return read


def conversion(type_: DataType) -> Callable[[Any], Any] | None:
    """Return what makes a value of what ``struct`` gives; None if that is the value."""
    if type_.kind == "date":
        return lambda days: EPOCH + timedelta(days=days)
    if type_.kind != "decimal":
        return None
    if type_.scale == 0:
        return lambda unscaled: Decimal(int.from_bytes(unscaled, "big", signed=True))
    shift = -type_.scale

    def scaled(unscaled: bytes) -> Decimal:
        whole = Decimal(int.from_bytes(unscaled, "big", signed=True))
        return whole.scaleb(shift, context=_EXACT)

    return scaled


def _edge_without_id(read_value: Reader) -> Reader:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        event_ms, ingest_ms = _PLACE.unpack_from(data, at)
        value, end = read_value(data, at + _PLACE.size)
        return Edge(event_ms, ingest_ms, None, value), end

    return read


def _edge_with_id(read_value: Reader, read_id: Reader) -> Reader:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        event_ms, ingest_ms = _PLACE.unpack_from(data, at)
        event_id, end = None, at + _PLACE.size + 1
        if data[end - 1 : end] == b"\1":
            event_id, end = read_id(data, end)
        value, end = read_value(data, end)
        return Edge(event_ms, ingest_ms, event_id, value), end

    return read


def _read_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    start = at + _U32.size
    end = start + _U32.unpack_from(data, at)[0]
    if end > len(data):
        raise Cut(f"it ends at byte {len(data)} of at least {end}")
    return data[start:end], end


def _read_string(data: bytes, at: int) -> tuple[str, int]:
    value, end = _read_bytes(data, at)
    return value.decode(), end


def _list_reader(type_: DataType) -> Reader:
    read_value = value_reader(type_.values)

    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        (length,) = _U32.unpack_from(data, at)
        at += _U32.size
        if length > len(data) - at:
            raise Cut(f"{length} values begin at byte {at} of {len(data)}")
        values = []
        for _ in range(length):
            value, at = read_value(data, at)
            values.append(value)
        return values, at

    return read


_READERS: Mapping[str, Callable[[DataType], Reader]] = {
    "int32": _fixed_reader,
    "int64": _fixed_reader,
    "float64": _fixed_reader,
    "decimal": _fixed_reader,
    "bool": _fixed_reader,
    "string": lambda _: _read_string,
    "timestamp": _fixed_reader,
    "date": _fixed_reader,
    "bytes": lambda _: _read_bytes,
    "list": _list_reader,
}
check_forms("layouts", KIND_RECORDS, _READERS)
