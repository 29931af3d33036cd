"""Judging a batch of records, and laying out what came of it as columns of the lake's tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millrace.plan import SourcePlan
from millrace.values.arrow import array_of, arrow_type
from streaming.archive.arrivals import Arrivals, id_key
from streaming.archive.classification import Classification, Classifier
from streaming.archive.dead_letter_topic import DeadLetter, Place, place_of
from streaming.archive.intake import Record
from streaming.archive.tables import days_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Batch:
    """Records classified and not yet committed, in order of arrival."""

    events: list[tuple[Record, Classification]] = field(default_factory=list)
    duplicates: list[tuple[Record, Any]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    newest_ms: int | None = None

    def __len__(self) -> int:
        return len(self.events) + len(self.duplicates) + len(self.dead_letters)

    def counts(self) -> dict[str, int]:
        """Return how many records there are of each kind; dead letters by reason."""
        reasons = Counter(dead_letter.reason for dead_letter in self.dead_letters)
        return {"events": len(self.events), "duplicates": len(self.duplicates), **reasons}


class BatchClassifier:
    """Judges the records of one source, duplicates included.

    Args:
        source: the declaration.
        arrivals: what is known of event ids; it grows with what is classified.
        told: reasons that were given to records before a crash; they stand, though the
            declaration may have changed since.
    """

    def __init__(self, source: SourcePlan, arrivals: Arrivals, told: Mapping[Place, str]) -> None:
        self._classify = Classifier(source).classify
        self._arrivals = arrivals
        self._told = told
        names = [column.name for column in source.columns]
        self._id_at = names.index(source.event_id) if source.event_id else None
        kind = source.column(source.event_id).type.kind if source.event_id else "string"
        self._key = id_key(kind)

    def add(self, records: Sequence[Record], batch: Batch) -> None:
        """Classify records, which follow those classified before, into a batch."""
        classified = [
            (record, self._classify(record.value, record.arrived_ms)) for record in records
        ]
        if self._told:
            classified = [(record, self._as_told(record, found)) for record, found in classified]
        keys = [self._id_key(found) for _, found in classified]
        self._arrivals.recall([key for key in keys if key is not None])
        for (record, found), key in zip(classified, keys, strict=True):
            if found.reason is not None:
                dead_letter = DeadLetter(record, found.reason, found.detail, found.event_ms)
                batch.dead_letters.append(dead_letter)
            elif key is not None and self._arrivals.is_duplicate(key, record.arrived_ms):
                batch.duplicates.append((record, found.values[self._id_at or 0]))
            else:
                batch.events.append((record, found))
        if records:
            newest_ms = max(record.arrived_ms for record in records)
            batch.newest_ms = max(newest_ms, batch.newest_ms or newest_ms)

    def _as_told(self, record: Record, found: Classification) -> Classification:
        reason = self._told.get(place_of(record))
        return found if reason is None else Classification(reason, found.detail, found.event_ms, ())

    def _id_key(self, found: Classification) -> bytes | None:
        if self._id_at is None or found.reason is not None:
            return None
        event_id = found.values[self._id_at]
        return None if event_id is None else self._key(event_id)


def event_columns(
    source: SourcePlan, events: Sequence[tuple[Record, Classification]]
) -> "dict[str, pa.Array]":
    """Return the columns of ``events/<source>``."""
    import pyarrow as pa

    values = list(zip(*(found.values for _, found in events), strict=True))
    columns = {
        column.name: array_of(values[i] if values else [], column.type)
        for i, column in enumerate(source.columns)
    }
    event_ms = [found.event_ms for _, found in events]
    return {
        **columns,
        "_event_ms": pa.array(event_ms, pa.int64()),
        "_ingest_ms": pa.array([record.arrived_ms for record, _ in events], pa.int64()),
        "_partition": pa.array([record.partition for record, _ in events], pa.int32()),
        "_offset": pa.array([record.offset for record, _ in events], pa.int64()),
        "event_date": days_of(event_ms),
    }


def dead_letter_columns(topic: str, dead_letters: Sequence[DeadLetter]) -> "dict[str, pa.Array]":
    """Return the columns of ``dead_letters/<source>``."""
    import pyarrow as pa

    records = [dead_letter.record for dead_letter in dead_letters]
    origins = [f"kafka:{topic}/{record.partition}/{record.offset}" for record in records]
    return {
        "reason": pa.array([dead_letter.reason for dead_letter in dead_letters], pa.string()),
        "payload": pa.array([record.value for record in records], pa.binary()),
        "origin": pa.array(origins, pa.string()),
        "event_day": days_of([dead_letter.event_ms for dead_letter in dead_letters]),
        "event_ms": pa.array([dead_letter.event_ms for dead_letter in dead_letters], pa.int64()),
        "detail": pa.array([dead_letter.detail for dead_letter in dead_letters], pa.string()),
        **_place_columns(records),
    }


def duplicate_columns(
    source: SourcePlan, duplicates: Sequence[tuple[Record, Any]]
) -> "dict[str, pa.Array]":
    """Return the columns of ``duplicates/<source>``."""
    type_ = source.column(source.event_id or "").type
    ids = array_of([event_id for _, event_id in duplicates], type_).cast(arrow_type(type_))
    return {"event_id": ids, **_place_columns([record for record, _ in duplicates])}


def _place_columns(records: Sequence[Record]) -> "dict[str, pa.Array]":
    import pyarrow as pa

    return {
        "arrived_ms": pa.array([record.arrived_ms for record in records], pa.int64()),
        "partition": pa.array([record.partition for record in records], pa.int32()),
        "offset": pa.array([record.offset for record in records], pa.int64()),
        "event_date": days_of([record.arrived_ms for record in records]),
    }
