"""From a build's report to Dagster events, one partition at a time.

A range of days is one run, and Dagster marks a whole run's partitions by how the run ended,
unless told otherwise. So: all days good, one result with metadata per partition; some bad, one
materialisation per good day and a failure at the end of the step that names the others. See
``docs/decisions/partial-failure.md``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from millrace.days import ALL_HOURS, Days, day_list, days_by_reason
from resources.dagster.asset_keys import asset_path, declared_name, lake_table
from resources.dagster.client import FAILURES, UNDATED, raised_error
from resources.dagster.partition_keys import FIRST_PARTITION, key_day, keys_of_day, partition_keys
from resources.lake.reports import BuildReport, PartitionOutcome

_REASON_LENGTH = 500
_ENGINE_IS_AWAY = "engine_is_away"


def step_name(key: dg.AssetKey) -> str:
    """Return the name of the step that builds an asset, unique in the code location.

    >>> step_name(dg.AssetKey(["tiles", "spend_tiles"]))
    'tiles__spend'
    """
    return lake_table(key.path).replace("/", "__")


@dataclass
class FailedDays:
    """The days of one table that could not be built in its step, with the reason."""

    key: dg.AssetKey
    days: dict[date, str] = field(default_factory=dict)
    engine_is_away: bool = False

    def add(self, reasons: Mapping[date, str], *, engine_is_away: bool = False) -> None:
        """Note failed days; the first reason given for a day stands.

        ``engine_is_away`` if they failed since no engine answered, however long it was waited for.
        """
        self.engine_is_away |= engine_is_away
        for day, reason in reasons.items():
            self.days.setdefault(day, reason[:_REASON_LENGTH])

    def raise_if_any(self, asked: Days, *, by_hour: bool) -> None:
        """End the step as failed, naming each bad partition of the range with its reason.

        Raises:
            dagster.Failure: at least one day failed; it is not retried, since bad data stay bad.
        """
        if not self.days:
            return
        partitions = {
            partition: reason
            for day, reason in self.days.items()
            for partition in _asked_keys(asked, day, by_hour=by_hour)
        }
        away: dict[str, Any] = {_ENGINE_IS_AWAY: True} if self.engine_is_away else {}
        raise dg.Failure(
            description="\n".join(_lines(self.key, self.days)),
            metadata={
                FAILURES: dg.MetadataValue.json({self.key.to_user_string(): partitions}),
                **away,
            },
            allow_retries=False,
        )


def failed_before(
    context: dg.AssetExecutionContext, spec: dg.AssetSpec, asked: Days
) -> dict[date, str]:
    """Return the days that failed in this run in an asset that this one reads, and why.

    They fail here too, even if an older build stands. A step that broke off without a word on its
    days failed for all of them.
    """
    reasons: dict[date, str] = {}
    built = context.job_def.asset_layer.selected_asset_keys
    reads = {key.to_user_string(): key for dep in spec.deps if (key := dep.asset_key) in built}
    for step, failure in _failed_steps(context):
        told = failure.user_failure_data
        named: Any = (told.metadata or {}).get(FAILURES) if told is not None else None
        for name, key in reads.items():
            if named is not None:
                for partition, why in named.value.get(name, {}).items():
                    reasons.setdefault(key_day(partition), f"{name} failed: {why}")
            elif step == step_name(key):
                why = what_was_raised(failure.error)
                reasons |= dict.fromkeys(asked, f"{name} failed: {why}")
    return reasons


def what_was_raised(error: SerializableErrorInfo | None) -> str:
    """Return what the error of a failed step says, without what Dagster wraps around it."""
    chain = []
    while error is not None:
        chain.append((error.cls_name or "", error.message))
        error = error.cause
    return raised_error(chain) if chain else "the step failed"


def engine_is_away(context: dg.AssetExecutionContext) -> bool:
    """Tell whether a step of this run gave an engine up."""
    told = [failure.user_failure_data for _, failure in _failed_steps(context)]
    return any(one is not None and _ENGINE_IS_AWAY in (one.metadata or {}) for one in told)


def _failed_steps(context: dg.AssetExecutionContext) -> Iterator[tuple[str, Any]]:
    failures = context.instance.all_logs(
        context.run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE
    )
    for entry in failures:
        if entry.dagster_event is not None:
            yield entry.step_key or "", entry.dagster_event.step_failure_data


def _asked_keys(asked: Days, day: date, *, by_hour: bool) -> list[str]:
    hours = asked.hours(day) if day in asked else ALL_HOURS
    return keys_of_day(day, hours, by_hour=by_hour)


def _lines(key: dg.AssetKey, days: Mapping[date, str]) -> Iterator[str]:
    for reason, bad in days_by_reason(sorted(days.items())).items():
        yield f"{key.to_user_string()}: {bad}: {reason}"


def report_days(
    context: dg.AssetExecutionContext,
    spec: dg.AssetSpec,
    report: BuildReport,
    asked: Days,
    failed: FailedDays,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Tell Dagster how each day of one asset ended, or each hour of a source of hours.

    Partitions that were built beyond those asked for count as materialised too; days that Dagster
    has no partition of are left out. Failed days are
    added to ``failed``; it is the caller who raises.
    """
    if spec.key.path[0] == "events":
        context.log_event(_dead_letters(spec, report))
    failed.add({o.day: o.error for o in report.outcomes if o.error is not None})
    bad = failed.days
    by_hour = isinstance(spec.partitions_def, dg.HourlyPartitionsDefinition)
    built = {
        key: metadata
        for outcome in report.built
        if outcome.day not in bad and outcome.day >= FIRST_PARTITION
        for key, metadata in _partitions(outcome, by_hour=by_hour)
    }
    wanted = partition_keys(asked, by_hour=by_hour)
    one_result = built.keys() >= set(wanted)
    beyond = built.keys() - set(wanted) if one_result else built.keys()
    inputs = input_tags(context.instance, spec) if beyond else {}
    for key in sorted(beyond):
        context.log_event(_materialization(spec, report, key, built[key], inputs))
    if not one_result:
        return
    for key in wanted:
        context.add_asset_metadata(built[key], asset_key=spec.key, partition_key=key)
    yield dg.MaterializeResult(
        asset_key=spec.key,
        metadata=_build_metadata(report),
        data_version=dg.DataVersion(str(report.delta_version)),
    )


def _dead_letters(spec: dg.AssetSpec, report: BuildReport) -> dg.AssetMaterialization:
    """Return what a build of events refused, also if that is nothing: then it is mended."""
    counts = Counter[str]()
    for outcome in report.outcomes:
        counts.update(outcome.dead_letters)
    days = [o.day for o in report.outcomes if sum(o.dead_letters.values())]
    metadata: dict[str, Any] = {
        "dead_letters": counts.total(),
        **{f"dead_letters/{reason}": n for reason, n in sorted(counts.items())},
        "days_built": len(report.outcomes),
    }
    if days:
        metadata["days"] = day_list(sorted(days))
    if report.undated:
        metadata[UNDATED] = report.undated
    path = asset_path("dead_letters", declared_name(spec.key.path))
    return dg.AssetMaterialization(dg.AssetKey(path), metadata=metadata)


def _materialization(
    spec: dg.AssetSpec,
    report: BuildReport,
    key: str,
    metadata: Mapping[str, Any],
    inputs: Mapping[str, str],
) -> dg.AssetMaterialization:
    # Dagster adds these tags to results, not to logged events; without them it would take the
    # partition for stale at once.
    tags = {
        "dagster/data_version": str(report.delta_version),
        "dagster/data_version_is_user_provided": "true",
        **inputs,
    }
    if spec.code_version:
        tags["dagster/code_version"] = spec.code_version
    return dg.AssetMaterialization(
        asset_key=spec.key,
        partition=key,
        metadata={**_build_metadata(report), **metadata},
        tags=tags,
    )


def input_tags(instance: dg.DagsterInstance, spec: dg.AssetSpec) -> dict[str, str]:
    """Return what an event that is logged says an asset is made of: the newest of each it reads.

    Dagster adds these tags to results alone.
    """
    tags = {}
    for dep in spec.deps:
        name = dep.asset_key.to_user_string()
        newest = instance.fetch_materializations(dep.asset_key, limit=1).records
        version = newest[0].asset_materialization if newest else None
        known = (version.tags or {}).get("dagster/data_version") if version else None
        tags[f"dagster/input_data_version/{name}"] = known or "INITIAL"
        tags[f"dagster/input_event_pointer/{name}"] = (
            str(newest[0].storage_id) if newest else "NULL"
        )
    return tags


def _partitions(
    outcome: PartitionOutcome, *, by_hour: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the partitions that a day is, with their metadata.

    Of a source of hours they are the hours that were built, each with its rows. What is known of
    the day alone is told at the last of them.
    """
    *others, last = keys_of_day(outcome.day, outcome.hours, by_hour=by_hour)
    rows = dict(zip(keys_of_day(outcome.day, by_hour=True), outcome.rows_by_hour, strict=False))
    for key in others:
        yield key, {"dagster/partition_row_count": rows.get(key, 0)}
    of_day = _partition_metadata(outcome)
    if by_hour:
        of_day["dagster/partition_row_count"] = rows.get(last, 0)
        of_day["rows_of_day"] = outcome.rows
    yield last, of_day


def _partition_metadata(outcome: PartitionOutcome) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": outcome.rows,
        "bytes": outcome.bytes,
        "null_keys": outcome.null_keys,
        "duplicates": outcome.duplicates,
        "dead_letters": sum(outcome.dead_letters.values()),
        **{f"dead_letters/{reason}": n for reason, n in sorted(outcome.dead_letters.items())},
    }
    if outcome.missing_days:
        metadata["missing_days"] = dg.MetadataValue.text(day_list(outcome.missing_days))
    return metadata


def _build_metadata(report: BuildReport) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "delta_version": report.delta_version,
        "input_versions": dg.MetadataValue.json(dict(report.input_versions)),
        "build_seconds": round(report.seconds, 3),
    }
    if report.undated:
        metadata[UNDATED] = report.undated
    if report.version is not None:
        metadata["feature_version"] = report.version
    if report.files is not None:
        metadata["files"] = dg.MetadataValue.json(report.files.as_json())
    return metadata
