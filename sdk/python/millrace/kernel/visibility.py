"""Knowledge time: which events of a window had arrived by the instant of the query.

An event is visible from ``max(event_ms, ingest_ms)`` on. Along a key's events the running maximum
of that instant never falls, so a query sees a whole prefix of its window (the events up to the
first running maximum not before it) and some of the rest, the stragglers. The stragglers of all
queries are cut into aligned blocks of 2^k events, as in a merge-sort tree (Bentley's logarithmic
method); inside a block events are ordered by visibility, so what a query sees of a block is again
a prefix. The cost is at most that of visiting each straggler of each query, and at most
O(n log² n) however late events are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from millrace.kernel.axis import Axis, Bools, Int64s, Positions, Stamped

_VISITS = 1 << 22
_KEPT_VISITS = 1 << 18


@dataclass(frozen=True)
class Level:
    """All blocks of one size.

    Attributes:
        positions: (blocks, size) event positions, each row ordered by visibility.
        reads: (row, column, query) arrays: the query sees the row up to and with the column.
            Within one entry each query occurs once.
    """

    positions: npt.NDArray[np.int32]
    reads: tuple[tuple[Positions, Positions, Positions], ...]


@dataclass(frozen=True)
class Stragglers:
    """The visible events of each query beyond its prefix."""

    queries: int
    levels: tuple[Level, ...]

    def visits(self) -> Iterator[tuple[Positions, Positions]]:
        """Return each query with each of its stragglers, a few million at a time.

        Yields:
            (queries, positions); the stragglers of one query come together.
        """
        for part in np.unique(self._parts[self._sizes > 0]):
            yield self._few if self._is_small else self._visits(part)

    @cached_property
    def _sizes(self) -> Int64s:
        sizes = np.zeros(self.queries, np.int64)
        for level in self.levels:
            for _, last, query in level.reads:
                sizes[query] += last + 1
        return sizes

    @cached_property
    def _parts(self) -> Int64s:
        return (np.cumsum(self._sizes) - self._sizes) // _VISITS

    @cached_property
    def _is_small(self) -> bool:
        return int(self._sizes.sum()) <= _KEPT_VISITS

    @cached_property
    def _few(self) -> tuple[Positions, Positions]:
        """All visits; kept, for they are asked for again and again."""
        return self._visits(0)

    def _visits(self, part: int) -> tuple[Positions, Positions]:
        queries, positions = [], []
        for level in self.levels:
            for row, last, query in level.reads:
                mine = self._parts[query] == part
                counts = last[mine] + 1
                columns = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
                queries.append(np.repeat(query[mine], counts))
                positions.append(level.positions[np.repeat(row[mine], counts), columns])
        return np.concatenate(queries), np.concatenate(positions).astype(np.intp)

    def total(self, column: Int64s) -> Int64s:
        """Add a column up over each query's stragglers."""
        out = np.zeros(self.queries, np.int64)
        for level in self.levels:
            running = np.cumsum(column[level.positions], axis=1)
            for row, last, query in level.reads:
                out[query] += running[row, last]
        return out

    def extreme(
        self, column: npt.NDArray[np.generic], pick: np.ufunc, empty: float
    ) -> npt.NDArray[np.generic]:
        """Fold a column with minimum or maximum over each query's stragglers."""
        out = np.full(self.queries, empty, column.dtype)
        for level in self.levels:
            running = pick.accumulate(column[level.positions], axis=1)
            for row, last, query in level.reads:
                out[query] = pick(out[query], running[row, last])
        return out


class Visibility:
    """What queries see of events sorted by (key, event time).

    Args:
        events: in that order.
        ingest_ms: when each event arrived.
        queries: in any order.
        keys: number of key codes.

    Attributes:
        seen_prefix: of each query, the row before which it sees every event of its key.
    """

    def __init__(self, events: Stamped, ingest_ms: Int64s, queries: Stamped, keys: int) -> None:
        visible_ms = np.maximum(events.instants_ms, ingest_ms)
        axis = Axis(Stamped(events.codes, visible_ms), keys)
        np.maximum.accumulate(axis.line, out=axis.line)
        self.seen_prefix = axis.before(queries.codes, queries.instants_ms)
        self._visible_ms, self._query_ms = visible_ms, queries.instants_ms
        self._ranks: tuple[Int64s, Int64s] | None = None
        self._known: list[tuple[Positions, Positions, Stragglers | None]] = []

    def sees(self, rows: Positions, queries: Positions) -> Bools:
        """Tell of pairs of an event and a query whether it had arrived."""
        return self._visible_ms[rows] < self._query_ms[queries]

    def split(self, begin: Positions, end: Positions) -> tuple[Positions, Stragglers | None]:
        """Split windows ``[begin, end)`` into a visible prefix and stragglers.

        Returns:
            the end of the prefix of each, and the stragglers of all; None if there are none.
        """
        prefix_end = np.maximum(np.minimum(self.seen_prefix, end), begin)
        late_begin = np.maximum(self.seen_prefix, begin)
        late_end = np.maximum(end, late_begin)
        if np.array_equal(late_begin, late_end):
            return prefix_end, None
        for known_begin, known_end, stragglers in self._known:
            if np.array_equal(known_end, late_end) and np.array_equal(known_begin, late_begin):
                return prefix_end, stragglers
        stragglers = self._stragglers(late_begin, late_end)
        self._known.append((late_begin, late_end, stragglers))
        return prefix_end, stragglers

    def _stragglers(self, begin: Positions, end: Positions) -> Stragglers:
        if self._ranks is None:
            distinct, ranks = np.unique(self._visible_ms, return_inverse=True)
            self._ranks = ranks, np.searchsorted(distinct, self._query_ms)
        ranks, query_ranks = self._ranks
        levels = []
        for shift, cover in enumerate(_aligned_blocks(begin, end)):
            if any(len(blocks) for blocks, _ in cover):
                levels.append(_level(shift, cover, ranks, query_ranks))
        return Stragglers(len(begin), tuple(levels))


Cover = tuple[tuple[Positions, Positions], tuple[Positions, Positions]]


def _aligned_blocks(begin: Positions, end: Positions) -> list[Cover]:
    """Cut intervals into aligned blocks of 1, 2, 4, … as a bottom-up segment tree does.

    Returns:
        per block size, the left and the right blocks: (block number, query) arrays.
    """
    left, right = begin.copy(), end.copy()
    live = np.flatnonzero(left < right)
    covers: list[Cover] = []
    while live.size:
        lefts = live[(left[live] & 1) == 1]
        left_blocks = left[lefts]
        left[lefts] += 1
        rights = live[(right[live] & 1) == 1]
        right[rights] -= 1
        covers.append(((left_blocks, lefts), (right[rights], rights)))
        left >>= 1
        right >>= 1
        live = live[left[live] < right[live]]
    return covers


def _level(shift: int, cover: Cover, ranks: Int64s, query_ranks: Int64s) -> Level:
    size = 1 << shift
    blocks = np.unique(np.concatenate([numbers for numbers, _ in cover]))
    first = blocks[:, None] << shift
    # (rank, place in block) in one integer: sorting it orders a row and remembers the places.
    packed = (ranks[first + np.arange(size)] << shift) | np.arange(size)
    packed.sort(axis=1)
    positions = (first + (packed & (size - 1))).astype(np.int32)
    stride = int(query_ranks.max()) + int(ranks.max()) + 2
    line = ((packed >> shift) + np.arange(len(blocks))[:, None] * stride).ravel()
    reads = []
    for numbers, queries in cover:
        row = np.searchsorted(blocks, numbers)
        seen = np.searchsorted(line, row * stride + query_ranks[queries]) - row * size
        some: Bools = seen > 0
        reads.append((row[some], seen[some] - 1, queries[some]))
    return Level(positions, tuple(reads))
