"""Tells Dagster of days that stand in the lake and that it does not know of.

The lake's partition log is the truth of what was built. Dagster's own record of it is lost with its
storage, and stands under another key once an asset is named anew; then whatever reads that asset also
counts as built from something else, and would be marked for a backfill. Each such day is reported as
built, by the definition that it was built by; nothing is built.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from checks.quality.evaluation_log import newest_records
from feature_assets.reporting import input_tags
from feature_assets.specs import events_spec, source_partitions, view_specs
from jobs.instance.run_kinds import UPKEEP
from millrace.days import ALL_HOURS, day_list
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.dagster.asset_keys import lake_table
from resources.dagster.partition_keys import keys_of_day
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    from offline.tables.partition_log import PartitionState

JOB = "report_built_days"


@dataclass(frozen=True)
class _Table:
    """One table of the lake, by its name with the version, and the asset that stands for it."""

    spec: dg.AssetSpec
    partitions: dg.TimeWindowPartitionsDefinition
    name: str
    by_hour: bool


def known_days_job(settings: Settings) -> dg.JobDefinition:
    """Return the job; its op returns nothing and logs what it reported."""

    @dg.op(
        name="report_days",
        config_schema={
            "dry_run": dg.Field(bool, default_value=False, description="Only say what would be.")
        },
        description="Reports days that the lake's partition log has as built and Dagster has not.",
    )
    def report_days(context: dg.OpExecutionContext) -> None:
        from resources.declarations import load_valid_plan

        plan, _ = load_valid_plan(settings)
        dry_run = context.op_config["dry_run"]
        report_built_days(context.instance, settings, plan, context.log.info, dry_run=dry_run)

    @dg.job(
        name=JOB,
        tags=dict(UPKEEP),
        description="Tells Dagster of days that stand in the lake and that it does not know of: after "
        "its storage was lost, or an upgrade that names assets anew. Builds nothing.",
        executor_def=dg.in_process_executor,
    )
    def report_built() -> None:
        report_days()

    return report_built


def report_built_days(
    instance: dg.DagsterInstance,
    settings: Settings,
    plan: Plan,
    say: Progress,
    *,
    dry_run: bool = False,
) -> Mapping[str, int]:
    """Report each day, or hour, that is built and that Dagster does not know to be.

    A partition is known if the newest report of it names the assets that it is made of today. Days
    that failed, or are held back, are left to those who build them again. Running it again reports
    nothing; a run that was killed is gone on with.

    Returns:
        How many partitions were reported, by asset; assets that lack none are not there.
    """
    reported = {}
    for table in _tables(settings, plan):
        states = _built(settings, table)
        known = _known(instance, table, list(states))
        unknown = {key: state for key, state in states.items() if key not in known}
        if not unknown:
            continue
        name = table.spec.key.to_user_string()
        reported[name] = len(unknown)
        days = sorted({state.day for state in unknown.values()})
        say(f"{name}: {len(unknown)} partition(s) of {day_list(days)}")
        if not dry_run:
            inputs = input_tags(instance, table.spec)
            for key, state in unknown.items():
                event = _materialization(table, key, state, inputs)
                instance.report_runless_asset_event(event)
    total = sum(reported.values())
    say(f"{total} partition(s) {'would be ' if dry_run else ''}reported as built")
    return reported


def _tables(settings: Settings, plan: Plan) -> Iterator[_Table]:
    """Yield what builds report days of: events first, since the others are made of them."""
    for name, source in plan.sources.items():
        if views := plan.views_of(name):
            yield from _tables_of(settings, source, views)


def _tables_of(
    settings: Settings, source: SourcePlan, views: Sequence[ViewPlan]
) -> Iterator[_Table]:
    from resources.lake.view_versions import deployed_version

    partitions, by_hour = source_partitions(views), source.schedule.is_hourly
    events = events_spec(source, views, partitions, settings.lake)
    yield _Table(events, partitions, lake_table(events.key.path), by_hour)
    for view in views:
        version = deployed_version(settings, view)
        for spec in view_specs(view, partitions, settings.lake) if version else ():
            name = f"{lake_table(spec.key.path)}/{version}"
            yield _Table(spec, partitions, name, by_hour)


def _built(settings: Settings, table: _Table) -> "dict[str, PartitionState]":
    from offline.tables.partition_log import read_partition_log

    log = read_partition_log(settings, table.name)
    found = {
        key: state
        for _, state in sorted(log.items())
        if state.held is None
        for key in _keys(state, by_hour=table.by_hour)
    }
    exist = set(table.partitions.get_partition_keys())
    return {key: state for key, state in found.items() if key in exist}


def _keys(state: "PartitionState", *, by_hour: bool) -> list[str]:
    if not by_hour:
        return keys_of_day(state.day, by_hour=False) if state.error is None else []
    hours = [h for h in ALL_HOURS if not state.lacks(range(h, h + 1))]
    return [key for h in hours for key in keys_of_day(state.day, range(h, h + 1), by_hour=True)]


def _known(instance: dg.DagsterInstance, table: _Table, keys: Sequence[str]) -> set[str]:
    # Every table is made of something; all that it is made of has been named anew together.
    made_of = next(iter(table.spec.deps)).asset_key.to_user_string()
    tag = f"dagster/input_data_version/{made_of}"
    return {
        partition
        for partition, record in newest_records(instance, table.spec.key, keys).items()
        if record.asset_materialization and tag in (record.asset_materialization.tags or {})
    }


def _materialization(
    table: _Table, key: str, state: "PartitionState", inputs: Mapping[str, str]
) -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "reported_from": "partition_log",
        "built_at": dg.MetadataValue.timestamp(state.built_ms / 1000),
    }
    if not table.by_hour:
        metadata["dagster/partition_row_count"] = state.rows
    if state.missing_days:
        metadata["missing_days"] = day_list(state.missing_days)
    tags = {
        "dagster/data_version": str(state.built_ms),
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": state.fingerprint,
        **inputs,
    }
    return dg.AssetMaterialization(table.spec.key, partition=key, metadata=metadata, tags=tags)
