"""Days and hours as Dagster's partition keys: ``2018-04-01``, and ``2018-04-01-05:00`` of an hour.

The assets of a source are partitioned by the day, or by the hour if it is refreshed each hour. An
hour is a slice of a day: the tables, the partition log and the checks know days (``docs/decisions/
days.md``). What is found out about a whole day is told at its last hour.
"""

from datetime import UTC, date, datetime

from millrace.days import ALL_HOURS, HOURS_A_DAY, Days, Hours, parse_day

FIRST_PARTITION, LAST_PARTITION = date(1000, 1, 1), date(9999, 12, 30)
"""The days that Dagster has partitions of. It writes a year below 1000 with fewer digits than it
reads, and computes the day after each.
"""

_DAY_LENGTH = len("YYYY-MM-DD")


def first_partition(start: date) -> date:
    """Return the day with which the partitions of what begins on a day begin."""
    return min(max(start, FIRST_PARTITION), LAST_PARTITION)


def partition_keys(days: Days, *, by_hour: bool) -> list[str]:
    """Return the keys of a range, ascending."""
    return [key for day in days for key in keys_of_day(day, days.hours(day), by_hour=by_hour)]


def keys_of_day(day: date, hours: Hours = ALL_HOURS, *, by_hour: bool) -> list[str]:
    """Return the key of a day, or those of some of its hours, ascending."""
    if not by_hour:
        return [day.isoformat()]
    return [f"{day}-{hour:02}:00" for hour in hours]


def closing_key(day: date, *, by_hour: bool) -> str:
    """Return the key at which a whole day is judged: its own, or that of its last hour."""
    return keys_of_day(day, by_hour=by_hour)[-1]


def is_hour(key: str) -> bool:
    """Tell whether a key is of an hour."""
    return len(key) > _DAY_LENGTH


def key_day(key: str) -> date:
    """Return the day that a key is, or whose hour it is.

    Raises:
        PlatformError: it is the key of neither.
    """
    return parse_day(key[:_DAY_LENGTH])


def key_range(first: str, last: str) -> Days:
    """Return the range from one key to another, which is within.

    >>> key_range("2020-01-01-22:00", "2020-01-02-00:00").parts
    {datetime.date(2020, 1, 1): range(22, 24), datetime.date(2020, 1, 2): range(0, 1)}
    """
    start, end = _instant(first), _instant(last)
    to_hour = end.hour + 1 if is_hour(last) else HOURS_A_DAY
    return Days.through(start.date(), end.date(), start.hour, to_hour)


def _instant(key: str) -> datetime:
    form = "%Y-%m-%d-%H:%M" if is_hour(key) else "%Y-%m-%d"
    return datetime.strptime(key, form).replace(tzinfo=UTC)


def range_tags(days: Days, *, by_hour: bool) -> dict[str, str]:
    """Return the tags that make one run of a range of partitions; both ends are within."""
    keys = partition_keys(days, by_hour=by_hour)
    return {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
