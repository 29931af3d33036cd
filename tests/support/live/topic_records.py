"""A topic as it lies in the broker: every record's bytes, read with a plain consumer."""

import time
from dataclasses import dataclass
from typing import Any

READ_DEADLINE_S = 60


@dataclass(frozen=True, slots=True)
class Record:
    """One record; ``timestamp_ms`` is the broker's append time."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset behind the last record of each partition."""
    consumer = _consumer(bootstrap)
    try:
        return {p: end for p, (_, end) in _watermarks(consumer, topic).items()}
    finally:
        consumer.close()


def read_records(bootstrap: str, topic: str, after: dict[int, int] | None = None) -> list[Record]:
    """Return the records from ``after`` (default: the beginning) to the present end.

    Ordered by partition and offset.
    """
    from confluent_kafka import TopicPartition

    consumer = _consumer(bootstrap)
    try:
        marks = _watermarks(consumer, topic)
        first = {p: max(begin, (after or {}).get(p, 0)) for p, (begin, _) in marks.items()}
        open_partitions = {p for p, (_, end) in marks.items() if first[p] < end}
        consumer.assign([TopicPartition(topic, p, first[p]) for p in open_partitions])
        records: list[Record] = []
        deadline = time.monotonic() + READ_DEADLINE_S
        while open_partitions:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{topic} was not read to its end in {READ_DEADLINE_S} s")
            for message in consumer.consume(10_000, timeout=0.5):
                if message.error():
                    raise RuntimeError(f"{topic}: {message.error()}")
                end = marks[message.partition()][1]
                if message.offset() < end:
                    records.append(_record(message))
                if message.offset() >= end - 1:
                    open_partitions.discard(message.partition())
    finally:
        consumer.close()
    records.sort(key=lambda r: (r.partition, r.offset))
    return records


def _record(message: Any) -> Record:
    return Record(
        partition=message.partition(),
        offset=message.offset(),
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
    )


def _consumer(bootstrap: str) -> Any:
    from confluent_kafka import Consumer

    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests-reading-all",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
        }
    )


def _watermarks(consumer: Any, topic: str) -> dict[int, tuple[int, int]]:
    from confluent_kafka import TopicPartition

    described = consumer.list_topics(topic, timeout=20).topics[topic]
    if described.error is not None:
        return {}
    return {
        p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20)
        for p in described.partitions
    }
