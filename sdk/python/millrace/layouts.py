"""How packed values are read fast: one compiled layout for each pattern of presence bits.

``millrace.codec`` says what the bytes mean and writes them; this module knows the slots, and reads the
part behind the presence bits. Slots of fixed width that follow one another are unpacked by one call; strings,
bytes, lists and edges end such a run.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from millrace.aggregates import Edge
from millrace.packed_values import Cut, Reader, from_struct, value_reader
from millrace.types import DataType

_PLACE = struct.Struct(">qq")


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


class Layout:
    """How the values behind one pattern of presence bits are read."""

    def __init__(self, slots: Sequence[Slot], present: Sequence[bool]) -> None:
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
            convert = from_struct(slot.type)
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


def _form(slots: Sequence[Slot], run: Sequence[int]) -> struct.Struct:
    return struct.Struct(">" + "".join(slots[i].type.record.packed or "" for i in run))


def slot_reader(slot: Slot) -> Reader:
    """Return the reader of one slot's value."""
    read_value = value_reader(slot.type)
    if not slot.is_edge:
        return read_value
    if slot.id_type is None:
        return _edge_without_id(read_value)
    return _edge_with_id(read_value, value_reader(slot.id_type))


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
