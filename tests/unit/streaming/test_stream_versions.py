"""Streams whose declaration or publication changes, over engines in memory."""

from dataclasses import replace
from pathlib import Path

import pytest

from millrace.published import PLANS_KEY
from resources.declarations import plan_of
from streaming.control.actions import perform
from streaming.control.reconcile import RETIRE_AFTER_MS
from streaming.control.status import view_health
from streaming.publications import publishing
from tests.support.stream_cases import Streams, ignore
from tests.support.stream_fakes import START_MS


@pytest.fixture
def streams(tmp_path: Path) -> Streams:
    return Streams(tmp_path)


def tell_progress(streams: Streams, *, behind_ms: int = 0) -> None:
    """Let the job of the newest version be where the topic ends, and the writer nearly there."""
    record = streams.record
    streams.flink.complete_checkpoint(record.job_id)
    streams.engines.committed[record.flink_group] = dict(streams.engines.ends[record.source_topic])
    progress = {
        "progress_ms": record.submitted_at_ms - behind_ms,
        "source_lag": 0,
        "tile_lag": 0,
        "at_ms": streams.engines.now_ms(),
    }
    streams.engines.memory.online().progress.report({("spend", record.fingerprint): progress})


def test_a_changed_view_is_a_new_job_that_restores_nothing_and_serves_when_complete(
    streams: Streams,
) -> None:
    old = streams.deploy()
    streams.flink.complete_checkpoint(old.job_id)
    streams.engines.ends["payments"] = {0: 10, 1: 5}
    streams.declare(least=100)
    assert streams.reconcile() == ["upgrade"]
    new = streams.record
    assert (new.version, new.previous and new.previous.version) == ("v2", "v1")
    assert new.fingerprint != old.fingerprint
    assert streams.restores() == [None, None]
    assert streams.flink.states[old.job_id] == "RUNNING"
    assert streams.published.serving == "v1"
    assert [v.state for v in streams.published.versions] == ["live", "building"]

    tell_progress(streams, behind_ms=1)
    assert streams.decide() == []
    tell_progress(streams)
    assert streams.reconcile() == ["promote"]
    assert streams.published.serving == "v2"
    assert [v.state for v in streams.published.versions] == ["retired", "live"]
    assert streams.flink.states[old.job_id] == "CANCELED"

    streams.wait(RETIRE_AFTER_MS / 1000)
    assert streams.reconcile() == ["retire"]
    assert old.tile_topic not in streams.engines.topics
    assert [v.version for v in streams.published.versions] == ["v2"]
    assert not (streams.flink.checkpoints_root / old.job_id).exists()


def test_a_new_version_is_not_complete_before_its_job_has_read_what_the_old_one_had(
    streams: Streams,
) -> None:
    streams.deploy()
    streams.engines.ends["payments"] = {0: 10, 1: 5}
    streams.declare(least=100)
    streams.reconcile()
    tell_progress(streams)
    streams.engines.committed[streams.record.flink_group] = {0: 10, 1: 4}
    assert streams.decide() == []
    # Under traffic the topic goes on; what counts is where it ended at the submission.
    streams.engines.ends["payments"] = {0: 1000, 1: 1000}
    streams.engines.committed[streams.record.flink_group] = {0: 10, 1: 5}
    assert [action.kind for action in streams.decide()] == ["promote"]


def test_a_new_version_is_not_complete_without_the_batch_tiles_the_old_one_had(
    streams: Streams,
) -> None:
    streams.files.write(replace(streams.deploy(), cut_over_ms=86_400_000))
    streams.declare(least=100)
    perform(
        streams.engines.settings,
        streams.plan,
        replace(streams.decide()[0], kind="upgrade"),
        ignore,
        engines=streams.engines,
    )
    tell_progress(streams)
    assert streams.decide() == []
    streams.files.write(
        replace(
            streams.record,
            cut_over_ms=None,
            previous=replace(streams.record.previous or streams.record, cut_over_ms=None),
        )
    )
    assert [action.kind for action in streams.decide()] == ["promote"]


def test_losing_flink_in_the_middle_of_a_change_brings_back_both_versions(
    streams: Streams,
) -> None:
    old = streams.deploy()
    streams.flink.complete_checkpoint(old.job_id)
    streams.declare(least=100)
    streams.reconcile()
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore_previous", "restore"]
    serving = streams.record.previous
    assert serving is not None
    assert streams.restores()[-2:] == [
        f"{streams.flink.checkpoints_root}/{old.job_id}/chk-1",
        None,
    ]
    assert "amount" in streams.flink.submissions[-2]["script"]
    assert streams.flink.submissions[-2]["script"] == streams.flink.submissions[0]["script"]
    assert streams.flink.states[serving.job_id] == "RUNNING"


def test_going_back_before_a_change_is_complete_drops_the_unfinished_version(
    streams: Streams,
) -> None:
    old = streams.deploy()
    streams.declare(least=100)
    streams.reconcile()
    unfinished = streams.record
    streams.declare(least=0)
    assert streams.reconcile() == ["upgrade"]
    assert streams.record.job_id == old.job_id
    assert streams.record.previous is None
    assert streams.flink.states[old.job_id] == "RUNNING"
    assert streams.flink.states[unfinished.job_id] == "CANCELED"
    assert [(v.version, v.state) for v in streams.published.versions] == [
        ("v2", "retired"),
        ("v1", "live"),
    ]


def test_changing_again_before_a_change_is_complete_keeps_what_serves(streams: Streams) -> None:
    old = streams.deploy()
    for least in (100, 200):
        streams.declare(least=least)
        assert streams.reconcile() == ["upgrade"]
    assert streams.record.version == "v3"
    assert streams.record.previous is not None
    assert streams.record.previous.job_id == old.job_id
    assert streams.published.serving == "v1"
    assert streams.flink.states[old.job_id] == "RUNNING"


def test_coming_back_to_a_meaning_that_was_retired_is_a_job_of_its_own(
    streams: Streams,
) -> None:
    old = streams.deploy()
    streams.flink.complete_checkpoint(old.job_id)
    streams.declare(least=100)
    streams.reconcile()
    tell_progress(streams)
    streams.reconcile()
    streams.declare(least=0)
    assert streams.reconcile() == ["upgrade"]
    assert streams.record.version == "v1"
    assert streams.record.job_id != old.job_id
    assert streams.record.retired == ()
    assert streams.restores()[-1] is None


def test_a_view_that_is_declared_no_more_is_stopped_and_published_no_more(
    streams: Streams,
) -> None:
    record = streams.deploy()
    streams.declare(view="other")
    assert streams.decide(has_faults=True) == []
    assert streams.reconcile() == ["withdraw"]
    assert streams.flink.states[record.job_id] == "FINISHED"
    assert b"view:spend" not in streams.engines.memory.hashes[PLANS_KEY]
    assert streams.decide() == []


def test_a_view_of_a_folder_this_process_does_not_read_is_left_alone(streams: Streams) -> None:
    record = streams.deploy()
    streams.files.write(replace(record, folders=("/elsewhere",)))
    streams.declare(view="other")
    assert streams.decide() == []


def test_the_job_of_a_closed_source_is_stopped_with_a_savepoint_and_goes_on_when_it_is_reopened(
    streams: Streams,
) -> None:
    record = streams.deploy()
    tell_progress(streams)
    assert streams.decide() == []
    file = streams.views / "views.yaml"
    closed = file.read_text().replace(
        "event_id: payment_id", "event_id: payment_id\n    end: 2020-03-01"
    )
    file.write_text(closed)
    streams.plan = plan_of([file])
    assert streams.plan.view("spend").fingerprint == record.fingerprint
    assert streams.reconcile() == ["finish"]
    assert streams.flink.states[record.job_id] == "FINISHED"
    assert streams.record.savepoint is not None
    view = streams.plan.view("spend")
    shown = view_health(streams.engines, streams.record, view)
    assert shown.state == "stopped"
    assert "closed: it ends on 2020-03-01" in shown.detail
    assert streams.published.serving == "v1"
    assert streams.decide() == []
    streams.declare()
    resumed = streams.deploy()
    assert resumed.restored_from == streams.record.savepoint.path
    assert streams.decide() == []


def test_a_store_that_lost_everything_is_told_again(streams: Streams) -> None:
    streams.deploy()
    before = streams.published
    streams.engines.memory.clear()
    streams.wait(5)
    assert streams.reconcile() == ["publish"]
    assert streams.published.versions[0].plan == before.versions[0].plan
    assert b"services" in streams.engines.memory.hashes[PLANS_KEY]


def test_an_upload_is_noted_at_the_version_it_was_of(streams: Streams) -> None:
    old = streams.deploy()
    streams.declare(least=100)
    streams.reconcile()
    new = streams.record
    streams.files.note_upload("spend", old.fingerprint, 86_400_000, None)
    streams.files.note_upload("spend", new.fingerprint, 172_800_000, 86_400_000)
    streams.files.note_upload("never deployed", old.fingerprint, 86_400_000, None)
    assert streams.record.cut_over_ms == 172_800_000
    assert streams.record.sealed_before_ms == 86_400_000
    assert streams.record.previous is not None
    assert streams.record.previous.cut_over_ms == 86_400_000
    # The store has no such publication, so the tiles count as lost.
    assert [action.kind for action in streams.decide()] == ["upload"]


def test_a_build_that_publishes_a_meaning_otherwise_is_heard_without_a_new_job(
    streams: Streams,
) -> None:
    first = streams.deploy()
    streams.files.write(replace(first, serving={**first.serving, "document": "older"}))
    with streams.engines.store() as store:
        publishing.publish(store, streams.record, START_MS)
    assert streams.published.versions[0].plan["document"] == "older"
    assert streams.deploy() == first
    assert streams.published.versions[0].plan == first.serving
    assert len(streams.flink.submissions) == 1


def test_a_job_of_an_older_build_goes_on_and_once_it_is_gone_begins_anew_as_this_one_compiles_it(
    streams: Streams,
) -> None:
    first = streams.deploy()
    older = replace(first.definition, script="INSERT of an older build")
    streams.flink.complete_checkpoint(first.job_id)
    streams.files.write(replace(first, definition=older))
    assert streams.decide() == []
    streams.flink.forget()
    streams.wait(15)
    assert streams.reconcile() == ["restore"]
    assert streams.record.definition == first.definition
    assert streams.restores() == [None, None]


def test_a_build_that_compiles_another_job_begins_anew_when_it_is_deployed(
    streams: Streams,
) -> None:
    first = streams.deploy()
    streams.flink.complete_checkpoint(first.job_id)
    older = replace(first.definition, script="INSERT of an older build")
    streams.files.write(replace(first, definition=older))
    assert streams.decide() == []
    second = streams.deploy()
    assert streams.flink.states[first.job_id] == "CANCELED"
    assert second.restored_from is None
    assert second.definition == first.definition
    assert second.version == "v1"
