"""Where hours, days, weeks and months begin on the clocks of a time zone.

The rules of a zone are cut into segments of one offset from UTC, and the beginnings are counted
within each. Nothing is said of single zones: what the database of zones says holds, also of clocks
that are set at midnight, of days that a zone left out, and of years before 1970.
"""

from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from millrace.durations import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Int64s = npt.NDArray[np.int64]

LONGEST_MS = {"1h": HOUR_MS, "1d": DAY_MS, "1w": 7 * DAY_MS, "1mo": 31 * DAY_MS}
"""Units of a calendar and how long each lasts at most while nobody sets a clock."""

SET_CLOCKS_MS = 2 * DAY_MS
"""More than clocks that are set can make of a unit: zones have left out days and had them twice."""

BLOCK_MS = 400 * DAY_MS
"""Beginnings are found for so much time at once."""

_HOUR_S, _DAY_S = HOUR_MS // SECOND_MS, DAY_MS // SECOND_MS
# Where the offsets of a zone can be asked; beyond them the nearest known one holds.
_FIRST_S = int(datetime(2, 1, 1, tzinfo=UTC).timestamp())
_LAST_S = int(datetime(9998, 1, 1, tzinfo=UTC).timestamp())
# From 1972 on every zone is a whole number of quarters of an hour from UTC.
_GRID_FROM_S = int(datetime(1972, 2, 1, tzinfo=UTC).timestamp())
_GRID_UNTIL_S = int(datetime(2038, 1, 1, tzinfo=UTC).timestamp())


@cache
def calendar_hop_ms(zone: str) -> int:
    """Return the hop of a zone's windows: 1 h if its offsets since 1972 are whole hours, else 15 min.

    >>> calendar_hop_ms("Europe/London"), calendar_hop_ms("Asia/Kathmandu")
    (3600000, 900000)
    """
    offsets = {offset for _, offset in _segments(zone, _GRID_FROM_S, _GRID_UNTIL_S, 7 * _DAY_S)}
    return HOUR_MS if all(offset % _HOUR_S == 0 for offset in offsets) else 15 * MINUTE_MS


@lru_cache(maxsize=512)
def beginnings(unit: str, zone: str, hop_ms: int, block: int) -> "Int64s":
    """Return the instants at which a unit begins on the clocks of a zone, in one block of time.

    A day, week or month begins at the first instant at which the clock shows it or a later one: once,
    also if the clock is set back over midnight. An hour begins whenever the clock shows a full one or
    is set over it: one that the clock shows twice is two hours.

    Args:
        unit: what begins.
        zone: IANA name.
        hop_ms: instants that are no multiple of it (before 1972) are floored to one.
        block: its number; it is ``[block * BLOCK_MS, (block + 1) * BLOCK_MS)``.

    Returns:
        Epoch milliseconds, ascending, each once.
    """
    import numpy as np

    begin_s, end_s = block * BLOCK_MS // SECOND_MS, (block + 1) * BLOCK_MS // SECOND_MS
    early_s = begin_s - 3 * _DAY_S  # so that a clock set back over the first edge is seen
    segments = _segments(zone, early_s, end_s)
    find = _hours if unit == "1h" else _days
    instants, shown = find(segments, end_s)
    if unit != "1h":
        periods = _period_of_days(unit, shown)
        highest = np.maximum.accumulate(periods)
        is_new = np.diff(highest, prepend=highest[:1]) > 0
        instants = instants[is_new]
    return np.unique(instants[instants >= begin_s] * SECOND_MS // hop_ms * hop_ms)


Segments = list[tuple[int, int]]
"""Beginning and offset from UTC, both in seconds, of each stretch of one offset."""


def _segments(zone: str, begin_s: int, end_s: int, step_s: int = _DAY_S) -> Segments:
    """Cut time where the offset changes; one that lasts less than a step may be passed over."""
    rules = ZoneInfo(zone)
    segments = [(begin_s, _offset_s(rules, begin_s))]
    for start_s in range(begin_s, end_s, step_s):
        low, high = start_s, min(start_s + step_s, end_s)
        before, after = segments[-1][1], _offset_s(rules, high)
        if before == after:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _offset_s(rules, middle) == before:
                low = middle
            else:
                high = middle
        segments.append((high, _offset_s(rules, high)))
    return segments


def _offset_s(rules: ZoneInfo, instant_s: int) -> int:
    known_s = min(max(instant_s, _FIRST_S), _LAST_S)
    offset = datetime.fromtimestamp(known_s, rules).utcoffset()
    return 0 if offset is None else offset.days * _DAY_S + offset.seconds


def _marks(segments: Segments, end_s: int, step_s: int) -> "tuple[Int64s, Int64s]":
    """Return when clocks show a multiple of a step, and which; and so of each setting of a clock."""
    import numpy as np

    instants, shown = [], []
    ends = [*(begin for begin, _ in segments[1:]), end_s]
    for (begin, offset), end in zip(segments, ends, strict=True):
        full = np.arange(
            -(-(begin + offset) // step_s) * step_s - offset, end, step_s, dtype=np.int64
        )
        full = full if len(full) and full[0] == begin else np.concatenate([[begin], full])
        instants.append(full)
        shown.append((full + offset) // step_s)
    return np.concatenate(instants), np.concatenate(shown)


def _days(segments: Segments, end_s: int) -> "tuple[Int64s, Int64s]":
    return _marks(segments, end_s, _DAY_S)


def _hours(segments: Segments, end_s: int) -> "tuple[Int64s, Int64s]":
    """Leave out the settings of clocks that stay within an hour and come upon no full one."""
    import numpy as np

    instants, shown = _marks(segments, end_s, _HOUR_S)
    offsets = dict(segments)
    is_begin = np.diff(shown, prepend=shown[:1] - 1) != 0
    for i in np.flatnonzero(~is_begin):
        at = int(instants[i])
        is_begin[i] = (at + offsets[at]) % _HOUR_S == 0
    return instants[is_begin], shown[is_begin]


def _period_of_days(unit: str, days: "Int64s") -> "Int64s":
    import numpy as np

    if unit == "1d":
        return days
    if unit == "1w":
        return (days + 3) // 7  # the day 0, 1970-01-01, was a Thursday
    months = days.astype("datetime64[D]").astype("datetime64[M]")
    return months.astype(np.int64)
