"""The kernel's forms: how each aggregate is computed for all queries of a chunk at once.

A form gathers what its aggregate needs of each window, once for all features that gather alike, and
makes values of it. The table of forms is held against the registry when this module is loaded.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from millrace.aggregates import AGGREGATES, Aggregate, Algebra, check_forms
from millrace.aggregates.buckets import MEDIAN_P
from millrace.aggregates.registers import RankRegisters
from millrace.kernel import exact, ranges, registers
from millrace.kernel.axis import Bools, Int64s, Positions
from millrace.kernel.buckets import Spread, Spreads
from millrace.kernel.chunk import Array, Chunk, Measure, Result
from millrace.kernel.frequencies import Frequencies
from millrace.kernel.occurrences import Occurrences
from millrace.kernel.view import KernelFeature
from millrace.types import DataType
from millrace.window import Window

Gathered = Sequence[Any]
"""What was gathered of each window, in the order of the windows."""


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
                yield i, _ROW_FORMS[feature.aggregate.name](chunk, feature.window)
        else:
            column = measures[name].take(chunk.order)
            yield from _of_measure(_Sorted(chunk, column, id_ranks), mine)


def gives_ranks(feature: KernelFeature) -> bool:
    """Tell whether values are one of the measure's, so that ranks of them will do."""
    return feature.measure is not None and _FORMS[feature.aggregate.name].compares


def reads_ranks(feature: KernelFeature) -> bool:
    """Tell whether values are compared or told apart, and not only counted or added."""
    return feature.measure is not None and (
        gives_ranks(feature) or _FORMS[feature.aggregate.name].identifies
    )


def _of_measure(
    column: "_Sorted", features: Sequence[tuple[int, KernelFeature]]
) -> Iterator[tuple[int, Result]]:
    alike: dict[tuple[Gather, Algebra | None], list[tuple[int, KernelFeature]]] = {}
    for i, feature in features:
        form = _FORMS[feature.aggregate.name]
        shaping = feature.aggregate.algebra if form.by_algebra else None
        alike.setdefault((form.gather, shaping), []).append((i, feature))
    for (gather, shaping), members in alike.items():
        windows = list(dict.fromkeys(f.window for _, f in members))
        found = gather(column, windows, *([] if shaping is None else [shaping]))
        gathered = dict(zip(windows, found, strict=True))
        for i, feature in members:
            finish = _FORMS[feature.aggregate.name].finish
            yield i, finish(gathered[feature.window], feature.aggregate)


@dataclass
class _Sorted:
    """A measure in the order of the chunk's events.

    Attributes:
        id_ranks: orders event ids; see ``chunk_results``.
    """

    chunk: Chunk
    column: Measure
    id_ranks: Callable[[Positions], Int64s] | None

    def ranges(self, windows: Sequence[Window]) -> list[ranges.Ranges]:
        """Return the rows of some windows."""
        return [self.chunk.windows[w] for w in windows]

    def counts(self, windows: Sequence[Window]) -> list[Int64s]:
        """Count the values that are not null; each window once."""
        missing = [w for w in windows if w not in self._counts]
        found = self.ranges(missing)
        if self.column.valid is None:
            counts = ranges.row_counts(found)
        else:
            counts = ranges.totals(self.column.valid.astype(np.int64), found)
        self._counts.update(zip(missing, counts, strict=True))
        return [self._counts[w] for w in windows]

    @cached_property
    def _counts(self) -> dict[Window, Int64s]:
        return {}

    def sums(self, terms: exact.Terms, windows: Sequence[Window]) -> list[list[Int64s]]:
        """Add terms up over each window, limb by limb."""
        found = self.ranges(windows)
        by_limb = [ranges.totals(terms.limb(k), found) for k in range(terms.length)]
        return [[limb[place] for limb in by_limb] for place in range(len(windows))]

    @cached_property
    def occurrences(self) -> Occurrences:
        """The column's values, told apart."""
        return Occurrences(self.column.codes(), self.column.valid)

    @cached_property
    def spread(self) -> Spread:
        """The column by buckets."""
        return Spread(self.column)

    @cached_property
    def by_place(self) -> Measure:
        """The column with what event and ingest time leave tied in order of event id, then value."""
        tied = self.chunk.tied
        if not tied.size:
            return self.column
        keys = [self.column.ranks(tied), self.chunk.groups]
        if self.id_ranks is not None:
            keys.insert(1, self.id_ranks(self.chunk.order[tied]))
        order = np.arange(len(self.column.values))
        order[tied] = tied[np.lexsort(keys)]
        return self.column.take(order)


Gather = Callable[..., Gathered]
"""Takes a column and windows; where the form says so, the algebra as well."""


@dataclass(frozen=True)
class Form:
    """How the kernel computes an aggregate.

    Attributes:
        gather: what it needs of some windows; features that gather alike share it.
        finish: makes the values of a feature of what was gathered.
        compares: values are compared and given as they are, so ranks of them will do.
        identifies: values are told apart and not given.
        by_algebra: what is gathered hangs on the parameters that shape what tiles keep.
    """

    gather: Gather
    finish: Callable[[Any, Aggregate], Result]
    compares: bool = False
    identifies: bool = False
    by_algebra: bool = False


@dataclass(frozen=True)
class _Total:
    """Exact sums of a window: limbs of ``terms``, how many values, and their scale."""

    parts: list[Int64s]
    terms: exact.Terms
    count: Int64s
    type: DataType


def _counts(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    return [Result(count, None) for count in column.counts(windows)]


@dataclass(frozen=True)
class _VectorMeans:
    """Means of a window's vectors, a row of floats for each query, and how many vectors there are."""

    means: npt.NDArray[np.float32]
    count: Int64s


def _vector_means(
    column: _Sorted, vectors: npt.NDArray[np.float32], windows: Sequence[Window]
) -> Gathered:
    """Add up one element after the other."""
    counts, length = column.counts(windows), column.column.type.length
    found = [_VectorMeans(np.zeros((len(count), length), np.float32), count) for count in counts]
    for element in range(length):
        terms = exact.double_terms(column.column.elements(vectors, element))
        for one, parts in zip(found, column.sums(terms, windows), strict=True):
            fraction, exponent = exact.to_scaled(parts, terms, len(one.count))
            mean = _rounded(fraction / np.maximum(one.count, 1), exponent, one.count > 0)
            one.means[:, element] = mean.values
    return found


def _totals(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    if column.column.vectors is not None:
        return _vector_means(column, column.column.vectors, windows)
    terms = column.column.terms()
    sums, counts = column.sums(terms, windows), column.counts(windows)
    return [
        _Total(parts, terms, count, column.column.type)
        for parts, count in zip(sums, counts, strict=True)
    ]


def _sum(total: _Total, aggregate: Aggregate) -> Result:
    if total.type.kind == "float64":
        scaled = exact.to_scaled(total.parts, total.terms, len(total.count))
        return _rounded(*scaled, total.count > 0)
    return _integer_sum(total.parts, aggregate.type, total.count > 0)


def _mean(total: _Total | _VectorMeans, aggregate: Aggregate) -> Result:
    if isinstance(total, _VectorMeans):
        return Result(total.means, total.count > 0)
    fraction, exponent = exact.to_scaled(total.parts, total.terms, len(total.count))
    mean = fraction / np.maximum(total.count, 1) / 10.0**total.type.scale
    return _rounded(mean, exponent, total.count > 0)


def _variances(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    doubles = column.column.doubles()
    squares = exact.square_terms(doubles)
    sums = column.sums(exact.double_terms(doubles), windows)
    square_sums = column.sums(squares, windows)
    found = []
    for parts, square_parts, count in zip(sums, square_sums, column.counts(windows), strict=True):
        fraction, exponent = exact.squared_deviations(parts, square_parts, count, squares.exponent)
        pairs = np.maximum(count.astype(np.float64) * (count - 1), 1.0)
        found.append(_rounded(fraction / pairs, exponent, count > 1))
    return found


def _root(variance: Result, aggregate: Aggregate) -> Result:
    return Result(np.sqrt(variance.values.astype(np.float64)), variance.valid)


def _extremes(pick: np.ufunc) -> Gather:
    def gather(column: _Sorted, windows: Sequence[Window]) -> Gathered:
        values = column.column.values
        if values.dtype != np.float64:
            values = values.astype(np.int64)
        limits = np.finfo(np.float64) if values.dtype == np.float64 else np.iinfo(np.int64)
        never = limits.max if pick is np.minimum else limits.min
        if column.column.valid is not None:
            values = np.where(column.column.valid, values, never)
        found = ranges.extremes(values, pick, never, column.ranges(windows))
        counts = column.counts(windows)
        return [Result(best, count > 0) for best, count in zip(found, counts, strict=True)]

    return gather


Find = Callable[[Bools, Sequence[ranges.Ranges]], list[Positions]]


def _edges(find: Find) -> Gather:
    def gather(column: _Sorted, windows: Sequence[Window]) -> Gathered:
        ordered = column.by_place
        n = len(ordered.values)
        valid = np.ones(n, np.bool_) if ordered.valid is None else ordered.valid
        out = []
        for position in find(valid, column.ranges(windows)):
            some = (position >= 0) & (position < n)
            out.append(Result(ordered.values[np.where(some, position, 0)], some))
        return out

    return gather


@dataclass(frozen=True)
class _Held:
    """What a window holds of a measure: its valid rows, in the order of places."""

    ordered: Measure
    rows: ranges.ValidRows
    within: ranges.Ranges


def _held(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    ordered = column.by_place
    valid = np.ones(len(ordered.values), np.bool_) if ordered.valid is None else ordered.valid
    rows = ranges.ValidRows(valid)
    return [_Held(ordered, rows, within) for within in column.ranges(windows)]


def _list(held: _Held, found: ranges.Listed) -> Result:
    return Result(held.ordered.values[found.rows], None, lengths=found.lengths)


def _oldest(held: _Held, aggregate: Aggregate) -> Result:
    return _list(held, held.rows.firsts(held.within, int(dict(aggregate.parameters)["k"])))


def _newest(held: _Held, aggregate: Aggregate) -> Result:
    return _list(held, held.rows.lasts(held.within, int(dict(aggregate.parameters)["k"])))


@dataclass(frozen=True)
class _Frequent:
    """What a window holds of a measure, its values told apart; ``different``: how many there are."""

    frequencies: Frequencies
    within: ranges.Ranges
    different: Int64s
    type: DataType

    def most_frequent(self, aggregate: Aggregate) -> tuple[ranges.Listed, Array, Bools]:
        """Return the rows found, the value of each, and which queries have not too many values."""
        told = dict(aggregate.parameters)
        few = self.different <= told["limit"]
        asked = np.flatnonzero(few & (self.different > 0))
        found = self.frequencies.most_frequent(self.within, asked, int(told.get("k", 1)))
        values = self.frequencies.distinct[found.rows]
        return found, values * 1000 if self.type.kind == "timestamp" else values, few


def _frequent(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    measure = column.column
    frequencies = Frequencies(measure.codes(), measure.valid)
    return [
        _Frequent(frequencies, within, column.occurrences.counts(within), measure.type)
        for within in column.ranges(windows)
    ]


def _top(frequent: _Frequent, aggregate: Aggregate) -> Result:
    found, values, few = frequent.most_frequent(aggregate)
    return Result(values, few, lengths=found.lengths)


def _mode(frequent: _Frequent, aggregate: Aggregate) -> Result:
    found, values, _ = frequent.most_frequent(aggregate)
    some = found.lengths > 0
    one = np.zeros(len(some), values.dtype)
    one[some] = values
    return Result(one, some)


def _ages(find: Find) -> Gather:
    def gather(column: _Sorted, windows: Sequence[Window]) -> Gathered:
        return _ages_of(column.chunk, find, windows, column.column.valid)

    return gather


def _row_ages(find: Find) -> Callable[[Chunk, Window], Result]:
    return lambda chunk, window: _ages_of(chunk, find, [window], None)[0]


def _ages_of(
    chunk: Chunk, find: Find, windows: Sequence[Window], valid: Bools | None
) -> list[Result]:
    """Return how long before each query the first or last valid event of its window was."""
    n = len(chunk.event_ms)
    there = np.ones(n, np.bool_) if valid is None else valid
    out = []
    for position in find(there, [chunk.windows[w] for w in windows]):
        some = (position >= 0) & (position < n)
        out.append(Result(chunk.query_ms - chunk.event_ms[np.where(some, position, 0)], some))
    return out


def _distinct(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    return [column.occurrences.counts(rows) for rows in column.ranges(windows)]


def _limited(counts: Int64s, aggregate: Aggregate) -> Result:
    return Result(np.minimum(counts, dict(aggregate.parameters)["limit"]), None)


def _spreads(column: _Sorted, windows: Sequence[Window]) -> Gathered:
    counts, held = column.counts(windows), column.ranges(windows)
    return [Spreads(column.spread, *one) for one in zip(held, counts, strict=True)]


def _percentile(spreads: Spreads, aggregate: Aggregate) -> Result:
    return spreads.percentile(dict(aggregate.parameters).get("p", MEDIAN_P))


def _approx_distinct(
    column: _Sorted, windows: Sequence[Window], algebra: RankRegisters
) -> Gathered:
    found = registers.estimated(column.column, algebra, column.ranges(windows))
    return [Result(counts, None) for counts in found]


def _as_gathered(result: Result, aggregate: Aggregate) -> Result:
    return result


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


def _row_count(chunk: Chunk, window: Window) -> Result:
    return Result(ranges.row_counts([chunk.windows[window]])[0], None)


_FORMS: Mapping[str, Form] = {
    "count": Form(_counts, _as_gathered),
    "sum": Form(_totals, _sum),
    "avg": Form(_totals, _mean),
    "min": Form(_extremes(np.minimum), _as_gathered, compares=True),
    "max": Form(_extremes(np.maximum), _as_gathered, compares=True),
    "stddev": Form(_variances, _root),
    "variance": Form(_variances, _as_gathered),
    "first": Form(_edges(ranges.firsts), _as_gathered, compares=True),
    "last": Form(_edges(ranges.lasts), _as_gathered, compares=True),
    "time_since_first": Form(_ages(ranges.firsts), _as_gathered),
    "time_since_last": Form(_ages(ranges.lasts), _as_gathered),
    "top_k": Form(_frequent, _top, compares=True),
    "mode": Form(_frequent, _mode, compares=True),
    "first_k": Form(_held, _oldest, compares=True),
    "last_k": Form(_held, _newest, compares=True),
    "distinct": Form(_distinct, _limited, identifies=True),
    "approx_distinct": Form(_approx_distinct, _as_gathered, identifies=True, by_algebra=True),
    "percentile": Form(_spreads, _percentile),
    "median": Form(_spreads, _percentile),
}
_ROW_FORMS: Mapping[str, Callable[[Chunk, Window], Result]] = {
    "count": _row_count,
    "time_since_first": _row_ages(ranges.firsts),
    "time_since_last": _row_ages(ranges.lasts),
}

check_forms("the kernel", AGGREGATES, _FORMS)
check_forms(
    "the kernel",
    [entry.name for entry in AGGREGATES.values() if not entry.needs_input],
    _ROW_FORMS,
)
