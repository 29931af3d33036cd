"""The writer's second thread: which versions are published, and how far each has come.

Reading publications and asking the broker for offsets take as long as they take; the loop that
stores tiles never waits for either.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millrace.errors import PlatformError, StoreError
from millrace.published import PublishedVersion, PublishedView
from resources.kafka import client as kafka
from resources.store.online import OnlineStore, Version
from streaming.writer.progress import Ends, Ladder, Offsets, PipelineProgress

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError

logger = logging.getLogger(__name__)

_ROUND_S = 1.0
_KAFKA_TIMEOUT_S = 3.0


@dataclass(frozen=True)
class Wanted:
    """A tile topic to follow, with its partitions."""

    version: PublishedVersion
    partitions: tuple[int, ...]


class Watch(threading.Thread):
    """Looks after publications and progress once a second.

    Attributes:
        wanted: tile topics to follow, by name; replaced as a whole. None until the publications
            were read once. The last ones known stay while the store is away or was emptied.
        failure: what ended the thread; None while it lives.
    """

    def __init__(
        self, store: OnlineStore, bootstrap: str, applied: Callable[[str], Offsets | None]
    ) -> None:
        """Prepare the thread.

        Args:
            store: where the publications are.
            bootstrap: Kafka.
            applied: tells of a tile topic what is stored; None while that is not known.
        """
        super().__init__(name="watch", daemon=True)
        self.wanted: Mapping[str, Wanted] | None = None
        self.failure: BaseException | None = None
        self._store = store
        self._brokers = bootstrap
        self._applied = applied
        self._is_over = threading.Event()
        self._gauges: dict[str, _Gauge] = {}
        self._views: dict[str, PublishedView] = {}
        self._told: set[str] = set()

    def run(self) -> None:
        """Work until ``leave``; what ends it otherwise is kept in ``failure``."""
        try:
            while not self._is_over.is_set():
                began = time.monotonic()
                self._round()
                self._is_over.wait(max(0.0, _ROUND_S - (time.monotonic() - began)))
        except BaseException as error:
            self.failure = error
            raise

    def leave(self) -> None:
        """Ask the thread to end, and wait a little for it."""
        self._is_over.set()
        if self.is_alive():
            self.join(_KAFKA_TIMEOUT_S)

    def _round(self) -> None:
        try:
            self._read_publications()
            self._look_at_topics()
            self._tell_progress()
        except PlatformError as error:
            self._say_once(f"{error.where}: {error.what}")
        else:
            self._told.clear()

    def _read_publications(self) -> None:
        unreadable: set[str] = set()

        def pass_over(view: str, error: StoreError) -> None:
            unreadable.add(view)
            self._say_once(f"view {view}: {error.what}")

        found = self._store.publications.read(pass_over)
        if found.is_blank and self._views:
            return  # an emptied store: what was published will be published again
        kept = {name: view for name, view in self._views.items() if name in unreadable}
        self._views = kept | found.views

    def _look_at_topics(self) -> None:
        fed = {
            version.tile_topic: (view.name, version)
            for view in self._views.values()
            for version in view.versions
            if version.is_fed and version.has_stream
        }
        for topic in self._gauges.keys() - fed.keys():
            self._gauges.pop(topic).close()
        wanted = {}
        for topic, (view, version) in fed.items():
            gauge = self._gauges.get(topic)
            if gauge is None:
                gauge = self._gauges[topic] = _Gauge(self._brokers, view, version)
            partitions = gauge.partitions()
            if partitions:
                wanted[topic] = Wanted(version, partitions)
            else:
                self._say_once(f"the tile topic {topic} does not exist yet")
        self.wanted = wanted

    def _tell_progress(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        told = {
            gauge.version: {**progress._asdict(), "at_ms": now_ms}
            for topic, gauge in self._gauges.items()
            if (progress := self._progress_of(topic, gauge, now_ms)) is not None
        }
        self._store.progress.report(told)

    def _progress_of(self, topic: str, gauge: "_Gauge", now_ms: int) -> PipelineProgress | None:
        if self._applied(topic) is None:
            return None
        try:
            return gauge.progress(now_ms, self._applied)
        except PlatformError as error:
            self._say_once(f"{error.where}: {error.what}")
            return None

    def _say_once(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)


def is_gone(error: "KafkaError") -> bool:
    """Say whether an error means that there is no such topic or partition."""
    from confluent_kafka import KafkaError

    return error.code() in {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - public, in librdkafka's spelling
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }


class _Gauge:
    """The offsets of one version's topics, over a client in the group of its Flink job."""

    def __init__(self, bootstrap: str, view: str, version: PublishedVersion) -> None:
        self.version: Version = (view, version.fingerprint)
        self._source_topic = version.source_topic or ""
        self._published = version
        self._brokers = bootstrap
        self._client: Consumer = kafka.consumer(bootstrap, **{"group.id": version.flink_group})
        self._tile_partitions: tuple[int, ...] = ()
        self._source_partitions: tuple[int, ...] = ()
        self._ladder = Ladder()

    def close(self) -> None:
        self._client.close()

    def partitions(self) -> tuple[int, ...]:
        """Return the partitions of the tile topic; none while it does not exist."""
        found = self._partitions_of(self._published.tile_topic)
        if found is not None:
            self._tile_partitions = found
        return self._tile_partitions

    def progress(
        self, now_ms: int, applied: Callable[[str], Offsets | None]
    ) -> PipelineProgress | None:
        """Return how far the version has come; None while a topic does not exist."""
        if not self._source_partitions:
            self._source_partitions = self._partitions_of(self._source_topic) or ()
        if not self._source_partitions or not self._tile_partitions:
            return None
        begin, end = self._watermarks(self._source_topic, self._source_partitions)
        committed = self._committed()
        _, tile_end = self._watermarks(self._published.tile_topic, self._tile_partitions)
        stored = applied(self._published.tile_topic)
        if stored is None:
            return None
        tile_end = {p: tile_end[p] for p in stored}
        ends = Ends(now_ms, begin, end, committed, tile_end, stored)
        return self._ladder.climb(ends)

    def _partitions_of(self, topic: str) -> tuple[int, ...] | None:
        """Return a topic's partitions: none if there is no such topic, None if that is not known."""
        with kafka.kafka_errors(self._brokers):
            found = self._client.list_topics(topic, timeout=_KAFKA_TIMEOUT_S).topics[topic]
        if found.error is not None:
            return () if is_gone(found.error) else None
        return tuple(sorted(found.partitions))

    def _watermarks(self, topic: str, partitions: tuple[int, ...]) -> tuple[Offsets, Offsets]:
        from confluent_kafka import TopicPartition

        with kafka.kafka_errors(self._brokers, what=f"the offsets of {topic!r} cannot be read"):
            found = {
                p: self._client.get_watermark_offsets(
                    TopicPartition(topic, p), timeout=_KAFKA_TIMEOUT_S, cached=False
                )
                for p in partitions
            }
        return {p: low for p, (low, _) in found.items()}, {
            p: high for p, (_, high) in found.items()
        }

    def _committed(self) -> Offsets:
        from confluent_kafka import TopicPartition

        asked = [TopicPartition(self._source_topic, p) for p in self._source_partitions]
        with kafka.kafka_errors(self._brokers):
            found = self._client.committed(asked, timeout=_KAFKA_TIMEOUT_S)
        return {one.partition: one.offset for one in found if one.offset >= 0}
