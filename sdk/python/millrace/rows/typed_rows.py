"""Columns that have types already, of Parquet and Delta, as the declared ones: exactly or not at all.

A cell arrives as a 64-bit integer, a double, a decimal, a bool, text, bytes, a day, an instant of
microseconds, or a list of doubles. The table of what becomes of it is docs/values.md; nothing is rounded, and text is never
read as anything else.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.calendar import FIRST_MS, FIRST_NUMBER, LAST_MS, LAST_NUMBER
from millrace.durations import DAY_MS
from millrace.plan import Column
from millrace.rows.lines import Rows
from millrace.types import INT64, DataType
from millrace.values.arrow import array_of, arrow_type, vector_array
from millrace.values.scalars import Convert, Misfit, Number, converter
from millrace.values.units import SURE_MS, unit_hint

EXACT_DOUBLES = 2**53
"""Up to here every integer has a double of its own."""

_SURE_DIGITS = 10**15
_NO_BOOL = 2
_RESIDUES = {pa.float64(): 2.0**-48, pa.float32(): 2.0**-23, pa.float16(): 2.0**-10}
"""What arithmetic leaves of a decimal in binary, in relation to it: some last digits of the mantissa."""
_DAY_US = DAY_MS * 1_000
_SHOWN = 80

Bools = npt.NDArray[np.bool_]
Fit = Callable[[pa.Array, DataType], tuple[pa.Array, Bools]]


def read_typed_rows(
    columns: Sequence[Column], clock: Collection[str], cells: Mapping[str, pa.Array], rows: int
) -> Rows:
    """Return the declared columns.

    Args:
        columns: what comes out, in this order.
        clock: the columns that time events, whose integers are milliseconds plainly.
        cells: columns by declared name; one that is not there is null.
        rows: how many rows there are.
    """
    found: list[pa.Array] = []
    details: npt.NDArray[np.object_] = np.full(rows, None, dtype=object)
    for column in columns:
        if column.name not in cells:
            found.append(pa.nulls(rows, arrow_type(column.type)))
            continue
        raw = cells[column.name]
        values, bad = fitted(raw, column.type)
        hints: dict[int, str] = {}
        timing = raw if pa.types.is_integer(raw.type) else values
        if column.name in clock and pa.types.is_integer(timing.type):
            hints = _hints(timing)
            bad = bad | _at(hints, rows)
        if bad.any():
            values = pc.if_else(pa.array(~bad), values, pa.scalar(None, values.type))
            for place in np.flatnonzero(bad).tolist():
                told = hints.get(place) or f"{_shown(raw[place])} is no {column.type}"
                details[place] = details[place] or f"column {column.name!r}: {told}"
        found.append(values)
    texts = pa.array(details, pa.string())
    reasons = pc.if_else(texts.is_valid(), "schema", pa.scalar(None, pa.string()))
    return Rows(found, reasons, texts)


def fitted(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    """Return cells as a declared type, null where they do not fit; and which do not."""
    if pa.types.is_null(cells.type):
        return cells.cast(arrow_type(type_)), np.zeros(len(cells), dtype=bool)
    if pa.types.is_floating(cells.type):
        # Not a number is no value: pandas writes missing integers so, and JSON cannot carry it.
        cells = pc.if_else(pc.is_finite(cells), cells, pa.scalar(None, cells.type))
    return _FITS[type_.kind](cells, type_)


def _hints(cells: pa.Array) -> dict[int, str]:
    """Say which integers are no milliseconds, by place."""
    values = _integers(cells)
    doubtful = np.flatnonzero((values < SURE_MS.start) | (values >= SURE_MS.stop))
    told = {place: unit_hint(int(values[place])) for place in doubtful.tolist()}
    return {place: hint for place, hint in told.items() if hint}


def _at(places: Collection[int], rows: int) -> Bools:
    found = np.zeros(rows, dtype=bool)
    found[list(places)] = True
    return found


def _shown(cell: Any) -> str:
    if pa.types.is_timestamp(cell.type) or pa.types.is_date(cell.type):
        text = str(cell.cast(pa.int64() if pa.types.is_timestamp(cell.type) else pa.int32()))
        return f"{text} {'µs' if pa.types.is_timestamp(cell.type) else 'days'} since 1970"
    value = cell.as_py()
    text = repr(value) if isinstance(value, str | bytes) else str(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _integers(cells: pa.Array) -> npt.NDArray[np.int64]:
    found: npt.NDArray[np.int64] = cells.fill_null(0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)


def _nulls(cells: pa.Array) -> Bools:
    found: Bools = cells.is_null().to_numpy(zero_copy_only=False)
    return found


def _with_nulls(values: npt.NDArray[Any], missing: Bools, type_: pa.DataType) -> pa.Array:
    return pa.array(values, type_, mask=missing)


def _one_by_one(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    """Read each number by the grammar, from its exact text."""
    convert = _whole_or_exact(type_)
    values, bad = [], np.zeros(len(cells), dtype=bool)
    for place, value in enumerate(cells.to_pylist()):
        try:
            values.append(None if value is None else convert(Number(value)))
        except Misfit:
            values.append(None)
            bad[place] = True
    return array_of(values, type_), bad


def _whole_or_exact(type_: DataType) -> Convert:
    convert = converter(type_)
    if not type_.is_integer:
        return convert

    def whole(value: object) -> object:
        # Arrow writes a zero of many places as 0E-18.
        number = Decimal(str(value))
        return convert(Number(int(number) if number == number.to_integral_value() else value))

    return whole


def _to_integer(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    bits = 31 if type_.kind == "int32" else 63
    if pa.types.is_floating(cells.type):
        missing = _nulls(cells)
        doubles = cells.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
        most = min(EXACT_DOUBLES, 2**bits)
        fits = (doubles == np.floor(doubles)) & (doubles >= -most) & (doubles <= most)
        fits &= (doubles < 2**bits) & ~missing
        values = np.where(fits, doubles, 0).astype(np.int64)
        return _with_nulls(values, ~fits, pa.int64()).cast(arrow_type(type_)), ~fits & ~missing
    if pa.types.is_integer(cells.type):
        values = _integers(cells)
        bad = ((values < -(2**bits)) | (values > 2**bits - 1)) & ~_nulls(cells)
        return _with_nulls(values, _nulls(cells) | bad, pa.int64()).cast(arrow_type(type_)), bad
    if pa.types.is_decimal(cells.type):
        return _one_by_one(cells.cast(pa.string()), type_)
    return _none(cells, type_)


def _to_double(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    good = np.zeros(len(cells), dtype=bool)
    if pa.types.is_floating(cells.type):
        return cells.cast(pa.float64()), good
    if pa.types.is_integer(cells.type):
        return cells.cast(pa.float64(), safe=False), good
    if pa.types.is_decimal(cells.type):
        # By its digits: Arrow's own way from decimals to doubles is not the nearest.
        return cells.cast(pa.string()).cast(pa.float64()), good
    return _none(cells, type_)


def _to_decimal(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    wanted = arrow_type(type_)
    if pa.types.is_floating(cells.type):
        return _doubles_to_decimal(cells, type_)
    if not (pa.types.is_integer(cells.type) or pa.types.is_decimal(cells.type)):
        return _none(cells, type_)
    try:
        return cells.cast(wanted), np.zeros(len(cells), dtype=bool)
    except pa.ArrowInvalid:
        return _one_by_one(cells.cast(pa.string()), type_)


def _doubles_to_decimal(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    """Take a double for the decimal that it can only mean: 57.16, or 85.64999999999999 for 85.65.

    That is the nearest one of the scale, if no more lies between than arithmetic in binary leaves.
    """
    missing = _nulls(cells)
    residue = _RESIDUES[cells.type]
    doubles = cells.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    step = 10.0**type_.scale
    unscaled = np.rint(doubles * step)
    is_exact = np.abs(unscaled) < _SURE_DIGITS
    is_near = np.abs(unscaled / step - doubles) <= residue * np.abs(doubles)
    fits = is_exact & is_near & (np.abs(unscaled) < 10.0**type_.precision) & ~missing
    digits = np.where(fits, unscaled, 0).astype(np.int64)
    values, bad = _decimals(digits, ~fits, type_), ~fits & ~missing
    large = np.flatnonzero(~is_exact & ~missing)
    if len(large):
        texts = pa.array([repr(float(d)) for d in doubles[large]], pa.string())
        found, bad[large] = _one_by_one(texts, type_)
        order = np.arange(len(cells))
        order[large] = len(cells) + np.arange(len(large))
        values = pa.concat_arrays([values, found]).take(pa.array(order))
    return values, bad


def _decimals(unscaled: npt.NDArray[np.int64], missing: Bools, type_: DataType) -> pa.Array:
    """Return decimals of these digits, two words each."""
    words = np.empty((len(unscaled), 2), dtype=np.int64)
    words[:, 0], words[:, 1] = unscaled, unscaled >> 63
    validity = np.packbits(~missing, bitorder="little")
    buffers = [pa.py_buffer(validity), pa.py_buffer(words)]
    return pa.Array.from_buffers(arrow_type(type_), len(unscaled), buffers)


def _is_whole(found: pa.DataType) -> bool:
    """True of integers: those of 64 bits without a sign arrive as decimals."""
    return bool(pa.types.is_integer(found) or (pa.types.is_decimal(found) and found.scale == 0))


def _to_bool(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    if pa.types.is_boolean(cells.type):
        return cells, np.zeros(len(cells), dtype=bool)
    if not _is_whole(cells.type):
        return _none(cells, type_)
    integers, _ = _to_integer(cells, INT64)
    values, missing = _integers(integers.fill_null(_NO_BOOL)), _nulls(cells)
    bad = (values != 0) & (values != 1) & ~missing
    return _with_nulls(values == 1, missing | bad, pa.bool_()), bad


def _to_text(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    if pa.types.is_string(cells.type) or _is_whole(cells.type):
        return cells.cast(pa.string()), np.zeros(len(cells), dtype=bool)
    return _none(cells, type_)


def _to_bytes(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    is_binary = pa.types.is_binary(cells.type)
    return (cells, np.zeros(len(cells), dtype=bool)) if is_binary else _none(cells, type_)


def _to_instant(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    missing = _nulls(cells)
    if pa.types.is_timestamp(cells.type):
        ms = np.floor_divide(_integers(cells.cast(pa.int64())), 1_000)
    elif pa.types.is_date(cells.type):
        ms = _integers(cells.cast(pa.int32())) * DAY_MS
    elif pa.types.is_integer(cells.type):
        ms = _integers(cells)
    else:
        return _none(cells, type_)
    bad = ((ms < FIRST_MS) | (ms > LAST_MS)) & ~missing
    us = np.where(bad, 0, ms) * 1_000
    return _with_nulls(us, missing | bad, pa.int64()).cast(arrow_type(type_)), bad


def _to_day(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    missing = _nulls(cells)
    if pa.types.is_timestamp(cells.type):
        days = np.floor_divide(_integers(cells.cast(pa.int64())), _DAY_US)
    elif pa.types.is_date(cells.type):
        days = _integers(cells.cast(pa.int32()))
    else:
        return _none(cells, type_)
    bad = ((days < FIRST_NUMBER) | (days > LAST_NUMBER)) & ~missing
    kept = np.where(bad, 0, days).astype(np.int32)
    return _with_nulls(kept, missing | bad, pa.int32()).cast(pa.date32()), bad


def _to_vector(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    """Take lists of as many numbers; one that is null, or no finite float, is none."""
    missing = _nulls(cells)
    if not _is_list(cells.type):
        return _none(cells, type_)
    fits = pc.equal(pc.list_value_length(cells), type_.length).fill_null(fill_value=False)
    flat = cells.filter(fits).flatten().cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        floats = flat.to_numpy(zero_copy_only=False).astype(np.float32)
    vectors = floats.reshape(-1, type_.length)
    is_finite = np.isfinite(vectors).all(axis=1)
    kept: Bools = fits.to_numpy(zero_copy_only=False).copy()
    kept[kept] = is_finite
    return vector_array(vectors[is_finite], kept), ~kept & ~missing


def _is_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def _none(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Bools]:
    return pa.nulls(len(cells), arrow_type(type_)), ~_nulls(cells)


_FITS: Mapping[str, Fit] = {
    "int32": _to_integer,
    "int64": _to_integer,
    "float64": _to_double,
    "decimal": _to_decimal,
    "bool": _to_bool,
    "string": _to_text,
    "timestamp": _to_instant,
    "date": _to_day,
    "bytes": _to_bytes,
    "vector": _to_vector,
}
