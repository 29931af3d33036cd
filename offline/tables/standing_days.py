"""Which days of a table stand as a run built them: what a retry of that run need not build again.

The partition log says what was built, and when the build began to read; whatever it read that is
younger asks for the day again. Of a source with a stream, a table or files at a URL nothing of that is
known, so their days of events never stand.
"""

import sys
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from millrace.days import Days
from millrace.names import events_table
from millrace.plan import SourcePlan
from offline.raw.files import RawFile, find_raw_files
from offline.tables.partition_log import PartitionState, read_partition_log, readable_days
from offline.tables.stages import Table, history_start
from resources.lake.view_versions import deployed_version
from resources.settings import Settings


def standing_days(settings: Settings, table: Table, days: Days, since_ms: int) -> frozenset[date]:
    """Return the days of a table that were built as declared, and released, since an instant.

    Raises:
        DataError: the source of events has no files.
    """
    if table.kind == "events":
        return _standing_events(settings, table.source, days, since_ms)
    return _standing_of_view(settings, table, days, since_ms)


def _standing_events(
    settings: Settings, source: SourcePlan, days: Days, since_ms: int
) -> frozenset[date]:
    """Return the days of ``events/<source>`` that were built and released since an instant.

    A day does not stand if it was built by another definition, if a file that may hold rows of it
    was written, replaced or renamed since its build began, or if none holds it any more.
    """
    if source.batch is None or source.stream is not None:
        return frozenset()
    log = read_partition_log(settings, events_table(source.name))
    built = _built(log, source.fingerprint, days, since_ms)
    if not built:
        return frozenset()
    files = find_raw_files(source, settings).files
    if not all(file.was_looked_at for file in files):
        return frozenset()
    changed = [(file, _changed_ms(file)) for file in files]
    return frozenset(day for day in built if _is_as_read(log[day], changed))


def _is_as_read(state: PartitionState, files: Sequence[tuple[RawFile, int]]) -> bool:
    of_day = [changed_ms for file, changed_ms in files if file.may_hold(state.day, state.day)]
    if not of_day:
        return state.rows == 0
    return max(of_day) < state.began_ms


def _changed_ms(file: RawFile) -> int:
    # No copying tool sets the change time back. A file that has just gone is as good as changed.
    try:
        return Path(file.path).stat().st_ctime_ns // 1_000_000
    except OSError:
        return sys.maxsize


def _standing_of_view(
    settings: Settings, table: Table, days: Days, since_ms: int
) -> frozenset[date]:
    """Return the days that were built since an instant, from events that stand; values also released.

    A day of values whose windows reach into events that were built after it does not stand. Days
    before the view's start hold nothing that could change.
    """
    view = table.of_view
    early = frozenset(day for day in days if day < view.start)
    version = deployed_version(settings, view)
    if version is None:
        return early
    log = read_partition_log(settings, table.named(version))
    events = read_partition_log(settings, events_table(view.source.name))

    def was_read(day: date) -> list[date]:
        first = history_start(view, day) if table.kind == "features" else day
        return [read for read in events if first <= read <= day]

    return early | frozenset(
        day
        for day in _built(log, view.fingerprint, days, since_ms)
        if _are_older((events[d] for d in was_read(day)), log[day].began_ms)
    )


def _are_older(events: Iterable[PartitionState], instant_ms: int) -> bool:
    return all(state.built_ms <= instant_ms for state in events)


def _built(
    log: dict[date, PartitionState], fingerprint: str, days: Days, since_ms: int
) -> list[date]:
    """Return the days that were built whole since an instant; of hours each is built again."""
    readable = readable_days(log, fingerprint)
    return [
        day
        for day in days
        if day in readable and not log[day].by_hour and log[day].began_ms >= since_ms
    ]
