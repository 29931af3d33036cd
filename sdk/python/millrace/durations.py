"""Durations as written in declarations (``500ms 10s 5m 1h 7d``), in integer milliseconds."""

import re

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNIT_MS = {"ms": 1, "s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_PATTERN = re.compile(r"(\d+)(ms|s|m|h|d)")


def parse_duration(text: str) -> int:
    """Return the milliseconds of a duration such as ``"90s"`` or ``"7d"``.

    Raises:
        ValueError: the text is not one whole number followed by one unit.

    >>> parse_duration("1h")
    3600000
    """
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration; write a whole number and one of ms, s, m, h, d: 90s, 7d"
        )
    return int(match[1]) * _UNIT_MS[match[2]]


def format_duration(duration_ms: int) -> str:
    """Return the shortest spelling that parses back to the same milliseconds.

    >>> format_duration(604_800_000)
    '7d'
    """
    if duration_ms == 0:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if duration_ms % _UNIT_MS[unit] == 0:
            return f"{duration_ms // _UNIT_MS[unit]}{unit}"
    return f"{duration_ms}ms"
