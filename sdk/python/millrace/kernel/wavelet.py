"""Ranks and quantiles over ranges of rows, many ranges at once.

Source: Claude, Navarro and Ordóñez, "The wavelet matrix" (2015): one pass over the bits of the
values, highest first; each query then costs two lookups a bit, whatever the length of its range.
"""

import numpy as np

from millrace.kernel.axis import Int64s, Positions


class WaveletMatrix:
    """A column of numbers from 0 on, asked about ranges ``[begin, end)`` of its rows.

    Args:
        column: the numbers, in the order of the rows.
    """

    def __init__(self, column: Int64s) -> None:
        self._bits = int(column.max()).bit_length() if len(column) else 0
        self._levels = []
        for bit in range(self._bits - 1, -1, -1):
            is_zero = (column >> bit & 1) == 0
            zeros = np.zeros(len(column) + 1, np.int32)
            np.cumsum(is_zero, out=zeros[1:])
            self._levels.append((bit, zeros, int(zeros[-1])))
            column = np.concatenate([column[is_zero], column[~is_zero]])

    def below(self, begin: Positions, end: Positions, limits: Int64s) -> Int64s:
        """Count the numbers below a limit of its own in each range."""
        count = np.where(limits >> self._bits > 0, end - begin, 0)
        if not self._bits:
            return count
        inside = np.flatnonzero((count == 0) & (begin < end))
        left, right, limits = begin[inside], end[inside], limits[inside]
        found = np.zeros(len(inside), np.int64)
        for bit, zeros, total in self._levels:
            zeros_left, zeros_right = zeros[left], zeros[right]
            is_one = (limits >> bit & 1) == 1
            found += np.where(is_one, zeros_right - zeros_left, 0)
            left = np.where(is_one, left - zeros_left + total, zeros_left)
            right = np.where(is_one, right - zeros_right + total, zeros_right)
        count[inside] = found
        return count

    def smallest(
        self, begin: Positions, end: Positions, place: Int64s, more: "Beside | None" = None
    ) -> Int64s:
        """Return of each range the number at a place in ascending order, counted from 0.

        Args:
            begin: where each begins.
            end: where it ends.
            place: below the range's length, with what is beside it.
            more: further numbers of the ranges, none of them in the column's.
        """
        left, right, place = begin, end, place.copy()
        found = np.zeros(len(begin), np.int64)
        for bit, zeros, total in self._levels:
            zeros_left, zeros_right = zeros[left], zeros[right]
            smaller = (zeros_right - zeros_left).astype(np.int64)
            if more is not None:
                smaller += more.zeros(bit, found)
            is_one = place >= smaller
            place -= np.where(is_one, smaller, 0)
            found |= np.where(is_one, 1 << bit, 0)
            left = np.where(is_one, left - zeros_left + total, zeros_left)
            right = np.where(is_one, right - zeros_right + total, zeros_right)
        return found


class Beside:
    """Numbers of some ranges that are in no range of rows.

    Args:
        ranges: which range each belongs to.
        numbers: the numbers; below the highest power of two of the column's.
    """

    def __init__(self, ranges: Positions, numbers: Int64s) -> None:
        self._ranges, self._numbers = ranges, numbers

    def zeros(self, bit: int, found: Int64s) -> Int64s:
        """Count those of each range that agree with ``found`` above a bit, and have a zero there."""
        agrees = self._numbers >> bit == found[self._ranges] >> bit
        return np.bincount(self._ranges[agrees], minlength=len(found))
