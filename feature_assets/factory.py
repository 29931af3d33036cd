"""Plans into Dagster assets: ``raw`` (external), ``events``, ``tiles`` and ``features``.

All assets of a source are one Dagster step that can be subset: any of them can be run alone, and
when a day of events is bad, tiles and features of the other days are still built in the same
run. Why not one step each: ``docs/decisions/partial-failure.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from checks.evaluation_log import withdrawing_planned
from checks.evaluations import chosen_checks
from feature_assets.judging import (
    PUBLISH,
    STEP_CONFIG,
    Gate,
    Judged,
    report_checks,
    source_check_specs,
    view_check_specs,
)
from feature_assets.keys import lake_table
from feature_assets.lineage import telling
from feature_assets.offline import OfflineTables, Progress
from feature_assets.reporting import FailedDays, report_days
from feature_assets.specs import events_spec, raw_spec, source_partitions, view_specs
from millrace.errors import EngineUnavailable, PlatformError
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.reports import HOURS_A_DAY, BuildReport, Days, PartitionOutcome

RETRY_AFTER_S = 20
"""An engine that died is given this long to be started again by its supervisor."""


@dataclass(frozen=True)
class _Stage:
    """One asset of a step with its checks; ``view`` is None for the events of the source."""

    spec: dg.AssetSpec
    checks: Sequence[dg.AssetCheckSpec]
    view: ViewPlan | None = None

    @property
    def is_judged(self) -> bool:
        """False for tiles: they are a regrouping of events that were judged."""
        return bool(self.checks)


def plan_assets(plan: Plan, lake: str) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the assets of every source that a view reads, in declared order."""
    return [
        asset
        for name, source in plan.sources.items()
        if (views := plan.views_of(name))
        for asset in source_assets(source, views, lake)
    ]


def source_assets(
    source: SourcePlan, views: Sequence[ViewPlan], lake: str
) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the external files of a source, if it has any, and all that is built of its events.

    Args:
        source: the source; at least one view reads it.
        views: the views of this source, in declared order.
        lake: root of the Delta tables, for the assets' metadata.
    """
    stages = _stages(source, views, source_partitions(views), lake)

    @dg.multi_asset(
        name=f"build_{source.name}",
        specs=[stage.spec for stage in stages],
        check_specs=[check for stage in stages for check in stage.checks],
        config_schema=STEP_CONFIG,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=f"lake_{source.name}",
        description=f"Builds the chosen tables of {source.name} for a range of days.",
    )
    def build(
        context: dg.AssetExecutionContext, offline: dg.ResourceParam[OfflineTables]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        chosen = [s for s in stages if s.spec.key in context.selected_asset_keys]
        served = {s.view.name: s.view for s in chosen if s.view}
        progress = context.log.info
        builder = _Builder(offline, source, tuple(served.values()), progress)
        publish = context.op_execution_context.op_config[PUBLISH]
        with offline.judging() as judge:
            gate = Gate(judge, source, views, publish=publish, progress=progress)
            alone = [s for s in stages if s not in chosen and chosen_checks(context, s.spec.key)]
            without = [s for s in alone if not _is_judged_again(context, gate, s)]
            keys = [s.spec.key for s in (*chosen, *alone)]
            with withdrawing_planned(context, keys, by_hour=source.schedule.is_hourly):
                if chosen:
                    yield from _run(context, builder, gate, chosen)
        if without:
            raise _nothing_to_judge(without)

    if source.batch is None:
        return [build]
    return [raw_spec(source, source.batch, views), build]


def _stages(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    partitions: dg.TimeWindowPartitionsDefinition,
    lake: str,
) -> list[_Stage]:
    events = events_spec(source, views, partitions, lake)
    stages = [_Stage(events, source_check_specs(source, views, events.key, partitions))]
    for view in views:
        tiles, features = view_specs(view, partitions, lake)
        stages.append(_Stage(tiles, (), view))
        stages.append(_Stage(features, view_check_specs(view, features.key, partitions), view))
    return stages


@dataclass(frozen=True)
class _Builder:
    """Builds the tables of one source; ``served`` are the views its events must reach back for."""

    offline: OfflineTables
    source: SourcePlan
    served: Sequence[ViewPlan]
    progress: Progress

    def build(self, stage: _Stage, days: Days) -> BuildReport:
        view = stage.view
        if view is None:
            return self.offline.build_events(self.source, self.served, days, progress=self.progress)
        if days.last < view.start:
            return BuildReport(lake_table(stage.spec.key.path), None, 0, _empty(days))
        is_tiles = stage.spec.key.path[0] == "tiles"
        build = self.offline.build_tiles if is_tiles else self.offline.build_features
        return build(view, days.since(view.start), progress=self.progress)


def _is_early(stage: _Stage, report: BuildReport) -> bool:
    """Tell whether nothing was built, all days lying before the view's start."""
    return stage.view is not None and report.version is None


def _with_early_days(stage: _Stage, days: Days, report: BuildReport) -> BuildReport:
    """Add the days before the view's own start: empty partitions of it, which nobody judges."""
    if stage.view is None or not days.start < stage.view.start <= days.last:
        return report
    early = _empty(replace(days, end=stage.view.start, to_hour=HOURS_A_DAY))
    return replace(report, outcomes=(*early, *report.outcomes))


def _empty(days: Days) -> tuple[PartitionOutcome, ...]:
    return tuple(PartitionOutcome(day, days.hours(day)) for day in days)


def _is_judged_again(context: dg.AssetExecutionContext, gate: Gate, stage: _Stage) -> bool:
    """Judge what was built: checks were chosen, and their asset was not. False: nothing was."""
    judged = gate.judged_again(stage.view, _asked_days(context) if _is_of_days(context) else None)
    if judged.judgement is None or not judged.judgement.days:
        return False
    report_checks(context, stage.spec, judged)
    found = judged.judgement
    context.log.info(
        "%s: %d day(s) judged again in %.1f s, %d with findings; nothing is published or held back "
        "by it",
        found.table,
        len(found.days),
        found.seconds,
        found.alarmed,
    )
    return True


def _nothing_to_judge(stages: Sequence[_Stage]) -> dg.Failure:
    names = ", ".join(stage.spec.key.to_user_string() for stage in stages)
    return dg.Failure(
        f"nothing of {names} can be judged: these days are not built, or were built by another "
        "definition. Materialize them, which judges them too",
        allow_retries=False,
    )


def _is_of_days(context: dg.AssetExecutionContext) -> bool:
    return bool(context.has_partition_key or context.has_partition_key_range)


def _asked_days(context: dg.AssetExecutionContext) -> Days:
    window = context.partition_time_window
    return Days.between(window.start, window.end)


def _run(
    context: dg.AssetExecutionContext, builder: _Builder, gate: Gate, stages: Sequence[_Stage]
) -> Iterator[dg.MaterializeResult[Any]]:
    days = _asked_days(context)
    failed = FailedDays()
    for stage in stages:
        failed.inherit(stage.spec)
        good = [day for day in days if day not in failed.of(stage.spec.key)]
        if not good:
            continue
        try:
            with telling(context, builder.source, stage.view, stage.spec.key, days, good) as told:
                judged = Judged(builder.build(stage, days.within(good)))
                if stage.is_judged and not _is_early(stage, judged.report):
                    judged = gate.judged(stage.view, judged.report)
                told.built(judged.report)
        except EngineUnavailable as error:
            raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_AFTER_S) from error
        except PlatformError as error:
            failed.add(stage.spec.key, dict.fromkeys(good, str(error)))
            continue
        report = _with_early_days(stage, days.within(good), judged.report)
        yield from report_days(context, stage.spec, report, days, failed)
        report_checks(context, stage.spec, judged)
    failed.raise_if_any(days, by_hour=builder.source.schedule.is_hourly)
