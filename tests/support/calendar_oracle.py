"""Calendar windows of the window contract, by brute force: the clock of a zone is looked at.

Time is cut into cells of a window's hop. A cell in which a unit begins is where its window does.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def bounds(unit: str, zone: str, previous: int, hop_ms: int, q_ms: int) -> tuple[int, int]:
    """Return where the unit ``previous`` before that of the query begins, and where it ends."""
    begins = _hours if unit == "1h" else _days
    some = sorted({at for at in begins(unit, zone, previous, hop_ms, q_ms) if at <= q_ms})
    return some[-1 - previous], q_ms if previous == 0 else some[-previous]


def _hours(unit: str, zone: str, previous: int, hop_ms: int, q_ms: int) -> Iterator[int]:
    """Hours begin where the clock shows a full one, or goes to another in a leap."""
    cell, found = q_ms // hop_ms * hop_ms, 0
    while found <= previous:
        if _holds_hour(zone, cell, hop_ms):
            found += 1
            yield cell
        cell -= hop_ms


@cache
def _holds_hour(zone: str, cell: int, hop_ms: int) -> bool:
    before = _clock(zone, cell - 1000)
    for at in _looks(zone, cell, hop_ms):
        now = _clock(zone, at)
        if _hour_of(now) != _hour_of(before) or now == _hour_of(now):
            return True
        before = now
    return False


def _hour_of(clock: datetime) -> datetime:
    return clock.replace(minute=0, second=0)


def _days(unit: str, zone: str, previous: int, hop_ms: int, q_ms: int) -> Iterator[int]:
    """Days, and what begins with one, begin where the clock first shows that day or a later one."""
    day, found = _clock(zone, q_ms).date() + timedelta(days=3), 0
    while found <= previous + 2:
        if _begins(unit, day):
            at = _first_shown(zone, day, hop_ms)
            found += at <= q_ms
            yield at
        day -= timedelta(days=1)


def _begins(unit: str, day: date) -> bool:
    return {"1d": True, "1w": day.weekday() == 0, "1mo": day.day == 1}[unit]


@cache
def _first_shown(zone: str, day: date, hop_ms: int) -> int:
    midnight = (day - date(1970, 1, 1)).days * DAY_MS
    cell = (midnight - 50 * HOUR_MS) // hop_ms * hop_ms
    while all(_clock(zone, at).date() < day for at in _looks(zone, cell, hop_ms)):
        cell += hop_ms
    return cell


def _looks(zone: str, cell: int, hop_ms: int) -> range:
    """The seconds of a cell in which the clock is set; of any other the last is the latest."""
    last = cell + hop_ms - 1000
    is_set = _clock(zone, last) - _clock(zone, cell - 1000) != timedelta(milliseconds=hop_ms)
    return range(cell if is_set else last, last + 1000, 1000)


def _clock(zone: str, at_ms: int) -> datetime:
    """What a clock in the zone shows, to the second."""
    instant = _EPOCH + timedelta(seconds=at_ms // 1000)
    return instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
