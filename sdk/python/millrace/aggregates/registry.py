"""The aggregates of the language, each said once, as data.

An entry says what an aggregate takes, gives and keeps, and how far engines agree on it. Bound to the
type of its input and its parameters it becomes an ``Aggregate``: what a plan carries, and what every
engine reads.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from millrace.aggregates import finalizing
from millrace.aggregates.algebras import (
    Algebra,
    AtEdge,
    Counting,
    CountingRows,
    Extreme,
    ExtremeTime,
    Moments,
    State,
    Totals,
    totals_of,
)
from millrace.aggregates.buckets import Buckets
from millrace.aggregates.distinct import Values
from millrace.aggregates.edge_values import Newest, Oldest
from millrace.aggregates.elsewhere import nearest_aggregate
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.partials import First, FirstTime, Last, LastTime, Max, Min, Partial
from millrace.aggregates.registers import RankRegisters
from millrace.aggregates.value_counts import Frequencies
from millrace.errors import SpecError, nearest
from millrace.types import (
    COLUMN_KINDS,
    FLOAT64,
    INT64,
    KINDS,
    MAX_DECIMAL_PRECISION,
    STRING,
    DataType,
    decimal,
    list_of,
)

Agreement = Literal["exact", "rounded", "narrow"]
"""How far engines agree on values: to the bit; where doubles are added, to a relative 1e-9; where those
are rounded to 32 bits then, to a neighbour among the floats."""

TOLERANCES: Mapping[Agreement, float] = MappingProxyType(
    {"exact": 0.0, "rounded": 1e-9, "narrow": 2.0**-23}
)
"""The relative difference that each allows."""

_NUMERIC = frozenset({"int32", "int64", "float64", "decimal"})
_ANY = frozenset(KINDS)
_ANY_OR_VECTORS = frozenset(COLUMN_KINDS)


@dataclass(frozen=True)
class Parameter:
    """Something an aggregate is told beside its input.

    Attributes:
        least: the smallest value it may have; ``most`` the largest.
        default: None: it must be given.
        is_whole: it is an integer.
    """

    name: str
    description: str
    least: float
    most: float
    default: float | None = None
    is_whole: bool = True

    def fault(self, value: float) -> str | None:
        """Say what is wrong with a value; None if nothing is."""
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value)) or (self.is_whole and value != int(value)):
            return f"{self.name} is {value!r}, not a {'whole ' if self.is_whole else ''}number"
        if not self.least <= value <= self.most:
            return f"{self.name} is {value}, outside {self.least:g} to {self.most:g}"
        return None


@dataclass(frozen=True, eq=False)
class Entry:
    """One aggregate of the language.

    Attributes:
        name: as written in declarations.
        summary: what it gives, for people; completes "returns".
        kinds: kinds of the types it takes.
        algebra: what tiles keep for it, by the type of its input and, by name, its parameters.
        result: the type of its value, by the type of its input.
        finalize: the value of a state; None where there is none.
        parameters: what it is told.
        of_rows: what tiles keep where it has no input and takes events as such; None: it needs an
            input.
        is_added: doubles are added up for it, in an order that engines do not share.
        is_ordered: the order of events, and ties in it, matter.
        is_never_negative: no value is below zero, whatever the input.
        is_never_null: it has a value over no events.
        shows_values: its value tells those of events, which a mere count does not.
        is_over: tells of a state that there is too much in the window to say a value of; None: there
            never is.
        is_age: what ``finalize`` gives is an instant, and the value the time from it to the query,
            in milliseconds: it grows with time alone.
    """

    name: str
    summary: str
    kinds: frozenset[str]
    algebra: Callable[..., Algebra]
    result: Callable[[DataType], DataType]
    finalize: Callable[["Aggregate", State], Any]
    parameters: tuple[Parameter, ...] = ()
    of_rows: Callable[[], Algebra] | None = None
    is_added: bool = False
    is_ordered: bool = False
    is_never_negative: bool = False
    is_never_null: bool = False
    shows_values: bool = True
    is_over: Callable[[State], bool] | None = None
    is_age: bool = False

    @property
    def needs_input(self) -> bool:
        """True where it is an aggregate of something, not of events as such."""
        return self.of_rows is None

    @property
    def example(self) -> "Aggregate":
        """It, of some type that it takes, with its defaults or else the smallest parameters."""
        type_ = INT64 if self.accepts(INT64) else STRING
        return self.bind(
            type_, {p.name: p.least if p.default is None else p.default for p in self.parameters}
        )

    def accepts(self, type_: DataType) -> bool:
        """Tell whether values of a type can be aggregated."""
        return type_.kind in self.kinds

    def bind(
        self, input_type: DataType | None, parameters: Mapping[str, float] | None = None
    ) -> "Aggregate":
        """Return the aggregate of values of a type, or of events if ``input_type`` is None.

        Raises:
            SpecError: it needs an input, does not take that type, or a parameter is missing,
                unknown or out of its bounds.
        """
        if input_type is None and self.needs_input:
            raise SpecError(
                f"{self.name} needs a column or an expression",
                fix=f"name one with column: or expr:; without one work {WITHOUT_INPUT}",
            )
        if input_type is not None and not self.accepts(input_type):
            raise SpecError(f"{self.name} of a {input_type} has no meaning")
        given = dict(parameters or {})
        bound = []
        for one in self.parameters:
            value = given.pop(one.name, one.default)
            fault = "is missing" if value is None else one.fault(value)
            if value is None or fault:
                raise SpecError(f"{self.name}: {fault or one.name}", fix=one.description)
            bound.append((one.name, int(value) if value == int(value) else value))
        if given:
            raise SpecError(f"{self.name} takes no {', '.join(given)}")
        return Aggregate(self, input_type, tuple(bound))


@dataclass(frozen=True)
class Aggregate:
    """An aggregate bound to its input and its parameters. Hashable; pickles by name.

    Attributes:
        input: type of the measure; None of events as such.
        parameters: name and value of each, in the order of the entry.
    """

    entry: Entry
    input: DataType | None
    parameters: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        """Return its name, with its parameters if it has any: ``percentile(p=95)``."""
        return f"{self.name}({', '.join(self._given)})" if self.parameters else self.name

    def of(self, argument: str) -> str:
        """Return it as a call, for people: ``percentile(amount, p=95)``."""
        return f"{self.name}({', '.join([argument, *self._given])})"

    @property
    def _given(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.parameters]

    def __reduce__(self) -> tuple[Any, ...]:
        return _bound, (self.name, self.input, self.parameters)

    @property
    def name(self) -> str:
        """The name in the language."""
        return self.entry.name

    @cached_property
    def type(self) -> DataType:
        """Type of the value."""
        return self.entry.result(INT64 if self.input is None else self.input)

    @cached_property
    def algebra(self) -> Algebra:
        """What tiles keep, and how it merges."""
        if self.input is None:
            assert self.entry.of_rows is not None  # noqa: S101 - ``bind`` saw to it
            return self.entry.of_rows()
        return self.entry.algebra(self.input, **dict(self.parameters))

    @property
    def partials(self) -> tuple[Partial, ...]:
        """The columns of a tile that the value is made of."""
        return self.algebra.partials

    @property
    def agreement(self) -> Agreement:
        """How far engines agree on the value."""
        if not self.entry.is_added:
            return "exact"
        agreements: dict[str, Agreement] = {"float64": "rounded", "vector": "narrow"}
        return agreements.get(self.type.kind, "exact")

    @property
    def empty(self) -> Any:
        """The value over no events."""
        return self.finalize(self.algebra.init())

    def finalize(self, state: State) -> Any:
        """Return the value of a state; None where there is none. Of an age, the instant it is of."""
        return self.entry.finalize(self, state)

    def value_at(self, query_ms: int, finalized: Any) -> Any:
        """Return the value at an instant, of what ``finalize`` gave."""
        return query_ms - finalized if self.entry.is_age and finalized is not None else finalized


def _bound(name: str, input_type: DataType | None, parameters: Any) -> Aggregate:
    return Aggregate(AGGREGATES[name], input_type, parameters)


def _sum_type(type_: DataType) -> DataType:
    if type_.kind == "decimal":
        return decimal(min(MAX_DECIMAL_PRECISION, type_.precision + 10), type_.scale)
    return INT64 if type_.is_integer else FLOAT64


def _double(type_: DataType) -> DataType:
    return FLOAT64


def _mean_type(type_: DataType) -> DataType:
    return type_ if type_.kind == "vector" else FLOAT64


def _int64(type_: DataType) -> DataType:
    return INT64


def _same(type_: DataType) -> DataType:
    return type_


_DIFFERENT = Parameter("limit", "of more different values there is no value", 1, 10_000, 1_000)
_K = Parameter("k", "how many values", 1, 100)

_ENTRIES = (
    Entry(
        "count",
        "how many rows there are, or values that are not null",
        _ANY_OR_VECTORS,
        Counting,
        _int64,
        finalizing.kept,
        of_rows=lambda: CountingRows(INT64),
        is_never_negative=True,
        is_never_null=True,
        shows_values=False,
    ),
    Entry(
        "sum", "the values added up", _NUMERIC, Totals, _sum_type, finalizing.total, is_added=True
    ),
    Entry(
        "avg",
        "their mean",
        _NUMERIC | {"vector"},
        totals_of,
        _mean_type,
        finalizing.mean,
        is_added=True,
    ),
    Entry(
        "min", "the smallest value", _ANY, lambda type_: Extreme(type_, Min), _same, finalizing.kept
    ),
    Entry(
        "max", "the largest value", _ANY, lambda type_: Extreme(type_, Max), _same, finalizing.kept
    ),
    Entry(
        "stddev",
        "the sample standard deviation; null below two values",
        _NUMERIC,
        Moments,
        _double,
        finalizing.deviation,
        is_added=True,
        is_never_negative=True,
    ),
    Entry(
        "variance",
        "the sample variance; null below two values",
        _NUMERIC,
        Moments,
        _double,
        finalizing.variance,
        is_added=True,
        is_never_negative=True,
    ),
    Entry(
        "first",
        "the oldest value that is not null",
        _ANY_OR_VECTORS,
        lambda type_: AtEdge(type_, First),
        _same,
        finalizing.value_of_edge,
        is_ordered=True,
    ),
    Entry(
        "last",
        "the newest value that is not null",
        _ANY_OR_VECTORS,
        lambda type_: AtEdge(type_, Last),
        _same,
        finalizing.value_of_edge,
        is_ordered=True,
    ),
    Entry(
        "time_since_first",
        "milliseconds from the oldest event, or value that is not null, to the query",
        _ANY,
        lambda type_: ExtremeTime(INT64, FirstTime),
        _int64,
        finalizing.kept,
        of_rows=lambda: ExtremeTime(INT64, FirstTime),
        is_never_negative=True,
        shows_values=False,
        is_age=True,
    ),
    Entry(
        "time_since_last",
        "milliseconds from the newest event, or value that is not null, to the query",
        _ANY,
        lambda type_: ExtremeTime(INT64, LastTime),
        _int64,
        finalizing.kept,
        of_rows=lambda: ExtremeTime(INT64, LastTime),
        is_never_negative=True,
        shows_values=False,
        is_age=True,
    ),
    Entry(
        "distinct",
        "how many different values there are; at `limit` it stops counting",
        _ANY - {"float64"},
        Values,
        _int64,
        finalizing.number_of_values,
        parameters=(Parameter("limit", "where counting stops", 1, 10_000, 1_000),),
        is_never_negative=True,
        is_never_null=True,
        shows_values=False,
    ),
    Entry(
        "first_k",
        "the oldest `k` values that are not null, oldest first",
        _ANY,
        Oldest,
        list_of,
        finalizing.values_of_edges,
        parameters=(_K,),
        is_ordered=True,
        is_never_null=True,
    ),
    Entry(
        "last_k",
        "the newest `k` values that are not null, newest first",
        _ANY,
        Newest,
        list_of,
        finalizing.values_of_edges,
        parameters=(_K,),
        is_ordered=True,
        is_never_null=True,
    ),
    Entry(
        "approx_distinct",
        "how many different values there are, with a standard error of 1.04/sqrt(2^`precision`)",
        _ANY,
        RankRegisters,
        _int64,
        finalizing.estimated_number,
        parameters=(Parameter("precision", "how many registers, as a power of two", 8, 14, 12),),
        is_never_negative=True,
        is_never_null=True,
        shows_values=False,
    ),
    Entry(
        "percentile",
        "the value of nearest rank, the one at place ceil(`p`/100 * n), to a relative 0.4 %",
        _NUMERIC,
        lambda type_, p: Buckets(type_),
        _double,
        finalizing.percentile,
        parameters=(Parameter("p", "which percentile", 0, 100, is_whole=False),),
    ),
    Entry(
        "median",
        "the percentile of 50",
        _NUMERIC,
        Buckets,
        _double,
        finalizing.percentile,
    ),
    Entry(
        "top_k",
        "the `k` most frequent values, most frequent first, of equally frequent ones the smaller; null of "
        "more than `limit` different ones",
        _ANY - {"float64"},
        lambda type_, k, limit: Frequencies(type_, limit),
        list_of,
        finalizing.most_frequent,
        parameters=(Parameter("k", "how many values", 1, 20), _DIFFERENT),
        is_over=finalizing.is_over_limit,
    ),
    Entry(
        "mode",
        "the most frequent value, of equally frequent ones the smallest; null of more than `limit` "
        "different ones",
        _ANY - {"float64"},
        Frequencies,
        _same,
        finalizing.most_frequent_one,
        parameters=(_DIFFERENT,),
        is_over=finalizing.is_over_limit,
    ),
)

AGGREGATES: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})
"""Every aggregate by its name, in the order in which messages list them."""

ENCODINGS: Mapping[str, type[Encoding]] = MappingProxyType(
    {
        algebra.keeps.suffix: type(algebra)
        for entry in _ENTRIES
        for algebra in [entry.example.algebra]
        if isinstance(algebra, Encoding)
    }
)
"""What encodes the columns of bytes, by their partial's suffix."""

WITHOUT_INPUT = ", ".join(entry.name for entry in _ENTRIES if not entry.needs_input)
"""Names of those that take events as such, for messages."""


def aggregate_named(name: str) -> Entry:
    """Return an aggregate by name.

    Raises:
        SpecError: there is none of that name; the fix names what comes closest.
    """
    found = AGGREGATES.get(name)
    if found is not None:
        return found
    fix = nearest_aggregate(name) or nearest(name, list(AGGREGATES))
    raise SpecError(f"there is no aggregate {name!r}", fix=fix)
