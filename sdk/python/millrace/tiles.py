"""Tiles: which columns a view keeps of one hop of one entity, and how they become values.

A tile is the partial aggregate of the events of ``[tile_start_ms, tile_start_ms + hop)``. Spark and
Flink write the same columns for it, the store packs them in this order, and the server merges
them. Features that need the same partial of the same measure share its column.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from millrace.aggregates import PARTIALS, Edge, LastEvent, Partial, Place, Rows
from millrace.aggregates.partials import FirstTime
from millrace.plan import FeaturePlan, Measure, ViewPlan
from millrace.types import INT64, DataType
from millrace.windows import Session

TILE_START = "tile_start_ms"
"""First millisecond of the tile; with the join keys it is the key of a tile."""
LAST_EVENT = LastEvent.suffix
"""Event time of the tile's newest event: the ``ts`` of a value and the guard of an upsert."""
FIRST_EVENT = FirstTime.suffix
"""Event time of the tile's oldest event, where a view has a session."""
ROWS = Rows.suffix
"""Number of events in the tile."""

Tile = Mapping[str, Any]
"""The columns of one tile by name, without its key; every column of ``tile_columns`` is there."""


@dataclass(frozen=True)
class TileColumn:
    """One column of a view's tiles.

    Attributes:
        measure: what it is a partial of; None of events as such.
        partial: what it keeps.
    """

    measure: Measure | None
    partial: Partial

    @property
    def name(self) -> str:
        """Its name: ``m0_sum``; what is of no measure is called after what it keeps."""
        name = self.partial.name
        return name if self.measure is None else f"{self.measure.name}_{name}"

    @property
    def of(self) -> Measure:
        """The measure it is a partial of; only for partials that have one."""
        assert self.measure is not None, self.partial  # noqa: S101 - forms ask where there is one
        return self.measure

    @property
    def type(self) -> DataType:
        """Type of the value; of the value inside the ``Edge`` where it keeps one."""
        return self.partial.type


FIRST = TileColumn(None, FirstTime(INT64))
"""The column of ``FIRST_EVENT``."""


@dataclass(frozen=True)
class TileEvent:
    """An event as tiles see it: its place and its measures by name."""

    place: Place
    measures: Mapping[str, Any]


def tile_start_ms(event_ms: int, hop_ms: int) -> int:
    """Return the start of the tile that holds an instant; right before 1970 too.

    >>> tile_start_ms(-1, 1000)
    -1000
    """
    return event_ms // hop_ms * hop_ms


def tile_columns(view: ViewPlan) -> tuple[TileColumn, ...]:
    """Return the columns of a view's tiles after the key.

    ``rows`` first, then what is kept of events as such, then each measure's partials in a fixed
    order, then ``last_event_ms``.
    """
    needed = dict.fromkeys(column for feature in view.features for column in _columns(feature))
    if has_sessions(view):
        needed[FIRST] = None
    order = {measure: place for place, measure in enumerate(view.measures)}
    ordered = sorted(
        (column for column in needed if not isinstance(column.partial, Rows)),
        key=lambda c: (
            -1 if c.measure is None else order[c.measure],
            PARTIALS.index(type(c.partial)),
        ),
    )
    return (TileColumn(None, Rows(INT64)), *ordered, TileColumn(None, LastEvent(INT64)))


def has_sessions(view: ViewPlan) -> bool:
    """Tell whether a view's tiles must know their first event, from which sessions are made."""
    return any(isinstance(feature.window, Session) for feature in view.features)


def feature_columns(feature: FeaturePlan) -> tuple[str, ...]:
    """Return the tile columns a feature is made of, in the order its aggregate unpacks them."""
    return tuple(column.name for column in _columns(feature))


def build_tile(view: ViewPlan, events: Iterable[TileEvent]) -> Tile:
    """Return the tile of the given events, which must all lie in its hop, in any order."""
    held = list(events)
    columns: dict[str, Any] = {
        ROWS: len(held),
        LAST_EVENT: max((e.place.event_ms for e in held), default=None),
    }
    if has_sessions(view):
        columns[FIRST_EVENT] = min((e.place.event_ms for e in held), default=None)
    for feature in view.features:
        algebra = feature.aggregate.algebra
        state = algebra.init()
        for event in held:
            value = 1 if feature.measure is None else event.measures[feature.measure.name]
            state = algebra.update(state, value, event.place)
        columns.update(zip(feature_columns(feature), algebra.pack(state), strict=True))
    return columns


def merge_tiles(feature: FeaturePlan, tiles: Iterable[Tile], query_ms: int) -> Any:
    """Return a feature's value at an instant over the tiles that its window holds then.

    They are of distinct hops, in any order; none: the empty value.

    A tile's edges may be ``Edge`` records or plain tuples and dicts of their four fields.
    """
    algebra = feature.aggregate.algebra
    state = algebra.init()
    for kept in _kept(feature, tiles):
        state = algebra.merge(state, algebra.unpack(kept))
    return feature.aggregate.value_at(query_ms, feature.aggregate.finalize(state))


def _kept(feature: FeaturePlan, tiles: Iterable[Tile]) -> Iterator[tuple[Any, ...]]:
    columns = _columns(feature)
    for tile in tiles:
        yield tuple(
            _as_edge(tile[column.name]) if column.partial.holds_edge else tile[column.name]
            for column in columns
        )


def _as_edge(value: Any) -> Edge | None:
    if value is None or isinstance(value, Edge):
        return value
    if isinstance(value, Mapping):
        return Edge(value["event_ms"], value["ingest_ms"], value.get("event_id"), value["value"])
    return Edge(*value)


def _columns(feature: FeaturePlan) -> tuple[TileColumn, ...]:
    return tuple(TileColumn(feature.measure, partial) for partial in feature.aggregate.partials)
