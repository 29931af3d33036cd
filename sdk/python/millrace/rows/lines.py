"""Many lines of CSV or JSON at once, as Arrow columns; each with its fault, where it has one.

Arrow takes the cells that look as most do, all of a column in one step. Whatever it does not take
as it stands is read again, line by line, by the reading that decides.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.calendar import LAST_MS
from millrace.plan import Column
from millrace.rows.csv_rows import BOOLEANS, CsvRows, cell_converter
from millrace.rows.json_rows import JsonRows, UnfitRow, Values
from millrace.types import DataType
from millrace.values.arrow import array_of, arrow_type
from millrace.values.documents import MalformedError
from millrace.values.scalars import Misfit
from millrace.values.units import SURE_MS

_SURE = {
    "int32": r"^-?(0|[1-9][0-9]{0,8})$",
    "int64": r"^-?(0|[1-9][0-9]{0,17})$",
    "float64": r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$",
    "date": r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}$",
}
"""Texts that Arrow and the grammar read alike; a date may still be none of the calendar's.

Arrow knows a year 0, so the first thousand years are read one by one."""

_SURE_INSTANT = r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?Z?$"
_SURE_MS = r"^[1-9][0-9]{11,13}$"
_TO_MS = len("2024-03-01T10:00:00.000")


@dataclass(frozen=True)
class Rows:
    """Lines as columns of equal length, in the order of the lines.

    Attributes:
        columns: the declared columns, in the lake's types; null where a cell does not fit.
        reason: ``malformed`` or ``schema``; null for a good row.
        detail: the reason in words, with the offending value; null for a good row.
    """

    columns: Sequence[pa.Array]
    reason: pa.Array
    detail: pa.Array


def read_json_lines(reader: JsonRows, columns: Sequence[Column], lines: pa.Array) -> Rows:
    """Read a binary array of lines, none of them null, each one JSON object."""
    return _one_by_one(reader.read, columns, lines.to_pylist())


def read_csv_lines(reader: CsvRows, lines: pa.Array) -> Rows:
    """Read a binary array of lines, none of them null, below the reader's header."""
    sure, cells = _sure_lines(reader, lines)
    taken = []
    for column, place in zip(reader.columns, reader.places, strict=True):
        found = pa.nulls(int(sure.sum()), pa.string()) if place is None else cells[place]
        values, is_taken = _taken(found, column.type, is_clock=column.name in reader.clock)
        taken.append(values)
        if is_taken is not None:
            sure[np.flatnonzero(sure)[~is_taken]] = False
            taken = [one.filter(pa.array(is_taken)) for one in taken]
            cells = {i: one.filter(pa.array(is_taken)) for i, one in cells.items()}
    nothing = pa.nulls(len(taken[0]), pa.string())
    fast = Rows(taken, nothing, nothing)
    if sure.all():
        return fast
    rest = _one_by_one(reader.read, reader.columns, lines.filter(pa.array(~sure)).to_pylist())
    return _interleaved(fast, rest, sure)


def read_cells(
    cells: pa.Array, type_: DataType, *, is_clock: bool = False
) -> tuple[pa.Array, dict[int, str]]:
    """Read a column of text as cells of CSV.

    Returns:
        the values, null for an empty cell and for one that does not fit; and by place, what is
        said of those that do not fit (empty where there is nothing more to say than that).
    """
    values, is_taken = _taken(cells, type_, is_clock=is_clock)
    if is_taken is None:
        return values, {}
    convert = cell_converter(type_, is_clock=is_clock)
    places = np.flatnonzero(~is_taken)
    found: list[object] = []
    misfits = {}
    for place, cell in zip(places.tolist(), cells.take(pa.array(places)).to_pylist(), strict=True):
        try:
            found.append(convert(cell))
        except Misfit as error:
            found.append(None)
            misfits[place] = str(error)
    fast = values.filter(pa.array(is_taken))
    return _in_order(fast, array_of(found, type_), is_taken), misfits


def _sure_lines(
    reader: CsvRows, lines: pa.Array
) -> "tuple[np.ndarray[Any, np.dtype[np.bool_]], dict[int, pa.Array]]":
    """Return which lines split at their commas alone, and the cells of these by place."""
    width = len(reader.header)
    wanted = {place for place in reader.places if place is not None}
    try:
        text = lines.cast(pa.string())
    except pa.ArrowInvalid:
        return np.zeros(len(lines), dtype=bool), {i: pa.array([], pa.string()) for i in wanted}
    is_sure = pc.and_(
        pc.equal(pc.count_substring(text, ","), width - 1),
        pc.invert(pc.match_substring(text, '"')),
    )
    sure = is_sure.to_numpy(zero_copy_only=False).copy()
    flat = pc.list_flatten(pc.split_pattern(text.filter(is_sure), ","))
    starts = np.arange(0, len(flat), width)
    return sure, {i: flat.take(pa.array(starts + i)) for i in wanted}


def _taken(
    cells: pa.Array, type_: DataType, *, is_clock: bool
) -> "tuple[pa.Array, np.ndarray[Any, np.dtype[np.bool_]] | None]":
    """Return the cells' values, null for what was not taken; and which were, None for all."""
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    if cells.null_count == len(cells):
        return pa.nulls(len(cells), arrow_type(type_)), None
    if type_.kind == "string":
        return cells.cast(arrow_type(type_)), None
    sure, cast = (_CLOCK_CASTS if is_clock else _CASTS)[type_.kind](cells, type_)
    sure = pc.or_(pc.is_null(cells), pc.fill_null(sure, fill_value=False))
    is_all = pc.all(sure, min_count=0).as_py()
    kept = cells if is_all else pc.if_else(sure, cells, pa.scalar(None, pa.string()))
    try:
        values = cast(kept)
    except pa.ArrowInvalid:
        # A day that no calendar has: who it is, only the reading one by one can tell.
        return pa.nulls(len(cells), arrow_type(type_)), pc.is_null(cells).to_numpy(
            zero_copy_only=False
        )
    return values, None if is_all else sure.to_numpy(zero_copy_only=False)


Cast = Callable[[pa.Array], pa.Array]


def _by_pattern(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Cast]:
    return (
        pc.match_substring_regex(cells, _SURE[type_.kind]),
        lambda kept: kept.cast(arrow_type(type_)),
    )


def _decimals(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Cast]:
    whole = type_.precision - type_.scale
    digits = rf"(0|[1-9][0-9]{{0,{whole - 1}}})" if whole else "0"
    fraction = rf"(\.[0-9]{{1,{type_.scale}}})?" if type_.scale else ""
    return (
        pc.match_substring_regex(cells, f"^-?{digits}{fraction}$"),
        lambda kept: kept.cast(arrow_type(type_)),
    )


def _booleans(cells: pa.Array, _type: DataType) -> tuple[pa.Array, Cast]:
    words = pa.array(list(BOOLEANS))
    values = pa.array(list(BOOLEANS.values()))
    return pc.is_in(cells, words), lambda kept: values.take(pc.index_in(kept, words))


def _instants(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Cast]:
    return _instants_to(cells, type_, LAST_MS)


def _clock_instants(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Cast]:
    return _instants_to(cells, type_, SURE_MS.stop - 1)


def _instants_to(cells: pa.Array, type_: DataType, last_ms: int) -> tuple[pa.Array, Cast]:
    is_ms = pc.match_substring_regex(cells, _SURE_MS)
    if pc.any(is_ms, min_count=0).as_py():
        ms = pc.if_else(is_ms, cells, pa.scalar(None, pa.string())).cast(pa.int64())
        sure = pc.and_(pc.greater_equal(ms, SURE_MS.start), pc.less_equal(ms, last_ms))
        return sure, lambda kept: _from_ms(kept.cast(pa.int64()), type_)
    return (
        pc.match_substring_regex(cells, _SURE_INSTANT),
        lambda kept: _from_ms(_text_ms(kept), type_),
    )


def _text_ms(text: pa.Array) -> pa.Array:
    floored = pc.utf8_rtrim(pc.utf8_slice_codeunits(text, 0, _TO_MS), "Z")
    return floored.cast(pa.timestamp("ms")).cast(pa.int64())


def _from_ms(ms: pa.Array, type_: DataType) -> pa.Array:
    return pc.multiply(ms, 1000).cast(arrow_type(type_))


def _clock_integers(cells: pa.Array, _type: DataType) -> tuple[pa.Array, Cast]:
    sure = pc.match_substring_regex(cells, r"^[1-9][0-9]{11,12}$")
    return sure, lambda kept: kept.cast(pa.int64())


def _none(cells: pa.Array, type_: DataType) -> tuple[pa.Array, Cast]:
    return cells.is_null(), lambda kept: pa.nulls(len(kept), arrow_type(type_))


_CASTS: dict[str, Callable[[pa.Array, DataType], tuple[pa.Array, Cast]]] = {
    "int32": _by_pattern,
    "int64": _by_pattern,
    "float64": _by_pattern,
    "date": _by_pattern,
    "decimal": _decimals,
    "bool": _booleans,
    "timestamp": _instants,
    "bytes": _none,
    "vector": _none,
}
_CLOCK_CASTS = {**_CASTS, "int64": _clock_integers, "timestamp": _clock_instants}


def _one_by_one(
    read: Callable[[bytes], Values], columns: Sequence[Column], lines: Sequence[bytes]
) -> Rows:
    rows: list[Values] = []
    reasons: list[str | None] = []
    details: list[str | None] = []
    nothing: Values = (None,) * len(columns)
    for line in lines:
        values, reason, detail = nothing, None, None
        try:
            values = read(line)
        except MalformedError as error:
            reason, detail = "malformed", str(error)
        except UnfitRow as error:
            values, reason, detail = error.values, "schema", str(error)
        rows.append(values)
        reasons.append(reason)
        details.append(detail)
    by_column = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [array_of(found, c.type) for found, c in zip(by_column, columns, strict=True)]
    return Rows(arrays, pa.array(reasons, pa.string()), pa.array(details, pa.string()))


def _interleaved(fast: Rows, rest: Rows, is_fast: "np.ndarray[Any, np.dtype[np.bool_]]") -> Rows:
    """Put the rows of two readings back in the order of their lines."""
    return Rows(
        [_in_order(a, b, is_fast) for a, b in zip(fast.columns, rest.columns, strict=True)],
        _in_order(fast.reason, rest.reason, is_fast),
        _in_order(fast.detail, rest.detail, is_fast),
    )


def _in_order(
    fast: pa.Array, rest: pa.Array, is_fast: "np.ndarray[Any, np.dtype[np.bool_]]"
) -> pa.Array:
    places = np.empty(len(is_fast), dtype=np.int64)
    places[is_fast] = np.arange(len(fast))
    places[~is_fast] = np.arange(len(fast), len(is_fast))
    return pa.concat_arrays([fast, rest]).take(pa.array(places))
