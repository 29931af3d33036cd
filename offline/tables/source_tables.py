"""Making the tables of a source follow a declaration that has changed, by Spark.

A column that is new is added by the first commit that has it. A column of another type or name means
other files, because a Delta table that every reader reads has neither column mapping nor type
widening: what stays is written again, each value gone over exactly, in the one commit that also
brings what is new. The archive's books are carried along by it. See docs/decisions/versions.md.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from millrace.names import duplicates_table, events_table
from millrace.plan import Column, SourcePlan
from millrace.types import DataType
from offline.tables.source_changes import (
    PLATFORM_COLUMNS,
    SourceChange,
    find_change,
    goes_over_exactly,
    record_definition,
    refuse_what_cannot_be,
    stored_types,
    unfit,
)
from resources.lake.delta import open_table, table_path
from resources.lake.lock import locked
from resources.lake.writing import replace_days, rewrite_table
from resources.settings import Settings
from resources.spark.session import engine_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

    from resources.lake.writing import Slices


def follow_declaration(
    settings: Settings,
    source: SourcePlan,
    connect: "Callable[[], SparkSession]",
    *,
    wait_s: float | None = None,
) -> SourceChange:
    """Make the tables of a source stand by its declaration; no event is added or lost.

    Nothing is done where they do already, or where there are none. A build from files does this
    with its own commit; whoever only appends or counts calls it first.

    Args:
        settings: the lake.
        source: the declaration.
        connect: called only where stored values have to be written again.
        wait_s: how long to wait for another writer of the table; None: as long as it takes.

    Raises:
        PlanError: a stored value has no place in its new type.
        TableBusy: another process held the table all the time.
        EngineError: Spark failed, or is not there.
    """
    with locked(settings, events_table(source.name), wait_s=wait_s):
        change = find_change(settings, source)
        if change.stands is None:
            return change
        if change.moved:
            spark = connect()
            with engine_errors(events_table(source.name)):
                _rewrite(spark, settings, source, change, kept="true", added=None)
        else:
            refuse_what_cannot_be(settings, source, change)
        _finish(settings, source, change, connect)
    return change


def replace_events(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    slices: "Slices",
    frame: "DataFrame",
    replaced: str,
    *,
    sort: "Sequence[str]",
) -> None:
    """Make ``frame`` all that meets ``replaced`` in ``events/<source>``; hold the table's lock.

    Where the declaration has changed, the rows that stay are written again by it in the same
    commit.

    Args:
        spark: the session.
        settings: the lake.
        source: the declaration.
        slices: what is built anew.
        frame: the new rows: the declared columns and the platform's.
        replaced: the SQL condition on rows that do not stay.
        sort: the order of rows within a day.

    Raises:
        PlanError: a value that stays has no place in its new type.
    """
    change = find_change(settings, source)
    rebuilt = [day for day in slices.days if day not in slices.bounds]
    if change.moved:
        kept = f"NOT ({replaced})"
        _rewrite(spark, settings, source, change, kept, frame, rebuilt=rebuilt, sort=sort)
    else:
        refuse_what_cannot_be(settings, source, change, rebuilt=rebuilt)
        replace_days(frame, table_path(settings, events_table(source.name)), replaced, sort=sort)
    _finish(settings, source, change, lambda: spark)


def rows_as_declared(
    spark: "SparkSession", settings: Settings, source: SourcePlan, change: SourceChange
) -> "DataFrame":
    """Return the rows of ``events/<source>`` with the columns that are declared now.

    Behind them stand the platform's columns and those that are declared no more. Values that have
    no place in their new type are null.
    """
    from pyspark.sql import functions as F

    table = spark.read.format("delta").load(table_path(settings, events_table(source.name)))
    moved = {now.name: (was, now) for was, now in change.moved}
    used = {was.name for was, _ in change.moved}
    declared = {c.name for c in source.columns}
    columns = []
    for column in source.columns:
        if column.name in moved:
            columns.append(_moved(*moved[column.name]).alias(column.name))
        elif column.name in table.columns and column not in change.added:
            columns.append(F.col(f"`{column.name}`"))
        else:
            columns.append(F.lit(None).cast(column.type.spark).alias(column.name))
    gone = [n for n in table.columns if n not in declared and n not in used | set(PLATFORM_COLUMNS)]
    columns += [F.col(f"`{name}`") for name in gone]
    for name, kind in (("_partition", "int"), ("_offset", "bigint")):
        known = F.col(name) if name in table.columns else F.lit(None).cast(kind).alias(name)
        columns.append(known)
    return table.select(*columns, "_event_ms", "_ingest_ms", "event_date")


def _rewrite(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    change: SourceChange,
    kept: str,
    added: "DataFrame | None",
    *,
    rebuilt: "Sequence[date]" = (),
    sort: "Sequence[str]" = ("_event_ms",),
) -> None:
    undecided = refuse_what_cannot_be(settings, source, change, rebuilt=rebuilt)
    path = table_path(settings, events_table(source.name))
    _refuse_losses(spark.read.format("delta").load(path).filter(kept), source, undecided)
    rows = rows_as_declared(spark, settings, source, change).filter(kept)
    if added is not None:
        rows = rows.unionByName(added, allowMissingColumns=True)
    rewrite_table(rows, path, sort=sort)


def _refuse_losses(
    stored: "DataFrame", source: SourcePlan, undecided: "Sequence[tuple[Column, Column]]"
) -> None:
    from pyspark.sql import functions as F

    if not undecided:
        return
    measures = []
    for i, (was, now) in enumerate(undecided):
        cell, again = F.col(f"`{was.name}`"), _cast(_moved(was, now), now.type, was.type)
        lost = cell.isNotNull() & ~again.eqNullSafe(cell)
        measures += [
            F.count_if(lost).alias(f"lost_{i}"),
            F.min(F.when(lost, cell)).cast("string").alias(f"one_{i}"),
        ]
    found = stored.agg(*measures).collect()[0]
    for i, (was, now) in enumerate(undecided):
        if found[f"lost_{i}"]:
            what = f"{found[f'lost_{i}']} stored value(s), such as {found[f'one_{i}']!r},"
            raise unfit(source, was, now, what)


def _moved(was: Column, now: Column) -> "SparkColumn":
    from pyspark.sql import functions as F

    return _cast(F.col(f"`{was.name}`"), was.type, now.type)


def _cast(cell: "SparkColumn", was: DataType, now: DataType) -> "SparkColumn":
    from pyspark.sql import functions as F

    if was == now:
        return cell
    if (was.kind, now.kind) == ("int64", "timestamp"):
        return F.timestamp_millis(cell)
    if (was.kind, now.kind) == ("timestamp", "int64"):
        return F.unix_millis(cell)
    return cell.try_cast(now.spark)


def _finish(
    settings: Settings,
    source: SourcePlan,
    change: SourceChange,
    connect: "Callable[[], SparkSession]",
) -> None:
    """Make the table of duplicates follow, then say that the tables do."""
    if change.stands is not None and source.event_id is not None:
        former = change.stands.event_id
        is_same = former is not None and change.renamed(former) == source.event_id
        _follow_ids(settings, source, connect, is_same=is_same)
    record_definition(settings, source)


def _follow_ids(
    settings: Settings,
    source: SourcePlan,
    connect: "Callable[[], SparkSession]",
    *,
    is_same: bool,
) -> None:
    """Give ``duplicates/<source>`` ids of the type that is declared now.

    They are the archive's memory of arrivals. An id without a place in the new type, or of another
    column than the one that names events now, is forgotten: it could be taken for another event's.
    The rows stay, to be counted.
    """
    from pyspark.sql import functions as F

    name = duplicates_table(source.name)
    with locked(settings, name):
        opened = open_table(settings, name)
        if opened is None or source.event_id is None:
            return
        was, now = stored_types(opened)["event_id"], source.column(source.event_id).type
        if is_same and was == now:
            return
        with engine_errors(name):
            path = table_path(settings, name)
            table = connect().read.format("delta").load(path)
            ids = F.col("event_id")
            goes_over = is_same and goes_over_exactly(was, now)
            kept = _cast(ids, was, now) if goes_over else F.lit(None).cast(now.spark)
            rows = table.withColumn("event_id", kept)
            rewrite_table(rows, path, sort=("arrived_ms",))
