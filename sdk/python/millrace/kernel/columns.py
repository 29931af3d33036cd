"""Arrow columns as numpy arrays and back, without copying where the layouts allow it."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.kernel.axis import Bools, Int64s, Positions
from millrace.kernel.chunk import Array, Measure, Result, Texts
from millrace.types import DataType
from millrace.values.arrow import (
    MOST_IN_LISTS,
    arrow_type,
    too_many_values,
    vector_array,
    vector_rows,
)

NARROW_DECIMAL = 18  # digits that fit an int64


def is_ranked(data_type: DataType) -> bool:
    """Tell whether values are compared by rank, being no 64-bit numbers."""
    return data_type.record.numpy is None or _is_wide(data_type)


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Join the chunks of a column; copies only if there are several."""
    if isinstance(column, pa.Array):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    return column.combine_chunks()


def int64_values(column: pa.ChunkedArray | pa.Array) -> Int64s:
    """Read an int64 column without nulls."""
    values: Int64s = one_array(column.cast(pa.int64())).to_numpy(zero_copy_only=False)
    return values


def read_measure(
    column: pa.ChunkedArray, data_type: DataType, *, ordered: bool
) -> tuple[Measure, pa.Array | None]:
    """Read a measure.

    Args:
        column: the measure's column of the events table.
        data_type: its declared type.
        ordered: the column is compared (min, max, first, last), not only counted or added.

    Returns:
        the column; and for one compared by rank the distinct values in ascending order, for vectors
        those that are not null.
    """
    wanted = arrow_type(data_type)
    if data_type.kind == "vector" and len(column) * data_type.length > MOST_IN_LISTS:
        raise too_many_values(len(column) * data_type.length)
    array = one_array(column if column.type == wanted else column.cast(wanted))
    if data_type.kind == "vector":
        return _read_vectors(array, data_type)
    valid = _validity(array)
    dictionary = None
    values: Array
    words = _decimal_words(array) if data_type.kind == "decimal" else None
    if is_ranked(data_type):
        values = np.zeros(len(array), np.int8)
        if ordered:
            values, dictionary = _ranks(array)
    elif words is not None:
        values = words[0]
    elif data_type.kind == "bool":
        values = array.cast(pa.uint8()).fill_null(0).to_numpy(zero_copy_only=False)
    else:
        kind = np.dtype(data_type.record.numpy)
        values = np.frombuffer(array.buffers()[1] or b"", kind)[
            array.offset : array.offset + len(array)
        ]
    if data_type.kind == "float64":
        finite = np.isfinite(values)
        if not finite.all():
            valid = finite if valid is None else valid & finite
    wide = words if _is_wide(data_type) else None
    is_text = dictionary is not None and data_type.kind in {"string", "bytes"}
    texts = _texts(dictionary) if is_text else None
    return Measure(data_type, values, valid, wide, texts), dictionary


def _read_vectors(array: pa.Array, data_type: DataType) -> tuple[Measure, pa.Array]:
    vectors, valid = vector_rows(array, data_type.length)
    rows = np.maximum(np.cumsum(valid) - 1, 0)
    measure = Measure(data_type, rows, None if valid.all() else valid, vectors=vectors)
    return measure, array.drop_null()


def id_ranks(ids: pa.ChunkedArray, rows: Positions) -> Int64s:
    """Number the event ids of some rows in ascending order; equal ids alike, null 0."""
    some = one_array(ids.take(pa.array(rows)))
    codes, _ = _ranks(some)
    ranks: Int64s = np.where(some.is_valid().to_numpy(zero_copy_only=False), codes + 1, 0)
    return ranks


class Output(Protocol):
    """A feature column being filled.

    Rows never filled are empty lists, or null, or 0 where an aggregate is never null.
    """

    def put(self, rows: Positions, result: Result) -> None:
        """Fill rows; different rows may be filled by different threads at once."""

    def to_arrow(self) -> pa.Array:
        """Return the column as Arrow."""


def empty_output(
    data_type: DataType, rows: int, *, is_null: bool, dictionary: pa.Array | None
) -> Output:
    """Return a column of nulls, of zeros if none ``is_null``, or of empty lists.

    Args:
        data_type: of the column.
        rows: how many.
        is_null: a row may be null.
        dictionary: what values are ranks in; None if they are the values.
    """
    if data_type.kind == "vector" and dictionary is None:
        floats = np.zeros((rows, data_type.length), np.float32)
        return Vectors(floats, np.zeros(rows, np.bool_))
    if data_type.item is None:
        return Scalars.empty(data_type, rows, is_null=is_null, dictionary=dictionary)
    valid = np.ones(rows, np.bool_) if is_null else None
    return Lists(data_type, dictionary, valid, np.zeros(rows, np.int64), [])


@dataclass(frozen=True)
class Scalars:
    """An output of scalars.

    Attributes:
        dictionary: what the values are ranks in; None if they are the values.
        high: high words of decimals of more than 18 digits that are not ranks.
    """

    data_type: DataType
    dictionary: pa.Array | None
    values: Array
    valid: Bools | None
    high: Int64s | None

    @classmethod
    def empty(
        cls, data_type: DataType, rows: int, *, is_null: bool, dictionary: pa.Array | None
    ) -> "Scalars":
        """Allocate a column of nulls, or of zeros."""
        kind = "int64" if dictionary is not None else data_type.record.numpy
        wide = dictionary is None and _is_wide(data_type)
        return cls(
            data_type,
            dictionary,
            np.zeros(rows, kind),
            np.zeros(rows, np.bool_) if is_null else None,
            np.zeros(rows, np.int64) if wide else None,
        )

    def put(self, rows: Positions, result: Result) -> None:
        """Fill rows; different rows may be filled by different threads at once."""
        self.values[rows] = result.values
        if self.valid is not None:
            self.valid[rows] = True if result.valid is None else result.valid
        if self.high is not None:
            low = result.values.astype(np.int64, copy=False)
            self.high[rows] = low >> 63 if result.high is None else result.high

    def to_arrow(self) -> pa.Array:
        """Return the column as Arrow; its buffers are these arrays where the layout is the same."""
        if self.dictionary is not None:
            mask = None if self.valid is None else ~self.valid
            if len(self.values) * self.data_type.length > MOST_IN_LISTS:
                raise too_many_values(len(self.values) * self.data_type.length)
            return self.dictionary.take(pa.array(self.values, mask=mask))
        data: Array = self.values
        if self.data_type.kind == "decimal":
            low = self.values.astype(np.int64, copy=False)
            data = np.empty((len(low), 2), np.int64)
            data[:, 0] = low
            data[:, 1] = low >> 63 if self.high is None else self.high
        elif self.data_type.kind == "bool":
            data = _bitmap(self.values.astype(np.bool_))
        validity = None
        if self.valid is not None and not self.valid.all():
            validity = pa.py_buffer(_bitmap(self.valid))
        return pa.Array.from_buffers(
            arrow_type(self.data_type), len(self.values), [validity, pa.py_buffer(data)]
        )


@dataclass(frozen=True)
class Vectors:
    """An output of vectors that are no event's: a row of floats for each."""

    values: npt.NDArray[np.float32]
    valid: Bools

    def put(self, rows: Positions, result: Result) -> None:
        """Fill rows; different rows may be filled by different threads at once."""
        self.values[rows] = result.values
        self.valid[rows] = True if result.valid is None else result.valid

    def to_arrow(self) -> pa.Array:
        """Return the column as Arrow."""
        return vector_array(self.values[self.valid], self.valid)


@dataclass(frozen=True)
class Lists:
    """An output of lists.

    Attributes:
        dictionary: what the lists' values are ranks in; None if they are the values.
        lengths: of each row's list.
        parts: rows that were filled together, with the values of their lists.
    """

    data_type: DataType
    dictionary: pa.Array | None
    valid: Bools | None
    lengths: Int64s
    parts: list[tuple[Positions, Result]]

    def put(self, rows: Positions, result: Result) -> None:
        """Fill rows; different rows may be filled by different threads at once."""
        assert result.lengths is not None  # noqa: S101 - what is of a list type gives lists
        self.lengths[rows] = result.lengths
        if self.valid is not None:
            self.valid[rows] = True if result.valid is None else result.valid
        self.parts.append((rows, result))

    def to_arrow(self) -> pa.Array:
        """Return the column as Arrow: the values of the first row's list, of the second's, and so on."""
        ends = np.cumsum(self.lengths)
        count = int(ends[-1]) if len(ends) else 0
        if count > MOST_IN_LISTS:
            raise too_many_values(count)
        item = Scalars.empty(
            self.data_type.values, count, is_null=False, dictionary=self.dictionary
        )
        for rows, result in self.parts:
            lengths = self.lengths[rows]
            before = np.cumsum(lengths) - lengths
            place = np.repeat(ends[rows] - lengths - before, lengths) + np.arange(lengths.sum())
            item.put(place, replace(result, valid=None, lengths=None))
        offsets = np.concatenate([[0], ends]).astype(np.int32)
        valid = None if self.valid is None or self.valid.all() else self.valid
        return pa.Array.from_buffers(
            arrow_type(self.data_type),
            len(self.lengths),
            [None if valid is None else pa.py_buffer(_bitmap(valid)), pa.py_buffer(offsets)],
            children=[item.to_arrow()],
        )


def _is_wide(data_type: DataType) -> bool:
    return data_type.kind == "decimal" and data_type.precision > NARROW_DECIMAL


def _validity(array: pa.Array) -> Bools | None:
    if array.null_count == 0:
        return None
    valid: Bools = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _decimal_words(array: pa.Array) -> tuple[Int64s, Int64s]:
    """View the low and the high words of decimal128 values, which lie side by side."""
    words = np.frombuffer(array.buffers()[1] or b"", np.int64)
    words = words[2 * array.offset : 2 * (array.offset + len(array))]
    return words[0::2], words[1::2]


def _ranks(array: pa.Array) -> tuple[Int64s, pa.Array]:
    """Return each value's rank among the distinct values (null: any) and those, ascending."""
    encoded = array.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    by_code = np.empty(len(order) + 1, np.int64)
    by_code[order.to_numpy(zero_copy_only=False)] = np.arange(len(order))
    by_code[-1] = 0
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return by_code[codes], encoded.dictionary.take(order)


def _texts(array: pa.Array) -> Texts:
    """View the bytes of strings, or of bytes."""
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets or bytes(4), np.int32)[
        array.offset : array.offset + len(array) + 1
    ]
    return Texts(starts.astype(np.int64), np.frombuffer(data or b"", np.uint8))


def _bitmap(flags: Bools) -> npt.NDArray[np.uint8]:
    return np.packbits(flags, bitorder="little")
