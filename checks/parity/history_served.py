"""What of a view's history its online values hold: which days of events have their tiles in the store.

Everything here comes from the logs and the publication; no event is read.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from millrace.calendar import day_ms
from millrace.days import Days, day_list, day_ranges
from millrace.errors import EngineUnavailable, StoreError
from millrace.names import events_table, tiles_table
from millrace.plan import ViewPlan
from millrace.published import PublishedView
from offline.tables.archived_days import archived_rows
from offline.tables.history import History
from offline.tables.partition_log import built_days, quarantined_days, read_partition_log
from resources.endpoints import store_url
from resources.lake.delta import partition_stats
from resources.settings import Settings
from resources.store.opening import open_online_store


@dataclass(frozen=True)
class ServedHistory:
    """The days with events of a view's source, and what the online values know of them.

    Attributes:
        read: days that a window reaches into at the instant of the audit, ascending.
        without_tiles: those of them with events from files whose tiles were never built.
        not_uploaded: those of them whose tiles are built and were not uploaded.
        held: days in reach that readers may not see; left out of all values, online and offline.
        out_of_reach: days before the view's start, or older than its longest window.
    """

    view: ViewPlan
    read: tuple[date, ...] = ()
    without_tiles: tuple[date, ...] = ()
    not_uploaded: tuple[date, ...] = ()
    held: tuple[date, ...] = ()
    out_of_reach: tuple[date, ...] = ()

    @property
    def unserved(self) -> tuple[date, ...]:
        """The days whose events from files nothing has brought into the store, ascending."""
        return tuple(sorted((*self.without_tiles, *self.not_uploaded)))

    @property
    def hint(self) -> str | None:
        """Which days the online values lack and the commands that mend it; None if they lack none.

        The stream may have brought the same events; then nothing is lacking.
        """
        name = self.view.name
        mends = []
        if days := self.without_tiles:
            span = Days.covering(days)
            mends.append(
                f"{day_list(days)} have events and no tiles, so what is served lacks them: "
                f"millrace backfill {name} --start {span.start} --end {span.end_text}, "
                f"then millrace upload {name}"
            )
        if days := self.not_uploaded:
            mends.append(
                f"{day_list(days)} have tiles that were not uploaded, so what is served lacks "
                f"them: millrace upload {name}"
            )
        return "; ".join(mends) or None

    def as_json(self) -> dict[str, Any]:
        """Return the days as plain JSON values: half-open ranges, but for those to be mended."""
        return {
            "read": _ranges(self.read),
            "without_tiles": [day.isoformat() for day in self.without_tiles],
            "not_uploaded": [day.isoformat() for day in self.not_uploaded],
            "held": _ranges(self.held),
            "out_of_reach": _ranges(self.out_of_reach),
        }


def served_history(
    settings: Settings, view: ViewPlan, version: str, history: History
) -> ServedHistory:
    """Sort the days with events of a view by whether its online values hold them.

    Only events from files count: what came by the stream, the stream brings online.

    Args:
        settings: the lake and the store; a store that is not reachable from here hides only which
            tiles were not uploaded.
        view: the view.
        version: ``v1``, ``v2``, … by lake.
        history: the days that its windows reach into.
    """
    events = events_table(view.source.name)
    rows = {day: one.rows for day, one in partition_stats(settings, events).items()}
    archived = archived_rows(settings, view.source.name)
    held = quarantined_days(read_partition_log(settings, events))
    read = tuple(day for day in history.days if rows.get(day))
    from_files = [day for day in read if rows[day] > archived.get(day, 0)]
    tiles = read_partition_log(settings, tiles_table(view.name, version))
    built = built_days(tiles, view.fingerprint)
    cut_over_ms = read_cut_over(settings, view)
    return ServedHistory(
        view=view,
        read=read,
        without_tiles=tuple(day for day in from_files if day not in built),
        not_uploaded=tuple(
            day
            for day in from_files
            if day in built and cut_over_ms is not None and day_ms(day) >= cut_over_ms
        ),
        held=tuple(sorted(day for day in held if day in rows)),
        out_of_reach=tuple(sorted(rows.keys() - set(read) - held.keys())),
    )


def read_cut_over(settings: Settings, view: ViewPlan) -> int | None:
    """Return the instant before which the store holds batch tiles; None where that is not known."""
    try:
        store = open_online_store(store_url(settings))
    except EngineUnavailable:
        return None
    try:
        published = store.publications.read_view(view.name)
    except StoreError:
        return None
    finally:
        store.close()
    return cut_over_of(published, view.fingerprint)


def cut_over_of(published: PublishedView | None, fingerprint: str) -> int | None:
    """Return a published version's cut-over: before all time if nothing was uploaded yet."""
    for version in () if published is None else published.versions:
        if version.fingerprint == fingerprint:
            return 0 if version.cut_over_ms is None else version.cut_over_ms
    return None


def _ranges(days: Iterable[date]) -> list[list[str]]:
    return [[some.start.isoformat(), some.end_text] for some in day_ranges(days)]
