"""What a build of a table reports: which days, how each ended, and from what it was made.

The offline tables fill these records, the assets turn them into Dagster events, the command
prints them. Frozen, without engine types, and plain JSON by ``as_json``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from millrace.days import ALL_HOURS, Hours

_FILES_NAMED = 3


@dataclass(frozen=True)
class PartitionOutcome:
    """How one day of one table ended.

    Attributes:
        day: the partition, or the day whose hours are partitions.
        hours: the hours that were built, or failed; all of them but in a source of hours.
        rows: rows now in the day; 0 with ``error``, which leaves what was there before.
        rows_by_hour: those of each of its 24 hours; empty but in a source of hours.
        bytes: size of its files.
        null_keys: events of the view left out because a join key is null.
        duplicates: events dropped because their id had come before.
        dead_letters: refused events by reason (``schema``, ``future``, ``late``).
        error: why the day could not be built; None when it was committed.
        missing_days: earlier days its windows reach into that have no events partition.
        files: of events, a digest of the raw files that hold the day (``Arrivals.signature``); None
            where there are no files.
    """

    day: date
    hours: Hours = ALL_HOURS
    rows: int = 0
    rows_by_hour: tuple[int, ...] = ()
    bytes: int = 0
    null_keys: int = 0
    duplicates: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    missing_days: tuple[date, ...] = ()
    files: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "day": self.day.isoformat(),
            "hours": [self.hours.start, self.hours.stop],
            "rows": self.rows,
            "bytes": self.bytes,
            "null_keys": self.null_keys,
            "duplicates": self.duplicates,
            "dead_letters": dict(self.dead_letters),
            "error": self.error,
            "missing_days": [day.isoformat() for day in self.missing_days],
        }


@dataclass(frozen=True)
class FilesRead:
    """What a build of events made of the raw files that it found.

    Attributes:
        read: how many were read.
        of_other_days: how many were left out, for they hold no event of the days by what they say
            themselves, or by ``{date}`` in their names.
        unreadable: path to what is wrong with it; dead letters ``unreadable`` say the same.
        passed_over: what lies beside them and is no raw file by its name, each with the reason.
        absent_columns: declared columns that none of them has, which are null.
    """

    read: int
    of_other_days: int = 0
    unreadable: Mapping[str, str] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()
    absent_columns: tuple[str, ...] = ()

    def notes(self) -> Iterator[str]:
        """Yield in words what a reader of the build should know; nothing if all is as it should be."""
        if self.of_other_days:
            yield f"{self.of_other_days} file(s) of other days passed over"
        if self.passed_over:
            yield f"{len(self.passed_over)} file(s) passed over: {_some(self.passed_over)}"
        if self.absent_columns:
            yield f"in no file, so null: {_some(self.absent_columns)}"
        if self.unreadable:
            told = [f"{path}: {why}" for path, why in self.unreadable.items()]
            yield f"{len(told)} unreadable file(s): {_some(told)}"

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "read": self.read,
            "of_other_days": self.of_other_days,
            "unreadable": dict(self.unreadable),
            "passed_over": list(self.passed_over),
            "absent_columns": list(self.absent_columns),
        }


def _some(names: Sequence[str]) -> str:
    more = len(names) - _FILES_NAMED
    return ", ".join(names[:_FILES_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class BuildReport:
    """What one build of a range of days did to one Delta table.

    Attributes:
        table: name of the table under the lake, such as ``tiles/customer_spend/v1``.
        version: version of the view (``v1``); None for events.
        delta_version: the table's Delta version after the commit.
        outcomes: one per day asked for, and any other day that was built on the way.
        input_versions: Delta version read of each input table, by its name or path.
        seconds: wall time of the build.
        began_ms: when it began to read, epoch milliseconds; 0 where nobody asks for it.
        undated: dead letters of no day among the files that were read: rows without a time, or with
            one that cannot be read. Whatever days are built, they are those of the whole files.
        files: what was made of raw files; None where there are none, or Spark alone sees them.
    """

    table: str
    version: str | None
    delta_version: int
    outcomes: tuple[PartitionOutcome, ...]
    input_versions: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    began_ms: int = 0
    undated: int = 0
    files: FilesRead | None = None

    @property
    def built(self) -> tuple[PartitionOutcome, ...]:
        """The committed days."""
        return tuple(o for o in self.outcomes if o.error is None)

    @property
    def failed(self) -> tuple[PartitionOutcome, ...]:
        """The days that could not be built."""
        return tuple(o for o in self.outcomes if o.error is not None)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "table": self.table,
            "version": self.version,
            "delta_version": self.delta_version,
            "input_versions": dict(self.input_versions),
            "seconds": round(self.seconds, 3),
            "undated": self.undated,
            "files": self.files.as_json() if self.files else None,
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }
