"""Folding columns over ranges of rows, many ranges at once.

Sums are differences of running sums of integers. Minima and maxima come from a sparse table
(Bender and Farach-Colton, "The LCA problem revisited", 2000), made level by level with one level
in memory. First and last are neighbours in an index of the next and the previous valid row, the
first and the last few in an index of the valid rows.
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


@dataclass(frozen=True)
class Listed:
    """Some rows of each range, one range's after the other's."""

    rows: Positions
    lengths: Int64s


class SomeRows:
    """Rows that count, numbered without the others.

    Args:
        valid: which do; None: all.
        rows: how many there are.
    """

    def __init__(self, valid: Bools | None, rows: int) -> None:
        self._valid = valid
        self._before: Int64s | None = None
        if valid is not None:
            self._before = np.zeros(rows + 1, np.int64)
            np.cumsum(valid, out=self._before[1:])

    def take(self, column: Int64s) -> Int64s:
        """Return the column of those that count."""
        return column if self._valid is None else column[self._valid]

    def places(self, rows: Positions) -> Positions:
        """Return how many that count lie before each row."""
        return rows if self._before is None else self._before[rows]

    def among(self, queries: Positions, rows: Positions) -> tuple[Positions, Positions]:
        """Return the places of those rows that count, with their queries."""
        if self._valid is None:
            return queries, rows
        some = self._valid[rows]
        return queries[some], self.places(rows[some])


class ValidRows:
    """The rows that count, listed by range.

    Args:
        valid: which do.
    """

    def __init__(self, valid: Bools) -> None:
        self._some = SomeRows(valid, len(valid))
        self._rows = np.flatnonzero(valid)

    def firsts(self, ranges: Ranges, most: int) -> Listed:
        """Return the first rows of each range, ascending."""
        begin, held = self._held(ranges)
        early = np.minimum(held, most)
        late = self._late(ranges, most - early, is_last=False)
        lengths = early + np.bincount(late[0], minlength=len(held))
        return self._joined(lengths, (begin, 1, early, 0), late, early)

    def lasts(self, ranges: Ranges, most: int) -> Listed:
        """Return the last rows of each range, descending."""
        begin, held = self._held(ranges)
        late = self._late(ranges, np.full(len(held), most), is_last=True)
        after = np.bincount(late[0], minlength=len(held))
        early = np.minimum(held, most - after)
        return self._joined(early + after, (begin + held - 1, -1, early, after), late, 0 * after)

    def _held(self, ranges: Ranges) -> tuple[Int64s, Int64s]:
        begin = self._some.places(ranges.begin)
        return begin, self._some.places(ranges.end) - begin

    def _late(
        self, ranges: Ranges, room: Int64s, *, is_last: bool
    ) -> tuple[Positions, Positions, Int64s]:
        """Return (query, row, rank) of the first or last stragglers, as many as there is room for."""
        none = np.empty(0, np.intp)
        found = [(none, none, none)]
        for visitors, visited in () if ranges.stragglers is None else ranges.stragglers.visits():
            queries, places = self._some.among(visitors, visited)
            rows = self._rows[places]
            order = np.lexsort((-rows if is_last else rows, queries))
            queries, rows = queries[order], rows[order]
            rank = np.arange(len(queries))
            rank -= np.maximum.accumulate(np.where(np.diff(queries, prepend=-1) != 0, rank, 0))
            kept = rank < room[queries]
            found.append((queries[kept], rows[kept], rank[kept]))
        queries, rows, ranks = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return queries, rows, ranks

    def _joined(
        self,
        lengths: Int64s,
        early: tuple[Int64s, int, Int64s, Int64s | int],
        late: tuple[Positions, Positions, Int64s],
        late_from: Int64s,
    ) -> Listed:
        """Put what lies in the ranges themselves and their stragglers together.

        Args:
            lengths: of each list.
            early: of the rows that lie in the range itself the place of the first, the step to the
                next, how many there are, and where in the list they begin.
            late: stragglers with their ranks.
            late_from: where in the list the stragglers begin.
        """
        place, step, count, early_from = early
        at = np.cumsum(lengths) - lengths
        rows = np.empty(int(lengths.sum()), np.intp)
        rank = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        rows[np.repeat(at + early_from, count) + rank] = self._rows[
            np.repeat(place, count) + step * rank
        ]
        queries, late_rows, ranks = late
        rows[at[queries] + late_from[queries] + ranks] = late_rows
        return Listed(rows, lengths)
