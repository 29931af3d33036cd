"""Plans into Dagster assets: ``raw`` (external), ``events``, ``tiles`` and ``features``.

Each table is a step of its own, with its own time, log and retry. No step waits for another to
succeed: when a day of events is bad, tiles and features of the other days are still built in the
same run. How that is done, and why: ``docs/decisions/partial-failure.md``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from feature_assets.judging import PUBLISH, STEP_CONFIG, source_check_specs, view_check_specs
from feature_assets.offline import OfflineTables
from feature_assets.reporting import step_name
from feature_assets.specs import events_spec, raw_spec, source_partitions, view_specs
from feature_assets.table_step import Stage, TableStep
from millrace.plan import Plan, SourcePlan, ViewPlan


def plan_assets(
    plan: Plan, lake: str, docs: str | None = None
) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the assets of every source that a view reads, in declared order."""
    return [
        asset
        for name, source in plan.sources.items()
        if (views := plan.views_of(name))
        for asset in source_assets(source, views, lake, docs)
    ]


def source_assets(
    source: SourcePlan, views: Sequence[ViewPlan], lake: str, docs: str | None = None
) -> list[dg.AssetSpec | dg.AssetsDefinition]:
    """Return the external files of a source, if it has any, and all that is built of its events.

    Args:
        source: the source; at least one view reads it.
        views: the views of this source, in declared order.
        lake: root of the Delta tables, for the assets' metadata.
        docs: where these docs are served, for the runbooks of checks; None: nowhere.
    """
    stages = _stages(source, views, source_partitions(views), lake, docs)
    tables = [_table(source, views, stage, place) for place, stage in enumerate(stages)]
    if source.batch is None:
        return [*tables]
    return [raw_spec(source, source.batch, views), *tables]


def _table(
    source: SourcePlan, views: Sequence[ViewPlan], stage: Stage, place: int
) -> dg.AssetsDefinition:
    """Return one table as an asset; of the steps of a run, that with the lowest place comes first."""

    @dg.multi_asset(
        name=step_name(stage.spec.key),
        specs=[stage.spec.replace_attributes(deps=[])],
        check_specs=stage.checks,
        config_schema=STEP_CONFIG if stage.is_judged else None,
        can_subset=True,
        pool=f"lake_{source.name}",
        op_tags={"dagster/priority": str(-place)},
        description=f"Builds {stage.spec.key.to_user_string()} for a range of days.",
    )
    def build(
        context: dg.AssetExecutionContext, offline: dg.ResourceParam[OfflineTables]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        config = context.op_execution_context.op_config
        publish = stage.is_judged and config[PUBLISH]
        yield from TableStep(context, offline, source, views, stage, publish=publish).run()

    # What a step depends on are its inputs, what an asset depends on stands in its spec. Without an
    # input the step runs although the one before it failed for some days.
    return dg.AssetsDefinition(
        node_def=build.node_def,
        keys_by_output_name=build.keys_by_output_name,
        specs=[stage.spec],
        check_specs_by_output_name=build.check_specs_by_output_name,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )


def _stages(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    partitions: dg.TimeWindowPartitionsDefinition,
    lake: str,
    docs: str | None,
) -> list[Stage]:
    events = events_spec(source, views, partitions, lake)
    stages = [Stage(events, source_check_specs(source, views, events.key, partitions, docs))]
    for view in views:
        tiles, features = view_specs(view, partitions, lake)
        stages.append(Stage(tiles, (), view))
        stages.append(Stage(features, view_check_specs(view, features.key, partitions, docs), view))
    return stages
