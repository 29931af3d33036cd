"""The sensor and the jobs of streams, over engines in memory and an instance in memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.definitions import build_definitions
from jobs.stream_sensor import OBSERVE_EVERY_MS, SENSOR, tick
from streaming import deployments
from streaming.records import RecordFiles, StreamRecord
from tests.stream_fakes import FakeEngines, fake_engines, write_views


class Location:
    """A code location over engines in memory, and its instance."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.views = folder / "views"
        self.plan = write_views(self.views)
        self.engines: FakeEngines = fake_engines(folder, views=[self.views])
        self.instance = instance
        self.defs = build_definitions(self.plan, self.engines.settings, engines=self.engines)
        self.cursor: str | None = None

    @property
    def record(self) -> StreamRecord:
        found = RecordFiles.of(self.engines.settings.home).read("spend")
        assert found is not None
        return found

    @property
    def desired(self) -> str:
        return self.record.desired

    def deploy(self) -> StreamRecord:
        settings = self.engines.settings
        return deployments.deploy(
            settings, self.plan, "spend", lambda _: None, engines=self.engines
        )

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        result = tick(self.engines, self.instance, self.cursor)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
        return result

    def requests(self) -> list[dg.RunRequest]:
        result = self.tick()
        return list(result.run_requests or ()) if isinstance(result, dg.SensorResult) else []

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        job = self.defs.resolve_job_def("stream_actions")
        return job.execute_in_process(
            run_config=request.run_config,
            tags=request.tags,
            instance=self.instance,
            raise_on_error=False,
        )

    def lose_flink(self) -> None:
        self.engines.fake.forget()
        self.engines.clock[0] += 15_000


@pytest.fixture
def location(tmp_path: Path) -> Iterator[Location]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Location(tmp_path, instance)


def skip_text(result: dg.SensorResult | dg.SkipReason) -> str:
    reason = result.skip_reason if isinstance(result, dg.SensorResult) else result
    return (reason.skip_message or "") if reason else ""


def test_the_sensor_is_on_by_default_and_runs_one_job(location: Location) -> None:
    sensor = location.defs.resolve_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 10
    assert sensor.job_name == "stream_actions"
    context = dg.build_sensor_context(instance=location.instance)
    assert "millrace stream deploy" in (sensor.evaluate_tick(context).skip_message or "")


def test_a_stream_that_is_as_wanted_is_a_skip_that_says_so(location: Location) -> None:
    location.deploy()
    assert skip_text(location.tick()) == "spend: running"


def test_a_lost_job_is_one_run_whose_log_says_why(location: Location) -> None:
    lost = location.deploy()
    location.lose_flink()
    [request] = location.requests()
    key = f"restore|spend|{lost.fingerprint}|1"
    assert request.run_key == f"{key}|1"
    assert request.tags["millrace.view/spend"] == "acted on"
    assert request.tags["millrace/action"] == "restore"
    done = location.run(request)
    assert done.success
    assert location.record.generation == 2
    said = [entry.user_message for entry in location.instance.all_logs(done.run_id)]
    assert f"restore spend: Flink does not know v1's job {lost.job_id}" in said
    [observed] = [e for e in done.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    assert observed.asset_key == dg.AssetKey(["stream", "spend_stream"])
    assert location.requests() == []


def test_no_second_run_is_asked_for_while_one_is_under_way(location: Location) -> None:
    location.deploy()
    location.lose_flink()
    [request] = location.requests()
    location.instance.create_run_for_job(
        location.defs.resolve_job_def("stream_actions"),
        run_config=request.run_config,
        tags=request.tags,
        status=dg.DagsterRunStatus.STARTED,
    )
    result = location.tick()
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    assert "restore spend is under way" in skip_text(result)


def test_a_failed_run_is_asked_for_again_after_a_pause_under_a_key_of_its_own(
    location: Location,
) -> None:
    location.deploy()
    location.lose_flink()
    [first] = location.requests()
    location.engines.fake.is_away = True
    failed = location.run(first)
    assert not failed.success
    [event] = [e for e in failed.all_events if e.is_step_failure]
    assert "Flink does not answer" in str(event.step_failure_data.error)
    location.engines.fake.is_away = False
    [record] = location.instance.get_run_records()
    ended_ms = int((record.end_time or 0) * 1000)
    location.engines.clock[0] = ended_ms + 14_000
    assert location.requests() == []
    location.engines.clock[0] = ended_ms + 15_001
    [second] = location.requests()
    assert first.run_key is not None
    assert second.run_key == f"{first.run_key.removesuffix('|1')}|2"
    assert location.run(second).success


def test_a_flink_that_is_away_is_a_skip_that_names_it(location: Location) -> None:
    location.deploy()
    location.engines.fake.is_away = True
    result = location.tick()
    assert isinstance(result, dg.SkipReason)
    assert "Flink does not answer" in skip_text(result)


def test_a_store_that_is_away_is_named_beside_the_states(location: Location) -> None:
    location.deploy()
    location.engines.away.add("store")
    assert skip_text(location.tick()) == "the store does not run; spend: running"


def test_states_are_observed_when_they_change_and_every_few_minutes(location: Location) -> None:
    record = location.deploy()

    def observed() -> list[tuple[str, Any]]:
        result = location.tick()
        assert isinstance(result, dg.SensorResult)
        return [
            (event.asset_key.to_user_string(), event.metadata["state"].value)
            for event in result.asset_events
        ]

    both = ["stream/spend_stream", "online/spend_online"]
    assert observed() == [(key, "running") for key in both]
    location.engines.clock[0] += 10_000
    assert observed() == []
    location.engines.fake.states[record.job_id] = "RESTARTING"
    location.engines.clock[0] += 10_000
    assert observed() == [(key, "starting") for key in both]
    location.engines.clock[0] += OBSERVE_EVERY_MS
    assert observed() == [(key, "starting") for key in both]


def test_an_observation_carries_lag_and_the_age_of_the_checkpoint(location: Location) -> None:
    record = location.deploy()
    location.engines.ends["payments"] = {0: 10, 1: 0}
    location.engines.committed[record.flink_group] = {0: 7, 1: 0}
    location.engines.fake.complete_checkpoint(record.job_id)
    result = location.tick()
    assert isinstance(result, dg.SensorResult)
    metadata = {k: v.value for k, v in result.asset_events[0].metadata.items()}
    assert metadata == {
        "state": "running",
        "version": "v1",
        "lag_events": 3,
        "checkpoint_age_s": 0.0,
        "job_id": record.job_id,
    }


def test_a_declaration_with_a_fault_stops_nothing(location: Location) -> None:
    location.deploy()
    file = location.views / "views.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("hop", "hopp") + "  oops: [", "utf-8")
    assert location.requests() == []
    file.unlink()
    [request] = location.requests()
    assert request.tags["millrace/action"] == "withdraw"


def test_streams_are_deployed_and_stopped_by_hand_from_the_ui(location: Location) -> None:
    def run(job: str, views: list[str]) -> dg.ExecuteInProcessResult:
        op = f"{job.removeprefix('stream_')}_streams"
        return location.defs.resolve_job_def(job).execute_in_process(
            run_config={"ops": {op: {"config": {"views": views}}}},
            instance=location.instance,
            raise_on_error=False,
        )

    assert run("stream_deploy", []).success
    assert location.desired == "running"
    assert run("stream_restart", ["spend"]).success
    assert location.record.generation == 2
    assert run("stream_stop", []).success
    assert location.desired == "stopped"
    failed = run("stream_deploy", ["spent", "spend"])
    assert not failed.success
    assert location.record.generation == 3
    [event] = [e for e in failed.all_events if e.is_step_failure]
    assert "no feature view 'spent'" in str(event.step_failure_data.user_failure_data)


def test_the_cursor_forgets_streams_that_have_no_record(location: Location) -> None:
    location.deploy()
    location.cursor = json.dumps({"gone": ["running", 1]})
    location.tick()
    assert list(json.loads(location.cursor or "{}")) == ["spend"]


def test_topics_streams_and_online_values_are_assets_with_lineage(location: Location) -> None:
    graph = location.defs.resolve_asset_graph()

    def upstream(*path: str) -> set[str]:
        return {key.to_user_string() for key in graph.get(dg.AssetKey(path)).parent_keys}

    assert upstream("stream", "spend_stream") == {"topic/payments_topic"}
    assert upstream("online", "spend_online") == {"stream/spend_stream", "features/spend"}
    stream = graph.get(dg.AssetKey(["stream", "spend_stream"])).to_asset_spec()
    assert stream.kinds == {"stream", "flink", "kafka"}
    assert stream.group_name == "payments"
    assert stream.code_version == location.plan.view("spend").fingerprint
    assert graph.get(dg.AssetKey(["online", "spend_online"])).is_external


def test_all_jobs_that_a_jobmanager_took_with_it_are_restored_in_one_run(
    location: Location,
) -> None:
    first = location.deploy()
    location.plan = write_views(location.views, view="other")
    settings, plan = location.engines.settings, location.plan
    deployments.deploy(settings, plan, "other", lambda _: None, engines=location.engines)
    both = (location.views / "views.yaml").read_text(encoding="utf-8")
    both += both[both.index("  - name: other") :].replace("other", "spend", 1)
    (location.views / "views.yaml").write_text(both, encoding="utf-8")
    location.lose_flink()
    [request] = location.requests()
    assert request.run_key is not None
    assert request.run_key.count("restore|") == 2
    assert request.run_key.endswith(f" restore|spend|{first.fingerprint}|1|1")
    assert location.run(request).success
    assert location.record.generation == 2
    assert location.requests() == []
