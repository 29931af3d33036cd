"""What an author writes: frozen records that know only their own fields.

YAML and Python declarations both become these. They are checked together by
``millrace.resolve.resolve``, never here, so that every fault can be reported at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Location:
    """Where a declaration stands, for messages: ``file:line``.

    Attributes:
        lines: the lines of single fields of the record, where a reader knows them.
    """

    file: str = ""
    line: int = 0
    lines: tuple[tuple[str, int], ...] = field(default=(), compare=False, repr=False)

    def at(self, name: str) -> "Location":
        """Return where one field stands; the record's own place if that is not known."""
        return Location(self.file, dict(self.lines).get(name, self.line))

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "declaration"


NOWHERE = Location()


@dataclass(frozen=True)
class Column:
    """A column of a source whose events call it otherwise, or that wants a word of explanation.

    A column of one type and nothing else is declared by the text of its type alone.

    Attributes:
        type: as text: ``decimal(12,2)``.
        origin: what files and records call it: a name, or a dotted path into nested records. A
            column of exactly that name wins over a path. None: as it is declared.
    """

    type: str
    origin: str | None = None
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class BatchSource:
    """Files of history: ``parquet``, ``csv``, ``json`` (one object a line) or ``delta``.

    Attributes:
        path: file, folder or URL; ``${NAME}`` is replaced from the settings when it is read.
    """

    format: str
    path: str
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class StreamSource:
    """A Kafka topic of the same events."""

    topic: str
    format: str = "json"
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Schedule:
    """When what is read from a source is built by itself; it changes no value.

    Attributes:
        refresh: ``daily``: partitions are days, each built once, when its events are complete;
            ``hourly``: they are hours, and those that are still open are built each hour besides.
        at: when the daily tick comes, wall-clock time ``HH:MM``; None: as soon as a day is
            complete.
        timezone: IANA name of the zone of ``at``; None: UTC.
    """

    refresh: str = "daily"
    at: str | None = None
    timezone: str | None = None
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Source:
    """Events, as files and as a topic.

    Attributes:
        columns: name to type, as text (``decimal(12,2)``) or as a ``Column``, in declared order.
        event_time: the column that says when an event happened.
        event_id: the column that names an event; None: nothing is deduplicated.
        ingest_time: column of a batch source that says when an event arrived; None: event time.
        allowed_lateness: duration; later arrivals are dead letters.
        clock_skew: duration; how far ahead of its arrival an event may be stamped.
        dedup_horizon: duration; an id that comes again within it is a duplicate.
        schedule: when its days are built; None: daily, as soon as a day is complete.
        end: of a closed source the day, ``YYYY-MM-DD``, UTC, from which on it has no events: no
            partitions, no schedule; None: it goes on.
        empty_days: weekdays by name (``saturday``) and days, ``YYYY-MM-DD``, UTC, that bring no
            events by rule: nothing is waited for and nothing is wrong with them.
        late_after: duration; how long after a day is due it is told as late if its files are not
            there; None: it is waited for in silence.
    """

    name: str
    columns: Mapping[str, str | Column]
    event_time: str
    event_id: str | None = None
    ingest_time: str | None = None
    allowed_lateness: str = "1h"
    clock_skew: str = "5s"
    dedup_horizon: str = "1d"
    batch: BatchSource | None = None
    stream: StreamSource | None = None
    schedule: Schedule | None = None
    end: str | None = None
    empty_days: tuple[str, ...] = ()
    late_after: str | None = None
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Entity:
    """Something features are about, found by one key column."""

    name: str
    join_key: str
    type: str
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


def feature_name(template: str, window: str, p: float | None = None) -> str:
    """Return a feature's name: ``{window}`` and ``{p}`` are filled in.

    What cannot stand in a name is ``_``, so that of a faulty window or rank the name is not one too.

    >>> feature_name("amount_p{p}_{window}", "1d", 99.9), feature_name("n_{window}", "7 Days")
    ('amount_p99_9_1d', 'n_7_days')
    """
    name = template.replace("{window}", _in_name(window))
    return name if p is None else name.replace("{p}", _in_name(str(p).removesuffix(".0")))


def _in_name(written: str) -> str:
    return re.sub(r"[^a-z0-9_]", "_", written.lower())


@dataclass(frozen=True)
class Tumbling:
    """A window that begins with an hour, day, week or month of a time zone.

    Attributes:
        unit: ``1h``, ``1d``, ``1w`` or ``1mo``.
        timezone: IANA name; None: UTC.
        previous: how many before the one that the query lies in; 0: that one, up to the query.
    """

    unit: str
    timezone: str | None = None
    previous: float = 0
    where: Location = field(default=NOWHERE, compare=False)

    def __str__(self) -> str:
        """What stands for it in the names of features: ``tumbling_1d``, ``tumbling_1d_previous_1``."""
        before = "" if self.previous == 0 else f"_previous_{str(self.previous).removesuffix('.0')}"
        return f"tumbling_{self.unit}{before}"


@dataclass(frozen=True)
class Session:
    """A window over the newest run of events in which neighbours lie close together.

    Attributes:
        gap: duration; neighbours, and the newest event and the query, lie less than it apart.
        max: duration; no event counts that lies further before the query.
    """

    gap: str
    max: str
    where: Location = field(default=NOWHERE, compare=False)

    def __str__(self) -> str:
        """What stands for it in the names of features: ``session_30m``."""
        return f"session_{self.gap}"


WindowSpec = str | Tumbling | Session
"""A window as it is written: a duration, ``lifetime``, or one of the other kinds."""


@dataclass(frozen=True)
class Feature:
    """One aggregate over one window.

    Attributes:
        aggregate: ``count``, ``sum``, ``avg``, ``min``, ``max``, ``stddev``, ``variance``,
            ``first``, ``last`` (and names refused for now).
        column: input column; None with ``expr``, or for a count of rows.
        expr: input expression in the SQL language, instead of a column.
        window: duration, ``lifetime``, or another kind of window.
        hop: duration; None for the default of the window.
        offset: duration by which the window lies in the past; None for none.
        parameters: ``k``, ``p``, ``limit`` of the aggregates that take one.
        default: the value where there is none: of an empty window, or null; None: null. A number,
            text, truth value or day as written, decimals and days also as their text.
    """

    name: str
    aggregate: str
    window: WindowSpec
    column: str | None = None
    expr: str | None = None
    hop: str | None = None
    offset: str | None = None
    parameters: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    default: Any = None
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class DerivedFeature:
    """A feature calculated of the values of other features of its view.

    Attributes:
        derive: expression over features of the view, aggregated or derived, in the SQL language;
            ``AS_OF()`` in it is the instant of the query.
        default: as that of ``Feature``.
    """

    name: str
    derive: str
    default: Any = None
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Check:
    """A data-quality rule beside the defaults: its type and its arguments as written."""

    type: str
    arguments: Mapping[str, Any]
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity (or a composite of several) from one source.

    Attributes:
        entities: names of entities; their join keys, in this order, are the key.
        source: name of the source.
        start: first day of history, ``YYYY-MM-DD``, UTC; earlier events do not count.
        features: at least one of them an aggregate.
        filter: expression; only events for which it is true count.
        ttl: duration; older values are ``OUTSIDE_MAX_AGE`` when served.
        freshness: duration; the promised age of the pipeline.
        online: True if it may be served; False keeps it offline.
    """

    name: str
    entities: tuple[str, ...]
    source: str
    start: str
    features: tuple[Feature | DerivedFeature, ...]
    filter: str | None = None
    ttl: str | None = None
    freshness: str | None = None
    owner: str | None = None
    tags: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    checks: tuple[Check, ...] = ()
    online: bool = True
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class FeatureService:
    """The set of features one model asks for.

    Attributes:
        features: ``view:feature``, ``view:*``, or a bare feature name where it is unique.
    """

    name: str
    features: tuple[str, ...]
    description: str = ""
    where: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True)
class Specs:
    """Everything declared, in the order read."""

    sources: tuple[Source, ...] = ()
    entities: tuple[Entity, ...] = ()
    views: tuple[FeatureView, ...] = ()
    services: tuple[FeatureService, ...] = ()

    def __add__(self, other: "Specs") -> "Specs":
        return Specs(
            self.sources + other.sources,
            self.entities + other.entities,
            self.views + other.views,
            self.services + other.services,
        )
