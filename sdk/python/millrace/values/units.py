"""Integers that are plainly an instant, but not in milliseconds.

As milliseconds, the seconds and days of this century are moments of 1970, and so are its days written
without hyphens; micro- and nanoseconds lie beyond the year 9999.
"""

from datetime import UTC, datetime, timedelta

from millrace.calendar import EPOCH_INSTANT, FIRST_MS, LAST_MS

SURE_MS = range(10**11, 10**13)
"""Milliseconds that can be nothing else: of the years 1973 to 2286."""

_PLAUSIBLE_SECONDS = range(946_684_800, 4_102_444_800)
_PLAUSIBLE_YEARS = range(2000, 2100)
_NANOSECONDS_FROM = 10**17
_COMPACT = {8: ("%Y%m%d", "%Y-%m-%d"), 14: ("%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%SZ")}


def unit_hint(number: int) -> str:
    """Say what an integer is that should be epoch milliseconds, and the mend; empty if it is them.

    >>> unit_hint(1_709_287_200)
    '1709287200 looks like epoch seconds, 2024-03-01T10:00:00Z: multiply by 1000'
    >>> unit_hint(20_240_301)
    '20240301 looks like a date without hyphens: write 2024-03-01'
    >>> unit_hint(1_709_287_200_000)
    ''
    """
    if number in SURE_MS:
        return ""
    compact = _compact_time(str(number))
    if compact is not None:
        return f"{number} looks like a date without hyphens: write {compact}"
    if number in _PLAUSIBLE_SECONDS:
        unit, seconds, mend = "seconds", number, "multiply by 1000"
    elif number * 86_400 in _PLAUSIBLE_SECONDS:
        unit, seconds, mend = "days", number * 86_400, "multiply by 86400000"
    elif FIRST_MS <= number <= LAST_MS:
        return ""
    elif abs(number) < _NANOSECONDS_FROM:
        unit, seconds, mend = "microseconds", number // 10**6, "divide by 1000"
    else:
        unit, seconds, mend = "nanoseconds", number // 10**9, "divide by 1000000"
    try:
        instant = (EPOCH_INSTANT + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
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
    return found.strftime(formats[1]) if found.year in _PLAUSIBLE_YEARS else None
