"""Window arithmetic: the one place that says which instants a window holds."""

from dataclasses import dataclass

from millrace.durations import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

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
class Window:
    """A sliding window whose head follows the query and whose tail hops.

    Attributes:
        length_ms: length; None for a lifetime, which has no tail.
        hop_ms: the tail (with an offset: both ends) moves in steps of this.
        offset_ms: how far the window lies in the past; 0 for none.
    """

    length_ms: int | None
    hop_ms: int
    offset_ms: int = 0

    def bounds(self, query_ms: int) -> tuple[int | None, int]:
        """Return ``(start, end)`` of the half-open interval of event times that count.

        ``start`` is None for a lifetime. Python's ``//`` floors, so instants before 1970 are right.

        >>> Window(3_600_000, 300_000).bounds(1_700_010_299_999)
        (1700006400000, 1700010299999)
        """
        hop, anchor = self.hop_ms, query_ms - self.offset_ms
        end = query_ms if self.offset_ms == 0 else anchor // hop * hop
        if self.length_ms is None:
            return None, end
        return (anchor - self.length_ms) // hop * hop, end

    @property
    def reach_ms(self) -> int | None:
        """How far before a query an event can still count; None for a lifetime."""
        if self.length_ms is None:
            return None
        return self.offset_ms + self.length_ms + self.hop_ms


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
