"""A live stack as time passes, as declarations change, and as the disk and the store let it down."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError

import pytest

from tests.support.live import views
from tests.support.live.oracle import OracleView, TopicOracle
from tests.support.live.proof import Proof, compare, compared, prove_values
from tests.support.live.running_stack import RunningStack, until
from tests.support.live.topic_records import read_records

pytestmark = pytest.mark.services

TOPIC = "live_pulses"
BEATS = {"steady": 5, "faint": 1}
COUNTS = ("p_count_5s", "p_count_10s")
NEW = OracleView(
    keys=("heart",),
    start_ms=views.START_MS,
    features={
        **{n: f for n, f in views.PULSE.features.items() if n != "p_count_12s"},
        "p_count_15s": views.CHANGED_PULSE_15S,
    },
    derived=views.PULSE.derived,
)


@pytest.fixture
def stack(struck_stack: RunningStack) -> RunningStack:
    return struck_stack


class Hearts:
    """Sends pulses; each heart's share of a round is ``BEATS``."""

    def __init__(self, stack: RunningStack) -> None:
        from confluent_kafka import Producer

        self._number = 0
        self._producer = Producer(
            {"bootstrap.servers": stack.bootstrap, "enable.idempotence": True, "log_level": 0}
        )

    def beat(self, suffix: str) -> None:
        for heart, times in BEATS.items():
            for _ in range(times):
                self._number += 1
                at = time.time_ns() // 1_000_000
                row = {"n": self._number, "at": at, "heart": f"{heart}-{suffix}"}
                self._producer.produce(TOPIC, key=heart.encode(), value=json.dumps(row).encode())
        self._producer.flush(30)

    @contextmanager
    def beating(self, suffix: str) -> Iterator[None]:
        """Beat four times a second while the block runs."""
        done = Event()

        def go_on() -> None:
            while not done.wait(0.25):
                self.beat(suffix)

        thread = Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def oracle_of(stack: RunningStack) -> TopicOracle:
    return TopicOracle(views.PULSE_RULES, read_records(stack.bootstrap, TOPIC))


def test_windows_of_an_idle_entity_run_empty_by_themselves_second_by_second(
    stack: RunningStack,
) -> None:
    hearts = Hearts(stack)
    hearts.beat("idle")
    oracle = oracle_of(stack)
    seen: list[Proof] = []
    until(lambda: is_right(stack, oracle, seen), "the pulses are served", 60)
    last_ms = max(record.timestamp_ms for record in read_records(stack.bootstrap, TOPIC))

    def is_over() -> bool:
        # From here on nothing arrives: every single answer must be right.
        assert is_right(stack, oracle, seen), seen[-1].wrong[:5]
        return seen[-1].as_of_ms > last_ms + 14_000

    until(is_over, "the longest window has run empty", 25)
    seconds = {proof.as_of_ms // 1000 for proof in seen}
    assert len(seconds) >= 10
    answer = stack.lookup("live_heart", ["steady-idle"], ["p_count_12s", "p_max_10s"])
    found = answer["results"][0]["features"]
    assert (found["p_count_12s"]["value"], found["p_max_10s"]["value"]) == (0, None)


def is_right(stack: RunningStack, oracle: TopicOracle, seen: list[Proof]) -> bool:
    proof = compare(stack, oracle, "live_pulse")
    if proof is None:
        return False
    seen.append(proof)
    return not proof.wrong


def test_store_that_hangs_is_a_503_at_once_and_then_right_again(stack: RunningStack) -> None:
    Hearts(stack).beat("frozen")
    oracle = oracle_of(stack)
    until(lambda: is_right(stack, oracle, []), "the pulses are served", 60)
    store = stack.pid("store")
    os.kill(store, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(HTTPError) as refused:
            stack.lookup("live_heart", ["steady-frozen"], COUNTS)
        took_s = time.monotonic() - began
    finally:
        os.kill(store, signal.SIGCONT)
    assert refused.value.code in {503, 504}
    assert took_s < 5
    error = json.loads(refused.value.read())["error"]
    assert error["message"]
    assert error["request_id"]
    prove_values(stack, oracle_of(stack), ["live_pulse"], 30)


def test_disk_that_takes_no_checkpoint_stops_no_answer_and_loses_nothing(
    stack: RunningStack,
) -> None:
    hearts = Hearts(stack)
    job = stack.streams()["views"]["live_pulse"]["job_id"]
    folder = stack.home / "flink" / "checkpoints" / job
    until(lambda: newest_checkpoint(folder), "a first checkpoint", 60)
    before = newest_checkpoint(folder)
    # A file where the job's folder was: every write below it fails, as on a full disk.
    folder.rename(folder.with_name(f"{job}.aside"))
    folder.write_text("no room")
    try:
        with hearts.beating("full"):
            until(lambda: checkpoint_age_s(stack) > 22, "checkpoints fail", 60)
        prove_values(stack, oracle_of(stack), ["live_pulse"], 30)
        assert stack.streams()["views"]["live_pulse"]["job_id"] == job
    finally:
        folder.unlink()
        folder.with_name(f"{job}.aside").rename(folder)
    until(lambda: newest_checkpoint(folder) > before, "checkpoints are completed again", 60)
    prove_values(stack, oracle_of(stack), ["live_pulse"], 30)


def newest_checkpoint(folder: Path) -> int:
    found = [int(p.parent.name.removeprefix("chk-")) for p in folder.glob("chk-*/_metadata")]
    return max(found, default=0)


def checkpoint_age_s(stack: RunningStack) -> float:
    return float(stack.streams()["views"]["live_pulse"]["checkpoint_age_s"] or 0)


def test_changed_declaration_begins_anew_while_the_old_version_serves(
    stack: RunningStack,
) -> None:
    hearts = Hearts(stack)
    old = record(stack)
    Path(stack.env["MILLRACE_VIEWS"], "pulses.yaml").write_text(views.CHANGED_PULSES)
    versions: list[str] = []

    def is_promoted() -> bool:
        answer = stack.lookup("live_heart", ["steady-changed"], COUNTS)
        (result,) = answer["results"]
        counted = result["features"]["p_count_5s"]
        versions.append(counted["version"])
        assert counted["value"] > 0  # beats never pause, so no answer may know of none
        return versions[-1] == "v2"

    with hearts.beating("changed"):
        until(lambda: served_count(stack) > 0, "the pulses are served", 60)
        stack.run("stream", "deploy", "live_pulse")
        until(is_promoted, "the new version serves", 150)
    assert versions == sorted(versions)
    assert versions[0] == "v1"
    new = record(stack)
    assert new["fingerprint"] != old["fingerprint"]
    assert new["restored_from"] is None
    assert new["tile_topic"] != old["tile_topic"]
    assert new["job_id"] not in {old["job_id"], *old["restores"]}
    oracle = oracle_of(stack)
    until(lambda: is_new_right(stack, oracle), "every value of the new version is right", 60)


def served_count(stack: RunningStack) -> int:
    answer = stack.try_lookup("live_heart", ["steady-changed"], COUNTS)
    return int(answer["results"][0]["features"]["p_count_5s"]["value"]) if answer else 0


def is_new_right(stack: RunningStack, oracle: TopicOracle) -> bool:
    keys = oracle.keys(NEW)
    answer = stack.lookup("live_heart", keys, NEW.names, version="v2")
    return not compared(oracle, NEW, keys, answer).wrong


def record(stack: RunningStack) -> dict[str, Any]:
    text = (stack.home / "streams" / "live_pulse.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found
