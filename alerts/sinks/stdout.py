"""The process's own output: a run's log in Dagster, or a container's."""

import sys
from dataclasses import dataclass
from types import MappingProxyType

from alerts.message import Batching, Delivery
from alerts.sinks.sink import Field, Options

FIELDS: MappingProxyType[str, Field] = MappingProxyType({})


@dataclass(frozen=True)
class Stdout:
    """One line per line of the message, each with the key in front."""

    batching: Batching = "single"

    def send(self, delivery: Delivery) -> None:
        """Write it; see ``Sink``."""
        for message in delivery.messages:
            for line in message.paragraph.splitlines():
                sys.stdout.write(f"alert {message.key} {line}\n")
        sys.stdout.flush()


def build(_options: Options) -> Stdout:
    """Make it; there is nothing to configure."""
    return Stdout()
