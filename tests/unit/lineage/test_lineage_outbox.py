"""The outbox: one START and one end per run, one order for all processes, nothing lost to a kill."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from lineage.outbox import KEPT_EVENTS_MS, KEPT_RUNS_MS, Outbox, Receiver

NOW_MS = 1_800_000_000_000
WRITER = """
import sys
from pathlib import Path
from lineage.outbox import Outbox

outbox, name = Outbox(Path(sys.argv[1])), sys.argv[2]
for number in range(int(sys.argv[3])):
    run = f"{name}-{number}"
    outbox.start(run, "process:x", {"run": run, "state": "START"})
    print(run, flush=True)
    outbox.end(run, "COMPLETE", {"run": run, "state": "COMPLETE"})
"""


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "lineage" / "outbox.db")


def bodies(outbox: Outbox) -> list[Any]:
    return [json.loads(w.body) for w in outbox.waiting(Receiver("all"), 10_000)]


def writer(outbox: Outbox, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(outbox.path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_looking_at_an_outbox_makes_none(outbox: Outbox) -> None:
    assert outbox.open_runs() == []
    assert outbox.receivers(["file:/x"]) == {"file:/x": Receiver("file:/x")}
    assert outbox.count_waiting(Receiver("file:/x")) == outbox.count_parked("file:/x") == 0
    assert not outbox.path.parent.exists()


def test_an_outbox_of_an_earlier_build_counts_what_was_sent_before(outbox: Outbox) -> None:
    outbox.path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(outbox.path)) as db:
        db.executescript(
            "CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL,"
            " at_ms INTEGER NOT NULL, body TEXT NOT NULL);"
            "CREATE TABLE run (run_id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL,"
            " at_ms INTEGER NOT NULL, start TEXT);"
            "CREATE TABLE receiver (name TEXT PRIMARY KEY, seq INTEGER NOT NULL,"
            " failures INTEGER NOT NULL DEFAULT 0, not_before_ms INTEGER NOT NULL DEFAULT 0,"
            " away_since_ms INTEGER, error TEXT NOT NULL DEFAULT '');"
            "CREATE TABLE parked (name TEXT NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL,"
            " reason TEXT NOT NULL, PRIMARY KEY (name, seq));"
            "INSERT INTO receiver VALUES ('a', 7, 2, 5, 3, 'away');"
            "INSERT INTO parked VALUES ('a', 4, 1, 'no');"
            "PRAGMA user_version = 1;"
        )
    wanted = Receiver("a", 7, 2, 5, 3, "away", sent=6)
    assert outbox.receivers(["a"]) == {"a": wanted}
    taken = wanted.after(8, now_ms=9)
    outbox.note(taken)
    assert outbox.receivers(["a"]) == {"a": Receiver("a", 8, sent=7, sent_ms=9)}


def test_a_run_begins_once_and_ends_once(outbox: Outbox) -> None:
    assert outbox.start("r", "o", {"n": 1})
    assert not outbox.start("r", "o", {"n": 2})
    assert outbox.add("r", {"n": 3})
    assert outbox.end("r", "ABORT", {"n": 4})
    assert not outbox.end("r", "COMPLETE", {"n": 5})
    assert not outbox.add("r", {"n": 6})
    assert not outbox.start("r", "o", {"n": 7})
    assert [body["n"] for body in bodies(outbox)] == [1, 3, 4]


def test_a_run_that_never_began_cannot_end(outbox: Outbox) -> None:
    assert not outbox.end("r", "COMPLETE", {})
    assert not outbox.add("r", {})
    assert bodies(outbox) == []


def test_an_open_run_remembers_its_start_and_its_owner(outbox: Outbox) -> None:
    outbox.start("a", "dagster:1", {"n": 1})
    outbox.start("b", "stream:s", {"n": 2})
    outbox.end("a", "FAIL", {})
    [run] = outbox.open_runs()
    assert (run.run_id, run.owner, run.start) == ("b", "stream:s", {"n": 2})


def test_many_processes_write_at_once_and_each_run_keeps_its_order(outbox: Outbox) -> None:
    writers = [writer(outbox, name, 15) for name in "abc"]
    for one in writers:
        one.communicate(timeout=60)
        assert one.returncode == 0
    told = bodies(outbox)
    assert len(told) == 3 * 15 * 2
    for run in {body["run"] for body in told}:
        assert [b["state"] for b in told if b["run"] == run] == ["START", "COMPLETE"]
    assert outbox.open_runs() == []


def test_a_writer_that_is_killed_leaves_whole_events_and_an_open_outbox(outbox: Outbox) -> None:
    one = writer(outbox, "k", 100_000)
    assert one.stdout is not None
    started = [one.stdout.readline().strip() for _ in range(5)]
    os.kill(one.pid, signal.SIGKILL)
    started += one.communicate(timeout=60)[0].split()
    told = bodies(outbox)
    # What was said to have begun has begun; at most the last had no time to say so.
    begun = [body["run"] for body in told if body["state"] == "START"]
    assert begun[: len(started)] == started
    assert len(begun) <= len(started) + 1
    assert len(outbox.open_runs()) <= 1
    assert outbox.start("after", "o", {})


def test_events_that_all_receivers_have_are_forgotten_after_a_week(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineage.outbox._now_ms", lambda: NOW_MS)
    for run in "abc":
        outbox.start(run, "o", {"run": run})
    outbox.note(Receiver("one", seq=3))
    outbox.prune(["one", "two"], NOW_MS + 2 * KEPT_EVENTS_MS)
    assert len(bodies(outbox)) == 3, "two was never told"
    outbox.note(Receiver("two", seq=2))
    outbox.prune(["one", "two"], NOW_MS + KEPT_EVENTS_MS)
    assert len(bodies(outbox)) == 3, "not old enough"
    outbox.prune(["one", "two"], NOW_MS + KEPT_EVENTS_MS + 1)
    assert [body["run"] for body in bodies(outbox)] == ["c"]
    assert len(outbox.open_runs()) == 3, "an open run is never forgotten"


def test_a_run_that_has_ended_is_forgotten_after_a_month(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lineage.outbox._now_ms", lambda: NOW_MS)
    outbox.start("a", "o", {})
    outbox.end("a", "COMPLETE", {})
    outbox.prune(["one"], NOW_MS + KEPT_RUNS_MS)
    assert not outbox.start("a", "o", {})
    outbox.prune(["one"], NOW_MS + KEPT_RUNS_MS + 1)
    assert outbox.start("a", "o", {})


def test_a_receiver_can_be_told_again(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        monkeypatch.setattr("lineage.outbox._now_ms", lambda n=number: NOW_MS + n)
        outbox.add_static({"n": number})
    outbox.note(Receiver("one", seq=3))
    assert outbox.rewind("one", NOW_MS + 1) == 2
    at = outbox.receivers(["one"])["one"]
    assert [json.loads(w.body)["n"] for w in outbox.waiting(at, 10)] == [1, 2]
    assert outbox.rewind("one", NOW_MS + 9) == 0
