"""One tile topic on its way into the store: what is applied, and the writes that apply more.

A feed knows the marker of each partition on each of the 256 hash tags, as the store has told it,
and every write says so. A store that was restarted, rolled back, flushed or replaced stands
elsewhere, refuses the write, and the writer learns it from the answer, whatever the connection did.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from millrace.codec import TAGS
from millrace.errors import DataError
from millrace.published import PublishedVersion
from resources.store.online import NO_MARKER, Claim, TileWrite
from resources.store.tile_rules import TileRules
from streaming.writer.records import TileReader

logger = logging.getLogger(__name__)


class Record(Protocol):
    """What is asked of a Kafka message."""

    value: Callable[[], bytes | None]
    partition: Callable[[], int]
    offset: Callable[[], int]


@dataclass
class _TagBatch:
    """What one write stores: tiles by hash, and the partitions they came from."""

    partitions: set[int] = field(default_factory=set)
    tiles: dict[bytes, list[bytes]] = field(default_factory=dict)


@dataclass
class Feed:
    """A version's tile topic, and how far the store has it.

    Attributes:
        version: as it was published.
        partitions: those that this writer has.
        epoch: this writer's; 0 before it claimed the partitions.
        markers: of each partition by hash tag, as the store holds them.
        positions: of each partition, the offset before which everything is stored; replaced as a
            whole, so that another thread may read it.
        skipped: records that were no tiles of this version.
    """

    version: PublishedVersion
    partitions: tuple[int, ...]
    epoch: int = 0
    markers: dict[int, list[int]] = field(default_factory=dict)
    positions: Mapping[int, int] = field(default_factory=dict)
    skipped: int = 0

    def __post_init__(self) -> None:
        document = self.version.plan
        self._reader = TileReader(document)
        self._rules = TileRules(self._reader.rows_at, document["reach_ms"])

    @property
    def topic(self) -> str:
        """The tile topic."""
        return self.version.tile_topic

    def take(self, claim: Claim) -> None:
        """Learn that the partitions are this writer's, and where the store stands."""
        self.epoch = claim.epoch
        for place, partition in enumerate(self.partitions):
            self.markers[partition] = [held[place] for held in claim.markers]

    def is_of_another_topic(self, partition: int, end: int) -> bool:
        """Say whether the markers are of a topic that was deleted and begun anew.

        Args:
            partition: one of this feed.
            end: offset that the next record of the topic will get.
        """
        return max(self.markers[partition]) > end

    def forget_markers(self, partition: int) -> None:
        """Note that the store has no marker of a partition any more."""
        self.markers[partition] = [NO_MARKER] * TAGS

    def resume(self, partition: int, begin: int) -> int:
        """Return where to read on: the store lacks nothing before it that is still in the topic.

        Args:
            partition: one of this feed.
            begin: offset of the oldest record in the topic.
        """
        return max(min(self.markers[partition]), begin)

    def writes(
        self, records: Iterable[Record], ends: Mapping[int, int], now_ms: int
    ) -> dict[int, TileWrite]:
        """Return the write of each hash tag that stores these records and moves its markers.

        Args:
            records: at most one per tile, its newest.
            ends: of each partition, the offset behind the batch.
            now_ms: the present instant.
        """
        batches = self._by_tag(records, self._rules.horizon_ms(now_ms))
        return {
            tag: self._write(tag, {p: ends[p] for p in batch.partitions}, batch.tiles, now_ms)
            for tag, batch in batches.items()
        }

    def _by_tag(self, records: Iterable[Record], horizon: int | None) -> dict[int, _TagBatch]:
        batches: dict[int, _TagBatch] = {}
        read, markers = self._reader.read, self.markers
        for record in records:
            try:
                tile = read(record.value())
            except DataError as error:
                self._skip(record, error)
                continue
            if horizon is not None and tile.start_ms < horizon:
                continue
            partition = record.partition()
            if record.offset() < markers[partition][tile.tag]:
                continue
            batch = batches.get(tile.tag)
            if batch is None:
                batch = batches[tile.tag] = _TagBatch()
            batch.partitions.add(partition)
            held = batch.tiles.get(tile.key)
            if held is None:
                batch.tiles[tile.key] = [tile.field, tile.packed]
            else:
                held += (tile.field, tile.packed)
        return batches

    def _skip(self, record: Record, error: DataError) -> None:
        if not self.skipped:
            logger.warning(
                "%s/%d, offset %d: passed over, as will be all such records of the topic: %s",
                self.topic,
                record.partition(),
                record.offset(),
                error.what,
            )
        self.skipped += 1

    def _write(
        self, tag: int, ends: Mapping[int, int], tiles: Mapping[bytes, list[bytes]], now_ms: int
    ) -> TileWrite:
        markers = {}
        for partition, end in ends.items():
            known = self.markers[partition][tag]
            markers[partition] = (known, max(known, end))
        return TileWrite(self.topic, tag, self.epoch, markers, tiles, self._rules, now_ms)

    def sweep(
        self, tags: Iterable[int], now_ms: int, *, also: int | None = None
    ) -> dict[int, TileWrite]:
        """Return the writes that move the markers of idle tags to where all is applied.

        Args:
            tags: which ones to look at.
            now_ms: the present instant.
            also: a tag that is written to even if it stands right, to hear whether it still does.
        """
        writes = {}
        for tag in tags:
            behind = {
                partition: end
                for partition, end in self.positions.items()
                if self.markers[partition][tag] < end
            }
            if tag == also:
                behind = dict(self.positions)
            if behind:
                writes[tag] = self._write(tag, behind, {}, now_ms)
        return writes

    def advance(self, writes: Mapping[int, TileWrite]) -> None:
        """Take over the markers that writes set."""
        for tag, write in writes.items():
            for partition, (_, marker) in write.markers.items():
                self.markers[partition][tag] = marker

    def move(self, ends: Mapping[int, int]) -> None:
        """Note that everything before these offsets is stored."""
        self.positions = {**self.positions, **ends}
