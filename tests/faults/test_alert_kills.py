"""The sink, the watcher and the deliverer are killed at random while checks fail and heal."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from alerts.configuration import VERSION
from alerts.outbox import Outbox
from alerts.state import AlertStore
from resources.settings import CHECKOUT, settings_from_env
from tests.support.alert_processes import START, now_ms
from tests.support.ports import free_port

pytestmark = pytest.mark.services

ROUNDS = 8
DEADLINE_S = 90.0
PARTITIONS = [f"2020-{month:02d}-01" for month in range(1, 13)]
"""So far apart that none is the cause of another, and each is told by itself."""
EVENTS = dg.AssetKey(["events", "payments_events"])


class Process:
    """One process that is killed and started again."""

    def __init__(self, env: dict[str, str], *arguments: str) -> None:
        self._env = env
        self._command = [sys.executable, "-m", "tests.support.alert_processes", *arguments]
        self.kills = 0
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, env=self._env, cwd=CHECKOUT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.kills += 1

    def check(self) -> None:
        assert self._process.poll() is None, f"{self._command[3]} ended by itself"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv(START, str(time.time()))
    home = tmp_path / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    (tmp_path / "alerts.yaml").write_text(
        f"version: {VERSION}\n"
        "sinks: {hook: {type: webhook, url: '${HOOK_URL}'}}\n"
        "digest: {above: 3, size: 4, window: 1m}\n"
        "renotify: 365d\n",
        encoding="utf-8",
    )
    return {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "MILLRACE_HOME": str(tmp_path / "home"),
        "MILLRACE_ALERTS": str(tmp_path / "alerts.yaml"),
        "MILLRACE_VIEWS": "",
        "HOOK_URL": f"http://127.0.0.1:{free_port()}/hook",
        "no_proxy": "127.0.0.1",
    }


@dg.op
def judge(context: dg.OpExecutionContext) -> None:
    """Log what the run's tags say of each partition."""
    for partition, passed in json.loads(context.run.tags["results"]).items():
        evaluation: Any = dg.AssetCheckEvaluation(
            EVENTS, "null_rate", passed=passed, metadata={}, partition=partition
        )
        context.log_event(evaluation)


@dg.job(executor_def=dg.in_process_executor, logger_defs={})
def judging() -> None:
    """One run of checks."""
    judge()


class World:
    """Runs that judge partitions at random, and what follows from them by counting."""

    def __init__(self, instance: dg.DagsterInstance, seed: int) -> None:
        self._instance, self._random = instance, random.Random(seed)
        self._is_bad: dict[str, bool] = {}
        self.truth: dict[str, list[str]] = {partition: [] for partition in PARTITIONS}

    def run(self) -> None:
        """Judge some partitions; each changes more often than not."""
        some = self._random.sample(PARTITIONS, self._random.randint(1, len(PARTITIONS)))
        results = {partition: self._random.random() < 0.5 for partition in some}
        self._judge(results)

    def heal(self) -> None:
        """Find every partition well."""
        self._judge(dict.fromkeys(PARTITIONS, True))

    def _judge(self, results: dict[str, bool]) -> None:
        tags = {"results": json.dumps(results)}
        assert judging.execute_in_process(instance=self._instance, tags=tags).success
        for partition, passed in results.items():
            if passed == self._is_bad.get(partition, False):
                self._is_bad[partition] = not passed
                self.truth[partition].append("resolved" if passed else "opened")


def taken(file: Path) -> list[tuple[str, str, str]]:
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines()
    # A killed sink may leave the beginning of a line; the message comes again.
    return [tuple(json.loads(line)) for line in lines if line.endswith("]")]


def wait_until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.2)


@pytest.fixture
def processes(env: dict[str, str], tmp_path: Path) -> Iterator[list[Process]]:
    port = env["HOOK_URL"].rpartition(":")[2].split("/")[0]
    found = [
        Process(env, "sink", port, str(tmp_path / "taken.jsonl")),
        Process(env, "deliver"),
        Process(env, "watch"),
    ]
    try:
        yield found
    finally:
        for one in found:
            one.kill()


def test_deliveries_equal_the_truth_whoever_is_killed(
    env: dict[str, str], tmp_path: Path, processes: list[Process]
) -> None:
    chance = random.Random(5)
    file, settings = tmp_path / "taken.jsonl", settings_from_env(env)
    watcher = processes[2]
    with (
        dg.DagsterInstance.from_config(env["DAGSTER_HOME"]) as instance,
        AlertStore.open(settings) as store,
    ):
        wait_until(lambda: store.watch() is not None, "the first look")
        world, outbox = World(instance, seed=11), Outbox(store.engine)
        for number in range(ROUNDS):
            world.run()
            # The watcher takes seconds to start, so it is killed more seldom.
            victim = watcher if number % 4 == 2 else chance.choice(processes[:2])
            victim.kill()
            world.run()
            victim.start()
        world.heal()

        def is_told() -> bool:
            for one in processes:
                one.check()
            return (
                sum(len(changes) for changes in world.truth.values())
                == len({key for key, _, _ in taken(file)})
                and not outbox.statuses(["hook"], now_ms())["hook"].pending
            )

        wait_until(is_told, "everything told")
        assert store.open_conditions() == []
    once = list(dict.fromkeys(taken(file)))
    assert all(one.kills >= 2 for one in processes)
    for partition, changes in world.truth.items():
        about = f"check|events/payments_events|null_rate|{partition}|error"
        assert [status for _, name, status in once if name == about] == changes
        assert all(one != other for one, other in pairwise(changes))
