"""Windows that begin where the clocks of a time zone do."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from millrace.window import FAR_MS, I, Window
from millrace.zones import BLOCK_MS, LONGEST_MS, SET_CLOCKS_MS, beginnings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]


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
