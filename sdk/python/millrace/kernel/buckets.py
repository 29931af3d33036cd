"""``percentile`` over ranges of rows, many ranges at once: the bucket at a rank of each."""

from dataclasses import dataclass

import numpy as np

from millrace.aggregates.buckets import (
    BIAS,
    DROPPED_BITS,
    LEAST_NORMAL,
    LIFT,
    LIFT_BITS,
    MILLIONTHS,
    midpoint_of,
    millionths,
)
from millrace.kernel.axis import Bools, Int64s
from millrace.kernel.chunk import Measure, Result
from millrace.kernel.exact import Doubles
from millrace.kernel.ranges import Ranges, SomeRows
from millrace.kernel.wavelet import Beside, WaveletMatrix

_EXACT_BITS = 53


class Spread:
    """A column by buckets.

    Args:
        column: numbers, in the order of the rows.
    """

    def __init__(self, column: Measure) -> None:
        self._rows = SomeRows(column.valid, len(column.values))
        held = self._rows.take(buckets(column))
        different, self._ranks = np.unique(held, return_inverse=True)
        self._midpoints = np.array([*map(midpoint_of, different.tolist()), 0.0])
        self._matrix = WaveletMatrix(self._ranks.astype(np.int64))

    def percentile(self, p: float, ranges: Ranges, counts: Int64s) -> Result:
        """Return a percentile of each range; null of none.

        Args:
            p: 0 to 100.
            ranges: which rows to look at.
            counts: how many of each range are not null.
        """
        place = np.maximum(-(-millionths(p) * counts // (100 * MILLIONTHS)), 1) - 1
        begin, end = self._rows.places(ranges.begin), self._rows.places(ranges.end)
        found = np.zeros(len(counts), np.int64)
        rest = counts > 0
        for visitors, visited in () if ranges.stragglers is None else ranges.stragglers.visits():
            queries, rows = self._rows.among(visitors, visited)
            some, which = np.unique(queries, return_inverse=True)
            beside = Beside(which, self._ranks[rows])
            found[some] = self._matrix.smallest(begin[some], end[some], place[some], beside)
            rest[some] = False
        some = np.flatnonzero(rest)
        found[some] = self._matrix.smallest(begin[some], end[some], place[some])
        return Result(self._midpoints[found], counts > 0)


@dataclass(frozen=True)
class Spreads:
    """What percentiles of one window are made of."""

    spread: Spread
    ranges: Ranges
    counts: Int64s

    def percentile(self, p: float) -> Result:
        """Return a percentile of each query."""
        return self.spread.percentile(p, self.ranges, self.counts)


def buckets(column: Measure) -> Int64s:
    """Return ``millrace.aggregates.buckets.bucket_of`` of each value; anything where not valid."""
    doubles = _nearest_doubles(column)
    sizes = np.abs(doubles)
    is_small = sizes < LEAST_NORMAL
    lifted = sizes * np.where(is_small, 2.0**LIFT_BITS, 1.0)
    found = (lifted.view(np.int64) >> DROPPED_BITS) - np.where(is_small, LIFT, 0) + BIAS
    return np.where(doubles == 0, 0, np.where(doubles < 0, -found, found))


def _nearest_doubles(column: Measure) -> Doubles:
    """Return the values as the doubles nearest to them.

    Those of decimals of many digits may be off by their last bit. That matters only beside the edge
    of a bucket, where Python's own conversion decides.
    """
    doubles = column.doubles()
    if column.type.kind != "decimal":
        return doubles
    low = column.values.astype(np.int64) if column.words is None else column.words[0]
    high = low >> 63 if column.words is None else column.words[1]
    rest = doubles.view(np.int64) & (1 << DROPPED_BITS) - 1
    is_edge: Bools = (rest < 2) | (rest > (1 << DROPPED_BITS) - 3)  # noqa: PLR2004 - last bits
    is_wide = (high != low >> 63) | (np.abs(low) >> _EXACT_BITS != 0) | (low == -(2**63))
    rows = np.flatnonzero(is_edge & is_wide)
    if len(rows):
        words, place = np.unique(
            np.stack([high[rows], low[rows]], axis=1), axis=0, return_inverse=True
        )
        exact = [
            ((top << 64) + (bottom & 2**64 - 1)) / 10**column.type.scale
            for top, bottom in words.tolist()
        ]
        doubles = doubles.copy()
        doubles[rows] = np.array(exact)[place.ravel()]
    return doubles
