"""The topic ``<topic>.dlq``: each dead letter once, keyed by where it stood in the source's topic.

Messages are sent before the lake's commit that counts them. After a crash the topic's tail, from
the position that the last commit knew, says which dead letters were sent already; those are not sent
again, and keep the reason that was told. So a reader meets each dead letter once, without transactions.
(What a killed producer had on the wire when its successor looked could still arrive after it; the
successor needs longer to start than a broker to take a request.)
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from millrace.errors import EngineUnavailable
from millrace.names import dead_letter_topic
from resources.kafka.client import (
    begin_offsets,
    consumer,
    end_offsets,
    engine_error,
    kafka_errors,
    producer,
)
from streaming.archive.intake import Record

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

log = logging.getLogger(__name__)

_ANSWER_S = 30.0
_POLL_S = 0.1
_LARGEST_BYTES = 64 << 20


class DeadLetter(NamedTuple):
    """A record that was refused."""

    record: Record
    reason: str
    detail: str
    event_ms: int | None


Place = tuple[int, int, int]
"""Partition, offset and time of a record; offsets alone begin anew with a topic made again."""


def place_of(record: Record) -> Place:
    """Return where a record stands."""
    return record.partition, record.offset, record.arrived_ms


class DeadLetterTopic:
    """Writes the dead letters of one source, and reads them back."""

    def __init__(self, bootstrap: str, source: str, topic: str) -> None:
        self.name = dead_letter_topic(topic)
        self._bootstrap = bootstrap
        self._source = source
        self._producer = producer(
            bootstrap, **{"message.timeout.ms": 0, "message.max.bytes": _LARGEST_BYTES}
        )
        self._failed: KafkaError | None = None
        self.positions: dict[int, int] = {}
        """Where the topic's partitions end, as far as this process knows."""

    def read_back(self, known: Mapping[int, int]) -> dict[Place, str]:
        """Return the reasons of this source's dead letters from the known positions on.

        Raises:
            EngineUnavailable: Kafka does not answer.
        """
        begins = begin_offsets(self._bootstrap, self.name)
        ends = end_offsets(self._bootstrap, self.name)
        # A topic that is shorter than what was known of it was made again.
        starts = {
            p: known[p] if begin <= known.get(p, -1) <= ends[p] else begin
            for p, begin in begins.items()
        }
        self.positions = dict(ends)
        found: dict[Place, str] = {}
        for message in self._tail(starts, ends):
            headers = {name: value for name, value in message.headers() or [] if value is not None}
            if headers.get("source") == self._source.encode():
                place = tuple(int(headers[n]) for n in ("partition", "offset", "timestamp_ms"))
                found[place] = headers["reason"].decode()  # type: ignore[index]
        return found

    def _tail(self, starts: Mapping[int, int], ends: Mapping[int, int]) -> "Iterable[Message]":
        from confluent_kafka import KafkaError, TopicPartition

        waiting = {p for p, start in starts.items() if start < ends[p]}
        if not waiting:
            return
        reader = consumer(self._bootstrap, **{"enable.partition.eof": True})
        try:
            reader.assign([TopicPartition(self.name, p, starts[p]) for p in waiting])
            heard_s = time.monotonic()
            while waiting:
                with kafka_errors(self._bootstrap):
                    messages = reader.consume(1000, _POLL_S)
                if messages:
                    heard_s = time.monotonic()
                elif time.monotonic() - heard_s > _ANSWER_S:
                    raise EngineUnavailable(f"topic {self.name!r} is silent", where=self._bootstrap)
                for message in messages:
                    error = message.error()
                    if error is None:
                        yield message
                    elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                        waiting.discard(message.partition())
                    else:
                        what = f"topic {self.name!r} cannot be read"
                        raise engine_error(error, self._bootstrap, what=what)
        finally:
            reader.close()

    def send(self, dead_letters: Iterable[DeadLetter], beat: Callable[[], bool]) -> bool:
        """Send dead letters and wait until the broker has them all.

        Args:
            dead_letters: in the order of their records.
            beat: called about once a second; False gives up the wait.

        Returns:
            False if ``beat`` gave up; some dead letters may have arrived.

        Raises:
            EngineError: the broker refuses a dead letter for another reason than its size.
        """
        partitions = len(self.positions)
        for dead_letter in dead_letters:
            while not self._hand_over(dead_letter, partitions):
                if not beat():
                    return False
        while self._producer.flush(1.0) > 0:
            if not beat():
                return False
        if self._failed is not None:
            what = f"topic {self.name!r} cannot be written"
            raise engine_error(self._failed, self._bootstrap, what=what)
        return True

    def _hand_over(self, dead_letter: DeadLetter, partitions: int) -> bool:
        record = dead_letter.record
        headers = {
            "reason": dead_letter.reason,
            "detail": dead_letter.detail,
            "source": self._source,
            "partition": str(record.partition),
            "offset": str(record.offset),
            "timestamp_ms": str(record.arrived_ms),
        }
        try:
            self._producer.produce(
                self.name,
                value=record.value,
                key=f"{record.partition}:{record.offset}".encode(),
                partition=record.partition % partitions,
                headers={name: text.encode() for name, text in headers.items()},
                on_delivery=self._delivered,
            )
        except BufferError:
            self._producer.poll(1.0)
            return False
        return True

    def _delivered(self, error: "KafkaError | None", message: "Message") -> None:
        from confluent_kafka import KafkaError

        if error is None:
            partition = message.partition()
            end = max(self.positions.get(partition, 0), message.offset() + 1)
            self.positions[partition] = end
        elif error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            key = (message.key() or b"").decode()
            log.error("%s: dead letter %s is too large; it is in the lake alone", self.name, key)
        else:
            self._failed = error
