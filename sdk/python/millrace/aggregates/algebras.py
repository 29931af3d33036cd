"""How what tiles keep is made, merged and read back: small algebras over plain Python values.

An algebra knows the partials that it keeps of one measure, and its working state. It knows no
engine; the SQL each engine is told must agree with it, and the server merges tiles by it. Merging
is associative and commutative: exactly for integers, decimals, extremes and edges, to a relative
1e-9 for sums of doubles and moments.

Values are int, Decimal, float, bool, str, bytes, ``datetime.date``, and epoch milliseconds for
timestamps. A null or non-finite value is not counted by anything.

Source: Chronon's aggregators (prepare, update, merge, finalize, normalize), and Chan, Golub and
LeVeque for merging moments.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

from millrace.aggregates.partials import (
    M2,
    Count,
    First,
    FirstTime,
    LastEvent,
    Mean,
    Min,
    Partial,
    Rows,
    Sum,
    VectorSums,
)
from millrace.aggregates.places import Edge, Place
from millrace.types import FLOAT64, INT64, MAX_DECIMAL_PRECISION, DataType, decimal, list_of

State = tuple[Any, ...]
"""Working state over some events; immutable."""

# Wide enough for any number of 38-digit values; a result that had to be rounded would raise.
_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation])


@dataclass(frozen=True)
class Algebra(ABC):
    """What is kept of one measure.

    Attributes:
        type: of the measure.
    """

    type: DataType

    @property
    @abstractmethod
    def partials(self) -> tuple[Partial, ...]:
        """The columns a tile keeps, in the order of ``pack``."""

    @abstractmethod
    def init(self) -> State:
        """Return the state of no events."""

    @abstractmethod
    def update(self, state: State, value: Any, place: Place) -> State:
        """Return the state with one more event.

        Args:
            state: the state without it.
            value: the measure's value; for a count of rows anything that is not null.
            place: the event's place; only edges look at it.
        """

    @abstractmethod
    def merge(self, left: State, right: State) -> State:
        """Return the state of both sets of events, which share none."""

    def pack(self, state: State) -> tuple[Any, ...]:
        """Return the values of the tile's columns, one per partial."""
        return state

    def unpack(self, values: tuple[Any, ...]) -> State:
        """Return the state that a tile's columns stand for."""
        return values


class Counting(Algebra):
    """State is (count,)."""

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (Count(INT64),)

    def init(self) -> State:
        return (0,)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else (state[0] + 1,)

    def merge(self, left: State, right: State) -> State:
        return (left[0] + right[0],)


class CountingRows(Counting):
    """The same of all events."""

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (Rows(INT64),)


class Totals(Algebra):
    """State is (count, total, error).

    The total is exact for integers and decimals, of any width, and None once a packed tile had no
    room for it. For doubles ``error`` holds what the total has lost to rounding.
    """

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (Count(INT64), Sum(partial_sum_type(self.type)))

    def init(self) -> State:
        zero: int | float | Decimal = 0
        if self.type.kind == "float64":
            zero = 0.0
        elif self.type.kind == "decimal":
            zero = Decimal(0)
        return (0, zero, 0.0)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (1, value, 0.0))

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

    def pack(self, state: State) -> tuple[Any, ...]:
        count, total, error = state
        if count == 0 or total is None:
            return (count, None)
        if isinstance(total, float):
            return (count, finite(total + error))
        return (count, within(Decimal(total), partial_sum_type(self.type)))

    def unpack(self, values: tuple[Any, ...]) -> State:
        count, total = values
        if count == 0:
            return self.init()
        if total is not None and self.type.is_integer:
            total = int(total)
        return (count, total, 0.0)


class VectorTotals(Algebra):
    """State is (count, sums): of each element, as doubles; None of no vectors."""

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (Count(INT64), VectorSums(list_of(FLOAT64)))

    def init(self) -> State:
        return (0, None)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (1, value))

    def merge(self, left: State, right: State) -> State:
        count, a, b = left[0] + right[0], left[1], right[1]
        if a is None or b is None:
            return right if a is None else left
        return (count, [one + other for one, other in zip(a, b, strict=True)])


@dataclass(frozen=True)
class OneValue(Algebra, ABC):
    """State is (what is kept,), None of no events.

    Attributes:
        keeps: the partial: which of two values is kept follows from it.
    """

    keeps: type[Partial]

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (self.keeps(self.type),)

    def init(self) -> State:
        return (None,)

    def merge(self, left: State, right: State) -> State:
        a, b = left[0], right[0]
        if a is None or b is None:
            return right if a is None else left
        return (self.of_two(a, b),)

    @abstractmethod
    def of_two(self, one: Any, other: Any) -> Any:
        """Return the one that is kept."""


class Extreme(OneValue):
    """The smallest or the largest value."""

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (value,))

    def of_two(self, one: Any, other: Any) -> Any:
        return min(one, other) if self.keeps is Min else max(one, other)


class ExtremeTime(OneValue):
    """The event time of the oldest or the newest value, or of events as such."""

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (place.event_ms,))

    def of_two(self, one: Any, other: Any) -> Any:
        return min(one, other) if self.keeps is FirstTime else max(one, other)


class AtEdge(OneValue):
    """The oldest or the newest value, as an ``Edge``."""

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (Edge(*place, value),))

    def of_two(self, one: Any, other: Any) -> Any:
        earlier, later = (one, other) if one.rank <= other.rank else (other, one)
        return earlier if self.keeps is First else later


class Moments(Algebra):
    """State is (count, mean, m2), m2 the squared deviations' sum."""

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (Count(INT64), Mean(FLOAT64), M2(FLOAT64))

    def init(self) -> State:
        return (0, None, None)

    def update(self, state: State, value: Any, place: Place) -> State:
        return state if is_null(value) else self.merge(state, (1, float(value), 0.0))

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

    def unpack(self, values: tuple[Any, ...]) -> State:
        count, mean, m2 = values
        return (count, None, None) if mean is None or m2 is None else values


class Newest(Algebra):
    """The newest event's time: state is (milliseconds,), None of no events. Of every tile."""

    @property
    def partials(self) -> tuple[Partial, ...]:
        return (LastEvent(INT64),)

    def init(self) -> State:
        return (None,)

    def update(self, state: State, value: Any, place: Place) -> State:
        return self.merge(state, (place.event_ms,))

    def merge(self, left: State, right: State) -> State:
        known = [state[0] for state in (left, right) if state[0] is not None]
        return (max(known, default=None),)


def totals_of(type_: DataType) -> Algebra:
    """Return the algebra of counts and sums of values of a type."""
    return VectorTotals(type_) if type_.kind == "vector" else Totals(type_)


def partial_sum_type(type_: DataType) -> DataType:
    """Return the type in which a tile keeps a sum of values of a type.

    Integers and decimals are kept with 38 digits. For integers that is room for 2**62 of the
    largest; for decimals of up to 28 digits, for 10**10. A tile's sum beyond its room is null,
    which with a count above 0 makes every sum over that tile null.
    """
    if type_.kind == "float64":
        return FLOAT64
    return decimal(MAX_DECIMAL_PRECISION, type_.scale)


def is_null(value: Any) -> bool:
    """Tell what is not counted by anything: null, and doubles that are not finite."""
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def finite(value: float) -> float | None:
    """Return a double, or None where it is none of the real numbers."""
    return value if math.isfinite(value) else None


def within(value: Decimal, type_: DataType) -> Decimal | None:
    """Return the value with the type's scale, or None if it has more digits than the type."""
    scaled = value.quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)
    return scaled if len(scaled.as_tuple().digits) <= type_.precision else None
