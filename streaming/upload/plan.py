"""What an upload would take: which days, up to where, and what of it may be coarsened.

Nothing is read but the partition log and Delta's own: this is the dry part of an upload.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from millrace.calendar import day_ms, day_of
from millrace.coarsen import Coarsening
from millrace.durations import DAY_MS, MINUTE_MS
from millrace.errors import DataError
from millrace.names import events_table, tiles_table
from millrace.plan import ViewPlan
from offline.tables.partition_log import (
    built_days,
    ended_days,
    expected_days,
    read_partition_log,
)
from resources.lake.delta import DAY_COLUMN, file_actions, open_table
from resources.lake.view_versions import deployed_version
from resources.settings import Settings

CLOCK_SLACK_MS = 5 * MINUTE_MS
"""A server whose clock is behind by less still asks for no instant that coarse tiles lack."""


@dataclass(frozen=True)
class UploadPlan:
    """What an upload takes.

    Attributes:
        version: ``v1``, ``v2``, … by lake.
        table: the tiles table.
        days: partitions that are built and reach into a window, ascending. The last of them was
            over when it was built: what has come to a later one since, only the stream knows.
        missing_days: days in reach that were never built, or failed.
        outdated_days: days whose events have changed since their tiles were built, or could have:
            those that were not over then.
        cut_over_ms: the day edge behind the last of the days.
        sealed_before_ms: tiles before it are coarsened; None: none are.
        coarsening: how.
        built_ms: when the newest of the days was built, epoch milliseconds.
    """

    view: ViewPlan
    version: str
    table: str
    days: tuple[date, ...]
    missing_days: tuple[date, ...]
    outdated_days: tuple[date, ...]
    cut_over_ms: int
    sealed_before_ms: int | None
    coarsening: Coarsening
    built_ms: int


@dataclass(frozen=True)
class Held:
    """What the store already has of a version's batch tiles; None for nothing."""

    cut_over_ms: int | None = None
    sealed_before_ms: int | None = None


def plan_upload(
    settings: Settings, view: ViewPlan, held: Held, now_ms: int, *, until: date | None = None
) -> UploadPlan:
    """Decide what to upload.

    Days are taken up to the last that was over when it was built, or up to ``until``. What was
    sealed once stays sealed, for coarse tiles cannot be parted again. New days are sealed once no
    event can enter them any more, but for those behind a gap or behind a day whose tiles are
    outdated: there the stream may know more than the lake.

    Args:
        settings: names the lake.
        view: the view.
        held: what the store has.
        now_ms: the present instant.
        until: the day after the last to upload.

    Raises:
        DataError: no day of the view's tiles was built after its end, or ``until`` lies before
            what is sealed.
    """
    version = deployed_version(settings, view)
    table = tiles_table(view.name, version or "v1")
    log = {} if version is None else read_partition_log(settings, table)
    built = {d for d in built_days(log, view.fingerprint) if until is None or d < until}
    ended = built & ended_days(log, view.fingerprint)
    if not ended or version is None:
        raise DataError(
            f"no day of the tiles of {view.name} is built and over"
            + ("" if until is None else f" before {until}"),
            where=f"view {view.name}",
            fix=f"millrace backfill {view.name} --start {view.start} --end …",
        )
    end_ms = day_ms(max(ended)) + DAY_MS
    _refuse_parting(view, held, end_ms)
    query_from_ms = min(max(end_ms, held.cut_over_ms or end_ms), now_ms) - CLOCK_SLACK_MS
    reach_from_ms = Coarsening.of(view, query_from_ms, view.start_ms).reach_from_ms
    reached = expected_days(log, day_of(reach_from_ms), max(ended))
    missing = tuple(day for day in reached if day not in built)
    days = tuple(day for day in reached if day in built)
    changed = _outdated(settings, view, table, days)
    outdated = tuple(day for day in days if day in changed or day not in ended)
    sealed_ms = _sealed_before(view, min(end_ms, now_ms), (*missing, *outdated))
    known = [ms for ms in (sealed_ms, held.sealed_before_ms) if ms is not None]
    return UploadPlan(
        view=view,
        version=version,
        table=table,
        days=days,
        missing_days=missing,
        outdated_days=outdated,
        cut_over_ms=max(end_ms, held.cut_over_ms or end_ms),
        sealed_before_ms=max(known, default=None),
        coarsening=Coarsening.of(view, query_from_ms, max(known, default=view.start_ms)),
        built_ms=max((log[day].built_ms for day in days), default=0),
    )


def _refuse_parting(view: ViewPlan, held: Held, end_ms: int) -> None:
    sealed_ms = held.sealed_before_ms
    if sealed_ms is not None and end_ms < sealed_ms:
        raise DataError(
            f"the store holds coarse tiles of the days before {day_of(sealed_ms)}, "
            f"and this upload would end at {day_of(end_ms)}",
            where=f"view {view.name}",
            fix=f"build the days up to {day_of(sealed_ms)} and upload until then or later",
        )


def _sealed_before(view: ViewPlan, settled_ms: int, doubtful: Sequence[date]) -> int | None:
    """Return the day edge before which nothing can change any more; None at the view's start."""
    open_ms = view.source.allowed_lateness_ms + view.source.clock_skew_ms
    last_ms = settled_ms - max(open_ms, CLOCK_SLACK_MS)
    edges = [last_ms // DAY_MS * DAY_MS, *(day_ms(day) for day in doubtful)]
    return min(edges) if min(edges) > view.start_ms else None


def _outdated(
    settings: Settings, view: ViewPlan, table: str, days: Sequence[date]
) -> frozenset[date]:
    tiles = _written(settings, table)
    events = _written(settings, events_table(view.source.name))
    return frozenset(
        day for day in days if day in tiles and day in events and events[day][1] > tiles[day][0]
    )


def _written(settings: Settings, table: str) -> dict[date, tuple[datetime, datetime]]:
    """Return when the oldest and the newest file of each day was written."""
    opened = open_table(settings, table)
    if opened is None:
        return {}
    actions = file_actions(opened, "modification_time")
    found: dict[date, tuple[datetime, datetime]] = {}
    days = actions.column(DAY_COLUMN).to_pylist()
    for day, at in zip(days, actions.column("modification_time").to_pylist(), strict=True):
        oldest, newest = found.get(day, (at, at))
        found[day] = (min(oldest, at), max(newest, at))
    return found
