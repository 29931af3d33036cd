"""The lake's tables as delta-rs sees them: addresses, versions and per-partition statistics.

Spark writes feature data; delta-rs reads the transaction log, where row counts and sizes cost
half a millisecond instead of a job, and writes the platform's own small tables.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from millrace.calendar import FIRST_DAY, FIRST_NUMBER, LAST_DAY, LAST_NUMBER
from millrace.days import HOURS_A_DAY
from millrace.durations import HOUR_MS
from millrace.errors import SetupError
from resources.lake.options import storage_options
from resources.settings import Settings, setting_place

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from pyarrow.dataset import Dataset
    from pyarrow.fs import FileSystem

_UNUSABLE = re.compile(r"%[0-9A-Fa-f]{2}|[\[\]^|\\]")

DAY_COLUMN = "partition.event_date"
"""Column of ``file_actions``: the day that a file holds."""


@dataclass(frozen=True)
class PartitionStats:
    """What the transaction log says of one partition: rows, bytes, and nulls per column."""

    rows: int
    bytes: int
    null_counts: Mapping[str, int]


def table_path(settings: Settings, table: str) -> str:
    """Return where Spark finds a table such as ``events/card_transactions``."""
    return f"{settings.lake.rstrip('/')}/{table}"


def refuse_unusable_place(settings: Settings) -> None:
    """Refuse a lake in a folder that delta-rs does not find, or looks for under another name.

    It takes a path for a URL without quoting all that has a meaning there.

    Raises:
        SetupError: with the first such part of its name.
    """
    found = None if "://" in settings.lake else _UNUSABLE.search(settings.lake)
    if found is not None:
        raise SetupError(
            f"no table can be kept in {settings.lake}: {found[0]!r} in a name means something "
            "else to delta-rs",
            where=setting_place("lake.root"),
            fix="name a folder without % before two digits, brackets, ^, | or \\ in its path",
        )


def rs_path(settings: Settings, table: str) -> str:
    """Return where delta-rs finds the table: Hadoop's ``s3a`` is plain ``s3`` to it.

    Raises:
        SetupError: the lake lies where delta-rs does not find it.
    """
    refuse_unusable_place(settings)
    path = table_path(settings, table)
    return "s3://" + path.removeprefix("s3a://") if path.startswith("s3a://") else path


def open_table(settings: Settings, table: str) -> "DeltaTable | None":
    """Open the newest version of a table; None if nothing was ever committed to it."""
    from deltalake import DeltaTable

    path, options = rs_path(settings, table), storage_options(settings)
    if not DeltaTable.is_deltatable(path, storage_options=options):
        return None
    return DeltaTable(path, storage_options=options)


def table_version(settings: Settings, table: str) -> int:
    """Return the newest committed version, or -1 before the first commit."""
    opened = open_table(settings, table)
    return -1 if opened is None else int(opened.version())


def own_files(table: "DeltaTable") -> "FileSystem | None":
    """Return Arrow's own view of the files of a local table; None where delta-rs has to fetch them.

    By way of delta-rs Arrow's threads call Python: that costs half as much again, and one of them
    aborts a process that ends meanwhile, after all was done and said.
    """
    from pyarrow import fs

    place = urlsplit(table.table_uri)
    if place.scheme != "file":
        return None
    return fs.SubTreeFileSystem(url2pathname(place.path), fs.LocalFileSystem())


def read_rows(table: "DeltaTable", where: Mapping[str, Sequence[str]] | None = None) -> "pa.Table":
    """Return rows of one of the platform's own small tables, in no order; strings as views.

    delta-rs reads it by itself: of many small files that takes a third of the CPU of Arrow's data set,
    and nothing imports pandas on the way.

    Args:
        table: the table.
        where: column to the texts of which it has one; all rows without.
    """
    from deltalake import QueryBuilder
    from pyarrow import RecordBatchReader

    wanted = " AND ".join(
        f'"{column}" IN ({", ".join(map(_quoted, texts))})'
        for column, texts in (where or {}).items()
    )
    query = f"SELECT * FROM own WHERE {wanted or 'TRUE'}"  # noqa: S608 - quoted
    rows = QueryBuilder().register("own", table).execute(query)
    return RecordBatchReader.from_stream(rows).read_all()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def open_dataset(table: "DeltaTable") -> "Dataset":
    """Return the rows of a table partitioned by ``event_date``, for Arrow to read.

    Earlier versions let Spark write instants as INT96, which Arrow takes for nanoseconds unless
    told: outside the years 1677 to 2262 that is silently another instant. And they could write days
    outside the years 1 to 9999; those are left out, for one such day would make the table
    unreadable.
    """
    from pyarrow.dataset import ParquetReadOptions

    return table.to_pyarrow_dataset(
        filesystem=own_files(table),
        parquet_read_options=ParquetReadOptions(coerce_int96_timestamp_unit="us"),
        file_pruning_predicate=f"event_date >= DATE'{FIRST_DAY}' AND event_date <= DATE'{LAST_DAY}'",
    )


def file_actions(table: "DeltaTable", *columns: str) -> "pa.Table":
    """Return what the log says of each file of a table partitioned by ``event_date``.

    Columns are ``DAY_COLUMN`` and those asked for, ``null_count.`` for all that begin with it. The
    least and the greatest (``min.``, ``max.``) dates and instants are left out: Spark rounds such
    statistics up, behind the last instant that Python has. So are files of days outside the years 1
    to 9999, which an earlier version could write: no reader asks for them.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    actions = pa.table(table.get_add_actions(flatten=True))
    wanted = [
        field.name
        for field in actions.schema
        if any(field.name == c or (c.endswith(".") and field.name.startswith(c)) for c in columns)
        and not pa.types.is_temporal(field.type)
    ]
    days = actions.column(DAY_COLUMN)
    numbers = days.cast(pa.int32())
    known = pc.and_(pc.greater_equal(numbers, FIRST_NUMBER), pc.less_equal(numbers, LAST_NUMBER))
    return actions.select([DAY_COLUMN, *wanted]).filter(known)


def partition_stats(settings: Settings, table: str) -> dict[date, PartitionStats]:
    """Return the statistics of each ``event_date`` partition; days without rows are absent.

    Read from the log alone. Null counts cover the first 32 columns, which is where Delta keeps
    statistics.
    """
    opened = open_table(settings, table)
    if opened is None:
        return {}
    actions = file_actions(opened, "num_records", "size_bytes", "null_count.")
    null_columns = [c for c in actions.column_names if c.startswith("null_count.")]
    totals: dict[date, PartitionStats] = {}
    for row in actions.to_pylist():
        day = row[DAY_COLUMN]
        nulls = {c.removeprefix("null_count."): row[c] or 0 for c in null_columns}
        before = totals.get(day)
        if before is not None:
            nulls = {c: n + before.null_counts.get(c, 0) for c, n in nulls.items()}
        totals[day] = PartitionStats(
            rows=row["num_records"] + (before.rows if before else 0),
            bytes=row["size_bytes"] + (before.bytes if before else 0),
            null_counts=nulls,
        )
    return totals


def rows_by_hour(
    settings: Settings, table: str, days: Sequence[date], time: str
) -> dict[date, tuple[int, ...]]:
    """Return how many rows each hour of some days holds, 24 counts a day, read from ``time``.

    Args:
        settings: the lake.
        table: a table partitioned by ``event_date``.
        days: which days.
        time: its column of epoch milliseconds, or of time stamps.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    counts = {day: np.zeros(HOURS_A_DAY, dtype=np.int64) for day in days}
    opened = open_table(settings, table)
    if opened is not None and days:
        within = pc.field("event_date").isin(list(days))
        columns = ["event_date", time]
        for batch in open_dataset(opened).to_batches(columns=columns, filter=within):
            stamps = batch.column(time)
            if pa.types.is_timestamp(stamps.type):
                stamps = stamps.cast(pa.timestamp("ms", tz=stamps.type.tz), safe=False)
            hours = stamps.cast(pa.int64()).to_numpy() // HOUR_MS % HOURS_A_DAY
            dates = batch.column("event_date")
            for day in dates.unique().to_pylist():
                of_day = pc.equal(dates, day).to_numpy(zero_copy_only=False)
                counts[day] += np.bincount(hours[of_day], minlength=HOURS_A_DAY)
    return {day: tuple(map(int, found)) for day, found in counts.items()}
