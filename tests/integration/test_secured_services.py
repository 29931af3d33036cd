"""A Kafka with SASL_SSL and a store with TLS and a password: who is let in, and who is told what."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from millrace.errors import EngineUnavailable, PlatformError
from resources import kafka
from resources.brokers import Brokers
from resources.kafka import Topic
from resources.secret import Options
from resources.settings import Settings
from resources.store import StoreUnavailable, open_store, store_errors
from tests.secured_services import (
    CERTIFICATE,
    PASSWORD,
    kafka_properties,
    secured_kafka,
    tls_front,
)
from tests.store_server import StoreServer

pytestmark = pytest.mark.services

_STORE_PASSWORD = "store-secret-of-the-tests"  # noqa: S105


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
    assert caught.value.where == "kafka.properties"


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
