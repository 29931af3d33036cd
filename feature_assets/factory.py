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
from feature_assets.table_step import TableAsset, TableStep
from millrace.plan import Plan, SourcePlan, ViewPlan
from offline.tables.stages import tables_of


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
    tables = _tables(source, views, source_partitions(views), lake, docs)
    built = [_built(views, asset, place) for place, asset in enumerate(tables)]
    if source.batch is None:
        return [*built]
    return [raw_spec(source, source.batch, views), *built]


def _built(views: Sequence[ViewPlan], asset: TableAsset, place: int) -> dg.AssetsDefinition:
    """Return one table as an asset; of the steps of a run, that with the lowest place comes first."""

    @dg.multi_asset(
        name=step_name(asset.spec.key),
        specs=[asset.spec.replace_attributes(deps=[])],
        check_specs=asset.checks,
        config_schema=STEP_CONFIG if asset.is_judged else None,
        can_subset=True,
        pool=f"lake_{asset.table.source.name}",
        op_tags={"dagster/priority": str(-place)},
        description=f"Builds {asset.spec.key.to_user_string()} for a range of days.",
    )
    def build(
        context: dg.AssetExecutionContext, offline: dg.ResourceParam[OfflineTables]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        config = context.op_execution_context.op_config
        publish = asset.is_judged and config[PUBLISH]
        yield from TableStep(context, offline, views, asset, publish=publish).run()

    # What a step depends on are its inputs, what an asset depends on stands in its spec. Without an
    # input the step runs although the one before it failed for some days.
    return dg.AssetsDefinition(
        node_def=build.node_def,
        keys_by_output_name=build.keys_by_output_name,
        specs=[asset.spec],
        check_specs_by_output_name=build.check_specs_by_output_name,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )


def _tables(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    partitions: dg.TimeWindowPartitionsDefinition,
    lake: str,
    docs: str | None,
) -> list[TableAsset]:
    events = events_spec(source, views, partitions, lake)
    specs = [events, *(spec for view in views for spec in view_specs(view, partitions, lake))]
    checks = {events.key: source_check_specs(source, views, events.key, partitions, docs)}
    for view, features in zip(views, specs[2::2], strict=True):
        checks[features.key] = view_check_specs(view, features.key, partitions, docs)
    tables = tables_of(source, views)
    return [
        TableAsset(spec, checks.get(spec.key, ()), table)
        for spec, table in zip(specs, tables, strict=True)
    ]
