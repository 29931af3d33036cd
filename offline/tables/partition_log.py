"""The partition log: which days of which table were built, and how each ended.

A Delta table at ``<lake>/partition_log``, appended to after every build. An empty day leaves no
file in a table, so only this log tells a day without events from a day never built; windows that
reach back need the difference.

Of a source of hours an entry may be of some hours of a day. Readers are told of days all the same:
what was last said of each hour, taken together.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from millrace.calendar import day_ms, days_after, days_between, newest_day_over
from millrace.days import ALL_HOURS, Hours
from millrace.durations import HOUR_MS
from resources.lake.delta import open_table, read_rows, rs_path
from resources.lake.options import storage_options
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings

TABLE = "partition_log"

FORE_DAYS = 366
"""So many days before the first that is known of a table may have data that are still to come."""

AWAITS_CHECKS = "its checks have not run; build it again"
"""Why a day is held back between its commit and the end of its checks."""


@dataclass(frozen=True)
class BuiltHour:
    """The newest entry of one hour: by which fingerprint it was built, when, and why it failed."""

    fingerprint: str
    built_ms: int
    error: str | None


@dataclass(frozen=True)
class PartitionState:
    """What stands of one day of one table.

    Attributes:
        fingerprint: of the source or view it was built by; another one needs a rebuild.
        error: why the last build of this day, or of one of its hours, failed; None if it stands.
        missing_days: earlier days whose events were absent when it was built.
        built_ms: when the newest entry was written, epoch milliseconds.
        held: why readers do not see the day although it was built; None if they do.
        began_ms: when that build began to read, epoch milliseconds; 0 where that is not known.
        by_hour: the hours that were built or failed, if they were not built all at once.
        files: a digest of the raw files that the build was to read it from; None where that is not
            known.
    """

    day: date
    fingerprint: str
    error: str | None
    rows: int
    missing_days: tuple[date, ...]
    built_ms: int
    held: str | None = None
    began_ms: int = 0
    by_hour: Mapping[int, BuiltHour] = field(default_factory=dict)
    files: str | None = None

    @property
    def is_whole(self) -> bool:
        """True if every hour of the day was built."""
        return not self.by_hour or len(self.by_hour) == len(ALL_HOURS)

    @property
    def hours(self) -> Hours:
        """The hours that were built, from the first to the last of them."""
        return range(min(self.by_hour), max(self.by_hour) + 1) if self.by_hour else ALL_HOURS

    def lacks(self, hours: Hours) -> bool:
        """Tell whether some of these hours were never built, or failed when they were last."""
        if not self.by_hour:
            return self.error is not None
        return any(h not in self.by_hour or self.by_hour[h].error is not None for h in hours)

    def was_over(self, lateness_ms: int) -> bool:
        """Tell whether the day, each hour of it, had been over for so long when it was built."""
        if not self.by_hour:
            return self.day <= newest_day_over(self.built_ms, lateness_ms)
        midnight_ms = day_ms(self.day)
        return self.is_whole and all(
            one.built_ms >= midnight_ms + (hour + 1) * HOUR_MS + lateness_ms
            for hour, one in self.by_hour.items()
        )


def read_partition_log(settings: Settings, table: str) -> dict[date, PartitionState]:
    """Return the state of each day of a table, in no order; empty if never built."""
    return read_partition_logs(settings, [table])[table]


def read_partition_logs(
    settings: Settings, tables: Sequence[str]
) -> dict[str, dict[date, PartitionState]]:
    """Return the states of several tables by table, out of one read of the log."""
    found: dict[str, dict[date, PartitionState]] = {table: {} for table in tables}
    log = open_table(settings, TABLE)
    if log is None or not found:
        return found
    rows = read_rows(log, {"table": list(found)}).to_pylist()
    rows.sort(key=lambda row: row["built_at_us"])
    for row in rows:
        states, state = found[row["table"]], _state(row)
        hours = _hours(row)
        if hours is not None:
            state = _with_hours(states.get(state.day), state, hours)
        states[state.day] = state
    return found


def _with_hours(
    before: PartitionState | None, newest: PartitionState, hours: Hours
) -> PartitionState:
    """Return the state of a day after an entry of some of its hours."""
    known: dict[int, BuiltHour] = {}
    missing: set[date] = set()
    if before is not None:
        whole = BuiltHour(before.fingerprint, before.built_ms, before.error)
        known = dict(before.by_hour) or dict.fromkeys(ALL_HOURS, whole)
        if not known.keys() <= set(hours):
            missing = set(before.missing_days)
    entry = BuiltHour(newest.fingerprint, newest.built_ms, newest.error)
    known.update(dict.fromkeys(hours, entry))
    ordered = dict(sorted(known.items()))
    others = [one.fingerprint for one in ordered.values() if one.fingerprint != entry.fingerprint]
    errors = [one.error for one in ordered.values() if one.error is not None]
    failed = entry.error is not None
    return replace(
        newest,
        # While some hours are another definition's, the day is: it is built anew as a whole.
        fingerprint=others[0] if others else newest.fingerprint,
        error=errors[0] if errors else None,
        rows=before.rows if failed and before is not None else newest.rows,
        missing_days=tuple(sorted(missing | set(newest.missing_days))),
        held=before.held if failed and before is not None else newest.held,
        by_hour=ordered,
    )


def append_partition_log(
    settings: Settings,
    report: BuildReport,
    fingerprint: str,
    *,
    held: Mapping[date, str] | None = None,
) -> None:
    """Record a build, after its data is committed.

    A crash between the two leaves the days looking unbuilt; building them again changes nothing.

    Args:
        settings: the lake.
        report: the build.
        fingerprint: of the source or view it was built by.
        held: days that readers may not see, with the reason; the others are published.
    """
    import pyarrow as pa
    from deltalake import write_deltalake

    if not report.outcomes:
        return
    now_us = _now_us()
    reasons = held or {}
    write_deltalake(
        rs_path(settings, TABLE),
        pa.table(
            {
                "table": pa.array([report.table] * len(report.outcomes), pa.string()),
                "day": pa.array([o.day for o in report.outcomes], pa.date32()),
                "fingerprint": pa.array([fingerprint] * len(report.outcomes), pa.string()),
                "error": pa.array([o.error for o in report.outcomes], pa.string()),
                "rows": pa.array([o.rows for o in report.outcomes], pa.int64()),
                "missing_days": pa.array(_missing(report.outcomes), pa.string()),
                "built_at_us": pa.array([now_us] * len(report.outcomes), pa.int64()),
                "began_ms": pa.array([report.began_ms] * len(report.outcomes), pa.int64()),
                "held": pa.array([reasons.get(o.day) for o in report.outcomes], pa.string()),
                "from_hour": pa.array(
                    [_edge(o, o.hours.start) for o in report.outcomes], pa.int8()
                ),
                "to_hour": pa.array([_edge(o, o.hours.stop) for o in report.outcomes], pa.int8()),
                "files": pa.array([o.files for o in report.outcomes], pa.string()),
            }
        ),
        storage_options=storage_options(settings),
        mode="append",
        partition_by=["table"],
        # A log from before there were checks, hours or digests has no columns for them.
        schema_mode="merge",
    )


def compact_partition_log(settings: Settings) -> tuple[int, int]:
    """Merge the small files that each build adds, one for each table; returns files before and after.

    No entry changes. Files that were merged stay for a week, for readers of older versions. Builds may go
    on meanwhile, another compaction may not.
    """
    log = open_table(settings, TABLE)
    if log is None:
        return 0, 0
    done = log.optimize.compact()
    log.vacuum(dry_run=False)
    after = len(log.file_uris())
    return after - done["numFilesAdded"] + done["numFilesRemoved"], after


def built_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return the days that stand as built by this fingerprint, those held back among them.

    Also those of which some hours only were built so far; see ``whole_days``.
    """
    return frozenset(
        day for day, s in states.items() if s.error is None and s.fingerprint == fingerprint
    )


def whole_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return those of ``built_days`` of which every hour was built."""
    return frozenset(day for day in built_days(states, fingerprint) if states[day].is_whole)


def ended_days(
    states: Mapping[date, PartitionState], fingerprint: str, lateness_ms: int = 0
) -> frozenset[date]:
    """Return the days that stand as built by this fingerprint ``lateness_ms`` after their end.

    With a source's ``allowed_lateness`` these are complete: no event of theirs came afterwards.
    """
    built = built_days(states, fingerprint)
    return frozenset(day for day in built if states[day].was_over(lateness_ms))


def published_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return the days built by this fingerprint, every hour of them, that readers may see."""
    return whole_days(states, fingerprint) & readable_days(states, fingerprint)


def readable_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return the days built by this fingerprint, of some perhaps not all hours, that are not held."""
    return built_days(states, fingerprint) - quarantined_days(states).keys()


def quarantined_days(states: Mapping[date, PartitionState]) -> dict[date, str]:
    """Return the days that are held back, whatever they were built by, with the reason."""
    return {day: s.held for day, s in states.items() if s.held is not None}


def expected_days(states: Mapping[date, PartitionState], first: date, last: date) -> list[date]:
    """Return the days of a reach that can be missed, ascending.

    A declaration may start long before there were any data (``start: 0001-01-01``): what lies more
    than ``FORE_DAYS`` before the first day that is known of a table is no gap in its history, it is
    before it. Of a table of which nothing is known no day is missed.
    """
    if not states:
        return []
    return days_between(max(first, days_after(min(states), -FORE_DAYS)), last)


def _now_us() -> int:
    return int(datetime.now(tz=UTC).timestamp() * 1_000_000)


def _edge(outcome: PartitionOutcome, hour: int) -> int | None:
    """Return an end of the hours of an entry; None if it is of the whole day."""
    return None if outcome.hours == ALL_HOURS else hour


def _hours(row: dict[str, Any]) -> Hours | None:
    if row.get("from_hour") is None:
        return None
    return range(row["from_hour"], row["to_hour"])


def _missing(outcomes: Sequence[PartitionOutcome]) -> list[str]:
    return [json.dumps([day.isoformat() for day in o.missing_days]) for o in outcomes]


def _days(text: str) -> tuple[date, ...]:
    # Of nearly every day none is missing.
    return () if text == "[]" else tuple(date.fromisoformat(day) for day in json.loads(text))


def _state(row: dict[str, Any]) -> PartitionState:
    return PartitionState(
        day=row["day"],
        fingerprint=row["fingerprint"],
        error=row["error"],
        rows=row["rows"],
        missing_days=_days(row["missing_days"]),
        built_ms=row["built_at_us"] // 1_000,
        held=row.get("held"),
        began_ms=row.get("began_ms") or 0,
        files=row.get("files"),
    )
