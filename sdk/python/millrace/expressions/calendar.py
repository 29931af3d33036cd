"""Days as numbers: the Gregorian calendar carried on in both directions."""

from datetime import date

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DAYS_OF_400_YEARS = 146_097
# 1 January 1970 was a Thursday, the fifth day of a week that begins with Sunday.
_EPOCH_DAY_OF_WEEK = 4


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to a day."""
    return day.toordinal() - _EPOCH_ORDINAL


def to_date(number: int) -> date | None:
    """Return the day of a number; None outside the years 1 to 9999."""
    ordinal = number + _EPOCH_ORDINAL
    return date.fromordinal(ordinal) if 1 <= ordinal <= date.max.toordinal() else None


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
