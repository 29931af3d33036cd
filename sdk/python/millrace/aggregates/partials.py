"""What a tile keeps: one class for each kind of column.

Every engine that writes, merges or shows tiles owns a table from these classes to its form of them,
see ``millrace.aggregates.forms``. A class says what is kept and nothing of how.
"""

from dataclasses import dataclass
from typing import ClassVar

from millrace.types import DataType


@dataclass(frozen=True)
class Partial:
    """One column of a tile.

    Attributes:
        suffix: ends the column's name; before it stands the measure, if it is of one.
        type: type of the value; of the value inside an ``Edge``.
        holds_edge: the column holds an ``Edge`` and not a bare value.
        tells_values: the column shows values of events, which a mere count does not.
    """

    type: DataType
    suffix: ClassVar[str]
    holds_edge: ClassVar[bool] = False
    tells_values: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """What the column is called, behind its measure."""
        return self.suffix


class Rows(Partial):
    """How many events there are; of no measure. Every tile has it."""

    suffix = "rows"
    tells_values = False


class Count(Partial):
    """How many values are not null."""

    suffix = "count"
    tells_values = False


class Sum(Partial):
    """Their sum: null of none, and where it does not fit the type."""

    suffix = "sum"


class VectorSums(Partial):
    """Their sum, element by element; null of none."""

    suffix = "sums"


class Min(Partial):
    """The smallest of them."""

    suffix = "min"


class Max(Partial):
    """The largest of them."""

    suffix = "max"


class Mean(Partial):
    """Their mean as a double."""

    suffix = "mean"


class M2(Partial):
    """The sum of the squares of their distances from the mean."""

    suffix = "m2"


class First(Partial):
    """The oldest of them, with its place."""

    suffix = "first"
    holds_edge = True


class Last(Partial):
    """The newest of them, with its place."""

    suffix = "last"
    holds_edge = True


class FirstTime(Partial):
    """Event time of the oldest value that is not null; of no measure, of the oldest event."""

    suffix = "first_ms"


class LastTime(Partial):
    """Event time of the newest value that is not null; of no measure, of the newest event."""

    suffix = "last_ms"


@dataclass(frozen=True)
class Encoded(Partial):
    """Bytes in which an ``Encoding`` says all it keeps: the same of the same events everywhere.

    Attributes:
        parameters: name and value of what shapes the bytes; they end the column's name.
        is_ordered: the places of events shape them too.
        size: how many bytes there are, for people.
    """

    parameters: tuple[tuple[str, float], ...] = ()
    is_ordered: ClassVar[bool] = False
    size: ClassVar[str]

    @property
    def name(self) -> str:
        return "_".join([self.suffix, *(f"{value:g}" for _, value in self.parameters)])


class DistinctValues(Encoded):
    """Their different values, ascending by their bytes; of more than a limit the first."""

    suffix = "distinct"
    size = "the different values, at most `limit`"


class ValueCounts(Encoded):
    """How often each of them occurs; nothing more where there are more than a limit."""

    suffix = "value_counts"
    size = "8 bytes and the value for each different value, at most `limit`"


class FirstValues(Encoded):
    """The oldest of them with their places, oldest first."""

    suffix = "first_k"
    is_ordered = True
    size = "for each of the oldest `k` the value, 17 bytes of its place, and the event's id"


class LastValues(Encoded):
    """The newest of them with their places, newest first."""

    suffix = "last_k"
    is_ordered = True
    size = "for each of the newest `k` the value, 17 bytes of its place, and the event's id"


class Registers(Encoded):
    """The highest rank of their hashes in each of some registers; see ``RankRegisters``."""

    suffix = "registers"
    size = "3 for each different value, at most 2 to the `precision`"


class BucketCounts(Encoded):
    """How many of them lie in each log-linear bucket; see ``Buckets``."""

    suffix = "buckets"
    size = "2 to 4 for each bucket that has values"


class LastEvent(Partial):
    """Event time of the newest event; of no measure. Every tile has it."""

    suffix = "last_event_ms"


PARTIALS: tuple[type[Partial], ...] = (
    Rows,
    Count,
    Sum,
    VectorSums,
    Min,
    Max,
    Mean,
    M2,
    First,
    Last,
    FirstTime,
    LastTime,
    DistinctValues,
    ValueCounts,
    FirstValues,
    LastValues,
    Registers,
    BucketCounts,
    LastEvent,
)
"""Every kind of column, in the order in which a tile has those of one measure."""
