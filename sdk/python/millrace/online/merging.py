"""Tiles merged into values: each algebra runs once over a tile, whatever windows share it.

The windows that end now are nested, so their states are grown from the shortest
to the longest: a tile that lies in all of them is merged once. A window that ends
in the past lies elsewhere and is merged on its own.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from millrace.aggregates import AGGREGATES, Aggregate, Algebra, State, check_forms
from millrace.calendar_windows import Tumbling
from millrace.online.folding import Fold, HeldTiles, columns_of, fold_of
from millrace.types import parse_type
from millrace.window import Window
from millrace.windows import KINDS, Lifetime, Session, Sliding, read_window

Span = tuple[int, int]
"""First tile of a window and the one behind its last, as places in an ordered list of tiles."""


class Member(NamedTuple):
    """A feature: its place, that of its window, and what makes its value of the merged state.

    Attributes:
        over: place of the slot that says whether there is too much to have a value; None: there
            never is.
    """

    feature: int
    window: int
    aggregate: Aggregate
    over: int | None

    def write(self, values: list[Any], state: State) -> None:
        """Write what a row says of a merged state."""
        entry = self.aggregate.entry
        values[self.feature] = entry.finalize(self.aggregate, state)
        if self.over is not None and entry.is_over is not None:
            values[self.over] = entry.is_over(state)


@dataclass(frozen=True)
class Group:
    """The features that merge the same columns by the same algebra, over different windows.

    Attributes:
        columns: places in a tile of the columns that are read of every tile.
        nested: features over windows that end at the query, by window.
        moved: features over windows that end before it.
    """

    algebra: Algebra
    fold: Fold
    columns: tuple[int, ...]
    nested: Mapping[int, Sequence[Member]]
    moved: Sequence[Member]

    def merge_into(
        self, values: list[Any], spans: Sequence[Span], shortest: Sequence[int], held: HeldTiles
    ) -> None:
        """Write the value of each feature of the group to its place.

        Args:
            values: a row's values, by feature.
            spans: of each window, in ``held``.
            shortest: windows, those that reach back less before others.
            held: the tiles of all windows.
        """
        state, done = self.algebra.init(), len(held.tiles)
        for window in [one for one in shortest if one in self.nested]:
            members = self.nested[window]
            # An empty one, of a session that is over, says nothing of how far others reach.
            first, end = spans[window]
            if first < min(end, done):
                state = self.fold(state, held, first, min(end, done))
                done = first
            for member in members:
                member.write(values, state)
        for member in self.moved:
            member.write(values, self.fold(self.algebra.init(), held, *spans[member.window]))


def groups_of(
    features: Sequence[Mapping[str, Any]],
    windows: Sequence[Window],
    tile_slots: Sequence[str],
    over: Sequence[int | None],
) -> tuple[Group, ...]:
    """Return the groups of a serving plan's features.

    Args:
        features: as the plan lists them.
        windows: the distinct ones.
        tile_slots: names of a tile's slots.
        over: by feature, see ``Member``.
    """
    groups: dict[tuple[Algebra, tuple[int, ...]], list[Member]] = {}
    for place, feature in enumerate(features):
        columns = tuple(tile_slots.index(name) for name in feature["merged_from"])
        aggregate = aggregate_of(feature)
        window = windows.index(read_window(feature["window"]))
        member = Member(place, window, aggregate, over[place])
        groups.setdefault((aggregate.algebra, columns), []).append(member)
    return tuple(_group(*of, members, windows) for of, members in groups.items())


def _group(
    algebra: Algebra, columns: tuple[int, ...], members: list[Member], windows: Sequence[Window]
) -> Group:
    nested: dict[int, list[Member]] = {}
    moved = []
    for member in members:
        if windows[member.window].ends_at_query:
            nested.setdefault(member.window, []).append(member)
        else:
            moved.append(member)
    return Group(algebra, fold_of(algebra, columns), columns_of(algebra, columns), nested, moved)


def aggregate_of(feature: Mapping[str, Any]) -> Aggregate:
    """Return the aggregate of a serving plan's feature."""
    input_type = feature["input_type"]
    return AGGREGATES[feature["aggregate"]].bind(
        None if input_type is None else parse_type(input_type), feature.get("parameters")
    )


Edges = Callable[[int], tuple[int, int]]
"""Gives the oldest and the newest event of a tile by its place."""


def span_of(
    window: Window, as_of_ms: int, start_ms: int, starts: Sequence[int], edges: Edges
) -> Span:
    """Return which of the tiles, by their ordered starts, a window holds at an instant.

    A tile belongs to a window as a whole; its start alone decides, so that a coarse one, merged of
    neighbours that no feature can tell apart any more, still counts where they would.
    """
    tail_ms, end_ms = window.bounds(as_of_ms)
    first = bisect_left(starts, start_ms if tail_ms is None else max(tail_ms, start_ms))
    span = first, max(first, bisect_left(starts, end_ms))
    return _NARROWED[type(window)](window, span, as_of_ms, edges)


def _whole(window: Window, span: Span, as_of_ms: int, edges: Edges) -> Span:
    return span


def _newest_run(window: Session, span: Span, as_of_ms: int, edges: Edges) -> Span:
    """Return the tiles of the newest run; a tile is shorter than a gap, so none holds two."""
    (first, end), reached_ms = span, as_of_ms
    begin = end
    while begin > first:
        oldest_ms, newest_ms = edges(begin - 1)
        if reached_ms - newest_ms >= window.gap_ms:
            break
        begin, reached_ms = begin - 1, oldest_ms
    return begin, end


_NARROWED: Mapping[type[Window], Callable[[Any, Span, int, Edges], Span]] = {
    Sliding: _whole,
    Lifetime: _whole,
    Tumbling: _whole,
    Session: _newest_run,
}
"""Which of the tiles between its bounds a window holds."""

check_forms("the merging of tiles", KINDS, _NARROWED)


def next_change_ms(
    window: Window, span: Span, as_of_ms: int, starts: Sequence[int], edges: Edges
) -> int | None:
    """Return when time alone first moves a tile out of the window or into it; None: never."""
    first, end = span
    return window.next_change_ms(
        as_of_ms,
        starts[first] if first < end else None,
        starts[end] if end < len(starts) else None,
        edges(end - 1)[1] if first < end else None,
    )
