"""The entities that offline knows: every one with an event that counts for a view, in one row each.

One pass over the key columns. It holds one row an entity, not an event; a lake of more events than
``MOST_LOCAL_EVENTS`` is summed up by Spark, which hands back candidates for a sample alone.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from uuid import uuid4

from millrace.calendar import day_number
from millrace.days import day_ranges
from millrace.durations import DAY_MS
from millrace.plan import ViewPlan
from offline.tables.history import History
from resources.lake.delta import open_dataset, open_table, table_path
from resources.lake.writing import day_predicate
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Expression as Condition
    from pyspark.sql import SparkSession

MOST_LOCAL_EVENTS = 20_000_000
"""Events in reach of a view up to which this process reads the keys itself; beyond, Spark does."""

EVENTS, LAST_DAY, NEWEST_MS, IS_UNSERVED = "_events", "_last_day", "_newest_ms", "_is_unserved"

_BATCH_ROWS = 1_000_000
_DAY = "event_date"


@dataclass(frozen=True)
class KnownEntities:
    """The entities of a view that offline knows.

    Attributes:
        rows: the join keys, ``_events`` (how many count), ``_last_day`` (of the newest of them, as
            days since 1970), ``_newest_ms`` (when the last one arrived), ``_is_unserved`` (one
            lies in an unserved day); ordered by the join keys. All of them, or where Spark has
            counted, of each last day as many as a sample may want.
        count: how many there are.
        events: how many events they have.
    """

    rows: "pa.Table"
    count: int
    events: int


def read_entities(
    settings: Settings, history: History, unserved: Collection[date]
) -> KnownEntities:
    """Read the entities of a view in this process.

    Args:
        settings: where the lake is.
        history: the view and the days that its windows reach into.
        unserved: days to mark entities by.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    view = history.view
    partial: list[pa.Table] = []
    marked = pa.array([day_number(day) for day in sorted(unserved)], pa.int32())
    table = open_table(settings, history.table)
    if table is not None and history.days:
        if int(table.version()) != history.version:
            table.load_as_version(history.version)
        filtered = () if view.filter is None else view.filter.columns
        columns = list(dict.fromkeys([*view.join_keys, "_ingest_ms", _DAY, *filtered]))
        dataset = open_dataset(table)
        most_rows = _BATCH_ROWS
        for batch in dataset.to_batches(
            columns=columns, filter=_counting(history), batch_size=_BATCH_ROWS
        ):
            found = _of_view(view, pa.table(batch))
            days = found.column(_DAY).cast(pa.date32()).cast(pa.int32())
            partial.append(
                _summed(
                    view,
                    found.select(list(view.join_keys))
                    .append_column(EVENTS, pa.array([1] * len(found), pa.int64()))
                    .append_column(LAST_DAY, days)
                    .append_column(NEWEST_MS, found.column("_ingest_ms"))
                    .append_column(IS_UNSERVED, pc.is_in(days, marked)),
                )
            )
            if sum(map(len, partial)) > most_rows:
                partial = [_summed(view, pa.concat_tables(partial))]
                # Merged again only once as much has come: else each batch would cost all entities.
                most_rows = 2 * len(partial[0]) + _BATCH_ROWS
    if not partial:
        return KnownEntities(_no_entities(view), 0, 0)
    rows = _in_order(view, _summed(view, pa.concat_tables(partial)))
    return KnownEntities(rows, len(rows), int(pc.sum(rows.column(EVENTS)).as_py() or 0))


def candidates_on_spark(
    spark: "SparkSession",
    settings: Settings,
    history: History,
    unserved: Collection[date],
    *,
    samples: int,
    seed: int,
) -> KnownEntities:
    """Count the entities of a view on Spark, and bring those that a sample may want.

    Of each last day ``samples`` entities come back, unserved ones apart, chosen by a hash of key
    and seed; and as many with the most events, and with the newest.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    from millrace.compile.spark import measure_query

    view, name = history.view, f"events_{uuid4().hex}"
    keys = view.join_keys
    source = spark.read.format("delta").option("versionAsOf", history.version)
    frame = source.load(table_path(settings, history.table)).filter(day_predicate(history.days))
    frame.createOrReplaceTempView(name)
    marked = [day_number(day) for day in unserved]
    order = F.xxhash64(F.lit(seed), *keys)
    try:
        day = F.floor(F.col("_event_ms") / DAY_MS).cast("int")
        events = spark.sql(measure_query(view, name)).select(*keys, "_ingest_ms", day.alias(_DAY))
        entities = events.groupBy(*keys).agg(
            F.count("*").alias(EVENTS),
            F.max(_DAY).alias(LAST_DAY),
            F.max("_ingest_ms").alias(NEWEST_MS),
            F.bool_or(F.col(_DAY).isin(marked)).alias(IS_UNSERVED),
        )
        total = entities.agg(F.count("*"), F.coalesce(F.sum(EVENTS), F.lit(0))).collect()[0]
        by_day = Window.partitionBy(LAST_DAY, IS_UNSERVED).orderBy(order)
        chosen = (
            entities.withColumn("_place", F.row_number().over(by_day))
            .filter(F.col("_place") <= samples)
            .drop("_place")
            .union(entities.orderBy(F.desc(EVENTS), order).limit(samples))
            .union(entities.orderBy(F.desc(NEWEST_MS), order).limit(samples))
        )
        found = chosen.distinct().toArrow()
    finally:
        spark.catalog.dropTempView(name)
    return KnownEntities(_in_order(view, found), int(total[0]), int(total[1]))


def _counting(history: History) -> "Condition":
    from functools import reduce
    from operator import or_

    from pyarrow.dataset import field

    ranges = [
        (field(_DAY) >= some.start) & (field(_DAY) <= some.last)
        for some in day_ranges(history.days)
    ]
    within: Condition = reduce(or_, ranges)
    for key in history.view.join_keys:
        within &= field(key).is_valid()
    return within


def _of_view(view: ViewPlan, events: "pa.Table") -> "pa.Table":
    if view.filter is None:
        return events
    from millrace.expressions.arrow import evaluate_column

    return events.filter(evaluate_column(view.filter, events))


def _summed(view: ViewPlan, rows: "pa.Table") -> "pa.Table":
    """Return one row an entity."""
    keys = list(view.join_keys)
    merged = [(EVENTS, "sum"), (LAST_DAY, "max"), (NEWEST_MS, "max"), (IS_UNSERVED, "any")]
    summed = rows.group_by(keys).aggregate(merged)
    return summed.select([*keys, *(f"{name}_{how}" for name, how in merged)]).rename_columns(
        [*keys, *(name for name, _ in merged)]
    )


def _in_order(view: ViewPlan, rows: "pa.Table") -> "pa.Table":
    return rows.sort_by([(key, "ascending") for key in view.join_keys])


def _no_entities(view: ViewPlan) -> "pa.Table":
    import pyarrow as pa

    from millrace.kernel.arrow import arrow_type

    keys = [(e.join_key, arrow_type(e.type)) for e in view.entities]
    columns = [(EVENTS, pa.int64()), (LAST_DAY, pa.int32()), (NEWEST_MS, pa.int64())]
    return pa.schema([*keys, *columns, (IS_UNSERVED, pa.bool_())]).empty_table()
