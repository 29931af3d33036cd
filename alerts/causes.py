"""What can be the cause of what: declared edges, over the code location's own graph of assets.

One fault shows in many places: the day's other checks, the features of that day, the days after it
that were compared with it. Which incident *explains* which is data (``EDGES``, ``CHECK_ORDER``)
and a pure predicate. What explains comes earlier in a total order (severity, then up the graph, then
the day, then the kind), so nothing can explain itself, however long the chain.

Source of the idea: Alertmanager's inhibition rules; the edges are the tables' lineage here.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Literal, NamedTuple

from alerts.facts import SEVERITIES, WHOLE, Severity, Subject
from millrace.errors import PlatformError
from resources.dagster.partition_keys import key_day

Place = Literal["same", "downstream", "awaited", "built", "anywhere"]
"""Where the follower is: the same asset (or stream); one downstream of it; one that the failed run was
to build; one that the schedule builds; anywhere."""
Span = Literal["day", "later", "gap", "any"]
"""Which day the follower is of: the same; the same or one that the cause reaches; whichever. A gap is of
no one day, and shows in whatever counts what is there."""


class Edge(NamedTuple):
    """One kind of incident explains another."""

    cause: str
    follower: str
    place: Place
    span: Span


EDGES: tuple[Edge, ...] = (
    # Nothing ticks without its daemon, and nothing is built without its tick.
    Edge("daemon", "tick", "anywhere", "any"),
    Edge("daemon", "days", "anywhere", "any"),
    Edge("tick", "days", "built", "any"),
    Edge("run", "partition", "awaited", "any"),
    Edge("run", "check", "awaited", "any"),
    Edge("run", "days", "awaited", "any"),
    # A day that is not there: neither is what is made of it, and windows reach into the gap.
    Edge("late", "days", "same", "any"),
    Edge("late", "days", "downstream", "any"),
    Edge("late", "check", "same", "gap"),
    Edge("late", "check", "downstream", "gap"),
    Edge("partition", "days", "same", "any"),
    Edge("partition", "days", "downstream", "any"),
    Edge("partition", "partition", "downstream", "later"),
    Edge("partition", "check", "same", "day"),
    Edge("partition", "check", "downstream", "later"),
    Edge("days", "days", "downstream", "any"),
    # A bad day: its other checks, the days that are compared with it, what is computed from it.
    Edge("check", "check", "same", "later"),
    Edge("check", "check", "downstream", "later"),
    Edge("check", "partition", "downstream", "later"),
    Edge("stream", "stream", "same", "any"),
)
"""Everything that may explain anything; what has no edge is an incident of its own."""

CHECK_ORDER: tuple[str, ...] = (
    "rows",
    "uniqueness",
    "completeness",
    "dead_letters",
    "null_keys",
    "null_rate",
    "range",
    "frozen",
    "unseen",
    "cardinality",
    "freshness",
    "volume",
    "drift",
)
"""Checks of one day of one table: what comes first explains what comes later, also checks that are
not named here. An empty day has no volume; a missing hour moves the distribution of all."""

LEARNED = frozenset(CHECK_ORDER) - {"rows", "dead_letters"}
"""Checks that compare a day with the days before it, a bad one among them."""

GAPS = frozenset({"rows", "completeness", "freshness", "volume", "drift"})
"""Checks in which it shows that files are not there; downstream it shows in all that is ``LEARNED``."""

STREAM_ORDER: tuple[str, ...] = (
    "does not answer",
    "given up",
    "not running",
    "without checkpoints",
)
"""As ``CHECK_ORDER``, for what is wrong with one stream."""

REACH_DAYS = 3
"""A day is compared with a bad one so soon after it that this one still weighs; a fault that lasts is
carried on from day to day by the same check."""

_KIND_ORDER: tuple[str, ...] = (
    "daemon",
    "tick",
    "late",
    "run",
    "partition",
    "days",
    "check",
    "stream",
    "sink",
)
_OF_DAYS = frozenset({"partition", "check"})

Key = tuple[int, int, date, int, int, str]


@dataclass(frozen=True)
class Candidate:
    """An incident that may explain another, or be explained.

    Attributes:
        awaits: see ``Fact``; of failed runs.
        is_root: nothing explains it, so far.
    """

    subject: Subject
    severity: Severity
    awaits: Collection[str] = ()
    is_root: bool = True


@dataclass(frozen=True)
class Causes:
    """The graph that the edges run along.

    Attributes:
        upstream: all assets above an asset, however far, by name; ``events/payments``.
        reach: how many days after a bad one an asset still reads it: its longest window. An asset
            that is not named reads its own day alone.
        builds: the assets that a schedule builds, by its name.
        edges: what may explain what.
    """

    upstream: Mapping[str, Collection[str]] = field(default_factory=dict)
    reach: Mapping[str, int] = field(default_factory=dict)
    builds: Mapping[str, Collection[str]] = field(default_factory=dict)
    edges: tuple[Edge, ...] = EDGES

    def explains(self, cause: Candidate, follower: Candidate) -> bool:
        """Say whether one incident is enough to tell of both.

        What is told must be no less severe than what is not. An error explains even a warning
        upstream of it, on the same day: the warning is then the lesser sign of the same fault.
        """
        if SEVERITIES.index(cause.severity) > SEVERITIES.index(follower.severity):
            return False
        if self._follows(cause, follower):
            return True
        return (
            cause.severity != follower.severity
            and day_of(cause.subject) == day_of(follower.subject)
            and self._follows(follower, cause)
        )

    def may_wait(self, subject: Subject) -> bool:
        """Say whether its cause may be read later than it: if that lies in another asset."""
        is_below = any(
            edge.follower == subject.kind and edge.place == "downstream" for edge in self.edges
        )
        return is_below and bool(self.upstream.get(subject.name))

    def reach_of(self, subject: Subject) -> int:
        """Return how many days before an incident its cause may lie."""
        return max(REACH_DAYS, self.reach.get(subject.name, 0))

    def key(self, subject: Subject, severity: Severity) -> Key:
        """Return the place in the total order: what explains has the lesser key."""
        return (
            SEVERITIES.index(severity),
            len(self.upstream.get(subject.name, ())),
            day_of(subject) or (date.max if subject.kind == "days" else date.min),
            _KIND_ORDER.index(subject.kind),
            _aspect_rank(subject),
            subject.key,
        )

    def _follows(self, cause: Candidate, follower: Candidate) -> bool:
        kinds = (cause.subject.kind, follower.subject.kind)
        return any(self._runs(edge, cause, follower) for edge in self.edges if edge[:2] == kinds)

    def _runs(self, edge: Edge, cause: Candidate, follower: Candidate) -> bool:
        above, below = cause.subject, follower.subject
        match edge.place:
            case "awaited":
                return _is_awaited(cause.awaits, below)
            case "built":
                return below.name in self.builds.get(above.name, ())
            case "anywhere":
                return True
            case "downstream":
                is_there = above.name in self.upstream.get(below.name, ())
                return is_there and _spans(edge.span, above, below, self.reach.get(below.name, 0))
            case "same":
                return above.name == below.name and _follows_here(edge.span, cause, follower)


def _follows_here(span: Span, cause: Candidate, follower: Candidate) -> bool:
    above, below = cause.subject, follower.subject
    if above.kind == below.kind and day_of(above) == day_of(below):
        return _aspect_rank(above) < _aspect_rank(below)
    return _spans(span, above, below, _carried(cause, follower))


def _spans(span: Span, above: Subject, below: Subject, reach: int) -> bool:
    if span == "gap":
        return below.aspect in (GAPS if above.name == below.name else LEARNED)
    first, day = day_of(above), day_of(below)
    if span == "any" or first is None or day is None:
        return span == "any"
    return first == day if span == "day" else timedelta(0) <= day - first <= timedelta(reach)


NO_CAUSES = Causes(edges=())
"""Every incident stands for itself."""


def day_of(subject: Subject) -> date | None:
    """Return the day that a subject is of; None for the whole of something, and for runs."""
    return _day(subject.partition) if subject.kind in _OF_DAYS else None


@lru_cache(maxsize=4096)
def _day(partition: str) -> date | None:
    if partition == WHOLE:
        return None
    try:
        return key_day(partition)
    except PlatformError:
        return None


def _carried(cause: Candidate, follower: Candidate) -> int:
    """Return for how many days a bad day shows in later days of the same table.

    In what is compared with it; and without end in the same check, which a fault that lasts fails
    from day to day. What only follows carries nothing on but itself.
    """
    above, below = cause.subject, follower.subject
    if above.aspect == below.aspect or (cause.is_root and below.aspect in LEARNED):
        return REACH_DAYS
    return 0


def _is_awaited(awaits: Collection[str], subject: Subject) -> bool:
    if subject.kind == "days":
        return any(Subject.parse(key).name == subject.name for key in awaits)
    built = Subject("partition", subject.name, "", subject.partition).key
    return built in awaits or Subject("check", subject.name, subject.aspect).key in awaits


def _aspect_rank(subject: Subject) -> int:
    order = STREAM_ORDER if subject.kind == "stream" else CHECK_ORDER
    if subject.kind not in {"check", "stream"}:
        return 0
    return order.index(subject.aspect) if subject.aspect in order else len(order)
