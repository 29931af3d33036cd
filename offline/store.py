"""The offline store: plans a build of the lake's tables, and does what was planned."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.raw.files import Looks
from offline.tables.events import build_events, count_archived_events
from offline.tables.features import build_features
from offline.tables.stages import Stage, Table, plan_build, read_state
from offline.tables.standing_days import standing_days
from offline.tables.tiles import build_tiles
from resources.lake.reports import BuildReport
from resources.progress import Progress
from resources.settings import Settings
from resources.spark.progress import SparkWatch, report_text
from resources.spark.session import connect

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(eq=False)
class OfflineStore:
    """Builds ranges of days with the Spark that the settings name.

    Attributes:
        settings: the lake and its Spark.
        gated: True if built days of events and features are held back from readers until their
            checks release them (``checks.quality.gate.judge_build``).
        looks: into raw files, so that a build does not open again what its plan has looked at.
    """

    settings: Settings
    gated: bool = False
    looks: Looks = field(default_factory=dict)

    def plan(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        tables: Collection[str] | None = None,
        skipped: Mapping[str, Mapping[date, str]] | None = None,
    ) -> tuple[Stage, ...]:
        """Plan a build by what the lake has now; see ``plan_build``."""
        lake = read_state(self.settings, source, views, known=self.looks)
        return plan_build(lake, source, views, days, tables=tables, skipped=skipped)

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Write the days of a stage, of which there is at least one; idempotent.

        ``progress`` is told what Spark is at and what came of it. A build that is broken off takes
        its Spark job with it and leaves each day as it was, or wholly as it should be.
        """
        settings, table, gated = self.settings, stage.table, self.gated
        if table.kind == "events" and table.source.batch is None:
            return count_archived_events(settings, stage, gated=gated)
        with self._spark(table.name, progress) as spark:
            match table.kind:
                case "events":
                    report = build_events(
                        spark, settings, stage, progress, gated=gated, known=self.looks
                    )
                case "tiles":
                    report = build_tiles(spark, settings, stage, progress)
                case "features":
                    report = build_features(spark, settings, stage, progress, gated=gated)
        progress(report_text(report))
        return report

    def standing(self, table: Table, days: Days, since_ms: int) -> frozenset[date]:
        """Return the days that stand as built since an instant; see ``standing_days``."""
        return standing_days(self.settings, table, days, since_ms)

    @contextmanager
    def _spark(self, what: str, progress: Progress) -> "Iterator[SparkSession]":
        session = connect(self.settings)
        with SparkWatch(session, what, progress):
            yield session
