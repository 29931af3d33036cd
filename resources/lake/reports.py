"""What a build of a table reports: which days, how each ended, and from what it was made.

The offline tables fill these records, the assets turn them into Dagster events, the command
prints them. Frozen, without engine types, and plain JSON by ``as_json``.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Any

from millrace.calendar import (
    LAST_DAY,
    LAST_MS,
    day_ms,
    day_number,
    days_after,
    days_between,
    next_day,
)
from millrace.durations import HOUR_MS
from millrace.errors import PlatformError

HOURS_A_DAY = 24

_END_OF_CALENDAR = "10000-01-01"
"""How the end of a range is written that holds 9999-12-31; Python has no such date."""

_DAYS_NAMED = 40
_FILES_NAMED = 3


@dataclass(frozen=True)
class Days:
    """A half-open range of UTC days ``[start, end)``; iterating yields each day in order.

    Days within may be left out: they are not yielded, counted or contained.

    Of the first and the last day it may hold some hours only. What is built, replaced and told by
    Dagster is then an hour; what is read, judged and served are days.

    Attributes:
        start: the first day.
        end: the day after the last; None after 9999-12-31, the last day there is.
        from_hour: the first hour of the first day, 0 to 23.
        to_hour: the hour after the last one of the last day, 1 to 24.
        left_out: days between the first and the last that do not belong to it.
    """

    start: date
    end: date | None
    from_hour: int = 0
    to_hour: int = HOURS_A_DAY
    left_out: frozenset[date] = frozenset()

    def __post_init__(self) -> None:
        if self.end_ms <= self.start_ms:
            raise PlatformError(
                f"the range {self} holds no day"
                if self.is_whole
                else f"the range {self} holds no hour",
                fix="the end is exclusive: name a day after the start, "
                f"such as {next_day(self.start) or _END_OF_CALENDAR}",
            )

    @classmethod
    def parse(cls, start: str, end: str) -> "Days":
        """Read two days written ``YYYY-MM-DD``, or instants of whole hours ``YYYY-MM-DDTHH:00``.

        The end ``10000-01-01`` is the one behind 9999-12-31.

        Raises:
            PlatformError: one is neither, or the range is empty.
        """
        first = _parse_hour(start)
        if end == _END_OF_CALENDAR:
            return cls(first.date(), None, first.hour)
        return cls.between(first, _parse_hour(end))

    @classmethod
    def between(cls, start: datetime, end: datetime) -> "Days":
        """Return the range of whole hours between two instants of UTC, the end exclusive."""
        if end.hour == 0:
            return cls(start.date(), end.date(), start.hour)
        return cls(start.date(), next_day(end.date()), start.hour, end.hour)

    @classmethod
    def through(
        cls, first: date, last: date, from_hour: int = 0, to_hour: int = HOURS_A_DAY
    ) -> "Days":
        """Return the range from one day to another, which is within."""
        return cls(first, next_day(last), from_hour, to_hour)

    @classmethod
    def covering(cls, days: Sequence[date]) -> "Days":
        """Return the shortest range that holds all of ``days`` (at least one)."""
        return cls.through(min(days), max(days))

    def within(self, days: Sequence[date]) -> "Days":
        """Return the shortest range that holds ``days`` (at least one) as far as this one does."""
        first, last = min(days), max(days)
        return Days.through(
            first,
            last,
            self.from_hour if first == self.start else 0,
            self.to_hour if last == self.last else HOURS_A_DAY,
        )

    def only(self, days: Collection[date]) -> "Days":
        """Return these days of it (at least one), each as far as this range holds it.

        >>> list(Days.parse("2020-01-01", "2020-01-08").only([date(2020, 1, 3), date(2020, 1, 5)]))
        [datetime.date(2020, 1, 3), datetime.date(2020, 1, 5)]
        """
        span = self.within(list(days))
        return replace(span, left_out=frozenset(day for day in span if day not in days))

    def since(self, day: date) -> "Days":
        """Return the part of this range from a day on, which lies before its end."""
        if day <= self.start:
            return self
        kept = [one for one in self if one >= day]
        return self.only(kept) if self.left_out else Days(day, self.end, 0, self.to_hour)

    def before(self, day: date) -> "Days":
        """Return the part of this range before a day, which lies after its start."""
        return self if self.last < day else Days(self.start, day, self.from_hour)

    def __iter__(self) -> Iterator[date]:
        days = days_between(self.start, self.last)
        return iter([day for day in days if day not in self.left_out] if self.left_out else days)

    def __len__(self) -> int:
        return day_number(self.last) - day_number(self.start) + 1 - len(self.left_out)

    def __contains__(self, day: object) -> bool:
        is_within = isinstance(day, date) and self.start <= day <= self.last
        return is_within and day not in self.left_out

    def __str__(self) -> str:
        if self.is_whole:
            return f"[{self.start}, {self.end_text})"
        end = self.end_text if self.to_hour == HOURS_A_DAY else f"{self.last}T{self.to_hour:02}:00"
        return f"[{self.start}T{self.from_hour:02}:00, {end})"

    @property
    def last(self) -> date:
        """The last day within."""
        return LAST_DAY if self.end is None else days_after(self.end, -1)

    @property
    def end_text(self) -> str:
        """The day after the last one, as ``parse`` reads it."""
        return _END_OF_CALENDAR if self.end is None else str(self.end)

    @property
    def is_whole(self) -> bool:
        """True if it holds every hour of its days."""
        return self.from_hour == 0 and self.to_hour == HOURS_A_DAY

    @property
    def parts(self) -> "dict[date, Hours]":
        """The hours of those days, at most two, of which it does not hold all."""
        return {
            day: some
            for day in (self.start, self.last)
            if len(some := self.hours(day)) < HOURS_A_DAY
        }

    def hours(self, day: date) -> "Hours":
        """Return the hours that it holds of one of its days."""
        return range(
            self.from_hour if day == self.start else 0,
            self.to_hour if day == self.last else HOURS_A_DAY,
        )

    @property
    def start_ms(self) -> int:
        """The first instant within, epoch milliseconds."""
        return day_ms(self.start) + self.from_hour * HOUR_MS

    @property
    def end_ms(self) -> int:
        """The instant behind the last one within, epoch milliseconds."""
        edge_ms = LAST_MS + 1 if self.end is None else day_ms(self.end)
        return edge_ms - (HOURS_A_DAY - self.to_hour) * HOUR_MS


Hours = range
"""Consecutive hours of a UTC day, within 0 to 23."""

ALL_HOURS: Hours = range(HOURS_A_DAY)


def parse_day(text: str) -> date:
    """Read one day written ``YYYY-MM-DD``.

    Raises:
        PlatformError: the text is not such a date.
    """
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise PlatformError(f"{text!r} is not a day", fix="write YYYY-MM-DD, 2018-04-01") from None


def _parse_hour(text: str) -> datetime:
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:00", "%Y-%m-%dT%H:00Z"):
        try:
            return datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
    raise PlatformError(
        f"{text!r} is not a day",
        fix="write YYYY-MM-DD, 2018-04-01; or of a source of hours YYYY-MM-DDTHH:00",
    )


def day_list(days: Sequence[date]) -> str:
    """Name days briefly: neighbours as ``first..last``, at most 40 entries; each day once.

    >>> day_list([date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 9)])
    '2020-01-01..2020-01-02, 2020-01-09'
    """
    ordered = sorted(set(days))
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
