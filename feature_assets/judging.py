"""The publish gate as a step sees it: what was built is judged, and what is bad stays hidden."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from checks.quality.evaluations import check_specs, chosen_checks, report_judgement, report_unable
from checks.quality.judgement import Judgement
from feature_assets.offline import OfflineTables
from lineage.builds import enclosing
from millrace.compile.checks import check_rules, source_rules
from millrace.days import Days
from millrace.errors import EngineUnavailable, PlatformError
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.stages import Table
from resources.dagster.partition_keys import closing_key
from resources.lake.reports import BuildReport
from resources.progress import Progress

PUBLISH = "publish"
"""The step's setting that releases days whatever their checks found."""

STEP_CONFIG = {
    PUBLISH: dg.Field(
        bool,
        default_value=False,
        description="Let readers see the days of this run even if a check that blocks them fails.",
    )
}


def source_check_specs(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    key: dg.AssetKey,
    partitions: dg.TimeWindowPartitionsDefinition,
    docs: str | None = None,
) -> list[dg.AssetCheckSpec]:
    """Return the checks of ``events/<source>``; ``views`` are all that read it."""
    return check_specs(key, source_rules(source, views), partitions, docs)


def view_check_specs(
    view: ViewPlan,
    key: dg.AssetKey,
    partitions: dg.TimeWindowPartitionsDefinition,
    docs: str | None = None,
) -> list[dg.AssetCheckSpec]:
    """Return the checks of ``features/<view>``."""
    return check_specs(key, check_rules(view), partitions, docs)


@dataclass(frozen=True)
class Judged:
    """A build after its judgement.

    Attributes:
        report: the build, with the days that are held back as failed.
        judgement: what was found; None if the table has no checks, or they could not run.
        error: why they could not run; None if they did.
    """

    report: BuildReport
    judgement: Judgement | None = None
    error: str | None = None


@dataclass(frozen=True)
class Gate:
    """Judges the table of one step.

    Attributes:
        offline: what judges.
        table: the step's.
        views: all views that read its source.
        publish: True if the run was told to release every day.
        progress: told what is done.
    """

    offline: OfflineTables
    table: Table
    views: Sequence[ViewPlan]
    publish: bool
    progress: Progress

    def judged(self, report: BuildReport) -> Judged:
        """Judge a build of the table.

        Raises:
            EngineUnavailable: Spark died; the step may be tried again.
        """
        if not report.built:
            return Judged(report)
        try:
            found = self.offline.judge(
                self.table, self.views, report, publish=self.publish, progress=self.progress
            )
        except EngineUnavailable:
            raise
        except PlatformError as error:
            text = f"its checks could not run: {error}"
            return Judged(
                _held(report, dict.fromkeys((o.day for o in report.built), text)), error=text
            )
        held = {day: f"held back: {reason}" for day, reason in found.held.items()}
        return Judged(_held(report, held), found)

    def judged_again(self, days: Days | None) -> Judged:
        """Judge what is built of the table, all of it if ``days`` is None; change nothing."""
        return Judged(*self.offline.judge_again(self.table, self.views, days))


def _held(report: BuildReport, reasons: dict[Any, str]) -> BuildReport:
    outcomes = (replace(o, error=reasons.get(o.day, o.error)) for o in report.outcomes)
    return replace(report, outcomes=tuple(outcomes))


def report_checks(context: dg.AssetExecutionContext, spec: dg.AssetSpec, judged: Judged) -> None:
    """Tell Dagster and lineage what was found; after the days' materialisations are stored."""
    from checks.quality.lineage import tell

    by_hour = isinstance(spec.partitions_def, dg.HourlyPartitionsDefinition)
    checks = chosen_checks(context, spec.key)
    if judged.error is not None:
        keys = [closing_key(outcome.day, by_hour=by_hour) for outcome in judged.report.failed]
        report_unable(context, spec.key, checks, keys, judged.error)
    if judged.judgement is None:
        return
    report_judgement(context, spec.key, checks, judged.judgement, by_hour=by_hour)
    tell(judged.judgement, enclosing(context), judged.report.delta_version)
