"""``approx_distinct`` over ranges of rows, many ranges at once.

An estimate needs no registers, only how many of them have each rank. Those with a rank of at least r
are the different registers of the events whose own rank is at least r, which are half as many for
each r; so ranges cost little more than one count of different values.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from millrace.aggregates.registers import (
    GAMMA,
    HASH_BITS,
    MIXERS,
    PER_CERTAINTY,
    RankRegisters,
    empty_share,
    tau,
)
from millrace.kernel.axis import Int64s
from millrace.kernel.chunk import Measure, Texts
from millrace.kernel.occurrences import Occurrences
from millrace.kernel.ranges import Ranges

Words = npt.NDArray[np.uint64]


def estimated(column: Measure, algebra: RankRegisters, ranges: Sequence[Ranges]) -> list[Int64s]:
    """Estimate the number of different values of each range.

    Args:
        column: the values, in the order of the rows; strings and bytes with their texts.
        algebra: whose estimates.
        ranges: which rows to look at.
    """
    free = HASH_BITS - algebra.precision
    found = hashes(column)
    registers = (found >> np.uint64(free)).astype(np.int64)
    ranks = free - _bit_lengths(found & np.uint64((1 << free) - 1)) + 1
    if column.valid is not None:
        ranks[~column.valid] = 0
    most = int(ranks.max(initial=0))
    at_least: list[list[Int64s]] = [[] for _ in ranges]
    for rank in range(1, most + 1):
        held = Occurrences(registers, ranks >= rank)
        for counts, rows in zip(at_least, ranges, strict=True):
            counts.append(held.counts(rows))
    return [
        _estimates(algebra.precision, counts, len(rows.begin))
        for counts, rows in zip(at_least, ranges, strict=True)
    ]


def _estimates(precision: int, at_least: Sequence[Int64s], queries: int) -> Int64s:
    """Take the steps of ``millrace.aggregates.registers.estimate`` for many queries at once.

    Args:
        precision: of the registers.
        at_least: for the ranks from 1 on, how many registers of each query have at least that.
        queries: how many there are.
    """
    size, most = 1 << precision, HASH_BITS - precision + 1
    none = np.zeros(queries, np.int64)
    at_least = [*at_least, none]
    counts = [n - more for n, more in pairwise(at_least)]
    scale = np.zeros(queries)
    if len(counts) == most:
        highest = counts.pop()
        values, place = np.unique(highest, return_inverse=True)
        scale = np.array([size * tau(1 - int(count) / size) for count in values])[place]
    for count in reversed(counts):
        scale = 0.5 * (scale + count)
    empty = size - at_least[0]
    scale += np.array(empty_share(precision))[empty]
    found: Int64s = np.rint(size * size / (PER_CERTAINTY * scale)).astype(np.int64)
    return found


def hashes(column: Measure) -> Words:
    """Return ``millrace.aggregates.registers.hash_of`` of each value; anything where not valid."""
    if column.texts is not None:
        # A column of nulls alone has no texts at all.
        held = slice(None) if column.valid is None else column.valid
        used, place = np.unique(column.values[held].astype(np.int64), return_inverse=True)
        found = np.zeros(len(column.values), np.uint64)
        found[held] = _text_hashes(column.texts, used)[place]
        return found
    width, words = _words(column)
    found = _mixed(np.full(len(column.values), width, np.uint64))
    for word in words:
        found = _mixed(found ^ word)
    return found


def _words(column: Measure) -> tuple[int, list[Words]]:
    """Return how many bytes a value has, and its bytes as words of eight, filled up with zeros."""
    kind = column.type.kind
    if kind == "decimal":
        numbers = column.values.astype(np.int64)
        low, high = (numbers, numbers >> 63) if column.words is None else column.words
        return 16, [np.ascontiguousarray(word).view(np.uint64) for word in (high, low)]
    if kind == "float64":
        return 8, [(column.values.astype(np.float64) + 0.0).view(np.uint64)]
    width = {"bool": 1, "int32": 4, "date": 4}.get(kind, 8)
    return width, [column.codes().view(np.uint64) << np.uint64(8 * (8 - width))]


def _text_hashes(texts: Texts, used: Int64s) -> Words:
    """Return the hashes of some texts."""
    starts = texts.starts[used]
    lengths = texts.starts[used + 1] - starts
    found = _mixed(lengths.astype(np.uint64))
    places = np.arange(8)
    data = np.append(texts.data, np.zeros(8, np.uint8))
    for at in range(0, int(lengths.max(initial=0)), 8):
        longer = np.flatnonzero(lengths > at)
        rest = (lengths[longer] - at)[:, None]
        eight = data[np.minimum(starts[longer, None] + at + places, len(data) - 1)]
        eight = np.where(places < rest, eight, np.uint8(0))
        words = np.ascontiguousarray(eight).view(">u8")[:, 0].astype(np.uint64)
        found[longer] = _mixed(found[longer] ^ words)
    return found


def _mixed(words: Words) -> Words:
    words = words + np.uint64(GAMMA)
    words = (words ^ words >> np.uint64(30)) * np.uint64(MIXERS[0])
    words = (words ^ words >> np.uint64(27)) * np.uint64(MIXERS[1])
    return words ^ words >> np.uint64(31)


def _bit_lengths(words: Words) -> Int64s:
    """Return ``int.bit_length`` of each; a double alone would round some up."""
    high = (words >> np.uint64(32)).astype(np.float64)
    low = (words & np.uint64(0xFFFF_FFFF)).astype(np.float64)
    lengths: Int64s = np.where(high > 0, np.frexp(high)[1] + 32, np.frexp(low)[1]).astype(np.int64)
    return lengths
