"""The history a spine reaches into: which days of ``events/<source>``, and whether they are there.

Everything here comes from Delta's transaction log and the partition log; no event is read.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from millrace.calendar import (
    FIRST_NUMBER,
    LAST_NUMBER,
    day_number,
    day_of,
    next_day,
    numbered_day,
)
from millrace.days import Days, day_ranges
from millrace.durations import DAY_MS
from millrace.errors import DataError
from millrace.names import events_table
from millrace.plan import ViewPlan
from millrace.window import Window
from offline.tables.partition_log import (
    PartitionState,
    ended_days,
    quarantined_days,
    read_partition_log,
)
from offline.tables.source_changes import find_change
from resources.lake.delta import open_table, partition_stats, table_path
from resources.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    Instants = npt.NDArray[np.int64]

_SHOWN_RANGES = 3


@dataclass(frozen=True)
class TrainingWarning:
    """Something about a training set that its user should know; the set was built all the same.

    Attributes:
        code: ``days_never_built``, ``days_failed``, ``days_outdated``, ``days_open``,
            ``days_quarantined``, ``before_start`` or ``null_keys``.
        view: the view whose features it touches.
        what: the whole of it in words.
        fix: how to mend it; empty where nothing needs mending.
        days: the days concerned, as ascending ranges; empty where it is not about days.
    """

    code: str
    view: str
    what: str
    fix: str = ""
    days: tuple[Days, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the warning as plain JSON values; days as half-open ranges."""
        ranges = [[some.start.isoformat(), some.end_text] for some in self.days]
        return {
            "code": self.code,
            "view": self.view,
            "what": self.what,
            "fix": self.fix,
            "days": ranges,
        }


@dataclass(frozen=True)
class History:
    """The events that can enter the features of a view for one spine.

    Attributes:
        view: the view, cut down to the features asked for.
        table: name of the events table under the lake.
        version: its Delta version; the same one is read whatever is committed meanwhile.
        days: the days there are that the windows reach into, ascending, from the view's start on;
            those that are held back by their checks are left out.
        rows: events in these days, of any key, before the view's filter.
        has_null_keys: False where the log rules a null join key out.
        warnings: what is wrong with these days.
    """

    view: ViewPlan
    table: str
    version: int
    days: tuple[date, ...]
    rows: int
    has_null_keys: bool
    warnings: tuple[TrainingWarning, ...]


def find_history(settings: Settings, view: ViewPlan, query_ms: "pa.Array") -> History:
    """Find the history of a view that a spine of these query times reaches into.

    Raises:
        DataError: the events table does not exist, or lacks a column as the view reads it.
    """
    table = events_table(view.source.name)
    opened = open_table(settings, table)
    if opened is None:
        raise DataError(
            f"there are no events of source {view.source.name} to build features from",
            where=table_path(settings, table),
            fix=f"millrace backfill {view.name} --start {view.start} --end {_tomorrow(query_ms)}",
        )
    _require_columns(settings, view, f"--start {view.start} --end {_tomorrow(query_ms)}")
    reached = reached_days(view, query_ms)
    log = read_partition_log(settings, table)
    held = quarantined_days(log)
    stats = partition_stats(settings, table)
    # The log has days without rows, and the archive adds rows to days that nobody has built.
    known = _within(reached, sorted(log.keys() | stats.keys()))
    days = tuple(day for day in known if day not in held)
    present = [stats[day] for day in days if day in stats]
    return History(
        view=view,
        table=table,
        version=int(opened.version()),
        days=days,
        rows=sum(s.rows for s in present),
        # A column beyond those that Delta keeps statistics of has no count: nulls are possible.
        has_null_keys=any(s.null_counts.get(k, 1) > 0 for s in present for k in view.join_keys),
        warnings=(
            *_gaps(view, reached, days, log),
            *_held(view, known, held),
            *_too_early(view, query_ms),
        ),
    )


def _require_columns(settings: Settings, view: ViewPlan, span: str) -> None:
    """Refuse to read columns that the table will have once it follows the declaration."""
    change = find_change(settings, view.source)
    read = {
        c for e in (view.filter, *(m.expression for m in view.measures)) if e for c in e.columns
    }
    read |= {*view.join_keys, view.source.event_id or ""}
    coming = [*change.added, *(now for _, now in change.moved)]
    if lacking := [f"{c.name} {c.type}" for c in coming if c.name in read]:
        raise DataError(
            f"the events were built from another declaration of the source, without "
            f"{', '.join(lacking)}",
            where=events_table(view.source.name),
            fix=f"millrace backfill {view.name} {span}",
        )


def reached_days(view: ViewPlan, query_ms: "pa.Array") -> tuple[Days, ...]:
    """Return the UTC days that hold an instant that counts for some query, as ascending ranges.

    Days before the view's start never do, nor those from the end of a closed source on. One far
    instant reaches over millions of days, so none is looked at by itself.
    """
    import numpy as np

    queries = query_ms.to_numpy()
    queries = queries[queries > view.start_ms]
    if not len(queries):
        return ()
    first_day = view.start_ms // DAY_MS
    earliest, latest = _extremes_by_day(queries)
    last_day = (int(latest.max()) - 1) // DAY_MS
    # +1 where a reach begins and -1 behind its end: the running sum is positive within any.
    edges = np.zeros(last_day - first_day + 2, dtype=np.int64)
    for window in dict.fromkeys(f.window for f in view.features):
        # The reaches of a day's first and last query touch, so they cover those between.
        starts = np.maximum(_bounds(window, earliest)[0] // DAY_MS, first_day)
        ends = (_bounds(window, latest)[1] - 1) // DAY_MS + 1
        reaches = ends > starts
        np.add.at(edges, starts[reaches] - first_day, 1)
        np.add.at(edges, ends[reaches] - first_day, -1)
    reached = np.cumsum(edges[:-1]) > 0
    turns = np.flatnonzero(np.diff(reached, prepend=False, append=False)) + first_day
    first, last = FIRST_NUMBER, LAST_NUMBER
    if view.source.end is not None:
        last = min(last, day_number(view.source.end) - 1)
    ranges = ((max(int(a), first), min(int(b) - 1, last)) for a, b in turns.reshape(-1, 2))
    return tuple(Days.through(numbered_day(a), numbered_day(b)) for a, b in ranges if a <= b)


def _within(ranges: Sequence[Days], days: Sequence[date]) -> list[date]:
    """Return those of some ascending days that lie in ascending ranges."""
    found: list[date] = []
    for some in ranges:
        found += days[bisect_left(days, some.start) : bisect_right(days, some.last)]
    return found


def _without(ranges: Sequence[Days], days: Sequence[date]) -> Iterator[Days]:
    """Yield what is left of ascending ranges without some ascending days."""
    for some in ranges:
        start: date | None = some.start
        for day in _within([some], days):
            if start is not None and start < day:
                yield Days(start, day)
            start = next_day(day)
        if start is not None and start <= some.last:
            yield Days.through(start, some.last)


def _extremes_by_day(queries: "Instants") -> "tuple[Instants, Instants]":
    """Return the first and the last query of each day that has one."""
    import numpy as np

    days = queries // DAY_MS
    slots = days - days.min()
    earliest = np.full(int(slots.max()) + 1, np.iinfo(np.int64).max)
    latest = np.full_like(earliest, np.iinfo(np.int64).min)
    np.minimum.at(earliest, slots, queries)
    np.maximum.at(latest, slots, queries)
    asked = latest >= earliest
    return earliest[asked], latest[asked]


def _bounds(window: Window, queries: "Instants") -> "tuple[Instants, Instants]":
    """``Window.bounds`` of many queries; a lifetime starts before anything."""
    import numpy as np

    starts, ends = window.bounds(queries)
    return np.full_like(queries, np.iinfo(np.int64).min) if starts is None else starts, ends


def _gaps(
    view: ViewPlan,
    reached: Sequence[Days],
    days: Sequence[date],
    log: dict[date, PartitionState],
) -> list[TrainingWarning]:
    failed = {d: log[d] for d in days if d in log and log[d].error is not None}
    outdated = tuple(
        d
        for d in days
        if d in log and d not in failed and log[d].fingerprint != view.source.fingerprint
    )
    never = tuple(_without(reached, sorted(log)))
    complete = ended_days(log, view.source.fingerprint, view.source.allowed_lateness_ms)
    known = {*failed, *outdated, *complete}
    still_open = tuple(d for d in days if d in log and d not in known)
    warnings = []
    if never:
        warnings.append(_gap("days_never_built", view, never, "were never built"))
    if failed:
        reason = next(iter(failed.values())).error
        text = f"failed when they were built last ({reason})"
        warnings.append(_gap("days_failed", view, day_ranges(tuple(failed)), text))
    if outdated:
        text = "were built from another declaration of the source"
        warnings.append(_gap("days_outdated", view, day_ranges(outdated), text))
    if still_open:
        text = "were built before their last events could come, or not as a whole"
        warnings.append(_gap("days_open", view, day_ranges(still_open), text))
    return warnings


def _held(view: ViewPlan, known: Sequence[date], held: Mapping[date, str]) -> list[TrainingWarning]:
    days = tuple(day for day in known if day in held)
    if not days:
        return []
    text = f"are held back ({held[days[0]]})"
    return [_gap("days_held", view, day_ranges(days), text, "features do not see them")]


def _gap(
    code: str,
    view: ViewPlan,
    ranges: Sequence[Days],
    state: str,
    effect: str = "features see what is there",
) -> TrainingWarning:
    more = len(ranges) - _SHOWN_RANGES
    shown = ", ".join(map(str, ranges[:_SHOWN_RANGES]))
    shown += f" and {more} more ranges" if more > 0 else ""
    span = Days.through(ranges[0].start, ranges[-1].last)
    return TrainingWarning(
        code=code,
        view=view.name,
        what=f"{sum(map(len, ranges))} day(s) of events/{view.source.name} that the spine reaches into "
        f"{state}: {shown}; {effect}",
        fix=f"millrace backfill {view.name} --start {span.start} --end {span.end_text}",
        days=tuple(ranges),
    )


def _too_early(view: ViewPlan, query_ms: "pa.Array") -> list[TrainingWarning]:
    import numpy as np

    early = int(np.count_nonzero(query_ms.to_numpy() <= view.start_ms))
    if not early:
        return []
    what = f"{early} row(s) of the spine lie before the view's start {view.start}: no events count"
    return [TrainingWarning(code="before_start", view=view.name, what=what)]


def _tomorrow(query_ms: "pa.Array") -> str:
    """The end of a range of days that holds the last query; a word where there is none."""
    if not len(query_ms):
        return "…"
    return Days.covering([day_of(max(int(query_ms.to_numpy().max()), 0))]).end_text
