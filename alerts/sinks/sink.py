"""What a sink is: its fields in the configuration, how it sends, and the two ways it can fail."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from alerts.message import Batching, Delivery
from millrace.errors import EngineRejected, EngineUnavailable

Shape = Literal["text", "secret", "texts", "pairs", "number"]


@dataclass(frozen=True)
class Field:
    """One key of a sink in the configuration.

    Attributes:
        shape: a ``secret`` may be written only as ``${NAME}`` of an environment variable.
        choices: the only values; empty for any.
        least: the smallest number; None for any.
    """

    shape: Shape
    is_required: bool = False
    choices: tuple[str, ...] = ()
    least: int | None = None


Options = Mapping[str, Any]
"""The fields of one sink, its environment variables put in."""


class SinkUnavailable(EngineUnavailable):
    """The sink takes nothing now, or refuses whoever we are; its queue waits.

    Attributes:
        retry_after_s: how long the sink asks to be left alone; None if it does not say.
    """

    code = "sink_unavailable"

    def __init__(
        self, what: str, *, where: str = "", fix: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.retry_after_s = retry_after_s


class MessageRefused(EngineRejected):
    """The sink works and refuses this one message; it would refuse it again."""

    code = "message_refused"


class Sink(Protocol):
    """Where alerts go."""

    @property
    def batching(self) -> Batching:
        """How it wants a storm."""
        ...

    def send(self, delivery: Delivery) -> None:
        """Hand over a delivery; when this returns, the receiver has it.

        Raises:
            SinkUnavailable: worth another try later, with the same key.
            MessageRefused: not worth one.
        """
        ...
