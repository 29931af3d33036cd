"""Parquet files as raw rows: their footers looked at, their declared columns read, by pyarrow alone.

One reader looks, reads in Spark's workers and searches for damage, so that all three agree. A column
that is not declared is never decoded, whatever its type, name or compression.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millrace.calendar import FIRST_NUMBER, LAST_NUMBER
from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from resources.raw_lines import PATH, POSITION
from resources.raw_splits import Split, parts

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Footer:
    """What the footer of a file tells.

    Attributes:
        columns: name to physical type of its columns; a dictionary's is that of its values.
        twice: names that more than one column has.
        days: first and last day that its rows may lie in, as numbers of days since 1970; None if
            it does not tell. The last lies before the first if there are no rows.
        group_bytes: size of each row group, unpacked.
    """

    columns: Mapping[str, str]
    twice: frozenset[str]
    days: tuple[int, int] | None
    group_bytes: tuple[int, ...]


def read_footer(path: str, event_time: str) -> Footer:
    """Read the footer of a local file.

    Raises:
        OSError, pa.ArrowException: it is no Parquet, or cut off.
    """
    with _open(path) as file:
        names = file.schema_arrow.names
        return Footer(
            columns={field.name: _physical(field.type) for field in file.schema_arrow},
            twice=frozenset(name for name in names if names.count(name) > 1),
            days=_days(file, event_time),
            group_bytes=tuple(
                file.metadata.row_group(i).total_byte_size
                for i in range(file.metadata.num_row_groups)
            ),
        )


def _open(path: str) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    # Instants of 96 bits reach further than nanoseconds of 64 do.
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us")


def _physical(found: "pa.DataType") -> str:
    import pyarrow as pa

    return str(found.value_type if pa.types.is_dictionary(found) else found)


def _days(file: "pq.ParquetFile", event_time: str) -> tuple[int, int] | None:
    """Return the days that the statistics of every row group leave, in integers throughout.

    Python's calendar is narrower than the data. Statistics of instants beyond the years of a date
    tell nothing: such rows belong to no day and are to be found with any.
    """
    metadata = file.metadata
    if metadata.num_rows == 0:
        return 0, -1
    index = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}.get(event_time)
    units = _units_a_day(file, event_time)
    if index is None or units is None:
        return None
    edges = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(index).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        edges += [statistics.min_raw // units, statistics.max_raw // units]
    if not edges or min(edges) < FIRST_NUMBER or max(edges) > LAST_NUMBER:
        return None
    return min(edges), max(edges)


def _units_a_day(file: "pq.ParquetFile", name: str) -> int | None:
    """Return how many of the stored integers make a day; None if they are no instants."""
    import pyarrow as pa

    index = file.schema_arrow.get_field_index(name)
    if index < 0:
        return None
    found = file.schema_arrow.field(index).type
    stored = _physical_column(file, name)
    if stored == "INT32":
        return 1 if pa.types.is_date32(found) else None
    if stored != "INT64":
        return None
    if pa.types.is_timestamp(found):
        # What was seconds when it was written is stored as milliseconds.
        return DAY_MS * {"s": 1, "ms": 1, "us": 1_000, "ns": 1_000_000}[found.unit]
    return DAY_MS if pa.types.is_int64(found) else None


def _physical_column(file: "pq.ParquetFile", name: str) -> str | None:
    schema = file.metadata.schema
    found = [schema.column(i) for i in range(len(schema)) if schema.column(i).path == name]
    return found[0].physical_type if len(found) == 1 else None


def portable_types(source: SourcePlan, columns: Mapping[str, str]) -> "dict[str, pa.DataType]":
    """Return the types that cells of the declared columns are handed on in.

    Integers of 64 bits (unsigned ones as decimal), doubles, instants in UTC and floored to
    microseconds, days, or instants where one is declared; texts, bytes, bools and decimals as they
    are. Instants beyond 64 bits of microseconds become the furthest that fit.

    Args:
        source: whose files they are.
        columns: physical types by name, as the footer has them.
    """
    declared = {c.name: c.type.kind for c in source.columns if c.name in columns}
    return {name: _portable_type(columns[name], kind) for name, kind in declared.items()}


def parquet_splits(files: Mapping[str, Sequence[int]]) -> list[Split]:
    """Return the parts that files are read in, from path to the sizes of its row groups."""
    return [
        Split(path, start, stop, sum(sizes[start:stop]))
        for path, sizes in files.items()
        for start, stop in parts(len(sizes), sizes)
    ]


def rows_of(types: "Mapping[str, pa.DataType]", split: Split) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of some row groups: ``PATH``, ``POSITION`` and columns of these types.

    Raises:
        OSError, pa.ArrowException: the file is damaged, or gone.
    """
    import pyarrow as pa

    with _open(split.path) as file:
        groups = range(split.start, split.stop)
        place = sum(file.metadata.row_group(i).num_rows for i in range(split.start))
        leaves = _leaves(file, types)
        for batch in file.reader.iter_batches(_BATCH_ROWS, list(groups), leaves, use_threads=False):
            count = batch.num_rows
            columns: dict[str, Any] = {
                PATH: pa.array([split.path] * count, pa.string()),
                POSITION: pa.array(range(place, place + count), pa.int64()),
            }
            for name, wanted in types.items():
                columns[name] = _portable(batch.column(name), wanted)
            place += count
            yield pa.record_batch(columns)


def _leaves(file: "pq.ParquetFile", names: Iterable[str]) -> list[int]:
    """Return the columns of these names: by number, for a name may hold a dot or be there twice."""
    schema = file.metadata.schema
    index = {schema.column(i).path: i for i in range(len(schema))}
    return [index[name] for name in names]


def _portable_type(found: str, kind: str) -> "pa.DataType":
    """Return the type, one of Spark's, that cells of a physical type are handed on in."""
    import pyarrow as pa

    instant, day = pa.timestamp("us", "UTC"), pa.date32()
    by_beginning = {
        "uint64": pa.decimal128(20, 0),
        "int": pa.int64(),
        "uint": pa.int64(),
        "halffloat": pa.float64(),
        # The shortest text of a float is not that of the double it becomes.
        "float": pa.float32() if kind == "decimal" else pa.float64(),
        "double": pa.float64(),
        "timestamp": day if kind == "date" else instant,
        "date": instant if kind == "timestamp" else day,
        "decimal256": pa.string(),
        "decimal": _decimal(found),
        "bool": pa.bool_(),
        "binary": pa.binary(),
        "large_binary": pa.binary(),
        "fixed_size_binary": pa.binary(),
    }
    return next((t for start, t in by_beginning.items() if found.startswith(start)), pa.string())


def _decimal(found: str) -> "pa.DataType | None":
    import pyarrow as pa

    digits = re.fullmatch(r"decimal(?:32|64|128)\((\d+), (-?\d+)\)", found)
    return digits and pa.decimal128(int(digits[1]), int(digits[2]))


def _portable(cells: "pa.Array", wanted: "pa.DataType") -> "pa.Array":
    """Return cells in the type that ``_portable_type`` gives."""
    import pyarrow as pa

    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    found = cells.type
    if pa.types.is_timestamp(wanted):
        return _from_integers(cells, _MICROSECONDS[_unit(found)], wanted)
    if pa.types.is_date(wanted) and not pa.types.is_date32(found):
        return _from_integers(cells, _DAYS[_unit(found)], wanted)
    if pa.types.is_decimal256(found):
        texts = [None if value is None else str(value) for value in cells.to_pylist()]
        return pa.array(texts, pa.string())
    return cells.cast(wanted)


_MICROSECONDS = {
    "s": (1_000_000, 1),
    "ms": (1_000, 1),
    "us": (1, 1),
    "ns": (1, 1_000),
    "day": (86_400_000_000, 1),
}
_DAYS = {
    "s": (1, 86_400),
    "ms": (1, DAY_MS),
    "us": (1, DAY_MS * 1_000),
    "ns": (1, DAY_MS * 1_000_000),
}
"""What an integer of a unit is multiplied with and divided by, to make another one of it."""


def _unit(found: "pa.DataType") -> str:
    import pyarrow as pa

    if pa.types.is_date32(found):
        return "day"
    return "ms" if pa.types.is_date64(found) else str(found.unit)


def _from_integers(cells: "pa.Array", ratio: tuple[int, int], wanted: "pa.DataType") -> "pa.Array":
    """Return instants in another unit, floored; those out of its reach as its last ones."""
    import numpy as np
    import pyarrow as pa

    integers = {32: pa.int32(), 64: pa.int64()}
    stored = cells.view(integers[cells.type.bit_width]).fill_null(0)
    values = stored.to_numpy(zero_copy_only=False).astype(np.int64)
    up, down = ratio
    most = (2 ** (wanted.bit_width - 1) - 1) // up
    # One less at the lower end: there it is the same far from any year of a calendar.
    reached = np.clip(np.floor_divide(values, down), -most, most) * up
    missing = cells.is_null().to_numpy(zero_copy_only=False)
    return pa.array(reached, integers[wanted.bit_width], mask=missing).cast(wanted)
