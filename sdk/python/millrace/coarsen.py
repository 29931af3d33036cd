"""Coarse tiles: neighbours that no feature can tell apart any more become one.

A window cuts between two tiles only where its ends have still to pass: at multiples of its hop, or
where a day of its time zone begins. Whatever lies between two such cuts is in the window as a whole or out of it as a whole, for
every instant that may still be asked. So the old part of a lifetime is one tile, and a window of 90
days with a hop of a day keeps one tile per day, while the stream's tiles stay as fine as ever.

Source: Tecton's online compaction, which likewise keeps large tiles in the middle and small ones
at both ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from millrace.aggregates.algebras import Algebra, CountingRows, ExtremeTime, Newest
from millrace.aggregates.partials import FirstTime
from millrace.plan import Measure, ViewPlan
from millrace.tiles import TileColumn, has_sessions, tile_columns
from millrace.types import INT64
from millrace.window import Window

if TYPE_CHECKING:
    import numpy.typing as npt

    Instants = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Coarsening:
    """Which tiles of a view merge into which.

    Attributes:
        windows: the view's distinct windows.
        start_ms: the view's start; nothing lies before it.
        query_from_ms: no instant before it is asked any more.
        sealed_before_ms: only tiles before it are merged; a multiple of the tile hop, at most
            ``query_from_ms``.
    """

    windows: tuple[Window, ...]
    start_ms: int
    query_from_ms: int
    sealed_before_ms: int

    @classmethod
    def of(cls, view: ViewPlan, query_from_ms: int, sealed_before_ms: int) -> "Coarsening":
        """Return the coarsening of a view's tiles."""
        windows = tuple(dict.fromkeys(feature.window for feature in view.features))
        return cls(windows, view.start_ms, query_from_ms, sealed_before_ms)

    @property
    def reach_from_ms(self) -> int:
        """The instant before which no tile counts any more."""
        tails = [window.bounds(self.query_from_ms)[0] for window in self.windows]
        known = [tail for tail in tails if tail is not None]
        reach = self.start_ms if len(known) < len(tails) else min(known, default=self.start_ms)
        return max(reach, self.start_ms)

    def ranges(self, starts: "Instants") -> "tuple[Instants, Instants]":
        """Return the range ``[begin, end)`` whose tiles merge, of each tile by its start.

        Args:
            starts: starts of tiles before ``sealed_before_ms`` and not before ``reach_from_ms``.

        Returns:
            Begin and end of each; a merged tile starts where its range begins.
        """
        begins = np.full(starts.shape, self.start_ms, dtype=np.int64)
        ends = np.full(starts.shape, self.sealed_before_ms, dtype=np.int64)
        for window in self.windows:
            begin, end = window.parts(starts, self.query_from_ms)
            np.maximum(begins, begin, out=begins)
            np.minimum(ends, end, out=ends)
        return begins, ends


class TileMerger:
    """Merges tiles of one entity and view into one tile over all their events.

    A tile is a sequence of its values here, in the order of ``tile_columns``; edges are ``Edge``.
    """

    def __init__(self, view: ViewPlan) -> None:
        places = {column: place for place, column in enumerate(tile_columns(view))}
        self._width = len(places)
        kept: dict[tuple[Measure | None, Algebra], tuple[int, ...]] = {}
        for measure, algebra in (
            (None, CountingRows(INT64)),
            (None, Newest(INT64)),
            *([(None, ExtremeTime(INT64, FirstTime))] if has_sessions(view) else []),
            *((feature.measure, feature.aggregate.algebra) for feature in view.features),
        ):
            columns = [TileColumn(measure, partial) for partial in algebra.partials]
            kept[measure, algebra] = tuple(places[column] for column in columns)
        # A count is often a part of what another aggregate keeps, and merges with that.
        self._folds = [
            (algebra, mine)
            for (_, algebra), mine in kept.items()
            if not any(set(mine) < set(others) for others in kept.values())
        ]

    def merge(self, tiles: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """Return the tile of the events of all of these, at least one."""
        if len(tiles) == 1:
            return tiles[0]
        columns = list(zip(*tiles, strict=True))
        merged: list[Any] = [None] * self._width
        for algebra, places in self._folds:
            state = algebra.init()
            for values in zip(*[columns[place] for place in places], strict=True):
                state = algebra.merge(state, algebra.unpack(values))
            for place, value in zip(places, algebra.pack(state), strict=True):
                merged[place] = value
        return merged
