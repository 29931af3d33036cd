"""What an archive must know of its own past, read back from the lake when it starts.

Everything that a commit of ``events/<source>`` does not cover counts as not done. Letters and
duplicates that were appended before such a commit failed are recognised, and not appended again.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from millrace.calendar import FIRST_MS, day_of
from millrace.plan import SourcePlan
from resources.lake.delta import open_dataset
from resources.lake.offset_ledger import OUT_OF_STEP_MS, OffsetLedger, read_markers
from streaming.archive.arrivals import Arrivals, id_key
from streaming.archive.dead_letter_topic import Place

if TYPE_CHECKING:
    from deltalake import DeltaTable


def uncounted_dead_letters(table: "DeltaTable", books: OffsetLedger) -> dict[Place, str]:
    """Return the reasons of the dead letters beyond the books, by where they stand."""
    columns = ("partition", "offset", "arrived_ms", "reason")
    return {
        (row["partition"], row["offset"], row["arrived_ms"]): row["reason"]
        for row in _beyond(table, books, columns)
    }


def uncounted_duplicates(table: "DeltaTable", books: OffsetLedger) -> set[Place]:
    """Return where the duplicates beyond the books stand."""
    columns = ("partition", "offset", "arrived_ms")
    return {tuple(row.values()) for row in _beyond(table, books, columns)}


def _beyond(
    table: "DeltaTable", books: OffsetLedger, columns: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    import pyarrow.compute as pc

    markers = read_markers(table, books.topic)
    ahead = [p for p, marker in markers.items() if marker > books.next.get(p, 0)]
    if not ahead:
        return
    wanted = pc.field("event_date") >= day_of(_oldest_uncounted_ms(books))
    for batch in open_dataset(table).to_batches(columns=list(columns), filter=wanted):
        for row in batch.to_pylist():
            if row["partition"] in ahead and row["offset"] >= books.next.get(row["partition"], 0):
                yield row


def _oldest_uncounted_ms(books: OffsetLedger) -> int:
    return FIRST_MS if books.newest_ms is None else books.newest_ms - OUT_OF_STEP_MS


def recall_arrivals(
    events: "DeltaTable", duplicates: "DeltaTable", source: SourcePlan, books: OffsetLedger
) -> Arrivals:
    """Return the arrivals of event ids that the books cover, of the last horizon.

    Events alone would not do: a duplicate is an arrival too, and moves the horizon on.
    """
    arrivals = Arrivals(source.dedup_horizon_ms)
    event_id = source.event_id
    if event_id is None or books.newest_ms is None:
        return arrivals
    key = id_key(source.column(event_id).type.kind)
    since_ms = books.newest_ms - source.dedup_horizon_ms - OUT_OF_STEP_MS
    first_day_ms = since_ms - source.allowed_lateness_ms - OUT_OF_STEP_MS
    for ids, times in _archived(events, event_id, since_ms, first_day_ms):
        arrivals.note_all((key(i), t) for i, t in zip(ids, times, strict=True) if i is not None)
    for row in _counted_duplicates(duplicates, books, since_ms):
        arrivals.note(key(row["event_id"]), row["arrived_ms"])
    return arrivals


def _archived(
    events: "DeltaTable", event_id: str, since_ms: int, first_day_ms: int
) -> Iterator[tuple[list[Any], list[int]]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    dataset = open_dataset(events)
    if "_offset" not in dataset.schema.names:
        return
    wanted = (
        (pc.field("event_date") >= day_of(first_day_ms))
        & pc.field("_offset").is_valid()
        & (pc.field("_ingest_ms") >= since_ms)
    )
    for batch in dataset.to_batches(columns=[event_id, "_ingest_ms"], filter=wanted):
        ids = batch.column(event_id)
        if pa.types.is_timestamp(ids.type):
            ids = pc.divide(ids.cast(pa.int64()), 1000)
        yield ids.to_pylist(), batch.column("_ingest_ms").to_pylist()


def _counted_duplicates(
    duplicates: "DeltaTable", books: OffsetLedger, since_ms: int
) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = (pc.field("event_date") >= day_of(since_ms)) & (pc.field("arrived_ms") >= since_ms)
    for batch in open_dataset(duplicates).to_batches(filter=wanted):
        found = pa.table(batch)
        if pa.types.is_timestamp(found.schema.field("event_id").type):
            ids = pc.divide(found["event_id"].cast(pa.int64()), 1000)
            found = found.set_column(found.schema.get_field_index("event_id"), "event_id", ids)
        for row in found.to_pylist():
            if row["offset"] < books.next.get(row["partition"], 0):
                yield row
