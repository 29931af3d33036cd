"""Kafka, Flink and the store under the real supervisor: killed, restarted, refused, replaced."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.endpoints import flink_url, kafka_bootstrap, store_url
from resources.flink.rest import FlinkCluster, Slots
from resources.flink.slots import ask_for_slots
from resources.kafka import client as kafka
from resources.kafka.client import Topic
from resources.settings import CHECKOUT, Settings, settings_from_env
from resources.store.client import open_store

pytestmark = pytest.mark.services

_PARTS = ("kafka", "flink", "store")


class Stack:
    """One stack, driven by the command."""

    def __init__(self, home: Path) -> None:
        own = ("MILLRACE_KAFKA", "MILLRACE_FLINK_URL", "MILLRACE_STORE_URL")
        inherited = {name: value for name, value in os.environ.items() if name not in own}
        self.env = inherited | {"MILLRACE_HOME": str(home)}

    @property
    def settings(self) -> Settings:
        return settings_from_env(self.env)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**self.env, **env},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def status(self) -> dict[str, Any]:
        parts: dict[str, Any] = json.loads(self.run("status", "--json").stdout)["parts"]
        return parts

    def record(self, part: str) -> dict[str, Any]:
        document = json.loads((self.settings.home / "state.json").read_text())
        record: dict[str, Any] = document["parts"][part]
        return record

    def kill(self, part: str, program: str) -> None:
        """Kill a program and wait until its successor runs and the part is ready."""
        before = self.record(part)
        pid = before["programs"][program]["pid"]
        os.kill(pid, signal.SIGKILL)
        _until(lambda: self.record(part)["restarts"] > before["restarts"])
        _until(lambda: self.record(part)["state"] == "running")
        assert self.record(part)["programs"][program]["pid"] != pid


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack") / "home")
    try:
        started = one.run("up", *_PARTS)
        assert started.returncode == 0, started.stderr
        yield one
    finally:
        stopped = one.run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert {part["state"] for part in one.status().values()} == {"stopped"}


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_status_shows_each_part_as_the_contract_says(stack: Stack) -> None:
    parts = stack.status()
    assert set(parts) == {
        *("kafka", "flink", "store", "writer", "archive", "spark", "server", "dagster")
    }
    assert {name for name, part in parts.items() if part["state"] == "running"} == set(_PARTS)
    assert parts["kafka"]["url"] == kafka_bootstrap(stack.settings)
    assert set(parts["flink"]["pids"]) == {"jobmanager", "taskmanager"}
    assert parts["flink"]["url"] == flink_url(stack.settings)
    assert parts["store"]["url"] == store_url(stack.settings)
    assert isinstance(parts["store"]["pid"], int)


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = stack.status()
    again = stack.run("up", *_PARTS)
    assert again.returncode == 0
    assert again.stderr.endswith("nothing to do\n")
    assert stack.status() == before


def test_a_killed_broker_comes_back_with_its_port_and_its_records(stack: Stack) -> None:
    bootstrap = kafka_bootstrap(stack.settings)
    kafka.ensure_topics(bootstrap, [Topic("kept", 1)])
    producer = kafka.producer(bootstrap)
    for number in range(100):
        producer.produce("kept", str(number).encode())
    assert producer.flush(30) == 0
    stack.kill("kafka", "broker")
    assert kafka_bootstrap(stack.settings) == bootstrap
    assert kafka.end_offsets(bootstrap, "kept") == {0: 100}


def test_a_killed_store_comes_back_with_what_was_flushed(stack: Stack) -> None:
    url = store_url(stack.settings)
    with open_store(url) as client:
        client.set("kept", "1")
        assert client.execute_command("WAITAOF", 1, 0, 5000) == [1, 0]
    stack.kill("store", "valkey")
    assert store_url(stack.settings) == url
    with open_store(url) as client:
        assert client.get("kept") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def taskmanagers_and_slots(url: str) -> tuple[int, int]:
    with urllib.request.urlopen(f"{url}/overview", timeout=30) as answer:  # noqa: S310
        overview = json.load(answer)
    return overview["taskmanagers"], overview["slots-total"]


@pytest.mark.parametrize("program", ["taskmanager", "jobmanager"])
def test_flink_comes_back_whole_when_one_of_its_two_is_killed(stack: Stack, program: str) -> None:
    other = {"taskmanager": "jobmanager", "jobmanager": "taskmanager"}[program]
    before = stack.record("flink")["programs"]
    url = flink_url(stack.settings)
    stack.kill("flink", program)
    assert stack.record("flink")["programs"][other] == before[other]
    assert flink_url(stack.settings) == url
    deadline = time.monotonic() + 60
    while (found := taskmanagers_and_slots(url)) != (1, 8):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_logs_of_flink_show_both_programs(stack: Stack) -> None:
    shown = stack.run("logs", "flink", "-n", "3")
    assert shown.returncode == 0
    assert "jobmanager: " in shown.stderr
    assert "taskmanager: " in shown.stderr
    assert "Registering TaskManager" in stack.run("logs", "flink", "-n", "200").stdout


def test_doctor_knows_every_part_and_what_it_is_made_of(stack: Stack) -> None:
    looked = json.loads(stack.run("doctor", "--json").stdout)["findings"]
    found = {one["subject"]: one for one in looked}
    assert {found[part]["verdict"] for part in _PARTS} == {"ok"}
    assert {found[name]["verdict"] for name in ("Flink", "jars", "ports", "packages")} == {"ok"}
    assert found["writer"]["fix"] == "millrace up writer"
    assert "checkpoints" in found["disk"]["detail"]


def test_services_of_the_users_own_are_used_instead_and_looked_at(
    stack: Stack, tmp_path: Path
) -> None:
    own = Stack(tmp_path / "home")
    own.env |= {
        "MILLRACE_KAFKA": kafka_bootstrap(stack.settings),
        "MILLRACE_FLINK_URL": flink_url(stack.settings),
        "MILLRACE_STORE_URL": store_url(stack.settings),
    }
    started = own.run("up", *_PARTS)
    assert started.returncode == 0, started.stderr
    assert "flink: your own service is used" in started.stderr
    assert {own.status()[part]["state"] for part in _PARTS} == {"external"}
    assert kafka_bootstrap(own.settings) == kafka_bootstrap(stack.settings)
    looked = json.loads(own.run("doctor", "--json").stdout)["findings"]
    found = {one["subject"]: one for one in looked}
    assert {found[part]["verdict"] for part in _PARTS} == {"ok"}
    assert "Flink 2.2.1, 8 of 8 slots free" in found["flink"]["detail"]
    assert "valkey" in found["store"]["detail"]
    away = {"MILLRACE_FLINK_URL": "http://127.0.0.1:1", "MILLRACE_STORE_URL": "redis://127.0.0.1:1"}
    looked = json.loads(own.run("doctor", "--json", **away).stdout)["findings"]
    found = {one["subject"]: one for one in looked}
    assert {found[part]["verdict"] for part in ("flink", "store")} == {"fail"}
    assert found["store"]["fix"] == "start it, or correct MILLRACE_STORE_URL"


def test_a_ninth_slot_brings_a_second_taskmanager_and_disturbs_nobody(stack: Stack) -> None:
    before, url = stack.record("flink"), flink_url(stack.settings)
    ask_for_slots(stack.settings.home, 9)
    _until(lambda: FlinkCluster(url).slots() == Slots(16, 16))
    _until(lambda: stack.record("flink")["state"] == "running")
    after = stack.record("flink")
    assert flink_url(stack.settings) == url
    assert set(after["programs"]) == {"jobmanager", "taskmanager", "taskmanager-2"}
    assert before["programs"].items() <= after["programs"].items()
    assert after["restarts"] == before["restarts"]


def test_everything_is_kept_over_down_and_up(stack: Stack) -> None:
    bootstrap, url = kafka_bootstrap(stack.settings), store_url(stack.settings)
    with open_store(url) as client:
        client.set("over", "1")
    assert "stopped: kafka, flink, store" in stack.run("down").stderr
    assert stack.run("up", *_PARTS).returncode == 0
    assert (kafka_bootstrap(stack.settings), store_url(stack.settings)) == (bootstrap, url)
    assert kafka.end_offsets(bootstrap, "kept") == {0: 100}
    with open_store(url) as client:
        assert client.get("over") == b"1"


def test_a_taken_port_is_named_and_waited_for_by_hand(stack: Stack) -> None:
    bootstrap = kafka_bootstrap(stack.settings)
    port = int(bootstrap.rpartition(":")[2])
    assert stack.run("down").returncode == 0
    with socket.create_server(("127.0.0.1", port)):
        refused = stack.run("up", "kafka")
        assert refused.returncode == 1
        assert f"port {port}, where clients look for it, is taken by another process" in (
            refused.stderr.replace("\n", " ")
        )
        looked = json.loads(stack.run("doctor", "--json").stdout)["findings"]
        assert str(port) in next(one for one in looked if one["subject"] == "ports")["detail"]
    assert stack.run("up", "kafka").returncode == 0
    assert kafka_bootstrap(stack.settings) == bootstrap


def test_a_log_folder_of_another_cluster_is_not_written_to(stack: Stack) -> None:
    assert stack.run("down").returncode == 0
    identity = stack.settings.home / "kafka" / "cluster_id"
    ours = identity.read_text()
    identity.write_text("AAAAAAAAAAAAAAAAAAAAAA")
    refused = stack.run("up", "kafka")
    assert refused.returncode == 1
    assert f"belongs to the Kafka cluster {ours}" in refused.stderr.replace("\n", " ")
    identity.write_text(ours)
    assert stack.run("up", "kafka").returncode == 0
