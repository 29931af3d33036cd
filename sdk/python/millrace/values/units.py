"""Integers that are plainly an instant, but not in milliseconds.

Milliseconds of the years since 1973 have twelve digits or more. Fewer digits are seconds, days or a
calendar day without its hyphens; more of them are micro- or nanoseconds.
"""

from datetime import UTC, datetime, timedelta

FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999, outside of which there is no instant."""

FEWEST_MS = 10**11
"""The least milliseconds that are taken for an event time, at either side of 1970: 1973-03-03."""

COMPACT_FROM = 10**13
"""From here on to ``LAST_MS`` milliseconds may be a calendar time without its hyphens."""

_DAYS_BELOW = 10**5
_NANOSECONDS_FROM = 10**17
_COMPACT = {8: ("%Y%m%d", "%Y-%m-%d"), 14: ("%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%SZ")}
_COMPACT_YEARS = range(1900, 2101)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def unit_hint(number: int) -> str:
    """Say what an integer is that should be epoch milliseconds, and the mend; empty if it is them.

    >>> unit_hint(1_709_287_200)
    '1709287200 looks like epoch seconds, 2024-03-01T10:00:00Z: multiply by 1000'
    >>> unit_hint(20_240_301)
    '20240301 looks like a date without hyphens: write 2024-03-01'
    >>> unit_hint(1_709_287_200_000)
    ''
    """
    if FEWEST_MS <= number < COMPACT_FROM or number == 0:
        # Nought is the same instant in every unit.
        return ""
    compact = _compact_time(str(number))
    if compact is not None:
        return f"{number} looks like a date without hyphens: write {compact}"
    if abs(number) >= FEWEST_MS and FIRST_MS <= number <= LAST_MS:
        return ""
    if abs(number) < _DAYS_BELOW:
        unit, seconds, mend = "days", number * 86_400, "multiply by 86400000"
    elif abs(number) < FEWEST_MS:
        unit, seconds, mend = "seconds", number, "multiply by 1000"
    elif abs(number) < _NANOSECONDS_FROM:
        unit, seconds, mend = "microseconds", number // 10**6, "divide by 1000"
    else:
        unit, seconds, mend = "nanoseconds", number // 10**9, "divide by 1000000"
    try:
        instant = (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
    except OverflowError:
        return f"{number} ms lies outside the years 1 to 9999"
    return f"{number} looks like epoch {unit}, {instant}Z: {mend}"


def _compact_time(digits: str) -> str | None:
    formats = _COMPACT.get(len(digits))
    if formats is None:
        return None
    try:
        found = datetime.strptime(digits, formats[0]).replace(tzinfo=UTC)
    except ValueError:
        return None
    return found.strftime(formats[1]) if found.year in _COMPACT_YEARS else None
