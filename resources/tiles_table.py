"""``tiles/<view>/v<N>``: partial aggregates per entity and tile, by the day a tile starts in."""

import time
from typing import TYPE_CHECKING

from millrace.compile.spark import tile_query
from millrace.plan import ViewPlan
from resources.events_table import Progress
from resources.history_days import DayLedger, null_keys_by_day, read_events, report_build
from resources.lake import table_path
from resources.reports import BuildReport, Days
from resources.settings import Settings
from resources.spark import engine_errors
from resources.versions import claim_version
from resources.writing import replace_days

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def tiles_table(view: str, version: str) -> str:
    """Return the table's name under the lake."""
    return f"tiles/{view}/{version}"


def build_tiles(
    spark: "SparkSession", settings: Settings, view: ViewPlan, days: Days, progress: Progress
) -> BuildReport:
    """Replace the tiles of these days from ``events/<source>``.

    A tile never crosses midnight, so a day needs its own events and no others. Days without an
    events partition fail, by name.

    Raises:
        DataError: none of the days has events.
        EngineError: Spark failed.
    """
    began = time.monotonic()
    version = claim_version(settings, view)
    table = tiles_table(view.name, version)
    ledger = DayLedger.of(settings, view, tuple(days))
    null_keys = {}
    if ledger.good:
        progress(f"{table}: {len(ledger.good)} day(s), tiles of {view.tile_hop_ms} ms")
        with engine_errors(table):
            name = read_events(spark, settings, view, ledger.good)
            tiles = spark.sql(tile_query(view, name))
            replace_days(
                tiles,
                table_path(settings, table),
                ledger.good,
                sort=(*view.join_keys, "tile_start_ms"),
            )
            null_keys = null_keys_by_day(spark, settings, view, ledger.good)
    return report_build(settings, view, table, version, ledger, null_keys, began)
