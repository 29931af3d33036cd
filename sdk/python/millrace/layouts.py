"""How packed values are read fast: one compiled layout for each pattern of presence bits.

``millrace.codec`` says what the bytes mean and writes them; this module knows the slots, and reads the
part behind the presence bits. Slots of fixed width that follow one another are unpacked by one call; strings,
bytes, lists and edges end such a run.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
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
        self._runs: list[tuple[struct.Struct, Reader]] = []
        self._converted: list[tuple[int, Callable[[Any], Any]]] = []
        found = [i for i, there in enumerate(present) if there]
        run: list[int] = []
        for i in found:
            slot = slots[i]
            if slot.is_edge or slot.type.record.packed is None:
                self._runs.append((_form(slots, run), slot_reader(slot)))
                run = []
                continue
            run.append(i)
            convert = from_struct(slot.type)
            if convert is not None:
                self._converted.append((i, convert))
        self._last = _form(slots, run)
        # Values come as they were stored; what is absent is the None put behind them.
        place_of = {i: place for place, i in enumerate(found)}
        places = [place_of.get(i, len(found)) for i in range(len(slots))]
        self._spread = None if len(found) == len(slots) else spread(places)

    def read(self, data: bytes, at: int) -> tuple[Any, ...]:
        """Return the values from ``at`` to the end of the data, None where absent.

        Raises:
            struct.error, UnicodeDecodeError, OverflowError, Cut: the bytes are broken.
        """
        values: tuple[Any, ...] = ()
        for form, reader in self._runs:
            before = form.unpack_from(data, at)
            value, at = reader(data, at + form.size)
            values = (*values, *before, value)
        last = self._last
        if at + last.size != len(data):
            raise Cut(f"{len(data)} bytes, not {at + last.size}")
        values += last.unpack_from(data, at)
        if self._spread is not None:
            values = self._spread((*values, None))
        if not self._converted:
            return values
        converted = list(values)
        for place, convert in self._converted:
            converted[place] = convert(converted[place])
        return tuple(converted)


def spread(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return what takes the values at some places, in that order, as a tuple."""
    if len(places) != 1:
        return itemgetter(*places) if places else lambda _: ()
    (place,) = places
    return lambda values: (values[place],)


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
