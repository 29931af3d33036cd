"""The client of Flink's REST API against a real cluster."""

import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from millrace.compile.flink import STATEMENT_END
from millrace.errors import EngineRejected
from resources.endpoints import flink_url
from resources.flink.rest import FlinkCluster, newest_checkpoint
from resources.settings import Settings
from streaming.runner.build import ensure_runner_jar

pytestmark = pytest.mark.services

DEADLINE_S = 60
SOURCE = (
    "CREATE TEMPORARY TABLE `numbers` (`n` INT) WITH ('connector' = 'datagen', "
    "'rows-per-second' = '10')"
)
SINK = "CREATE TEMPORARY TABLE `nothing` (`n` INT) WITH ('connector' = 'blackhole')"


def script(query: str) -> str:
    return STATEMENT_END.join([SOURCE, SINK, f"INSERT INTO `nothing` {query}"]) + STATEMENT_END


COUNT = script("SELECT CAST(COUNT(*) AS INT) FROM `numbers`")


@pytest.fixture
def flink(live_stack: Settings) -> FlinkCluster:
    return FlinkCluster(flink_url(live_stack))


@pytest.fixture
def jar(live_stack: Settings, flink: FlinkCluster) -> str:
    return flink.ensure_jar(ensure_runner_jar(live_stack))


def wait(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def state(flink: FlinkCluster, job_id: str) -> str:
    report = flink.job(job_id)
    return "" if report is None else report.state


def records_in(flink: FlinkCluster, job_id: str) -> float:
    found = flink.metrics(job_id, ["numRecordsIn"])
    return sum(values.get("numRecordsIn", 0) for values in found.values())


def test_a_jar_is_uploaded_once(live_stack: Settings, flink: FlinkCluster, jar: str) -> None:
    assert flink.ensure_jar(ensure_runner_jar(live_stack)) == jar


def test_wrong_sql_is_refused_in_flinks_words(flink: FlinkCluster, jar: str) -> None:
    for call in (
        lambda text: flink.run(jar, text, uuid4().hex, {}, 1),
        lambda text: flink.plan(jar, text, {}),
    ):
        with pytest.raises(EngineRejected) as caught:
            call(script("SELECT `m` FROM `numbers`"))
        assert "Column 'm' not found" in caught.value.what
        assert "at org." not in caught.value.what


def test_a_plan_names_the_operators_and_runs_nothing(flink: FlinkCluster, jar: str) -> None:
    before = {job.job_id for job in flink.jobs()}
    graph = flink.plan(jar, COUNT, {})
    assert any("GroupAggregate" in node["description"] for node in graph["nodes"])
    assert {job.job_id for job in flink.jobs()} == before


def test_a_job_is_submitted_once_stopped_with_its_state_and_restored(
    live_stack: Settings, flink: FlinkCluster, jar: str
) -> None:
    first, second = uuid4().hex, uuid4().hex
    settings = {"execution.checkpointing.interval": "200 ms", "pipeline.name": "counted"}
    for _ in range(2):
        assert flink.run(jar, COUNT, first, settings, 1) == first
    assert [job.name for job in flink.jobs() if job.job_id == first] == ["counted"]
    wait(lambda: flink.checkpoints(first).completed > 0)
    report = flink.checkpoints(first)
    assert report.latest_path is not None
    assert report.age_s is not None
    assert report.age_s < DEADLINE_S
    newest = newest_checkpoint(live_stack.home / "flink" / "checkpoints", first)
    assert newest is not None
    wait(lambda: records_in(flink, first) > 0)
    savepoint = flink.stop_with_savepoint(first)
    assert state(flink, first) == "FINISHED"
    assert (Path("/" + savepoint.removeprefix("file:").lstrip("/")) / "_metadata").exists()
    flink.run(jar, COUNT, second, settings, 1, restore_from=savepoint)
    wait(lambda: (job := flink.job(second)) is not None and job.is_running)
    flink.cancel(second)
    wait(lambda: state(flink, second) == "CANCELED")
    flink.cancel(second)


def test_state_that_is_not_there_fails_the_job_with_its_path(flink: FlinkCluster, jar: str) -> None:
    job_id = uuid4().hex
    flink.run(jar, COUNT, job_id, {}, 1, restore_from="file:/nowhere/chk-1")
    wait(lambda: state(flink, job_id) == "FAILED")
    assert "/nowhere/chk-1" in (flink.exceptions(job_id) or "")


def test_a_job_that_failed_tells_the_root_cause(flink: FlinkCluster, jar: str) -> None:
    job_id = uuid4().hex
    text = script("SELECT CAST(CONCAT('x', CAST(`n` AS STRING)) AS INT) FROM `numbers`")
    flink.run(jar, text, job_id, {"restart-strategy.type": "none"}, 1)
    wait(lambda: state(flink, job_id) == "FAILED")
    cause = flink.exceptions(job_id)
    assert cause is not None
    assert "For input string: 'x" in cause
    with pytest.raises(EngineRejected):
        flink.stop_with_savepoint(job_id)
