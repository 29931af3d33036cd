"""Everything over a Kafka with SASL_SSL and a store with TLS and a password, by ``millrace.toml``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from deltalake import DeltaTable

from millrace.errors import EngineUnavailable, PlatformError
from resources.configuration.secret import Options
from resources.kafka import client as kafka
from resources.kafka.brokers import Brokers
from resources.kafka.client import Topic
from resources.settings import Settings
from resources.store.client import open_store, store_errors
from resources.store.errors import StoreUnavailable
from tests.support.live.running_stack import RunningStack, until
from tests.support.secured_services import (
    CERTIFICATE,
    PASSWORD,
    USER,
    kafka_properties,
    secured_kafka,
    tls_front,
)
from tests.support.store_server import StoreServer

pytestmark = pytest.mark.services

_STORE_PASSWORD = "store-secret-of-the-tests"  # noqa: S105
_VIEWS = """\
version: millrace/v1
sources:
  - name: payments
    columns: {paid_at: timestamp, customer_id: int64, amount: int64}
    event_time: paid_at
    stream: {topic: secured_payments, format: json}
entities:
  - {name: customer, join_key: customer_id, type: int64}
feature_views:
  - name: spend
    entity: customer
    source: payments
    start: 2024-01-01
    features:
      - {name: payments, aggregate: count, window: lifetime}
      - {name: paid, aggregate: sum, column: amount, window: lifetime}
"""
_CONFIG = """\
home = "home"
views = ["views"]
[flink]
url = "{flink}"
[profile.secured.kafka]
servers = "{kafka}"
[profile.secured.kafka.properties]
"security.protocol" = "SASL_SSL"
"sasl.mechanism" = "SCRAM-SHA-512"
"sasl.username" = "{user}"
"sasl.password" = "file:secrets/kafka"
"ssl.ca.location" = "ca.pem"
[profile.secured.store]
url = "rediss://127.0.0.1:{store}/0"
password = "env:MILLRACE_TEST_STORE_PASSWORD"
ca_file = "ca.pem"
"""


@dataclass(frozen=True)
class Secured:
    """The two services: Kafka's address, and the port of the store's TLS end."""

    kafka: str
    store: int

    def brokers(self, **changed: str) -> Brokers:
        properties = kafka_properties() | {n.replace("_", "."): v for n, v in changed.items()}
        return Brokers(self.kafka, Options.of(properties, "kafka.properties"))


@pytest.fixture(scope="module")
def secured(live_stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    store = StoreServer(folder / "store", _STORE_PASSWORD)
    store.start()
    try:
        with (
            secured_kafka(folder / "kafka", live_stack.cache) as servers,
            tls_front(store.port) as port,
        ):
            yield Secured(servers, port)
    finally:
        store.stop()


def test_topics_are_made_written_and_read_by_who_may(secured: Secured) -> None:
    brokers = secured.brokers()
    kafka.ensure_topics(brokers, [Topic("by_hand", 1)])
    producer = kafka.producer(brokers)
    producer.produce("by_hand", b"value")
    assert producer.flush(30) == 0
    assert kafka.end_offsets(brokers, "by_hand") == {0: 1}


@pytest.mark.parametrize(
    "changed",
    [{"sasl_password": "wrong-secret"}, {"ssl_ca_location": "probe"}],
    ids=["password", "authority"],
)
def test_who_may_not_is_told_without_the_password(
    secured: Secured, changed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "_REQUEST_TIMEOUT_S", 3)
    with pytest.raises(EngineUnavailable) as caught:
        kafka.topic_names(secured.brokers(**changed))
    assert caught.value.where == secured.kafka
    assert "wrong-secret" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_a_property_nobody_knows_is_named() -> None:
    brokers = Brokers("127.0.0.1:1", Options.of({"sasl.mechansm": "PLAIN"}, "kafka.properties"))
    with pytest.raises(PlatformError, match=r"sasl\.mechansm") as caught:
        kafka.producer(brokers)
    assert caught.value.where == "MILLRACE_KAFKA_PROPERTIES"


@pytest.mark.parametrize(
    ("user", "options"),
    [("", f"ssl_ca_certs={CERTIFICATE}"), (f":{_STORE_PASSWORD}@", "")],
    ids=["no password", "unknown authority"],
)
def test_the_store_lets_nobody_else_in(secured: Secured, user: str, options: str) -> None:
    url = f"rediss://{user}127.0.0.1:{secured.store}/0?{options}"
    with pytest.raises(PlatformError) as caught, store_errors():
        open_store(url).ping()
    assert _STORE_PASSWORD not in str(caught.value)
    assert isinstance(caught.value, StoreUnavailable)


def test_events_come_through_all_of_it_and_no_file_holds_a_secret(
    secured: Secured, live_stack: Settings, tmp_path: Path
) -> None:
    stack = _stack(secured, live_stack, tmp_path)
    events = tmp_path / "events.csv"
    now = datetime.now(tz=UTC)
    times = [(now - timedelta(seconds=n)).isoformat(timespec="milliseconds") for n in range(300)]
    rows = [f"{at},{n % 3},{n}" for n, at in enumerate(times)]
    events.write_text("\n".join(["paid_at,customer_id,amount", *rows]) + "\n")
    stack.run("produce", "payments", "--file", str(events))
    stack.run("stream", "deploy", "spend")
    try:
        stack.up(("writer", "archive", "server"))
        parts = stack.status()
        told = stack.run("doctor", "--json")
        want = {key: [100, sum(n for n in range(300) if n % 3 == key)] for key in range(3)}
        until(lambda: _served(stack) == want, "the values are served", 90)
        events_table = str(tmp_path / "home" / "lake" / "events" / "payments")
        until(lambda: _rows(events_table) == 300, "the archive has all events", 60)
    finally:
        stack.run("stream", "stop", "spend")
        stack.down()
    assert parts["kafka"]["state"] == parts["store"]["state"] == "external"
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert any(path.name == "desired.json" for path in files)
    for secret in (PASSWORD, _STORE_PASSWORD):
        assert secret not in told + json.dumps(parts)
        assert not [path for path in files if secret.encode() in path.read_bytes()]


def _stack(secured: Secured, live_stack: Settings, root: Path) -> RunningStack:
    stack = RunningStack.declared(root, {"secured": _VIEWS})
    (root / "secrets").mkdir()
    (root / "secrets" / "kafka").write_text(f"{PASSWORD}\n")
    (root / "ca.pem").write_text(CERTIFICATE.read_text().partition("-----BEGIN PRIVATE")[0])
    config = root / "millrace.toml"
    flink = json.loads((live_stack.home / "endpoints.json").read_text())["flink"]["url"]
    config.write_text(
        _CONFIG.format(flink=flink, kafka=secured.kafka, user=USER, store=secured.store)
    )
    own = {"MILLRACE_CONFIG": str(config), "MILLRACE_PROFILE": "secured"}
    own["MILLRACE_TEST_STORE_PASSWORD"] = _STORE_PASSWORD
    named = ("MILLRACE_HOME", "MILLRACE_VIEWS")
    stack.env = {k: v for k, v in stack.env.items() if k not in named} | own
    return stack


def _served(stack: RunningStack) -> dict[int, list[int]] | None:
    answer = stack.try_lookup("customer", [0, 1, 2], ["payments", "paid"])
    if answer is None:
        return None
    return {
        one["key"]: [one["features"][name]["value"] for name in ("payments", "paid")]
        for one in answer["results"]
    }


def _rows(table: str) -> int:
    if not DeltaTable.is_deltatable(table):
        return 0
    return int(DeltaTable(table).to_pyarrow_table().num_rows)
