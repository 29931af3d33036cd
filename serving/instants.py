"""Instants as requests and answers write them: ISO-8601 in UTC, with milliseconds."""

from datetime import UTC, datetime
from functools import lru_cache

from millrace.calendar import to_datetime, to_ms


@lru_cache(maxsize=8192)
def instant_text(instant_ms: int) -> str | int:
    """Return ``2026-11-25T12:00:03.120Z``; outside the years 1 to 9999 the number itself.

    >>> instant_text(1764072003120)
    '2025-11-25T12:00:03.120Z'
    """
    moment = to_datetime(instant_ms)
    if moment is None:
        return instant_ms
    return moment.strftime("%Y-%m-%dT%H:%M:%S").zfill(19) + f".{instant_ms % 1000:03d}Z"


def instant_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO-8601 text; without a zone it is UTC.

    Raises:
        ValueError: the text is no instant.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return to_ms(moment)
