"""Days and instants as integers: where the range is stated, and where Python's calendar ends.

An instant is epoch milliseconds, UTC; a day is a ``date``, or the number of days since 1970-01-01.
Data and declarations decide both, so no arithmetic here raises: it stops at the first and the last
day, or says None for what lies beyond. The calendar is the proleptic Gregorian one throughout.
"""

from datetime import UTC, date, datetime, timedelta

from millrace.durations import DAY_MS

FIRST_DAY, LAST_DAY = date.min, date.max
"""0001-01-01 and 9999-12-31: the days that events, windows and queries may lie in."""

EPOCH = date(1970, 1, 1)
EPOCH_INSTANT = datetime(1970, 1, 1, tzinfo=UTC)

_EPOCH_ORDINAL = EPOCH.toordinal()
_MILLISECOND = timedelta(milliseconds=1)
_DAYS_OF_400_YEARS = 146_097
# 1 January 1970 was a Thursday, the fifth day of a week that begins with Sunday.
_EPOCH_DAY_OF_WEEK = 4


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to a day."""
    return day.toordinal() - _EPOCH_ORDINAL


FIRST_NUMBER, LAST_NUMBER = day_number(FIRST_DAY), day_number(LAST_DAY)

FIRST_MS, LAST_MS = FIRST_NUMBER * DAY_MS, (LAST_NUMBER + 1) * DAY_MS - 1
"""The first and the last instant that events and queries may have, epoch milliseconds."""


def to_date(number: int) -> date | None:
    """Return the day of a number; None outside the years 1 to 9999."""
    known = FIRST_NUMBER <= number <= LAST_NUMBER
    return date.fromordinal(number + _EPOCH_ORDINAL) if known else None


def numbered_day(number: int) -> date:
    """Return the day of a number; before the first day that one, behind the last the last."""
    return date.fromordinal(min(max(number, FIRST_NUMBER), LAST_NUMBER) + _EPOCH_ORDINAL)


def day_ms(day: date) -> int:
    """Return midnight UTC at a day's beginning, epoch milliseconds."""
    return day_number(day) * DAY_MS


def day_of(instant_ms: int) -> date:
    """Return the UTC day of an instant; before the first day that one, behind the last the last.

    >>> day_of(-1), day_of(10**18)
    (datetime.date(1969, 12, 31), datetime.date(9999, 12, 31))
    """
    return numbered_day(instant_ms // DAY_MS)


def is_within(instant_ms: int) -> bool:
    """Tell whether an instant lies in the years 1 to 9999."""
    return FIRST_MS <= instant_ms <= LAST_MS


def days_after(day: date, count: int) -> date:
    """Return the day so many days later (earlier, if negative), the first or last one at most.

    >>> days_after(LAST_DAY, 7), days_after(date(1970, 1, 1), -1)
    (datetime.date(9999, 12, 31), datetime.date(1969, 12, 31))
    """
    return numbered_day(day_number(day) + count)


def next_day(day: date) -> date | None:
    """Return the day after one; None after 9999-12-31."""
    return to_date(day_number(day) + 1)


def days_between(first: date, last: date) -> list[date]:
    """Return the days from one to another, both among them; none if the last lies before."""
    return [date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)]


def to_ms(moment: datetime) -> int:
    """Return an aware instant as epoch milliseconds, finer digits floored; no double is involved."""
    return (moment - EPOCH_INSTANT) // _MILLISECOND


def to_datetime(instant_ms: int) -> datetime | None:
    """Return an instant as an aware ``datetime`` of UTC; None outside the years 1 to 9999."""
    return EPOCH_INSTANT + instant_ms * _MILLISECOND if is_within(instant_ms) else None


def newest_day_over(instant_ms: int, lateness_ms: int) -> date:
    """Return the newest UTC day that was over for ``lateness_ms`` at an instant, epoch ms.

    A day is over when this is it or a later one.

    >>> newest_day_over(2 * DAY_MS + 5_400_000, 5_400_000)
    datetime.date(1970, 1, 2)
    >>> newest_day_over(2 * DAY_MS + 5_399_999, 5_400_000)
    datetime.date(1970, 1, 1)
    """
    return numbered_day((instant_ms - lateness_ms) // DAY_MS - 1)


def civil(number: int) -> tuple[int, int, int]:
    """Return year, month and day of a day number, for any year.

    The calendar repeats every 400 years, so the day is looked up in the years 2000 to 2399.

    >>> civil(0), civil(-1)
    ((1970, 1, 1), (1969, 12, 31))
    """
    cycles, within = divmod(number - day_number(date(2000, 1, 1)), _DAYS_OF_400_YEARS)
    day = date.fromordinal(date(2000, 1, 1).toordinal() + within)
    return day.year + 400 * cycles, day.month, day.day


def day_of_week(number: int) -> int:
    """Return 1 for Sunday to 7 for Saturday."""
    return (number + _EPOCH_DAY_OF_WEEK) % 7 + 1
