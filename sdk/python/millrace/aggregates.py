"""The aggregates: what each accepts, what it keeps of a tile, and how kept parts merge.

An aggregate is a small algebra over plain Python values: ``init``, ``update``, ``merge``,
``finalize``, and ``pack``/``unpack`` between its working state and the columns of a tile. It knows
no engine; the SQL each engine is told must agree with it, and the server merges tiles by it.
Merging is associative and commutative: exactly for integers, decimals, extremes and edges, to a
relative 1e-9 for sums of doubles and moments.

Values are int, Decimal, float, bool, str, bytes, ``datetime.date``, and epoch milliseconds for
timestamps. A null or non-finite value is not counted by anything.

Source: Chronon's aggregators (prepare, update, merge, finalize, normalize), and Chan, Golub and
LeVeque for merging moments.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

from millrace.errors import SpecError, nearest
from millrace.types import FLOAT64, INT64, KINDS, MAX_DECIMAL_PRECISION, DataType, decimal

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
# Wide enough for any number of 38-digit values; a result that had to be rounded would raise.
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])
_NUMERIC = frozenset({"int32", "int64", "float64", "decimal"})
_ANY = frozenset(KINDS)

State = tuple[Any, ...]
"""Working state of one aggregate over some events; immutable."""


class Place(NamedTuple):
    """Where an event stands in the order that ``first`` and ``last`` follow.

    A null event id comes before every other; after the id, the value itself decides.
    """

    event_ms: int
    ingest_ms: int
    event_id: Any = None


class Edge(NamedTuple):
    """What a tile keeps for ``first`` and ``last``: a value with its place."""

    event_ms: int
    ingest_ms: int
    event_id: Any
    value: Any

    @property
    def rank(self) -> tuple[object, ...]:
        """The total order of edges; ids of one source are of one type."""
        named = self.event_id is not None
        return (self.event_ms, self.ingest_ms, named, self.event_id if named else 0, self.value)


@dataclass(frozen=True)
class Partial:
    """One column that a tile keeps for an aggregate of a measure.

    Attributes:
        suffix: ``count``, ``sum``, ``min``, ``max``, ``mean``, ``m2``, ``first`` or ``last``;
            ``rows`` for a count of rows, which belongs to no measure.
        type: type of the value; for ``first`` and ``last`` of the value inside the ``Edge``.
    """

    suffix: str
    type: DataType

    @property
    def is_edge(self) -> bool:
        """True where the column holds an ``Edge`` and not a bare value."""
        return self.suffix in {"first", "last"}


@dataclass(frozen=True)
class Aggregate(ABC):
    """One aggregate of the language.

    Attributes:
        name: as written in declarations.
        kinds: kinds of the types it takes.
        needs_measure: False only for ``count``, which without a measure counts rows.
    """

    name: str
    kinds: frozenset[str]
    needs_measure: bool = True

    def accepts(self, type_: DataType) -> bool:
        """Say whether values of a type can be aggregated."""
        return type_.kind in self.kinds

    @abstractmethod
    def result_type(self, type_: DataType | None) -> DataType:
        """Return the type of the value; ``type_`` is the measure's, None for a count of rows."""

    @abstractmethod
    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        """Return the columns a tile keeps, in the order of ``pack``."""

    @abstractmethod
    def init(self, type_: DataType | None) -> State:
        """Return the state of no events."""

    @abstractmethod
    def update(self, state: State, value: Any, place: Place) -> State:
        """Return the state with one more event.

        Args:
            state: the state without it.
            value: the measure's value; for a count of rows anything that is not null.
            place: the event's place; only ``first`` and ``last`` look at it.
        """

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """Return the state of both sets of events, which share none."""

    @abstractmethod
    def finalize(self, state: State, type_: DataType | None) -> Any:
        """Return the feature's value; None where it has none."""

    def pack(self, state: State, type_: DataType | None) -> tuple[Any, ...]:
        """Return the values of the tile's columns, one per partial."""
        return state

    def unpack(self, values: tuple[Any, ...], type_: DataType | None) -> State:
        """Return the state that a tile's columns stand for."""
        return values


class _Count(Aggregate):
    def result_type(self, type_: DataType | None) -> DataType:
        return INT64

    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        return (Partial("rows" if type_ is None else "count", INT64),)

    def init(self, type_: DataType | None) -> State:
        return (0,)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if _is_null(value) else (state[0] + 1,)

    def merge(self, left: State, right: State) -> State:
        return (left[0] + right[0],)

    def finalize(self, state: State, type_: DataType | None) -> Any:
        return state[0]


class _Summed(Aggregate):
    """``sum`` and ``avg``: state is (count, total, error).

    The total is exact for integers and decimals, of any width, and None once a packed tile had no
    room for it. For doubles ``error`` holds what the total has lost to rounding.
    """

    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        return (Partial("count", INT64), Partial("sum", partial_sum_type(_required(type_))))

    def init(self, type_: DataType | None) -> State:
        kind = _required(type_).kind
        zero: int | float | Decimal = 0
        if kind == "float64":
            zero = 0.0
        elif kind == "decimal":
            zero = Decimal(0)
        return (0, zero, 0.0)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if _is_null(value) else self.merge(state, (1, value, 0.0))

    def merge(self, left: State, right: State) -> State:
        count, a, b = left[0] + right[0], left[1], right[1]
        if a is None or b is None:
            return (count, None, 0.0)
        if isinstance(a, Decimal):
            return (count, _EXACT.add(a, b), 0.0)
        if isinstance(a, int):
            return (count, a + b, 0.0)
        total = a + b
        shift = total - a
        lost = (a - (total - shift)) + (b - shift)
        return (count, total, left[2] + right[2] + lost)

    def pack(self, state: State, type_: DataType | None) -> tuple[Any, ...]:
        count, total, error = state
        if count == 0 or total is None:
            return (count, None)
        if isinstance(total, float):
            return (count, _finite(total + error))
        kept = partial_sum_type(_required(type_))
        exact = _within(Decimal(total), kept)
        return (count, exact)

    def unpack(self, values: tuple[Any, ...], type_: DataType | None) -> State:
        count, total = values
        if count == 0:
            return self.init(type_)
        if total is not None and _required(type_).is_integer:
            total = int(total)
        return (count, total, 0.0)


class _Sum(_Summed):
    def result_type(self, type_: DataType | None) -> DataType:
        measured = _required(type_)
        if measured.kind == "decimal":
            wider = min(MAX_DECIMAL_PRECISION, measured.precision + 10)
            return decimal(wider, measured.scale)
        return INT64 if measured.is_integer else FLOAT64

    def finalize(self, state: State, type_: DataType | None) -> Any:
        count, total, error = state
        if count == 0 or total is None:
            return None
        if isinstance(total, float):
            return _finite(total + error)
        if isinstance(total, Decimal):
            return _within(total, self.result_type(type_))
        return total if _INT64_MIN <= total <= _INT64_MAX else None


class _Avg(_Summed):
    def result_type(self, type_: DataType | None) -> DataType:
        return FLOAT64

    def finalize(self, state: State, type_: DataType | None) -> Any:
        count, total, error = state
        if count == 0 or total is None:
            return None
        if isinstance(total, float):
            return _finite((total + error) / count)
        return float(Fraction(total) / count)


class _Extreme(Aggregate):
    def result_type(self, type_: DataType | None) -> DataType:
        return _required(type_)

    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        return (Partial(self.name, _required(type_)),)

    def init(self, type_: DataType | None) -> State:
        return (None,)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if _is_null(value) else self.merge(state, (value,))

    def merge(self, left: State, right: State) -> State:
        a, b = left[0], right[0]
        if a is None or b is None:
            return right if a is None else left
        return (min(a, b) if self.name == "min" else max(a, b),)

    def finalize(self, state: State, type_: DataType | None) -> Any:
        return state[0]


class _Spread(Aggregate):
    """``variance`` and ``stddev``: state is (count, mean, m2), m2 the squared deviations' sum."""

    def result_type(self, type_: DataType | None) -> DataType:
        return FLOAT64

    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        return (Partial("count", INT64), Partial("mean", FLOAT64), Partial("m2", FLOAT64))

    def init(self, type_: DataType | None) -> State:
        return (0, None, None)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if _is_null(value) else self.merge(state, (1, float(value), 0.0))

    def merge(self, left: State, right: State) -> State:
        if left[0] == 0 or right[0] == 0:
            return right if left[0] == 0 else left
        count = left[0] + right[0]
        if left[1] is None or right[1] is None:
            return (count, None, None)
        delta = right[1] - left[1]
        mean = left[1] + delta * (right[0] / count)
        m2 = left[2] + right[2] + delta * delta * (left[0] * right[0] / count)
        if not (math.isfinite(mean) and math.isfinite(m2)):
            return (count, None, None)
        return (count, mean, m2)

    def finalize(self, state: State, type_: DataType | None) -> Any:
        count, _, m2 = state
        if count < 2 or m2 is None:  # noqa: PLR2004 - the sample variance needs two values
            return None
        variance = m2 / (count - 1)
        return math.sqrt(variance) if self.name == "stddev" else variance

    def unpack(self, values: tuple[Any, ...], type_: DataType | None) -> State:
        count, mean, m2 = values
        return (count, None, None) if mean is None or m2 is None else values


class _Edge(Aggregate):
    """``first`` and ``last``: state is (edge,), None of no events."""

    def result_type(self, type_: DataType | None) -> DataType:
        return _required(type_)

    def partials(self, type_: DataType | None) -> tuple[Partial, ...]:
        return (Partial(self.name, _required(type_)),)

    def init(self, type_: DataType | None) -> State:
        return (None,)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if _is_null(value) else self.merge(state, (Edge(*place, value),))

    def merge(self, left: State, right: State) -> State:
        a, b = left[0], right[0]
        if a is None or b is None:
            return right if a is None else left
        earlier, later = (a, b) if a.rank <= b.rank else (b, a)
        return (earlier if self.name == "first" else later,)

    def finalize(self, state: State, type_: DataType | None) -> Any:
        return None if state[0] is None else state[0].value


def partial_sum_type(type_: DataType) -> DataType:
    """Return the type in which a tile keeps a sum of values of a type.

    Integers and decimals are kept with 38 digits. For integers that is room for 2**62 of the
    largest; for decimals of up to 28 digits, for 10**10. A tile's sum beyond its room is null,
    which with a count above 0 makes every sum over that tile null.
    """
    if type_.kind == "float64":
        return FLOAT64
    return decimal(MAX_DECIMAL_PRECISION, type_.scale)


def _required(type_: DataType | None) -> DataType:
    if type_ is None:
        raise SpecError(
            "the aggregate needs a column or an expression",
            fix="name one with column: or expr:; only count works without",
        )
    return type_


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _within(value: Decimal, type_: DataType) -> Decimal | None:
    """Return the value with the type's scale, or None if it has more digits than the type."""
    scaled = value.quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)
    return scaled if len(scaled.as_tuple().digits) <= type_.precision else None


AGGREGATES: Mapping[str, Aggregate] = MappingProxyType(
    {
        aggregate.name: aggregate
        for aggregate in (
            _Count("count", _ANY, needs_measure=False),
            _Sum("sum", _NUMERIC),
            _Avg("avg", _NUMERIC),
            _Extreme("min", _ANY),
            _Extreme("max", _ANY),
            _Spread("stddev", _NUMERIC),
            _Spread("variance", _NUMERIC),
            _Edge("first", _ANY),
            _Edge("last", _ANY),
        )
    }
)
"""Every aggregate by its name, in the order in which messages list them."""

NOT_YET: Mapping[str, str] = MappingProxyType(
    {
        "first_k": "use first for the oldest value alone",
        "last_k": "use last for the newest value alone",
        "distinct": "use count over a filter, or min and max for the range",
        "approx_distinct": "use count for the number of events",
        "percentile": "use avg with stddev, or min and max for the range",
        "median": "use avg with stddev; avg follows outliers, which a median does not",
        "mode": "use last, or one sum of CASE WHEN … THEN 1 ELSE 0 END per value",
        "time_since_first": "use first of the event time's column",
        "time_since_last": "use last of the event time's column",
        "top_k": "use last, or one sum of CASE WHEN … THEN 1 ELSE 0 END per value",
    }
)
"""Aggregates of the language that this version refuses, with what comes closest."""


_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "average": "avg", "mean": "avg", "total": "sum", "minimum": "min", "maximum": "max",
        "std": "stddev", "stdev": "stddev", "stddev_samp": "stddev", "var": "variance",
        "var_samp": "variance", "size": "count", "n": "count", "earliest": "first", "oldest": "first",
        "latest": "last", "newest": "last", "most_recent": "last", "nunique": "distinct",
        "count_distinct": "distinct", "unique_count": "distinct", "hll": "approx_distinct",
        "approx_count_distinct": "approx_distinct", "quantile": "percentile", "last_n": "last_k",
        "first_n": "first_k", "last_distinct_n": "last_k",
    }
)  # fmt: skip
"""Names of aggregates elsewhere."""


def aggregate_named(name: str) -> Aggregate:
    """Return an aggregate by name.

    Raises:
        SpecError: there is none of that name, or not yet; the fix names what comes closest.
    """
    found = AGGREGATES.get(name)
    if found is not None:
        return found
    if name in NOT_YET:
        raise SpecError(f"the aggregate {name!r} is not supported yet", fix=NOT_YET[name])
    fix = nearest_aggregate(name) or nearest(name, list(AGGREGATES))
    raise SpecError(f"there is no aggregate {name!r}", fix=fix)


def nearest_aggregate(name: str) -> str:
    """Say what comes closest in meaning to an aggregate of another name, for the ``fix`` of an error.

    Returns:
        empty where the name is nobody's word for an aggregate.

    >>> nearest_aggregate("mean"), nearest_aggregate("p95")
    ("did you mean 'avg'?", '')
    """
    if name in NOT_YET:
        return f"{name} is not supported yet: {NOT_YET[name]}"
    meant = _ELSEWHERE.get(name.lower())
    if meant is not None and meant in NOT_YET:
        return f"that would be {meant}, which is not supported yet: {NOT_YET[meant]}"
    return "" if meant is None else f"did you mean {meant!r}?"
