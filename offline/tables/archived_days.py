"""Archived rows among the rows of files: counting them, keeping them, judging files against them.

Rows of ``events/<source>`` with an ``_offset`` came out of the topic. The archive judged the topic
by itself, as the Flink job does, and the rows are the only copy once the topic has forgotten them;
so a build from files never touches them. A row of a file that is an archived event again is the
duplicate, whichever arrived first. See docs/decisions/archive.md.
"""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

from millrace.days import Days
from millrace.names import dead_letters_table, duplicates_table, events_table
from millrace.plan import SourcePlan
from resources.lake.delta import DAY_COLUMN, file_actions, open_dataset, open_table
from resources.lake.offset_ledger import OUT_OF_STEP_MS, REASONS, OffsetLedger, read_markers
from resources.lake.reports import PartitionOutcome
from resources.lake.writing import Slices, day_predicate
from resources.settings import Settings

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from pyspark.sql import DataFrame

OFFSET = "_offset"
IS_ARCHIVED = "_is_archived"


def has_column(settings: Settings, table: str, column: str) -> bool:
    """Whether a table exists and has a column."""
    opened = open_table(settings, table)
    return opened is not None and column in {field.name for field in opened.schema().fields}


def archived_rows(settings: Settings, source: str) -> dict[date, int]:
    """Return how many archived events each day holds; days without any are absent."""
    table = open_table(settings, events_table(source))
    return {} if table is None else rows_with(table, OFFSET)


def archived_dead_letters(settings: Settings, source: str, books: OffsetLedger) -> dict[str, int]:
    """Return how many dead letters that the books cover the table holds, by reason; all four.

    Letters are appended before the books count them: those of a batch under way, or of one that a
    crash cut off, are left out.
    """
    import pyarrow.compute as pc

    counts = dict.fromkeys(REASONS, 0)
    table = open_table(settings, dead_letters_table(source))
    if table is None or "offset" not in {field.name for field in table.schema().fields}:
        return counts
    wanted = pc.field("offset").is_valid()
    for partition, marker in read_markers(table, books.topic).items():
        covered = books.next.get(partition, 0)
        if marker > covered:
            beyond = (pc.field("partition") == partition) & (pc.field("offset") >= covered)
            # Of a topic that was made again, dead letters of the earlier one have higher offsets too.
            recent = pc.field("arrived_ms") >= (books.newest_ms or 0) - OUT_OF_STEP_MS
            wanted &= ~(beyond & recent)
    for batch in open_dataset(table).to_batches(columns=["reason"], filter=wanted):
        for entry in batch.column("reason").value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]
    return counts


def rows_with(table: "DeltaTable", column: str) -> dict[date, int]:
    """Count the rows that have a value, by day: from the log where it has statistics."""
    if column not in {field.name for field in table.schema().fields}:
        return {}
    counts: dict[date, int] = {}
    for row in file_actions(table, "num_records", f"null_count.{column}").to_pylist():
        nulls = row.get(f"null_count.{column}")
        if nulls is None:
            # A file older than the column has no statistics of it, nor has one of a wide table.
            return _counted_rows_with(table, column)
        if row["num_records"] > nulls:
            day = row[DAY_COLUMN]
            counts[day] = counts.get(day, 0) + row["num_records"] - nulls
    return counts


def _counted_rows_with(table: "DeltaTable", column: str) -> dict[date, int]:
    import pyarrow.compute as pc

    counts: dict[date, int] = {}
    dataset = open_dataset(table)
    for batch in dataset.to_batches(columns=["event_date"], filter=pc.field(column).is_valid()):
        for entry in batch.column("event_date").value_counts().to_pylist():
            counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
    return counts


def archived_outcomes(
    settings: Settings, source: str, days: Sequence[date]
) -> dict[date, PartitionOutcome]:
    """Return duplicates and dead letters of the topic by day; days without any are absent.

    A dead letter belongs to the day it was stamped with, one without a time stamp and a duplicate to
    the day they arrived.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = frozenset(days)
    dead: dict[date, dict[str, int]] = {}
    dead_letters = open_table(settings, dead_letters_table(source))
    if dead_letters is not None and "offset" in {
        field.name for field in dead_letters.schema().fields
    }:
        found = open_dataset(dead_letters).to_table(
            columns=["reason", "event_day", "event_date"], filter=pc.field("offset").is_valid()
        )
        day = pc.coalesce(found["event_day"], found["event_date"])
        table = pa.table({"day": day, "reason": found["reason"]})
        for row in table.group_by(["day", "reason"]).aggregate([([], "count_all")]).to_pylist():
            if row["day"] in wanted:
                dead.setdefault(row["day"], {})[row["reason"]] = row["count_all"]
    copies: dict[date, int] = {}
    duplicates = open_table(settings, duplicates_table(source))
    if duplicates is not None:
        copies = {d: n for d, n in rows_with(duplicates, "offset").items() if d in wanted}
    return {
        day: PartitionOutcome(day, duplicates=copies.get(day, 0), dead_letters=dead.get(day, {}))
        for day in dead.keys() | copies.keys()
    }


def replaced_by_files(slices: Slices, archived: dict[date, int]) -> str:
    """Return the condition on the rows that a build from files replaces: all but archived ones."""
    everything = slices.predicate("_event_ms")
    if not archived.keys() & set(slices.days):
        return everything
    return f"({everything}) AND {OFFSET} IS NULL"


def with_archived(
    stored: "DataFrame", source: SourcePlan, rows: "DataFrame", read: Days
) -> "DataFrame":
    """Add the arrivals of archived events to judged rows of files; ``_is_archived`` tells them.

    ``stored`` are the rows of ``events/<source>`` as the source declares them. Of the added rows only the event id, ``_ingest_ms`` and ``event_date`` have values.
    """
    from pyspark.sql import functions as F

    archived = (
        stored.filter(F.col(OFFSET).isNotNull() & F.col(f"`{source.event_id}`").isNotNull())
        .filter(F.expr(day_predicate(tuple(read))))
        .select(
            F.col(f"`{source.event_id}`"),
            "_ingest_ms",
            "event_date",
            F.expr("true").alias(IS_ARCHIVED),
        )
    )
    return rows.withColumn(IS_ARCHIVED, F.expr("false")).unionByName(
        archived, allowMissingColumns=True
    )


def with_copies_marked(
    rows: "DataFrame", event_id: str, order: Sequence[str], horizon_ms: int
) -> "DataFrame":
    """Add ``_is_copy``: true for a row of a file in a run of arrivals with an archived event.

    A run are arrivals of one id of which each lies within the horizon of the one before.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    same_id = Window.partitionBy(F.col("_reason").isNull(), F.col(f"`{event_id}`"))
    gap = F.col("_ingest_ms") - F.lag("_ingest_ms").over(same_id.orderBy(*order))
    begins = F.when(gap <= horizon_ms, 0).otherwise(1)
    numbered = rows.withColumn("_begins", begins).withColumn(
        "_run", F.sum("_begins").over(same_id.orderBy(*order).rowsBetween(_FIRST, 0))
    )
    run = Window.partitionBy(F.col("_reason").isNull(), F.col(f"`{event_id}`"), "_run")
    meets = F.max(IS_ARCHIVED).over(run) & ~F.col(IS_ARCHIVED)
    return numbered.withColumn("_is_copy", meets).drop("_begins", "_run")


_FIRST = -(2**63)
"""Spark's mark of a window without a beginning."""
