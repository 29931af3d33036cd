"""One tile topic on its way into the store: what is applied, and the calls that apply more.

A feed knows the marker of each partition on each of the 256 hash tags, as the store has told it,
and every call says so. A store that was restarted, rolled back, flushed or replaced stands
elsewhere, refuses the call, and the writer learns it from the answer, whatever the connection did.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from millrace.codec import TAGS
from millrace.errors import DataError
from millrace.published import PublishedVersion
from resources.store.keys import marker_key
from resources.store.tile_scripts import expiry_ms, horizon_ms
from streaming.writer.records import TileReader

logger = logging.getLogger(__name__)

NO_MARKER = -1


class Call(NamedTuple):
    """One run of the script ``APPLY``.

    Attributes:
        arguments: number of keys, the keys, the arguments.
        markers: of each partition, as the call leaves it.
    """

    arguments: list[Any]
    markers: dict[int, int]


class Record(Protocol):
    """What is asked of a Kafka message."""

    value: Callable[[], bytes | None]
    partition: Callable[[], int]
    offset: Callable[[], int]


@dataclass
class _TagBatch:
    """What one call stores: tiles by hash, and the partitions they came from."""

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
        self._reach_ms: int | None = document["reach_ms"]
        self._expiry = str(expiry_ms(self._reach_ms))
        self._rows_at = str(self._reader.rows_at + 1)

    @property
    def topic(self) -> str:
        """The tile topic."""
        return self.version.tile_topic

    def name(self, partition: int) -> str:
        """Return the name of a partition's marker."""
        return f"{self.topic}/{partition}"

    def take_markers(self, by_tag: Sequence[Sequence[bytes]]) -> None:
        """Learn where the store stands: of each tag, a marker for each partition."""
        for place, partition in enumerate(self.partitions):
            self.markers[partition] = [
                int(held[place]) if held[place] else NO_MARKER for held in by_tag
            ]

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

    def calls(
        self, records: Iterable[Record], ends: Mapping[int, int], now_ms: int
    ) -> dict[int, Call]:
        """Return the call of each hash tag that stores these records and moves its markers.

        Args:
            records: at most one per tile, its newest.
            ends: of each partition, the offset behind the batch.
            now_ms: the present instant.
        """
        batches = self._by_tag(records, horizon_ms(self._reach_ms, now_ms))
        seed = str(time.time_ns() // 1_000)
        return {
            tag: self._call(tag, {p: ends[p] for p in batch.partitions}, batch.tiles, now_ms, seed)
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

    def _call(
        self,
        tag: int,
        ends: Mapping[int, int],
        tiles: Mapping[bytes, list[bytes]],
        now_ms: int,
        seed: str,
    ) -> Call:
        horizon = horizon_ms(self._reach_ms, now_ms)
        parts: list[Any] = [1 + len(tiles), marker_key(tag), *tiles]
        parts += (self.topic, self.epoch, seed, self._expiry, self._rows_at)
        parts += ("" if horizon is None else horizon, len(ends))
        markers = {}
        for partition, end in ends.items():
            known = self.markers[partition][tag]
            markers[partition] = max(known, end)
            parts += (partition, "" if known == NO_MARKER else known, markers[partition])
        for held in tiles.values():
            parts.append(len(held) // 2)
            parts += held
        return Call(parts, markers)

    def sweep(
        self, tags: Iterable[int], now_ms: int, *, also: int | None = None
    ) -> dict[int, Call]:
        """Return the calls that move the markers of idle tags to where all is applied.

        Args:
            tags: which ones to look at.
            now_ms: the present instant.
            also: a tag that is called upon even if it stands right, to hear whether it still does.
        """
        calls = {}
        for tag in tags:
            behind = {
                partition: end
                for partition, end in self.positions.items()
                if self.markers[partition][tag] < end
            }
            if tag == also:
                behind = dict(self.positions)
            if behind:
                calls[tag] = self._call(tag, behind, {}, now_ms, "1")
        return calls

    def advance(self, calls: Mapping[int, Call]) -> None:
        """Take over the markers that calls have set, once the store has done them."""
        for tag, call in calls.items():
            for partition, marker in call.markers.items():
                self.markers[partition][tag] = marker

    def move(self, ends: Mapping[int, int]) -> None:
        """Note that everything before these offsets is stored."""
        self.positions = {**self.positions, **ends}
