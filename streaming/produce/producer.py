"""Sends the rows of a file to a source's topic, at a pace, as a producer of the user's would.

Idempotent in what it means downstream: the broker drops the client's own retries
(``enable.idempotence``), and a second run sends the same event ids, which are duplicates within the
source's dedup horizon. A source without an event id counts each run.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millrace.calendar import FIRST_MS, LAST_MS, day_ms, day_of, to_datetime, to_ms
from millrace.errors import DataError, NotDeclared, nearest
from millrace.plan import Plan, SourcePlan
from resources.endpoints import kafka_bootstrap
from resources.kafka.client import SOURCE_PARTITIONS, Topic, engine_error, ensure_topics, producer
from resources.settings import Settings
from streaming.produce.event_files import TIME, read_events

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import KafkaError, Message

_CHUNK = 5_000
_TICK_S = 0.005
_SHOW_EVERY_S = 0.1

Advance = Callable[[int, int], None]
"""Called with rows sent and rows in all, a few times a second."""


@dataclass(frozen=True)
class ProduceReport:
    """What was sent.

    Attributes:
        rows: rows that the broker acknowledged.
        key: the column records are keyed by; None: they are spread over the partitions.
        first_ms: event time of the first row sent, as sent; None if there was none.
        last_ms: event time of the last row sent, as sent.
        late: rows older than the source allows at the time they were sent: dead letters.
        timeless: rows of the file without an event time; not sent.
    """

    source: str
    topic: str
    rows: int
    key: str | None
    first_ms: int | None
    last_ms: int | None
    late: int
    timeless: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Pace:
    """When each row leaves, and how it is stamped.

    Attributes:
        rate: rows a second; None: with ``shift_to_now`` the file's own gaps, else at once.
        shift_to_now: stamp each row with the moment it is sent; an ingest-time column moves by
            as much, other columns stay.
    """

    rate: float | None = None
    shift_to_now: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise DataError(
                f"a rate of {self.rate:g} rows a second sends nothing", fix="--rate 500"
            )


def produce(
    settings: Settings,
    plan: Plan,
    source_name: str,
    path: Path,
    *,
    pace: Pace | None = None,
    start: date | None = None,
    end: date | None = None,
    progress: Advance | None = None,
) -> ProduceReport:
    """Send a file's rows in event-time order, and wait until the broker has them.

    Records are JSON of the declared columns: timestamps ISO-8601 with milliseconds, decimals exact
    numbers, bytes base64. They are keyed by the join key of the first view that reads the source,
    so that an entity's events keep their order; without a view by the event id.

    Args:
        settings: names Kafka.
        plan: holds the source.
        source_name: has a stream.
        path: a Parquet, CSV or JSON-lines file.
        pace: by default all at once, with the file's times.
        start: first day of event time sent, UTC; None: from the first row.
        end: the day after the last; None: to the last row.
        progress: told how far it is.

    Raises:
        NotDeclared: no such source.
        DataError: the source has no stream, or the file does not hold its columns.
        EngineUnavailable: Kafka is away.
    """
    source = source_to_send_to(plan, source_name)
    topic = source.stream.topic if source.stream else ""
    found = read_events(path, source)
    table = _between(found.table, start, end)
    bootstrap = kafka_bootstrap(settings)
    config = {"message.timestamp.type": "LogAppendTime"}
    ensure_topics(bootstrap, [Topic(topic, SOURCE_PARTITIONS, config)])
    sender = _Sender(bootstrap, source, topic, _key_column(plan, source))
    report = sender.send(table, pace or Pace(), progress or (lambda *_: None))
    return replace(report, timeless=found.timeless)


def source_to_send_to(plan: Plan, name: str) -> SourcePlan:
    """Return a source with a stream of JSON.

    Raises:
        NotDeclared: there is no such source.
        DataError: it has no such stream.
    """
    source = plan.sources.get(name)
    if source is None:
        raise NotDeclared(f"no source {name!r}", fix=nearest(name, list(plan.sources)))
    if source.stream is None:
        raise DataError(
            "the source has no stream to send to",
            where=f"source {name}",
            fix="give it `stream: {topic: …, format: json}`",
        )
    return source


def _key_column(plan: Plan, source: SourcePlan) -> str | None:
    views = plan.views_of(source.name)
    return views[0].join_keys[0] if views else source.event_id


def _between(table: "pa.Table", start: date | None, end: date | None) -> "pa.Table":
    import pyarrow.compute as pc

    if start is not None:
        table = table.filter(pc.greater_equal(table[TIME], day_ms(start)))
    if end is not None:
        table = table.filter(pc.less(table[TIME], day_ms(end)))
    return table


class _Sender:
    """Sends one table, once."""

    def __init__(self, bootstrap: str, source: SourcePlan, topic: str, key: str | None) -> None:
        import msgspec

        self._bootstrap, self._source, self._topic, self._key = bootstrap, source, topic, key
        self._producer = producer(bootstrap)
        self._encode = msgspec.json.Encoder(decimal_format="number").encode
        self._acknowledged = 0
        self._failed: KafkaError | None = None
        self._first_ms: int | None = None
        self._last_ms: int | None = None
        self._late = 0

    def send(self, table: "pa.Table", pace: Pace, progress: Advance) -> ProduceReport:
        began = shown = time.monotonic()
        total = table.num_rows
        waiting = _Waiting(pace, table[TIME][0].as_py() if total else 0)
        for sent, (row, event_ms) in enumerate(self._rows(table)):
            if waiting.is_early(sent, event_ms):
                self._producer.poll(0)
                waiting.wait(sent, event_ms)
            self._send_row(row, event_ms, pace)
            now = time.monotonic()
            if now - shown > _SHOW_EVERY_S:
                self._producer.poll(0)
                self._raise_if_failed()
                progress(sent + 1, total)
                shown = now
        while self._producer.flush(1.0) > 0:
            progress(self._acknowledged, total)
        self._raise_if_failed()
        progress(total, total)
        return ProduceReport(
            source=self._source.name,
            topic=self._topic,
            rows=self._acknowledged,
            key=self._key,
            first_ms=self._first_ms,
            last_ms=self._last_ms,
            late=self._late,
            timeless=0,
            seconds=round(time.monotonic() - began, 3),
        )

    def _rows(self, table: "pa.Table") -> Iterator[tuple[dict[str, Any], int]]:
        for start in range(0, table.num_rows, _CHUNK):
            chunk = table.slice(start, _CHUNK)
            times = chunk[TIME].to_pylist()
            columns = {c.name: _json_values(chunk[c.name]) for c in self._source.columns}
            for i, event_ms in enumerate(times):
                yield {name: values[i] for name, values in columns.items()}, event_ms

    def _send_row(self, row: dict[str, Any], event_ms: int, pace: Pace) -> None:
        now_ms = time.time_ns() // 1_000_000
        key = row[self._key] if self._key else None
        if pace.shift_to_now:
            self._stamp(row, event_ms, now_ms)
            event_ms = now_ms
        self._late += now_ms - event_ms > self._source.allowed_lateness_ms
        self._first_ms = event_ms if self._first_ms is None else self._first_ms
        self._last_ms = event_ms
        value = self._encode(row)
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=value,
                    key=None if key is None else str(key).encode(),
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
                self._raise_if_failed()
            else:
                return

    def _stamp(self, row: dict[str, Any], event_ms: int, now_ms: int) -> None:
        source = self._source
        for name in {source.event_time, source.ingest_time} - {None}:
            kind = source.column(str(name)).type.kind
            row[str(name)] = _stamped(row[str(name)], kind, event_ms, now_ms)

    def _delivered(self, error: "KafkaError | None", _message: "Message") -> None:
        if error is None:
            self._acknowledged += 1
        else:
            self._failed = error

    def _raise_if_failed(self) -> None:
        if self._failed is not None:
            what = f"{self._acknowledged} rows were taken, then one was not"
            raise engine_error(self._failed, self._bootstrap, what=what)


def _json_values(column: "pa.ChunkedArray") -> list[Any]:
    """Return a column as what the encoder writes: instants as text, the rest as it is."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_timestamp(column.type):
        floored = pc.floor_temporal(column, unit="millisecond")
        naive = floored.cast(pa.timestamp("ms", tz="UTC"), safe=False)
        column = pc.strftime(naive, format="%Y-%m-%dT%H:%M:%SZ")
    values: list[Any] = column.to_pylist()
    return values


def _stamped(value: Any, kind: str, event_ms: int, now_ms: int) -> Any:
    """Return a time column's value moved by as much as the event; a date to the day it is now."""
    from datetime import datetime

    if value is None:
        return None
    shift_ms = now_ms - event_ms
    if kind == "timestamp":
        moved_ms = to_ms(datetime.fromisoformat(value)) + shift_ms
        # An arrival far from its event stays within the calendar.
        moved = to_datetime(min(max(moved_ms, FIRST_MS), LAST_MS))
        return moved and moved.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if kind == "date":
        return day_of(now_ms)
    return value + shift_ms


class _Waiting:
    """The moment at which each row is due."""

    def __init__(self, pace: Pace, first_ms: int) -> None:
        self._pace = pace
        self._first_ms = first_ms
        self._began = time.monotonic()

    def _due(self, number: int, event_ms: int) -> float:
        if self._pace.rate is not None:
            return self._began + number / self._pace.rate
        if self._pace.shift_to_now:
            return self._began + (event_ms - self._first_ms) / 1000
        return self._began

    def is_early(self, number: int, event_ms: int) -> bool:
        return self._due(number, event_ms) > time.monotonic()

    def wait(self, number: int, event_ms: int) -> None:
        time.sleep(max(_TICK_S, self._due(number, event_ms) - time.monotonic()))
