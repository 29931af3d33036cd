"""When a UTC day is over: once no event of it can be accepted any more."""

from datetime import date

from millrace.durations import DAY_MS

_EPOCH = date(1970, 1, 1).toordinal()


def newest_day_over(instant_ms: int, lateness_ms: int) -> date:
    """Return the newest UTC day that was over for ``lateness_ms`` at an instant, epoch ms.

    A day is over when this is it or a later one.

    >>> newest_day_over(2 * DAY_MS + 5_400_000, 5_400_000)
    datetime.date(1970, 1, 2)
    >>> newest_day_over(2 * DAY_MS + 5_399_999, 5_400_000)
    datetime.date(1970, 1, 1)
    """
    return date.fromordinal(_EPOCH + (instant_ms - lateness_ms) // DAY_MS - 1)
