"""Deploying, restoring and stopping streams, over engines in memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from millrace.errors import (
    EngineError,
    EngineRejected,
    EngineUnavailable,
    NotDeclared,
    UnsupportedByEngine,
)
from resources.flink.slots import MOST_SLOTS, SLOTS_A_WORKER, wanted_workers
from streaming.control import deployments, slots
from streaming.control.actions import perform
from streaming.control.status import view_health
from streaming.control.submission import BROKERS
from streaming.control.survey import survey
from streaming.publications.records import StreamRecord
from tests.support.stream_cases import Streams, ignore
from tests.support.stream_fakes import START_MS


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    return Streams(tmp_path)


def test_a_first_deploy_makes_topics_a_job_and_a_publication(streams: Streams) -> None:
    record = streams.deploy()
    tiles = f"millrace.tiles.spend.{record.fingerprint}"
    assert set(streams.engines.topics) == {"payments", "payments.dlq", tiles}
    kept_ms = 3_600_000 + 300_000 + 3_600_000 + 2 * 86_400_000
    assert streams.engines.topics[tiles] == {
        "cleanup.policy": "compact,delete",
        "retention.ms": str(kept_ms),
    }
    [submission] = streams.flink.submissions
    assert submission["job_id"] == record.job_id
    assert submission["restore_from"] is None
    assert "'broker:9092'" in submission["script"]
    assert BROKERS not in submission["script"]
    assert submission["configuration"]["restart-strategy.type"] == "exponential-delay"
    marks = submission["configuration"]["pipeline.global-job-parameters"]
    assert f"fingerprint:{record.fingerprint}" in marks
    [version] = streams.published.versions
    assert streams.published.serving == version.version == "v1"
    assert version.state == "live"
    assert streams.published.entities == ("customer",)
    assert version.tile_topic == tiles
    assert version.flink_group == f"millrace-spend-{record.fingerprint}"
    assert streams.decide() == []


def test_a_second_deploy_of_what_runs_changes_nothing(streams: Streams) -> None:
    first = streams.deploy()
    views = streams.published
    assert streams.deploy() == first
    assert len(streams.flink.submissions) == 1
    assert streams.published == views


def test_a_view_without_a_stream_or_a_name_is_refused_before_anything_is_made(
    streams: Streams,
) -> None:
    source = replace(streams.plan.sources["payments"], stream=None)
    view = replace(streams.plan.view("spend"), source=source)
    streams.plan = replace(streams.plan, views={"spend": view})
    with pytest.raises(UnsupportedByEngine, match="has no stream") as refused:
        streams.deploy()
    assert "millrace upload spend" in refused.value.fix
    with pytest.raises(NotDeclared, match="spent") as caught:
        deployments.deploy(
            streams.engines.settings, streams.plan, "spent", ignore, engines=streams.engines
        )
    assert "spend" in caught.value.fix
    assert not streams.engines.topics


def test_a_vanished_job_goes_on_from_its_newest_checkpoint_under_a_new_id(
    streams: Streams,
) -> None:
    first = streams.deploy()
    streams.flink.complete_checkpoint(first.job_id)
    newest = streams.flink.complete_checkpoint(first.job_id)
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    assert streams.restores() == [None, newest.removeprefix("file:")]
    assert streams.record.job_id != first.job_id
    assert streams.record.generation == first.generation + 1
    assert streams.record.failures == ()
    assert streams.record.restores == (first.job_id,)


def test_a_job_lost_before_its_first_checkpoint_takes_the_one_before(streams: Streams) -> None:
    first = streams.deploy()
    newest = streams.flink.complete_checkpoint(first.job_id).removeprefix("file:")
    for _ in range(3):
        streams.flink.forget()
        streams.wait(600)
        assert streams.reconcile() == ["restore"]
    assert streams.restores() == [None, newest, newest, newest]


def test_without_any_checkpoint_a_job_begins_at_the_beginning_of_the_topic(
    streams: Streams,
) -> None:
    streams.deploy()
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    assert streams.restores() == [None, None]


def test_state_older_than_a_day_is_not_used(streams: Streams) -> None:
    first = streams.deploy()
    streams.flink.complete_checkpoint(first.job_id)
    streams.flink.forget()
    now_ms = int((streams.flink.checkpoints_root / first.job_id).stat().st_mtime * 1000)
    streams.engines.clock[0] = now_ms + 86_400_000
    assert streams.reconcile() == ["restore"]
    assert streams.restores() == [None, None]


def test_state_is_not_used_with_other_functions(streams: Streams) -> None:
    first = streams.deploy()
    streams.flink.complete_checkpoint(first.job_id)
    streams.flink.forget()
    (streams.engines.settings.home / "runner.jar").write_bytes(b"other functions")
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    assert streams.restores() == [None, None]


def test_checkpoints_of_all_but_the_last_two_generations_are_removed(streams: Streams) -> None:
    jobs = [streams.deploy().job_id]
    for _ in range(3):
        streams.flink.complete_checkpoint(jobs[-1])
        streams.flink.forget()
        streams.wait(600)
        streams.reconcile()
        jobs.append(streams.record.job_id)
    kept = {path.name for path in streams.flink.checkpoints_root.iterdir()}
    assert kept == {jobs[1], jobs[2]}
    assert streams.record.restores == (jobs[1], jobs[2])


def test_failures_are_restored_with_growing_pauses_until_the_circuit_opens(
    streams: Streams,
) -> None:
    streams.deploy()
    waited = []
    for _ in range(4):
        streams.flink.fail(streams.record.job_id, "no such column")
        seconds = 0
        while not streams.decide():
            streams.wait(1)
            seconds += 1
        waited.append(seconds)
        assert streams.reconcile() == ["restore"]
    assert waited == [15, 15, 30, 60]
    streams.flink.fail(streams.record.job_id, "no such column")
    streams.wait(120)
    with pytest.raises(EngineError, match="5 times within an hour, last: no such column"):
        streams.reconcile()
    assert streams.decide() == []
    health = view_health(streams.engines, streams.record)
    assert health.state == "broken"
    assert "no such column" in health.detail
    assert "millrace stream restart spend" in health.detail
    assert len(streams.flink.submissions) == 5


def test_a_restart_by_hand_closes_the_circuit(streams: Streams) -> None:
    streams.deploy()
    broken = replace(streams.record, failures=(START_MS,) * 5, error="no such column")
    streams.files.write(broken)
    streams.flink.fail(broken.job_id)
    restarted = streams.restart()
    assert not restarted.is_circuit_open
    assert restarted.error == ""
    assert view_health(streams.engines, restarted).state == "running"


def test_a_refused_job_is_a_failure_and_its_message_is_kept(streams: Streams) -> None:
    streams.flink.refusal = "SQL parse failed. At line 3"
    with pytest.raises(EngineRejected, match="line 3"):
        streams.deploy()
    assert streams.record.error == "SQL parse failed. At line 3"
    assert len(streams.record.failures) == 1
    streams.flink.refusal = ""
    assert streams.reconcile() == ["publish"]
    streams.wait(15)
    assert streams.reconcile() == ["restore"]


def test_a_flink_that_is_away_is_no_failure_of_the_stream(streams: Streams) -> None:
    streams.deploy()
    streams.flink.forget()
    streams.wait(15)
    [action] = streams.decide()
    streams.flink.is_away = True
    with pytest.raises(EngineUnavailable):
        perform(streams.engines.settings, streams.plan, action, ignore, engines=streams.engines)
    assert streams.record.failures == ()
    assert view_health(streams.engines, streams.record).state == "unknown"
    streams.flink.is_away = False
    assert streams.reconcile() == ["restore"]


def test_a_decision_that_was_overtaken_does_nothing(streams: Streams) -> None:
    streams.deploy()
    streams.flink.forget()
    streams.wait(15)
    [action] = streams.decide()
    for _ in range(2):
        perform(streams.engines.settings, streams.plan, action, ignore, engines=streams.engines)
    assert len(streams.flink.submissions) == 2


def test_a_stopped_stream_stays_so_and_goes_on_from_its_savepoint(streams: Streams) -> None:
    first = streams.deploy()
    stopped = streams.stop()
    assert stopped.savepoint is not None
    assert streams.flink.states[first.job_id] == "FINISHED"
    streams.wait(3600)
    assert streams.decide() == []
    assert streams.published.serving == "v1"
    streams.deploy()
    assert streams.restores() == [None, stopped.savepoint.path]
    assert streams.record.desired == "running"


def test_a_job_that_cannot_take_a_savepoint_is_cancelled_and_its_checkpoint_kept(
    streams: Streams,
) -> None:
    first = streams.deploy()
    newest = streams.flink.complete_checkpoint(first.job_id)
    streams.flink.states[first.job_id] = "RESTARTING"
    streams.stop()
    assert streams.flink.states[first.job_id] == "CANCELED"
    streams.deploy()
    assert streams.restores()[-1] == newest.removeprefix("file:")


def test_a_restart_goes_on_from_a_savepoint(streams: Streams) -> None:
    streams.deploy()
    restarted = streams.restart()
    assert restarted.savepoint is not None
    assert streams.restores() == [None, restarted.savepoint.path]


def test_a_restart_may_change_the_parallelism_and_restorations_keep_it(streams: Streams) -> None:
    streams.deploy()
    restarted = streams.restart(parallelism=2)
    assert streams.restores()[-1] == (restarted.savepoint and restarted.savepoint.path)
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    assert [one["parallelism"] for one in streams.flink.submissions] == [1, 2, 2]


def test_a_deployment_may_say_how_many_tasks_and_goes_on_from_a_savepoint_with_others(
    streams: Streams,
) -> None:
    first = streams.deploy(parallelism=2)
    assert view_health(streams.engines, first).to_json()["parallelism"] == 2
    assert streams.deploy().job_id == streams.deploy(parallelism=2).job_id == first.job_id
    fewer = streams.deploy(parallelism=1)
    assert fewer.savepoint is not None
    assert streams.restores() == [None, fewer.savepoint.path]
    assert [one["parallelism"] for one in streams.flink.submissions] == [2, 1]
    assert "parallelism" not in view_health(streams.engines, fewer).to_json()
    with pytest.raises(EngineRejected, match=r"has 2 partition\(s\)"):
        streams.deploy(parallelism=3)
    assert streams.flink.states[fewer.job_id] == "RUNNING"


def test_a_parallelism_that_the_topic_cannot_have_is_refused_and_nothing_stops(
    streams: Streams,
) -> None:
    deployed = streams.deploy()
    with pytest.raises(EngineRejected, match=r"has 2 partition\(s\)") as caught:
        streams.restart(parallelism=3)
    assert "from 1 to 2" in (caught.value.fix or "")
    assert streams.flink.states[deployed.job_id] == "RUNNING"


def test_a_store_that_is_away_stops_nothing_else(streams: Streams) -> None:
    streams.deploy()
    streams.engines.away.add("store")
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    seen = survey(streams.engines, streams.plan, streams.files.read_all())
    assert seen.away == ("the store does not run",)


def test_a_stream_that_another_process_acts_on_is_left_to_it(streams: Streams) -> None:
    streams.deploy()
    streams.flink.forget()
    streams.wait(15)
    with streams.files.changing("spend"):
        assert streams.decide() == []
    assert [action.kind for action in streams.decide()] == ["restore"]


def test_a_superseded_job_that_lives_again_is_cancelled(streams: Streams) -> None:
    first = streams.deploy()
    streams.flink.complete_checkpoint(first.job_id)
    streams.flink.forget()
    streams.wait(15)
    streams.reconcile()
    streams.flink.states[first.job_id] = "RUNNING"
    assert streams.reconcile() == ["cancel_twins"]
    assert streams.flink.states[first.job_id] == "CANCELED"


def test_lag_counts_from_the_beginning_until_the_job_has_a_checkpoint_of_its_own(
    streams: Streams,
) -> None:
    record = streams.deploy()
    streams.engines.ends["payments"] = {0: 10, 1: 5}
    streams.engines.committed[record.flink_group] = {0: 10, 1: 2}
    assert view_health(streams.engines, record).lag_events == 15
    streams.flink.complete_checkpoint(record.job_id)
    assert view_health(streams.engines, record).lag_events == 3


def test_a_job_without_checkpoints_is_degraded_and_not_resubmitted(streams: Streams) -> None:
    record = streams.deploy()
    streams.wait(91)
    health = view_health(streams.engines, record)
    assert health.state == "degraded"
    assert "no checkpoint was completed for 91 s" in health.detail
    assert streams.decide() == []


def test_status_of_a_healthy_stream_has_these_fields_and_no_other(streams: Streams) -> None:
    record = streams.deploy()
    streams.flink.complete_checkpoint(record.job_id)
    shown = view_health(streams.engines, record).to_json()
    assert list(shown) == ["state", "job_id", "version", "lag_events", "checkpoint_age_s"]
    assert shown["state"] == "running"


def test_an_unknown_stream_is_refused_with_the_nearest_name(streams: Streams) -> None:
    streams.deploy()
    act: Callable[..., StreamRecord]
    for act in (deployments.stop, deployments.restart):
        with pytest.raises(NotDeclared, match="'spent'") as caught:
            act(streams.engines.settings, "spent", ignore, engines=streams.engines)
        assert "spend" in caught.value.fix


def test_a_stream_for_which_no_slot_is_free_gets_another_taskmanager(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "RELEASE_S", 0)
    home, fake = streams.engines.settings.home, streams.engines.fake
    fake.total_slots = lambda: SLOTS_A_WORKER * wanted_workers(home)
    fake.states |= {f"job-{i}": "RUNNING" for i in range(SLOTS_A_WORKER)}
    said: list[str] = []
    deployments.deploy(
        streams.engines.settings, streams.plan, "spend", said.append, engines=streams.engines
    )
    assert len(fake.submissions) == 1
    assert wanted_workers(home) == 2
    lacking = "1 slot(s) are needed and 0 of 8 are free"
    assert f"spend: {lacking}; waiting for another TaskManager" in said


def test_a_stream_for_which_there_is_no_room_is_refused_before_it_is_submitted(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "RELEASE_S", 0)
    fake = streams.engines.fake
    fake.states |= {f"job-{i}": "RUNNING" for i in range(MOST_SLOTS)}
    fake.total_slots = lambda: MOST_SLOTS
    with pytest.raises(EngineRejected, match="one machine has 64 at most"):
        streams.deploy()
    fake.total_slots = lambda: 8
    own = replace(streams.engines, settings=replace(streams.engines.settings, flink_url="http://f"))
    with pytest.raises(EngineRejected, match=r"1 slot\(s\) are needed and 0 of 8 are free") as no:
        deployments.deploy(own.settings, streams.plan, "spend", ignore, engines=own)
    assert "taskmanager.numberOfTaskSlots" in no.value.fix
    assert fake.submissions == []
    assert streams.files.read("spend") is None, "nothing is wanted of a stream that has no room"
