"""Algebras whose tiles keep one column of bytes, an encoding of the whole state.

The same events give the same bytes in every engine, whatever their order and however they were
grouped and merged. Spark and Python run the algebra itself; Flink has a function of the job's jar,
held to the same bytes.
"""

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, reduce
from typing import Any, ClassVar

from millrace import packed_values
from millrace.aggregates.algebras import Algebra, State
from millrace.aggregates.partials import Encoded, Partial
from millrace.aggregates.places import Edge, Place
from millrace.types import BYTES, INT64, STRING, DataType

_U32 = struct.Struct(">I")
_PLACE = struct.Struct(">qq")
_READ_NUMBER, _WRITE_NUMBER = packed_values.value_reader(INT64), packed_values.value_writer(INT64)
_READ_TEXT, _WRITE_TEXT = packed_values.value_reader(STRING), packed_values.value_writer(STRING)


@dataclass(frozen=True)
class Encoding(Algebra, ABC):
    """What is kept of one measure, as bytes.

    Fields beside the type are the parameters that shape the bytes.
    """

    keeps: ClassVar[type[Encoded]]

    @property
    def partials(self) -> tuple[Partial, ...]:
        shaping = tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "type")
        return (self.keeps(BYTES, shaping),)

    def merge_all(self, states: Sequence[State]) -> State:
        """Return the state of at least one set of events, none of which share any.

        What is large is copied once, and not for each of them.
        """
        return reduce(self.merge, states)

    @abstractmethod
    def encode(self, state: State) -> bytes | None:
        """Return the bytes of a state; None of no events."""

    @abstractmethod
    def decode(self, data: bytes) -> State:
        """Return the state that bytes stand for."""

    def encode_all(self, values: Sequence[Any], places: Sequence[Place] | None) -> bytes | None:
        """Return the bytes of all events of a tile at once.

        Args:
            values: in any order.
            places: of each; None where ``keeps`` is not ordered.
        """
        state = self.init()
        for value, place in zip(values, places or [_NOWHERE] * len(values), strict=True):
            state = self.update(state, value, place)
        return self.encode(state)

    def pack(self, state: State) -> tuple[Any, ...]:
        return (self.encode(state),)

    def unpack(self, values: tuple[Any, ...]) -> State:
        return self.init() if values[0] is None else self.decode(values[0])

    @cached_property
    def value_bytes(self) -> Callable[[Any], bytes]:
        """What turns a value into its bytes."""
        return value_writer(self.type)


_NOWHERE = Place(0, 0)


def edge_writer(type_: DataType) -> Callable[[Edge], bytes]:
    """Return what makes bytes of a value with its place.

    They are the event time, the ingest time, a byte that says of which type the event id is, the id
    and the value, as they stand in packed tiles.
    """
    write_value = packed_values.value_writer(type_)

    def write(edge: Edge) -> bytes:
        event_id = edge.event_id
        head = _PLACE.pack(edge.event_ms, edge.ingest_ms)
        if event_id is None:
            return head + b"\0" + write_value(edge.value)
        is_text = isinstance(event_id, str)
        tag, id_bytes = (b"\2", _WRITE_TEXT) if is_text else (b"\1", _WRITE_NUMBER)
        return b"".join((head, tag, id_bytes(event_id), write_value(edge.value)))

    return write


def edge_reader(type_: DataType) -> Callable[[bytes, int], tuple[Edge, int]]:
    """Return the reader of what ``edge_writer`` writes, from an offset to the one behind it."""
    read_value = packed_values.value_reader(type_)

    def read(data: bytes, at: int) -> tuple[Edge, int]:
        event_ms, ingest_ms = _PLACE.unpack_from(data, at)
        tag, at, event_id = data[at + _PLACE.size], at + _PLACE.size + 1, None
        if tag:
            event_id, at = (_READ_NUMBER if tag == 1 else _READ_TEXT)(data, at)
        value, at = read_value(data, at)
        return Edge(event_ms, ingest_ms, event_id, value), at

    return read


def value_writer(type_: DataType) -> Callable[[Any], bytes]:
    """Return what makes bytes of a value that is not null: equal bytes of equal values, no others.

    They are those of packed tiles, big-endian, of texts and bytes without their length; both
    zeros of a double are one.
    """
    if type_.kind == "string":
        return str.encode
    if type_.kind == "bytes":
        return bytes
    if type_.kind == "float64":
        pack = struct.Struct(f">{type_.record.packed}").pack
        return lambda value: pack(value + 0.0)
    return packed_values.value_writer(type_)


def join_values(type_: DataType, values: Sequence[bytes]) -> bytes:
    """Put the bytes of values behind one another; those of texts and bytes with a length before."""
    if type_.record.packed is not None:
        return b"".join(values)
    return b"".join([part for value in values for part in (_U32.pack(len(value)), value)])


def split_values(type_: DataType, data: bytes) -> list[bytes]:
    """Return what ``join_values`` was given."""
    if type_.record.packed is not None:
        width = struct.calcsize(f">{type_.record.packed}")
        return [data[at : at + width] for at in range(0, len(data), width)]
    values, at = [], 0
    while at < len(data):
        begin = at + _U32.size
        at = begin + _U32.unpack_from(data, at)[0]
        values.append(data[begin:at])
    return values
