"""Where access is decided: who asks decides what a plan may show.

A decision is part of the key of a compiled plan, so it costs a request one call, and a mask one per
value. The server as it is lets everybody see everything.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Decision:
    """What a caller may see.

    Attributes:
        policy_class: equal for callers to whom the same holds: their plans are compiled once.
        masks: by view and feature, what stands in place of its values, which are never null.
    """

    policy_class: Hashable = None
    masks: Mapping[tuple[str, str], Callable[[Any], Any]] = field(
        default_factory=dict, compare=False
    )


Access = Callable[[bytes | None], Decision]
"""Takes a request's ``Authorization``, None if it has none; a ``PlatformError`` refuses it."""

_OPEN = Decision()


def open_to_all(_: bytes | None) -> Decision:
    """Let everybody see everything."""
    return _OPEN
