"""What a build of a table reports: which days, how each ended, and from what it was made.

The offline tables fill these records, the assets turn them into Dagster events, the command
prints them. Frozen, without engine types, and plain JSON by ``as_json``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from millrace.durations import DAY_MS
from millrace.errors import PlatformError

_ONE_DAY = timedelta(days=1)
_EPOCH = date(1970, 1, 1)
_DAYS_NAMED = 40


@dataclass(frozen=True)
class Days:
    """A half-open range of UTC days ``[start, end)``; iterating yields each day in order."""

    start: date
    end: date

    def __post_init__(self) -> None:
        if self.end <= self.start:
            raise PlatformError(
                f"the range [{self.start}, {self.end}) holds no day",
                fix="the end is exclusive: name a day after the start, "
                f"such as {self.start + _ONE_DAY}",
            )

    @classmethod
    def parse(cls, start: str, end: str) -> "Days":
        """Read two dates written ``YYYY-MM-DD``.

        Raises:
            PlatformError: one is not a date, or the range is empty.
        """
        return cls(parse_day(start), parse_day(end))

    @classmethod
    def covering(cls, days: Sequence[date]) -> "Days":
        """Return the shortest range that holds all of ``days`` (at least one)."""
        return cls(min(days), max(days) + _ONE_DAY)

    def __iter__(self) -> Iterator[date]:
        return (self.start + timedelta(days=i) for i in range(len(self)))

    def __len__(self) -> int:
        return (self.end - self.start).days

    def __contains__(self, day: object) -> bool:
        return isinstance(day, date) and self.start <= day < self.end

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"

    @property
    def last(self) -> date:
        """The last day within."""
        return self.end - _ONE_DAY

    @property
    def start_ms(self) -> int:
        """Midnight UTC of the first day, epoch milliseconds."""
        return (self.start - _EPOCH).days * DAY_MS

    @property
    def end_ms(self) -> int:
        """Midnight UTC of the day after the last, epoch milliseconds."""
        return (self.end - _EPOCH).days * DAY_MS


def parse_day(text: str) -> date:
    """Read one day written ``YYYY-MM-DD``.

    Raises:
        PlatformError: the text is not such a date.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise PlatformError(f"{text!r} is not a day", fix="write YYYY-MM-DD, 2018-04-01") from None


def day_list(days: Sequence[date]) -> str:
    """Name days briefly: neighbours as ``first..last``, at most 40 entries.

    >>> day_list([date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 9)])
    '2020-01-01..2020-01-02, 2020-01-09'
    """
    ordered = sorted(days)
    edges = [i for i, (a, b) in enumerate(pairwise(ordered), 1) if (b - a).days > 1]
    spans = [ordered[i:j] for i, j in pairwise([0, *edges, len(ordered)])]
    names = [f"{s[0]}..{s[-1]}" if len(s) > 1 else f"{s[0]}" for s in spans]
    more = len(names) - _DAYS_NAMED
    return ", ".join(names[:_DAYS_NAMED]) + (f" and {more} more" if more > 0 else "")


def days_by_reason(failed: Iterable[tuple[date, str]]) -> dict[str, str]:
    """Return for each reason the days it is given for, named briefly; in the order it comes up.

    >>> days_by_reason([(date(2020, 1, 1), "cut off"), (date(2020, 1, 2), "cut off")])
    {'cut off': '2020-01-01..2020-01-02'}
    """
    days: dict[str, list[date]] = {}
    for day, reason in failed:
        days.setdefault(reason, []).append(day)
    return {reason: day_list(some) for reason, some in days.items()}


@dataclass(frozen=True)
class PartitionOutcome:
    """How one day of one table ended.

    Attributes:
        day: the partition.
        rows: rows now in it; 0 with ``error``, which leaves what was there before.
        bytes: size of its files.
        null_keys: events of the view left out because a join key is null.
        duplicates: events dropped because their id had come before.
        dead_letters: refused events by reason (``schema``, ``future``, ``late``).
        error: why the day could not be built; None when it was committed.
        missing_days: earlier days its windows reach into that have no events partition.
    """

    day: date
    rows: int = 0
    bytes: int = 0
    null_keys: int = 0
    duplicates: int = 0
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    error: str | None = None
    missing_days: tuple[date, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as plain JSON values."""
        return {
            "day": self.day.isoformat(),
            "rows": self.rows,
            "bytes": self.bytes,
            "null_keys": self.null_keys,
            "duplicates": self.duplicates,
            "dead_letters": dict(self.dead_letters),
            "error": self.error,
            "missing_days": [day.isoformat() for day in self.missing_days],
        }


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
    """

    table: str
    version: str | None
    delta_version: int
    outcomes: tuple[PartitionOutcome, ...]
    input_versions: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0

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
            "outcomes": [outcome.as_json() for outcome in self.outcomes],
        }
