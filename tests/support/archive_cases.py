"""A topic of awkward events with chosen record times, and what the archive must make of it."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from random import Random
from typing import Any

from millrace.plan import Column, SourcePlan, StreamPlan
from millrace.types import INT64, STRING, TIMESTAMP, decimal
from tests import reference
from tests.support.event_bytes import MALFORMED
from tests.support.source_plans import source_plan

BASE_MS = 1_760_000_000_000
HOUR_MS, SECOND_MS = 3_600_000, 1_000
HORIZON_MS = 20_000
PARTITIONS = 2


def payments(topic: str, **changes: Any) -> SourcePlan:
    """Return a source with a short dedup horizon, so that ids come back after it too."""
    columns = (
        Column("id", STRING),
        Column("at", TIMESTAMP),
        Column("who", INT64),
        Column("amount", decimal(12, 2)),
    )
    plan: dict[str, Any] = {
        "name": topic,
        "columns": columns,
        "event_id": "id",
        "dedup_horizon_ms": HORIZON_MS,
        "stream": StreamPlan(topic, "json"),
    }
    return source_plan(**{**plan, **changes})


@dataclass(frozen=True)
class Sent:
    """One record as it is sent; ``event`` is None where the bytes hold none."""

    partition: int
    arrived_ms: int
    value: bytes | None
    reason: str | None
    event: reference.Event | None


def awkward(
    count: int, rng: Random, start_ms: int = BASE_MS, *, scattered: bool = True
) -> list[Sent]:
    """Return records in order of arrival: a tenth malformed or unfit, copies, late and future.

    Copies of an event lie in any partition; with ``scattered=False`` in that of the event, so that
    a reader need not wait for the other partition to know which came first.
    """
    sent: list[Sent] = []
    now = start_ms
    for number in range(count):
        now += rng.choice([0, 1, 40, 250])
        sent.append(_record(number, now, sent, rng, scattered=scattered))
    return sent


def _record(number: int, now: int, sent: Sequence[Sent], rng: Random, *, scattered: bool) -> Sent:
    partition = rng.randrange(PARTITIONS)
    lag = rng.choice([0, 0, 5, 900, HOUR_MS, HOUR_MS + 1, -4_000, -5_000, -5_001])
    event_id = None if rng.random() < 0.05 else f"{now}-{number}"
    copied = [s for s in sent[-60:] if s.event is not None and s.event.event_id is not None]
    if copied and rng.random() < 0.3:
        original = rng.choice(copied)
        assert original.event is not None
        event_id = str(original.event.event_id)
        partition = partition if scattered else original.partition
    cents = rng.randrange(10_000)
    row = {"id": event_id, "at": now - lag, "who": None if rng.random() < 0.1 else cents % 7}
    value = json.dumps({**row, "amount": f"{cents // 100}.{cents % 100:02d}"}).encode()
    chance = rng.random()
    if chance < 0.06:
        broken = MALFORMED[rng.choice(list(MALFORMED))](value, rng)
        return Sent(partition, now, broken, "malformed", None)
    if chance < 0.1:
        unfit = value[:-1] + b',"amount":1.005}'
        return Sent(partition, now, unfit, "schema", None)
    event = reference.Event(row["who"], now - lag, now, Decimal(cents) / 100, event_id)
    return Sent(partition, now, value, None, event)


@dataclass(frozen=True)
class Expected:
    """What must be found: rows of events by place, reasons of dead letters by place, duplicates."""

    events: dict[tuple[int, int], tuple[Any, ...]]
    dead_letters: dict[tuple[int, int], str]
    duplicates: set[tuple[int, int]]

    def counts(self) -> dict[str, int]:
        """Return the counts as the books have them."""
        reasons = Counter(self.dead_letters.values())
        return {
            "events": len(self.events),
            "duplicates": len(self.duplicates),
            **{reason: reasons[reason] for reason in ("malformed", "schema", "late", "future")},
        }


def expected(sent: Sequence[Sent], source: SourcePlan) -> Expected:
    """Judge records by the reference, in order of (record time, partition, offset)."""
    offsets: Counter[int] = Counter()
    placed = []
    for record in sent:
        placed.append(((record.partition, offsets[record.partition]), record))
        offsets[record.partition] += 1
    placed.sort(key=lambda one: (one[1].arrived_ms, one[0]))
    events = [(place, record.event) for place, record in placed if record.event is not None]
    judged = reference.judge(
        [event for _, event in events],
        allowed_lateness_ms=source.allowed_lateness_ms,
        clock_skew_ms=source.clock_skew_ms,
        dedup_horizon_ms=source.dedup_horizon_ms,
    )
    verdicts = list(zip((place for place, _ in events), judged, strict=True))
    dead_letters = {place: record.reason for place, record in placed if record.reason is not None}
    dead_letters |= {place: v for place, (v, _) in verdicts if v in {"late", "future"}}
    return Expected(
        {
            place: (e.event_id, e.event_ms, e.ingest_ms, e.key, e.value)
            for place, (verdict, e) in verdicts
            if verdict == "accepted"
        },
        dead_letters,
        {place for place, (verdict, _) in verdicts if verdict == "duplicate"},
    )
