"""The archive's offset ledger: what became of every event of a topic, as the lake tells it.

It stands in the transaction log of ``events/<source>`` as application transactions
(``txn`` actions), so a count, the offsets it covers and the rows it counts are one commit: no
crash can part them. Any Delta reader sees it, log checkpoints keep it, and Spark's commits
carry it along. The idea of committing offsets with the data is Spark's and Kafka Connect's; the
counters beside them are ours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from millrace.names import archive_application
from millrace.plan import Plan, SourcePlan

if TYPE_CHECKING:
    from deltalake import DeltaTable, Transaction

REASONS = ("malformed", "schema", "late", "future")
"""Why an event is refused; in the order of the books, not of the rules."""

OUT_OF_STEP_MS = 600_000
"""Records that are read one after the other may have arrived this far apart, the wrong way round."""

_COUNTERS = ("events", "duplicates", *REASONS, "gaps", "lost")


@dataclass(frozen=True)
class OffsetLedger:
    """What became of the events of a topic so far; ``span = accounted``, always.

    Attributes:
        topic: the topic.
        first: the offset reading began at, by partition.
        next: the offset to read next, by partition.
        counts: events by what became of them: ``events`` (appended to ``events/<source>``),
            ``duplicates``, and each reason of a dead letter; then offsets without an event:
            ``gaps`` (transaction markers, aborted or compacted records) and ``lost`` (records
            that the topic's retention removed before they were read).
        dlq: how far the dead-letter topic is known to have been written, by its partition.
        newest_ms: record time of the newest record so far; None before the first.
    """

    topic: str
    first: Mapping[int, int] = field(default_factory=dict)
    next: Mapping[int, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(_COUNTERS, 0))
    dlq: Mapping[int, int] = field(default_factory=dict)
    newest_ms: int | None = None

    @property
    def span(self) -> int:
        """Offsets passed over, of all partitions."""
        return sum(self.next.values()) - sum(self.first.values())

    @property
    def accounted(self) -> int:
        """Offsets of which the books know what they held."""
        return sum(self.counts.values())

    @property
    def dead_letters(self) -> dict[str, int]:
        """Refused events by reason, all four."""
        return {reason: self.counts[reason] for reason in REASONS}

    def plus(self, counts: Mapping[str, int]) -> "OffsetLedger":
        """Return the books with these counts added."""
        added = {name: n + counts.get(name, 0) for name, n in self.counts.items()}
        return replace(self, counts=added)

    def entries(self) -> dict[str, int]:
        """Return the books as application ids and versions."""
        root = archive_application(self.topic)
        return {
            **{f"{root}/{p}": offset for p, offset in self.next.items()},
            **{f"{root}/{p}/first": offset for p, offset in self.first.items()},
            **{f"{root}/dlq/{p}": offset for p, offset in self.dlq.items()},
            **{f"{root}/{name}": count for name, count in self.counts.items()},
            **({} if self.newest_ms is None else {f"{root}/newest_ms": self.newest_ms}),
        }


def archived_sources(plan: Plan) -> dict[str, SourcePlan]:
    """Return the sources of a plan whose topics the archive reads, in declared order."""
    return {name: source for name, source in plan.sources.items() if source.stream is not None}


def read_ledger(table: "DeltaTable | None", topic: str) -> OffsetLedger:
    """Return the ledger of a topic as an opened ``events/<source>`` has them; empty if it has none."""
    if table is None:
        return OffsetLedger(topic)
    root = archive_application(topic)
    counts = {name: table.transaction_version(f"{root}/{name}") or 0 for name in _COUNTERS}
    return OffsetLedger(
        topic,
        first=_by_partition(table, root + "/{}/first"),
        next=read_markers(table, topic),
        counts=counts,
        dlq=_by_partition(table, root + "/dlq/{}"),
        newest_ms=table.transaction_version(f"{root}/newest_ms"),
    )


def read_markers(table: "DeltaTable | None", topic: str) -> dict[int, int]:
    """Return the offset up to which a table holds a topic's events, by partition."""
    return {} if table is None else _by_partition(table, archive_application(topic) + "/{}")


def _by_partition(table: "DeltaTable", pattern: str) -> dict[int, int]:
    # Partitions are numbered without holes, and all of them are marked by the first commit.
    found: dict[int, int] = {}
    while (version := table.transaction_version(pattern.format(len(found)))) is not None:
        found[len(found)] = version
    return found


def stored(table: "DeltaTable", entries: Iterable[str]) -> dict[str, int]:
    """Return those of the entries that a table has, with their versions."""
    found = {name: table.transaction_version(name) for name in entries}
    return {name: version for name, version in found.items() if version is not None}


def transactions(before: Mapping[str, int], after: Mapping[str, int]) -> "list[Transaction]":
    """Return the entries that are new or changed, as a commit carries them."""
    from deltalake import Transaction

    return [
        Transaction(app_id=name, version=version)
        for name, version in after.items()
        if before.get(name) != version
    ]
