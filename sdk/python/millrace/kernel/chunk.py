"""Features of one chunk: some keys with all their events and queries."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from millrace.kernel import exact, ranges
from millrace.kernel.axis import Axis, Bools, Int64s, Positions, Stamped, window_bounds
from millrace.kernel.ranges import Ranges
from millrace.kernel.view import KernelFeature
from millrace.kernel.visibility import Visibility
from millrace.types import DataType
from millrace.windows import Window

Array = npt.NDArray[np.generic]

_FAMILIES = {"sum": "total", "avg": "total", "variance": "spread", "stddev": "spread"}


@dataclass(frozen=True)
class Measure:
    """A column as numbers.

    Attributes:
        type: what the numbers mean; decimals are unscaled.
        values: the number itself where it fits 64 bits, else its rank among the column's values
            (strings, bytes, decimals of more than 18 digits). Anything where not valid.
        valid: None if no row is null.
        words: bits of the low word and the high word of a decimal of more than 18 digits.
    """

    type: DataType
    values: Array
    valid: Bools | None
    words: tuple[Int64s, Int64s] | None = None

    def take(self, rows: Positions) -> "Measure":
        """Gather rows."""
        return Measure(
            self.type,
            self.values[rows],
            None if self.valid is None else self.valid[rows],
            None if self.words is None else (self.words[0][rows], self.words[1][rows]),
        )

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

    def _or_zero(self, values: Array) -> Array:
        if self.valid is None:
            return values
        return np.where(self.valid, values, values.dtype.type(0))


@dataclass(frozen=True)
class Result:
    """Values of one feature; ``valid`` None: none is null; ``high``: high words of wide sums."""

    values: Array
    valid: Bools | None
    high: Int64s | None = None


@dataclass(frozen=True)
class Chunk:
    """Events sorted by (key, event time, ingest time) and what each window holds of them.

    Attributes:
        order: the sorted events' rows in the arrays given.
        query_order: the queries' rows, in the order of all results.
        tied: sorted positions of events equal in all three; empty if order does not matter.
        groups: for each of them, which tie it belongs to.
        windows: the rows of each window, per query.
    """

    order: Positions
    query_order: Positions
    tied: Positions
    groups: Int64s
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
    known = None
    if ingest_ms is not None and not hindsight and bool((ingest_ms > events.instants_ms).any()):
        known = Visibility(events.take(order), ingest_ms[order], asked, keys)
    found = {w: _window_rows(axis, w, asked, known) for w in windows}
    return Chunk(order, query_order, tied, groups, found)


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


def _window_rows(axis: Axis, window: Window, queries: Stamped, known: Visibility | None) -> Ranges:
    start_ms, end_ms = window_bounds(window, queries.instants_ms)
    begin, end = axis.before(queries.codes, start_ms), axis.before(queries.codes, end_ms)
    if known is None:
        return Ranges(begin, end)
    prefix_end, stragglers = known.split(begin, end)
    return Ranges(begin, prefix_end, stragglers)


def chunk_results(
    chunk: Chunk,
    features: Sequence[KernelFeature],
    measures: Mapping[str, Measure],
    id_ranks: Callable[[Positions], Int64s] | None,
) -> Iterator[tuple[int, Result]]:
    """Compute every feature.

    Args:
        chunk: with the windows of all features.
        features: what to compute.
        measures: by name, in the order of the rows given to ``build_chunk``.
        id_ranks: orders the event ids of some rows, null lowest; None without event ids.

    Yields:
        (index of the feature, its values in ``query_order``), grouped by measure.
    """
    for name in dict.fromkeys(f.measure for f in features):
        mine = [(i, f) for i, f in enumerate(features) if f.measure == name]
        if name is None:
            for i, feature in mine:
                rows = ranges.row_counts([chunk.windows[feature.window]])
                yield i, Result(rows[0], None)
        else:
            column = measures[name].take(chunk.order)
            yield from _MeasureResults(chunk, column, id_ranks).of(mine)


class _MeasureResults:
    """All features of one measure."""

    def __init__(
        self, chunk: Chunk, column: Measure, id_ranks: Callable[[Positions], Int64s] | None
    ) -> None:
        self._chunk, self._column, self._id_ranks = chunk, column, id_ranks
        self._counts: dict[Window, Int64s] = {}

    def of(self, features: Sequence[tuple[int, KernelFeature]]) -> Iterator[tuple[int, Result]]:
        windows = list(dict.fromkeys(f.window for _, f in features))
        found = [self._chunk.windows[w] for w in windows]
        if self._column.valid is None:
            counts = ranges.row_counts(found)
        else:
            counts = ranges.totals(self._column.valid.astype(np.int64), found)
        self._counts = dict(zip(windows, counts, strict=True))
        families: dict[str, list[tuple[int, KernelFeature]]] = {}
        for entry in features:
            aggregate = entry[1].aggregate
            families.setdefault(_FAMILIES.get(aggregate, aggregate), []).append(entry)
        for family, members in families.items():
            yield from self._family(family, members)

    def _family(
        self, family: str, members: Sequence[tuple[int, KernelFeature]]
    ) -> Iterator[tuple[int, Result]]:
        windows = list(dict.fromkeys(f.window for _, f in members))
        if family == "count":
            for i, feature in members:
                yield i, Result(self._counts[feature.window], None)
        elif family in {"min", "max", "first", "last"}:
            found = self._extremes if family in {"min", "max"} else self._edges
            by_window = dict(zip(windows, found(family, windows), strict=True))
            for i, feature in members:
                yield i, by_window[feature.window]
        else:
            results = self._totals if family == "total" else self._spreads
            yield from results(members, windows)

    def _sums(self, terms: exact.Terms, windows: Sequence[Window]) -> dict[Window, list[Int64s]]:
        found = [self._chunk.windows[w] for w in windows]
        sums: dict[Window, list[Int64s]] = {w: [] for w in windows}
        for k in range(terms.length):
            for w, part in zip(windows, ranges.totals(terms.limb(k), found), strict=True):
                sums[w].append(part)
        return sums

    def _totals(
        self, members: Sequence[tuple[int, KernelFeature]], windows: Sequence[Window]
    ) -> Iterator[tuple[int, Result]]:
        terms = self._column.terms()
        sums = self._sums(terms, windows)
        for i, feature in members:
            count, parts = self._counts[feature.window], sums[feature.window]
            if feature.aggregate == "avg":
                fraction, exponent = exact.to_scaled(parts, terms, len(count))
                mean = fraction / np.maximum(count, 1) / 10.0**self._column.type.scale
                yield i, _rounded(mean, exponent, count > 0)
            elif self._column.type.kind == "float64":
                yield i, _rounded(*exact.to_scaled(parts, terms, len(count)), count > 0)
            else:
                yield i, _integer_sum(parts, feature.type, count > 0)

    def _spreads(
        self, members: Sequence[tuple[int, KernelFeature]], windows: Sequence[Window]
    ) -> Iterator[tuple[int, Result]]:
        doubles = self._column.doubles()
        squares = exact.square_terms(doubles)
        sums = self._sums(exact.double_terms(doubles), windows)
        square_sums = self._sums(squares, windows)
        for i, feature in members:
            w = feature.window
            count = self._counts[w]
            fraction, exponent = exact.squared_deviations(
                sums[w], square_sums[w], count, squares.exponent
            )
            pairs = np.maximum(count.astype(np.float64) * (count - 1), 1.0)
            variance = _rounded(fraction / pairs, exponent, count > 1)
            if feature.aggregate == "stddev":
                yield i, Result(np.sqrt(variance.values.astype(np.float64)), variance.valid)
            else:
                yield i, variance

    def _extremes(self, family: str, windows: Sequence[Window]) -> list[Result]:
        values = self._column.values
        if values.dtype != np.float64:
            values = values.astype(np.int64)
        limits = np.finfo(np.float64) if values.dtype == np.float64 else np.iinfo(np.int64)
        pick, empty = (np.minimum, limits.max) if family == "min" else (np.maximum, limits.min)
        if self._column.valid is not None:
            values = np.where(self._column.valid, values, empty)
        found = ranges.extremes(values, pick, empty, [self._chunk.windows[w] for w in windows])
        return [Result(best, self._counts[w] > 0) for w, best in zip(windows, found, strict=True)]

    def _edges(self, family: str, windows: Sequence[Window]) -> list[Result]:
        column = self._column.take(self._value_order()) if self._chunk.tied.size else self._column
        n = len(column.values)
        valid = np.ones(n, np.bool_) if column.valid is None else column.valid
        find = ranges.firsts if family == "first" else ranges.lasts
        out = []
        for position in find(valid, [self._chunk.windows[w] for w in windows]):
            some = (position >= 0) & (position < n)
            out.append(Result(column.values[np.where(some, position, 0)], some))
        return out

    def _value_order(self) -> Positions:
        """Order what event and ingest time leave tied: by event id, then by the value."""
        tied = self._chunk.tied
        keys = [self._column.values[tied], self._chunk.groups]
        if self._id_ranks is not None:
            keys.insert(1, self._id_ranks(self._chunk.order[tied]))
        order = np.arange(len(self._column.values))
        order[tied] = tied[np.lexsort(keys)]
        return order


def _rounded(fraction: exact.Doubles, exponent: Int64s, valid: Bools) -> Result:
    """Put a scaled double together; what lies outside the doubles is null."""
    with np.errstate(over="ignore", under="ignore"):
        values = np.ldexp(fraction, np.clip(exponent, -(2**20), 2**20).astype(np.int32))
    return Result(values, valid & np.isfinite(values))


def _integer_sum(parts: Sequence[Int64s], type_: DataType, valid: Bools) -> Result:
    low, high, fits = exact.to_words(parts)
    if fits is not None:
        valid = valid & fits
    if type_.kind == "int64":
        return Result(low, valid if len(parts) == 1 else valid & (high == low >> 63))
    if len(parts) > 1:
        valid = valid & exact.below_power_of_ten(low, high, type_.precision)
    return Result(low, valid, high)
