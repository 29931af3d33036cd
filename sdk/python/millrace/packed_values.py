"""How the bare values of each kind of type stand in packed rows and tiles, and in what they hold.

``docs/formats.md`` is the contract. Values are taken to be of their types here; ``millrace.codec``
looks at them first. The tables are held against all kinds where the codec is loaded.
"""

import struct
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any

from millrace.calendar import EPOCH, day_number
from millrace.types import KIND_RECORDS, DataType

DECIMAL_BYTES = struct.calcsize(f">{KIND_RECORDS['decimal'].packed}")

_U32 = struct.Struct(">I")
EXACT = Context(prec=100, traps=[InvalidOperation])

Reader = Callable[[bytes, int], tuple[Any, int]]
"""Reads the value that starts at an offset; returns it with the offset behind it."""

Writer = Callable[[Any], bytes]
"""Returns the bytes of a value."""


class Cut(Exception):
    """The bytes end too early or too late."""


def value_reader(type_: DataType) -> Reader:
    """Return the reader of values of a type.

    It raises ``struct.error``, ``UnicodeDecodeError``, ``OverflowError`` or ``Cut`` where the bytes
    are broken.
    """
    return READERS[type_.kind](type_)


def value_writer(type_: DataType) -> Writer:
    """Return the writer of values of a type; a decimal may also be an int where its scale is 0."""
    return WRITERS[type_.kind](type_)


def from_struct(type_: DataType) -> Callable[[Any], Any] | None:
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
        return whole.scaleb(shift, context=EXACT)

    return scaled


def for_struct(type_: DataType) -> Callable[[Any], Any] | None:
    """Return what makes of a value what ``struct`` takes; None if that is the value."""
    if type_.kind == "date":
        return day_number
    if type_.kind != "decimal":
        return None
    scale, most = type_.scale, 10**type_.precision

    def unscaled(value: Decimal | int) -> bytes:
        shifted = Decimal(value).scaleb(scale, context=EXACT) if scale else value
        whole = int(shifted)
        if whole != shifted or not -most < whole < most:
            raise OverflowError(f"{value} does not fit {type_}")
        return whole.to_bytes(DECIMAL_BYTES, "big", signed=True)

    return unscaled


def _fixed_reader(type_: DataType) -> Reader:
    form, convert = struct.Struct(f">{type_.record.packed}"), from_struct(type_)

    def read(data: bytes, at: int) -> tuple[Any, int]:
        (value,) = form.unpack_from(data, at)
        return (value if convert is None else convert(value)), at + form.size

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


def _vector_reader(type_: DataType) -> Reader:
    form = struct.Struct(f">{type_.length}f")

    def read(data: bytes, at: int) -> tuple[list[float], int]:
        return list(form.unpack_from(data, at)), at + form.size

    return read


def _list_reader(type_: DataType) -> Reader:
    read_value, packed = value_reader(type_.values), type_.values.record.packed
    is_plain = packed is not None and from_struct(type_.values) is None

    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        (length,) = _U32.unpack_from(data, at)
        at += _U32.size
        if length > len(data) - at:
            raise Cut(f"{length} values begin at byte {at} of {len(data)}")
        if is_plain:
            form = f">{length}{packed}"
            return list(struct.unpack_from(form, data, at)), at + struct.calcsize(form)
        values = []
        for _ in range(length):
            value, at = read_value(data, at)
            values.append(value)
        return values, at

    return read


def _fixed_writer(type_: DataType) -> Writer:
    form, convert = struct.Struct(f">{type_.record.packed}"), for_struct(type_)
    if convert is None:
        return form.pack
    return lambda value: form.pack(convert(value))


def _write_bytes(value: bytes) -> bytes:
    return _U32.pack(len(value)) + value


def _write_string(value: str) -> bytes:
    return _write_bytes(value.encode())


def _vector_writer(type_: DataType) -> Writer:
    form = struct.Struct(f">{type_.length}f")
    return lambda values: form.pack(*values)


def _list_writer(type_: DataType) -> Writer:
    write = value_writer(type_.values)
    return lambda values: _U32.pack(len(values)) + b"".join(map(write, values))


READERS: Mapping[str, Callable[[DataType], Reader]] = MappingProxyType(
    {
        "int32": _fixed_reader,
        "int64": _fixed_reader,
        "float64": _fixed_reader,
        "decimal": _fixed_reader,
        "bool": _fixed_reader,
        "string": lambda _: _read_string,
        "timestamp": _fixed_reader,
        "date": _fixed_reader,
        "bytes": lambda _: _read_bytes,
        "vector": _vector_reader,
        "list": _list_reader,
    }
)
"""By kind of type."""

WRITERS: Mapping[str, Callable[[DataType], Writer]] = MappingProxyType(
    {
        "int32": _fixed_writer,
        "int64": _fixed_writer,
        "float64": _fixed_writer,
        "decimal": _fixed_writer,
        "bool": _fixed_writer,
        "string": lambda _: _write_string,
        "timestamp": _fixed_writer,
        "date": _fixed_writer,
        "bytes": lambda _: _write_bytes,
        "vector": _vector_writer,
        "list": _list_writer,
    }
)
"""By kind of type."""
