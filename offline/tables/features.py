"""``features/<view>/v<N>``: for each event of the view, the values as of that event.

One shuffle brings an entity's events together; the point-in-time kernel does the rest inside
``mapInArrow``, with no engine in it.
"""

import time
from typing import TYPE_CHECKING

from millrace.compile.spark import measure_query
from millrace.days import Days
from millrace.kernel.view import KernelView
from millrace.names import features_table
from millrace.plan import Column, ViewPlan
from millrace.types import DATE, STRING, TIMESTAMP
from offline.tables.features_task import events_as_of
from offline.tables.history_days import (
    DayLedger,
    events_rows,
    null_keys_by_day,
    read_events,
    report_build,
)
from offline.tables.stages import Stage, history_start
from resources.lake.delta import table_path
from resources.lake.reports import BuildReport
from resources.lake.view_versions import claim_version
from resources.lake.writing import Slices, replace_days
from resources.progress import Progress
from resources.settings import Settings
from resources.spark.session import engine_errors, kernel_partitions

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def build_features(
    spark: "SparkSession",
    settings: Settings,
    stage: Stage,
    progress: Progress,
    *,
    gated: bool = False,
) -> BuildReport:
    """Replace the values of a stage's days, those restated among them.

    A day whose own events are absent fails by name. A day whose windows reach into an absent day
    is built and says so (``missing_days``); once the absent day is built, a plan restates it. Days of events that are held back count as absent. With ``gated``
    the built days are held back until their checks release them.

    Raises:
        EngineError: Spark failed.
    """
    began, view = time.monotonic(), stage.table.of_view
    version = claim_version(settings, view)
    table = features_table(view.name, version)
    ledger = DayLedger.of(settings, view, stage)
    null_keys = {}
    if ledger.good:
        with engine_errors(table):
            _write(spark, settings, view, version, ledger, progress)
            null_keys = null_keys_by_day(spark, settings, view, ledger.good)
    return report_build(
        settings,
        view,
        table,
        version,
        ledger,
        null_keys,
        began,
        time_column="event_time",
        gated=gated,
    )


def _write(
    spark: "SparkSession",
    settings: Settings,
    view: ViewPlan,
    version: str,
    ledger: DayLedger,
    progress: Progress,
) -> None:
    days = ledger.good
    span = Days.covering(days)
    read = Days.through(history_start(view, span.start), span.last)
    rows = events_rows(settings, view, read)
    table = features_table(view.name, version)
    progress(f"{table}: {len(days)} day(s) from {rows} events since {read.start}")
    seen = Slices(tuple(day for day in read if day not in ledger.held))
    slices = Slices.of_hours(days, ledger.hours)
    measured = spark.sql(measure_query(view, read_events(spark, settings, view, seen)))
    schema = ", ".join(f"`{c.name}` {c.type.spark}" for c in feature_columns(view))
    values = measured.repartition(kernel_partitions(rows), *view.join_keys).mapInArrow(
        events_as_of(KernelView.of(view), version, slices.ranges_ms), schema
    )
    replace_days(
        _with_plain_text(values, view),
        table_path(settings, table),
        slices.predicate("unix_millis(event_time)"),
        sort=(*view.join_keys, "event_time"),
    )


def _with_plain_text(values: "DataFrame", view: ViewPlan) -> "DataFrame":
    """Cast text to text: a string out of ``mapInArrow`` carries its collation by name (Spark 4.2).

    Delta would write ``string collate UTF8_BINARY`` into the schema, which no other reader knows.
    """
    from pyspark.sql import functions as F

    return values.select(
        *(
            F.col(f"`{c.name}`").cast(c.type.spark).alias(c.name)
            if STRING in (c.type, c.type.item)
            else F.col(f"`{c.name}`")
            for c in feature_columns(view)
        )
    )


def feature_columns(view: ViewPlan) -> tuple[Column, ...]:
    """Return the table's columns: join keys, event time, features, version, partition day."""
    return (
        *(Column(e.join_key, e.type) for e in view.entities),
        Column("event_time", TIMESTAMP),
        *(Column(f.name, f.type) for f in view.outputs),
        Column("feature_version", STRING),
        Column("event_date", DATE),
    )
