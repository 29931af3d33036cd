"""uvicorn's HTTP protocol with the lookups answered in callbacks; the application gets the rest.

What is taken here is narrow: a ``POST`` of HTTP/1.1 to one of a few targets, whole in one piece of
known and moderate size, on a connection that stays open. Anything else, from ``Expect`` to broken
HTTP, goes the way it goes without this module, and a lookup that goes there is answered by the
same ``Lookups``: both ways answer with the same bytes.

Answers leave in the order of their requests. A request that the application answers waits until
what was taken here before it is answered, in uvicorn's own queue.

Source: uvicorn's ``HttpToolsProtocol``, whose callbacks these extend.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import VARY, NotAcceptable, answer_to, headers_of
from serving.forms import form_of
from serving.gate import GateState, known_id, overloaded
from serving.lookups import Lookups
from serving.metrics import ServerMetrics

ROUTES = ("/v1/features:lookup", "/v1/features:batchLookup")

_TARGETS = {
    f"{route}{query}".encode(): (route, is_strict)
    for route in ROUTES
    for query, is_strict in (("", False), ("?strict=false", False), ("?strict=true", True))
}
_ELSEWHERE = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_LISTS = frozenset({b"accept"})
"""Headers that are one list, however often they are given; of others the first counts."""

_READ = _LISTS | {b"content-length", b"x-request-id", b"authorization"}
_MOST_UNDER_WAY = 32
"""Lookups of one connection taken at a time; more of a pipeline wait in uvicorn's queue."""

_JSON = b"application/json"
_VARY = b"vary: %b\r\n" % VARY.encode()


@dataclass
class FastPath:
    """What the connections of a server share."""

    lookups: Lookups
    gate: GateState
    metrics: ServerMetrics
    _defaults: list[tuple[bytes, bytes]] = field(default_factory=list)
    _lines: bytes = b""

    def head(
        self,
        status: int,
        length: int,
        request_id: str,
        defaults: list[tuple[bytes, bytes]],
        media_type: bytes,
    ) -> bytes:
        """Return status line and headers, but for the empty line."""
        if defaults is not self._defaults:  # uvicorn makes a new list each second
            self._defaults = defaults
            self._lines = b"".join([b"%b: %b\r\n" % pair for pair in defaults])
        more = _VARY
        if status != HTTPStatus.OK:
            told = headers_of(status).items()
            more = b"".join([b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in told])
        return b"%b%b%bcontent-length: %d\r\ncontent-type: %b\r\nx-request-id: %b\r\n" % (
            STATUS_LINE[status],
            self._lines,
            more,
            length,
            media_type,
            request_id.encode(),
        )


class _Cycle:
    """What uvicorn looks at of the request that a connection is at, while it is one of ours."""

    def __init__(self) -> None:
        self.response_complete = True
        self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()


class _Exchange:
    """A lookup of a connection: its request, then its answer."""

    __slots__ = (
        "accept", "authorization", "began_s", "body", "is_last", "is_strict", "media_type",
        "protocol", "reply", "request_id", "route",
    )  # fmt: skip

    def __init__(
        self,
        protocol: "FastProtocol",
        target: tuple[str, bool],
        headers: Mapping[bytes, bytes],
    ) -> None:
        self.protocol = protocol
        self.route, self.is_strict = target
        self.request_id = known_id(headers.get(b"x-request-id")) or protocol.new_id()
        self.authorization = headers.get(b"authorization")
        self.accept = headers.get(b"accept")
        self.media_type = _JSON
        self.body = b""
        self.reply: bytes | None = None
        self.is_last = False
        self.began_s = time.perf_counter()

    def answered(self, body: bytes | None, error: Exception | None) -> None:
        """Take what the lookup came to."""
        status = 200
        if body is None:
            status, body = answer_to(error or RuntimeError("no answer"), self.request_id)
            self.media_type = _JSON
        self.protocol.answered(self, status, body)


class FastProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, path: FastPath, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._path = path
        self._given: list[tuple[bytes, bytes]] = []
        self._ours: Any = _Cycle()
        self._under_way: deque[_Exchange] = deque()
        self._reading: _Exchange | None = None
        self._heard_s = 0.0
        self._is_held = False

    def new_id(self) -> str:
        """Return an id for a request that brings none."""
        return self._path.gate.new_id()

    # -- what the parser finds

    def on_message_begin(self) -> None:
        self.url = b""
        self._given = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._given.append((name, value))

    def on_headers_complete(self) -> None:
        target = _TARGETS.get(self.url)
        exchange = None if target is None else self._taken(target)
        if exchange is not None:
            self._reading = exchange
            self._under_way.append(exchange)
            self._ours.response_complete = False
            self.cycle = self._ours
            return
        url, given = self.url, self._given
        super().on_message_begin()
        super().on_url(url)
        for name, value in given:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        exchange = self._reading
        if exchange is None:
            super().on_body(body)
        else:
            exchange.body = exchange.body + body if exchange.body else body

    def on_message_complete(self) -> None:
        exchange, self._reading = self._reading, None
        if exchange is None:
            super().on_message_complete()
            return
        path = self._path
        path.gate.in_flight += 1
        if path.gate.in_flight > path.gate.most_in_flight:
            exchange.answered(None, overloaded())
            return
        try:
            form = form_of(exchange.accept)
        except NotAcceptable as error:
            exchange.answered(None, error)
            return
        exchange.media_type = form.media_type.encode()
        path.lookups.begin(
            exchange.body,
            exchange.authorization,
            exchange.answered,
            is_strict=exchange.is_strict,
            form=form,
        )

    def _taken(self, target: tuple[str, bool]) -> _Exchange | None:
        """Return an exchange if the request is one to be taken."""
        parser, cycle = self.parser, self.cycle
        if not (cycle is None or cycle is self._ours or cycle.response_complete) or self.pipeline:
            return None
        if len(self._under_way) >= _MOST_UNDER_WAY or parser.get_method() != b"POST":
            return None
        if not parser.should_keep_alive():
            return None
        found: dict[bytes, bytes] = {}
        for given, value in self._given:
            name = given.lower()
            if name in _LISTS and name in found:
                found[name] += b"," + value
            elif name in _READ:
                found[name] = found.get(name) or value
            elif name in _ELSEWHERE or (
                # Without one, a connection that is kept is one of HTTP/1.1.
                name == b"connection" and parser.get_http_version() != "1.1"
            ):
                return None
        length = found.get(b"content-length")
        if length is None or int(length) > HIGH_WATER_LIMIT:
            return None
        return _Exchange(self, target, found)

    # -- what is answered

    def answered(self, exchange: _Exchange, status: int, body: bytes) -> None:
        """Send an answer, and what waited behind it, as soon as what is before it is sent."""
        path = self._path
        gate = path.gate
        gate.in_flight -= 1
        path.metrics.answered(exchange.route, status, time.perf_counter() - exchange.began_s)
        defaults = self.server_state.default_headers
        head = path.head(status, len(body), exchange.request_id, defaults, exchange.media_type)
        exchange.is_last = gate.is_draining or not self._ours.keep_alive
        exchange.reply = b"".join(
            (head, b"connection: close\r\n\r\n" if exchange.is_last else b"\r\n", body)
        )
        self._send()

    def _send(self) -> None:
        under_way, state, transport = self._under_way, self.server_state, self.transport
        while under_way and (reply := under_way[0].reply) is not None:
            exchange = under_way.popleft()
            state.total_requests += 1
            if transport.is_closing():
                continue
            transport.write(reply)
            if exchange.is_last:
                transport.close()
        if transport.is_closing():
            return
        if self.flow.write_paused:
            self._is_held = True
            self.flow.pause_reading()
        self._heard_s = self.loop.time()
        if under_way:
            return
        self._ours.response_complete = True
        if self.pipeline:
            state.total_requests -= 1  # of which uvicorn counts the last
            self.on_response_complete()
        elif self.timeout_keep_alive_task is None:
            self._look_after(self.timeout_keep_alive)

    # -- what the transport tells

    def data_received(self, data: bytes) -> None:
        # As uvicorn's, but for the timer: it stays, and looks when it is due. Setting one per
        # request costs more than asking the time.
        self._heard_s = self.loop.time()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_held:
            self._is_held = False
            self.flow.resume_reading()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing was heard for so long, whole request or not."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        is_busy = self.cycle is not None and not self.cycle.response_complete
        left_s = self._heard_s + self.timeout_keep_alive - self.loop.time()
        if is_busy:
            self._look_after(self.timeout_keep_alive)
        elif left_s > 0:
            self._look_after(left_s)
        else:
            self.transport.close()

    def _look_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )
