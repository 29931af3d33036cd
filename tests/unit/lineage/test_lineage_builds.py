"""Batch builds as lineage: one run per table and step, its parent and root, ended whatever happens."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from jobs.definitions import build_definitions
from jobs.instance.lineage import JOB, LOUD_AFTER_MS, SENSOR, tick
from lineage.outbox import Outbox
from millrace.errors import DataError, EngineUnavailable
from resources.settings import CHECKOUT, settings_from_env
from tests.support.lineage_cases import DAYS, LineageStack, Receiver, by_run, last_of, states_of

TABLES = ["events/payments", "tiles/spend", "features/spend"]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> LineageStack:
    return LineageStack(tmp_path, monkeypatch, instance, is_described=True)


def partitions(dataset: Any, facet: str, condition: str) -> list[str]:
    group = dataset["inputFacets" if condition == "inputCondition" else "outputFacets"]
    return [p["identifier"] for p in group[facet][condition]["partitions"]]


@dataclass(frozen=True)
class Built:
    """A good build of three days, and all that was told of it."""

    run_id: str
    lake: str
    events: list[Any]
    open_runs: int

    def last(self, job: str) -> Any:
        return last_of(self.events, job)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        stack = LineageStack(tmp_path_factory.mktemp("built"), patch, instance, is_described=True)
        result = stack.build()
        assert result.success
        tick(stack.settings, instance)
        still_open = len(Outbox.of(stack.settings).open_runs())
        yield Built(result.run_id, stack.settings.lake, stack.events(), still_open)


def test_a_range_is_one_run_per_table_within_the_dagster_run(built: Built) -> None:
    assert next(iter(by_run(built.events))) == ("dagster/asset_job", built.run_id)
    for job in (*TABLES, "dagster/asset_job"):
        assert states_of(built.events, job) == [["START", "COMPLETE"]]
    for job in TABLES:
        parent = built.last(job)["run"]["facets"]["parent"]
        assert parent["run"]["runId"] == parent["root"]["run"]["runId"] == built.run_id
        nominal = built.last(job)["run"]["facets"]["nominalTime"]
        assert nominal["nominalStartTime"] == "2020-01-02T00:00:00.000Z"
        assert nominal["nominalEndTime"] == "2020-01-05T00:00:00.000Z"
    assert built.open_runs == 0


def test_a_table_tells_its_version_statistics_days_and_columns(built: Built) -> None:
    [read] = built.last("features/spend")["inputs"]
    [written] = built.last("features/spend")["outputs"]
    assert (read["namespace"], read["name"]) == ("file", f"{built.lake}/events/payments")
    assert read["facets"]["version"]["datasetVersion"] == "1"
    assert (written["namespace"], written["name"]) == ("file", f"{built.lake}/features/spend/v1")
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 12 + 13 + 14
    assert partitions(written, "subset", "outputCondition") == [d.isoformat() for d in DAYS]
    facets = written["facets"]
    assert facets["lifecycleStateChange"]["lifecycleStateChange"] == "OVERWRITE"
    assert facets["symlinks"]["identifiers"][0]["name"] == "features/spend"
    assert facets["ownership"]["owners"][0]["name"] == "payments@example.com"
    assert ("payments_1h", "int64") in [(f["name"], f["type"]) for f in facets["schema"]["fields"]]
    deciding = facets["columnLineage"]["dataset"]
    assert {f["field"] for f in deciding} == {"customer_id", "paid_at", "amount", "payment_id"}
    assert {f["name"] for f in deciding} == {f"{built.lake}/events/payments"}


def test_events_come_from_files_and_leave_dead_letters(built: Built) -> None:
    end = built.last("events/payments")
    assert [(d["namespace"], d["name"]) for d in end["inputs"]] == [("file", "/nowhere")]
    written, dead_letters = end["outputs"]
    assert dead_letters["name"] == f"{built.lake}/dead_letters/payments"
    assert dead_letters["outputFacets"]["outputStatistics"]["rowCount"] == 2 * len(DAYS)
    amount = written["facets"]["columnLineage"]["fields"]["amount"]["inputFields"]
    assert [(f["name"], f["field"]) for f in amount] == [("/nowhere", "amount")]


def test_a_bad_day_fails_the_run_which_names_it_and_the_days_it_wrote(stack: LineageStack) -> None:
    stack.offline.bad = {"tiles/spend": {DAYS[1]: "the file is cut off"}}
    assert not stack.build().success
    tick(stack.settings, stack.instance)
    events = stack.events()
    assert states_of(events, "tiles/spend") == [["START", "FAIL"]]
    assert states_of(events, "features/spend") == [["START", "COMPLETE"]]
    assert states_of(events, "dagster/asset_job") == [["START", "FAIL"]]
    end = last_of(events, "tiles/spend")
    message = end["run"]["facets"]["errorMessage"]["message"]
    assert message == "2020-01-03: the file is cut off"
    assert partitions(end["outputs"][0], "subset", "outputCondition") == [
        "2020-01-02",
        "2020-01-04",
    ]


def test_a_build_that_raises_fails_and_a_retry_is_another_run(stack: LineageStack) -> None:
    stack.monkeypatch.setattr("feature_assets.table_step.RETRY_AFTER_S", 0)
    stack.offline.crashes = {
        "tiles/spend": [EngineUnavailable("Spark died")],
        "features/spend": [DataError("no such column")],
    }
    stack.build()
    events = stack.events()
    assert states_of(events, "events/payments") == [["START", "COMPLETE"]]
    assert states_of(events, "tiles/spend") == [["START", "FAIL"], ["START", "COMPLETE"]]
    assert states_of(events, "features/spend") == [["START", "FAIL"]]


def test_an_interrupted_build_is_aborted(stack: LineageStack) -> None:
    stack.offline.crashes = {"tiles/spend": [DagsterExecutionInterruptedError()]}
    assert not stack.build().success
    assert states_of(stack.events(), "tiles/spend") == [["START", "ABORT"]]


def test_the_root_is_the_backfill_and_ends_with_it(stack: LineageStack) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    backfill = PartitionBackfill(
        "abcdefgh",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=began.timestamp(),
    )
    stack.instance.add_backfill(backfill)
    for day in DAYS[:2]:
        stack.build([day], **{"dagster/backfill": "abcdefgh"})
    tick(stack.settings, stack.instance)
    events = stack.events()
    [(_, root)] = [key for key in by_run(events) if key[0] == "dagster/backfill"]
    assert states_of(events, "dagster/backfill") == [["START"]]
    parents = {
        (
            e["run"]["facets"]["parent"]["run"]["runId"],
            e["run"]["facets"]["parent"]["root"]["run"]["runId"],
        )
        for e in events
        if e["job"]["name"] in TABLES
    }
    assert len(parents) == 2
    assert {outermost for _, outermost in parents} == {root}
    # Its with_status has no types.
    stack.instance.update_backfill(backfill._replace(status=BulkActionStatus.COMPLETED_FAILED))
    tick(stack.settings, stack.instance)
    assert states_of(stack.events(), "dagster/backfill") == [["START", "FAIL"]]
    assert states_of(stack.events(), "dagster/asset_job") == [["START", "COMPLETE"]] * 2


def test_work_whose_dagster_run_is_over_is_aborted_before_the_run(stack: LineageStack) -> None:
    """As after a kill: the process told of a beginning and Dagster found it dead."""
    stack.monkeypatch.setattr("lineage.builds.TableBuild.end", lambda *_: None)
    result = stack.build()
    tick(stack.settings, stack.instance)
    events = stack.events()
    for job in TABLES:
        assert states_of(events, job) == [["START", "ABORT"]]
    ends = [e["run"]["runId"] for e in events if e["eventType"] not in {"START", "RUNNING"}]
    assert ends[-1] == result.run_id
    told = last_of(events, "tiles/spend")["run"]["facets"]["errorMessage"]["message"]
    assert told == "the Dagster run ended before the work did"


KILLED = """
import sys, time
from pathlib import Path

import dagster as dg
import pytest

from tests.support.fake_offline import FakeOffline
from tests.support.lineage_cases import LineageStack


class Endless(FakeOffline):
    def build(self, stage, **told):
        if stage.table.kind == "tiles":
            print("building", flush=True)
            time.sleep(600)
        return super().build(stage, **told)


root = Path(sys.argv[1])
with dg.DagsterInstance.local_temp(str(root / "dagster")) as instance:
    LineageStack(root, pytest.MonkeyPatch(), instance, offline=Endless()).build()
"""


def test_what_a_killed_process_had_begun_is_ended_once_dagster_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster").mkdir()
    worker = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "building\n"
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        settings = settings_from_env(
            {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_LAKE": str(tmp_path / "lake")}
        )
        [run] = instance.get_runs()
        tick(settings, instance)
        # As run monitoring does once it finds the process gone.
        instance.report_run_failed(run)
        tick(settings, instance)
    path = tmp_path / "home" / "lineage" / "events.jsonl"
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert states_of(events, "events/payments") == [["START", "COMPLETE"]]
    assert states_of(events, "tiles/spend") == [["START", "ABORT"]]
    assert states_of(events, "dagster/asset_job") == [["START", "FAIL"]]


def test_the_sensor_is_on_by_default_and_says_how_it_stands(stack: LineageStack) -> None:
    defs = build_definitions(
        stack.plan, stack.settings, offline=stack.offline, engines=stack.engines
    )
    sensor = defs.resolve_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    context = dg.build_sensor_context(instance=stack.instance)
    assert sensor.evaluate_tick(context).skip_message == "no events yet"
    stack.archive()
    assert "2 sent now, 0 waiting" in (sensor.evaluate_tick(context).skip_message or "")
    assert defs.resolve_job_def(JOB).execute_in_process(instance=stack.instance).success


def test_a_receiver_that_is_away_for_long_fails_the_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    receiver = Receiver()
    with receiver.running():
        pass
    stack = LineageStack(tmp_path, monkeypatch, instance, to=receiver.url)
    stack.archive()
    assert "0 sent now, 2 waiting" in tick(stack.settings, instance)
    outbox = Outbox.of(stack.settings)
    [name] = outbox.receivers([f"{receiver.url}/api/v1/lineage"])
    at = outbox.receivers([name])[name]
    long_ago = (at.away_since_ms or 0) - LOUD_AFTER_MS - 60_000
    outbox.note(type(at)(name, 0, 1, 0, long_ago, at.error))
    with pytest.raises(EngineUnavailable, match="2 waiting"):
        tick(stack.settings, instance)
    with receiver.running():
        job = build_definitions(stack.plan, stack.settings, engines=stack.engines).resolve_job_def(
            JOB
        )
        assert job.execute_in_process(instance=instance).success
    assert len(receiver.events) == 2


def test_a_view_without_a_day_in_range_writes_nothing(stack: LineageStack) -> None:
    days = [date(2020, 1, 1)]
    stack.offline.bad = {"events/payments": {days[0]: "no file"}}
    stack.build(days)
    events = stack.events()
    assert states_of(events, "events/payments") == [["START", "FAIL"]]
    assert last_of(events, "events/payments")["outputs"] == []
    assert states_of(events, "tiles/spend") == [], "it was never begun"


@pytest.mark.parametrize(
    ("reason", "state"), [("UNEXPECTED_TERMINATION", "ABORT"), ("STEP_FAILURE", "FAIL")]
)
def test_a_run_that_ended_with_its_stack_did_not_fail(
    stack: LineageStack, reason: str, state: str
) -> None:
    from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG
    from dagster._core.test_utils import create_run_for_test

    tags = {RUN_FAILURE_REASON_TAG: reason}
    run = create_run_for_test(stack.instance, status=dg.DagsterRunStatus.FAILURE, tags=tags)
    start = {"eventType": "START", "run": {"runId": run.run_id, "facets": {}}, "job": {"name": "j"}}
    Outbox.of(stack.settings).start(run.run_id, f"dagster:{run.run_id}", start)
    assert "1 dead run(s) ended" in tick(stack.settings, stack.instance)
    assert states_of(stack.events(), "j") == [["START", state]]
