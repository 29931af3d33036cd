"""The most frequent values of ranges of rows, many ranges at once.

Ranges that end near one another are counted together, as a block: how often each value of the block
occurs in what all its ranges share is counted once, and the rows that a range has beside that are
added. The counts of a range stand side by side, and the largest of each are picked one after
another.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from millrace.kernel.axis import Bools, Int64s, Positions
from millrace.kernel.ranges import Listed, Ranges, SomeRows

_CELLS = 1 << 20
_SHARED = 8  # the ends of a block's ranges lie within a range's length by this
_LEAST = 16
_MOST_QUERIES = 256


class Frequencies:
    """A column whose most frequent values are asked for.

    Args:
        codes: a number for each row, equal where values are and ordered as they are.
        valid: rows that count; None: all.
    """

    def __init__(self, codes: Int64s, valid: Bools | None) -> None:
        self._rows = SomeRows(valid, len(codes))
        self.distinct, self._ranks = np.unique(self._rows.take(codes), return_inverse=True)

    def most_frequent(self, ranges: Ranges, asked: Positions, most: int) -> Listed:
        """List the most frequent values of some ranges, of equally frequent ones the smallest.

        Args:
            ranges: which rows to look at.
            asked: the ranges, ascending, each with a row that counts.
            most: how many values at most.

        Returns:
            places in ``distinct``, the most frequent first; none of ranges that were not asked for.
        """
        lengths = np.zeros(len(ranges.begin), np.int64)
        parts = [np.empty(0, np.int64)]
        for part in self._parts(ranges, asked):
            found, counts = _picked(part, most)
            lengths[part.queries] = counts
            parts.append(found)
        return Listed(np.concatenate(parts), lengths)

    def _parts(self, ranges: Ranges, asked: Positions) -> Iterator["_Counts"]:
        late_queries, late_rows = self._late(ranges, asked)
        begin = self._rows.places(ranges.begin[asked])
        end = self._rows.places(ranges.end[asked])
        block = _blocks(begin, end)
        sizes = _at_most(begin, end, block, np.bincount(late_queries, minlength=len(asked)))
        part_of = np.cumsum(sizes) // _CELLS
        part_of = part_of[np.searchsorted(block, block)]  # a block is not parted
        cuts = np.flatnonzero(np.diff(part_of, prepend=-1, append=-1))
        late_cuts = np.searchsorted(late_queries, cuts)
        for i in range(len(cuts) - 1):
            mine = slice(cuts[i], cuts[i + 1])
            late = slice(late_cuts[i], late_cuts[i + 1])
            yield self._counted(
                asked[mine],
                begin[mine],
                end[mine],
                block[mine] - block[cuts[i]],
                (late_queries[late] - cuts[i], late_rows[late]),
            )

    def _late(self, ranges: Ranges, asked: Positions) -> tuple[Positions, Int64s]:
        """Return each straggler's query, as its place in ``asked``, ascending, and its row."""
        found = [(np.empty(0, np.intp), np.empty(0, np.int64))]
        if ranges.stragglers is not None:
            place = np.full(len(ranges.begin), -1, np.int64)
            place[asked] = np.arange(len(asked))
            for queries, rows in ranges.stragglers.visits():
                askers, places = self._rows.among(place[queries], rows)
                found.append((askers[askers >= 0], places[askers >= 0]))
        queries, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(queries, kind="stable")
        return queries[order], rows[order]

    def _counted(
        self,
        queries: Positions,
        begin: Int64s,
        end: Int64s,
        block: Int64s,
        late: tuple[Positions, Int64s],
    ) -> "_Counts":
        """Count the values of each query of some blocks, numbered from 0."""
        first = np.flatnonzero(np.diff(block, prepend=-1))
        low, high = np.minimum.reduceat(begin, first), np.maximum.reduceat(end, first)
        core_low, core_high = np.maximum.reduceat(begin, first), np.minimum.reduceat(end, first)
        core_high = np.maximum(core_low, core_high)
        # Every value that some range of a block may hold, by block, ascending.
        span_block, span_rows = _expanded(low, high)
        stride = len(self.distinct) + 1
        keys = np.concatenate(
            [
                span_block * stride + self._ranks[span_rows],
                block[late[0]] * stride + self._ranks[late[1]],
            ]
        )
        held, place = np.unique(keys, return_inverse=True)
        ends = np.searchsorted(held // stride, np.arange(len(first)), side="right")
        values = np.diff(ends, prepend=0)
        starts = ends - values
        # What all ranges of a block share.
        is_core = (span_rows >= core_low[span_block]) & (span_rows < core_high[span_block])
        core = np.bincount(place[: len(span_rows)][is_core], minlength=len(held))
        width = values[block]
        cell = np.cumsum(width) - width
        owner, source = _expanded(starts[block], ends[block])
        counts = core[source]
        # What each range has beside it: before the core, behind it, and what came late.
        at = np.cumsum(high - low) - (high - low) - low
        split = np.clip(core_low[block], begin, end)
        rest = np.clip(core_high[block], split, end)
        for from_, to in ((begin, split), (rest, end)):
            query, rows = _expanded(from_, to)
            among = place[at[block[query]] + rows] - starts[block[query]]
            counts += np.bincount(cell[query] + among, minlength=len(counts))
        among = place[len(span_rows) :] - starts[block[late[0]]]
        counts += np.bincount(cell[late[0]] + among, minlength=len(counts))
        return _Counts(queries, width, owner, held[source] % stride, counts)


@dataclass(frozen=True)
class _Counts:
    """How often some queries hold each of some values; cells of one query stand side by side.

    Attributes:
        width: cells of each query, none of them without.
        owner: of each cell the place of its query.
        value: of each cell the place of its value in ``distinct``, ascending within a query.
        count: of each cell.
    """

    queries: Positions
    width: Int64s
    owner: Positions
    value: Int64s
    count: Int64s

    def held(self) -> "_Counts":
        """Leave out what does not occur."""
        some = self.count > 0
        owner = self.owner[some]
        width = np.bincount(owner, minlength=len(self.queries))
        return replace(
            self, width=width, owner=owner, value=self.value[some], count=self.count[some]
        )


def _picked(part: _Counts, most: int) -> tuple[Int64s, Int64s]:
    """Return the values with the largest counts, query by query, and how many each query has."""
    held = part.held()
    lengths = np.minimum(held.width, most)
    cell = np.cumsum(held.width) - held.width
    at = np.cumsum(lengths) - lengths
    found = np.empty(int(lengths.sum()), np.int64)
    # Of equal counts the first cell wins; what is behind it has the smaller second half.
    place = np.arange(len(held.count)) - cell[held.owner]
    score = (held.count << 32) - place
    for turn in range(int(lengths.max(initial=0))):
        some = np.flatnonzero(lengths > turn)
        best = _largest(score, cell[some], held.width[some])
        winner = cell[some] + (-best & 0xFFFFFFFF)
        found[at[some] + turn] = held.value[winner]
        score[winner] = -1
    return found, lengths


def _largest(score: Int64s, begin: Int64s, width: Int64s) -> Int64s:
    """Return the largest number of each of some rows, none of them empty."""
    if int(width.sum()) < len(score):
        _, cells = _expanded(begin, begin + width)
        score, begin = score[cells], np.cumsum(width) - width
    return np.maximum.reduceat(score, begin)


def _blocks(begin: Int64s, end: Int64s) -> Int64s:
    """Number the queries' blocks, ascending: neighbours whose ranges end and begin near one another."""
    exponents = np.frexp(np.maximum((end - begin) // _SHARED, _LEAST).astype(np.float64))[1]
    is_new = np.zeros(len(end), np.bool_)
    is_new[::_MOST_QUERIES] = True
    for near in (end >> exponents, begin >> exponents, exponents):
        is_new[1:] |= near[1:] != near[:-1]
    return np.cumsum(is_new) - 1


def _at_most(begin: Int64s, end: Int64s, block: Int64s, late: Int64s) -> Int64s:
    """Return how many cells and rows a query takes at most."""
    first = np.flatnonzero(np.diff(block, prepend=-1))
    if not len(first):
        return np.empty(0, np.int64)
    span = np.maximum.reduceat(end, first) - np.minimum.reduceat(begin, first)
    span += np.add.reduceat(late, first)
    return span[block] + end - begin + late


def _expanded(begin: Int64s, end: Int64s) -> tuple[Positions, Int64s]:
    """Return every number of each interval, with the place of its interval."""
    lengths = end - begin
    owner = np.repeat(np.arange(len(begin)), lengths)
    return owner, np.arange(len(owner)) - (np.cumsum(lengths) - lengths - begin)[owner]
