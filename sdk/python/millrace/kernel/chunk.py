"""One chunk: some keys with all their events and queries, and which events each window holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.aggregates import check_forms
from millrace.calendar_windows import Tumbling
from millrace.kernel import exact
from millrace.kernel.axis import Axis, Bools, Int64s, Positions, Stamped
from millrace.kernel.ranges import Ranges
from millrace.kernel.sessions import session_begin
from millrace.kernel.visibility import Visibility
from millrace.types import DataType
from millrace.window import Window
from millrace.windows import KINDS, Lifetime, Session, Sliding

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Texts:
    """Different strings or bytes, by rank.

    Attributes:
        starts: where each begins in ``data``, and where the last ends.
        data: their bytes, one after the other.
    """

    starts: Int64s
    data: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Measure:
    """A column as numbers.

    Attributes:
        type: what the numbers mean; decimals are unscaled.
        values: the number itself where it fits 64 bits, else its rank among the column's values
            (strings, bytes, decimals of more than 18 digits), or its row in ``vectors``. Anything
            where not valid.
        valid: None if no row is null.
        words: bits of the low word and the high word of a decimal of more than 18 digits.
        texts: what ranks of strings or bytes stand for.
        vectors: what values of a vector stand for.
    """

    type: DataType
    values: Array
    valid: Bools | None
    words: tuple[Int64s, Int64s] | None = None
    texts: Texts | None = None
    vectors: npt.NDArray[np.float32] | None = None

    def take(self, rows: Positions) -> "Measure":
        """Gather rows."""
        return Measure(
            self.type,
            self.values[rows],
            None if self.valid is None else self.valid[rows],
            None if self.words is None else (self.words[0][rows], self.words[1][rows]),
            self.texts,
            self.vectors,
        )

    def ranks(self, rows: Positions) -> Array:
        """Return numbers that order some rows as their values are; those of nulls mean nothing."""
        values = self.values[rows]
        if self.vectors is None or not len(self.vectors):
            return values
        # By the first element that differs.
        ranks = np.empty(len(values), np.int64)
        ranks[np.lexsort(self.vectors[values].T[::-1])] = np.arange(len(values))
        return ranks

    def elements(self, vectors: npt.NDArray[np.float32], place: int) -> exact.Doubles:
        """Return one element of each of its vectors, 0 for null."""
        if not len(vectors):
            return np.zeros(len(self.values))
        found: exact.Doubles = vectors[self.values, place].astype(np.float64)
        return found if self.valid is None else np.where(self.valid, found, 0.0)

    def terms(self) -> exact.Terms:
        """Cut the column for exact sums; a null adds nothing."""
        if self.words is not None:
            return exact.word_terms(*(self._or_zero(w).astype(np.int64) for w in self.words))
        if self.type.kind == "float64":
            return exact.double_terms(self._or_zero(self.values).astype(np.float64))
        return exact.integer_terms(self._or_zero(self.values).astype(np.int64))

    def doubles(self) -> exact.Doubles:
        """Return the values as doubles, 0 for null."""
        if self.words is not None:
            return exact.decimal_doubles(
                self._or_zero(self.words[0]).astype(np.int64),
                self._or_zero(self.words[1]).astype(np.int64),
                self.type.scale,
            )
        if self.type.kind == "decimal":
            low = self._or_zero(self.values).astype(np.int64)
            return exact.decimal_doubles(low, None, self.type.scale)
        return self._or_zero(self.values).astype(np.float64)

    def codes(self) -> Int64s:
        """Return numbers that are equal where values are; of instants the milliseconds."""
        numbers = self.values.astype(np.int64, copy=False)
        return numbers // 1000 if self.type.kind == "timestamp" else numbers

    def _or_zero(self, values: Array) -> Array:
        if self.valid is None:
            return values
        return np.where(self.valid, values, values.dtype.type(0))


@dataclass(frozen=True)
class Result:
    """Values of one feature, one per query, or of lists one list after the other.

    Attributes:
        values: the numbers, or ranks; of vectors that are neither a row of floats for each query.
        valid: which queries have a value; None: all.
        high: high words of wide sums.
        lengths: of lists, how many of the values each query has; 0 where it has none.
    """

    values: Array
    valid: Bools | None
    high: Int64s | None = None
    lengths: Int64s | None = None


@dataclass(frozen=True)
class Chunk:
    """Events sorted by (key, event time, ingest time) and what each window holds of them.

    Attributes:
        order: the sorted events' rows in the arrays given.
        query_order: the queries' rows, in the order of all results.
        tied: sorted positions of events equal in all three; empty if order does not matter.
        groups: for each of them, which tie it belongs to.
        event_ms: instants of the events, as sorted.
        query_ms: instants of the queries, in the order of all results.
        windows: the rows of each window, per query.
    """

    order: Positions
    query_order: Positions
    tied: Positions
    groups: Int64s
    event_ms: Int64s
    query_ms: Int64s
    windows: Mapping[Window, Ranges]

    def of_rows(self, events: Positions, queries: Positions) -> "Chunk":
        """Say the same about arrays of which those given to ``build_chunk`` were some rows."""
        return replace(self, order=events[self.order], query_order=queries[self.query_order])


def build_chunk(
    events: Stamped,
    ingest_ms: Int64s | None,
    queries: Stamped,
    windows: Sequence[Window],
    *,
    keys: int,
    hindsight: bool,
    ordered: bool,
) -> Chunk:
    """Sort events and queries, and find the rows of every window.

    Args:
        events: at least one, in any order.
        ingest_ms: when each arrived; None if all did when they happened.
        queries: at least one, in any order.
        windows: which to look up.
        keys: number of key codes.
        hindsight: see events whenever they arrived.
        ordered: ties matter (a feature is a first or a last).
    """
    axis = Axis(events, keys)
    order = _sorted(axis)
    tied, groups = np.empty(0, np.intp), np.empty(0, np.int64)
    if ordered:
        arrival = None if ingest_ms is None else ingest_ms[order]
        tied, groups = _settle_ties(axis.line, order, arrival)
    query_order = _sorted(Axis(queries, keys))
    asked = queries.take(query_order)
    ordered_events = events.take(order)
    known = None
    if ingest_ms is not None and not hindsight and bool((ingest_ms > events.instants_ms).any()):
        known = Visibility(ordered_events, ingest_ms[order], asked, keys)
    found = {w: _window_rows(axis, w, ordered_events, asked, known) for w in windows}
    instants = ordered_events.instants_ms
    return Chunk(order, query_order, tied, groups, instants, asked.instants_ms, found)


def _sorted(axis: Axis) -> Positions:
    """Sort the axis in place and return the permutation."""
    if bool((axis.line[1:] >= axis.line[:-1]).all()):
        return np.arange(len(axis.line))
    order = np.argsort(axis.line)
    axis.line = axis.line[order]
    return order


def _settle_ties(
    line: Int64s, order: Positions, arrival: Int64s | None
) -> tuple[Positions, Int64s]:
    """Sort events of one key and instant by ingest time, in ``order`` itself.

    Returns:
        positions of the events tied even so, and the tie each belongs to.
    """
    tied, groups = _runs(line[1:] == line[:-1])
    if arrival is None or not tied.size:
        return tied, groups
    by_arrival = tied[np.lexsort((arrival[tied], groups))]
    order[tied] = order[by_arrival]
    arrival[tied] = arrival[by_arrival]
    return _runs((line[1:] == line[:-1]) & (arrival[1:] == arrival[:-1]))


def _runs(same_as_next: Bools) -> tuple[Positions, Int64s]:
    """Return the positions in runs of equals and the number of each one's run."""
    same_as_previous = np.concatenate([[False], same_as_next])
    tied = np.flatnonzero(same_as_previous | np.append(same_as_next, False))
    return tied, np.cumsum(~same_as_previous[tied])


def _window_rows(
    axis: Axis, window: Window, events: Stamped, queries: Stamped, known: Visibility | None
) -> Ranges:
    start_ms, end_ms = window.bounds(queries.instants_ms)
    begin, end = axis.before(queries.codes, start_ms), axis.before(queries.codes, end_ms)
    begin = _BEGINS[type(window)](window, events, queries, (begin, end), known)
    if known is None:
        return Ranges(begin, end)
    prefix_end, stragglers = known.split(begin, end)
    return Ranges(begin, prefix_end, stragglers)


_Begin = Callable[
    [Any, Stamped, Stamped, tuple[Positions, Positions], Visibility | None], Positions
]


def _at_bound(
    window: Window,
    events: Stamped,
    queries: Stamped,
    rows: tuple[Positions, Positions],
    known: Visibility | None,
) -> Positions:
    return rows[0]


def _at_run(
    window: Session,
    events: Stamped,
    queries: Stamped,
    rows: tuple[Positions, Positions],
    known: Visibility | None,
) -> Positions:
    return session_begin(events, window.gap_ms, queries.instants_ms, *rows, known)


_BEGINS: Mapping[type[Window], _Begin] = {
    Sliding: _at_bound,
    Lifetime: _at_bound,
    Tumbling: _at_bound,
    Session: _at_run,
}
"""Where the rows of a window begin, given those between its bounds."""

check_forms("the kernel", KINDS, _BEGINS)
