"""Windows that slide, lifetimes and sessions, and all kinds there are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.calendar_windows import Tumbling
from millrace.durations import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    format_duration,
)
from millrace.window import FAR_MS, I, Window, hops

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

# Each divides the one before it, so a coarser tile is always a merge of finer ones.
DEFAULT_HOPS_MS = (
    DAY_MS,
    HOUR_MS,
    5 * MINUTE_MS,
    MINUTE_MS,
    10 * SECOND_MS,
    SECOND_MS,
)


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
        return hops(starts, tail_ms, self.hop_ms)

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
        return hops(starts, end_ms if self.offset_ms else FAR_MS, self.hop_ms)

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
        return hops(starts, (from_ms - self.max_ms) // self.hop_ms * self.hop_ms, self.hop_ms)

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


def _moved_document(length_ms: int | None, hop_ms: int, offset_ms: int) -> dict[str, Any]:
    return {"length_ms": length_ms, "hop_ms": hop_ms, "offset_ms": offset_ms}
