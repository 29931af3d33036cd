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
from offline.raw.parquet import parquet_splits, portable_types, read_footer, rows_of
from offline.raw.typed import typed_rows

if TYPE_CHECKING:
    import pyarrow as pa

    from millrace.rows.lines import Rows

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

    file_format = format_of(path)
    try:
        table = _READERS[file_format](path, source)
    except (OSError, MalformedError, pa.ArrowException) as error:
        raise DataError(
            f"not readable as {file_format}: {str(error).splitlines()[0][:200]}", where=str(path)
        ) from error
    return _in_order(table, source)


def format_of(path: Path) -> str:
    """Return the format of a file of events, by its name.

    Raises:
        DataError: it is of none that is known, a folder, or not there.
    """
    file_format = _FORMATS.get(path.suffix)
    if file_format is None:
        raise DataError(
            f"{path.name} is of no known format", where=str(path), fix=f"{', '.join(_FORMATS)}"
        )
    if path.is_dir():
        raise DataError("this is a folder", where=str(path), fix="name one file")
    if not path.exists():
        raise DataError("there is no such file", where=str(path))
    return file_format


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
    import pyarrow as pa

    footer = read_footer(str(path), source.event_time)
    _require_event_time(list(footer.columns), source, path)
    types = portable_types(source, footer.columns)
    splits = parquet_splits({str(path): footer.group_bytes})
    batches = [batch for split in splits for batch in rows_of(types, split)]
    found = [typed_rows(source, batch) for batch in batches]
    for rows in found:
        _refuse_faults(rows, lambda _: str(path))
    names = [column.name for column in source.columns]
    schema = pa.schema([(c.name, arrow_type(c.type)) for c in source.columns])
    tables = [pa.table(dict(zip(names, rows.columns, strict=True))) for rows in found]
    return pa.concat_tables([schema.empty_table(), *tables])


def _read_csv(path: Path, source: SourcePlan) -> "pa.Table":
    from millrace.rows.csv_rows import CsvRows
    from millrace.rows.lines import read_csv_lines

    lines = _lines(path)
    names = _header(lines[0][1]) if lines else []
    _require_event_time(names, source, path)
    reader = CsvRows.of_files(source, names)
    return _checked(lines[1:], source, path, partial(read_csv_lines, reader))


def _header(line: bytes) -> list[str]:
    from millrace.rows.csv_rows import split_line

    return split_line(line)


def _read_json(path: Path, source: SourcePlan) -> "pa.Table":
    from millrace.rows.json_rows import JsonRows
    from millrace.rows.lines import read_json_lines

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

    rows = read(pa.array([line for _, line in lines], pa.binary()))
    _refuse_faults(rows, lambda place: f"{path}:{lines[place][0]}")
    return pa.table(dict(zip([c.name for c in source.columns], rows.columns, strict=True)))


def _refuse_faults(rows: "Rows", where: Callable[[int], str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    if rows.reason.null_count < len(rows.reason):
        first = pc.index(rows.reason.is_valid(), pa.scalar(value=True)).as_py()
        raise DataError(rows.detail[first].as_py(), where=where(first))


def _require_event_time(names: Sequence[str], source: SourcePlan, path: Path) -> None:
    origin = source.column(source.event_time).origin
    if origin not in names:
        raise DataError(
            f"the file has no column {origin!r}, the event time",
            where=str(path),
            fix=nearest(origin, names),
        )


_READERS = {"parquet": _read_parquet, "csv": _read_csv, "json": _read_json}
