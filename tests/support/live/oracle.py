"""What every answer must be, recomputed from the topic by brute force.

Rows come from ``tests.support.live.strict_rows``, verdicts and values from ``tests.reference``: nothing of
the platform's kernel, judge or plans is used. Entities are indexed first, so that a hundred
thousand events and hundreds of entities take seconds.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from millrace.aggregates import AGGREGATES
from tests import reference
from tests.support.live.strict_rows import NotAnEvent, read_row
from tests.support.live.topic_records import Record

Row = Mapping[str, Any]

_OVER = "OVER_LIMIT"
_LIMITED = frozenset(name for name, entry in AGGREGATES.items() if entry.is_over is not None)
_AGES = frozenset(
    form for name, entry in AGGREGATES.items() if entry.is_age for form in (name, f"{name}_rows")
)


@dataclass(frozen=True)
class SourceRules:
    """What a source declares: columns and types, and how its events are judged."""

    types: Mapping[str, str]
    event_time: str
    event_id: str | None
    allowed_lateness_ms: int
    clock_skew_ms: int


@dataclass(frozen=True)
class OracleFeature:
    """A feature: the reference's, over ``input`` of a row; None for a count of rows."""

    reference: reference.Feature
    input: Callable[[Row], Any] | None = None


@dataclass(frozen=True)
class OracleView:
    """A view: the join keys, which rows count, and its features by name; ``derived``: of these."""

    keys: tuple[str, ...]
    start_ms: int
    features: Mapping[str, OracleFeature]
    where: Callable[[Row], bool | None] = lambda _: True
    derived: Mapping[str, reference.Derived] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """All its features."""
        return [*self.features, *self.derived]


@dataclass(frozen=True)
class Counts:
    """What became of every record of a topic."""

    records: int
    verdicts: Mapping[str, int]
    dead: Mapping[tuple[int, int], str]

    @property
    def events(self) -> int:
        """Events that count."""
        return self.verdicts.get("accepted", 0)

    @property
    def duplicates(self) -> int:
        """Accepted events that had come before."""
        return self.verdicts.get("duplicate", 0)

    @property
    def dead_letters(self) -> dict[str, int]:
        """Dead dead letters by reason, all four."""
        return {r: self.verdicts.get(r, 0) for r in ("malformed", "schema", "late", "future")}


@dataclass(frozen=True)
class Expected:
    """A feature's value, the event time of the newest event of its window, and its status.

    ``status`` is that of an entity that is known and a value that is not stale.
    """

    value: Any
    newest_ms: int | None
    status: str


@dataclass
class _Entity:
    """The events of one entity by event time; ``inputs``, by reader, are made when needed.

    ``answers`` are those of features over the events of two places.
    """

    events: list[reference.Event] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    inputs: dict[int, list[reference.Event]] = field(default_factory=dict)
    answers: dict[tuple[int, int, int], Expected] = field(default_factory=dict)


class TopicOracle:
    """The answers to any question about a topic, as of any instant."""

    def __init__(self, rules: SourceRules, records: Sequence[Record]) -> None:
        self._rules = rules
        self._counted, self.books = _judged(rules, records)
        self._last_ms = max((record.timestamp_ms for record in records), default=0)
        self._entities: dict[int, dict[object, _Entity]] = {}

    def keys(self, view: OracleView) -> list[Any]:
        """Return every entity with an event of the view; a tuple for several join keys."""
        return list(self._index(view))

    def events_of(self, view: OracleView, key: object) -> int:
        """Return how many events of the view an entity has."""
        found = self._index(view).get(key)
        return len(found.events) if found else 0

    def expected(self, view: OracleView, key: object, as_of_ms: int) -> dict[str, Expected]:
        """Return what each feature of an entity is at an instant."""
        found = self._index(view).get(key, _Entity())
        aggregates = {
            name: self._one(found, feature, key, as_of_ms, view.start_ms)
            for name, feature in view.features.items()
        }
        values = reference.derive(
            {name: one.value for name, one in aggregates.items()}, view.derived, as_of_ms
        )
        newest = reference.newest(
            {name: one.newest_ms for name, one in aggregates.items()}, view.derived
        )
        over = reference.over_limit(
            [name for name, one in aggregates.items() if one.status == _OVER],
            values,
            view.derived,
            as_of_ms,
        )
        return {
            name: Expected(value, newest[name], _status(value, is_over=name in over))
            for name, value in values.items()
        }

    def _one(
        self,
        entity: _Entity,
        feature: OracleFeature,
        key: object,
        as_of_ms: int,
        start_ms: int,
    ) -> Expected:
        asked = feature.reference
        start, end = reference.bounds(asked, as_of_ms)
        low = 0 if start is None else bisect_left(entity.times, start)
        high = bisect_left(entity.times, end)
        # All have arrived, and of the same events the same is said but where time alone counts.
        is_kept = (
            as_of_ms > self._last_ms and asked.session_ms is None and asked.aggregate not in _AGES
        )
        kept = (id(feature), low, high)
        if is_kept and kept in entity.answers:
            return entity.answers[kept]
        # Cutting by time only spares work: the reference judges every event it is given.
        events = self._inputs(entity, feature)[low:high]
        value = reference.value(events, asked, key, as_of_ms, start_ms=start_ms)
        known = [
            e
            for e in entity.events[low:high]
            if e.event_ms is not None and e.event_ms >= start_ms and e.ingest_ms < as_of_ms
        ]
        run = reference.of_session(known, asked, as_of_ms)
        newest_ms = max((e.event_ms for e in run if e.event_ms is not None), default=None)
        is_over = False
        if asked.aggregate in _LIMITED:
            counted = replace(asked, aggregate="distinct", parameters=(("limit", 10**9),))
            different = reference.value(events, counted, key, as_of_ms, start_ms=start_ms)
            assert isinstance(different, int)
            is_over = different > dict(asked.parameters)["limit"]
        found = Expected(value, newest_ms, _status(value, is_over=is_over))
        if is_kept:
            entity.answers[kept] = found
        return found

    @staticmethod
    def _inputs(entity: _Entity, feature: OracleFeature) -> list[reference.Event]:
        if feature.input is None:
            return entity.events
        read = feature.input
        found = entity.inputs.get(id(read))
        if found is None:
            found = [replace(e, value=read(e.value)) for e in entity.events]  # type: ignore[arg-type]
            entity.inputs[id(read)] = found
        return found

    def _index(self, view: OracleView) -> dict[object, _Entity]:
        found = self._entities.get(id(view))
        if found is None:
            found = self._entities[id(view)] = _indexed(view, self._counted)
        return found


def _status(value: object, *, is_over: bool) -> str:
    if is_over:
        return _OVER
    return "NULL_VALUE" if value is None else "PRESENT"


def _indexed(view: OracleView, counted: Iterable[reference.Event]) -> dict[object, _Entity]:
    grouped: dict[object, list[reference.Event]] = {}
    for event in counted:
        row: Row = event.value  # type: ignore[assignment]
        key = tuple(row[name] for name in view.keys)
        if None in key or view.where(row) is not True:
            continue
        shown = key[0] if len(key) == 1 else key
        grouped.setdefault(shown, []).append(replace(event, key=shown))
    entities: dict[object, _Entity] = {}
    for entity, events in grouped.items():
        events.sort(key=lambda e: e.event_ms or 0)
        entities[entity] = _Entity(events, [e.event_ms or 0 for e in events])
    return entities


def _judged(rules: SourceRules, records: Sequence[Record]) -> tuple[list[reference.Event], Counts]:
    verdicts: Counter[str] = Counter()
    dead: dict[tuple[int, int], str] = {}
    read: list[tuple[Record, reference.Event]] = []
    for record in records:
        try:
            row = read_row(record.value, rules.types)
        except NotAnEvent as refusal:
            verdicts[str(refusal)] += 1
            dead[record.partition, record.offset] = str(refusal)
            continue
        event_id = None if rules.event_id is None else row[rules.event_id]
        event_ms = row[rules.event_time]
        event = reference.Event(None, event_ms, record.timestamp_ms, row, event_id)
        read.append((record, event))
    judged = reference.judge(
        [event for _, event in read],
        allowed_lateness_ms=rules.allowed_lateness_ms,
        clock_skew_ms=rules.clock_skew_ms,
        dedup_horizon_ms=None if rules.event_id is None else reference.DAY_MS,
    )
    for (record, _), (verdict, _) in zip(read, judged, strict=True):
        verdicts[verdict] += 1
        if verdict not in {"accepted", "duplicate"}:
            dead[record.partition, record.offset] = verdict
    return reference.accepted(judged), Counts(len(records), dict(verdicts), dead)
