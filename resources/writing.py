"""Replacing whole days of a Delta table: the one way this platform writes partitions."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_WRITERS = 4
"""Files written at a time; a day is always one file, so small days stay small tables."""


def day_ranges(days: Sequence[date]) -> list[tuple[date, date]]:
    """Join days into maximal half-open ranges, in order."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and ranges[-1][1] == day:
            ranges[-1] = (ranges[-1][0], day + timedelta(days=1))
        else:
            ranges.append((day, day + timedelta(days=1)))
    return ranges


def day_predicate(days: Sequence[date]) -> str:
    """Return the SQL condition that ``event_date`` is one of ``days``."""
    return " OR ".join(
        f"(event_date >= DATE'{start}' AND event_date < DATE'{end}')"
        for start, end in day_ranges(days)
    )


def replace_days(
    frame: "DataFrame",
    path: str,
    days: Sequence[date],
    *,
    sort: Sequence[str],
    predicate: str | None = None,
) -> None:
    """Make ``frame`` the whole content of ``days`` in the Delta table at ``path``, atomically.

    Days that the frame has no row for become empty; other days stay untouched. Rows of any other
    day are refused by Delta (``replaceWhere``), so a builder's mistake cannot spread.
    ``predicate`` narrows what is replaced within the days; all rows of the frame must meet it.
    """
    if not days:
        return
    ordered = frame.repartition(_WRITERS, "event_date").sortWithinPartitions("event_date", *sort)
    (
        ordered.write.format("delta")
        .mode("overwrite")
        .partitionBy("event_date")
        .option("replaceWhere", predicate or day_predicate(days))
        .option("mergeSchema", "true")
        .save(path)
    )
