"""Kafka's address together with what it asks of a client."""

from typing import Any, Self

from resources.configuration.secret import NO_OPTIONS, Options

USUAL_PROPERTIES = (
    "acks",
    "api.version.request",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "delivery.timeout.ms",
    "enable.ssl.certificate.verification",
    "fetch.max.bytes",
    "fetch.min.bytes",
    "fetch.wait.max.ms",
    "linger.ms",
    "log_level",
    "max.in.flight.requests.per.connection",
    "max.poll.interval.ms",
    "message.max.bytes",
    "message.timeout.ms",
    "metadata.max.age.ms",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retries",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "session.timeout.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
)
"""Those of librdkafka's properties that people set; it names none itself where one is misspelt."""


class Brokers(str):
    """A ``host:port`` list that knows how its brokers let a client in.

    It is text wherever an address is shown or compared, so that a message can hold no secret: the
    properties leave it by ``client_properties`` alone, where a client is made.

    Attributes:
        properties: librdkafka's, as the settings have them; secrets are read when asked for.
    """

    __slots__ = ("properties",)
    properties: Options

    def __new__(cls, servers: str, properties: Options = NO_OPTIONS) -> Self:
        """Join an address and its properties."""
        brokers = super().__new__(cls, servers)
        brokers.properties = properties
        return brokers


def client_properties(brokers: str) -> dict[str, Any]:
    """Return what every client of the brokers is made with; plain text is an open Kafka's address.

    Raises:
        SetupError: a secret cannot be read.
        EngineUnavailable: the vault does not answer.
    """
    properties = brokers.properties if isinstance(brokers, Brokers) else NO_OPTIONS
    return {"bootstrap.servers": str(brokers), **properties.reveal()}
