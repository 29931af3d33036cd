"""Profile days of a table: in this process while they are few, in Spark's tasks beyond that."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from millrace.names import profiles_table
from resources.lake.delta import open_dataset, open_table, partition_stats, table_path
from resources.lake.writing import day_predicate
from resources.settings import Settings
from resources.spark.session import connect, engine_errors

if TYPE_CHECKING:
    from millrace.quality.partial import Partials, TableShape
    from millrace.quality.profile import DayProfile

LOCAL_ROWS = 20_000_000
"""Up to so many rows are profiled here, half a minute's work: at 0.6 µs a row and table of six
columns that takes a quarter of what it takes Python workers of Spark, whose rows come by way of the
JVM. Where there are more, many workers win.
"""

_ROWS_AT_ONCE = 250_000


def profile_days(
    settings: Settings,
    shape: "TableShape",
    days: Sequence[date],
    counts: Mapping[date, Mapping[str, int]],
    *,
    local_rows: int = LOCAL_ROWS,
) -> "list[DayProfile]":
    """Return one profile per day, ascending, in one pass over the days; empty days have one too.

    Args:
        settings: the lake, and the Spark for what is large.
        shape: the table and what to profile of it.
        days: the days.
        counts: ``DayProfile.counts`` by day.
        local_rows: more rows than this are profiled by Spark.

    Raises:
        EngineError: Spark failed.
    """
    from millrace.quality.partial import Partials

    stats = partition_stats(settings, shape.table)
    present = [day for day in days if day in stats]
    if sum(stats[day].rows for day in present) > local_rows:
        partials = Partials(shape)
        _add_from_tasks(settings, shape, present, partials)
        return partials.profiles(days, counts)
    table = _dataset(settings, shape.table)

    made: list[DayProfile] = []
    # One turn after another: two threads of small days cost a third more of a processor, waiting
    # for the interpreter, and are no sooner done.
    for some in _in_turns(days, {day: stats[day].rows for day in present}):
        partials = Partials(shape)
        _add_here(table, shape, [day for day in some if day in stats], partials)
        made += partials.profiles(some, counts)
    return made


def _dataset(settings: Settings, table: str) -> Any:
    opened = open_table(settings, table)
    return None if opened is None else open_dataset(opened)


def _in_turns(days: Sequence[date], rows: Mapping[date, int]) -> Iterator[list[date]]:
    """Split days so that no turn holds many more rows than memory likes; ascending."""
    turn: list[date] = []
    held = 0
    for day in sorted(days):
        if turn and held + rows.get(day, 0) > _ROWS_AT_ONCE:
            yield turn
            turn, held = [], 0
        turn.append(day)
        held += rows.get(day, 0)
    if turn:
        yield turn


def _add_here(table: Any, shape: "TableShape", days: Sequence[date], partials: "Partials") -> None:
    import pyarrow.dataset as ds

    if table is None or not days:
        return
    within = ds.field("event_date").isin(list(days))
    scan = table.to_batches(columns=list(shape.read), filter=within, use_threads=False)
    found = [batch for batch in scan if batch.num_rows]
    # A file holds one day. In the order of their days the rows need not be moved to be parted.
    for batch in sorted(found, key=lambda b: b.column(shape.event_time)[0].as_py()):
        partials.add(batch)


def _add_from_tasks(
    settings: Settings, shape: "TableShape", days: Sequence[date], partials: "Partials"
) -> None:
    from checks.quality.profile_task import profile_batches

    frame = connect(settings).read.format("delta").load(table_path(settings, shape.table))
    with engine_errors(profiles_table(shape.table)):
        chosen = frame.filter(day_predicate(days)).select(
            "event_date", *(f"`{name}`" for name in shape.read if name != "event_date")
        )
        made = chosen.mapInArrow(profile_batches(shape), "partial binary").toArrow()
    for partial in made.column("partial"):
        partials.merge_bytes(partial.as_py())
