"""Forms of partials that are the same SQL in every engine: aggregates over the events of a tile."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sqlglot import exp

from millrace.aggregates import Partial, partials
from millrace.compile.trees import column, is_not_null
from millrace.plan import ViewPlan
from millrace.tiles import TileColumn

EVENT_MS = "_event_ms"


def measured(kept: TileColumn) -> exp.Expression:
    """Return the value that a partial is of."""
    return column(kept.of.name)


def _rows(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Count(this=exp.Star())


def _last_event(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Max(this=column(EVENT_MS))


def _count(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Count(this=measured(kept))


def _min(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Min(this=measured(kept))


def _max(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Max(this=measured(kept))


def _time(kept: TileColumn) -> exp.Expression:
    """The event time where there is a value."""
    if kept.measure is None:
        return column(EVENT_MS)
    return exp.Case().when(is_not_null(measured(kept)), column(EVENT_MS))


def _first_time(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Min(this=_time(kept))


def _last_time(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Max(this=_time(kept))


ENCODED = tuple(kind for kind in partials.PARTIALS if issubclass(kind, partials.Encoded))
"""The kinds of partial that are bytes."""

PLAIN: Mapping[type[Partial], Callable[[ViewPlan, TileColumn], exp.Expression]] = MappingProxyType(
    {
        partials.Rows: _rows,
        partials.Count: _count,
        partials.Min: _min,
        partials.Max: _max,
        partials.FirstTime: _first_time,
        partials.LastTime: _last_time,
        partials.LastEvent: _last_event,
    }
)
"""The engines' tables of forms begin with these."""
