"""What the states of aggregates become: the values that are given for them."""

import math
from array import array
from decimal import Decimal
from fractions import Fraction
from typing import Any, Protocol

from millrace.aggregates.algebras import Algebra, State, VectorTotals, finite, within
from millrace.aggregates.buckets import MEDIAN_P, percentile_of
from millrace.aggregates.registers import estimate
from millrace.aggregates.value_counts import Frequencies
from millrace.types import DataType

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


class Bound(Protocol):
    """What a value depends on beside the state: an aggregate of some input."""

    @property
    def type(self) -> DataType:
        """Type of the value."""

    @property
    def algebra(self) -> Algebra:
        """What the state is of."""

    @property
    def parameters(self) -> tuple[tuple[str, float], ...]:
        """Name and value of each."""


def total(aggregate: Bound, state: State) -> Any:
    """Return the sum of (count, total, error); None where it does not fit the type."""
    count, total, error = state
    if count == 0 or total is None:
        return None
    if isinstance(total, float):
        return finite(total + error)
    if isinstance(total, Decimal):
        return within(total, aggregate.type)
    return total if _INT64_MIN <= total <= _INT64_MAX else None


def mean(aggregate: Bound, state: State) -> Any:
    """Return the mean of (count, total, error); of vectors the nearest floats to those of (count, sums)."""
    if isinstance(aggregate.algebra, VectorTotals):
        count, sums = state
        return None if sums is None else array("f", [one / count for one in sums]).tolist()
    count, total, error = state
    if count == 0 or total is None:
        return None
    if isinstance(total, float):
        return finite((total + error) / count)
    return float(Fraction(total) / count)


def kept(aggregate: Bound, state: State) -> Any:
    """Return what the state is."""
    return state[0]


def number_of_values(aggregate: Bound, state: State) -> Any:
    """Return how many values a set has."""
    return len(state[0])


def values_of_edges(aggregate: Bound, state: State) -> Any:
    """Return the values of a list of edges, in its order."""
    return [edge.value for edge in state[0]]


def percentile(aggregate: Bound, state: State) -> Any:
    """Return the percentile of counts in buckets; of an aggregate without ``p`` the median."""
    return percentile_of(state[0], dict(aggregate.parameters).get("p", MEDIAN_P))


def estimated_number(aggregate: Bound, state: State) -> Any:
    """Return the estimate of registers."""
    return estimate(int(dict(aggregate.parameters)["precision"]), state[0])


def most_frequent(aggregate: Bound, state: State) -> Any:
    """Return the most frequent values, None of too many different ones."""
    algebra = aggregate.algebra
    assert isinstance(algebra, Frequencies)  # noqa: S101 - its entries say so
    return algebra.most_frequent(state, int(dict(aggregate.parameters).get("k", 1)))


def most_frequent_one(aggregate: Bound, state: State) -> Any:
    """Return the most frequent value, None of none and of too many different ones."""
    return next(iter(most_frequent(aggregate, state) or ()), None)


def is_over_limit(state: State) -> bool:
    """Tell whether there were too many different values."""
    return state[0] is None


def value_of_edge(aggregate: Bound, state: State) -> Any:
    """Return the value of an edge."""
    return None if state[0] is None else state[0].value


def variance(aggregate: Bound, state: State) -> Any:
    """Return the sample variance of (count, mean, m2); None below two values."""
    count, _, m2 = state
    if count < 2 or m2 is None:  # noqa: PLR2004 - the sample variance needs two values
        return None
    return m2 / (count - 1)


def deviation(aggregate: Bound, state: State) -> Any:
    """Return its square root."""
    squared = variance(aggregate, state)
    return None if squared is None else math.sqrt(squared)
