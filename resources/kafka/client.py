"""The door to Kafka: topics, offsets, and clients set up the one way the platform uses them.

Every function takes the ``host:port`` list (``resources.kafka.brokers.Brokers`` where the brokers ask for
more than to be found) and opens a connection of its own: none of this is on a hot path. Errors of the cluster leave as ``EngineUnavailable`` (worth another try) or
``EngineRejected``; ``kafka_errors`` does the same for a caller's own use of a client.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from millrace.errors import EngineError, EngineRejected, EngineUnavailable, SetupError, nearest
from resources.configuration.secret import NO_OPTIONS, redacted
from resources.kafka.brokers import USUAL_PROPERTIES, Brokers, client_properties
from resources.settings import setting_place

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka.admin import AdminClient, OffsetSpec

SOURCE_PARTITIONS = 4
"""Partitions of a topic that the platform creates."""

_REQUEST_TIMEOUT_S = 15.0
_VISIBLE_TIMEOUT_S = 30.0
_LOOK_TIMEOUT_S = 2.0
_POLL_S = 0.05
_SEE_PROPERTIES = "librdkafka's CONFIGURATION.md says what it takes"

_CLIENT: Mapping[str, Any] = {
    # A broker that was restarted is found again within a second.
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "socket.keepalive.enable": True,
    # A broker that is away would be told of 40 times a second; callers learn it from the answers.
    "log_level": 2,
}
_CONSUMER: Mapping[str, Any] = {
    "group.id": "millrace",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
    # A fetch is answered as soon as there is a record; a quiet topic is asked four times a second.
    "fetch.wait.max.ms": 250,
    "fetch.queue.backoff.ms": 5,
}
_PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "linger.ms": 5,
    "batch.size": 131_072,
    "compression.type": "lz4",
}


@dataclass(frozen=True)
class Topic:
    """A topic to have.

    Attributes:
        config: its own settings, by Kafka's names; the broker's defaults for all others.
    """

    name: str
    partitions: int = SOURCE_PARTITIONS
    config: Mapping[str, str] = field(default_factory=dict)


def ensure_topics(bootstrap: str, topics: Sequence[Topic]) -> None:
    """Create the topics that are not there, and wait until each can be used.

    Idempotent. A topic that exists is left as it is, whatever its partitions and settings.

    Raises:
        EngineUnavailable: the broker does not answer, or a topic is not usable in time.
        EngineRejected: the broker refuses a topic, for its name or its settings.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import NewTopic

    admin = _admin(bootstrap)
    with kafka_errors(bootstrap):
        known = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    wanted = [
        NewTopic(t.name, num_partitions=t.partitions, config=dict(t.config))
        for t in topics
        if t.name not in known
    ]
    if wanted:
        created = admin.create_topics(wanted, request_timeout=_REQUEST_TIMEOUT_S)
        for name, future in created.items():
            with kafka_errors(bootstrap, what=f"topic {name!r} cannot be created"):
                try:
                    future.result()
                except KafkaException as error:
                    # Another worker was faster.
                    if _cause(error).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                        raise
    for topic in topics:
        _wait_until_led(admin, bootstrap, topic.name)


def _wait_until_led(admin: "AdminClient", bootstrap: str, topic: str) -> None:
    """Wait until the broker answers for every partition, not only knows of them."""
    from confluent_kafka.admin import OffsetSpec

    deadline = time.monotonic() + _VISIBLE_TIMEOUT_S
    while True:
        try:
            _offsets(admin, bootstrap, topic, OffsetSpec.latest())
        except (EngineUnavailable, EngineRejected):
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(_POLL_S)


def topic_names(bootstrap: str) -> tuple[str, ...]:
    """Return the names of all topics but Kafka's own, sorted.

    Raises:
        EngineUnavailable: the broker does not answer.
    """
    with kafka_errors(bootstrap):
        names = _admin(bootstrap).list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    return tuple(sorted(name for name in names if not name.startswith("__")))


def topic_exists(bootstrap: str, name: str) -> bool:
    """Whether the broker has the topic.

    Raises:
        EngineUnavailable: the broker does not answer.
    """
    return name in topic_names(bootstrap)


def delete_topics(bootstrap: str, names: Iterable[str]) -> None:
    """Delete topics with all they hold; those that are not there are passed over.

    Raises:
        EngineUnavailable: the broker does not answer.
        EngineRejected: the broker refuses.
    """
    from confluent_kafka import KafkaError, KafkaException

    doomed = list(names)
    if not doomed:
        return
    admin = _admin(bootstrap)
    deleted = admin.delete_topics(doomed, request_timeout=_REQUEST_TIMEOUT_S)
    for name, future in deleted.items():
        with kafka_errors(bootstrap, what=f"topic {name!r} cannot be deleted"):
            try:
                future.result()
            except KafkaException as error:
                if _cause(error).code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise


def begin_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset of the oldest record still there, by partition.

    Raises:
        EngineUnavailable: the broker does not answer.
        EngineRejected: there is no such topic.
    """
    from confluent_kafka.admin import OffsetSpec

    return _offsets(_admin(bootstrap), bootstrap, topic, OffsetSpec.earliest())


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset the next record will get, by partition.

    Raises:
        EngineUnavailable: the broker does not answer.
        EngineRejected: there is no such topic.
    """
    from confluent_kafka.admin import OffsetSpec

    return _offsets(_admin(bootstrap), bootstrap, topic, OffsetSpec.latest())


def _offsets(
    admin: "AdminClient", bootstrap: str, topic: str, spec: "OffsetSpec"
) -> dict[int, int]:
    from confluent_kafka import TopicPartition

    partitions = [TopicPartition(topic, n) for n in _partitions(admin, bootstrap, topic)]
    with kafka_errors(bootstrap, what=f"the offsets of {topic!r} cannot be read"):
        answers = admin.list_offsets(
            dict.fromkeys(partitions, spec), request_timeout=_REQUEST_TIMEOUT_S
        )
        return {key.partition: future.result().offset for key, future in answers.items()}


def committed_offsets(bootstrap: str, group: str, topic: str) -> dict[int, int]:
    """Return the next offset a group will read, by partition; none where it committed nothing.

    Raises:
        EngineUnavailable: the broker does not answer.
        EngineRejected: there is no such topic.
    """
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

    admin = _admin(bootstrap)
    partitions = [TopicPartition(topic, n) for n in _partitions(admin, bootstrap, topic)]
    with kafka_errors(bootstrap, what=f"the offsets of group {group!r} cannot be read"):
        asked = [ConsumerGroupTopicPartitions(group, partitions)]
        answers = admin.list_consumer_group_offsets(asked, request_timeout=_REQUEST_TIMEOUT_S)
        found = answers[group].result().topic_partitions
    return {one.partition: one.offset for one in found if one.offset >= 0}


def _partitions(admin: "AdminClient", bootstrap: str, topic: str) -> list[int]:
    with kafka_errors(bootstrap):
        topics = admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    if topic not in topics:
        shown = [name for name in topics if not name.startswith("__")]
        raise EngineRejected(
            f"Kafka has no topic {topic!r}", where=bootstrap, fix=nearest(topic, shown)
        )
    return sorted(topics[topic].partitions)


def is_ready(bootstrap: str) -> bool:
    """Whether the broker takes part in its cluster; looks for two seconds at most."""
    from confluent_kafka import KafkaException

    try:
        return bool(_admin(bootstrap).list_topics(timeout=_LOOK_TIMEOUT_S).brokers)
    except KafkaException:
        return False


def consumer(bootstrap: str, **overrides: Any) -> "Consumer":
    """Return a consumer that begins at the earliest record and commits nothing by itself.

    It connects in the background: an absent broker shows at the first use.

    Args:
        bootstrap: ``host:port`` list.
        **overrides: settings by librdkafka's names, ``**{"group.id": "archive"}`` for one.
    """
    from confluent_kafka import Consumer

    with _known_properties(bootstrap):
        return Consumer({**_CLIENT, **_CONSUMER, **client_properties(bootstrap), **overrides})


def producer(bootstrap: str, **overrides: Any) -> "Producer":
    """Return an idempotent producer that waits 5 ms for company before it sends.

    It connects in the background: an absent broker shows in the delivery reports.

    Args:
        bootstrap: ``host:port`` list.
        **overrides: settings by librdkafka's names.
    """
    from confluent_kafka import Producer

    with _known_properties(bootstrap):
        return Producer({**_CLIENT, **_PRODUCER, **client_properties(bootstrap), **overrides})


@contextmanager
def kafka_errors(bootstrap: str, *, what: str = "Kafka does not answer") -> Iterator[None]:
    """Turn the client's exceptions into the platform's.

    Raises:
        EngineUnavailable: the broker is away, or asks for another try.
        EngineRejected: it refuses.
    """
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise engine_error(_cause(error), bootstrap, what=what) from error


def engine_error(error: "KafkaError", bootstrap: str, *, what: str) -> EngineError:
    """Return the platform's error for an error that came in a message or a delivery report."""
    from confluent_kafka import KafkaError

    told = f"{what}: {error.str()}"
    # librdkafka's own codes, all of them below zero, are about connections and time.
    passing = {KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE}
    if error.code() < 0 or error.code() in passing or error.retriable():
        return EngineUnavailable(
            told, where=bootstrap, fix="millrace up kafka; millrace logs kafka"
        )
    return EngineRejected(told, where=bootstrap)


def _cause(error: Exception) -> "KafkaError":
    return error.args[0]


def _admin(bootstrap: str) -> "AdminClient":
    """Connect; the caller keeps the client until its answers are there, for they die with it."""
    from confluent_kafka.admin import AdminClient

    with _known_properties(bootstrap):
        return AdminClient({**_CLIENT, **client_properties(bootstrap)})


@contextmanager
def _known_properties(bootstrap: str) -> Iterator[None]:
    """Turn the client's refusal to be made with the settings' properties into a mend.

    Raises:
        SetupError: a property is unknown, of another type, or names a file that cannot be used.
    """
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        told, given = _cause(error).str(), NO_OPTIONS
        if isinstance(bootstrap, Brokers):
            given = bootstrap.properties
        # The message names the one that it is about, if not by one of its other names.
        named = [name for name, _ in given.pairs if name in told]
        name = max(named, key=len, default="")
        raise SetupError(
            f"no client of Kafka can be made: {redacted(told, given.secrets())}",
            where=setting_place(f"kafka.properties.{name}".rstrip(".")),
            fix=nearest(name, USUAL_PROPERTIES) if "No such" in told else _SEE_PROPERTIES,
        ) from None
