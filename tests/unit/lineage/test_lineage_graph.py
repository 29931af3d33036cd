"""The graph out of the events alone, over real HTTP, is the declared one; also when all goes wrong.

The receiver knows nothing of the platform: it keeps what it is sent and reads edges off it.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.instance.lineage import tick
from lineage.outbox import Outbox
from lineage.outbox import Receiver as Position
from lineage.shipping import ship, standing
from millrace.compile.lineage import lineage
from tests.support.lineage_cases import DAYS, LineageStack, Receiver, by_run, enclosing

WORKER = """
import sys
from datetime import UTC, datetime
from lineage.emitter import Emitter
from lineage.runs import Work
from lineage.shipping import ship_soon
from resources.settings import settings_from_env

settings = settings_from_env({"MILLRACE_HOME": sys.argv[1], "MILLRACE_LINEAGE": sys.argv[2]})
emitter = Emitter(settings)
for number, _ in enumerate(sys.stdin):
    work = Work.of(f"work/{sys.argv[3]}-{number}", datetime.now(tz=UTC))
    emitter.start(work)
    print(work.run_id, flush=True)
    emitter.end(work, "COMPLETE")
    ship_soon(settings)
"""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def physical(stack: LineageStack, declared: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the name that each declared dataset must have, written out for this stack."""
    [files, topic] = [d["name"] for d in declared["datasets"] if not d["inputs"]]
    return {
        files: ("file", "/nowhere"),
        topic: ("kafka://broker:9092", "payments"),
        "events/payments": ("file", f"{stack.settings.lake}/events/payments"),
        "dead_letters/payments": ("file", f"{stack.settings.lake}/dead_letters/payments"),
        "tiles/spend": ("file", f"{stack.settings.lake}/tiles/spend/v1"),
        "features/spend": ("file", f"{stack.settings.lake}/features/spend/v1"),
        "online/spend": ("redis://store:6379", "millrace:spend"),
    }


def test_the_graph_of_the_events_is_the_declared_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    receiver = Receiver()
    with receiver.running():
        stack = LineageStack(tmp_path, monkeypatch, instance, to=receiver.url)
        stack.archive()
        assert stack.build().success
        stack.deploy()
    # The receiver is killed here, misses everything, and comes back.
    stack.upload()
    stack.observe()
    tick(stack.settings, instance)
    stack.stop()
    with receiver.running():
        stack.train()
        stack.check(part_of=enclosing())
        ship(stack.settings, is_forced=True)
    declared = lineage(stack.view)
    names = physical(stack, declared)
    wanted = {
        (names[read], names[dataset["name"]])
        for dataset in declared["datasets"]
        for read in dataset["inputs"]
    }
    set_of = ("file", str(tmp_path / "set.parquet"))
    beyond = {
        (names["events/payments"], set_of),
        (("file", str(tmp_path / "spine.csv")), set_of),
        # What a job leaves beside its table: the tiles on their way.
        *((names["payments"], written) for _, _, written in receiver.edges
          if written[1].startswith("millrace.tiles.")),
    }  # fmt: skip
    assert {(read, written) for read, _, written in receiver.edges} == wanted | beyond
    jobs = {job for _, job, _ in receiver.edges}
    assert jobs == {
        "archive/payments",
        "events/payments",
        "tiles/spend",
        "features/spend",
        "stream/spend",
        "upload/spend",
        "training_set/set",
    }
    told = receiver.facet(names["features/spend"], "columnLineage")["fields"]
    assert sources(told) == {
        column: {(*names[f["name"]], f["field"]) for f in found["inputFields"]}
        for column, found in declared["column_lineage"]["fields"].items()
    }
    told = receiver.facet(names["tiles/spend"], "columnLineage")["fields"]
    tiles = declared["column_lineage_of"]["tiles/spend"]["fields"]
    assert sources(told) == {
        column: {(*names[f["name"]], f["field"]) for f in found["inputFields"]}
        for column, found in tiles.items()
    }
    assert receiver.events == everything(stack), "nothing lost, nothing twice, in order"


def sources(fields: Any) -> dict[str, set[tuple[str, str, str]]]:
    return {
        column: {(f["namespace"], f["name"], f["field"]) for f in found["inputFields"]}
        for column, found in fields.items()
    }


def everything(stack: LineageStack) -> list[Any]:
    """Return every event that was ever written, as the outbox still has it."""
    import json

    outbox = Outbox.of(stack.settings)
    return [json.loads(w.body) for w in outbox.waiting(Position("anyone"), 10_000)]


def test_kills_of_consumer_and_emitters_lose_no_event_and_leave_no_run_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    receiver, chance, begun = Receiver(), random.Random(5), set[str]()
    with receiver.running():
        pass
    stack = LineageStack(tmp_path, monkeypatch, instance, to=receiver.url)
    for round_ in range(3):
        workers = [worker(stack, f"{round_}-{name}") for name in "ab"]
        for one in workers:
            begun.add(step(one))
        for _ in range(chance.randint(1, 3)):
            with receiver.running():
                for one in workers:
                    begun.update(step(one) for _ in range(chance.randint(1, 4)))
                ship(stack.settings, budget_s=0.2)
        for one in workers:
            # Killed somewhere within these.
            ask(one, times=5)
            begun.add(told(one))
            os.kill(one.pid, signal.SIGKILL)
            begun.update(one.communicate()[0].split())
    with receiver.running():
        tick(stack.settings, instance)
        deadline = time.monotonic() + 60
        while standing(stack.settings)[0].waiting:
            assert time.monotonic() < deadline
            ship(stack.settings, is_forced=True)
    runs = by_run(receiver.events)
    assert begun <= {run for _, run in runs}
    unique = {(e["run"]["runId"], e["eventType"]): e for e in receiver.events}
    assert list(unique.values()) == everything(stack), "each event came, and in order"
    for (job, _), states in runs.items():
        assert dict.fromkeys(states) in (
            {"START": None, "COMPLETE": None},
            {"START": None, "ABORT": None},
        ), job
    # A worker that ships when it is killed may have sent what it could not mark any more.
    twice = len(receiver.events) - len(unique)
    assert twice <= 3 * 2
    assert len(set(receiver.keys)) == len(unique), "and what comes twice can be told"
    assert Outbox.of(stack.settings).open_runs() == []


def worker(stack: LineageStack, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(stack.settings.home), stack.to or "", name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ask(one: subprocess.Popen[str], times: int = 1) -> None:
    """Let a worker do some pieces of work."""
    assert one.stdin is not None
    one.stdin.write("go\n" * times)
    one.stdin.flush()


def told(one: subprocess.Popen[str]) -> str:
    """Return the run id of the next work that a worker has begun."""
    assert one.stdout is not None
    return one.stdout.readline().strip()


def step(one: subprocess.Popen[str]) -> str:
    ask(one)
    return told(one)


def test_a_days_name_is_not_part_of_a_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    stack = LineageStack(tmp_path, monkeypatch, instance)
    stack.archive()
    stack.upload()
    names = {
        dataset["name"]
        for event in stack.events()
        for dataset in (*event["inputs"], *event["outputs"])
    }
    assert not any(day.isoformat() in name for day in DAYS for name in names)
