"""What every answer must be, recomputed from the topic by brute force.

Rows come from ``tests.live.strict_rows``, verdicts and values from ``tests.reference``: nothing of
the platform's kernel, judge or plans is used. Entities are indexed first, so that a hundred
thousand events and hundreds of entities take seconds.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests import reference
from tests.live.strict_rows import NotAnEvent, read_row
from tests.live.topic_records import Record

Row = Mapping[str, Any]


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
    """A view: the join keys, which rows count, and its features by name."""

    keys: tuple[str, ...]
    start_ms: int
    features: Mapping[str, OracleFeature]
    where: Callable[[Row], bool | None] = lambda _: True


@dataclass(frozen=True)
class Books:
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
        """Dead letters by reason, all four."""
        return {r: self.verdicts.get(r, 0) for r in ("malformed", "schema", "late", "future")}


@dataclass(frozen=True)
class Expected:
    """A feature's value, and the event time of the newest event of its window."""

    value: Any
    newest_ms: int | None


@dataclass
class _Entity:
    """The events of one entity by event time; ``inputs``, by reader, are made when needed."""

    events: list[reference.Event] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    inputs: dict[int, list[reference.Event]] = field(default_factory=dict)


class TopicOracle:
    """The answers to any question about a topic, as of any instant."""

    def __init__(self, rules: SourceRules, records: Sequence[Record]) -> None:
        self._rules = rules
        self._counted, self.books = _judged(rules, records)
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
        return {
            name: self._one(found, feature, key, as_of_ms, view.start_ms)
            for name, feature in view.features.items()
        }

    def _one(
        self,
        entity: _Entity,
        feature: OracleFeature,
        key: object,
        as_of_ms: int,
        start_ms: int,
    ) -> Expected:
        start, end = reference.bounds(feature.reference, as_of_ms)
        low = 0 if start is None else bisect_left(entity.times, start)
        high = bisect_left(entity.times, end)
        # Cutting by time only spares work: the reference judges every event it is given.
        events = self._inputs(entity, feature)[low:high]
        value = reference.value(events, feature.reference, key, as_of_ms, start_ms=start_ms)
        known = [
            e.event_ms
            for e in entity.events[low:high]
            if e.event_ms is not None and e.event_ms >= start_ms and e.ingest_ms < as_of_ms
        ]
        return Expected(value, max(known, default=None))

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


def _judged(rules: SourceRules, records: Sequence[Record]) -> tuple[list[reference.Event], Books]:
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
    return reference.accepted(judged), Books(len(records), dict(verdicts), dead)
