"""The archive of one source: read, judge, append, in a cycle that a crash can only repeat.

One cycle takes records in order of arrival, judges each once, and writes what came of them in four
steps: dead letters to their topic, dead letters to the lake, duplicates to the lake, and last the
events with the books. The last commit decides: until it is made nothing of the cycle counts, and
whatever of the first three steps had happened is found again at the start (``memory``).
"""

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from millrace.errors import EngineUnavailable
from millrace.names import archive_application, dead_letter_topic
from millrace.plan import SourcePlan
from offline.tables.source_changes import record_definition
from offline.tables.source_tables import follow_declaration
from resources.kafka.client import (
    SOURCE_PARTITIONS,
    Topic,
    begin_offsets,
    end_offsets,
    ensure_topics,
)
from resources.lake.offset_ledger import OffsetLedger, read_ledger, stored
from resources.settings import Settings
from resources.spark.session import connect
from streaming.archive import memory
from streaming.archive.arrivals import Arrivals
from streaming.archive.batch import (
    Batch,
    BatchClassifier,
    dead_letter_columns,
    duplicate_columns,
    event_columns,
)
from streaming.archive.dead_letter_topic import DeadLetterTopic, Place, place_of
from streaming.archive.intake import Intake
from streaming.archive.tables import LOCK_WAIT_S, LakeTable, SourceTables

log = logging.getLogger(__name__)

COMMIT_S = 2.0
"""A record waits at most about this long for its commit while the archive keeps up."""
_CATCH_UP_S = 10.0
_MOST_RECORDS = 50_000
_MOST_BYTES = 64 << 20
_QUIET_S = 0.5
_POLL_S = 0.2

_DLQ_CONFIG = {
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": str(30 * 86_400_000),
    "max.message.bytes": str(64 << 20),
}


class SourceArchive:
    """Archives one source; ``cycle`` again and again. Any error leaves it useless: open another.

    Args:
        settings: names the lake.
        source: has a stream.
        bootstrap: Kafka's ``host:port`` list.
        beat: called about once a second while it works or waits; False asks it to stop.

    Raises:
        PlatformError: Kafka or the lake is away, or holds something unexpected.
    """

    def __init__(
        self, settings: Settings, source: SourcePlan, bootstrap: str, beat: Callable[[], bool]
    ) -> None:
        topic = source.stream.topic if source.stream else ""
        self._source, self._topic, self._beat = source, topic, beat
        self.tables = SourceTables.of(settings, source)
        ensure_topics(
            bootstrap,
            [
                Topic(topic, SOURCE_PARTITIONS, {"message.timestamp.type": "LogAppendTime"}),
                Topic(dead_letter_topic(topic), SOURCE_PARTITIONS, _DLQ_CONFIG),
            ],
        )
        follow_declaration(settings, source, lambda: connect(settings), wait_s=LOCK_WAIT_S)
        table = self.tables.events.refresh()
        record_definition(settings, source)
        books = read_ledger(table, topic)
        self._stored = stored(table, books.entries())
        begins, ends = begin_offsets(bootstrap, topic), end_offsets(bootstrap, topic)
        self._books = _starting_ledger(books, begins, ends)
        self._open_dead_letters(bootstrap, books)
        self._partitions = frozenset(begins)
        self._intake = Intake(bootstrap, topic, {p: self._books.next[p] for p in begins})
        shown = ", ".join(f"{p}: {o}" for p, o in self._books.next.items())
        log.info("%s: reading topic %s from %s", source.name, topic, shown)

    def _open_dead_letters(self, bootstrap: str, books: OffsetLedger) -> None:
        dead_letters = self.tables.dead_letters.refresh()
        self._in_lake = memory.uncounted_dead_letters(dead_letters, books)
        self._dead_letter_topic = DeadLetterTopic(bootstrap, self._source.name, self._topic)
        self._in_topic = self._dead_letter_topic.read_back(books.dlq)
        self._dead_letters_stored = self._markers(self.tables.dead_letters)
        self._duplicates_stored: dict[str, int] = {}
        self._known_duplicates: set[Place] = set()
        arrivals = Arrivals(self._source.dedup_horizon_ms)
        if self.tables.duplicates is not None:
            duplicates = self.tables.duplicates.refresh()
            self._known_duplicates = memory.uncounted_duplicates(duplicates, books)
            self._duplicates_stored = self._markers(self.tables.duplicates)
            events = self.tables.events.refresh()
            arrivals = memory.recall_arrivals(events, duplicates, self._source, books)
            log.info("%s: %d event ids of the last horizon", self._source.name, len(arrivals))
        told = {**self._in_topic, **self._in_lake}
        self._judge = BatchClassifier(self._source, arrivals, told)

    def _markers(self, table: LakeTable) -> dict[str, int]:
        names = [f"{archive_application(self._topic)}/{p}" for p in self._books.next]
        return stored(table.refresh(), names)

    @property
    def books(self) -> OffsetLedger:
        """The books as of the last commit."""
        return self._books

    def close(self) -> None:
        """Let go of Kafka; what is not committed is read again by the next one."""
        self._intake.close()

    def cycle(self) -> int:
        """Take what arrives within one commit's time, and commit it; return how many records."""
        batch = self._gather()
        # Partitions of an earlier topic of this name keep their place in the books.
        positions = {**self._books.next, **self._intake.positions()}
        if positions != self._books.next:
            self._commit(batch, positions)
        return len(batch)

    def check_partitions(self, bootstrap: str) -> None:
        """Look whether the topic is the one that was opened.

        Raises:
            EngineUnavailable: it has more partitions now; open it again.
        """
        if begin_offsets(bootstrap, self._topic).keys() != self._partitions:
            raise EngineUnavailable(
                "the topic has other partitions than before", where=f"topic {self._topic}"
            )

    @property
    def is_behind(self) -> bool:
        """More is waiting in the topic than one look takes in."""
        return self._intake.is_behind

    @property
    def is_drained(self) -> bool:
        """Nothing was left in the topic when it was looked at last."""
        return self._intake.is_drained

    def _gather(self) -> Batch:
        batch, size = Batch(), 0
        began = heard = time.monotonic()
        while self._beat():
            self._intake.poll(_POLL_S)
            records = self._intake.take()
            self._judge.add(records, batch)
            size += sum(len(record.value) for record in records if record.value)
            now = time.monotonic()
            if records:
                heard = now
            is_full = len(batch) >= _MOST_RECORDS or size >= _MOST_BYTES
            is_quiet = len(batch) > 0 and now - heard >= _QUIET_S
            limit_s = _CATCH_UP_S if self._intake.is_behind else COMMIT_S
            if is_full or is_quiet or now - began >= limit_s:
                break
        return batch

    def _commit(self, batch: Batch, positions: dict[int, int]) -> None:
        began = time.monotonic()
        unsent = [one for one in batch.dead_letters if place_of(one.record) not in self._in_topic]
        if unsent and not self._dead_letter_topic.send(unsent, self._beat):
            return
        after = self._next_ledger(batch, positions)
        markers = {
            f"{archive_application(self._topic)}/{p}": offset for p, offset in positions.items()
        }
        self._append_dead_letters(batch, markers)
        self._append_duplicates(batch, markers)
        entries = after.entries()
        columns = event_columns(self._source, batch.events)
        self.tables.events.append(columns, self._stored, entries)
        self._stored, self._books = entries, after
        log.debug("%s: %s in %.3f s", self._source.name, batch.counts(), time.monotonic() - began)

    def _next_ledger(self, batch: Batch, positions: dict[int, int]) -> OffsetLedger:
        passed = sum(positions.values()) - sum(self._books.next.values())
        counted = self._books.plus({**batch.counts(), "gaps": passed - len(batch)})
        newest_ms = max(
            (ms for ms in (self._books.newest_ms, batch.newest_ms) if ms is not None), default=None
        )
        dlq = self._dead_letter_topic.positions
        return replace(counted, next=positions, dlq=dict(dlq), newest_ms=newest_ms)

    def _append_dead_letters(self, batch: Batch, markers: dict[str, int]) -> None:
        fresh = [one for one in batch.dead_letters if place_of(one.record) not in self._in_lake]
        if fresh:
            columns = dead_letter_columns(self._topic, fresh)
            after = _advanced(self._dead_letters_stored, markers)
            self.tables.dead_letters.append(columns, self._dead_letters_stored, after)
            self._dead_letters_stored = after

    def _append_duplicates(self, batch: Batch, markers: dict[str, int]) -> None:
        known = self._known_duplicates
        fresh = [one for one in batch.duplicates if place_of(one[0]) not in known]
        if fresh and self.tables.duplicates is not None:
            columns = duplicate_columns(self._source, fresh)
            after = _advanced(self._duplicates_stored, markers)
            self.tables.duplicates.append(columns, self._duplicates_stored, after)
            self._duplicates_stored = after


def _advanced(before: dict[str, int], markers: dict[str, int]) -> dict[str, int]:
    """Return the markers, none of them moved back: after a crash a smaller batch may come again."""
    return {name: max(offset, before.get(name, offset)) for name, offset in markers.items()}


def _starting_ledger(
    books: OffsetLedger, begins: dict[int, int], ends: dict[int, int]
) -> OffsetLedger:
    """Return the books with partitions added, lost records counted, and topics made anew noticed.

    The span of offsets passed over stays what it was; so a partition that begins again moves its
    first offset, which is then below zero.
    """
    first, following, lost = dict(books.first), dict(books.next), 0
    for partition, begin in sorted(begins.items()):
        read_to = following.get(partition)
        if read_to is None:
            first[partition] = following[partition] = begin
        elif read_to > ends[partition]:
            log.warning(
                "%s/%d ends at %d and was read to %d: it was made again; reading it from its start",
                books.topic, partition, ends[partition], read_to,
            )  # fmt: skip
            first[partition] += begin - read_to
            following[partition] = begin
        elif read_to < begin:
            log.error(
                "%s/%d begins at %d and was read to %d: %d records are lost to its retention",
                books.topic, partition, begin, read_to, begin - read_to,
            )  # fmt: skip
            lost += begin - read_to
            following[partition] = begin
    return replace(books.plus({"lost": lost}), first=first, next=following)
