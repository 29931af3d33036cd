"""``resources.kafka.client`` against the real broker: topics, offsets, clients, errors."""

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from millrace.errors import EngineRejected, EngineUnavailable
from resources.endpoints import kafka_bootstrap
from resources.kafka import client as kafka
from resources.kafka.client import Topic
from resources.settings import Settings

pytestmark = pytest.mark.services

_numbers = count()


@pytest.fixture(scope="session")
def bootstrap(live_stack: Settings) -> str:
    return kafka_bootstrap(live_stack)


@pytest.fixture
def topic(bootstrap: str) -> Iterator[str]:
    """A topic of the test's own, with two partitions."""
    name = f"kafka-door-{next(_numbers)}"
    kafka.ensure_topics(bootstrap, [Topic(name, 2)])
    yield name
    kafka.delete_topics(bootstrap, [name])


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline


def _send(bootstrap: str, topic: str, values: list[bytes], partition: int = 0) -> None:
    producer = kafka.producer(bootstrap)
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(30) == 0


def test_a_topic_is_made_once_with_its_settings(bootstrap: str, topic: str) -> None:
    assert kafka.topic_exists(bootstrap, topic)
    assert topic in kafka.topic_names(bootstrap)
    kafka.ensure_topics(bootstrap, [Topic(topic, 7)])
    assert set(kafka.end_offsets(bootstrap, topic)) == {0, 1}


def test_several_at_once_make_a_topic_once(bootstrap: str) -> None:
    name = f"kafka-door-{next(_numbers)}"
    errors: list[Exception] = []

    def ensure() -> None:
        try:
            kafka.ensure_topics(bootstrap, [Topic(name)])
        except EngineRejected as error:
            errors.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(kafka.end_offsets(bootstrap, name)) == set(range(kafka.SOURCE_PARTITIONS))
    kafka.delete_topics(bootstrap, [name])


def test_what_is_sent_is_read_from_the_beginning_with_the_brokers_time(
    bootstrap: str, topic: str
) -> None:
    from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

    _send(bootstrap, topic, [b"a", b"b", b"c"])
    consumer = kafka.consumer(bootstrap, **{"group.id": f"{topic}-readers"})
    consumer.subscribe([topic])
    try:
        messages = consumer.consume(3, timeout=30)
        assert [message.value() for message in messages] == [b"a", b"b", b"c"]
        assert {message.timestamp()[0] for message in messages} == {TIMESTAMP_LOG_APPEND_TIME}
        assert kafka.committed_offsets(bootstrap, f"{topic}-readers", topic) == {}
        consumer.commit(message=messages[1], asynchronous=False)
    finally:
        consumer.close()
    assert kafka.committed_offsets(bootstrap, f"{topic}-readers", topic) == {0: 2}


def test_offsets_are_told_by_partition(bootstrap: str, topic: str) -> None:
    _send(bootstrap, topic, [b"x"] * 5, partition=1)
    assert kafka.begin_offsets(bootstrap, topic) == {0: 0, 1: 0}
    assert kafka.end_offsets(bootstrap, topic) == {0: 0, 1: 5}


def test_deleting_is_final_and_forgives_what_is_not_there(bootstrap: str) -> None:
    name = f"kafka-door-{next(_numbers)}"
    kafka.ensure_topics(bootstrap, [Topic(name, 1)])
    kafka.delete_topics(bootstrap, [name, "kafka-door-never-was"])
    _until(lambda: not kafka.topic_exists(bootstrap, name))
    kafka.delete_topics(bootstrap, [])


def test_an_unknown_topic_is_refused_with_the_nearest_name(bootstrap: str, topic: str) -> None:
    with pytest.raises(EngineRejected) as caught:
        kafka.end_offsets(bootstrap, topic + "x")
    assert caught.value.what == f"Kafka has no topic {topic + 'x'!r}"
    assert topic in caught.value.fix
    assert caught.value.where == bootstrap


def test_a_setting_the_broker_does_not_know_is_refused_with_its_words(bootstrap: str) -> None:
    with pytest.raises(EngineRejected) as caught:
        kafka.ensure_topics(bootstrap, [Topic("kafka-door-odd", 1, {"cleanup.policy": "never"})])
    assert "topic 'kafka-door-odd' cannot be created" in caught.value.what
    assert "cleanup.policy" in caught.value.what


def test_a_broker_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "_REQUEST_TIMEOUT_S", 0.5)
    assert not kafka.is_ready("127.0.0.1:1")
    with pytest.raises(EngineUnavailable) as caught:
        kafka.end_offsets("127.0.0.1:1", "any")
    assert caught.value.what.startswith("Kafka does not answer: ")
    assert "millrace up kafka" in caught.value.fix
