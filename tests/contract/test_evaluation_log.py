"""Evaluations stored many at once are, to Dagster, what ``context.log_event`` would have stored."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetCheckEvaluation

from checks.quality.evaluation_log import log_evaluations, newest_materializations

DAYS = dg.DailyPartitionsDefinition("2020-01-01")
KEY = dg.AssetKey(["events", "payments_events"])
CHECKS = ("rows", "drift")
RANGE = {
    "dagster/asset_partition_range_start": "2020-01-01",
    "dagster/asset_partition_range_end": "2020-01-04",
}

Log = Callable[[dg.AssetExecutionContext, Sequence[AssetCheckEvaluation]], None]


def one_by_one(
    context: dg.AssetExecutionContext, evaluations: Sequence[AssetCheckEvaluation]
) -> None:
    for evaluation in evaluations:
        context.log_event(evaluation)


def definitions(log: Log, bad: str, *, fails: bool) -> dg.Definitions:
    @dg.multi_asset(
        specs=[dg.AssetSpec(KEY, partitions_def=DAYS)],
        check_specs=[dg.AssetCheckSpec(c, asset=KEY, partitions_def=DAYS) for c in CHECKS],
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def build(context: dg.AssetExecutionContext) -> Iterator[Any]:
        days = list(context.partition_keys)
        for day in days:
            context.log_event(dg.AssetMaterialization(KEY, partition=day))
        newest = newest_materializations(context.instance, KEY, days)
        # A day beyond those that were planned, and the check as a whole, have no planned row.
        of: list[str | None] = [*days, "2020-02-01", None]
        log(
            context,
            [
                AssetCheckEvaluation(
                    asset_key=KEY,
                    check_name=check,
                    passed=day != bad,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=f"of {day}",
                    metadata={"value": 1.5},
                    partition=day,
                    target_materialization_data=newest.get(day or ""),
                )
                for check in CHECKS
                for day in of
            ],
        )
        if fails:
            raise dg.Failure("a day is bad", allow_retries=False)
        yield from ()

    return dg.Definitions(assets=[build], executor=dg.in_process_executor)


def seen(instance: dg.DagsterInstance, run_id: str) -> dict[str, Any]:
    """What every reader of Dagster's storage sees, without ids and times."""
    storage = instance.event_log_storage
    found: dict[str, Any] = {}
    for check in CHECKS:
        key = dg.AssetCheckKey(KEY, check)
        state = storage.get_asset_check_state([(key, DAYS)])[key]
        found[f"{check} states"] = {
            status.value: sorted(subset.subset_value.get_partition_keys())
            for status, subset in state.subsets.items()
        }
        found[f"{check} history"] = sorted(
            (str(record.partition), record.status.value, told(record.event))
            for record in storage.get_asset_check_execution_history(key, limit=50)
        )
    stored = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found["run log"] = [told(entry) for entry in stored]
    return found


def told(entry: Any) -> tuple[Any, ...]:
    event = entry.dagster_event
    evaluation = event.asset_check_evaluation_data
    target = evaluation.target_materialization_data
    return (
        event.event_type_value,
        event.step_key,
        event.job_name,
        event.step_kind_value,
        sorted(event.logging_tags),
        event.message,
        entry.level,
        entry.user_message,
        evaluation.check_name,
        evaluation.partition,
        evaluation.passed,
        evaluation.severity,
        evaluation.metadata,
        target is not None,
    )


def run(instance: dg.DagsterInstance, log: Log, bad: str, *, fails: bool) -> str:
    job = definitions(log, bad, fails=fails).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=instance, asset_selection=[KEY], tags=RANGE, raise_on_error=False
    )
    assert result.success is not fails
    return result.run_id


@pytest.mark.parametrize("fails", [False, True])
def test_both_ways_leave_the_same_in_sqlite(tmp_path: Path, *, fails: bool) -> None:
    found = []
    for name, log in (("one", one_by_one), ("many", log_evaluations)):
        (tmp_path / name).mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / name)) as instance:
            assert instance.event_log_storage.is_run_sharded
            first = run(instance, log, "2020-01-02", fails=fails)
            found.append(
                (seen(instance, first), seen(instance, run(instance, log, "", fails=False)))
            )
    assert found[0] == found[1]
    before, after = found[1]
    assert before["rows states"]["FAILED"] == ["2020-01-02"]
    assert after["rows states"]["FAILED"] == []
    assert len(after["rows states"]["SUCCEEDED"]) == 5


def test_both_ways_leave_the_same_in_one_database(tmp_path: Path) -> None:
    found = []
    for log in (one_by_one, log_evaluations):
        with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
            assert not instance.event_log_storage.is_run_sharded
            found.append(seen(instance, run(instance, log, "2020-01-02", fails=True)))
    assert found[0] == found[1]
