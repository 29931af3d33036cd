"""A live stack under an untidy producer, its parts killed with -9: every value stays right.

``MILLRACE_TEST_RATE`` and ``MILLRACE_TEST_SECONDS`` set the traffic; 2000 and 60 are the full run.
"""

import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from deltalake import DeltaTable

from tests.support.live import views
from tests.support.live.oracle import TopicOracle
from tests.support.live.proof import prove_counts, prove_values
from tests.support.live.running_stack import RunningStack, finish_producer, start_producer, until

pytestmark = [pytest.mark.services, pytest.mark.soak]

TOPIC, SOURCE = "live_payments", "live_payments"
PROBED = 1_000_000_007
RATE = float(os.environ.get("MILLRACE_TEST_RATE", "300"))
SECONDS = float(os.environ.get("MILLRACE_TEST_SECONDS", "20"))
VIEWS = ("live_spend", "live_till")


@pytest.fixture
def stack(struck_stack: RunningStack) -> RunningStack:
    return struck_stack


class Probe:
    """One customer's payments, sent by the test: an answer that counts them has passed the chain."""

    def __init__(self, stack: RunningStack) -> None:
        from confluent_kafka import Producer

        self._stack, self.sent = stack, 0
        self._producer = Producer(
            {"bootstrap.servers": stack.bootstrap, "enable.idempotence": True, "log_level": 0}
        )
        self._name = f"probe-{time.time_ns()}"
        self._before = self.served() or 0

    def send(self) -> None:
        self.sent += 1
        now_ms = time.time_ns() // 1_000_000
        row = {"id": f"{self._name}-{self.sent}", "at": now_ms, "customer_id": PROBED}
        self._producer.produce(
            TOPIC,
            key=str(PROBED).encode(),
            value=json.dumps({**row, "shop": "probed", "amount": "200.00", "items": 1}).encode(),
            partition=zlib.crc32(str(PROBED).encode()) % 4,
        )
        self._producer.poll(0)

    def served(self) -> int | None:
        answer = self._stack.try_lookup("live_customer", [PROBED], ["c_count_1h"])
        if answer is None:
            return None
        return int(answer["results"][0]["features"]["c_count_1h"]["value"])

    def recovers(self, deadline_s: float = 150) -> None:
        """Send until an answer holds an event that was sent after this call."""
        mark = self._before + self.sent

        def is_back() -> bool:
            self.send()
            return (self.served() or 0) > mark

        until(is_back, "an event sent after the kill is in an answer", deadline_s)

    def close(self) -> None:
        assert self._producer.flush(120) == 0


@pytest.fixture
def probe(stack: RunningStack) -> Iterator[Probe]:
    probe = Probe(stack)
    probe.recovers()
    try:
        yield probe
    finally:
        probe.close()


def prove(stack: RunningStack, title: str, told: dict[str, Any]) -> None:
    oracle = prove_counts(stack, TOPIC, SOURCE, views.PAYMENT_RULES)
    values = prove_values(stack, oracle, VIEWS)
    say(f"{title}: {told['sent']} events, {values} values compared, 0 wrong; {shown(oracle)}")


def shown(oracle: TopicOracle) -> str:
    books = oracle.books
    return (
        f"in {books.records} = {books.events} events + {books.duplicates} duplicates "
        f"+ {sum(books.dead_letters.values())} dead letters {books.dead_letters}"
    )


_said: list[str] = []


def say(text: str) -> None:
    _said.append(text)


@pytest.fixture(autouse=True)
def _tell(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    with capsys.disabled():
        while _said:
            sys.stderr.write(f"\n  {_said.pop(0)}")


def test_untidy_minute_without_faults_is_served_right(stack: RunningStack) -> None:
    producer = start_producer(stack.bootstrap, TOPIC, rate=RATE, seconds=SECONDS, seed=1)
    told = finish_producer(producer, at_once=False)
    prove(stack, "no faults", told)


def test_killed_taskmanager_writer_and_store_lose_and_double_nothing(
    stack: RunningStack, probe: Probe
) -> None:
    producer = start_producer(stack.bootstrap, TOPIC, rate=RATE, seconds=600, seed=2)
    began = time.monotonic()
    for part, program in (("flink", "taskmanager"), ("writer", None), ("store", None)):
        at = stack.kill(part, program)
        probe.recovers()
        say(f"{program or part} killed: back after {time.monotonic() - at:.1f} s")
    wait_s = max(0.0, SECONDS - (time.monotonic() - began))
    until(lambda: time.monotonic() - began > wait_s, "the run is over", wait_s + 1)
    probe.close()
    prove(stack, "taskmanager, writer, store", finish_producer(producer, at_once=True))


def test_killed_jobmanager_broker_archive_server_and_daemon_lose_and_double_nothing(
    stack: RunningStack, probe: Probe
) -> None:
    producer = start_producer(stack.bootstrap, TOPIC, rate=RATE, seconds=900, seed=3)
    jobs = {name: stream["job_id"] for name, stream in stack.streams()["views"].items()}
    at = stack.kill("flink", "jobmanager")
    # Its tasks go on for a while without it; what counts is that the jobs are back under a new one.
    until(lambda: all_restored(stack, jobs), "the jobs are restored", 180)
    probe.recovers()
    say(f"jobmanager killed: back after {time.monotonic() - at:.1f} s")
    for part in ("kafka", "server"):
        at = stack.kill(part)
        probe.recovers()
        say(f"{part} killed: back after {time.monotonic() - at:.1f} s")
    before = stack.pid("archive")
    at = stack.kill("archive")
    until(lambda: is_another(stack, "archive", before), "the archive is started anew")
    # Read only now: what the killed one had begun to commit is there.
    commits = events_version(stack)
    until(lambda: events_version(stack) > commits, "the archive commits again")
    say(f"archive killed: back after {time.monotonic() - at:.1f} s")
    before = stack.pid("dagster", "daemon")
    at = stack.kill("dagster", "daemon")
    until(lambda: is_another(stack, "dagster", before, "daemon"), "Dagster's daemon is back")
    say(f"daemon killed: back after {time.monotonic() - at:.1f} s")
    probe.close()
    prove(stack, "jobmanager, broker, ...", finish_producer(producer, at_once=True))


def all_restored(stack: RunningStack, jobs: dict[str, str]) -> bool:
    streams = stack.streams()["views"]
    return all(
        streams[name]["state"] == "running" and streams[name]["job_id"] != jobs[name]
        for name in VIEWS
    )


def events_version(stack: RunningStack) -> int:
    return int(DeltaTable(str(stack.home / "lake" / "events" / SOURCE)).version())


def is_another(stack: RunningStack, part: str, before: int, program: str | None = None) -> bool:
    """Tell whether a part runs again, as another process."""
    one = stack.status()[part]
    if one["state"] != "running":
        return False
    return (one["pids"][program] if program else one["pid"]) not in {None, before}
