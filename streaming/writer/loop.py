"""The writer's loop: read a batch, store it in one round trip, read the next.

It never gives up. A store or a broker that is away is waited for with nothing held in memory but
what Kafka's client has fetched; when the store is back, its markers say where to read on.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from millrace.codec import TAGS
from millrace.errors import PlatformError, StoreError
from millrace.names import WRITER_GROUP
from resources.kafka import client as kafka
from resources.store.errors import StoreMoved, Superseded
from resources.store.online import OnlineStore, TileWrite
from streaming.writer.feeds import Feed
from streaming.writer.presence import Presence
from streaming.writer.watch import Wanted, Watch, is_gone

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message

logger = logging.getLogger(__name__)

MOST_RECORDS = 10_000
"""Records of one round trip; also how much is read again after a failure."""

# A batch costs the store a call for each hash tag it touches, however few the tiles: where many
# come, they are gathered, and a few thousand share the 256 calls.
_BUSY_RECORDS = 256
_GATHER_S = 0.1
_POLL_S = 0.1
_SWEEP_S = 1.0
_LOG_S = 10.0
_ASIDE_S = 5.0
_FIRST_WAIT_S = 0.05
_LONGEST_WAIT_S = 1.0
_KAFKA_TIMEOUT_S = 2.0
# Nothing here is subscribed, so no group waits for polls; the fetched records are the only buffer.
_CONSUMER: Mapping[str, Any] = {
    "group.id": WRITER_GROUP,
    "auto.offset.reset": "error",
    "queued.max.messages.kbytes": 32_768,
    "fetch.message.max.bytes": 1_048_576,
    "max.poll.interval.ms": 86_400_000,
    "session.timeout.ms": 45_000,
}

_Ends = dict[str, dict[int, int]]
"""Of each topic and partition the offset behind a batch."""
_Writes = dict[str, dict[int, TileWrite]]
"""Of each topic and hash tag."""


class Writer:
    """Stores the tiles of all published versions, for the partitions that are its own."""

    def __init__(
        self,
        store: OnlineStore,
        bootstrap: str,
        presence: Presence,
        *,
        owns: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """Prepare a writer; nothing is connected yet.

        Args:
            store: the online store; closed in the end.
            bootstrap: Kafka.
            presence: told that the writer lives.
            owns: which partitions are its own, of every topic; several writers share them so.
        """
        self._store = store
        self._consumer: Consumer = kafka.consumer(bootstrap, **_CONSUMER)
        self._bootstrap = bootstrap
        self._presence = presence
        self._owns = owns
        self._watch = Watch(store, bootstrap, self._applied)
        self._feeds: dict[str, Feed] = {}
        self._aside: dict[str, float] = {}
        self._is_claimed = False
        self._wait_s = _FIRST_WAIT_S
        self._trouble = ""
        self._sent: _Ends = {}
        self._next_read = 0.0
        self._next_sweep = 0.0
        self._swept = 0
        self._rate = _Rate()

    def run(self, stop: Event) -> None:
        """Work until told to stop; then finish the batch and leave.

        Raises:
            Superseded: a newer writer has taken over.
        """
        self._watch.start()
        try:
            while not stop.is_set():
                self._presence.beat()
                self._round(stop)
            self._leave()
        finally:
            self._watch.leave()
            self._consumer.close()
            self._store.close()
            self._presence.leave()

    def _round(self, stop: Event) -> None:
        if self._watch.failure is not None:
            raise self._watch.failure
        try:
            self._follow_publications()
            if not self._is_claimed:
                self._claim()
            self._step()
        except Superseded:
            raise
        except PlatformError as error:
            self._forget_step()
            self._say_trouble(error)
            stop.wait(self._wait_s)
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    def _applied(self, topic: str) -> Mapping[int, int] | None:
        """Called by the watch: what is stored of a topic; None while the store's word is unknown."""
        feed = self._feeds.get(topic)
        return feed.positions if feed is not None and self._is_claimed else None

    def _follow_publications(self) -> None:
        wanted = self._watch.wanted
        if wanted is None:
            return
        now = time.monotonic()
        wanted = {t: one for t, one in wanted.items() if self._aside.get(t, 0.0) <= now}
        if wanted.keys() == self._feeds.keys():
            return
        self._finish()
        feeds = {}
        for topic, one in wanted.items():
            feed = self._feeds.get(topic) or self._new_feed(topic, one)
            if feed is not None:
                feeds[topic] = feed
        self._feeds = feeds
        self._is_claimed = False

    def _new_feed(self, topic: str, wanted: Wanted) -> Feed | None:
        partitions = tuple(p for p in wanted.partitions if self._owns(p))
        try:
            return Feed(wanted.version, partitions)
        except StoreError as error:
            logger.warning("%s is not followed: %s", topic, error)
            self._aside[topic] = math.inf
            return None

    def _claim(self) -> None:
        """Become the writer of all partitions, and read on from where the store stands."""
        if self._watch.wanted is None:
            return
        for feed in self._feeds.values():
            feed.take(self._store.claims.claim(feed.topic, feed.partitions, feed.epoch))
        starts: list[tuple[str, int, int]] = []
        behind = 0
        for feed in list(self._feeds.values()):
            for partition in feed.partitions:
                begin, end = self._span(feed, partition)
                if feed.is_of_another_topic(partition, end):
                    logger.warning("%s/%d was begun anew: read anew", feed.topic, partition)
                    self._store.claims.forget(feed.topic, partition)
                    feed.forget_markers(partition)
                start = feed.resume(partition, begin)
                starts.append((feed.topic, partition, start))
                behind += max(end - start, 0)
        self._assign(starts)
        for feed in self._feeds.values():
            feed.positions = {p: start for topic, p, start in starts if topic == feed.topic}
        logger.info("follows %d tile topics, %d records behind", len(self._feeds), behind)
        self._is_claimed = True
        self._wait_s, self._trouble = _FIRST_WAIT_S, ""
        self._presence.say_ready()

    def _span(self, feed: Feed, partition: int) -> tuple[int, int]:
        """Return the first offset of a partition and the one behind its last."""
        from confluent_kafka import KafkaException, TopicPartition

        with kafka.kafka_errors(self._bootstrap, what=f"{feed.topic!r} cannot be read"):
            try:
                found: tuple[int, int] = self._consumer.get_watermark_offsets(
                    TopicPartition(feed.topic, partition), timeout=_KAFKA_TIMEOUT_S, cached=False
                )
            except KafkaException as error:
                self._put_aside(feed.topic, error.args[0])
                raise
        return found

    def _put_aside(self, topic: str, error: "KafkaError") -> None:
        """Leave out a topic that is no more, so that it does not hold up the others."""
        if is_gone(error):
            self._aside[topic] = time.monotonic() + _ASIDE_S

    def _assign(self, starts: Sequence[tuple[str, int, int]]) -> None:
        from confluent_kafka import TopicPartition

        with kafka.kafka_errors(self._bootstrap):
            # What was fetched before does not come any more.
            self._consumer.assign([TopicPartition(*start) for start in starts])

    def _step(self) -> None:
        """Read and pack a batch while the store still works on the one before."""
        time.sleep(max(0.0, self._next_read - time.monotonic()))
        messages = self._read(0.0 if self._sent else _POLL_S)
        is_busy = _BUSY_RECORDS <= len(messages) < MOST_RECORDS
        self._next_read = time.monotonic() + (_GATHER_S if is_busy else 0.0)
        writes, ends = self._writes(messages)
        self._finish()
        if messages:
            self._send(writes)
            self._sent = ends
            self._rate.count(len(messages))
        self._sweep()

    def _send(self, writes: _Writes) -> None:
        """Send writes; what they say of the markers is believed at once.

        Should the store not do one, it will not do another that follows from it either, for their
        markers would not meet.
        """
        self._store.tiles.send([one for by_tag in writes.values() for one in by_tag.values()])
        for topic, by_tag in writes.items():
            self._feeds[topic].advance(by_tag)

    def _finish(self) -> None:
        """Wait for the batch that was sent, and count it as stored."""
        self._store.tiles.receive()
        for topic, ends in self._sent.items():
            self._feeds[topic].move(ends)
        self._sent = {}

    def _forget_step(self) -> None:
        """Leave what was sent to the store's own word, which the next claim hears."""
        self._is_claimed = False
        self._sent = {}
        self._store.tiles.hang_up()

    def _read(self, wait_s: float) -> "list[Message]":
        with kafka.kafka_errors(self._bootstrap):
            # consume() alone would wait for a full batch; the first record must not.
            first = self._consumer.poll(wait_s)
            if first is None:
                return []
            return [first, *self._consumer.consume(MOST_RECORDS - 1, 0)]

    def _writes(self, messages: "Sequence[Message]") -> tuple[_Writes, _Ends]:
        """Return the writes that store a batch, and the offsets behind it."""
        newest: dict[str, dict[bytes | None, Message]] = {}
        ends: _Ends = {}
        for message in messages:
            error = message.error()
            if error is not None:
                self._put_aside(message.topic(), error)
                raise kafka.engine_error(error, self._bootstrap, what="a tile topic cannot be read")
            topic = message.topic()
            if topic not in newest:
                newest[topic], ends[topic] = {}, {}
            # Of a tile that comes twice in a batch the last is stored, as Kafka itself keeps it.
            newest[topic][message.key()] = message
            ends[topic][message.partition()] = message.offset() + 1
        now_ms = _now_ms()
        writes = {
            topic: self._feeds[topic].writes(by_key.values(), ends[topic], now_ms)
            for topic, by_key in newest.items()
        }
        return writes, ends

    def _sweep(self) -> None:
        """Once a second, move idle tags on, and hear whether the store still stands there."""
        now = time.monotonic()
        if now < self._next_sweep or not self._is_claimed:
            return
        self._next_sweep = now + _SWEEP_S
        self._swept = (self._swept + 1) % TAGS
        self._finish()
        now_ms = _now_ms()
        writes = {
            topic: feed.sweep(range(TAGS), now_ms, also=self._swept)
            for topic, feed in self._feeds.items()
        }
        self._send(writes)
        self._store.tiles.receive()
        self._rate.tell(self._feeds.values())

    def _leave(self) -> None:
        if not self._is_claimed:
            return
        self._next_sweep = 0.0
        try:
            self._finish()
            self._sweep()
        except PlatformError as error:
            logger.warning("left without a last sweep: %s", error.what)

    def _say_trouble(self, error: PlatformError) -> None:
        if isinstance(error, StoreMoved):
            logger.warning("%s: %s; reading its markers again", error.where, error.what)
        elif error.what != self._trouble:
            self._trouble = error.what
            logger.warning("waits: %s", error)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Rate:
    """Counts records, and says every ten seconds how many there were, if there were any."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._records = 0

    def count(self, records: int) -> None:
        self._records += records

    def tell(self, feeds: Iterable[Feed]) -> None:
        elapsed = time.monotonic() - self._since
        if elapsed < _LOG_S:
            return
        if self._records:
            logger.info(
                "%.0f records/s stored, %d passed over since the start",
                self._records / elapsed,
                sum(feed.skipped for feed in feeds),
            )
        self._since, self._records = time.monotonic(), 0
