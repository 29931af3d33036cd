"""One table as one Parquet or CSV file: read whole, written whole or not at all.

A CSV has no types, so all of its columns are read as text and written back as they stood. Only on
the way into a Parquet file does text become numbers, and only where every cell keeps its meaning. A
list is written to it as a JSON array.
"""

import base64
import json
import os
from datetime import date, datetime
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from millrace.errors import DataError, nearest

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import csv

ENDINGS = (".parquet", ".csv")
"""The file name endings that can be read and written; case does not count."""

_INTEGER = r"^(-?[1-9]\d{0,18}|0)$"
_NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d{1,15})?([eE][+-]?\d{1,2})?$"
_BOOLEAN = r"^([Tt]rue|[Ff]alse)$"
_NEEDS_QUOTES = r'[",\r\n]'
_HEAD_BYTES = 1 << 16


def is_csv(path: Path) -> bool:
    """Return whether a path names a CSV file."""
    return path.suffix.lower() == ".csv"


def check_place(path: Path, role: str) -> None:
    """Refuse a path of a file to be written: another ending, or a folder that is not there.

    Raises:
        DataError: it is such a path.
    """
    check_ending(path, role)
    folder = path.parent
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {str(folder)!r} to write {path.name} into",
            where=str(path),
            fix=f"mkdir -p '{folder}', or name a folder that is there",
        )


def check_ending(path: Path, role: str) -> None:
    """Refuse a path that is neither ``.parquet`` nor ``.csv``.

    Args:
        path: the file.
        role: what the file is to the user, such as "a spine"; it opens the message.

    Raises:
        DataError: another ending, or none.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(
            f"{role} is a .parquet or a .csv file, not {path.name!r}",
            where=str(path),
            fix=f"name it {path.stem}.parquet",
        )


def read_table_file(path: Path) -> "pa.Table":
    """Read a whole file, rows and columns in file order; every column of a CSV is text.

    Raises:
        DataError: no such file, another ending, or a content that does not parse.
    """
    import pyarrow as pa

    try:
        return _read_csv(path) if is_csv(path) else _read_parquet(path)
    except FileNotFoundError:
        raise DataError("there is no such file", where=str(path), fix=_siblings(path)) from None
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"the file cannot be read as {path.suffix[1:]}: {_first_line(error)}",
            where=str(path),
            fix="write it again as Parquet, or as CSV in UTF-8 with one header line",
        ) from error


def column_names(path: Path) -> tuple[str, ...]:
    """Return the names of a file's columns, of which no row is read; none if it cannot be read.

    Whoever reads the file is told why.
    """
    import pyarrow as pa

    try:
        return tuple(_csv_names(path) if is_csv(path) else _parquet_names(path))
    except (OSError, pa.ArrowException):
        return ()


def write_table_file(table: "pa.Table", path: Path) -> None:
    """Write a table under the name ``path``, in a folder that is there, in one step.

    The rows go to a hidden file beside it that is renamed when complete, so that a reader sees
    the old file or the new one and a failure leaves the old one.

    Raises:
        DataError: the place cannot be written, or a column has no CSV form.
    """
    import pyarrow as pa

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if is_csv(path):
            _write_csv(table, partial)
        else:
            _write_parquet(table, partial)
        partial.replace(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"the file cannot be written: {_first_line(error)}",
            where=str(path),
            fix="name a .parquet file (a CSV holds no structs) in a folder of your own",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def typed_text(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Return a text column as int64, float64 or bool where no cell loses anything, else as it is.

    Empty cells become null in a column that gets a type. ``007``, ``1e400`` or a nineteen-digit
    fraction keep the column text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.if_else(pc.equal(column, ""), None, column)
    if filled.null_count == len(filled):
        return column
    for pattern, target in (
        (_INTEGER, pa.int64()),
        (_NUMBER, pa.float64()),
        (_BOOLEAN, pa.bool_()),
    ):
        if pc.all(pc.match_substring_regex(filled, pattern)).as_py():
            try:
                return filled.cast(target)
            except pa.ArrowInvalid:
                return column
    return column


def _read_parquet(path: Path) -> "pa.Table":
    from pyarrow import parquet

    # ParquetFile opens this file alone; read_table would add Hive columns from the folder names.
    with parquet.ParquetFile(path) as file:
        return file.read()


def _read_csv(path: Path) -> "pa.Table":
    import pyarrow as pa
    from pyarrow import csv

    types = dict.fromkeys(_csv_names(path), pa.string())
    convert = csv.ConvertOptions(column_types=types, strings_can_be_null=False)
    return csv.read_csv(_csv_input(path), parse_options=_csv_form(), convert_options=convert)


def _parquet_names(path: Path) -> "list[str]":
    from pyarrow import parquet

    return list(parquet.read_schema(path).names)


def _csv_names(path: Path) -> "list[str]":
    from pyarrow import csv

    with csv.open_csv(_csv_input(path), parse_options=_csv_form()) as reader:
        return list(reader.schema.names)


def _csv_input(path: Path) -> "Path | BytesIO":
    """Return what Arrow is to read: a header without a line end is none to it."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    is_open = 0 < len(head) < _HEAD_BYTES and not head.endswith((b"\n", b"\r"))
    return BytesIO(head + b"\n") if is_open else path


def _csv_form() -> "csv.ParseOptions":
    from pyarrow import csv

    return csv.ParseOptions(newlines_in_values=True)


def _write_parquet(table: "pa.Table", path: Path) -> None:
    from pyarrow import parquet

    parquet.write_table(table, path, compression="zstd", row_group_size=1 << 19)


def _write_csv(table: "pa.Table", path: Path) -> None:
    """Write with as few quotes as the text allows; pyarrow quotes all text or none."""
    import pyarrow as pa
    from pyarrow import csv

    for place, column in enumerate(table.columns):
        if _is_list(column.type):
            table = table.set_column(place, table.column_names[place], _json_arrays(column))
    texts = [c for c in table.columns if pa.types.is_string(c.type)]
    options = csv.WriteOptions(
        batch_size=1 << 16,
        quoting_style=_quoting(texts),
        quoting_header=_quoting([pa.chunked_array([table.column_names], pa.string())]),
    )
    csv.write_csv(table, path, options)


def _is_list(type_: "pa.DataType") -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def _json_arrays(column: "pa.ChunkedArray") -> "pa.Array":
    """Return lists as JSON texts: instants ISO-8601, decimals and days as their text, bytes base64.

    Floats of 32 bits have as few digits as tell them apart.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type.value_type == pa.float32():
        texts = pc.binary_join(column.cast(pa.list_(pa.string())), ", ").combine_chunks()
        return pc.binary_join_element_wise("[", texts, "]", "")

    def plain(value: object) -> str:
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        if isinstance(value, datetime):
            return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if isinstance(value, (date, Decimal)):
            return str(value)
        raise pa.ArrowInvalid(f"lists of {column.type.value_type} have no form in a CSV")

    texts = [
        None if values is None else json.dumps(values, default=plain, ensure_ascii=False)
        for values in column.to_pylist()
    ]
    return pa.array(texts, pa.string())


def _quoting(texts: "list[pa.ChunkedArray]") -> str:
    import pyarrow.compute as pc

    special = (pc.match_substring_regex(text, _NEEDS_QUOTES) for text in texts)
    return "needed" if any(pc.any(found, min_count=0).as_py() for found in special) else "none"


def _siblings(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist either"
    names = [p.name for p in path.parent.iterdir() if p.suffix.lower() in ENDINGS]
    return nearest(path.name, names)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
