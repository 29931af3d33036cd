"""What the assets ask of the offline tables, narrow enough for a fake, and the lake that gives it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Protocol

import dagster as dg

from checks.quality.judgement import Judgement
from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.stages import Stage, Table
from resources.lake.reports import BuildReport
from resources.progress import Progress
from resources.settings import Settings


class OfflineTables(Protocol):
    """Plans, builds and judges ranges of days of the offline tables."""

    def plan(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        tables: Collection[str] | None = None,
        skipped: Mapping[str, Mapping[date, str]] | None = None,
    ) -> tuple[Stage, ...]:
        """Return what a build does, by what is there now; see ``offline.tables.stages.plan_build``."""
        ...

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Do what a stage says, which writes at least one day.

        The days that can be built are committed and the others named in the report; building a day
        again gives the same content. An exception means that no day could be built.
        """
        ...

    def standing(self, table: Table, days: Days, since_ms: int) -> frozenset[date]:
        """Return the days of a table that stand as built since an instant, epoch milliseconds.

        They were built by this definition and released, from what has not changed since.
        """
        ...

    def judge(
        self,
        table: Table,
        views: Sequence[ViewPlan],
        report: BuildReport,
        *,
        publish: bool,
        progress: Progress,
    ) -> Judgement:
        """Judge the days of a build, and publish or hold back each of them.

        ``views`` are all that read the source. With ``publish`` every day is published, whatever was
        found. An exception means that nothing was judged, and that all the days are held back.
        """
        ...

    def judge_again(
        self, table: Table, views: Sequence[ViewPlan], days: Days | None
    ) -> tuple[BuildReport, Judgement]:
        """Judge what is built by the rules of now, ``days`` of it or all; change nothing.

        Returns:
            The table as it stands, with no outcomes; what was found.
        """
        ...


def offline_lake(settings: Settings) -> dg.ResourceDefinition:
    """Return the tables under ``MILLRACE_LAKE``, computed by Spark, for the steps of a run to share.

    Nothing is opened before a step asks for it, and the run ends what it opened.
    """

    def opened(_: dg.InitResourceContext) -> Iterator[OfflineTables]:
        from feature_assets.judged_lake import JudgedLake

        lake = JudgedLake(settings)
        with lake.opened:
            yield lake

    return dg.ResourceDefinition(opened, description="The tables of the lake, computed by Spark.")
