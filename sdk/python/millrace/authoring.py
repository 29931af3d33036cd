"""Declarations in Python: thin constructors of specs that know the author's line.

``Entity``, ``Source``, ``FeatureView`` and the rest return the records of ``millrace.spec``, the
same that YAML becomes. They check nothing but what would crash: values are checked by ``resolve``
with all others, so that one fault does not hide the next. Values of other types than text
(a date, a number) are taken as their text.

    customer_spend = FeatureView(
        "customer_spend", entity=customer, source=card_transactions, start="2018-04-01",
        features=[count().over("1h").named("tx_count_1h"), *avg("amount").over("1d", "7d")])
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from typing import Any, TypeVar

from millrace import spec
from millrace.errors import SpecError
from millrace.spec import Location
from millrace.types import DataType

Declared = spec.Entity | spec.Source | spec.FeatureView | spec.FeatureService
_D = TypeVar("_D", bound=Declared)

PUBLIC_NAMES = (
    "BatchSource", "Check", "Column", "Entity", "FeatureService", "FeatureView", "Schedule", "Source",
    "StreamSource", "approx_distinct", "avg", "count", "distinct", "first", "last", "last_k", "max", "min",
    "percentile", "stddev", "sum", "top_k", "variance",
)  # fmt: skip
"""What ``from millrace import …`` gives an author."""

_made: ContextVar[list[Declared] | None] = ContextVar("millrace_declarations", default=None)


@contextmanager
def gathering() -> Iterator[list[Declared]]:
    """Collect every declaration that is constructed in the block, in order."""
    made: list[Declared] = []
    token = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(token)


def _noted(declared: _D) -> _D:
    made = _made.get()
    if made is not None:
        made.append(declared)
    return declared


def _here() -> Location:
    """Return the line of the author's code that called into this module."""
    frame = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller without a traceback
    while frame.f_back is not None and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno)


def Entity(  # noqa: N802 - reads as the noun it returns
    name: str, join_key: str, type: str | DataType, *, description: str = ""
) -> spec.Entity:
    """Declare something features are about; see ``millrace.spec.Entity``."""
    return _noted(
        spec.Entity(_text(name), _text(join_key), _text(type), _text(description), _here())
    )


def Column(  # noqa: N802
    type: str | DataType, origin: str | None = None, *, description: str = ""
) -> spec.Column:
    """Declare a column that its files and records call otherwise: ``Column("int64", "CustomerID")``.

    ``origin`` is a name or a dotted path: ``Column("string", "address.city")``.
    """
    return spec.Column(_text(type), _optional(origin), _text(description), _here())


def BatchSource(format: str, path: str) -> spec.BatchSource:  # noqa: N802
    """Declare files of history: ``parquet``, ``csv``, ``json`` or ``delta``."""
    return spec.BatchSource(_text(format), _text(path), _here())


def StreamSource(topic: str, format: str = "json") -> spec.StreamSource:  # noqa: N802
    """Declare a topic of events."""
    return spec.StreamSource(_text(topic), _text(format), _here())


def Schedule(  # noqa: N802
    refresh: str = "daily", *, at: str | None = None, timezone: str | None = None
) -> spec.Schedule:
    """Declare when days are built: ``Schedule("hourly", at="06:00", timezone="Europe/Berlin")``."""
    return spec.Schedule(_text(refresh), _optional(at), _optional(timezone), _here())


def Source(  # noqa: N802
    name: str,
    *,
    columns: Mapping[str, str | DataType | spec.Column | Mapping[str, str]],
    event_time: str,
    event_id: str | None = None,
    ingest_time: str | None = None,
    allowed_lateness: str = "1h",
    clock_skew: str = "5s",
    dedup_horizon: str = "1d",
    batch: spec.BatchSource | Mapping[str, str] | None = None,
    stream: spec.StreamSource | Mapping[str, str] | None = None,
    schedule: spec.Schedule | Mapping[str, str] | None = None,
    description: str = "",
) -> spec.Source:
    """Declare events; see ``millrace.spec.Source``.

    Raises:
        SpecError: ``columns``, one of them, ``batch``, ``stream`` or ``schedule`` is something else altogether.
    """
    where = _here()
    if not isinstance(columns, Mapping):
        raise _misshapen("columns", columns, 'a dict of name to type: {"amount": "float64"}', where)
    return _noted(
        spec.Source(
            name=_text(name),
            columns={_text(name): _column(name, column, where) for name, column in columns.items()},
            event_time=_text(event_time),
            event_id=_optional(event_id),
            ingest_time=_optional(ingest_time),
            allowed_lateness=_text(allowed_lateness),
            clock_skew=_text(clock_skew),
            dedup_horizon=_text(dedup_horizon),
            batch=_batch(batch, where),
            stream=_stream(stream, where),
            schedule=_schedule(schedule, where),
            description=_text(description),
            where=where,
        )
    )


def _column(name: str, column: object, where: Location) -> str | spec.Column:
    if isinstance(column, spec.Column):
        return column
    if isinstance(column, (str, DataType)):
        return _text(column)
    if isinstance(column, Mapping) and {"type"} <= set(column) <= {"type", "from", "description"}:
        return spec.Column(
            _text(column["type"]),
            _optional(column.get("from")),
            _text(column.get("description", "")),
            where,
        )
    raise _misshapen(
        f"the column {name!r}", column, 'a type or Column("int64", "CustomerID")', where
    )


def _batch(batch: object, where: Location) -> spec.BatchSource | None:
    if batch is None or isinstance(batch, spec.BatchSource):
        return batch
    if isinstance(batch, Mapping) and set(batch) == {"format", "path"}:
        return spec.BatchSource(_text(batch["format"]), _text(batch["path"]), where)
    raise _misshapen("batch", batch, "BatchSource(format, path)", where)


def _stream(stream: object, where: Location) -> spec.StreamSource | None:
    if stream is None or isinstance(stream, spec.StreamSource):
        return stream
    if isinstance(stream, Mapping) and {"topic"} <= set(stream) <= {"topic", "format"}:
        return spec.StreamSource(_text(stream["topic"]), _text(stream.get("format", "json")), where)
    raise _misshapen("stream", stream, "StreamSource(topic, format)", where)


def _schedule(schedule: object, where: Location) -> spec.Schedule | None:
    if schedule is None or isinstance(schedule, spec.Schedule):
        return schedule
    if isinstance(schedule, Mapping) and set(schedule) <= {"refresh", "at", "timezone"}:
        given = {name: _text(value) for name, value in schedule.items()}
        return spec.Schedule(**given, where=where)
    raise _misshapen("schedule", schedule, 'Schedule("hourly", at="06:00")', where)


def Check(type: str, **arguments: Any) -> spec.Check:  # noqa: N802
    """Declare a data-quality rule: ``Check("null_rate", feature="amount_avg_7d", max=0.3)``."""
    return spec.Check(_text(type), arguments, _here())


@dataclass(frozen=True)
class Aggregation:
    """An aggregate on its way to be features; each step returns a new one.

    Iterating yields one ``millrace.spec.Feature`` per window, so it can stand in a list of
    features as it is or unpacked by ``*``.
    """

    aggregate: str
    column: str | None = None
    expr: str | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    windows: tuple[str, ...] = ()
    name: str | None = None
    hop_: str | None = None
    offset_: str | None = None
    default_: Any = None
    description: str = ""
    where: Location = spec.NOWHERE

    def over(
        self, *windows: str, hop: str | None = None, offset: str | None = None
    ) -> "Aggregation":
        """Name the windows: durations or ``lifetime``; one feature for each.

        ``hop`` and ``offset`` are those of the steps of these names.
        """
        found = replace(self, windows=tuple(_text(window) for window in windows))
        found = found if hop is None else found.hop(hop)
        return found if offset is None else found.offset(offset)

    def named(self, name: str) -> "Aggregation":
        """Name the feature; ``{window}`` stands for the window as written.

        Without a name it is ``amount_avg_1d``, or ``count_1h`` for a count of rows.
        """
        return replace(self, name=_text(name))

    def hop(self, duration: str) -> "Aggregation":
        """Set the step by which the tail moves."""
        return replace(self, hop_=_text(duration))

    def offset(self, duration: str) -> "Aggregation":
        """Move the window into the past."""
        return replace(self, offset_=_text(duration))

    def default(self, value: Any) -> "Aggregation":
        """Give a value to empty windows and nulls: ``sum("amount").over("1d").default(0)``."""
        is_exact = isinstance(value, (Decimal, date))
        return replace(self, default_=str(value) if is_exact else value)

    def described(self, description: str) -> "Aggregation":
        """Say what the feature is, for people."""
        return replace(self, description=_text(description))

    def __iter__(self) -> Iterator[spec.Feature]:
        template = self._template()
        if len(self.windows) > 1 and "{window}" not in template:
            raise SpecError(
                f"{len(self.windows)} windows would all be named {template!r}",
                where=str(self.where),
                fix=f'put the window into the name: .named("{template}_{{window}}")',
            )
        for window in self.windows or ("",):
            yield spec.Feature(
                name=template.replace("{window}", window),
                aggregate=self.aggregate,
                window=window,
                column=self.column,
                expr=self.expr,
                hop=self.hop_,
                offset=self.offset_,
                parameters=dict(self.parameters),
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
        stem = self.aggregate if self.column is None else f"{self.column}_{self.aggregate}"
        return stem + "_{window}"


def _aggregation(
    aggregate: str, column: str | None, expr: str | None, **parameters: float
) -> Aggregation:
    return Aggregation(
        aggregate, _optional(column), _optional(expr), parameters=parameters, where=_here()
    )


def count(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Count rows, or the values of a column or expression that are not null."""
    return _aggregation("count", column, expr)


def sum(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Add up a column or expression."""
    return _aggregation("sum", column, expr)


def avg(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Average a column or expression."""
    return _aggregation("avg", column, expr)


def min(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the smallest value."""
    return _aggregation("min", column, expr)


def max(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the largest value."""
    return _aggregation("max", column, expr)


def stddev(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the sample standard deviation; null below two values."""
    return _aggregation("stddev", column, expr)


def variance(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the sample variance; null below two values."""
    return _aggregation("variance", column, expr)


def first(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the oldest value that is not null."""
    return _aggregation("first", column, expr)


def last(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Take the newest value that is not null."""
    return _aggregation("last", column, expr)


def last_k(column: str | None = None, *, k: int, expr: str | None = None) -> Aggregation:
    """Take the newest ``k`` values; not yet supported."""
    return _aggregation("last_k", column, expr, k=k)


def distinct(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Count distinct values exactly; not yet supported."""
    return _aggregation("distinct", column, expr)


def approx_distinct(column: str | None = None, *, expr: str | None = None) -> Aggregation:
    """Count distinct values by a sketch; not yet supported."""
    return _aggregation("approx_distinct", column, expr)


def percentile(column: str | None = None, *, p: float, expr: str | None = None) -> Aggregation:
    """Take a quantile by a sketch; not yet supported."""
    return _aggregation("percentile", column, expr, p=p)


def top_k(column: str | None = None, *, k: int, expr: str | None = None) -> Aggregation:
    """Take the ``k`` most frequent values; not yet supported."""
    return _aggregation("top_k", column, expr, k=k)


def FeatureView(  # noqa: N802
    name: str,
    *,
    source: str | spec.Source,
    start: str | date,
    features: Iterable[spec.Feature | Aggregation],
    entity: str | spec.Entity | None = None,
    entities: Sequence[str | spec.Entity] = (),
    filter: str | None = None,
    ttl: str | None = None,
    freshness: str | None = None,
    owner: str | None = None,
    tags: Mapping[str, str] | None = None,
    checks: Iterable[spec.Check | Mapping[str, Any]] = (),
    online: bool = True,
    description: str = "",
) -> spec.FeatureView:
    """Declare features of one entity, or of a composite of several; see ``spec.FeatureView``.

    ``entity`` and ``source`` are declarations or their names; ``entities`` instead of ``entity``
    make a composite key, in that order. Features are aggregations, as they are or unpacked.

    Raises:
        SpecError: ``entity`` and ``entities`` are both or neither given, or a feature is
            something else altogether.
    """
    where = _here()
    if (entity is None) == (not entities):
        raise SpecError(
            f"feature view {name!r} needs entity or entities, and not both",
            where=str(where),
            fix="keep entities for a composite key, else entity",
        )
    keys = [entity] if entity is not None else entities
    for declared in (*keys, source):
        # One from another module is declared by being used.
        if isinstance(declared, (spec.Entity, spec.Source)):
            _noted(declared)
    return _noted(
        spec.FeatureView(
            name=_text(name),
            entities=tuple(_name_of(key) for key in keys if key is not None),
            source=_name_of(source),
            start=_text(start),
            features=tuple(_features(features, where)),
            filter=_optional(filter),
            ttl=_optional(ttl),
            freshness=_optional(freshness),
            owner=_optional(owner),
            tags={_text(key): _text(value) for key, value in (tags or {}).items()},
            checks=tuple(_check(check, where) for check in checks),
            online=online,
            description=_text(description),
            where=where,
        )
    )


def _features(
    features: Iterable[spec.Feature | Aggregation], where: Location
) -> Iterator[spec.Feature]:
    for feature in features:
        if isinstance(feature, spec.Feature):
            yield feature
        elif isinstance(feature, Aggregation):
            yield from feature
        else:
            raise _misshapen("a feature", feature, 'count().over("1h"), for one', where)


def _check(check: object, where: Location) -> spec.Check:
    if isinstance(check, spec.Check):
        return check
    if isinstance(check, Mapping) and "type" in check:
        arguments = {_text(k): value for k, value in check.items() if k != "type"}
        return spec.Check(_text(check["type"]), arguments, where)
    raise _misshapen("a check", check, 'Check("null_rate", feature="…", max=0.3)', where)


def FeatureService(  # noqa: N802
    name: str, features: Iterable[str | spec.FeatureView], *, description: str = ""
) -> spec.FeatureService:
    """Declare what a model asks for: ``view:feature``, ``view:*`` or bare names; a view is all."""
    entries = [f"{f.name}:*" if isinstance(f, spec.FeatureView) else _text(f) for f in features]
    return _noted(spec.FeatureService(_text(name), tuple(entries), _text(description), _here()))


def _name_of(declared: str | spec.Entity | spec.Source) -> str:
    return declared.name if isinstance(declared, (spec.Entity, spec.Source)) else _text(declared)


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _optional(value: object | None) -> str | None:
    return None if value is None else _text(value)


def _misshapen(name: str, value: object, fix: str, where: Location) -> SpecError:
    return SpecError(
        f"{name} is a {type(value).__name__}: {str(value)[:60]}",
        where=str(where),
        fix=f"write {fix}",
    )
