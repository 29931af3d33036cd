"""Reading a topic: all partitions by hand, handed out in the order of arrival.

Partitions are read at different speeds after an outage. Which of two copies of an event came first
must not depend on that, so records are held back until no partition can still deliver an earlier
one: a k-way merge by record time.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from millrace.names import archive_group
from resources.kafka.client import consumer, engine_error, kafka_errors

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

_FETCH = 2000
_MOST_HELD = 80_000
_MOST_HELD_BYTES = 64 << 20
"""What all partitions of a topic together may have waiting in memory, about."""
_SILENCE_S = 10.0
"""A partition that says nothing for so long, while others speak, is waited for no more: its leader may
be gone. While none of them speaks the broker is away, or this process was held up: that tells nothing."""
_LONGEST_STEP_S = 1.0


class Record(NamedTuple):
    """A record as the broker has it; ``arrived_ms`` is its timestamp."""

    arrived_ms: int
    partition: int
    offset: int
    value: bytes | None


@dataclass
class _Partition:
    held: deque[Record] = field(default_factory=deque)
    held_bytes: int = 0
    at_end: bool = False
    heard_s: float = 0.0
    is_paused: bool = False
    next: int = 0
    """The offset after the newest record or marker that is known."""


class Intake:
    """The records of a topic from given offsets on."""

    def __init__(self, bootstrap: str, topic: str, offsets: Mapping[int, int]) -> None:
        from confluent_kafka import TopicPartition

        self._bootstrap = bootstrap
        self._topic = topic
        self.is_behind = False
        """There was more than one look takes in: an outage is being made up for, or load is high."""
        self._parts = {p: _Partition(next=offset) for p, offset in offsets.items()}
        self._heard_s = 0.0
        """How long anything was heard, in steps from one poll that heard something to the next."""
        self._polled_at_s = time.monotonic()
        self._consumer = consumer(
            bootstrap,
            **{
                "group.id": archive_group(topic),
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": 16_384,
            },
        )
        with kafka_errors(bootstrap):
            self._consumer.assign([TopicPartition(topic, p, o) for p, o in offsets.items()])

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()

    @property
    def is_drained(self) -> bool:
        """Everything that the topic held when it was looked at last has been handed out."""
        return all(part.at_end and not part.held for part in self._parts.values())

    def poll(self, wait_s: float) -> None:
        """Take in what is there, waiting at most ``wait_s`` for something.

        Raises:
            EngineRejected: an offset is not there any more, or the topic is gone.
        """
        self._balance()
        with kafka_errors(self._bootstrap):
            messages = self._consumer.consume(_FETCH, wait_s)
        self.is_behind = len(messages) == _FETCH
        self._advance(messages)
        for message in messages:
            error = message.error()
            if error is not None:
                self._note(error, message)
                continue
            value, number, offset = message.value(), message.partition(), message.offset()
            part = self._parts[number]
            part.held.append(Record(message.timestamp()[1], number, offset, value))
            if value:
                part.held_bytes += len(value)
            part.next = offset + 1
            part.at_end = False
            part.heard_s = self._heard_s

    def _advance(self, messages: "Sequence[Message]") -> None:
        now = time.monotonic()
        if any(map(_is_of_partition, messages)):
            self._heard_s += min(now - self._polled_at_s, _LONGEST_STEP_S)
        self._polled_at_s = now

    def _note(self, error: "KafkaError", message: "Message") -> None:
        from confluent_kafka import KafkaError

        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  (its public name)
            part = self._parts[message.partition()]
            part.at_end = True
            part.heard_s = self._heard_s
            # Transaction markers at the end have offsets, and are no records.
            part.next = max(part.next, message.offset())
            return
        # A broker that is away is looked for by the client; anything else needs a new beginning.
        if error.code() in {
            KafkaError._TRANSPORT,  # noqa: SLF001
            KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
            KafkaError._TIMED_OUT,  # noqa: SLF001
        }:
            return
        raise engine_error(error, self._bootstrap, what=f"topic {self._topic!r} cannot be read")

    def _balance(self) -> None:
        from confluent_kafka import TopicPartition

        share = len(self._parts) or 1
        for number, part in self._parts.items():
            is_full = (
                len(part.held) * share >= _MOST_HELD or part.held_bytes * share >= _MOST_HELD_BYTES
            )
            if is_full == part.is_paused:
                continue
            here = [TopicPartition(self._topic, number)]
            with kafka_errors(self._bootstrap):
                (self._consumer.pause if is_full else self._consumer.resume)(here)
            part.is_paused = is_full

    def take(self) -> Sequence[Record]:
        """Hand out the records that nothing earlier can precede any more, in order of arrival.

        Ordered by (record time, partition, offset), which is the order of arrival wherever the
        broker stamps its records.
        """
        bound = self._bound()
        taken: list[Record] = []
        for part in self._parts.values():
            while part.held and (bound is None or part.held[0].arrived_ms <= bound):
                record = part.held.popleft()
                part.held_bytes -= len(record.value) if record.value else 0
                taken.append(record)
        taken.sort(key=_arrival)
        return taken

    def _bound(self) -> int | None:
        """Return the newest time up to which all is known; None where all partitions are at the end."""
        awaited = [
            part for part in self._parts.values() if part.is_paused or self._is_awaited(part)
        ]
        return min((_known_until(part) for part in awaited), default=None)

    def _is_awaited(self, part: _Partition) -> bool:
        return not part.at_end and self._heard_s - part.heard_s < _SILENCE_S

    def positions(self) -> dict[int, int]:
        """Return the offset after everything that was handed out, by partition."""
        return {
            number: part.held[0].offset if part.held else part.next
            for number, part in self._parts.items()
        }


def _is_of_partition(message: "Message") -> bool:
    """Whether it comes from the broker: a record, or that a partition is at its end."""
    from confluent_kafka import KafkaError

    error = message.error()
    return error is None or error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001  (its public name)


def _known_until(part: _Partition) -> int:
    if not part.held:
        return -1
    # Producers' own time stamps may run backwards; the head must be free to go all the same.
    return max(part.held[0].arrived_ms, part.held[-1].arrived_ms)


def _arrival(record: Record) -> tuple[int, int, int]:
    return record[:3]
