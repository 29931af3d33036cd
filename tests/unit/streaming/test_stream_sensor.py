"""The sensor and the jobs of streams, over engines in memory and an instance in memory."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.definitions import build_definitions
from jobs.streams.sensor import OBSERVE_EVERY_MS, SENSOR, tick
from offline.tables.partition_log import append_partition_log
from resources.lake.reports import BuildReport, PartitionOutcome
from streaming.control import deployments
from streaming.control.status import view_health
from streaming.publications.records import RecordFiles, StreamRecord
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views

ONLINE = dg.AssetKey(["online", "spend_online"])
EDGE_MS = 1_578_182_400_000
"""2020-01-05."""


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
    def files(self) -> RecordFiles:
        return RecordFiles.of(self.engines.settings.home)

    @property
    def record(self) -> StreamRecord:
        found = self.files.read("spend")
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
        """Look once, and store what is told, as the daemon does."""
        result = tick(self.engines, self.instance, self.cursor)
        if isinstance(result, dg.SensorResult):
            self.cursor = result.cursor
            for event in result.asset_events:
                self.instance.report_runless_asset_event(event)
        return result

    def online(self) -> list[dict[str, Any]]:
        """Look once; return what is told of what is served: metadata, and the kind of event."""
        result = self.tick()
        assert isinstance(result, dg.SensorResult)
        return [
            {"event": type(event).__name__, **{k: v.value for k, v in event.metadata.items()}}
            for event in result.asset_events
            if event.asset_key == ONLINE
        ]

    def build(self, version: str, fingerprint: str, days: int) -> None:
        """Log the first days of the view's tiles as built, long ago."""
        outcomes = tuple(PartitionOutcome(date(2020, 1, n)) for n in range(1, days + 1))
        report = BuildReport(f"tiles/spend/{version}", version, 0, outcomes)
        append_partition_log(self.engines.settings, report, fingerprint)

    def say_complete(self) -> None:
        """Let the newest job have read its topic, and the writer have stored that."""
        record = self.record
        self.engines.fake.complete_checkpoint(record.job_id)
        self.engines.committed[record.flink_group] = dict(self.engines.ends["payments"])
        told = {"progress_ms": record.submitted_at_ms, "tile_lag": 0, "source_lag": 0}
        told["at_ms"] = self.engines.now_ms()
        self.engines.memory.online().progress.report({("spend", record.fingerprint): told})

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
    observed = [e.asset_key for e in done.all_events if e.event_type_value == "ASSET_OBSERVATION"]
    assert dg.AssetKey(["stream", "spend_stream"]) in observed
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


def change_the_view(location: Location) -> StreamRecord:
    """Serve v1 with four days of history, then declare another meaning; returns v1's record."""
    old = location.deploy()
    location.build("v1", old.fingerprint, days=4)
    location.engines.ends["payments"] = {0: 10, 1: 0}
    location.say_complete()
    published_as_uploaded(location, old)
    location.files.note_upload("spend", old.fingerprint, EDGE_MS, None)
    location.plan = write_views(location.views, least=100)
    [upgrade] = location.requests()
    assert location.run(upgrade).success
    return old


def test_what_is_told_to_be_served_is_what_answers_while_another_version_waits(
    location: Location,
) -> None:
    old = change_the_view(location)
    [told] = location.online()
    assert (told["version"], told["cut_over"], told["state"]) == ("v1", EDGE_MS / 1000, "running")
    assert (told["waits"], told["missing_days"]) == ("v2", 1)
    assert (told["missing_from"], told["missing_to"]) == ("2020-01-04", "2020-01-04")
    assert told["missing_tables"] == "events/payments, tiles/spend/v2"
    assert told["build_command"] == "millrace backfill spend --start 2020-01-04 --end 2020-01-05"
    assert "its job has 10 event(s) to read" in told["waits_for"]
    assert told["event"] == "AssetMaterialization"
    newest = location.instance.fetch_materializations(ONLINE, limit=1).records[0]
    tags = newest.event_log_entry.asset_materialization
    assert tags is not None
    assert (tags.tags or {})["dagster/code_version"] == old.fingerprint
    shown = view_health(location.engines, location.record, location.plan.view("spend")).to_json()
    assert (shown["version"], shown["serves"]) == ("v2", "v1")
    assert shown["waits_for"]["missing_days"] == ["2020-01-04"]
    assert shown["waits_for"]["command"] == told["build_command"]
    assert told["waits_for"] in shown["detail"]
    # It catches up, which is no news at each look; that a day is built is.
    location.engines.fake.complete_checkpoint(location.record.job_id)
    location.engines.committed[location.record.flink_group] = {0: 3, 1: 0}
    assert location.online() == []
    location.build("v2", location.record.fingerprint, days=4)
    [told] = location.online()
    assert "missing_days" not in told
    assert told["waits_for"].startswith("its batch tiles are not uploaded yet; its job has 7 event")


def test_the_button_builds_what_lacks_and_nothing_while_that_is_being_built(
    location: Location,
) -> None:
    change_the_view(location)
    job = location.defs.resolve_job_def("build_history")

    def press() -> dg.ExecuteInProcessResult:
        return job.execute_in_process(instance=location.instance, raise_on_error=False)

    failed = press()
    [event] = [e for e in failed.all_events if e.is_step_failure]
    assert "dagster of the local stack does not run" in str(event.step_failure_data)
    assert "millrace up dagster" in str(event.step_failure_data)
    location.instance.create_run_for_job(
        location.defs.resolve_job_def("backfill_spend"),
        tags={"millrace.history/spend": location.record.fingerprint},
        status=dg.DagsterRunStatus.STARTED,
    )
    assert press().success
    location.build("v2", location.record.fingerprint, days=4)
    assert press().success


def test_a_promotion_is_told_by_the_run_that_makes_it_with_both_versions_and_the_reason(
    location: Location,
) -> None:
    change_the_view(location)
    new = location.record
    location.online()
    location.say_complete()
    location.build("v2", new.fingerprint, days=4)
    location.files.note_upload("spend", new.fingerprint, EDGE_MS, None)
    published_as_uploaded(location, new)
    [promote] = location.requests()
    done = location.run(promote)
    told = [e for e in done.all_events if e.asset_key == ONLINE]
    assert [e.event_type_value for e in told] == ["ASSET_MATERIALIZATION"]
    metadata = {
        k: v.value for k, v in told[0].step_materialization_data.materialization.metadata.items()
    }
    assert (metadata["version"], metadata["from_version"], metadata["to_version"]) == (
        "v2",
        "v1",
        "v2",
    )
    assert str(metadata["why"]).startswith("promote: complete, and serves from now on")
    [after] = location.online()
    assert after["version"] == "v2"
    assert {"from_version", "waits"}.isdisjoint(after)


def test_a_promotion_whose_run_died_before_it_told_is_found_in_the_store_and_told_once(
    location: Location,
) -> None:
    change_the_view(location)
    location.online()
    with location.engines.store() as store:
        found = store.publications.read().views["spend"]
        store.publications.amend("spend", lambda _: replace(found, serving="v2"))
    [told] = location.online()
    assert (told["from_version"], told["to_version"], told["version"]) == ("v1", "v2", "v2")
    assert "cut off" in told["why"]
    assert told["event"] == "AssetMaterialization"
    location.engines.clock[0] += OBSERVE_EVERY_MS
    [again] = location.online()
    assert "from_version" not in again


def test_what_a_store_that_is_away_serves_is_not_guessed(location: Location) -> None:
    location.deploy()
    assert [told["version"] for told in location.online()] == ["v1"]
    location.engines.away.add("store")
    assert location.online() == []
    location.engines.away.clear()
    assert [told["version"] for told in location.online()] == ["v1"]


def published_as_uploaded(location: Location, record: StreamRecord) -> None:
    with location.engines.store() as store:
        found = store.publications.read().views["spend"]
        versions = tuple(
            replace(v, cut_over_ms=EDGE_MS) if v.fingerprint == record.fingerprint else v
            for v in found.versions
        )
        store.publications.amend("spend", lambda _: replace(found, versions=versions))


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
    assert upstream("online", "spend_online") == {"stream/spend_stream", "tiles/spend_tiles"}
    stream = graph.get(dg.AssetKey(["stream", "spend_stream"])).to_asset_spec()
    assert stream.kinds == {"stream", "flink", "kafka"}
    assert stream.group_name == "spend"
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
