"""Rows of a file as events of a source, in event-time order, ready to be sent."""

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import DataError, nearest
from millrace.plan import SourcePlan
from millrace.types import DataType
from millrace.values.arrow import arrow_type
from millrace.values.documents import MalformedError

if TYPE_CHECKING:
    import pyarrow as pa

    from millrace.values.lines import Rows

_FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}
TIME = "_time_ms"
"""The column that ``read_events`` adds: the event time, epoch milliseconds."""


@dataclass(frozen=True)
class EventRows:
    """The rows of a file.

    Attributes:
        table: declared columns in the lake's types, and ``_time_ms``; ordered by it.
        timeless: rows without an event time, which are not in the table: they have no place in it.
    """

    table: "pa.Table"
    timeless: int


def read_events(path: Path, source: SourcePlan) -> EventRows:
    """Return the file's rows as events of a source.

    Rows of one time keep their order. Columns that are not declared are left out, columns that the
    file lacks are null.

    Raises:
        DataError: the file is not readable, or a value does not convert; nothing was sent yet.
    """
    import pyarrow as pa

    file_format = _FORMATS.get(path.suffix)
    if file_format is None:
        raise DataError(
            f"{path.name} is of no known format", where=str(path), fix=f"{', '.join(_FORMATS)}"
        )
    try:
        table = _READERS[file_format](path, source)
    except (OSError, MalformedError, pa.ArrowException) as error:
        raise DataError(
            f"not readable as {file_format}: {str(error).splitlines()[0][:200]}", where=str(path)
        ) from error
    return _in_order(table, source)


def _in_order(table: "pa.Table", source: SourcePlan) -> EventRows:
    import numpy as np

    times = _epoch_ms(table[source.event_time], source.column(source.event_time).type)
    timed = table.append_column(TIME, times).filter(times.is_valid())
    order = np.argsort(timed[TIME].to_numpy(), kind="stable")
    return EventRows(timed.take(order), times.null_count)


def _epoch_ms(column: "pa.ChunkedArray", type_: DataType) -> "pa.ChunkedArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    if type_.kind == "timestamp":
        return (
            pc.floor_temporal(column, unit="millisecond").cast(pa.timestamp("ms")).cast(pa.int64())
        )
    if type_.kind == "date":
        return pc.multiply(column.cast(pa.int32()).cast(pa.int64()), 86_400_000)
    return column.cast(pa.int64())


def _read_parquet(path: Path, source: SourcePlan) -> "pa.Table":
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        present = [c.name for c in source.columns if c.name in file.schema_arrow.names]
        found = file.read(columns=present)
        names = file.schema_arrow.names
    return _as_declared(found, names, source, path)


def _read_csv(path: Path, source: SourcePlan) -> "pa.Table":
    from millrace.values.csv_rows import CsvRows
    from millrace.values.lines import read_csv_lines

    lines = _lines(path)
    names = _header(lines[0][1]) if lines else []
    _require_event_time(names, source, path)
    reader = CsvRows.of_files(source, names)
    return _checked(lines[1:], source, path, partial(read_csv_lines, reader))


def _header(line: bytes) -> list[str]:
    from millrace.values.csv_rows import split_line

    return split_line(line)


def _read_json(path: Path, source: SourcePlan) -> "pa.Table":
    from millrace.values.json_rows import JsonRows
    from millrace.values.lines import read_json_lines

    reader = JsonRows.of_files(source)
    return _checked(_lines(path), source, path, partial(read_json_lines, reader, source.columns))


def _lines(path: Path) -> list[tuple[int, bytes]]:
    """Return the lines that are not blank, with their numbers; a byte order mark is no part of any."""
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    return [(n, line) for n, line in enumerate(data.splitlines(), start=1) if line.strip()]


def _checked(
    lines: Sequence[tuple[int, bytes]],
    source: SourcePlan,
    path: Path,
    read: "Callable[[pa.Array], Rows]",
) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = read(pa.array([line for _, line in lines], pa.binary()))
    if rows.reason.null_count < len(lines):
        first = pc.index(rows.reason.is_valid(), pa.scalar(value=True)).as_py()
        raise DataError(rows.detail[first].as_py(), where=f"{path}:{lines[first][0]}")
    return pa.table(dict(zip([c.name for c in source.columns], rows.columns, strict=True)))


def _require_event_time(names: Sequence[str], source: SourcePlan, path: Path) -> None:
    if source.event_time not in names:
        raise DataError(
            f"the file has no column {source.event_time!r}, the event time",
            where=str(path),
            fix=nearest(source.event_time, names),
        )


def _as_declared(found: "pa.Table", names: list[str], source: SourcePlan, path: Path) -> "pa.Table":
    import pyarrow as pa

    _require_event_time(names, source, path)
    columns = {}
    for column in source.columns:
        wanted = arrow_type(column.type)
        if column.name not in found.column_names:
            columns[column.name] = pa.nulls(found.num_rows, wanted)
            continue
        try:
            columns[column.name] = _cast(found[column.name], wanted)
        except pa.ArrowException as error:
            text = str(error).splitlines()[0][:200]
            where = f"{path}, column {column.name}"
            raise DataError(f"does not convert to {column.type}: {text}", where=where) from error
    return pa.table(columns)


def _cast(column: "pa.ChunkedArray", wanted: "pa.DataType") -> "pa.ChunkedArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        # Not a number is no value, as in a backfill.
        column = pc.if_else(pc.is_finite(column), column, None)
    if pa.types.is_boolean(wanted) and pa.types.is_integer(column.type):
        return column.cast(pa.bool_())
    if pa.types.is_timestamp(wanted):
        if pa.types.is_integer(column.type):
            return pc.multiply(column.cast(pa.int64()), 1000).cast(wanted)
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            return column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(wanted)
        return column.cast(wanted, safe=False)
    return column.cast(wanted)


_READERS = {"parquet": _read_parquet, "csv": _read_csv, "json": _read_json}
