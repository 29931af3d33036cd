"""What every kind of window answers, so that engines need not know which they have."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

I = TypeVar("I", int, "Int64s")  # noqa: E741 - instants: one, or many at once

FAR_MS = 2**62
"""Before and after every instant there is."""


class Window(ABC):
    """Which events count at a query.

    Attributes:
        hop_ms: what bounds a window in the past is a multiple of this, so tiles are of it.
    """

    hop_ms: int

    @abstractmethod
    def bounds(self, query_ms: I) -> "tuple[I | None, I]":
        """Return ``(start, end)`` of the half-open interval of event times that count.

        ``start`` is None for a lifetime. Right before 1970 too.

        Args:
            query_ms: one instant, or an array of many.
        """

    def newest_from_ms(self, query_ms: int) -> int | None:
        """Return the instant from which on an entity's newest event is in the window; None: any."""
        return self.bounds(query_ms)[0]

    @property
    @abstractmethod
    def length_ms(self) -> int | None:
        """The longest that lies between two events that both count; None for a lifetime."""

    @property
    @abstractmethod
    def reach_ms(self) -> int | None:
        """How far before a query an event can still count; None for a lifetime."""

    @property
    @abstractmethod
    def ends_at_query(self) -> bool:
        """Whether the newest events count, so that windows that do so end alike."""

    @abstractmethod
    def next_change_ms(
        self, as_of_ms: int, oldest_ms: int | None, next_ms: int | None, newest_ms: int | None
    ) -> int | None:
        """Return when time alone first moves a tile out of the window or into it; None: never.

        Args:
            as_of_ms: the query from which on it is asked.
            oldest_ms: start of the oldest tile in the window at it; None: there is none.
            next_ms: start of the oldest tile behind its end; None: there is none.
            newest_ms: the newest event in the window; None: there is none.
        """

    @abstractmethod
    def parts(self, starts: "Int64s", from_ms: int) -> "tuple[Int64s, Int64s]":
        """Return the interval around each start of a tile that no query from one on cuts.

        Returns:
            Begin and end of each; ``FAR_MS`` where nothing ever cuts.
        """

    @abstractmethod
    def document(self) -> dict[str, Any]:
        """Return the fields that name the window in fingerprints and serving plans."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The window as a person would say it: ``7d``, ``lifetime``."""

    @property
    def ago(self) -> str:
        """How far it lies in the past, as a duration; empty for not at all."""
        return ""


def hops(starts: "Int64s", first_ms: int, hop_ms: int) -> "tuple[Int64s, Int64s]":
    """Return the hop around each start; before the first one it is all the time there was."""
    import numpy as np

    floors = starts // hop_ms * hop_ms
    is_cut = starts >= first_ms
    return np.where(is_cut, floors, -FAR_MS), np.where(is_cut, floors + hop_ms, first_ms)
