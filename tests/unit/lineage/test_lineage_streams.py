"""Streams, archive, uploads and training sets as lineage: one run each, ended once, whoever ends it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lineage.assertions import (
    Assertion,
    ColumnMetrics,
    TableMetrics,
    emit_assertions,
    emit_online_assertions,
)
from lineage.outbox import Outbox
from lineage.runs import within
from millrace.errors import EngineRejected, EngineUnavailable
from streaming.control import actions, deployments
from streaming.control.lineage import stopped_with_flink, version_promoted, versions_dropped
from streaming.control.reconcile import Action
from streaming.publications.records import RecordFiles, Retired
from tests.support.lineage_cases import (
    DAGSTER_RUN,
    DAYS,
    LineageStack,
    by_run,
    enclosing,
    last_of,
    silent,
    states_of,
)
from tests.support.stream_fakes import write_views


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LineageStack]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield LineageStack(tmp_path, monkeypatch, instance)


STREAM = "stream/spend"


def names(datasets: list[Any]) -> list[str]:
    return [f"{d['namespace']} {d['name']}" for d in datasets]


def test_a_stream_is_one_run_from_submission_to_savepoint(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.observe()
    stack.engines.clock[0] += 300_000
    stack.observe()
    stack.stop()
    stack.observe()
    events = stack.events()
    assert states_of(events, STREAM) == [["START", "RUNNING", "RUNNING", "COMPLETE"]]
    [start, *_] = [e for e in events if e.get("eventType") == "START"]
    assert names(start["inputs"]) == ["kafka://broker:9092 payments"]
    assert names(start["outputs"]) == [
        f"kafka://broker:9092 {record.tile_topic}",
        "redis://store:6379 millrace:spend",
    ]
    assert "INSERT INTO" in start["job"]["facets"]["sql"]["query"]
    assert start["eventTime"] == "2023-11-14T22:13:20.000Z"


def test_a_running_stream_tells_offsets_lag_and_checkpoints(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.engines.ends["payments"] = {0: 7, 1: 3}
    stack.engines.committed[record.flink_group] = {0: 5, 1: 3}
    stack.engines.fake.complete_checkpoint(record.job_id)
    stack.observe()
    event = last_of(stack.events(), STREAM)
    told = event["run"]["facets"]["millrace_stream"]
    assert told["offsets"] == {"0": 5, "1": 3}
    assert (told["lagEvents"], told["checkpoints"]["completed"]) == (2, 1)
    assert (told["jobId"], told["version"], told["state"]) == (record.job_id, "v1", "running")
    assert event["inputs"][0]["facets"]["version"]["datasetVersion"] == "0:5,1:3"
    assert event["job"]["facets"]["jobType"]["emissionPattern"] == {
        "eventTrigger": "PERIODIC",
        "eventContentMode": "COMPLETE_SNAPSHOT",
        "windowDuration": 300,
    }


def test_a_new_version_is_declared_before_it_runs(stack: LineageStack) -> None:
    stack.deploy()
    job, served, start, *_ = stack.events()
    assert "run" not in job
    assert job["job"]["name"] == STREAM
    assert names([served["dataset"]]) == ["redis://store:6379 millrace:spend"]
    assert "payments_1h" in served["dataset"]["facets"]["columnLineage"]["fields"]
    assert start["eventType"] == "START"


def test_a_failed_job_and_the_one_after_it_are_two_runs(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.engines.fake.fail(record.job_id, "the disk is full")
    action = Action("restore", "spend", record.fingerprint, record.generation, "it failed")
    actions.perform(stack.settings, stack.plan, action, silent, engines=stack.engines)
    events = stack.events()
    assert states_of(events, STREAM) == [["START", "FAIL"], ["START"]]
    [failed] = [e for e in events if e.get("eventType") == "FAIL"]
    assert failed["run"]["facets"]["errorMessage"]["message"] == "the disk is full"


def test_a_refused_job_fails(stack: LineageStack) -> None:
    stack.engines.fake.refusal = "no slots"
    with pytest.raises(EngineRejected):
        stack.deploy()
    assert states_of(stack.events(), STREAM) == [["START", "FAIL"]]


def test_what_ended_unseen_is_found_by_the_sensor(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.engines.fake.states[record.job_id] = "CANCELED"
    stack.observe()
    assert states_of(stack.events(), STREAM) == [["START", "ABORT"]]


def test_a_stream_that_began_unseen_is_told_of_by_the_sensor(stack: LineageStack) -> None:
    silent_settings = replace(stack.settings, lineage="none")
    quiet = replace(stack.engines, settings=silent_settings)
    deployments.deploy(silent_settings, stack.plan, "spend", silent, engines=quiet)
    assert not Outbox.of(stack.settings).path.exists()
    stack.observe()
    assert states_of(stack.events(), STREAM) == [["START", "RUNNING"]]


def test_a_job_that_flink_forgot_fails_once_another_took_its_place(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.engines.fake.forget()
    stack.observe()
    assert states_of(stack.events(), STREAM) == [["START"]], "it will be restored"
    action = Action("restore", "spend", record.fingerprint, record.generation, "missing")
    actions.perform(stack.settings, stack.plan, action, silent, engines=stack.engines)
    stack.observe()
    assert states_of(stack.events(), STREAM) == [["START", "FAIL"], ["START", "RUNNING"]]


def test_streams_that_ended_with_a_flink_that_was_stopped_did_not_fail(stack: LineageStack) -> None:
    record = stack.deploy()
    stack.engines.fake.forget()
    stopped_with_flink(stack.settings, "millrace down")
    action = Action("restore", "spend", record.fingerprint, record.generation, "missing")
    actions.perform(stack.settings, stack.plan, action, silent, engines=stack.engines)
    stack.observe()
    events = stack.events()
    assert states_of(events, STREAM) == [["START", "ABORT"], ["START", "RUNNING"]]
    [ended] = [e for e in events if e.get("eventType") == "ABORT"]
    told = ended["run"]["facets"]["errorMessage"]["message"]
    assert told == "its Flink was stopped: millrace down"


def test_a_stream_that_was_stopped_while_flink_was_away_is_aborted(stack: LineageStack) -> None:
    stack.deploy()
    stack.engines.fake.is_away = True
    with pytest.raises(EngineUnavailable):
        stack.stop()
    stack.engines.fake.is_away = False
    stack.engines.fake.forget()
    stack.observe()
    assert states_of(stack.events(), STREAM) == [["START", "ABORT"]]


def test_an_error_of_before_is_not_the_reason_of_a_planned_end(stack: LineageStack) -> None:
    record = stack.deploy()
    files = RecordFiles.of(stack.settings.home)
    files.write(replace(record, desired="stopped", error="the disk was full"))
    stack.engines.fake.stop_with_savepoint(record.job_id)
    stack.observe()
    end = last_of(stack.events(), STREAM)
    assert end["eventType"] == "COMPLETE"
    assert "errorMessage" not in end["run"]["facets"]


def test_versions_that_follow_each_other_end_without_a_failure(stack: LineageStack) -> None:
    stack.deploy()
    stack.observe()
    stack.plan = write_views(stack.root / "views", least=5)
    newer = stack.deploy()
    stack.observe()
    action = Action("promote", "spend", newer.fingerprint, newer.generation, "complete")
    actions.perform(stack.settings, stack.plan, action, silent, engines=stack.engines)
    stack.observe()
    ends = [states[-1] for states in states_of(stack.events(), STREAM)]
    assert ends == ["ABORT", "RUNNING"]


def test_the_archive_tells_what_became_of_the_records(stack: LineageStack) -> None:
    stack.archive(events=5)
    end = last_of(stack.events(), "archive/payments")
    assert end["eventType"] == "COMPLETE"
    assert names(end["inputs"]) == ["kafka://broker:9092 payments"]
    assert names(end["outputs"])[0] == f"file {stack.settings.lake}/events/payments"
    assert end["inputs"][0]["inputFacets"]["inputStatistics"]["rowCount"] == 5
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 5
    assert end["run"]["facets"]["millrace_archive"]["offsets"] == {"0": 5}


def test_an_upload_reads_tiles_and_writes_what_is_served(stack: LineageStack) -> None:
    stack.upload()
    end = last_of(stack.events(), "upload/spend")
    assert names(end["inputs"]) == [f"file {stack.settings.lake}/tiles/spend/v1"]
    assert names(end["outputs"]) == ["redis://store:6379 millrace:spend"]
    assert end["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 40
    lineage = end["outputs"][0]["facets"]["columnLineage"]["fields"]["payments_1h"]
    assert [(f["name"], f["field"]) for f in lineage["inputFields"]] == [
        (f"{stack.settings.lake}/tiles/spend/v1", "rows")
    ]
    assert "secret" not in str(end)


def test_an_upload_within_a_dagster_run_has_it_as_parent(stack: LineageStack) -> None:
    with within(enclosing()):
        stack.upload()
    end = last_of(stack.events(), "upload/spend")
    parent = end["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == DAGSTER_RUN
    assert parent["job"]["name"] == "dagster/backfill_spend"
    assert states_of(stack.events(), "dagster/backfill_spend") == [["START"]]


def test_a_training_set_names_table_versions_days_and_columns(stack: LineageStack) -> None:
    out = stack.train()
    end = last_of(stack.events(), "training_set/set")
    spine, events = end["inputs"]
    assert spine["name"] == f"{stack.root}/spine.csv"
    assert events["facets"]["version"]["datasetVersion"] == "3"
    partitions = events["inputFacets"]["subset"]["inputCondition"]["partitions"]
    assert [p["identifier"] for p in partitions] == [day.isoformat() for day in DAYS]
    [written] = end["outputs"]
    assert written["name"] == str(out)
    assert written["facets"]["dataQualityMetrics"]["columnMetrics"]["payments_1h"] == {
        "nullCount": 1
    }
    fields = written["facets"]["columnLineage"]["fields"]
    assert fields["customer_id"]["inputFields"][0]["name"] == f"{stack.root}/spine.csv"
    assert list(fields) == ["customer_id", "event_timestamp", "payments_1h"]
    parameters = end["run"]["facets"]["executionParameters"]["parameters"]
    assert {p["key"]: p["value"] for p in parameters} == {
        "engine": "local",
        "features": "payments_1h",
    }


def test_a_training_set_that_fails_says_why(stack: LineageStack) -> None:
    with pytest.raises(OSError, match="full"):
        stack.train(fails=True)
    end = last_of(stack.events(), "training_set/set")
    assert end["eventType"] == "FAIL"
    assert end["run"]["facets"]["errorMessage"]["message"] == "the disk is full"


def test_checks_are_a_run_that_read_what_it_judged(stack: LineageStack) -> None:
    stack.check(part_of=enclosing())
    end = last_of(stack.events(), "check/features/spend/v1")
    [read] = end["inputs"]
    assert end["outputs"] == []
    broken, fine = read["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (broken["assertion"], broken["success"], broken["severity"]) == (
        "null_rate",
        False,
        "error",
    )
    assert (broken["column"], broken["expected"], broken["actual"]) == (
        "payments_1h", "at most 0.02", "0.5"
    )  # fmt: skip
    assert fine["success"] is True
    tests = {t["name"]: t["status"] for t in end["run"]["facets"]["test"]["tests"]}
    assert tests == {
        "null_rate/payments_1h/2020-01-02": "fail",
        "row_count/2020-01-02": "pass",
        "drift": "skip",
    }
    assert read["facets"]["version"]["datasetVersion"] == "7"
    assert (
        read["inputFacets"]["dataQualityMetrics"]["columnMetrics"]["payments_1h"]["nullCount"] == 6
    )


def test_what_is_served_can_be_judged_too(stack: LineageStack) -> None:
    verdict = Assertion("parity", passed=False, severity="error", actual="1 of 9 values differ")
    emit_online_assertions(stack.settings, "spend", "v1", [verdict], part_of=enclosing())
    [read] = last_of(stack.events(), "check/online/spend")["inputs"]
    assert names([read]) == ["redis://store:6379 millrace:spend"]
    assert read["inputFacets"]["dataQualityAssertions"]["assertions"][0]["success"] is False


def test_a_metric_that_is_no_number_is_left_out(stack: LineageStack) -> None:
    column = ColumnMetrics(nulls=1, maximum=float("inf"), quantiles={0.5: float("nan"), 1.0: 2.0})
    passed = Assertion("range", passed=True, severity="warn")
    metrics = TableMetrics(columns={"amount": column})
    emit_assertions(stack.settings, "events/payments", [passed], metrics=metrics)
    [read] = last_of(stack.events(), "check/events/payments")["inputs"]
    told = read["inputFacets"]["dataQualityMetrics"]["columnMetrics"]["amount"]
    assert told == {"nullCount": 1, "quantiles": {"1.0": 2.0}}


def test_a_version_that_is_promoted_is_told_as_a_change_of_what_is_served(
    stack: LineageStack,
) -> None:
    version_promoted(stack.engines, replace(stack.deploy(), version="v2"))
    served = stack.events()[-1]["dataset"]
    assert names([served]) == ["redis://store:6379 millrace:spend"]
    assert served["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "ALTER"
    assert served["facets"]["version"]["datasetVersion"] == "v2"


def test_a_version_that_is_gone_is_told_dropped(stack: LineageStack) -> None:
    record = stack.deploy()
    old = Retired("v1", record.fingerprint, record.tile_topic, (), 0)
    versions_dropped(stack.engines, [old])
    gone = stack.events()[-1]["dataset"]
    assert names([gone]) == [f"kafka://broker:9092 {record.tile_topic}"]
    assert gone["facets"]["lifecycleStateChange"]["lifecycleStateChange"] == "DROP"


def test_a_run_id_is_the_same_for_whoever_makes_it_and_another_for_each_attempt(
    stack: LineageStack,
) -> None:
    for attempt in (0, 0, 1):
        stack.check(part_of=enclosing(attempt))
    runs = [run for job, run in by_run(stack.events()) if job.startswith("check/")]
    assert len(runs) == 2
    assert all(run[14] == "7" for run in runs), "UUIDv7"
    assert len({run[:8] for run in runs}) == 1, "of the instant the Dagster run began"


WORKER = """
import os, sys, time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from lineage.emitter import Emitter
from lineage.runs import Work
from resources.settings import settings_from_env

settings = settings_from_env({"MILLRACE_HOME": sys.argv[1]})
Emitter(settings).start(Work.of("training_set/killed", datetime.now(tz=UTC)))
print("begun", flush=True)
time.sleep(600)
"""


def test_work_of_a_process_that_was_killed_is_aborted(stack: LineageStack) -> None:
    from jobs.instance.lineage import tick

    home = str(stack.settings.home)
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, home], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "begun\n"
    tick(stack.settings, stack.instance)
    assert states_of(stack.events(), "training_set/killed") == [["START"]], "it works on"
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    assert "1 dead run(s) ended" in tick(stack.settings, stack.instance)
    tick(stack.settings, stack.instance)
    events = stack.events()
    assert states_of(events, "training_set/killed") == [["START", "ABORT"]]
    told = last_of(events, "training_set/killed")["run"]["facets"]["errorMessage"]["message"]
    assert told == "the process ended before the work did"


def test_another_namespace_and_producer_keep_two_stacks_apart(stack: LineageStack) -> None:
    stack.settings = replace(
        stack.settings, lineage_namespace="millrace-dev", lineage_producer="urn:team:dev"
    )
    stack.engines = replace(stack.engines, settings=stack.settings)
    stack.deploy()
    stack.archive()
    stack.upload()
    stack.train()
    stack.check(part_of=enclosing())
    text = json.dumps(stack.events())
    assert '"namespace": "millrace"' not in text
    assert "urn:millrace:platform" not in text
    assert '"namespace": "millrace-dev"' in text
    assert '"kafka://broker:9092"' in text, "what is physical is everybody's"


def test_nothing_is_told_where_lineage_is_off(stack: LineageStack) -> None:
    stack.settings = replace(stack.settings, lineage="none")
    stack.engines = replace(stack.engines, settings=stack.settings)
    stack.deploy()
    stack.archive()
    stack.upload()
    stack.train()
    stack.check()
    assert not (stack.settings.home / "lineage").exists()


def test_an_outbox_that_cannot_be_written_costs_the_work_nothing(
    stack: LineageStack, caplog: pytest.LogCaptureFixture
) -> None:
    (stack.settings.home / "lineage").write_text("in the way")
    stack.upload()
    assert stack.train().exists()
    stack.check()
    assert "an OpenLineage event is lost" in caplog.text
