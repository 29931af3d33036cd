"""Plans into Dagster assets: ``raw`` (external), ``events``, ``tiles`` and ``features``.

All assets of a source are one Dagster step that can be subset: any of them can be run alone, and
when a day of events is bad, tiles and features of the other days are still built in the same
run. Why not one step each: ``docs/decisions/partial-failure.md``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from feature_assets.offline import OfflineTables, Progress
from feature_assets.reporting import FailedDays, report_days
from feature_assets.specs import daily_partitions, events_spec, raw_spec, view_specs
from millrace.errors import EngineUnavailable, PlatformError
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.reports import BuildReport, Days, PartitionOutcome

RETRY_AFTER_S = 20
"""An engine that died is given this long to be started again by its supervisor."""


@dataclass(frozen=True)
class _Stage:
    """One asset of a step; ``view`` is None for the events of the source."""

    spec: dg.AssetSpec
    view: ViewPlan | None = None


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
    days = daily_partitions(views)
    stages = [_Stage(events_spec(source, days, lake))]
    stages += [_Stage(spec, view) for view in views for spec in view_specs(view, days, lake)]

    @dg.multi_asset(
        name=f"build_{source.name}",
        specs=[stage.spec for stage in stages],
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
        builder = _Builder(offline, source, tuple(served.values()), context.log.info)
        yield from _run(context, builder, chosen)

    if source.batch is None:
        return [build]
    return [raw_spec(source, source.batch), build]


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
            return BuildReport("/".join(stage.spec.key.path), None, 0, _empty(days))
        is_tiles = stage.spec.key.path[0] == "tiles"
        build = self.offline.build_tiles if is_tiles else self.offline.build_features
        report = build(view, Days(max(days.start, view.start), days.end), progress=self.progress)
        if view.start <= days.start:
            return report
        early = _empty(Days(days.start, view.start))
        return replace(report, outcomes=(*early, *report.outcomes))


def _empty(days: Days) -> tuple[PartitionOutcome, ...]:
    return tuple(PartitionOutcome(day) for day in days)


def _run(
    context: dg.AssetExecutionContext, builder: _Builder, stages: Sequence[_Stage]
) -> Iterator[dg.MaterializeResult[Any]]:
    window = context.partition_time_window
    days = Days(window.start.date(), window.end.date())
    failed = FailedDays()
    for stage in stages:
        failed.inherit(stage.spec)
        good = [day for day in days if day not in failed.of(stage.spec.key)]
        if not good:
            continue
        try:
            report = builder.build(stage, Days.covering(good))
        except EngineUnavailable as error:
            raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_AFTER_S) from error
        except PlatformError as error:
            failed.add(stage.spec.key, dict.fromkeys(good, str(error)))
            continue
        yield from report_days(context, stage.spec, report, days, failed)
    failed.raise_if_any()
