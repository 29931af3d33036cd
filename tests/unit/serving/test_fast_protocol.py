"""Connections of the fast path, with lookups that are answered when the test says so."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from serving.errors import BadRequest
from serving.fastpath import FastPath, FastProtocol
from serving.gate import GateState
from serving.lookups import Done
from serving.metrics import ServerMetrics

ASK = b"POST /v1/features:lookup HTTP/1.1\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\n{}"
HEALTH = b"GET /v1/health HTTP/1.1\r\n\r\n"


@dataclass
class HeldLookups:
    """Lookups that nobody answers but the test."""

    waiting: list[Done] = field(default_factory=list)

    def begin(self, body: bytes, authorization: bytes | None, done: Done, **_: bool) -> None:
        self.waiting.append(done)


class Wire(asyncio.Transport):
    """A connection without a socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []
        self.is_paused = self._is_closed = False

    def write(self, data: Any) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Say which path was asked."""
    body = scope["path"].encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Connection:
    protocol: FastProtocol
    wire: Wire
    lookups: HeldLookups
    gate: GateState
    state: ServerState

    @property
    def bodies(self) -> list[bytes]:
        whole = b"".join(self.wire.written)
        return [part.partition(b"\r\n\r\n")[2] for part in whole.split(b"HTTP/1.1 ")[1:]]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not is_so():
                await asyncio.sleep(0)


def connected(
    work: Callable[[Connection], Coroutine[Any, Any, None]], most_in_flight: int = 100
) -> None:
    async def run() -> None:
        lookups, state = HeldLookups(), ServerState()
        gate = GateState(most_in_flight)
        path = FastPath(lookups, gate, ServerMetrics())  # type: ignore[arg-type]
        config = uvicorn.Config(
            application, http="httptools", ws="none", access_log=False, log_config=None
        )
        protocol = FastProtocol(path, config=config, server_state=state, app_state={})
        wire = Wire()
        protocol.connection_made(wire)
        await work(Connection(protocol, wire, lookups, gate, state))

    asyncio.run(run())


def test_answers_leave_in_the_order_of_their_requests() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK * 3)
        first, second, third = c.lookups.waiting
        third(b"3", None)
        second(None, BadRequest("no"))
        assert c.bodies == []
        first(b"1", None)
        assert [body[:8] for body in c.bodies] == [b"1", b'{"error"', b"3"]
        assert (c.gate.in_flight, c.state.total_requests) == (0, 3)

    connected(work)


def test_what_the_application_answers_waits_for_what_was_asked_before() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK + HEALTH + ASK)
        (only,) = c.lookups.waiting  # the third is behind the second, in the application's queue
        assert c.wire.is_paused
        await asyncio.sleep(0)
        assert c.bodies == []
        only(b"1", None)
        await c.until(lambda: len(c.bodies) == 3)
        assert c.bodies == [b"1", b"/v1/health", b"/v1/features:lookup"]
        assert not c.wire.is_paused
        c.protocol.data_received(ASK)
        assert len(c.lookups.waiting) == 2
        assert c.state.total_requests == 3

    connected(work)


def test_a_long_pipeline_is_not_taken_whole() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK * 100)
        assert len(c.lookups.waiting) == 32
        assert c.wire.is_paused
        for done in c.lookups.waiting:
            done(b"", None)
        await c.until(lambda: len(c.bodies) == 100)

    connected(work)


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK)
        c.protocol.pause_writing()
        c.lookups.waiting[0](b"1", None)
        assert c.wire.is_paused
        c.protocol.resume_writing()
        assert not c.wire.is_paused

    connected(work)


def test_a_client_that_left_costs_nothing_more() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK)
        c.wire.close()
        c.protocol.connection_lost(None)
        c.lookups.waiting[0](b"1", None)
        assert (c.wire.written, c.gate.in_flight) == ([], 0)
        assert not c.state.connections

    connected(work)


def test_a_stop_lets_what_is_under_way_be_answered_and_closes() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK * 2)
        c.protocol.shutdown()
        assert not c.wire.is_closing()
        for done in c.lookups.waiting:
            done(b"1", None)
        (reply,) = c.wire.written  # the other one is told by the close to ask elsewhere
        assert reply.startswith(STATUS_LINE[200])
        assert b"connection: close" in reply
        assert c.wire.is_closing()

    connected(work)


def test_a_stop_closes_a_connection_that_is_silent() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK)
        c.lookups.waiting[0](b"1", None)
        c.protocol.shutdown()
        assert c.wire.is_closing()

    connected(work)


def test_too_many_at_once_are_turned_away() -> None:
    async def work(c: Connection) -> None:
        c.protocol.data_received(ASK * 2)
        c.lookups.waiting[0](b"1", None)
        first, second = c.bodies
        assert (first, b"overloaded" in second) == (b"1", True)
        assert b"retry-after: 1\r\n" in b"".join(c.wire.written)
        assert c.gate.in_flight == 0

    connected(work, most_in_flight=1)


def test_who_sends_half_a_request_is_closed_when_his_time_is_over() -> None:
    async def work(c: Connection) -> None:
        c.protocol.timeout_keep_alive = 60
        c.protocol.data_received(ASK)
        timer = c.protocol.timeout_keep_alive_task
        assert timer is None
        c.protocol.timeout_keep_alive_handler()
        assert not c.wire.is_closing()  # an answer is due
        c.lookups.waiting[0](b"1", None)
        c.protocol.data_received(ASK[:40])
        c.protocol.timeout_keep_alive_handler()
        assert not c.wire.is_closing()  # it was heard of just now
        c.protocol._heard_s -= 61
        c.protocol.timeout_keep_alive_handler()
        assert c.wire.is_closing()
        c.protocol.connection_lost(None)
        assert c.protocol.timeout_keep_alive_task is None

    connected(work)
