"""Aggregates on their way to be features: ``avg("amount").over("1d", "7d").named("spend_{window}")``."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, ClassVar, get_args

from millrace import spec
from millrace.calls import Steps, builder, here, literal_text, optional, text
from millrace.errors import SpecError
from millrace.spec import Location

__all__ = [
    "Aggregation", "approx_distinct", "avg", "count", "distinct", "first", "first_k", "last", "last_k",
    "max", "median", "min", "mode", "percentile", "session", "stddev", "sum", "time_since_first",
    "time_since_last", "top_k",
    "tumbling", "variance",
]  # fmt: skip


WINDOWS = ("tumbling", "session")
"""Those of these names that are windows and no aggregates."""


@dataclass(frozen=True)
class Aggregation(Steps):
    """An aggregate on its way to be features; each step returns a new one.

    Iterating yields one ``millrace.spec.Feature`` per window, so it can stand in a list of
    features as it is or unpacked by ``*``.
    """

    built: ClassVar[str] = "an aggregate"

    aggregate: str
    column: str | None = None
    expr: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    ps: tuple[float, ...] = ()
    windows: tuple[spec.WindowSpec, ...] = ()
    name: str | None = None
    hop_: str | None = None
    offset_: str | None = None
    default_: Any = None
    description: str = ""
    where: Location = spec.NOWHERE

    @builder
    def over(
        self, *windows: spec.WindowSpec, hop: str | None = None, offset: str | None = None
    ) -> "Aggregation":
        """Name the windows: durations, ``lifetime``, ``tumbling(…)`` or ``session(…)``; one feature for each.

        ``hop`` and ``offset`` are those of the steps of these names.
        """
        found = replace(self, windows=tuple(map(_window, windows)))
        found = found if hop is None else found.hop(hop)
        return found if offset is None else found.offset(offset)

    @builder
    def named(self, name: str) -> "Aggregation":
        """Name the feature; ``{window}`` stands for the window as written.

        Without a name it is ``amount_avg_1d``, or ``count_1h`` for a count of rows. Other windows
        are ``tumbling_1d``, ``tumbling_1d_previous_1`` and ``session_30m`` in names.
        """
        return replace(self, name=text(name))

    @builder
    def hop(self, duration: str) -> "Aggregation":
        """Set the step by which the tail moves."""
        return replace(self, hop_=text(duration))

    @builder
    def offset(self, duration: str) -> "Aggregation":
        """Move the window into the past."""
        return replace(self, offset_=text(duration))

    @builder
    def default(self, value: Any) -> "Aggregation":
        """Give a value to empty windows and nulls: ``sum("amount").over("1d").default(0)``."""
        return replace(self, default_=literal_text(value))

    @builder
    def described(self, description: str) -> "Aggregation":
        """Say what the feature is, for people."""
        return replace(self, description=text(description))

    def __iter__(self) -> Iterator[spec.Feature]:
        template = self._template()
        if len(self.windows) > 1 and "{window}" not in template:
            raise SpecError(
                f"{len(self.windows)} windows would all be named {template!r}",
                where=str(self.where),
                fix=f'put the window into the name: .named("{template}_{{window}}")',
            )
        if len(self.ps) > 1 and "{p}" not in template:
            raise SpecError(
                f"{len(self.ps)} percentiles would all be named {template!r}",
                where=str(self.where),
                fix=f'put the percentile into the name: .named("{template}_{{p}}")',
            )
        told = [{**self.parameters, "p": p} for p in self.ps] or [dict(self.parameters)]
        for window, parameters in product(self.windows or ("",), told):
            yield spec.Feature(
                name=spec.feature_name(template, str(window), parameters.get("p")),
                aggregate=self.aggregate,
                window=window,
                column=self.column,
                expr=self.expr,
                hop=self.hop_,
                offset=self.offset_,
                parameters=parameters,
                default=self.default_,
                description=self.description,
                where=self.where,
            )

    def _template(self) -> str:
        if self.name is not None:
            return self.name
        if self.expr is not None:
            raise SpecError(
                f"{self.aggregate} of an expression has no name",
                where=str(self.where),
                fix='add .named("…")',
            )
        aggregate = "p{p}" if self.aggregate == "percentile" else self.aggregate
        stem = aggregate if self.column is None else f"{self.column}_{aggregate}"
        return stem + "_{window}"


def _window(window: object) -> spec.WindowSpec:
    return window if isinstance(window, get_args(spec.WindowSpec)) else text(window)


@builder
def tumbling(unit: str, *, timezone: str | None = None, previous: int = 0) -> spec.Tumbling:
    """Name a window that begins with an hour, day, week or month of a time zone.

    ``unit`` is ``1h``, ``1d``, ``1w`` (from Monday) or ``1mo``; without ``timezone`` it is of UTC.
    ``previous=1`` is the whole one before that of the query:
    ``.over(tumbling("1d", timezone="Europe/Berlin", previous=1))``.
    """
    return spec.Tumbling(text(unit), optional(timezone), previous, here())


@builder
def session(gap: str, *, max: str) -> spec.Session:
    """Name a window over the newest run of events in which neighbours lie less than ``gap`` apart.

    It is empty once the newest event lies that far before the query, and holds nothing that lies
    further before it than ``max``: ``.over(session("30m", max="1d"))``.
    """
    return spec.Session(text(gap), text(max), here())


def _aggregation(
    aggregate: str, column: str | None, expr: str | None, **parameters: float | None
) -> Aggregation:
    given = {name: value for name, value in parameters.items() if value is not None}
    return Aggregation(aggregate, optional(column), optional(expr), parameters=given, where=here())


@builder
def count(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Count rows, or the values of a column or expression that are not null."""
    return _aggregation("count", column, expr)


@builder
def sum(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Add up a column or expression."""
    return _aggregation("sum", column, expr)


@builder
def avg(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Average a column or expression."""
    return _aggregation("avg", column, expr)


@builder
def min(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the smallest value."""
    return _aggregation("min", column, expr)


@builder
def max(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the largest value."""
    return _aggregation("max", column, expr)


@builder
def stddev(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the sample standard deviation; null below two values."""
    return _aggregation("stddev", column, expr)


@builder
def variance(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the sample variance; null below two values."""
    return _aggregation("variance", column, expr)


@builder
def first(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the oldest value that is not null."""
    return _aggregation("first", column, expr)


@builder
def last(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the newest value that is not null."""
    return _aggregation("last", column, expr)


@builder
def time_since_first(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the milliseconds from the oldest event, or value, to the query."""
    return _aggregation("time_since_first", column, expr)


@builder
def time_since_last(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the milliseconds from the newest event, or value, to the query."""
    return _aggregation("time_since_last", column, expr)


@builder
def first_k(column: str | None = None, *, k: int, expr: str | None = None) -> Aggregation:
    """List the oldest ``k`` values that are not null, oldest first."""
    return _aggregation("first_k", column, expr, k=k)


@builder
def last_k(column: str | None = None, *, k: int, expr: str | None = None) -> Aggregation:
    """List the newest ``k`` values that are not null, newest first."""
    return _aggregation("last_k", column, expr, k=k)


@builder
def distinct(
    column: str | None = None, *, limit: int | None = None, expr: str | None = None
) -> Aggregation:
    """Count the different values, exactly, up to ``limit``: 1,000 where nothing is said."""
    return _aggregation("distinct", column, expr, limit=limit)


@builder
def approx_distinct(
    column: str | None = None, *, precision: int | None = None, expr: str | None = None
) -> Aggregation:
    """Estimate how many different values there are, by 2 to the ``precision``, else 12, registers."""
    return _aggregation("approx_distinct", column, expr, precision=precision)


@builder
def percentile(
    column: str | None = None,
    *,
    p: float | None = None,
    ps: Sequence[float] = (),
    expr: str | None = None,
) -> Aggregation:
    """Take the value of a rank, ``p`` of 100, or one feature for each of ``ps``: ``amount_p95_7d``."""
    if p is not None and ps:
        raise SpecError("percentile has p and ps", where=str(here()), fix="keep one of them")
    return replace(_aggregation("percentile", column, expr, p=p), ps=tuple(ps))


@builder
def median(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the value in the middle, the percentile of 50."""
    return _aggregation("median", column, expr)


@builder
def top_k(
    column: str | None = None, *, k: int, limit: int | None = None, expr: str | None = None
) -> Aggregation:
    """List the ``k`` most frequent values, of at most ``limit`` different ones: 1,000 if not said."""
    return _aggregation("top_k", column, expr, k=k, limit=limit)


@builder
def mode(
    column: str | None = None, *, limit: int | None = None, expr: str | None = None
) -> Aggregation:
    """Take the most frequent value, of at most ``limit`` different ones: 1,000 if not said."""
    return _aggregation("mode", column, expr, limit=limit)
