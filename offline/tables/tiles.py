"""``tiles/<view>/v<N>``: partial aggregates per entity and tile, by the day a tile starts in."""

import time
from typing import TYPE_CHECKING

from millrace.compile.spark import tile_query
from millrace.durations import format_duration
from millrace.names import tiles_table
from millrace.tiles import TILE_START
from offline.tables.history_days import DayLedger, null_keys_by_day, read_events, report_build
from offline.tables.stages import Stage
from resources.lake.delta import table_path
from resources.lake.reports import BuildReport
from resources.lake.view_versions import claim_version
from resources.lake.writing import Slices, replace_days
from resources.progress import Progress
from resources.settings import Settings
from resources.spark.session import engine_errors

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def build_tiles(
    spark: "SparkSession", settings: Settings, stage: Stage, progress: Progress
) -> BuildReport:
    """Replace the tiles of a stage's days from ``events/<source>``.

    A tile never crosses midnight, so a day needs its own events and no others. Where some hours of
    a day are asked for, the tiles are built that begin in them or hold an instant of them. Days
    without an events partition fail, by name.

    Raises:
        DataError: none of the days has events.
        EngineError: Spark failed.
    """
    began, view = time.monotonic(), stage.table.of_view
    version = claim_version(settings, view)
    table = tiles_table(view.name, version)
    ledger = DayLedger.of(settings, view, stage)
    null_keys = {}
    if ledger.good:
        progress(
            f"{table}: {len(ledger.good)} day(s), tiles of {format_duration(view.tile_hop_ms)}"
        )
        with engine_errors(table):
            # Half a tile would pass for a whole one.
            slices = Slices.of_hours(ledger.good, ledger.hours, hop_ms=view.tile_hop_ms)
            name = read_events(spark, settings, view, slices)
            replace_days(
                spark.sql(tile_query(view, name)),
                table_path(settings, table),
                slices.predicate(TILE_START),
                sort=(*view.join_keys, TILE_START),
            )
            null_keys = null_keys_by_day(spark, settings, view, ledger.good)
    return report_build(
        settings, view, table, version, ledger, null_keys, began, time_column=TILE_START
    )
