"""Arrow columns as what a profile adds up: numbers, hashes and counts of values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.quality.profile import MOST_TOP, Kind
from millrace.quality.sketches import Hashes, Numbers, hash_bytes, hash_numbers, mix
from millrace.types import FLOAT64, DataType

_SAMPLE = 250
_MOST_COUNTED = 4_096
_NULL = np.uint64(0x5851F42D4C957F2D)


@dataclass(frozen=True)
class DayValues:
    """Some values of one column of one day.

    Attributes:
        rows: rows, nulls among them.
        values: rows that are not null.
        numbers: of the values that are not null: themselves, lengths of texts, epoch milliseconds
            of instants; empty for bytes, lists and vectors.
        hashes: of the values that are not null; equal ones may be there once only.
        counts: rows by value as text; None if there are too many values to be worth counting.
        is_counted_whole: False if ``counts`` holds only the most frequent values.
    """

    rows: int
    values: int
    numbers: Numbers
    hashes: Hashes
    counts: Mapping[str, int] | None
    is_counted_whole: bool = True


class Values(Protocol):
    """The values of one column in rows of several days."""

    @property
    def row_hashes(self) -> Hashes:
        """One hash per row; nulls have one of their own."""

    def day(self, rows: slice) -> DayValues:
        """Return the values of the rows of one day."""


@dataclass(frozen=True)
class _Numbers:
    """Numbers of any kind, one per row; ``valid`` says which are not null, None for all."""

    numbers: Numbers
    valid: npt.NDArray[np.bool_] | None
    count: Callable[[Numbers], Mapping[str, int] | None]

    @cached_property
    def row_hashes(self) -> Hashes:
        hashes = hash_numbers(self.numbers)
        return hashes if self.valid is None else np.where(self.valid, hashes, _NULL)

    def day(self, rows: slice) -> DayValues:
        numbers, hashes = self.numbers[rows], self.row_hashes[rows]
        length = len(numbers)
        if self.valid is not None and not self.valid[rows].all():
            numbers, hashes = numbers[self.valid[rows]], hashes[self.valid[rows]]
        return DayValues(length, len(numbers), numbers, hashes, self.count(numbers))


@dataclass(frozen=True)
class _Texts:
    """Texts as places in a list of words, one per row; -1 for null."""

    places: npt.NDArray[np.int64]
    words: Any
    lengths: Numbers
    hashes: Hashes

    @property
    def row_hashes(self) -> Hashes:
        # The place -1 is the last.
        return np.append(self.hashes, _NULL)[self.places]

    def day(self, rows: slice) -> DayValues:
        places = self.places[rows]
        known = places[places >= 0]
        used, counts = np.unique(known, return_counts=True)
        hashes = self.hashes[used]
        is_whole = len(used) <= _MOST_COUNTED
        if not is_whole:
            most = np.argpartition(counts, -_MOST_COUNTED)[-_MOST_COUNTED:]
            used, counts = used[most], counts[most]
        counted = zip(self.words.take(pa.array(used)).to_pylist(), counts.tolist(), strict=True)
        lengths = self.lengths[known]
        return DayValues(len(places), len(known), lengths, hashes, dict(counted), is_whole)


@dataclass(frozen=True)
class _Others:
    """Values that are only hashed."""

    row_hashes: Hashes
    valid: npt.NDArray[np.bool_]

    def day(self, rows: slice) -> DayValues:
        hashes = self.row_hashes[rows][self.valid[rows]]
        return DayValues(rows.stop - rows.start, len(hashes), np.empty(0), hashes, None)


def kind_of(data_type: DataType) -> Kind:
    """Return how a column of a type is profiled."""
    if data_type.is_numeric:
        return "number"
    kinds: dict[str, Kind] = {
        "string": "text", "bool": "flag", "timestamp": "instant", "date": "instant",
    }  # fmt: skip
    return kinds.get(data_type.kind, "other")


def read_values(column: Any, data_type: DataType) -> Values:
    """Read a ``ChunkedArray`` or ``Array`` that can be cast to a type of the language.

    The rows are those of several days; ``Values.day`` parts them.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # text of more than 2 GiB stays in chunks
        array = pa.concat_arrays([c.cast(pa.large_string()) for c in array.chunks])
    kind = kind_of(data_type)
    if kind == "text":
        return _texts(array)
    if kind == "number":
        return _numbers(array, data_type)
    if kind == "flag":
        return _flags(array)
    if kind == "instant":
        return _instants(array)
    return _others(array, data_type)


def epoch_ms(column: Any) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the epoch milliseconds of timestamps, dates or integers, and which are not null.

    Finer digits are floored; a timestamp without a time zone is UTC.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    per_ms = 1
    if pa.types.is_date(array.type):
        array = array.cast(pa.date64()).cast(pa.int64())
    elif pa.types.is_timestamp(array.type):
        if array.type.unit == "s":
            array = array.cast(pa.timestamp("ms", array.type.tz))
        per_ms = {"ms": 1, "us": 1_000, "ns": 1_000_000}[array.type.unit]
        array = array.cast(pa.int64())
    else:
        array = array.cast(pa.int64())
    return array.fill_null(0).to_numpy(zero_copy_only=False) // per_ms, valid


def _numbers(array: Any, data_type: DataType) -> _Numbers:
    floats = array.cast(pa.float64(), safe=False)
    if floats.null_count:
        floats = floats.fill_null(np.nan)
    numbers = floats.to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    valid = None if finite.all() else finite
    return _Numbers(numbers, valid, _few if data_type.is_integer else _uncounted)


def _uncounted(numbers: Numbers) -> None:
    """Leave out what takes too many values to be counted."""


def _few(numbers: Numbers) -> Mapping[str, int] | None:
    if len(np.unique(numbers[:_SAMPLE])) > MOST_TOP:
        return None
    unique, counts = np.unique(numbers, return_counts=True)
    if len(unique) > MOST_TOP:
        return None
    return {str(int(v)): int(n) for v, n in zip(unique, counts, strict=True)}


def _flags(array: Any) -> _Numbers:
    bits = array.cast(pa.bool_()).cast(pa.uint8())
    valid = bits.is_valid().to_numpy(zero_copy_only=False) if bits.null_count else None
    numbers = bits.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    return _Numbers(numbers, valid, _count_flags)


def _count_flags(numbers: Numbers) -> Mapping[str, int]:
    true = int(numbers.sum())
    counts = {"true": true, "false": len(numbers) - true}
    return {value: count for value, count in counts.items() if count}


def _instants(array: Any) -> _Numbers:
    ms, valid = epoch_ms(array)
    return _Numbers(ms.astype(np.float64), None if valid.all() else valid, _uncounted)


def _texts(array: Any) -> _Texts:
    encoded = array.cast(pa.large_string()).dictionary_encode()
    words = encoded.dictionary
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    lengths = pc.utf8_length(words).to_numpy(zero_copy_only=False).astype(np.float64)
    return _Texts(places, words, lengths, _hash_texts(words))


def _hash_texts(texts: Any) -> Hashes:
    if not len(texts):
        return np.empty(0, np.uint64)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return hash_bytes(np.frombuffer(data or b"", np.uint8), places)


def _hash_lists(lists: Any, values: DataType) -> Hashes:
    """Hash each list by its values, their places and their number."""
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = np.cumsum(lengths)
    place = np.arange(int(lengths.sum())) - np.repeat(ends - lengths, lengths)
    inside = read_values(lists.flatten(), values).row_hashes
    summed = np.zeros(len(place) + 1, np.uint64)
    np.cumsum(mix(inside + mix(place.astype(np.uint64))), out=summed[1:])
    return mix(summed[ends] - summed[ends - lengths] + lengths.astype(np.uint64))


def _others(array: Any, data_type: DataType) -> _Others:
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    hashes = np.full(len(array), _NULL, np.uint64)
    if data_type.kind == "list":
        hashes[valid] = _hash_lists(array.drop_null(), data_type.values)
    elif data_type.kind == "vector":
        hashes[valid] = _hash_lists(array.drop_null(), FLOAT64)
    elif pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        hashes[valid] = _hash_texts(array.drop_null().cast(pa.large_binary()))
    else:
        hashes[valid] = mix(np.zeros(int(valid.sum()), np.uint64))
    return _Others(hashes, valid)
