"""The verdict on each raw row of a batch source, in Spark: the contract's rules, in its order."""

from typing import TYPE_CHECKING

from millrace.days import Days
from millrace.durations import DAY_MS, format_duration
from millrace.plan import SourcePlan
from offline.raw.columns import ARRIVAL, DETAIL, FAULT
from offline.tables.archived_days import IS_ARCHIVED, with_archived, with_copies_marked
from offline.tables.source_changes import find_change
from offline.tables.source_tables import rows_as_declared
from resources.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

VERDICT = "_verdict"
"""Column: ``accepted``, ``duplicate``, ``dead``, or ``archived`` for rows that are no file's."""


def pad_ms(source: SourcePlan) -> int:
    """How far outside its days a build must look to know a day's duplicates."""
    if source.event_id is None:
        return 0
    return source.dedup_horizon_ms + source.allowed_lateness_ms + source.clock_skew_ms


def classify_rows(rows: "DataFrame", source: SourcePlan, read: Days) -> "DataFrame":
    """Add ``_event_ms _ingest_ms _reason event_date _verdict``; the order of rules is the contract's.

    What is wrong with a dead row is in words in ``_detail``.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    stamped = epoch_ms(source, source.event_time)
    ingest = epoch_ms(source, source.ingest_time) if source.ingest_time else stamped
    near = (stamped >= read.start_ms) & (stamped < read.end_ms)
    told = rows.filter(near | stamped.isNull() | F.col(FAULT).isNotNull()).select(
        "*", stamped.alias("_stamped_ms"), F.coalesce(ingest, stamped).alias("_ingest_ms")
    )
    ahead = F.col("_stamped_ms") - F.col("_ingest_ms")
    event_ms = F.when(ahead > 0, F.col("_ingest_ms")).otherwise(F.col("_stamped_ms"))
    rules = [
        (F.col(FAULT).isNotNull(), F.col(FAULT), F.col(DETAIL)),
        (
            F.col("_stamped_ms").isNull(),
            F.lit("schema"),
            F.lit(f"the event time {source.event_time!r} is null"),
        ),
        (ahead > source.clock_skew_ms, F.lit("future"), _ahead(ahead, source.clock_skew_ms)),
        (-ahead > source.allowed_lateness_ms, F.lit("late"), _behind(ahead, source)),
    ]
    reason, detail = F.lit(None).cast("string"), F.lit(None).cast("string")
    for speaks, why, words in reversed(rules):
        reason, detail = (
            F.when(speaks, why).otherwise(reason),
            F.when(speaks, words).otherwise(detail),
        )
    dated = (
        told.withColumns({"_event_ms": event_ms, "_reason": reason})
        .withColumn(DETAIL, detail)
        .withColumn("event_date", F.to_date(F.timestamp_millis(F.col("_event_ms"))))
    )
    verdict = F.when(F.col("_reason").isNotNull(), "dead")
    if source.event_id is not None:
        same_id = Window.partitionBy(
            F.col("_reason").isNull(), F.col(f"`{source.event_id}`")
        ).orderBy("_ingest_ms", ARRIVAL)
        gap = F.col("_ingest_ms") - F.lag("_ingest_ms").over(same_id)
        known_id = F.col(f"`{source.event_id}`").isNotNull()
        verdict = verdict.when(known_id & (gap <= source.dedup_horizon_ms), "duplicate")
    return dated.withColumn(VERDICT, verdict.otherwise("accepted"))


def _ahead(ahead: "Column", skew_ms: int) -> "Column":
    from pyspark.sql import functions as F

    allowed = F.lit(f" ms ahead of its arrival; {format_duration(skew_ms)} is allowed")
    return F.concat(ahead.cast("string"), allowed)


def _behind(ahead: "Column", source: SourcePlan) -> "Column":
    from pyspark.sql import functions as F

    allowed = F.lit(f" ms after its time; {format_duration(source.allowed_lateness_ms)} is allowed")
    return F.concat(F.lit("arrived "), (-ahead).cast("string"), allowed)


def classify_beside_archived(
    spark: "SparkSession",
    settings: Settings,
    judged: "DataFrame",
    source: SourcePlan,
    read: Days,
) -> "DataFrame":
    """Make duplicates of the rows that the archive has; its own rows come along, ``archived``."""
    from pyspark.sql import functions as F

    stored = rows_as_declared(spark, settings, source, find_change(settings, source))
    together = with_archived(stored, source, judged, read)
    marked = with_copies_marked(
        together, source.event_id or "", ("_ingest_ms", ARRIVAL), source.dedup_horizon_ms
    )
    known_id = F.col(f"`{source.event_id}`").isNotNull()
    verdict = (
        F.when(F.col(IS_ARCHIVED), "archived")
        .when((F.col(VERDICT) == "accepted") & known_id & F.col("_is_copy"), "duplicate")
        .otherwise(F.col(VERDICT))
    )
    return marked.withColumn(VERDICT, verdict)


def epoch_ms(source: SourcePlan, name: str) -> "Column":
    from pyspark.sql import functions as F

    column, kind = F.col(f"`{name}`"), source.column(name).type.kind
    if kind == "timestamp":
        return F.unix_millis(column)
    if kind == "date":
        return F.unix_date(column).cast("bigint") * DAY_MS
    return column.cast("bigint")
