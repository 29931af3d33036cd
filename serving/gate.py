"""The gate every request passes: its id, its place in the count, and its turn away when full."""

import re
import secrets
import time
from dataclasses import dataclass, field
from itertools import count

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.errors import Overloaded, answer_to, headers_of
from serving.metrics import ServerMetrics

ALWAYS_OPEN = frozenset({"/health", "/v1/health", "/v1/ready", "/v1/metrics", "/metrics"})
"""Paths that are answered also when the server is full."""

_REQUEST_ID = re.compile(rb"[\w.:-]{1,64}")
_NO_ROUTE = "none"


@dataclass
class GateState:
    """What the gate and the rest of the server tell each other.

    Attributes:
        most_in_flight: requests answered at a time; one more is a 429.
        is_draining: the server stops: each answer closes its connection.
    """

    most_in_flight: int
    in_flight: int = 0
    is_draining: bool = False
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: "count[int]" = field(default_factory=count)

    def new_id(self) -> str:
        """Return an id for a request that brings none."""
        return f"{self._prefix}-{next(self._numbers):x}"


class Gate:
    """ASGI middleware around the application."""

    def __init__(self, app: ASGIApp, state: GateState, metrics: ServerMetrics) -> None:
        self._app = app
        self._state = state
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope) or self._state.new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        passage = _Passage(send, request_id, self._state)
        began = time.perf_counter()
        self._state.in_flight += 1
        try:
            if self._state.in_flight > self._state.most_in_flight and (
                scope["path"] not in ALWAYS_OPEN
            ):
                await _turn_away(passage.send, request_id)
            else:
                await self._app(scope, receive, passage.send)
        finally:
            self._state.in_flight -= 1
            route = getattr(scope.get("route"), "path", _NO_ROUTE)
            self._metrics.answered(route, passage.code, time.perf_counter() - began)


class _Passage:
    """One answer on its way out."""

    def __init__(self, send: Send, request_id: str, state: GateState) -> None:
        self._send = send
        self._request_id = request_id
        self._state = state
        self.code = 500  # what an exception becomes further out

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self._request_id.encode())]
            if self._state.is_draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def _request_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            return known_id(value)
    return None


def known_id(given: bytes | None) -> str | None:
    """Return the id that a request brings; None if it brings none, or what is none."""
    if given is None or not _REQUEST_ID.fullmatch(given):
        return None
    return given.decode()


def overloaded() -> Overloaded:
    """Return what a request is told that is one too many."""
    return Overloaded(
        "too many requests are being answered",
        where="server",
        fix="send it again after Retry-After seconds, and fewer at a time",
    )


async def _turn_away(send: Send, request_id: str) -> None:
    status, body = answer_to(overloaded(), request_id)
    headers = [(name.encode(), value.encode()) for name, value in headers_of(status).items()]
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
