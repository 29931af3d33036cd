"""Kafka's address together with what it asks of a client."""

from typing import Any, Self

from resources.secret import NO_OPTIONS, Options


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
