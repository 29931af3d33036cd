"""One table of a run, as a step: what is to be built of it, the build, and what became of each day.

Steps of a run know of each other by Dagster's log of the run, and by the lake.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
from lineage.builds import emitting
from millrace.days import Days
from millrace.errors import EngineUnavailable, PlatformError
from millrace.plan import ViewPlan
from offline.tables.stages import Stage, Table, tables_of
from resources.dagster.asset_keys import features_path, lake_table, tiles_path
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.progress import ticking

RETRY_AFTER_S = 20.0
"""From the loss of an engine to the next try of a build, and between two tries."""

GIVE_UP_AFTER_S = 180.0
"""An engine that died is given this long to be started again by its supervisor."""


@dataclass(frozen=True)
class TableAsset:
    """One table as an asset, with its checks; tiles have none, being events that were judged."""

    spec: dg.AssetSpec
    checks: Sequence[dg.AssetCheckSpec]
    table: Table

    @property
    def is_judged(self) -> bool:
        """True if it has checks."""
        return bool(self.checks)


@dataclass(frozen=True)
class TableStep:
    """Builds one table for the range of a run, or judges again what is built of it.

    Attributes:
        context: of the step.
        offline: plans, builds and judges.
        views: all views of the source, in declared order.
        asset: the table.
        publish: True if the run was told to release every day, whatever its checks find.
    """

    context: dg.AssetExecutionContext
    offline: OfflineTables
    views: Sequence[ViewPlan]
    asset: TableAsset
    publish: bool

    def run(self) -> Iterator[dg.MaterializeResult[Any]]:
        """Do what the run chose of the table: build it, or judge it alone.

        Raises:
            dagster.Failure: a day could not be built, or nothing is there to be judged.
        """
        key = self.asset.spec.key
        self.context.log.addFilter(_is_no_remark_on_checks)
        with withdrawing_planned(self.context, [key], by_hour=self._is_hourly):
            if key in self.context.selected_asset_keys:
                yield from self._build()
            else:
                self._judge_again()

    def _build(self) -> Iterator[dg.MaterializeResult[Any]]:
        asked, spec = self._asked, self.asset.spec
        failed = FailedDays(spec.key)
        failed.add(failed_before(self.context, spec, asked))
        stands = standing_days(self.context, spec, asked, self._standing)
        skipped = {**dict.fromkeys(stands, "it stands as the run before built it"), **failed.days}
        good = [day for day in asked if day not in skipped]
        if good:
            try:
                stage = self._planned(skipped)
                judged = self._built_patiently(stage, good)
            except EngineUnavailable as error:
                failed.add(dict.fromkeys(good, str(error)), engine_is_away=True)
            except PlatformError as error:
                failed.add(dict.fromkeys(good, str(error)))
            else:
                report = judged.report
                if stage.days is not None:
                    report = replace(report, outcomes=(*self._empty(stage), *report.outcomes))
                yield from report_days(self.context, spec, report, asked, failed)
                report_checks(self.context, spec, judged)
        failed.raise_if_any(asked, by_hour=self._is_hourly)

    def _planned(self, skipped: Mapping[date, str]) -> Stage:
        """Return what is to be built of the table; the run's first step logs that of all its tables."""
        own, source = self.asset.table.name, self.asset.table.source
        chosen = {lake_table(key.path) for key in self._chosen}
        tables = [table.name for table in tables_of(source, self.views) if table.name in chosen]
        stages = self.offline.plan(
            source,
            self._served,
            self._asked,
            tables=tables if own == tables[0] else [own],
            skipped={own: skipped},
        )
        self.context.log.info("\n".join(line for stage in stages for line in stage.lines()))
        return next(stage for stage in stages if stage.table.name == own)

    def _built_patiently(self, stage: Stage, good: Sequence[date]) -> Judged:
        """Build; once more if an engine died meanwhile and is there again before patience ends."""
        lost: float | None = None
        attempt = 0
        while True:
            try:
                return self._built(stage, good, attempt)
            except EngineUnavailable as error:
                lost = time.monotonic() if lost is None else lost
                is_over = time.monotonic() - lost >= GIVE_UP_AFTER_S
                # Another table of this run waited in vain: each one more would wait as long.
                if is_over or engine_is_away(self.context):
                    raise
                self.context.log.warning("%s; tried again in %d s", error, RETRY_AFTER_S)
                time.sleep(RETRY_AFTER_S)
                attempt += 1

    def _built(self, stage: Stage, good: Sequence[date], attempt: int) -> Judged:
        table, context = self.asset.table, self.context
        with emitting(
            context, table.source, table.view, self.asset.spec.key, self._asked, good, attempt
        ) as told:
            if stage.days is None:
                judged = Judged(BuildReport(table.name, None, 0, (*self._empty(stage),)))
            else:
                judged = Judged(self.offline.build(stage, progress=context.log.info))
                if self.asset.is_judged:
                    name = judged.report.table
                    with ticking(f"{name}: judged by its checks", context.log.info):
                        judged = self._gate.judged(judged.report)
            told.built(judged.report)
        return judged

    def _empty(self, stage: Stage) -> Iterator[PartitionOutcome]:
        """Yield the days before the view's own start: empty partitions of it, which nobody judges."""
        for day in stage.early:
            yield PartitionOutcome(day, self._asked.hours(day))

    def _standing(self, days: Days, since_ms: int) -> frozenset[date]:
        return self.offline.standing(self.asset.table, days, since_ms)

    @property
    def _is_hourly(self) -> bool:
        return self.asset.table.source.schedule.is_hourly

    @property
    def _chosen(self) -> AbstractSet[dg.AssetKey]:
        """What the run builds."""
        return self.context.job_def.asset_layer.selected_asset_keys

    @cached_property
    def _asked(self) -> Days:
        window = self.context.partition_time_window
        return Days.between(window.start, window.end)

    @property
    def _served(self) -> tuple[ViewPlan, ...]:
        """The views that the run is for, whose windows its events must reach back for."""
        chosen = self._chosen
        return tuple(
            view
            for view in self.views
            if any(dg.AssetKey(path(view)) in chosen for path in (tiles_path, features_path))
        )

    @property
    def _gate(self) -> Gate:
        return Gate(
            self.offline,
            self.asset.table,
            self.views,
            publish=self.publish,
            progress=self.context.log.info,
        )

    def _judge_again(self) -> None:
        """Judge what was built: checks were chosen, and their asset was not."""
        context, spec = self.context, self.asset.spec
        if not chosen_checks(context, spec.key):
            return
        is_of_days = context.has_partition_key or context.has_partition_key_range
        judged = self._gate.judged_again(self._asked if is_of_days else None)
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


def _is_no_remark_on_checks(record: logging.LogRecord) -> bool:
    """Keep out of the log that a step yielded no results of checks: they are stored by themselves."""
    return "did not yield or return expected outputs" not in record.getMessage()
