"""Parts of a live stack that start before what they work on."""

import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError

import pytest

from resources.settings import CHECKOUT
from tests.support.live import views
from tests.support.live.proof import prove_counts
from tests.support.live.running_stack import RunningStack, finish_producer, start_producer, until

pytestmark = pytest.mark.services

OWN = ("store", "writer", "archive", "server")


def test_kafka_that_is_down_at_the_start_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    broker = RunningStack.declared(tmp_path / "broker", {})
    broker.up(["kafka"])  # it keeps its port from now on
    stack = RunningStack.declared(tmp_path / "stack", {"payments": views.PAYMENTS})
    stack.env = {**stack.env, "MILLRACE_KAFKA": broker.bootstrap}
    try:
        sent = send(broker.bootstrap, stack)
        broker.down()
        starting = start_without_waiting(stack)
        try:
            until(lambda: waits_for_kafka(stack), "writer and archive wait for Kafka", 60)
            refuses_for_want_of_kafka(stack)
            broker.up(["kafka"])
            assert starting.wait(timeout=90) == 0
        finally:
            starting.kill()
            starting.wait()
        oracle = prove_counts(stack, "live_payments", "live_payments", views.PAYMENT_RULES)
        assert oracle.books.records == sent
    finally:
        stack.down()
        broker.down()


def send(bootstrap: str, stack: RunningStack) -> int:
    """Events that lie in the topic before anybody else is there."""
    from resources.kafka.client import Topic, ensure_topics

    ensure_topics(bootstrap, [Topic("live_payments", 4)])
    producer = start_producer(bootstrap, "live_payments", rate=1000, seconds=1, seed=9)
    return int(finish_producer(producer, at_once=False)["sent"])


def start_without_waiting(stack: RunningStack) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "up", *OWN],
        env=dict(stack.env),
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def waits_for_kafka(stack: RunningStack) -> bool:
    parts = stack.status()
    waiting = [parts[name].get("detail", "") for name in ("writer", "archive")]
    return parts["server"]["state"] == "running" and all("kafka" in text for text in waiting)


def refuses_for_want_of_kafka(stack: RunningStack) -> None:
    with pytest.raises(HTTPError) as refused:
        stack.lookup("live_customer", [1], ["c_count_1h"])
    assert refused.value.code in {404, 503}
    assert json.loads(refused.value.read())["error"]["fix"]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "stream", "deploy", "live_spend"],
        env=dict(stack.env),
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "Kafka does not answer" in done.stderr
    assert "Traceback" not in done.stderr
