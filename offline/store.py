"""The offline store: one method for each table that a feature view has in the lake."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from millrace.days import Days
from millrace.names import events_table
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.events import build_events, count_archived_events
from offline.tables.features import build_features
from offline.tables.standing_days import standing_events, standing_features, standing_tiles
from offline.tables.tiles import build_tiles
from resources.lake.reports import BuildReport
from resources.progress import Progress
from resources.settings import Settings
from resources.spark.progress import SparkWatch, report_text
from resources.spark.session import connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class OfflineStore:
    """Builds ranges of days with the Spark that the settings name; every method is idempotent.

    ``progress`` is told what Spark is at and what came of it. A build that is broken off takes its
    Spark job with it and leaves each day as it was, or wholly as it should be.

    Attributes:
        settings: the lake and its Spark.
        gated: True if built days of events and features are held back from readers until their
            checks release them (``checks.quality.gate.judge_build``).
    """

    settings: Settings
    gated: bool = False

    def build_events(
        self, source: SourcePlan, views: Sequence[ViewPlan], days: Days, *, progress: Progress
    ) -> BuildReport:
        """Build ``events/<source>``; see ``offline.tables.events.build_events``."""
        if source.batch is None and source.stream is not None:
            return count_archived_events(self.settings, source, views, days, gated=self.gated)
        with self._spark(events_table(source.name), progress) as spark:
            report = build_events(
                spark, self.settings, source, views, days, progress, gated=self.gated
            )
        progress(report_text(report))
        return report

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build ``tiles/<view>``; see ``offline.tables.tiles.build_tiles``."""
        with self._spark(f"tiles/{view.name}", progress) as spark:
            report = build_tiles(spark, self.settings, view, days, progress)
        progress(report_text(report))
        return report

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build ``features/<view>``; see ``offline.tables.features.build_features``."""
        with self._spark(f"features/{view.name}", progress) as spark:
            report = build_features(spark, self.settings, view, days, progress, gated=self.gated)
        progress(report_text(report))
        return report

    def standing_events(self, source: SourcePlan, days: Days, since_ms: int) -> frozenset[date]:
        """See ``offline.tables.standing_days.standing_events``."""
        return standing_events(self.settings, source, days, since_ms)

    def standing_tiles(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """See ``offline.tables.standing_days.standing_tiles``."""
        return standing_tiles(self.settings, view, days, since_ms)

    def standing_features(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """See ``offline.tables.standing_days.standing_features``."""
        return standing_features(self.settings, view, days, since_ms)

    @contextmanager
    def _spark(self, what: str, progress: Progress) -> "Iterator[SparkSession]":
        session = connect(self.settings)
        with SparkWatch(session, what, progress):
            yield session
