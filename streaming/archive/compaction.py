"""Keeping the archived days few files: a commit every two seconds leaves many small ones.

Small files of a day are merged whenever there are enough of them, up to a size at which they are
left alone, so each row is rewritten a few times at most. Merging changes no row and is a commit
without data changes: readers and markers do not notice.
"""

import logging
import time
from collections import Counter
from datetime import date

from resources.lake.delta import DAY_COLUMN, file_actions
from resources.lake.lock import TableBusy, locked
from resources.settings import Settings
from streaming.archive.tables import LakeTable, lake_errors

log = logging.getLogger(__name__)

SMALL_BYTES = 32 << 20
_MANY_FILES = 30
_SETTLED_FILES = 4
"""A day that nothing was added to since the last look is merged down to this many files."""
_LOOK_EVERY_S = 20.0
_VACUUM_EVERY_S = 6 * 3600.0


class Compaction:
    """Merges the small files of some tables, at moments its owner calls calm."""

    def __init__(self, settings: Settings, tables: tuple[LakeTable, ...]) -> None:
        self._settings = settings
        self._tables = tables
        self._looked_s = time.monotonic()
        self._vacuumed_s = time.monotonic()
        self._before: dict[str, Counter[date]] = {}

    def maybe_run(self) -> None:
        """Merge what needs it, if the last look was long enough ago.

        Raises:
            EngineUnavailable: the lake does not take it.
        """
        now = time.monotonic()
        if now - self._looked_s < _LOOK_EVERY_S:
            return
        is_time_to_vacuum = now - self._vacuumed_s >= _VACUUM_EVERY_S
        for table in self._tables:
            try:
                self._merge(table)
                if is_time_to_vacuum:
                    self._vacuum(table)
            except TableBusy:
                continue
        self._looked_s = time.monotonic()
        if is_time_to_vacuum:
            self._vacuumed_s = time.monotonic()

    def _merge(self, table: LakeTable) -> None:
        files = small_files(table)
        before = self._before.get(table.name, Counter())
        self._before[table.name] = files
        for day, count in sorted(files.items()):
            is_settled = before[day] == count
            if count > _MANY_FILES or (is_settled and count > _SETTLED_FILES):
                self._merge_day(table, day)

    def _merge_day(self, table: LakeTable, day: date) -> None:
        began = time.monotonic()
        with locked(self._settings, table.name, wait_s=0.0), lake_errors(table.name):
            done = table.refresh().optimize.compact(
                partition_filters=[("event_date", "=", day.isoformat())], target_size=SMALL_BYTES
            )
        log.info(
            "%s %s: %d files made %d in %.2f s",
            table.name, day, done["numFilesRemoved"], done["numFilesAdded"],
            time.monotonic() - began,
        )  # fmt: skip

    def _vacuum(self, table: LakeTable) -> None:
        # The table's own retention, a week: readers of older versions keep their files till then.
        with locked(self._settings, table.name, wait_s=0.0), lake_errors(table.name):
            table.refresh().vacuum(dry_run=False)


def small_files(table: LakeTable) -> "Counter[date]":
    """Return how many files of each day are worth merging."""
    with lake_errors(table.name):
        actions = file_actions(table.refresh(), "size_bytes")
    days = actions[DAY_COLUMN].to_pylist()
    sizes = actions["size_bytes"].to_pylist()
    return Counter(day for day, size in zip(days, sizes, strict=True) if size < SMALL_BYTES // 2)
