"""What the declarations mean: every semantic choice made once, as a field.

Compilers read plans and decide nothing. A plan holds no engine object, opens nothing, and
pickles.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, time
from math import gcd
from typing import Any, TypeVar

from millrace.aggregates import Aggregate
from millrace.calendar import day_ms
from millrace.durations import DAY_MS
from millrace.errors import DataError, NotDeclared, nearest
from millrace.expressions import AS_OF, Expression
from millrace.spec import NOWHERE, Check, Location
from millrace.types import DataType
from millrace.window import Window


@dataclass(frozen=True)
class Column:
    """A named, typed column.

    Attributes:
        renamed_from: what files and records call it, where that differs from its name.
    """

    name: str
    type: DataType
    renamed_from: str | None = None
    description: str = field(default="", compare=False)

    @property
    def origin(self) -> str:
        """What to look for in files and records: a name, or else a dotted path.

        A column of exactly this name wins over the path that its dots would spell.
        """
        return self.name if self.renamed_from is None else self.renamed_from


@dataclass(frozen=True)
class BatchPlan:
    """Files of history; ``path`` still holds ``${NAME}`` placeholders."""

    format: str
    path: str


@dataclass(frozen=True)
class StreamPlan:
    """A topic of events."""

    topic: str
    format: str


@dataclass(frozen=True)
class SchedulePlan:
    """When the days of a source are built; see ``millrace.spec.Schedule``.

    Attributes:
        at: local time of the daily tick; None: ``allowed_lateness`` after midnight UTC.
        timezone: IANA name of the zone of ``at``.
    """

    is_hourly: bool = False
    at: time | None = None
    timezone: str = "UTC"


@dataclass(frozen=True)
class EmptyDays:
    """The days that bring no events by rule; ``day in empty_days`` asks for one.

    Attributes:
        weekdays: Monday is 0.
    """

    weekdays: frozenset[int] = frozenset()
    days: frozenset[date] = frozenset()

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and (day.weekday() in self.weekdays or day in self.days)


@dataclass(frozen=True)
class SourcePlan:
    """A source with its rules in milliseconds; see ``millrace.spec.Source``.

    Attributes:
        end: the day behind the last one that has events; None: the source goes on.
        late_after_ms: from when a day is due until it is told as late; None: never.
    """

    name: str
    columns: tuple[Column, ...]
    event_time: str
    event_id: str | None
    ingest_time: str | None
    allowed_lateness_ms: int
    clock_skew_ms: int
    dedup_horizon_ms: int
    batch: BatchPlan | None
    stream: StreamPlan | None
    description: str
    fingerprint: str
    schedule: SchedulePlan = SchedulePlan()
    end: date | None = None
    empty_days: EmptyDays = EmptyDays()
    late_after_ms: int | None = None
    where: Location = field(default=NOWHERE, compare=False)

    def has(self, day: date) -> bool:
        """Tell whether a day may have events: whether it lies before the end, if there is one."""
        return self.end is None or day < self.end

    def column(self, name: str) -> Column:
        """Return a declared column by name."""
        return next(c for c in self.columns if c.name == name)

    @property
    def files(self) -> BatchPlan:
        """The files to backfill from.

        Raises:
            DataError: the source is a stream alone.
        """
        if self.batch is None:
            raise DataError(
                "the source has no files to backfill from",
                where=f"source {self.name}",
                fix="give it `batch: {format: …, path: …}`",
            )
        return self.batch


@dataclass(frozen=True)
class EntityPlan:
    """An entity and the column that finds it."""

    name: str
    join_key: str
    type: DataType
    description: str = ""


@dataclass(frozen=True)
class Measure:
    """A typed input of aggregates, shared by all features that read the same expression.

    Attributes:
        name: ``m0``, ``m1``, … in order of first use; the prefix of its tile columns.
    """

    name: str
    expression: Expression

    @property
    def type(self) -> DataType:
        """The expression's type."""
        return self.expression.type


@dataclass(frozen=True)
class FeaturePlan:
    """One output column.

    Attributes:
        aggregate: bound to the measure's type and its parameters.
        measure: what is aggregated; None for a count of rows.
        default: a value of its type in place of every null; None: nulls stay.
    """

    name: str
    aggregate: Aggregate
    measure: Measure | None
    window: Window
    description: str = ""
    default: Any = None

    @property
    def type(self) -> DataType:
        """The type of the value."""
        return self.aggregate.type

    @property
    def empty(self) -> Any:
        """The value over no events."""
        return self.aggregate.empty if self.default is None else self.default


@dataclass(frozen=True)
class DerivedPlan:
    """A feature that is calculated of others of its view when those are known.

    Tiles and streams know nothing of it.

    Attributes:
        expression: over the names of features, and ``AS_OF`` for the instant of the query.
        default: a value of its type in place of every null; None: nulls stay.
    """

    name: str
    expression: Expression
    description: str = ""
    default: Any = None

    @property
    def type(self) -> DataType:
        """The type of the value."""
        return self.expression.type

    @property
    def inputs(self) -> tuple[str, ...]:
        """The features it reads, each once."""
        return tuple(name for name in self.expression.columns if name != AS_OF)


Output = FeaturePlan | DerivedPlan
"""A feature as those see it who use its values."""

_F = TypeVar("_F", bound=Output)


@dataclass(frozen=True)
class ViewPlan:
    """A feature view, resolved.

    Attributes:
        features: those that are aggregates; what tiles are made for.
        filter: None, or a boolean expression; an event counts only where it is true.
        fingerprint: 16 hex digits naming the meaning; descriptions, owners and tags do not
            enter it. It names the version, the stream job's state and the online key version.
        warnings: what the author should know and need not mend.
        is_online: False if the view is kept offline: it is built, and never served.
        derived: what is calculated of the features, each behind its inputs.
        order: where any is derived, the names of ``outputs``.
    """

    name: str
    entities: tuple[EntityPlan, ...]
    source: SourcePlan
    start: date
    filter: Expression | None
    measures: tuple[Measure, ...]
    features: tuple[FeaturePlan, ...]
    ttl_ms: int | None
    freshness_ms: int | None
    owner: str | None
    tags: Mapping[str, str]
    checks: tuple[Check, ...]
    description: str
    fingerprint: str
    warnings: tuple[str, ...] = ()
    is_online: bool = True
    derived: tuple[DerivedPlan, ...] = ()
    order: tuple[str, ...] = ()
    where: Location = field(default=NOWHERE, compare=False)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All features, aggregates and derived ones, in declared order: the columns of its table."""
        if not self.derived:
            return self.features
        by_name: dict[str, Output] = {f.name: f for f in self.features}
        by_name |= {f.name: f for f in self.derived}
        return tuple(by_name[name] for name in self.order)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """The key columns, in declared order."""
        return tuple(e.join_key for e in self.entities)

    @property
    def start_ms(self) -> int:
        """The first instant of history, epoch milliseconds."""
        return day_ms(self.start)

    @property
    def tile_hop_ms(self) -> int:
        """Length of the view's tiles: it divides every hop and the day."""
        return gcd(DAY_MS, *(f.window.hop_ms for f in self.features))

    @property
    def reach_ms(self) -> int | None:
        """How far before a query the oldest event may lie; None if any feature is a lifetime."""
        reaches = [f.window.reach_ms for f in self.features]
        known = [r for r in reaches if r is not None]
        return max(known) if len(known) == len(reaches) else None

    def feature(self, name: str) -> FeaturePlan:
        """Return a feature that is an aggregate, by name.

        Raises:
            NotDeclared: the view has no such feature; the nearest are named.
        """
        return _named(self, name, self.features)

    def output(self, name: str) -> Output:
        """Return a feature of any kind by name.

        Raises:
            NotDeclared: the view has no such feature; the nearest are named.
        """
        return _named(self, name, self.outputs)

    def aggregates_of(self, feature: Output) -> tuple[FeaturePlan, ...]:
        """Return the aggregates that a value is made of: the feature itself, or all its inputs."""
        reached = {feature.name}
        for derived in reversed(self.derived):
            if derived.name in reached:
                reached.update(derived.inputs)
        return tuple(f for f in self.features if f.name in reached)


def _named(view: ViewPlan, name: str, features: Iterable[_F]) -> _F:
    by_name = {feature.name: feature for feature in features}
    try:
        return by_name[name]
    except KeyError:
        raise NotDeclared(
            f"no feature {name!r}", where=f"view {view.name}", fix=nearest(name, list(by_name))
        ) from None


@dataclass(frozen=True)
class ServicePlan:
    """A feature service, its entries resolved to (view, feature) in declared order."""

    name: str
    features: tuple[tuple[str, str], ...]
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that it takes features of, each once, in order."""
        return tuple(dict.fromkeys(view for view, _ in self.features))


@dataclass(frozen=True)
class Plan:
    """All declarations, resolved; each mapping is by name, in declared order."""

    sources: Mapping[str, SourcePlan]
    entities: Mapping[str, EntityPlan]
    views: Mapping[str, ViewPlan]
    services: Mapping[str, ServicePlan]

    def view(self, name: str) -> ViewPlan:
        """Return a view by name.

        Raises:
            NotDeclared: no such view; the nearest are named.
        """
        try:
            return self.views[name]
        except KeyError:
            raise NotDeclared(
                f"no feature view {name!r}", fix=nearest(name, list(self.views))
            ) from None

    def views_of(self, source: str) -> tuple[ViewPlan, ...]:
        """Return the views that read a source, in declared order."""
        return tuple(v for v in self.views.values() if v.source.name == source)
