"""The partition log: which days of which table were built, and how each ended.

A Delta table at ``<lake>/partition_log``, appended to after every build. An empty day leaves no
file in a table, so only this log tells a day without events from a day never built; windows that
reach back need the difference.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from millrace.days import newest_day_over
from resources.lake import open_table, rs_path
from resources.reports import BuildReport, PartitionOutcome
from resources.settings import Settings

TABLE = "partition_log"

AWAITS_CHECKS = "its checks have not run; build it again"
"""Why a day is held back between its commit and the end of its checks."""


@dataclass(frozen=True)
class PartitionState:
    """The newest entry of one day of one table.

    Attributes:
        fingerprint: of the source or view it was built by; another one needs a rebuild.
        error: why the last build of this day failed; None if it stands.
        missing_days: earlier days whose events were absent when it was built.
        built_ms: when the entry was written, epoch milliseconds.
        held: why readers do not see the day although it was built; None if they do.
    """

    day: date
    fingerprint: str
    error: str | None
    rows: int
    missing_days: tuple[date, ...]
    built_ms: int
    held: str | None = None

    def was_over(self, lateness_ms: int) -> bool:
        """Tell whether the day had been over for so long when it was built."""
        return self.day <= newest_day_over(self.built_ms, lateness_ms)


def read_partition_log(settings: Settings, table: str) -> dict[date, PartitionState]:
    """Return the newest state of each day of a table, in no order; empty if never built."""
    log = open_table(settings, TABLE)
    if log is None:
        return {}
    rows = log.to_pyarrow_table(filters=[("table", "=", table)]).to_pylist()
    rows.sort(key=lambda row: row["built_at_us"])
    return {row["day"]: _state(row) for row in rows}


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
                "held": pa.array([reasons.get(o.day) for o in report.outcomes], pa.string()),
            }
        ),
        mode="append",
        partition_by=["table"],
        # A log from before there were checks has no column ``held``.
        schema_mode="merge",
    )


def built_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return the days that stand as built by this fingerprint, those held back among them."""
    return frozenset(
        day for day, s in states.items() if s.error is None and s.fingerprint == fingerprint
    )


def ended_days(
    states: Mapping[date, PartitionState], fingerprint: str, lateness_ms: int = 0
) -> frozenset[date]:
    """Return the days that stand as built by this fingerprint ``lateness_ms`` after their end.

    With a source's ``allowed_lateness`` these are complete: no event of theirs came afterwards.
    """
    built = built_days(states, fingerprint)
    return frozenset(day for day in built if states[day].was_over(lateness_ms))


def published_days(states: Mapping[date, PartitionState], fingerprint: str) -> frozenset[date]:
    """Return the days built by this fingerprint that readers may see."""
    return built_days(states, fingerprint) - held_days(states).keys()


def held_days(states: Mapping[date, PartitionState]) -> dict[date, str]:
    """Return the days that are held back, whatever they were built by, with the reason."""
    return {day: s.held for day, s in states.items() if s.held is not None}


def _now_us() -> int:
    return int(datetime.now(tz=UTC).timestamp() * 1_000_000)


def _missing(outcomes: Sequence[PartitionOutcome]) -> list[str]:
    return [json.dumps([day.isoformat() for day in o.missing_days]) for o in outcomes]


def _state(row: dict[str, Any]) -> PartitionState:
    return PartitionState(
        day=row["day"],
        fingerprint=row["fingerprint"],
        error=row["error"],
        rows=row["rows"],
        missing_days=tuple(date.fromisoformat(d) for d in json.loads(row["missing_days"])),
        built_ms=row["built_at_us"] // 1_000,
        held=row.get("held"),
    )
