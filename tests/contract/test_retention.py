"""Pruning Dagster's storage: what goes, and that nothing the UI shows of partitions goes with it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from jobs.instance.retention import Policy, Pruned, prune, retention_job, retention_schedule
from offline.tables.partition_log import (
    append_partition_log,
    compact_partition_log,
    read_partition_logs,
)
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import CHECKOUT, settings_from_env

DAYS = dg.DailyPartitionsDefinition("2020-01-01")
POLICY = Policy(keep_days=30, keep_observations_days=14, most_runs=100)
LATER = timedelta(days=40)
STREAM = dg.AssetKey(("stream", "spend_stream"))
SPEND = dg.AssetKey("spend")


ONE_DATABASE = {
    "event_log_storage": {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": {"env": "DAGSTER_HOME"}},
    }
}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def spend(context: dg.AssetExecutionContext) -> None:
    """Fails where the run's tags say so, as a day with bad data does."""
    if context.run.tags.get("bad"):
        raise dg.Failure("cut off", allow_retries=False)


@pytest.fixture(params=["local", "one database"])
def instance(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """The local instance keeps a file per run; Postgres keeps one table, as the second does."""
    if request.param == "one database":
        with dg.instance_for_test(temp_dir=str(tmp_path), overrides=ONE_DATABASE) as instance:
            yield instance
        return
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        yield instance


def build(instance: dg.DagsterInstance, first: int, last: int, **tags: str) -> str:
    result = dg.Definitions(assets=[spend]).resolve_implicit_global_asset_job_def()
    return result.execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": f"2020-01-{first:02}",
            "dagster/asset_partition_range_end": f"2020-01-{last:02}",
            **tags,
        },
    ).run_id


def observe(instance: dg.DagsterInstance, *states: str) -> None:
    for state in states:
        instance.report_runless_asset_event(dg.AssetObservation(STREAM, metadata={"state": state}))


def judge(instance: dg.DagsterInstance, *verdicts: str) -> None:
    for verdict in verdicts:
        instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(asset_key=STREAM, check_name="lag", passed=verdict == "passed")
        )


def runs(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def statuses(instance: dg.DagsterInstance) -> tuple[set[str], set[str]]:
    """Return the built days, and those whose newest attempt failed, as the UI finds them."""
    storage = instance.event_log_storage
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(
        SPEND
    )
    return set(instance.get_materialized_partitions(SPEND)), set(attempts)


def pruned(instance: dg.DagsterInstance, policy: Policy = POLICY) -> Pruned:
    return prune(instance, policy, datetime.now(tz=UTC) + LATER, lambda _: None)


def test_runs_that_were_overtaken_go_and_each_partition_stands_as_before(
    instance: dg.DagsterInstance,
) -> None:
    overtaken = build(instance, 1, 3)
    newest = build(instance, 1, 3)
    healed = build(instance, 5, 5, bad="yes")
    good = build(instance, 5, 5)
    failed = build(instance, 4, 4, bad="yes")
    before = statuses(instance)
    assert before == ({"2020-01-01", "2020-01-02", "2020-01-03", "2020-01-05"}, {"2020-01-04"})

    assert pruned(instance) == Pruned(runs=2, kept_runs=3, observations=0, has_more=False)
    assert runs(instance) == {newest, good, failed}
    assert statuses(instance) == before
    for gone in (overtaken, healed):
        assert not instance.all_logs(gone)
    assert instance.all_logs(newest)
    found = instance.fetch_materializations(SPEND, limit=100).records
    assert {record.run_id for record in found} == {newest, good}
    assert pruned(instance) == Pruned(runs=0, kept_runs=3, observations=0, has_more=False)


def test_a_file_of_a_deleted_run_goes_too(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(tmp_path))
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
            gone, kept = build(instance, 1, 1), build(instance, 1, 1)
            pruned(instance)
            files = {file.name.split(".")[0] for file in tmp_path.glob("history/runs/*.db*")}
            logs = {file.name for file in (tmp_path / "storage").iterdir()}
    assert kept in files
    assert gone not in files
    assert gone not in logs


def test_young_runs_and_those_under_way_stay(instance: dg.DagsterInstance) -> None:
    young = {build(instance, 1, 1), build(instance, 1, 1)}
    now = datetime.now(tz=UTC) + timedelta(days=20)
    assert prune(instance, POLICY, now, lambda _: None).runs == 0
    assert runs(instance) == young


def test_a_dry_run_counts_what_would_go_and_deletes_nothing(instance: dg.DagsterInstance) -> None:
    all_runs = {build(instance, 1, 2), build(instance, 1, 2)}
    observe(instance, "RUNNING", "FAILED")
    dry = Policy(keep_days=30, keep_observations_days=14, most_runs=100, dry_run=True)
    assert pruned(instance, dry) == Pruned(runs=1, kept_runs=1, observations=1, has_more=False)
    assert runs(instance) == all_runs
    assert pruned(instance) == Pruned(runs=1, kept_runs=1, observations=1, has_more=False)


def test_a_long_past_is_pruned_in_several_passes(instance: dg.DagsterInstance) -> None:
    for _ in range(4):
        newest = build(instance, 1, 1)
    two = Policy(keep_days=30, keep_observations_days=14, most_runs=2)
    assert pruned(instance, two) == Pruned(runs=2, kept_runs=1, observations=0, has_more=True)
    assert pruned(instance, two) == Pruned(runs=1, kept_runs=1, observations=0, has_more=False)
    assert runs(instance) == {newest}


def test_of_what_sensors_observed_the_newest_stays(instance: dg.DagsterInstance) -> None:
    observe(instance, "RUNNING", "FAILED", "RESTARTING")
    judge(instance, "passed", "passed", "failed")
    assert pruned(instance).observations == 3
    [newest] = instance.fetch_observations(STREAM, limit=10).records
    assert newest.asset_observation is not None
    assert newest.asset_observation.metadata["state"].value == "RESTARTING"
    key = dg.AssetCheckKey(STREAM, "lag")
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert [str(record.status.value) for record in found] == ["FAILED", "SUCCEEDED"]


def test_the_job_is_as_its_configuration_says(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    build(instance, 1, 1)
    newest = build(instance, 1, 1)
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path)})
    job = retention_job(settings)
    config = {"ops": {"prune": {"config": {"keep_days": -1, "dry_run": True}}}}
    assert job.execute_in_process(instance=instance, run_config=config).success
    assert len(runs(instance)) == 3
    config["ops"]["prune"]["config"]["dry_run"] = False
    assert job.execute_in_process(instance=instance, run_config=config).success
    left = {run.run_id for run in instance.get_runs() if run.job_name != job.name}
    assert left == {newest}
    schedule = retention_schedule(job)
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def test_the_partition_log_says_the_same_in_fewer_files(tmp_path: Path) -> None:
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path)})
    assert compact_partition_log(settings) == (0, 0)
    for day in range(1, 6):
        for table in ("events/payments", "features/spend/v1"):
            built = PartitionOutcome(date(2031, 3, day), rows=day, missing_days=(date(2031, 2, 1),))
            append_partition_log(settings, BuildReport(table, None, 0, (built,)), f"f{day}")
    before = read_partition_logs(settings, ["events/payments", "features/spend/v1"])
    assert {len(states) for states in before.values()} == {5}
    assert compact_partition_log(settings) == (10, 2)
    assert read_partition_logs(settings, list(before)) == before
