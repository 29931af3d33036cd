"""Served answers recomputed from the lake's events, at the instants the answers name.

The same kernel as for training sets, over only the events of the entities asked about. Beside the
features it gives the event time of the newest event of each window, which an answer shows as
``ts``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

from millrace.aggregates import AGGREGATES
from millrace.plan import ViewPlan
from millrace.types import INT64
from offline.tables.history import find_history
from offline.training.local_join import read_events
from resources.online_api import Key
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Expression as Condition

    from millrace.kernel.arrow import KernelView

REORDERED_MS = 250
"""Events that arrive closer to each other than this may have been read in either order."""

MOST_MISSING = 2_000
MOST_GUESSES = 4_096
_FREE_EVENTS = 10
_GUESSES_AT_ONCE = 128

_NEWEST = "_newest_ms"
_GUESS = "_guess"


@dataclass(frozen=True)
class Recomputed:
    """One entity at one instant: each feature's value, and the newest event of its window."""

    values: Mapping[str, Any]
    ts_ms: Mapping[str, int | None]


class Recomputer:
    """The events of some entities of a view, and what they make of its features at any instant."""

    def __init__(
        self,
        settings: Settings,
        view: ViewPlan,
        keys: Sequence[Key],
        as_of_ms: Sequence[int],
        *,
        until_ms: int | None = None,
    ) -> None:
        """Read the events before ``until_ms`` that can matter to these keys, once."""
        import pyarrow as pa
        import pyarrow.compute as pc

        self._view = view
        ordered = any(f.aggregate.entry.is_ordered for f in view.features)
        reads_id = ordered and view.source.event_id is not None
        self._kernel = _with_newest(view, reads_event_id=reads_id)
        history = find_history(settings, view, pa.array(as_of_ms, pa.int64()))
        events = read_events(settings, history, reads_event_id=reads_id, only=_of(view, keys))
        if until_ms is not None:
            events = events.filter(pc.less(events.column("_event_ms"), until_ms))
        self._events = events.append_column(_NEWEST, events.column("_event_ms"))

    def at(self, asked: Sequence[tuple[Key, int]]) -> list[Recomputed]:
        """Return the features of each (key, instant), seeing what had arrived by then."""
        import pyarrow as pa

        spine = self._keys([key for key, _ in asked])
        query_ms = pa.array([at for _, at in asked], pa.int64())
        return self.joined(self._kernel, self._events, spine.append_column("_query_ms", query_ms))

    def in_flight(self, key: Key, as_of_ms: int, allowed_ms: int) -> "InFlight":
        """Return the events of an entity that arrived within ``allowed_ms`` before an instant."""
        import pyarrow as pa
        import pyarrow.compute as pc

        events = self._events
        for entity, value in zip(self._view.entities, key, strict=True):
            typed = _typed([value], entity.type)[0]
            events = events.filter(pc.equal(events.column(entity.join_key), typed))
        events = events.filter(pc.less(events.column("_ingest_ms"), as_of_ms))
        events = events.sort_by([("_ingest_ms", "descending")])
        arrivals: list[int] = events.column("_ingest_ms").to_pylist()
        young = sum(at >= as_of_ms - allowed_ms for at in arrivals)
        kernel = replace(self._kernel, join_keys=(_GUESS,))
        numbered = events.append_column("_row", pa.array(range(len(events)), pa.int64()))
        return InFlight(self, kernel, numbered, tuple(arrivals[:young]), as_of_ms)

    def _keys(self, keys: Sequence[Key]) -> "pa.Table":
        import pyarrow as pa

        columns = zip(*keys, strict=True)
        return pa.table(
            {
                entity.join_key: _typed(list(values), entity.type)
                for entity, values in zip(self._view.entities, columns, strict=True)
            }
        )

    def joined(
        self, kernel: "KernelView", events: "pa.Table", spine: "pa.Table"
    ) -> list[Recomputed]:
        """Return the features of each row of ``spine`` over ``events``, in the kernel's terms."""
        from millrace.kernel.arrow import join_features

        table = join_features(kernel, events, spine)
        view = self._view
        made_of = {
            f.name: tuple(_ts_name(a.window) for a in view.aggregates_of(f)) for f in view.outputs
        }
        rows = zip(*(plain_values(table.column(n)) for n in table.column_names), strict=True)
        found = []
        for row in rows:
            one = dict(zip(table.column_names, row, strict=True))
            found.append(
                Recomputed(
                    {name: one[name] for name in made_of},
                    {name: _newest(one[ts] for ts in newest) for name, newest in made_of.items()},
                )
            )
        return found


@dataclass(frozen=True)
class InFlight:
    """The youngest events of one entity, and what its features were without some of them.

    Attributes:
        arrivals: ingest times of the events that may be missing, newest first.
    """

    recomputer: Recomputer
    kernel: "KernelView"
    events: "pa.Table"
    arrivals: tuple[int, ...]
    as_of_ms: int

    def guesses(self) -> "Iterable[tuple[tuple[int, ...], Recomputed]]":
        """Yield sets of missing events (places in ``arrivals``), and the answer without them."""
        sets = islice(missing_sets(self.arrivals), MOST_GUESSES)
        while some := list(islice(sets, _GUESSES_AT_ONCE)):
            yield from zip(some, self._without(some), strict=True)

    def _without(self, sets: Sequence[tuple[int, ...]]) -> list[Recomputed]:
        import pyarrow as pa
        import pyarrow.compute as pc

        parts = []
        for guess, missing in enumerate(sets):
            gone = pc.is_in(self.events.column("_row"), pa.array(missing, pa.int64()))
            left = self.events.filter(pc.invert(gone))
            parts.append(left.append_column(_GUESS, pa.array([guess] * len(left), pa.int64())))
        spine = pa.table(
            {
                _GUESS: pa.array(range(len(sets)), pa.int64()),
                "_query_ms": pa.array([self.as_of_ms] * len(sets), pa.int64()),
            }
        )
        return self.recomputer.joined(self.kernel, pa.concat_tables(parts), spine)


def missing_sets(arrivals: Sequence[int]) -> Iterable[tuple[int, ...]]:
    """Yield the sets of events that an answer under way may lack, the likeliest first.

    If an event is there, so is every one that arrived ``REORDERED_MS`` or more before it. First
    come the newest, one, two, three and so on; then the sets that this much disorder allows
    besides. Events are named by their place in ``arrivals``.

    Args:
        arrivals: ingest times, newest first, of the events that may be missing.

    >>> list(missing_sets([1000, 990, 100]))
    [(0,), (0, 1), (0, 1, 2), (1,)]
    """
    some = arrivals[:MOST_MISSING]
    for oldest in range(len(some)):
        yield tuple(range(oldest + 1))
    for oldest, arrived in enumerate(some):
        # What came well after a missing event is missing too; what came with it may be or not.
        free = [i for i in range(oldest) if some[i] < arrived + REORDERED_MS][-_FREE_EVENTS:]
        bound = tuple(i for i in range(oldest) if i not in set(free))
        for missing in range(len(free)):
            yield from ((*bound, *chosen, oldest) for chosen in combinations(free, missing))


def _with_newest(view: ViewPlan, *, reads_event_id: bool) -> "KernelView":
    from millrace.kernel.arrow import KernelFeature, KernelView

    kernel = KernelView.of(view)
    windows = dict.fromkeys(f.window for f in view.features)
    newest = [
        KernelFeature(_ts_name(w), AGGREGATES["max"].bind(INT64), _NEWEST, w) for w in windows
    ]
    return replace(
        kernel,
        has_event_id=reads_event_id,
        measures=(*kernel.measures, (_NEWEST, INT64)),
        features=(*kernel.features, *newest),
        order=(*(name for name, _ in kernel.columns), *(f.name for f in newest)),
    )


def _newest(instants_ms: Iterable[int | None]) -> int | None:
    return max((ms for ms in instants_ms if ms is not None), default=None)


def _ts_name(window: Any) -> str:
    # Feature names hold no space.
    return f"ts {window}"


def _of(view: ViewPlan, keys: Sequence[Key]) -> "Condition":
    from functools import reduce
    from operator import and_

    from pyarrow.dataset import field

    columns = zip(*keys, strict=True)
    conditions: list[Any] = [
        field(entity.join_key).isin(_typed(list(dict.fromkeys(values)), entity.type))
        for entity, values in zip(view.entities, columns, strict=True)
    ]
    found: Condition = reduce(and_, conditions)
    return found


def _typed(values: list[Any], type_: Any) -> "pa.Array":
    import pyarrow as pa

    from millrace.kernel.arrow import arrow_type

    if type_.kind == "timestamp":
        return pa.array(values, pa.timestamp("ms", "UTC")).cast(arrow_type(type_))
    return pa.array(values, arrow_type(type_))


def plain_values(column: "pa.ChunkedArray") -> list[Any]:
    """Return a column as plain Python values; instants as epoch milliseconds, in lists too."""
    import pyarrow as pa

    if pa.types.is_list(column.type) and pa.types.is_timestamp(column.type.value_type):
        in_ms = pa.list_(pa.timestamp("ms", "UTC"))
        column = column.cast(in_ms, safe=False).cast(pa.list_(pa.int64()))
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
    return list(column.to_pylist())
