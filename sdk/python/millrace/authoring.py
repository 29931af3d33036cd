"""Declarations in Python: thin constructors of specs that know the author's line.

``Entity``, ``Source``, ``FeatureView`` and the rest return the records of ``millrace.spec``, the
same that YAML becomes. They check nothing but what would crash: values are checked by ``resolve``
with all others, so that one fault does not hide the next. Values of other types than text
(a date, a number) are taken as their text.

    customer_spend = FeatureView(
        "customer_spend", entity=customer, source=card_transactions, start="2018-04-01",
        features=[count().over("1h").named("tx_count_1h"), *avg("amount").over("1d", "7d")])
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date
from typing import Any, TypeVar

from millrace import spec
from millrace.aggregations import Aggregation
from millrace.calls import builder, here, optional, text
from millrace.derivations import Derivation
from millrace.errors import SpecError
from millrace.spec import Location
from millrace.types import DataType

Declared = spec.Entity | spec.Source | spec.FeatureView | spec.FeatureService
_D = TypeVar("_D", bound=Declared)

PUBLIC_NAMES = (
    "BatchSource", "Check", "Column", "Entity", "FeatureService", "FeatureView", "Schedule", "Source",
    "StreamSource", "approx_distinct", "avg", "count", "derived", "distinct", "first", "first_k", "last",
    "last_k", "max", "median", "min", "mode", "percentile", "session", "stddev", "sum", "time_since_first",
    "time_since_last", "top_k", "tumbling", "variance",
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


@builder
def Entity(  # noqa: N802 - reads as the noun it returns
    name: str, join_key: str, type: str | DataType, *, description: str = ""
) -> spec.Entity:
    """Declare something features are about; see ``millrace.spec.Entity``."""
    return _noted(spec.Entity(text(name), text(join_key), text(type), text(description), here()))


@builder
def Column(  # noqa: N802
    type: str | DataType, origin: str | None = None, *, description: str = ""
) -> spec.Column:
    """Declare a column that its files and records call otherwise: ``Column("int64", "CustomerID")``.

    ``origin`` is a name or a dotted path: ``Column("string", "address.city")``.
    """
    return spec.Column(text(type), optional(origin), text(description), here())


@builder
def BatchSource(format: str, path: str) -> spec.BatchSource:  # noqa: N802
    """Declare files of history: ``parquet``, ``csv``, ``json`` or ``delta``."""
    return spec.BatchSource(text(format), text(path), here())


@builder
def StreamSource(topic: str, format: str = "json") -> spec.StreamSource:  # noqa: N802
    """Declare a topic of events."""
    return spec.StreamSource(text(topic), text(format), here())


@builder
def Schedule(  # noqa: N802
    refresh: str = "daily", *, at: str | None = None, timezone: str | None = None
) -> spec.Schedule:
    """Declare when days are built: ``Schedule("hourly", at="06:00", timezone="Europe/Berlin")``."""
    return spec.Schedule(text(refresh), optional(at), optional(timezone), here())


@builder
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
    end: str | date | None = None,
    empty_days: Sequence[str | date] = (),
    late_after: str | None = None,
    description: str = "",
) -> spec.Source:
    """Declare events; see ``millrace.spec.Source``.

    Raises:
        SpecError: ``columns``, one of them, ``batch``, ``stream``, ``schedule`` or ``empty_days`` is something else
            altogether.
    """
    where = here()
    if not isinstance(columns, Mapping):
        raise _misshapen("columns", columns, 'a dict of name to type: {"amount": "float64"}', where)
    return _noted(
        spec.Source(
            name=text(name),
            columns={text(name): _column(name, column, where) for name, column in columns.items()},
            event_time=text(event_time),
            event_id=optional(event_id),
            ingest_time=optional(ingest_time),
            allowed_lateness=text(allowed_lateness),
            clock_skew=text(clock_skew),
            dedup_horizon=text(dedup_horizon),
            batch=_batch(batch, where),
            stream=_stream(stream, where),
            schedule=_schedule(schedule, where),
            end=optional(end),
            empty_days=_empty_days(empty_days, where),
            late_after=optional(late_after),
            description=text(description),
            where=where,
        )
    )


def _column(name: str, column: object, where: Location) -> str | spec.Column:
    if isinstance(column, spec.Column):
        return column
    if isinstance(column, (str, DataType)):
        return text(column)
    if isinstance(column, Mapping) and {"type"} <= set(column) <= {"type", "from", "description"}:
        return spec.Column(
            text(column["type"]),
            optional(column.get("from")),
            text(column.get("description", "")),
            where,
        )
    raise _misshapen(
        f"the column {name!r}", column, 'a type or Column("int64", "CustomerID")', where
    )


def _batch(batch: object, where: Location) -> spec.BatchSource | None:
    if batch is None or isinstance(batch, spec.BatchSource):
        return batch
    if isinstance(batch, Mapping) and set(batch) == {"format", "path"}:
        return spec.BatchSource(text(batch["format"]), text(batch["path"]), where)
    raise _misshapen("batch", batch, "BatchSource(format, path)", where)


def _stream(stream: object, where: Location) -> spec.StreamSource | None:
    if stream is None or isinstance(stream, spec.StreamSource):
        return stream
    if isinstance(stream, Mapping) and {"topic"} <= set(stream) <= {"topic", "format"}:
        return spec.StreamSource(text(stream["topic"]), text(stream.get("format", "json")), where)
    raise _misshapen("stream", stream, "StreamSource(topic, format)", where)


def _schedule(schedule: object, where: Location) -> spec.Schedule | None:
    if schedule is None or isinstance(schedule, spec.Schedule):
        return schedule
    if isinstance(schedule, Mapping) and set(schedule) <= {"refresh", "at", "timezone"}:
        given = {name: text(value) for name, value in schedule.items()}
        return spec.Schedule(**given, where=where)
    raise _misshapen("schedule", schedule, 'Schedule("hourly", at="06:00")', where)


def _empty_days(days: object, where: Location) -> tuple[str, ...]:
    if isinstance(days, Iterable) and not isinstance(days, (str, Mapping)):
        return tuple(map(text, days))
    raise _misshapen("empty_days", days, 'a list: ["saturday", "2026-12-25"]', where)


@builder
def Check(type: str, **arguments: Any) -> spec.Check:  # noqa: N802
    """Declare a data-quality rule: ``Check("null_rate", feature="amount_avg_7d", max=0.3)``."""
    return spec.Check(text(type), arguments, here())


@builder
def FeatureView(  # noqa: N802
    name: str,
    *,
    source: str | spec.Source,
    start: str | date,
    features: Iterable[spec.Feature | spec.DerivedFeature | Aggregation | Derivation],
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
    make a composite key, in that order. Features are aggregations, as they are or unpacked, and
    what is derived of them.

    Raises:
        SpecError: ``entity`` and ``entities`` are both or neither given, or a feature is
            something else altogether.
    """
    where = here()
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
            name=text(name),
            entities=tuple(_name_of(key) for key in keys if key is not None),
            source=_name_of(source),
            start=text(start),
            features=tuple(_features(features, where)),
            filter=optional(filter),
            ttl=optional(ttl),
            freshness=optional(freshness),
            owner=optional(owner),
            tags={text(key): text(value) for key, value in (tags or {}).items()},
            checks=tuple(_check(check, where) for check in checks),
            online=online,
            description=text(description),
            where=where,
        )
    )


def _features(
    features: Iterable[spec.Feature | spec.DerivedFeature | Aggregation | Derivation],
    where: Location,
) -> Iterator[spec.Feature | spec.DerivedFeature]:
    for feature in features:
        if isinstance(feature, (spec.Feature, spec.DerivedFeature)):
            yield feature
        elif isinstance(feature, (Aggregation, Derivation)):
            yield from feature
        else:
            raise _misshapen("a feature", feature, 'count().over("1h"), for one', where)


def _check(check: object, where: Location) -> spec.Check:
    if isinstance(check, spec.Check):
        return check
    if isinstance(check, Mapping) and "type" in check:
        arguments = {text(k): value for k, value in check.items() if k != "type"}
        return spec.Check(text(check["type"]), arguments, where)
    raise _misshapen("a check", check, 'Check("null_rate", feature="…", max=0.3)', where)


@builder
def FeatureService(  # noqa: N802
    name: str, features: Iterable[str | spec.FeatureView], *, description: str = ""
) -> spec.FeatureService:
    """Declare what a model asks for: ``view:feature``, ``view:*`` or bare names; a view is all."""
    entries = [f"{f.name}:*" if isinstance(f, spec.FeatureView) else text(f) for f in features]
    return _noted(spec.FeatureService(text(name), tuple(entries), text(description), here()))


def _name_of(declared: str | spec.Entity | spec.Source) -> str:
    return declared.name if isinstance(declared, (spec.Entity, spec.Source)) else text(declared)


def _misshapen(name: str, value: object, fix: str, where: Location) -> SpecError:
    return SpecError(
        f"{name} is a {type(value).__name__}: {str(value)[:60]}",
        where=str(where),
        fix=f"write {fix}",
    )
