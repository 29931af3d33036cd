"""Instants as requests and answers write them: ISO-8601 in UTC, with milliseconds."""

from datetime import UTC, datetime
from functools import lru_cache

from millrace.calendar import to_datetime, to_ms
from millrace.durations import MINUTE_MS


@lru_cache(maxsize=8192)
def instant_text(instant_ms: int) -> str | int:
    """Return ``2026-11-25T12:00:03.120Z``; outside the years 1 to 9999 the number itself.

    >>> instant_text(1764072003120)
    '2025-11-25T12:00:03.120Z'
    """
    minute, rest_ms = divmod(instant_ms, MINUTE_MS)
    text = _minute_text(minute)
    return instant_ms if text is None else f"{text}{rest_ms // 1000:02d}.{rest_ms % 1000:03d}Z"


@lru_cache(maxsize=8192)
def _minute_text(minute: int) -> str | None:
    moment = to_datetime(minute * MINUTE_MS)
    return None if moment is None else moment.strftime("%Y-%m-%dT%H:%M:").zfill(17)


def instant_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO-8601 text; without a zone it is UTC.

    Raises:
        ValueError: the text is no instant.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return to_ms(moment)
