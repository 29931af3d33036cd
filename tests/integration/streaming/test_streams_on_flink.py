"""Streams over a real Kafka, Flink and store: deployed, killed, restored, changed, stopped."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.streams.online_reports import online_key
from jobs.streams.sensor import tick
from millrace.errors import EngineUnavailable
from millrace.plan import Plan
from millrace.published import PublishedView
from resources.declarations import load_plan
from resources.endpoints import store_url
from resources.kafka.client import consumer, end_offsets, producer, topic_exists
from resources.settings import Settings, settings_from_env
from resources.store.client import open_store, pages
from resources.store.keys import version_pattern
from streaming.control import deployments
from streaming.control.actions import perform
from streaming.control.reconcile import decide
from streaming.control.status import view_health
from streaming.control.survey import StreamHealth, declared_of, survey
from streaming.engines import Engines
from streaming.publications.records import RecordFiles, StreamRecord
from tests.support.live.running_stack import RunningStack, until
from tests.support.stream_fakes import write_views

pytestmark = pytest.mark.services


class Streams:
    """A stack of this module's own, whose parts may be killed, with the tests' own views."""

    def __init__(self, stack: RunningStack) -> None:
        self.stack = stack
        self.settings: Settings = settings_from_env(stack.env)
        self.engines = Engines(self.settings)
        self.sent = 0

    @property
    def folder(self) -> Path:
        return self.settings.views[-1]

    def declare(self, view: str, *, least: int = 0) -> Plan:
        write_views(self.folder, view=view, topic=f"topic.{view}", least=least)
        return load_plan(self.settings)

    def deploy(self, view: str) -> StreamRecord:
        plan = load_plan(self.settings)
        return deployments.deploy(self.settings, plan, view, print)

    def record(self, view: str) -> StreamRecord:
        found = RecordFiles.of(self.settings.home).read(view)
        assert found is not None
        return found

    def health(self, view: str) -> StreamHealth:
        return view_health(self.engines, self.record(view))

    def await_running(self, view: str) -> StreamRecord:
        until(lambda: self.health(view).state == "running", f"{view} runs")
        return self.record(view)

    def await_checkpoint(self, view: str) -> str:
        """Wait for a checkpoint that holds everything sent so far; returns where it lies."""
        until(lambda: self.health(view).lag_events == 0, f"{view} has counted all", 60)
        found = self.engines.flink.checkpoints(self.record(view).job_id).latest_path
        assert found is not None
        return found

    def send(self, view: str, amounts: list[int], customer: int = 1) -> None:
        """Send one event per amount, all of this instant."""
        out = producer(self.engines.brokers)
        now_ms = int(time.time() * 1000)
        for amount in amounts:
            self.sent += 1
            event = {
                "payment_id": self.sent,
                "paid_at": now_ms,
                "customer_id": customer,
                "amount": amount,
            }
            out.produce(f"topic.{view}", json.dumps(event))
        assert out.flush(30) == 0

    def rows(self, record: StreamRecord, customer: int = 1) -> int:
        """Return how many events the newest tiles of one customer count."""
        newest: dict[bytes, Any] = {}
        inlet = consumer(self.engines.brokers, **{"group.id": "tests"})
        from confluent_kafka import TopicPartition

        ends = end_offsets(self.engines.brokers, record.tile_topic)
        left = sum(ends.values())
        inlet.assign([TopicPartition(record.tile_topic, p, 0) for p in ends])
        while left > 0:
            for message in inlet.consume(1000, timeout=5):
                newest[message.key()] = json.loads(message.value())
                left -= 1
        inlet.close()
        return sum(t["rows"] for t in newest.values() if t["customer_id"] == customer)

    def reconcile(self, view: str) -> list[str]:
        """Decide once about a view and do it, as the sensor and its runs would."""
        records, plan = {view: self.record(view)}, load_plan(self.settings)
        declared = declared_of(records, plan, self.settings, has_faults=False)
        seen = survey(self.engines, plan, records)
        actions = decide(records, declared, seen.facts, self.engines.now_ms())
        for action in actions:
            perform(self.settings, plan, action, print)
        return [action.kind for action in actions]

    def told(self, view: str, instance: dg.DagsterInstance) -> dict[str, Any]:
        """Look once, as the sensor; return what it tells of what is served of a view."""
        result = tick(self.engines, instance, None)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        (found,) = (e for e in result.asset_events if e.asset_key == online_key(view))
        return {name: value.value for name, value in found.metadata.items()}

    def kill_jobmanager(self) -> None:
        """Kill it, and wait until another, which knows no job, has its TaskManager."""
        self.stack.kill("flink", "jobmanager")

        def is_back() -> bool:
            try:
                return self.engines.flink.job("0" * 32) is None
            except EngineUnavailable:
                return False

        until(lambda: not is_back(), "the JobManager is gone")
        until(is_back, "the JobManager is back")

    def keys(self, view: str, fingerprint: str) -> int:
        """Count the rows and tiles of a version in the store."""
        with open_store(store_url(self.settings)) as client:
            return sum(map(len, pages(client, version_pattern(view, fingerprint))))

    def make_retirement_due(self, view: str) -> None:
        """Let the version that was retired have served long ago."""
        record = self.record(view)
        old = tuple(replace(one, retired_at_ms=0) for one in record.retired)
        RecordFiles.of(self.settings.home).write(replace(record, retired=old))

    def published(self, view: str) -> PublishedView:
        with self.engines.store() as store:
            return store.publications.read().views[view]


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    stack = RunningStack.declared(tmp_path_factory.mktemp("streams"), {})
    try:
        stack.up(("kafka", "flink", "store", "writer"))
        yield Streams(stack)
    finally:
        stack.down()


def test_a_deployed_stream_runs_once_and_is_published(streams: Streams) -> None:
    streams.declare("twice")
    began = time.monotonic()
    streams.deploy("twice")
    first = streams.await_running("twice")
    print(f"deployed and running after {time.monotonic() - began:.1f} s")  # noqa: T201
    assert streams.deploy("twice") == first
    jobs = [job for job in streams.engines.flink.jobs() if job.name.startswith("twice-")]
    assert [job.job_id for job in jobs] == [first.job_id]
    assert streams.published("twice").serving == "v1"
    streams.send("twice", [5, 7, 0])
    until(lambda: streams.rows(first) == 2, "the job counts both payments")
    assert streams.reconcile("twice") == []


def test_a_job_that_a_killed_jobmanager_forgot_goes_on_from_its_newest_checkpoint(
    streams: Streams,
) -> None:
    streams.declare("killed")
    streams.deploy("killed")
    streams.await_running("killed")
    streams.send("killed", [1] * 50)
    lost, newest = streams.record("killed"), streams.await_checkpoint("killed")
    streams.kill_jobmanager()
    began = time.monotonic()
    assert streams.health("killed").state == "missing"
    until(lambda: streams.reconcile("killed") == ["restore"], "it is restored")
    restored = streams.await_running("killed")
    print(f"restored and running after {time.monotonic() - began:.1f} s")  # noqa: T201
    assert restored.job_id != lost.job_id
    assert restored.restored_from is not None
    assert restored.restored_from.rpartition("/")[2] >= newest.rpartition("/")[2]
    # The tile goes on from 50: nothing is counted twice, nothing is lost.
    streams.send("killed", [1] * 10)
    until(lambda: streams.rows(restored) == 60, "all 60 are counted")


def test_a_changed_view_restores_nothing_and_serves_once_it_is_complete(streams: Streams) -> None:
    streams.declare("changed")
    streams.deploy("changed")
    old = streams.await_running("changed")
    streams.send("changed", [1, 2, 300])
    streams.await_checkpoint("changed")
    instance = dg.DagsterInstance.ephemeral()
    assert streams.told("changed", instance)["version"] == "v1"
    streams.declare("changed", least=100)
    assert streams.reconcile("changed") == ["upgrade"]
    new = streams.await_running("changed")
    assert new.version == "v2"
    assert new.restored_from is None
    # Old state would have counted the two small payments as well.
    until(lambda: streams.rows(new) == 1, "the new job counts what the new filter takes")
    report = streams.engines.flink.job(old.job_id)
    assert report is not None
    assert report.is_running
    assert streams.published("changed").serving == "v1"
    told = streams.told("changed", instance)
    assert (told["version"], told["state"]) == ("v1", "running")
    assert told.get("waits", "v2") == "v2"
    # The writer says that it holds all that was sent, and the sensor goes by that.
    until(lambda: streams.reconcile("changed") == ["promote"], "the new version is complete", 60)
    assert streams.published("changed").serving == "v2"
    told = streams.told("changed", instance)
    assert (told["version"], told["from_version"], told["to_version"]) == ("v2", "v1", "v2")
    until(lambda: not deployments.is_alive(streams.engines, old.job_id), "the old job is gone")
    assert streams.reconcile("changed") == []
    assert streams.keys("changed", old.fingerprint) == 1
    streams.make_retirement_due("changed")
    assert streams.reconcile("changed") == ["retire"]
    assert streams.keys("changed", old.fingerprint) == 0
    assert streams.keys("changed", new.fingerprint) == 1
    until(lambda: not topic_exists(streams.engines.brokers, old.tile_topic), "its topic is deleted")
    assert [v.version for v in streams.published("changed").versions] == ["v2"]


def test_a_stopped_stream_goes_on_from_its_savepoint(streams: Streams) -> None:
    streams.declare("paused")
    streams.deploy("paused")
    streams.await_running("paused")
    streams.send("paused", [1] * 5)
    until(lambda: streams.rows(streams.record("paused")) == 5, "all 5 are counted")
    stopped = deployments.stop(streams.settings, "paused", print)
    assert stopped.savepoint is not None
    assert streams.health("paused").state == "stopped"
    assert streams.reconcile("paused") == []
    streams.send("paused", [1] * 2)
    streams.deploy("paused")
    resumed = streams.await_running("paused")
    assert resumed.restored_from == stopped.savepoint.path
    until(lambda: streams.rows(resumed) == 7, "those sent meanwhile are counted too")


def test_a_view_that_is_declared_no_more_is_withdrawn(streams: Streams) -> None:
    streams.declare("leaving")
    record = streams.deploy("leaving")
    streams.await_running("leaving")
    streams.declare("staying")
    assert streams.reconcile("leaving") == ["withdraw"]
    report = streams.engines.flink.job(record.job_id)
    assert report is not None
    assert report.state == "FINISHED"
    with pytest.raises(KeyError):
        streams.published("leaving")
