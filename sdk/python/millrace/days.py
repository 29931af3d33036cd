"""Ranges of days, and of the hours of days: what is built, and how people write it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise

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


def day_ranges(days: Iterable[date]) -> list[Days]:
    """Join days into maximal ranges, in order."""
    ordered = sorted(set(days))
    edges = [i for i, (a, b) in enumerate(pairwise(ordered), 1) if (b - a).days > 1]
    bounds = pairwise([0, *edges, len(ordered)]) if ordered else ()
    return [Days.through(ordered[i], ordered[j - 1]) for i, j in bounds]


def day_count(days: Sequence[date]) -> str:
    """Say how many days there are, at least one, and between which.

    >>> day_count([date(2020, 1, 1), date(2020, 1, 9)])
    '2 day(s) of [2020-01-01, 2020-01-10)'
    """
    return f"{len(days)} day(s) of {Days.covering(days)}"


def day_list(days: Sequence[date]) -> str:
    """Name days briefly: neighbours as ``first..last``, at most 40 entries; each day once.

    >>> day_list([date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 9)])
    '2020-01-01..2020-01-02, 2020-01-09'
    """
    ranges = day_ranges(days)
    names = [f"{r.start}..{r.last}" if len(r) > 1 else f"{r.start}" for r in ranges]
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
