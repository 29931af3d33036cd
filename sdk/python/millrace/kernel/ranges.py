"""Folding columns over ranges of rows, many ranges at once.

Sums are differences of running sums of integers. Minima and maxima come from a sparse table
(Bender and Farach-Colton, "The LCA problem revisited", 2000), made level by level with one level
in memory. First and last are neighbours in an index of the next and the previous valid row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from millrace.kernel.axis import Bools, Int64s, Positions
from millrace.kernel.visibility import Stragglers


@dataclass(frozen=True)
class Ranges:
    """For each query the rows ``[begin, end)`` and, perhaps, stragglers."""

    begin: Positions
    end: Positions
    stragglers: Stragglers | None = None

    @cached_property
    def by_length(self) -> list[tuple[int, Positions, Positions, Positions]]:
        """Group the non-empty ranges by k with 2^k <= length < 2^(k+1).

        Returns:
            (k, queries, begin, end - 2^k) for each k that occurs, ascending.
        """
        lengths = self.end - self.begin
        exponents = np.frexp(lengths.astype(np.float64))[1].astype(np.uint8)  # 0 if empty
        order = np.argsort(exponents, kind="stable")  # a radix sort for one byte
        cuts = np.cumsum(np.bincount(exponents))
        groups = []
        for k in range(len(cuts) - 1):
            queries = order[cuts[k] : cuts[k + 1]]
            if len(queries):
                groups.append((k, queries, self.begin[queries], self.end[queries] - (1 << k)))
        return groups


def totals(column: Int64s, ranges: Sequence[Ranges]) -> list[Int64s]:
    """Add an integer column up over each range; the caller sees to it that no sum can wrap."""
    running = np.zeros(len(column) + 1, np.int64)
    np.cumsum(column, out=running[1:])
    late: dict[int, Int64s] = {}
    out = []
    for r in ranges:
        total = running[r.end] - running[r.begin]
        if r.stragglers is not None:
            if id(r.stragglers) not in late:
                late[id(r.stragglers)] = r.stragglers.total(column)
            total += late[id(r.stragglers)]
        out.append(total)
    return out


def row_counts(ranges: Sequence[Ranges]) -> list[Int64s]:
    """Count the rows of each range."""
    out = []
    for r in ranges:
        count = r.end - r.begin
        if r.stragglers is not None:
            for level in r.stragglers.levels:
                for _, last, query in level.reads:
                    count[query] += last + 1
        out.append(count)
    return out


def extremes(
    column: npt.NDArray[np.generic], pick: np.ufunc, empty: float, ranges: Sequence[Ranges]
) -> list[npt.NDArray[np.generic]]:
    """Return the minimum or maximum of a column over each range; ``empty`` where it has no row.

    Args:
        column: 64-bit numbers.
        pick: ``np.minimum`` or ``np.maximum``.
        empty: the value that never wins.
        ranges: which rows to look at.
    """
    late: dict[int, npt.NDArray[np.generic]] = {}
    out = []
    for r in ranges:
        if r.stragglers is None:
            out.append(np.full(len(r.begin), empty, column.dtype))
        else:
            if id(r.stragglers) not in late:
                late[id(r.stragglers)] = r.stragglers.extreme(column, pick, empty)
            out.append(late[id(r.stragglers)].copy())
    table, level = column, 0
    steps = sorted({k for r in ranges for k, *_ in r.by_length})
    for k in steps:
        for step in range(level, k):
            table = pick(table[: -(1 << step)], table[1 << step :])
        level = k
        for r, best in zip(ranges, out, strict=True):
            for _, queries, begin, end in (g for g in r.by_length if g[0] == k):
                found = pick(table[begin], table[end])
                best[queries] = found if r.stragglers is None else pick(best[queries], found)
    return out


def firsts(valid: Bools, ranges: Sequence[Ranges]) -> list[Positions]:
    """Return the position of the first valid row of each range; ``len(valid)`` if none."""
    n = len(valid)
    here = np.where(valid, np.arange(n), n)
    following = np.append(np.minimum.accumulate(here[::-1])[::-1], n)
    out = []
    for r in ranges:
        position = following[r.begin]
        position[position >= r.end] = n
        if r.stragglers is not None:
            np.minimum(position, r.stragglers.extreme(here, np.minimum, n), out=position)
        out.append(position)
    return out


def lasts(valid: Bools, ranges: Sequence[Ranges]) -> list[Positions]:
    """Return the position of the last valid row of each range; -1 if none."""
    here = np.where(valid, np.arange(len(valid)), -1)
    preceding = np.concatenate([[-1], np.maximum.accumulate(here)])
    out = []
    for r in ranges:
        position = preceding[r.end]
        position[position < r.begin] = -1
        if r.stragglers is not None:
            np.maximum(position, r.stragglers.extreme(here, np.maximum, -1), out=position)
        out.append(position)
    return out
