"""Tiles: which columns a view keeps of one hop of one entity, and how they become values.

A tile is the partial aggregate of the events of ``[tile_start_ms, tile_start_ms + hop)``. Spark and
Flink write the same columns for it, the store packs them in this order, and the server merges
them. Features that need the same partial of the same measure share its column.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from millrace.aggregates import AGGREGATES, Aggregate, Edge, Partial, Place
from millrace.plan import FeaturePlan, Measure, ViewPlan
from millrace.types import INT64, DataType

TILE_START = "tile_start_ms"
"""First millisecond of the tile; with the join keys it is the key of a tile."""
LAST_EVENT = "last_event_ms"
"""Event time of the tile's newest event: the ``ts`` of a value and the guard of an upsert."""
ROWS = "rows"
"""Number of events in the tile."""

_SUFFIXES = ("rows", "count", "sum", "min", "max", "mean", "m2", "first", "last")

Tile = Mapping[str, Any]
"""The columns of one tile by name, without its key; every column of ``tile_columns`` is there."""


@dataclass(frozen=True)
class TileColumn:
    """One column of a view's tiles.

    Attributes:
        measure: what it is a partial of; None for ``rows`` and ``last_event_ms``.
        suffix: the partial's suffix, see ``millrace.aggregates.Partial``.
        type: type of the value; for ``first`` and ``last`` of the value inside the ``Edge``.
        is_edge: the column holds an ``Edge``.
    """

    name: str
    measure: Measure | None
    suffix: str
    type: DataType
    is_edge: bool = False


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

    ``rows`` first, then each measure's partials in a fixed order, then ``last_event_ms``.
    """
    needed: dict[str, TileColumn] = {}
    for feature in view.features:
        for partial in _partials(feature):
            name = column_name(feature.measure, partial)
            needed[name] = TileColumn(
                name, feature.measure, partial.suffix, partial.type, partial.is_edge
            )
    needed.pop(ROWS, None)
    order = {measure.name: i for i, measure in enumerate(view.measures)}
    ordered = sorted(
        needed.values(),
        key=lambda c: (order[c.measure.name] if c.measure else -1, _SUFFIXES.index(c.suffix)),
    )
    return (
        TileColumn(ROWS, None, "rows", INT64),
        *ordered,
        TileColumn(LAST_EVENT, None, LAST_EVENT, INT64),
    )


def column_name(measure: Measure | None, partial: Partial) -> str:
    """Return the tile column of a partial: ``m0_sum``; ``rows`` belongs to no measure."""
    return partial.suffix if measure is None else f"{measure.name}_{partial.suffix}"


def feature_columns(feature: FeaturePlan) -> tuple[str, ...]:
    """Return the tile columns a feature is made of, in the order its aggregate unpacks them."""
    return tuple(column_name(feature.measure, partial) for partial in _partials(feature))


def build_tile(view: ViewPlan, events: Iterable[TileEvent]) -> Tile:
    """Return the tile of the given events, which must all lie in its hop, in any order."""
    held = list(events)
    columns: dict[str, Any] = {
        ROWS: len(held),
        LAST_EVENT: max((e.place.event_ms for e in held), default=None),
    }
    for feature in view.features:
        aggregate, type_ = AGGREGATES[feature.aggregate], _measured(feature)
        state = aggregate.init(type_)
        for event in held:
            value = 1 if feature.measure is None else event.measures[feature.measure.name]
            state = aggregate.update(state, value, event.place)
        packed = aggregate.pack(state, type_)
        columns.update(zip(feature_columns(feature), packed, strict=True))
    return columns


def merge_tiles(feature: FeaturePlan, tiles: Iterable[Tile]) -> Any:
    """Return a feature's value over tiles of distinct hops, in any order; none: the empty value.

    A tile's edges may be ``Edge`` records or plain tuples and dicts of their four fields.
    """
    aggregate, type_ = AGGREGATES[feature.aggregate], _measured(feature)
    state = aggregate.init(type_)
    for kept in _kept(aggregate, feature, tiles):
        state = aggregate.merge(state, aggregate.unpack(kept, type_))
    return aggregate.finalize(state, type_)


def _kept(
    aggregate: Aggregate, feature: FeaturePlan, tiles: Iterable[Tile]
) -> Iterator[tuple[Any, ...]]:
    names = feature_columns(feature)
    is_edge = aggregate.partials(_measured(feature))[0].is_edge
    for tile in tiles:
        values = tuple(tile[name] for name in names)
        yield (_as_edge(values[0]),) if is_edge else values


def _as_edge(value: Any) -> Edge | None:
    if value is None or isinstance(value, Edge):
        return value
    if isinstance(value, Mapping):
        return Edge(value["event_ms"], value["ingest_ms"], value.get("event_id"), value["value"])
    return Edge(*value)


def _partials(feature: FeaturePlan) -> tuple[Partial, ...]:
    return AGGREGATES[feature.aggregate].partials(_measured(feature))


def _measured(feature: FeaturePlan) -> DataType | None:
    return None if feature.measure is None else feature.measure.type
