"""One table of a run, as a step: what is to be built of it, the build, and what became of each day.

Steps of a run know of each other by Dagster's log of the run, and by the lake.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from typing import Any

import dagster as dg

from checks.quality.evaluation_log import withdrawing_planned
from checks.quality.evaluations import chosen_checks
from feature_assets.judging import Gate, Judged, report_checks
from feature_assets.offline import OfflineTables
from feature_assets.reporting import FailedDays, engine_is_away, failed_before, report_days
from feature_assets.standing import standing_days
from lineage.builds import telling
from millrace.days import HOURS_A_DAY, Days
from millrace.errors import EngineUnavailable, PlatformError
from millrace.plan import SourcePlan, ViewPlan
from resources.dagster.asset_keys import features_path, lake_table, tiles_path
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.progress import ticking

RETRY_AFTER_S = 20.0
"""From the loss of an engine to the next try of a build, and between two tries."""

GIVE_UP_AFTER_S = 180.0
"""An engine that died is given this long to be started again by its supervisor."""


@dataclass(frozen=True)
class Stage:
    """One table with its checks; ``view`` is None for the events of the source."""

    spec: dg.AssetSpec
    checks: Sequence[dg.AssetCheckSpec]
    view: ViewPlan | None = None

    @property
    def is_judged(self) -> bool:
        """False for tiles: they are a regrouping of events that were judged."""
        return bool(self.checks)

    @property
    def is_tiles(self) -> bool:
        """True for a view's partial aggregates."""
        return self.view is not None and not self.is_judged


@dataclass(frozen=True)
class TableStep:
    """Builds one table for the range of a run, or judges again what is built of it.

    Attributes:
        context: of the step.
        offline: builds and judges.
        source: the table's, or that whose events it reads.
        views: all views of the source, in declared order.
        stage: the table.
        publish: True if the run was told to release every day, whatever its checks find.
    """

    context: dg.AssetExecutionContext
    offline: OfflineTables
    source: SourcePlan
    views: Sequence[ViewPlan]
    stage: Stage
    publish: bool

    def run(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Do what the run chose of the table: build it, or judge it alone.

        Raises:
            dagster.Failure: a day could not be built, or nothing is there to be judged.
        """
        key, by_hour = self.stage.spec.key, self.source.schedule.is_hourly
        self.context.log.addFilter(_is_no_remark_on_checks)
        with withdrawing_planned(self.context, [key], by_hour=by_hour):
            if key in self.context.selected_asset_keys:
                yield from self._build()
            else:
                self._judge_again()

    def _build(self) -> Iterator[dg.MaterializeResult[Any]]:
        asked, spec = self._asked, self.stage.spec
        failed = FailedDays(spec.key)
        failed.add(failed_before(self.context, spec, asked))
        stands = standing_days(self.context, spec, asked, self._standing)
        good = [day for day in asked if day not in failed.days and day not in stands]
        if good:
            try:
                judged = self._built_patiently(asked.only(good), good)
            except EngineUnavailable as error:
                failed.add(dict.fromkeys(good, str(error)), engine_is_away=True)
            except PlatformError as error:
                failed.add(dict.fromkeys(good, str(error)))
            else:
                report = self._with_early_days(asked.only(good), judged.report)
                yield from report_days(self.context, spec, report, asked, failed)
                report_checks(self.context, spec, judged)
        failed.raise_if_any(asked, by_hour=self.source.schedule.is_hourly)

    def _built_patiently(self, days: Days, good: Sequence[date]) -> Judged:
        """Build; once more if an engine died meanwhile and is there again before patience ends."""
        lost: float | None = None
        attempt = 0
        while True:
            try:
                return self._built(days, good, attempt)
            except EngineUnavailable as error:
                lost = time.monotonic() if lost is None else lost
                is_over = time.monotonic() - lost >= GIVE_UP_AFTER_S
                # Another table of this run waited in vain: each one more would wait as long.
                if is_over or engine_is_away(self.context):
                    raise
                self.context.log.warning("%s; tried again in %d s", error, RETRY_AFTER_S)
                time.sleep(RETRY_AFTER_S)
                attempt += 1

    def _built(self, days: Days, good: Sequence[date], attempt: int) -> Judged:
        stage, context = self.stage, self.context
        gate = self._gate if stage.is_judged else None
        with telling(
            context, self.source, stage.view, stage.spec.key, self._asked, good, attempt
        ) as told:
            judged = Judged(self._report(days))
            if gate is not None and not self._is_early(judged.report):
                with ticking(f"{judged.report.table}: judged by its checks", context.log.info):
                    judged = gate.judged(stage.view, judged.report)
            told.built(judged.report)
        return judged

    def _report(self, days: Days) -> BuildReport:
        view, progress = self.stage.view, self.context.log.info
        if view is None:
            return self.offline.build_events(self.source, self._served, days, progress=progress)
        if days.last < view.start:
            return BuildReport(lake_table(self.stage.spec.key.path), None, 0, _empty(days))
        build = self.offline.build_tiles if self.stage.is_tiles else self.offline.build_features
        return build(view, days.since(view.start), progress=progress)

    def _standing(self, days: Days, since_ms: int) -> frozenset[date]:
        view, offline = self.stage.view, self.offline
        if view is None:
            return offline.standing_events(self.source, days, since_ms)
        early = frozenset(day for day in days if day < view.start)
        if days.last < view.start:
            return early
        stands = offline.standing_tiles if self.stage.is_tiles else offline.standing_features
        return early | stands(view, days.since(view.start), since_ms)

    @cached_property
    def _asked(self) -> Days:
        window = self.context.partition_time_window
        return Days.between(window.start, window.end)

    @property
    def _served(self) -> tuple[ViewPlan, ...]:
        """The views that the run is for, whose windows its events must reach back for."""
        chosen = self.context.job_def.asset_layer.selected_asset_keys
        return tuple(
            view
            for view in self.views
            if any(dg.AssetKey(path(view)) in chosen for path in (tiles_path, features_path))
        )

    @property
    def _gate(self) -> Gate:
        return Gate(
            self.offline.judge(),
            self.source,
            self.views,
            publish=self.publish,
            progress=self.context.log.info,
        )

    def _is_early(self, report: BuildReport) -> bool:
        """Tell whether nothing was built, all days lying before the view's start."""
        return self.stage.view is not None and report.version is None

    def _with_early_days(self, days: Days, report: BuildReport) -> BuildReport:
        """Add the days before the view's own start: empty partitions of it, which nobody judges."""
        view = self.stage.view
        if view is None or not days.start < view.start <= days.last:
            return report
        early = _empty(replace(days, end=view.start, to_hour=HOURS_A_DAY))
        return replace(report, outcomes=(*early, *report.outcomes))

    def _judge_again(self) -> None:
        """Judge what was built: checks were chosen, and their asset was not."""
        context, spec = self.context, self.stage.spec
        if not chosen_checks(context, spec.key):
            return
        is_of_days = context.has_partition_key or context.has_partition_key_range
        judged = self._gate.judged_again(self.stage.view, self._asked if is_of_days else None)
        found = judged.judgement
        if found is None or not found.days:
            raise dg.Failure(
                f"nothing of {spec.key.to_user_string()} can be judged: these days are not built, "
                "or were built by another definition. Materialize them, which judges them too",
                allow_retries=False,
            )
        report_checks(context, spec, judged)
        context.log.info(
            "%s: %d day(s) judged again in %.1f s, %d with findings; nothing is published or held "
            "back by it",
            found.table,
            len(found.days),
            found.seconds,
            found.alarmed,
        )


def _empty(days: Days) -> tuple[PartitionOutcome, ...]:
    return tuple(PartitionOutcome(day, days.hours(day)) for day in days)


def _is_no_remark_on_checks(record: logging.LogRecord) -> bool:
    """Keep out of the log that a step yielded no results of checks: they are stored by themselves."""
    return "did not yield or return expected outputs" not in record.getMessage()
