"""Flink and its stand-in in memory answer alike to what the platform asks of them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from millrace.compile.flink import FlinkEndpoints, stream_job
from millrace.errors import EngineRejected
from resources.endpoints import flink_url, kafka_bootstrap
from resources.flink.rest import FlinkCluster, newest_checkpoint
from resources.kafka.client import Topic, ensure_topics
from streaming.engines import Flink
from tests.support.stream_fakes import FakeFlink, write_views

DEADLINE_S = 60


@dataclass
class Subject:
    """A Flink, a script it can run, and how to have a job complete a checkpoint."""

    flink: Flink
    jar: Path
    script: str
    checkpoints: Path
    await_checkpoint: Callable[[str], Any]

    def run(self, job_id: str, restore_from: str | None = None) -> str:
        jar_id = self.flink.ensure_jar(self.jar)
        settings = {"execution.checkpointing.interval": "1 s"}
        return self.flink.run(jar_id, self.script, job_id, settings, 1, restore_from)

    def await_state(self, job_id: str, state: str, *, is_running: bool = False) -> None:
        deadline = time.monotonic() + DEADLINE_S
        report = self.flink.job(job_id)
        while report is None or report.state != state or report.is_running != is_running:
            assert time.monotonic() < deadline, report
            time.sleep(0.1)
            report = self.flink.job(job_id)


def stand_in(folder: Path) -> Subject:
    checkpoints = folder / "flink" / "checkpoints"
    flink = FakeFlink(checkpoints)
    return Subject(flink, folder / "runner.jar", "…", checkpoints, flink.complete_checkpoint)


def real(folder: Path, request: pytest.FixtureRequest) -> Subject:
    from streaming.runner.build import ensure_runner_jar

    settings = request.getfixturevalue("live_stack")
    brokers, name = kafka_bootstrap(settings), uuid4().hex[:8]
    ensure_topics(brokers, [Topic(f"source.{name}"), Topic(f"tiles.{name}")])
    view = write_views(folder / "views", topic=f"source.{name}").view("spend")
    script = stream_job(view, FlinkEndpoints(brokers, tile_topic=f"tiles.{name}")).script
    flink = FlinkCluster(flink_url(settings))

    def await_checkpoint(job_id: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while flink.checkpoints(job_id).completed == 0:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    checkpoints = settings.home / "flink" / "checkpoints"
    return Subject(flink, ensure_runner_jar(settings), script, checkpoints, await_checkpoint)


# The stack is asked for only where it is needed, so that its group is not seen from the arguments.
_REAL = (pytest.mark.services, pytest.mark.xdist_group("live_stack"))


@pytest.fixture(params=["stand-in", pytest.param("real", marks=_REAL)])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    found = stand_in(tmp_path) if request.param == "stand-in" else real(tmp_path, request)
    before = {job.job_id for job in found.flink.jobs()}
    yield found
    for job in found.flink.jobs():
        if job.job_id not in before:
            found.flink.cancel(job.job_id)


def test_a_job_nobody_knows_has_no_state_and_can_be_cancelled(subject: Subject) -> None:
    job_id = uuid4().hex
    assert subject.flink.job(job_id) is None
    assert subject.flink.checkpoints(job_id).completed == 0
    assert subject.flink.exceptions(job_id) is None
    subject.flink.cancel(job_id)
    assert subject.flink.job(job_id) is None
    with pytest.raises(EngineRejected):
        subject.flink.stop_with_savepoint(job_id)


def test_a_job_runs_once_under_its_id_and_leaves_its_state(subject: Subject) -> None:
    first, second, third = uuid4().hex, uuid4().hex, uuid4().hex
    slots = subject.flink.slots()
    assert 1 <= slots.free <= slots.total
    assert not slots.is_elastic
    assert subject.run(first) == first
    assert subject.run(first) == first
    subject.await_state(first, "RUNNING", is_running=True)
    assert [job.job_id for job in subject.flink.jobs()].count(first) == 1

    subject.await_checkpoint(first)
    report = subject.flink.checkpoints(first)
    assert report.completed >= 1
    assert report.age_s is not None
    subject.flink.cancel(first)
    subject.await_state(first, "CANCELED")
    assert subject.run(first) == first  # known, though ended: it stays as it is
    subject.await_state(first, "CANCELED")
    checkpoint = newest_checkpoint(subject.checkpoints, first)
    assert checkpoint is not None

    subject.run(second, str(checkpoint))
    subject.await_state(second, "RUNNING", is_running=True)
    savepoint = subject.flink.stop_with_savepoint(second)
    subject.await_state(second, "FINISHED")
    subject.run(third, savepoint)
    subject.await_state(third, "RUNNING", is_running=True)
