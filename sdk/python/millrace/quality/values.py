"""Arrow columns as what a profile adds up: numbers, hashes and counts of values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.quality.profile import MOST_TOP, Kind
from millrace.quality.sketches import Hashes, Numbers, hash_bytes, hash_numbers, mix
from millrace.types import DataType

_SAMPLE = 2_000
_MOST_COUNTED = 4_096
_NULL = np.uint64(0x5851F42D4C957F2D)


@dataclass(frozen=True)
class Values:
    """The values of one column in one batch.

    Attributes:
        rows: rows of the batch, nulls among them.
        numbers: of the values that are not null: themselves, lengths of texts, epoch milliseconds
            of instants.
        hashes: of the values that are not null.
        counts: rows by value as text; None if there are too many values to be worth counting.
        is_counted_whole: False if ``counts`` holds only the most frequent values.
        valid: which rows have a value; None for all.
    """

    rows: int
    numbers: Numbers
    hashes: Hashes
    counts: Mapping[str, int] | None
    valid: npt.NDArray[np.bool_] | None = None
    is_counted_whole: bool = True

    @property
    def row_hashes(self) -> Hashes:
        """One hash per row; nulls have one of their own."""
        if self.valid is None:
            return self.hashes
        spread = np.full(self.rows, _NULL, np.uint64)
        spread[self.valid] = self.hashes
        return spread


def kind_of(data_type: DataType) -> Kind:
    """Return how a column of a type is profiled."""
    if data_type.is_numeric:
        return "number"
    kinds: dict[str, Kind] = {
        "string": "text", "bool": "flag", "timestamp": "instant", "date": "instant",
    }  # fmt: skip
    return kinds.get(data_type.kind, "other")


def read_values(column: Any, data_type: DataType) -> Values:
    """Read a ``ChunkedArray`` or ``Array`` that can be cast to a type of the language."""
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
    return _others(array)


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


def _validity(array: Any) -> npt.NDArray[np.bool_] | None:
    if array.null_count == 0:
        return None
    valid: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _numbers(array: Any, data_type: DataType) -> Values:
    floats = array.cast(pa.float64(), safe=False)
    valid = _validity(floats)
    numbers = floats.fill_null(np.nan).to_numpy(zero_copy_only=False)
    finite = np.isfinite(numbers)
    if not finite.all():
        valid = finite
        numbers = numbers[finite]
    counts = _few(numbers) if data_type.is_integer else None
    return Values(len(array), numbers, hash_numbers(numbers), counts, valid)


def _few(numbers: Numbers) -> Mapping[str, int] | None:
    if len(np.unique(numbers[:_SAMPLE])) > MOST_TOP:
        return None
    unique, counts = np.unique(numbers, return_counts=True)
    if len(unique) > MOST_TOP:
        return None
    return {str(int(v)): int(n) for v, n in zip(unique, counts, strict=True)}


def _flags(array: Any) -> Values:
    valid = _validity(array)
    bits = array.cast(pa.bool_()).drop_null().cast(pa.uint8()).to_numpy(zero_copy_only=False)
    numbers = bits.astype(np.float64)
    true = int(bits.sum())
    counts = {"true": true, "false": len(bits) - true}
    return Values(
        len(array), numbers, hash_numbers(numbers), {v: n for v, n in counts.items() if n}, valid
    )


def _instants(array: Any) -> Values:
    ms, valid = epoch_ms(array)
    all_valid = bool(valid.all())
    numbers = (ms if all_valid else ms[valid]).astype(np.float64)
    return Values(len(array), numbers, hash_numbers(numbers), None, None if all_valid else valid)


def _texts(array: Any) -> Values:
    valid = _validity(array)
    texts = array.drop_null().cast(pa.large_string())
    counted = pc.value_counts(texts)
    is_whole = len(counted) <= _MOST_COUNTED
    if not is_whole:
        order = pc.select_k_unstable(counted.field("counts"), _MOST_COUNTED, [("", "descending")])
        counted = counted.take(order)
    counts = dict(
        zip(
            counted.field("values").to_pylist(),
            counted.field("counts").to_pylist(),
            strict=True,
        )
    )
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.float64)
    return Values(len(array), lengths, _hash_texts(texts), counts, valid, is_whole)


def _hash_texts(texts: Any) -> Hashes:
    if not len(texts):
        return np.empty(0, np.uint64)
    _, offsets, data = texts.buffers()
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return hash_bytes(np.frombuffer(data or b"", np.uint8), places)


def _others(array: Any) -> Values:
    valid = _validity(array)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        held = array.drop_null().cast(pa.large_binary())
        hashes = _hash_texts(held)
    else:
        hashes = mix(np.zeros(len(array) - array.null_count, np.uint64))
    return Values(len(array), np.empty(0), hashes, None, valid)
