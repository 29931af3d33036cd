"""Replacing days, or hours of them, of a Delta table: the one way this platform writes partitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING

from millrace.calendar import day_ms
from millrace.days import Hours, day_ranges
from millrace.durations import HOUR_MS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_WRITERS = 4
"""Files written at a time; a day is always one file, so small days stay small tables."""


def day_predicate(days: Sequence[date], column: str = "event_date") -> str:
    """Return the SQL condition that a column is one of ``days``; none of them meets nothing."""
    return (
        " OR ".join(
            # Both ends within: no engine can be asked for the day after 9999-12-31.
            f"({column} >= DATE'{some.start}' AND {column} <= DATE'{some.last}')"
            for some in day_ranges(days)
        )
        or "false"
    )


@dataclass(frozen=True)
class Slices:
    """What of a table a build replaces: days, of some of them only a part.

    Attributes:
        days: the days, in order.
        bounds: epoch milliseconds ``[from, to)`` of those days that are not replaced as a whole.
    """

    days: tuple[date, ...]
    bounds: Mapping[date, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of_hours(
        cls, days: Sequence[date], parts: Mapping[date, Hours], *, hop_ms: int = HOUR_MS
    ) -> "Slices":
        """Return the slices of days of which ``parts`` names some hours.

        Args:
            days: the days.
            parts: the hours of days that are not wanted as a whole; other days are ignored.
            hop_ms: what must not be cut, such as tiles: a divisor of the day. Bounds give way to it.
        """
        bounds = {}
        for day in days:
            if day in parts:
                hours, midnight = parts[day], day_ms(day)
                start = hours.start * HOUR_MS // hop_ms * hop_ms
                end = -(-hours.stop * HOUR_MS // hop_ms) * hop_ms
                bounds[day] = (midnight + start, midnight + end)
        return cls(tuple(days), bounds)

    def predicate(self, time: str, day: str = "event_date") -> str:
        """Return the SQL condition that a row lies within.

        ``time`` is its epoch milliseconds, ``day`` the column of its day.
        """
        parts = [
            f"({day} = DATE'{of}' AND {time} >= {start} AND {time} < {end})"
            for of, (start, end) in sorted(self.bounds.items())
        ]
        whole = [day_predicate(self._whole, day)] if self._whole or not parts else []
        return " OR ".join([*whole, *parts])

    @property
    def ranges_ms(self) -> list[tuple[int, int]]:
        """The instants within as half-open ranges of epoch milliseconds, ascending."""
        ranges = [(some.start_ms, some.end_ms) for some in day_ranges(self._whole)]
        return sorted([*ranges, *self.bounds.values()])

    @property
    def _whole(self) -> list[date]:
        return [day for day in self.days if day not in self.bounds]


def replace_days(
    frame: "DataFrame",
    path: str,
    predicate: str,
    *,
    sort: Sequence[str],
) -> None:
    """Make ``frame`` all that meets ``predicate`` in the Delta table at ``path``, atomically.

    Days that the frame has no row for become empty; other rows stay untouched. Rows of the frame
    that do not meet it are refused by Delta (``replaceWhere``), so a builder's mistake cannot
    spread.
    """
    ordered = frame.repartition(_WRITERS, "event_date").sortWithinPartitions("event_date", *sort)
    (
        ordered.write.format("delta")
        .mode("overwrite")
        .partitionBy("event_date")
        .option("replaceWhere", predicate)
        .option("mergeSchema", "true")
        .save(path)
    )


def rewrite_table(frame: "DataFrame", path: str, *, sort: Sequence[str]) -> None:
    """Make ``frame`` the whole of the Delta table at ``path``, its columns too, atomically.

    The frame may have been read from that table. Its properties and application transactions stay.
    """
    ordered = frame.repartition(_WRITERS, "event_date").sortWithinPartitions("event_date", *sort)
    (
        ordered.write.format("delta")
        .mode("overwrite")
        .partitionBy("event_date")
        .option("overwriteSchema", "true")
        .save(path)
    )
