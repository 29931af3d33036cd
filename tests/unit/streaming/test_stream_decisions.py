"""What the reconciler decides, by table; arithmetic on a few round instants."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from streaming.control.reconcile import (
    RETIRE_AFTER_MS,
    Action,
    Closing,
    Declared,
    JobFacts,
    PublishedFacts,
    StreamFacts,
    decide,
)
from streaming.publications.records import (
    FAILURE_WINDOW_MS,
    JobDefinition,
    Retired,
    StreamRecord,
    backoff_ms,
)

NOW_MS = 1_000_000_000
OLD, NEW = "a" * 16, "b" * 16

RECORD = StreamRecord(
    view="spend",
    desired="running",
    version="v1",
    fingerprint=OLD,
    definition=JobDefinition("INSERT …", {}, "jar"),
    serving={"join_keys": [{"entity": "customer"}]},
    source_topic="payments",
    tile_topic=f"millrace.tiles.spend.{OLD}",
    flink_group=f"millrace-spend-{OLD}",
    folders=("/views",),
    generation=3,
    job_id="3" * 32,
    submitted_at_ms=NOW_MS - 60_000,
)
UPGRADING = replace(
    RECORD, version="v2", fingerprint=NEW, generation=4, job_id="4" * 32, previous=RECORD
)
STOPPED = replace(RECORD, desired="stopped")
RUNS = JobFacts("RUNNING", is_running=True)
PUBLISHED = PublishedFacts(frozenset({OLD, NEW}), {OLD: None, NEW: None}, "v1")
FINE = StreamFacts(job=RUNS, published=PUBLISHED)
GONE = Declared(None)


def decided(record: StreamRecord, facts: StreamFacts, declared: Declared) -> list[Action]:
    return decide({"spend": record}, {"spend": declared}, {"spend": facts}, NOW_MS)


def kinds(record: StreamRecord, facts: StreamFacts, declared: Declared) -> str:
    return " ".join(action.kind for action in decided(record, facts, declared))


def seen(**changes: Any) -> StreamFacts:
    return replace(FINE, **changes)


def failing(*ago_s: int) -> StreamRecord:
    return replace(RECORD, failures=tuple(NOW_MS - 1000 * s for s in ago_s))


@pytest.mark.parametrize(
    ("record", "facts", "expected"),
    [
        pytest.param(RECORD, FINE, "", id="all is well"),
        pytest.param(RECORD, seen(job=JobFacts()), "restore", id="vanished from Flink"),
        pytest.param(RECORD, seen(job=JobFacts("FAILED")), "restore", id="failed"),
        pytest.param(RECORD, seen(job=JobFacts("CANCELED")), "restore", id="cancelled in the UI"),
        pytest.param(RECORD, seen(job=JobFacts("FINISHED")), "restore", id="finished"),
        pytest.param(RECORD, seen(job=JobFacts("RESTARTING")), "", id="Flink restarts it itself"),
        pytest.param(RECORD, seen(job=JobFacts("RUNNING")), "", id="tasks are not up yet"),
        pytest.param(RECORD, seen(job=JobFacts("INITIALIZING")), "", id="just submitted"),
        pytest.param(RECORD, seen(published=None), "publish", id="publication lost"),
        pytest.param(
            RECORD,
            seen(published=replace(PUBLISHED, serving="v0")),
            "publish",
            id="the store names a version that serves no more",
        ),
        pytest.param(
            RECORD,
            seen(published=PublishedFacts(frozenset({NEW}), {}, "v1")),
            "publish",
            id="another version published",
        ),
        pytest.param(
            RECORD, seen(published=None, is_store_known=False), "", id="the store is away"
        ),
        pytest.param(
            replace(RECORD, cut_over_ms=5), FINE, "upload", id="the store lost the batch tiles"
        ),
        pytest.param(
            replace(RECORD, cut_over_ms=5),
            seen(published=PublishedFacts(frozenset({OLD}), {OLD: 5}, "v1")),
            "",
            id="batch tiles are there",
        ),
        pytest.param(RECORD, seen(twins=("2" * 32,)), "cancel_twins", id="a twin runs"),
        pytest.param(STOPPED, seen(job=JobFacts("FINISHED")), "", id="stopped by hand"),
        pytest.param(STOPPED, seen(job=JobFacts()), "", id="stopped, and forgotten by Flink"),
        pytest.param(STOPPED, FINE, "stop", id="was to be stopped and runs"),
        pytest.param(
            STOPPED, seen(job=JobFacts(), published=None), "publish", id="stopped ones are served"
        ),
        pytest.param(RECORD, seen(job=JobFacts(), is_busy=True), "", id="somebody acts on it"),
        pytest.param(
            replace(RECORD, not_before_ms=NOW_MS + 1),
            seen(job=JobFacts("FAILED")),
            "",
            id="still backing off",
        ),
        pytest.param(
            replace(RECORD, not_before_ms=NOW_MS),
            seen(job=JobFacts("FAILED")),
            "restore",
            id="backed off long enough",
        ),
        pytest.param(
            failing(3000, 2000, 1000, 100),
            seen(job=JobFacts("FAILED")),
            "restore",
            id="four failures in an hour",
        ),
        pytest.param(
            failing(3600, 3000, 2000, 1000, 0),
            seen(job=JobFacts("FAILED")),
            "",
            id="five failures in an hour",
        ),
        pytest.param(
            failing(9600, 9000, 8000, 7000, 6001),
            seen(job=JobFacts()),
            "",
            id="an open circuit stays open",
        ),
        pytest.param(
            failing(3601, 3000, 2000, 1000, 0),
            seen(job=JobFacts("FAILED")),
            "restore",
            id="five failures in more than an hour",
        ),
    ],
)
def test_a_stream_as_declared(record: StreamRecord, facts: StreamFacts, expected: str) -> None:
    assert kinds(record, facts, Declared(OLD)) == expected


@pytest.mark.parametrize(
    ("record", "facts", "expected"),
    [
        pytest.param(RECORD, FINE, "upgrade", id="while it runs"),
        pytest.param(RECORD, seen(job=JobFacts("FAILED")), "restore", id="the old one comes first"),
        pytest.param(
            failing(5, 4, 3, 2, 1),
            seen(job=JobFacts("FAILED")),
            "upgrade",
            id="the old one is given up",
        ),
        pytest.param(STOPPED, seen(job=JobFacts()), "", id="not of a stopped stream"),
        pytest.param(RECORD, seen(published=None), "upgrade", id="without a publication"),
    ],
)
def test_a_changed_declaration(record: StreamRecord, facts: StreamFacts, expected: str) -> None:
    assert kinds(record, facts, Declared(NEW)) == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(seen(previous=RUNS), "", id="not complete yet"),
        pytest.param(seen(is_complete=True, previous=RUNS), "promote", id="complete"),
        pytest.param(seen(previous=JobFacts()), "restore_previous", id="the old one vanished"),
        pytest.param(
            seen(job=JobFacts(), previous=JobFacts()), "restore_previous", id="both vanished"
        ),
        pytest.param(
            seen(job=JobFacts("FAILED"), previous=RUNS), "restore", id="the new one failed"
        ),
        pytest.param(
            seen(is_complete=True, published=None, previous=RUNS),
            "publish",
            id="published before it is promoted",
        ),
    ],
)
def test_a_new_version_beside_the_old(facts: StreamFacts, expected: str) -> None:
    assert kinds(UPGRADING, facts, Declared(NEW)) == expected


def test_a_stopped_older_version_is_left_stopped() -> None:
    record = replace(UPGRADING, previous=STOPPED)
    assert kinds(record, seen(previous=JobFacts()), Declared(NEW)) == ""


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(FINE, "withdraw", id="runs"),
        pytest.param(seen(job=JobFacts(), previous=JobFacts()), "withdraw", id="is published"),
        pytest.param(
            seen(job=JobFacts(), previous=JobFacts(), published=None), "", id="all is gone"
        ),
        pytest.param(
            seen(job=JobFacts(), previous=JobFacts(), is_store_known=False),
            "",
            id="the store is away",
        ),
    ],
)
def test_a_view_that_is_declared_no_more(facts: StreamFacts, expected: str) -> None:
    assert kinds(RECORD, facts, GONE) == expected
    assert [a.kind for a in decide({"spend": RECORD}, {}, {"spend": facts}, NOW_MS)] == (
        expected.split()
    )


@pytest.mark.parametrize("fingerprint", [None, NEW])
def test_nothing_is_stopped_or_changed_when_the_declarations_cannot_tell(
    fingerprint: str | None,
) -> None:
    unknown = Declared(fingerprint, is_known=False)
    assert kinds(RECORD, FINE, unknown) == ""
    assert kinds(RECORD, seen(job=JobFacts()), unknown) == "restore"


def test_a_retired_version_is_dropped_when_nobody_can_read_it_any_more() -> None:
    old = Retired("v0", "c" * 16, "topic", ("0" * 32,), NOW_MS - RETIRE_AFTER_MS + 1)
    assert kinds(replace(RECORD, retired=(old,)), FINE, Declared(OLD)) == ""
    due = replace(old, retired_at_ms=NOW_MS - RETIRE_AFTER_MS)
    [action] = decided(replace(RECORD, retired=(due,)), FINE, Declared(OLD))
    assert action.kind == "retire"
    assert "v0" in action.reason


END_MS, OVER_MS = NOW_MS - 10_000, NOW_MS - 5_000
CLOSED = Declared(OLD, closing=Closing(END_MS, OVER_MS))


@pytest.mark.parametrize(
    ("record", "progress_ms", "expected"),
    [
        pytest.param(RECORD, OVER_MS, "finish", id="read past the end"),
        pytest.param(RECORD, OVER_MS - 1, "", id="late events can still come"),
        pytest.param(RECORD, None, "", id="the writer says nothing"),
        pytest.param(
            replace(RECORD, cut_over_ms=END_MS - 1), OVER_MS, "", id="days are not uploaded yet"
        ),
        pytest.param(
            replace(RECORD, cut_over_ms=END_MS), OVER_MS, "finish", id="all days are uploaded"
        ),
        pytest.param(
            replace(UPGRADING, fingerprint=OLD), OVER_MS, "", id="another version still serves"
        ),
        pytest.param(STOPPED, OVER_MS, "stop", id="stopped already"),
    ],
)
def test_a_job_of_a_closed_source_is_stopped_once_nothing_can_come_that_it_would_count(
    record: StreamRecord, progress_ms: int | None, expected: str
) -> None:
    published = replace(PUBLISHED, cut_over_ms={OLD: record.cut_over_ms})
    facts = seen(progress_ms=progress_ms, published=published, previous=RUNS)
    assert kinds(record, facts, CLOSED) == expected


def test_a_view_nothing_is_known_of_is_passed_over() -> None:
    assert decide({"spend": RECORD}, {"spend": Declared(OLD)}, {}, NOW_MS) == []


def test_an_action_says_why_and_is_known_by_what_it_was_decided_on() -> None:
    [action] = decided(RECORD, seen(job=JobFacts("FAILED")), Declared(OLD))
    assert action.key == f"restore|spend|{OLD}|3"
    assert action.reason == f"v1's job {'3' * 32} is FAILED"
    assert Action(**action.to_json()) == action


def test_a_record_survives_its_file() -> None:
    record = replace(
        UPGRADING,
        restores=("1" * 32,),
        catch_up={"0": 7},
        retired=(Retired("v0", "c" * 16, "topic", ("0" * 32,), 1),),
        failures=(1, 2),
    )
    assert StreamRecord.from_json(asdict(record)) == record


def test_failures_older_than_an_hour_are_forgotten() -> None:
    record = replace(RECORD, failures=(NOW_MS - FAILURE_WINDOW_MS - 1, NOW_MS - 1))
    assert record.failures_with(NOW_MS) == (NOW_MS - 1, NOW_MS)


def test_pauses_double_up_to_a_quarter_of_an_hour() -> None:
    assert [backoff_ms(n) // 1000 for n in (0, 1, 2, 5, 50)] == [15, 15, 30, 240, 900]
