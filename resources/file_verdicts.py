"""The verdict on each raw row of a batch source, in Spark: the contract's rules, in its order."""

from typing import TYPE_CHECKING

from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from resources.archived_days import IS_ARCHIVED, with_archived, with_copies_marked
from resources.raw_rows import ARRIVAL, BROKEN
from resources.reports import Days
from resources.settings import Settings
from resources.source_changes import find_change
from resources.source_tables import rows_as_declared

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

VERDICT = "_verdict"
"""Column: ``accepted``, ``duplicate``, ``dead``, or ``archived`` for rows that are no file's."""


def pad_ms(source: SourcePlan) -> int:
    """How far outside its days a build must look to know a day's duplicates."""
    if source.event_id is None:
        return 0
    return source.dedup_horizon_ms + source.allowed_lateness_ms + source.clock_skew_ms


def judge_rows(rows: "DataFrame", source: SourcePlan, read: Days) -> "DataFrame":
    """Add ``_event_ms _ingest_ms event_date _verdict``; the order of rules is the contract's."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    stamped = _epoch_ms(source, source.event_time)
    ingest = _epoch_ms(source, source.ingest_time) if source.ingest_time else stamped
    near = (stamped >= read.start_ms) & (stamped < read.end_ms)
    told = rows.filter(near | stamped.isNull() | F.col(BROKEN)).select(
        "*", stamped.alias("_stamped_ms"), F.coalesce(ingest, stamped).alias("_ingest_ms")
    )
    ahead = F.col("_stamped_ms") - F.col("_ingest_ms")
    event_ms = F.when(ahead > 0, F.col("_ingest_ms")).otherwise(F.col("_stamped_ms"))
    reason = (
        F.when(F.col(BROKEN) | F.col("_stamped_ms").isNull(), "schema")
        .when(ahead > source.clock_skew_ms, "future")
        .when(-ahead > source.allowed_lateness_ms, "late")
    )
    dated = told.select("*", event_ms.alias("_event_ms"), reason.alias("_reason")).withColumn(
        "event_date", F.to_date(F.timestamp_millis(F.col("_event_ms")))
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


def judge_beside_archived(
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


def _epoch_ms(source: SourcePlan, name: str) -> "Column":
    from pyspark.sql import functions as F

    column, kind = F.col(f"`{name}`"), source.column(name).type.kind
    if kind == "timestamp":
        return F.unix_millis(column)
    if kind == "date":
        return F.unix_date(column).cast("bigint") * DAY_MS
    return column.cast("bigint")
