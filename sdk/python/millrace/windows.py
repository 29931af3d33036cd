"""Window arithmetic: the one place that says which instants a window holds."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from millrace.durations import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    format_duration,
)
from millrace.zones import BLOCK_MS, LONGEST_MS, SET_CLOCKS_MS, beginnings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

I = TypeVar("I", int, "Int64s")  # noqa: E741 - instants: one, or many at once

# Each divides the one before it, so a coarser tile is always a merge of finer ones.
DEFAULT_HOPS_MS = (
    DAY_MS,
    HOUR_MS,
    5 * MINUTE_MS,
    MINUTE_MS,
    10 * SECOND_MS,
    SECOND_MS,
)

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


@dataclass(frozen=True)
class Sliding(Window):
    """A window whose head follows the query and whose tail hops.

    Attributes:
        span_ms: its length.
        hop_ms: the tail (with an offset: both ends) moves in steps of this.
        offset_ms: how far the window lies in the past; 0 for none.
    """

    span_ms: int
    hop_ms: int
    offset_ms: int = 0

    def bounds(self, query_ms: I) -> "tuple[I | None, I]":
        """Return ``(start, end)``, see ``Window``.

        >>> Sliding(3_600_000, 300_000).bounds(1_700_010_299_999)
        (1700006400000, 1700010299999)
        """
        start = (query_ms - self.offset_ms - self.span_ms) // self.hop_ms * self.hop_ms
        return start, _end(query_ms, self.hop_ms, self.offset_ms)

    @property
    def length_ms(self) -> int:
        """Its length."""
        return self.span_ms

    @property
    def reach_ms(self) -> int:
        """Its length, its offset and a hop."""
        return self.offset_ms + self.span_ms + self.hop_ms

    @property
    def ends_at_query(self) -> bool:
        """Whether it has no offset."""
        return self.offset_ms == 0

    def next_change_ms(
        self, as_of_ms: int, oldest_ms: int | None, next_ms: int | None, newest_ms: int | None
    ) -> int | None:
        """Return when its tail passes the oldest tile, or its end the next one."""
        changes = []
        if oldest_ms is not None:
            behind_ms = (oldest_ms // self.hop_ms + 1) * self.hop_ms
            changes.append(behind_ms + self.offset_ms + self.span_ms)
        if self.offset_ms and next_ms is not None:
            changes.append((next_ms // self.hop_ms + 1) * self.hop_ms + self.offset_ms)
        return min(changes, default=None)

    def parts(self, starts: "Int64s", from_ms: int) -> "tuple[Int64s, Int64s]":
        """Return hops from the tail of the first query on; nothing cuts before."""
        tail_ms = (from_ms - self.offset_ms - self.span_ms) // self.hop_ms * self.hop_ms
        return _hops(starts, tail_ms, self.hop_ms)

    def document(self) -> dict[str, Any]:
        """Return length, hop and offset."""
        return _moved_document(self.span_ms, self.hop_ms, self.offset_ms)

    @property
    def words(self) -> str:
        """Its length."""
        return format_duration(self.span_ms)

    @property
    def ago(self) -> str:
        """Its offset."""
        return format_duration(self.offset_ms) if self.offset_ms else ""


@dataclass(frozen=True)
class Lifetime(Window):
    """All events before the query, or before what lies an offset before it.

    Attributes:
        hop_ms: the end moves in steps of this if there is an offset.
        offset_ms: how far the end lies in the past; 0 for none.
    """

    hop_ms: int
    offset_ms: int = 0

    def bounds(self, query_ms: I) -> "tuple[I | None, I]":
        """Return ``(None, end)``."""
        return None, _end(query_ms, self.hop_ms, self.offset_ms)

    @property
    def length_ms(self) -> None:
        """None: it has no tail."""
        return

    @property
    def reach_ms(self) -> None:
        """None: every event counts."""
        return

    @property
    def ends_at_query(self) -> bool:
        """Whether it has no offset."""
        return self.offset_ms == 0

    def next_change_ms(
        self, as_of_ms: int, oldest_ms: int | None, next_ms: int | None, newest_ms: int | None
    ) -> int | None:
        """Return when its end passes the next tile."""
        if self.offset_ms == 0 or next_ms is None:
            return None
        return (next_ms // self.hop_ms + 1) * self.hop_ms + self.offset_ms

    def parts(self, starts: "Int64s", from_ms: int) -> "tuple[Int64s, Int64s]":
        """Return hops from the end of the first query on, if it hops at all."""
        _, end_ms = self.bounds(from_ms)
        return _hops(starts, end_ms if self.offset_ms else FAR_MS, self.hop_ms)

    def document(self) -> dict[str, Any]:
        """Return that there is no length, hop and offset."""
        return _moved_document(None, self.hop_ms, self.offset_ms)

    @property
    def words(self) -> str:
        """``lifetime``."""
        return "lifetime"

    @property
    def ago(self) -> str:
        """Its offset."""
        return format_duration(self.offset_ms) if self.offset_ms else ""


@dataclass(frozen=True)
class Tumbling(Window):
    """An hour, day, week or month of a time zone: what there is of it, or a whole one before.

    Attributes:
        unit: ``1h``, ``1d``, ``1w`` (from Monday) or ``1mo``.
        timezone: IANA name.
        previous: which one before that of the query; 0: that one, up to the query.
        hop_ms: see ``millrace.zones.calendar_hop_ms``.
    """

    unit: str
    timezone: str
    previous: int
    hop_ms: int

    def bounds(self, query_ms: I) -> "tuple[I | None, I]":
        """Return ``(start, end)``, see ``Window``.

        >>> Tumbling("1d", "Europe/London", 0, 3_600_000).bounds(1_522_540_800_001)  # 2018-04-01
        (1522537200000, 1522540800001)
        """
        if isinstance(query_ms, int):
            instants, place = self._place(query_ms)
            start_ms = instants[place - self.previous]
            return start_ms, query_ms if self.previous == 0 else instants[place - self.previous + 1]
        return self._bounds_of_many(query_ms)

    def _bounds_of_many(self, queries: "Int64s") -> "tuple[Int64s, Int64s]":
        import numpy as np

        near = np.unique(queries // BLOCK_MS)
        back = -(-self.reach_ms // BLOCK_MS)
        blocks = np.unique(near[:, None] + np.arange(-back, 1))
        instants = _beginnings(self, tuple(blocks.tolist()))
        places = np.searchsorted(instants, queries, side="right") - 1 - self.previous
        return instants[places], queries if self.previous == 0 else instants[places + 1]

    def _place(self, query_ms: int) -> tuple[list[int], int]:
        """Return beginnings around an instant, and which is the last that is not after it."""
        first = (query_ms - self.reach_ms) // BLOCK_MS
        last = (query_ms + LONGEST_MS[self.unit] + SET_CLOCKS_MS) // BLOCK_MS
        instants = _listed(self, first, last)
        return instants, bisect_right(instants, query_ms) - 1

    @property
    def length_ms(self) -> int:
        """The longest that such a unit lasts while no clock is set."""
        return LONGEST_MS[self.unit]

    @property
    def reach_ms(self) -> int:
        """So many units and one, and what clocks that are set can add."""
        return LONGEST_MS[self.unit] * (self.previous + 1) + SET_CLOCKS_MS

    @property
    def ends_at_query(self) -> bool:
        """Whether it is the one that the query lies in."""
        return self.previous == 0

    def next_change_ms(
        self, as_of_ms: int, oldest_ms: int | None, next_ms: int | None, newest_ms: int | None
    ) -> int | None:
        """Return when the next unit begins."""
        if oldest_ms is None and (self.previous == 0 or next_ms is None):
            return None
        instants, place = self._place(as_of_ms)
        return instants[place + 1]

    def parts(self, starts: "Int64s", from_ms: int) -> "tuple[Int64s, Int64s]":
        """Return units from that of the first query on; nothing cuts before."""
        import numpy as np

        around, place = self._place(from_ms)
        first_ms = around[place - self.previous]
        blocks = range(first_ms // BLOCK_MS, (from_ms + LONGEST_MS[self.unit]) // BLOCK_MS + 2)
        instants = _beginnings(self, tuple(blocks))
        instants = instants[instants >= first_ms]
        edges = np.concatenate([[-FAR_MS], instants, [FAR_MS]])
        places = np.searchsorted(edges, starts, side="right") - 1
        return edges[places], edges[places + 1]

    def document(self) -> dict[str, Any]:
        """Return its fields."""
        given = {"unit": self.unit, "timezone": self.timezone, "previous": self.previous}
        return {"kind": "tumbling", **given, "hop_ms": self.hop_ms}

    @property
    def words(self) -> str:
        """``1d of Europe/Berlin``, ``1d of Europe/Berlin, 1 before``."""
        before = f", {self.previous} before" if self.previous else ""
        return f"{self.unit} of {self.timezone}{before}"


@dataclass(frozen=True)
class Session(Window):
    """The newest run of events in which neighbours lie close, if it has not ended at the query.

    Attributes:
        gap_ms: neighbours, and the newest event and the query, lie less than this apart.
        max_ms: no event counts that lies further before the query.
        hop_ms: see ``session_hop_ms``.
    """

    gap_ms: int
    max_ms: int
    hop_ms: int

    def bounds(self, query_ms: I) -> "tuple[I | None, I]":
        """Return between which instants the run lies, wherever it begins."""
        return (query_ms - self.max_ms) // self.hop_ms * self.hop_ms, query_ms

    def newest_from_ms(self, query_ms: int) -> int:
        """Return the instant from which on a newest event is in the window."""
        tail_ms = (query_ms - self.max_ms) // self.hop_ms * self.hop_ms
        return max(tail_ms, query_ms - self.gap_ms + 1)

    @property
    def length_ms(self) -> int:
        """The longest that a run is looked at."""
        return self.max_ms

    @property
    def reach_ms(self) -> int:
        """Its ``max`` and a hop."""
        return self.max_ms + self.hop_ms

    @property
    def ends_at_query(self) -> bool:
        """True: the newest events count."""
        return True

    def next_change_ms(
        self, as_of_ms: int, oldest_ms: int | None, next_ms: int | None, newest_ms: int | None
    ) -> int | None:
        """Return when the run has ended, or its tail passes the oldest tile."""
        if oldest_ms is None or newest_ms is None:
            return None
        behind_ms = (oldest_ms // self.hop_ms + 1) * self.hop_ms
        return min(newest_ms + self.gap_ms, behind_ms + self.max_ms)

    def parts(self, starts: "Int64s", from_ms: int) -> "tuple[Int64s, Int64s]":
        """Return hops from the tail of the first query on: a run may begin at any of them."""
        return _hops(starts, (from_ms - self.max_ms) // self.hop_ms * self.hop_ms, self.hop_ms)

    def document(self) -> dict[str, Any]:
        """Return its fields."""
        given = {"gap_ms": self.gap_ms, "max_ms": self.max_ms, "hop_ms": self.hop_ms}
        return {"kind": "session", **given}

    @property
    def words(self) -> str:
        """``session of 30m within 1d``."""
        return f"session of {format_duration(self.gap_ms)} within {format_duration(self.max_ms)}"


KINDS: tuple[type[Window], ...] = (Sliding, Lifetime, Tumbling, Session)
"""Every kind of window."""


def read_window(document: Mapping[str, Any]) -> Window:
    """Return the window of a ``Window.document``.

    Raises:
        KeyError, TypeError: it is none, or of a kind that this build does not know.
    """
    if "kind" in document:
        fields = {name: value for name, value in document.items() if name != "kind"}
        return _NAMED[document["kind"]](**fields)
    length_ms, hop_ms, offset_ms = (document[n] for n in ("length_ms", "hop_ms", "offset_ms"))
    if length_ms is None:
        return Lifetime(hop_ms, offset_ms)
    return Sliding(length_ms, hop_ms, offset_ms)


_NAMED: Mapping[str, Callable[..., Window]] = {
    "tumbling": Tumbling,
    "session": Session,
}
"""Kinds whose documents name them; those of the others are as they were before there were any."""


SESSION_HOPS_MS = (5 * MINUTE_MS, MINUTE_MS, 10 * SECOND_MS, SECOND_MS)


def session_hop_ms(gap_ms: int, max_ms: int) -> int | None:
    """Return the hop of a session: the largest of those there are that is at most the gap and divides ``max``.

    No tile of it can hold the end of one run and the beginning of the next. None: there is none.

    >>> session_hop_ms(1_800_000, 86_400_000), session_hop_ms(45_000, 86_400_000)
    (300000, 10000)
    """
    hops = (hop for hop in SESSION_HOPS_MS if hop <= gap_ms and max_ms % hop == 0)
    return next(hops, None)


def default_hop_ms(length_ms: int | None) -> int:
    """Return the hop of a window that names none.

    The largest of 1 d, 1 h, 5 min, 1 min, 10 s and 1 s that is at most a twelfth of the window
    and divides it; 1 s for windows below 12 s; 1 d for a lifetime.

    >>> default_hop_ms(43_200_000), default_hop_ms(90_000)
    (3600000, 1000)
    """
    if length_ms is None:
        return DAY_MS
    for hop in DEFAULT_HOPS_MS:
        if hop <= length_ms // 12 and length_ms % hop == 0:
            return hop
    return SECOND_MS


def _end(query_ms: I, hop_ms: int, offset_ms: int) -> I:
    return query_ms if offset_ms == 0 else (query_ms - offset_ms) // hop_ms * hop_ms


def _hops(starts: "Int64s", first_ms: int, hop_ms: int) -> "tuple[Int64s, Int64s]":
    """Return the hop around each start; before the first one it is all the time there was."""
    import numpy as np

    floors = starts // hop_ms * hop_ms
    is_cut = starts >= first_ms
    return np.where(is_cut, floors, -FAR_MS), np.where(is_cut, floors + hop_ms, first_ms)


def _moved_document(length_ms: int | None, hop_ms: int, offset_ms: int) -> dict[str, Any]:
    return {"length_ms": length_ms, "hop_ms": hop_ms, "offset_ms": offset_ms}


@lru_cache(maxsize=256)
def _beginnings(window: Tumbling, blocks: tuple[int, ...]) -> "Int64s":
    import numpy as np

    return np.concatenate(
        [beginnings(window.unit, window.timezone, window.hop_ms, block) for block in blocks]
    )


@lru_cache(maxsize=256)
def _listed(window: Tumbling, first: int, last: int) -> list[int]:
    found: list[int] = _beginnings(window, tuple(range(first, last + 1))).tolist()
    return found
