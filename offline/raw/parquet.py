"""Parquet files as raw rows: their footers looked at, their declared columns read, by pyarrow alone.

One reader looks, reads in Spark's workers and searches for damage, so that all three agree. A column
that is not declared is never decoded, whatever its type, name or compression.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from millrace.calendar import FIRST_NUMBER, LAST_NUMBER
from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from millrace.values.units import SURE_MS
from offline.raw.lines import PATH, POSITION
from offline.raw.splits import Split, parts

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    Wanted = Sequence[tuple[str, str, pa.DataType]]

Columns = Mapping[str, str]
"""Physical type by name, or path within structs with dots."""

_BATCH_ROWS = 1 << 16


@dataclass(frozen=True)
class Footer:
    """What the footer of a file tells.

    Attributes:
        columns: name, or path within structs with dots, to physical type; of a dictionary it is
            that of its values. What lies within lists is left out.
        twice: names that more than one column has.
        days: first and last day that its rows may lie in, as numbers of days since 1970; None if
            it does not tell. The last lies before the first if there are no rows.
        group_bytes: size of each row group, unpacked.
    """

    columns: Columns
    twice: frozenset[str]
    days: tuple[int, int] | None
    group_bytes: tuple[int, ...]


class _Leaf(NamedTuple):
    """A column as Parquet numbers them: its place, the names that lead to it, and its type."""

    number: int
    steps: tuple[str, ...]
    type: "pa.DataType"

    @property
    def name(self) -> str:
        return ".".join(self.steps)


def read_footer(path: str, event_time: str) -> Footer:
    """Read the footer of a local file; ``event_time`` is a name or path within it.

    Raises:
        OSError, pa.ArrowException: it is no Parquet, or cut off.
    """
    with _open(path) as file:
        metadata, leaves = file.metadata, _leaves(file)
        known = _by_name(leaves)
        flat = Counter(file.schema_arrow.names)
        return Footer(
            # A column that is no leaf, a list of structs, has a type all the same.
            columns={field.name: _physical(field.type) for field in file.schema_arrow}
            | {name: _physical(leaf.type) for name, leaf in known.items()},
            twice=frozenset(name for name, count in flat.items() if count > 1),
            days=_days(file, known.get(event_time)),
            group_bytes=tuple(
                metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)
            ),
        )


def _open(path: str) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    # Instants of 96 bits reach further than nanoseconds of 64 do.
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us")


def _physical(found: "pa.DataType") -> str:
    import pyarrow as pa

    found = _stored(found)
    return str(found.value_type if pa.types.is_dictionary(found) else found)


def _stored(found: "pa.DataType") -> "pa.DataType":
    """Return what lies in the file of an extension of Arrow's: the text of its JSON, say."""
    import pyarrow as pa

    return found.storage_type if isinstance(found, pa.BaseExtensionType) else found


def _leaves(file: "pq.ParquetFile") -> list[_Leaf]:
    """Return the columns that are no part of a list, numbered as in the file: depth first.

    A list of what is nothing nested is one.
    """
    import pyarrow as pa

    numbers = count()
    found: list[_Leaf] = []

    def walk(kind: "pa.DataType", steps: tuple[str, ...], *, is_single: bool) -> None:
        kind = _stored(kind)
        if pa.types.is_nested(kind):
            is_struct = pa.types.is_struct(kind)
            if is_single and _is_flat_list(kind):
                found.append(_Leaf(next(numbers), steps, kind))
                return
            for i in range(kind.num_fields):
                field = kind.field(i)
                walk(field.type, (*steps, field.name), is_single=is_single and is_struct)
            return
        leaf = _Leaf(next(numbers), steps, kind)
        if is_single:
            found.append(leaf)

    for field in file.schema_arrow:
        walk(field.type, (field.name,), is_single=True)
    return found


def _is_flat_list(kind: "pa.DataType") -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in kinds) and not types.is_nested(_stored(kind.value_type))


def _by_name(leaves: Iterable[_Leaf]) -> dict[str, _Leaf]:
    """Return the columns by name or path; a column of exactly that name before a path of it."""
    return {leaf.name: leaf for leaf in sorted(leaves, key=lambda leaf: -len(leaf.steps))}


def _days(file: "pq.ParquetFile", event_time: _Leaf | None) -> tuple[int, int] | None:
    """Return the days that the statistics of every row group leave, in integers throughout.

    Python's calendar is narrower than the data. Statistics of instants beyond the years of a date
    tell nothing: such rows belong to no day and are to be found with any.
    """
    metadata = file.metadata
    if metadata.num_rows == 0:
        return 0, -1
    if event_time is None:
        return None
    column = metadata.schema.column(event_time.number)
    units = _units_a_day(column)
    if units is None:
        return None
    extremes = []
    for group in range(metadata.num_row_groups):
        statistics = metadata.row_group(group).column(event_time.number).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        extremes += [statistics.min_raw, statistics.max_raw]
    # Integers may be of another unit: their rows are to be told, not left out as of 1970.
    is_told = not _is_plain_integer(column) or all(edge in SURE_MS for edge in extremes)
    first, last = min(extremes) // units, max(extremes) // units
    return (first, last) if is_told and first >= FIRST_NUMBER and last <= LAST_NUMBER else None


def _units_a_day(column: "pq.ColumnSchema") -> int | None:
    """Return how many of the stored integers make a day; None if they are no instants."""
    logical = json.loads(column.logical_type.to_json())
    if logical["Type"] == "Timestamp":
        return DAY_MS * _PER_MS[logical["timeUnit"]]
    if logical["Type"] == "Date":
        return 1
    return DAY_MS if _is_plain_integer(column) else None


def _is_plain_integer(column: "pq.ColumnSchema") -> bool:
    kind = json.loads(column.logical_type.to_json())["Type"]
    return column.physical_type == "INT64" and kind in {"None", "Int"}


_PER_MS = {"milliseconds": 1, "microseconds": 1_000, "nanoseconds": 1_000_000}


def portable_types(source: SourcePlan, columns: Columns) -> "Wanted":
    """Return the declared columns that are there, and the types that their cells are handed on in.

    Integers of 64 bits (unsigned ones as decimal), doubles, instants in UTC and floored to
    microseconds, days, or instants where one is declared; texts, bytes, bools and decimals as they
    are; lists as lists of doubles. Instants beyond 64 bits of microseconds become the furthest that fit.

    Args:
        source: whose files they are.
        columns: physical types by name or path, as the footer has them.
    """
    return tuple(
        (c.name, c.origin, _portable_type(columns[c.origin], c.type.kind))
        for c in source.columns
        if c.origin in columns
    )


def parquet_splits(files: Mapping[str, Sequence[int]]) -> list[Split]:
    """Return the parts that files are read in, from path to the sizes of its row groups."""
    return [
        Split(path, start, stop, sum(sizes[start:stop]))
        for path, sizes in files.items()
        for start, stop in parts(len(sizes), sizes)
    ]


def read_to_end(path: str, source: SourcePlan, columns: Columns) -> None:
    """Read what a build would of a file.

    Raises:
        OSError, pa.ArrowException: the file is damaged, or gone.
    """
    with _open(path) as file:
        groups = file.metadata.num_row_groups
    for _ in rows_of(portable_types(source, columns), Split(path, 0, groups, 0)):
        pass


def rows_of(wanted: "Wanted", split: Split) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of some row groups: ``PATH``, ``POSITION`` and the wanted columns.

    Args:
        wanted: name, name or path in the file, and type of each column.
        split: the row groups.

    Raises:
        OSError, pa.ArrowException: the file is damaged, or gone.
    """
    import pyarrow as pa

    with _open(split.path) as file:
        known, metadata = _by_name(_leaves(file)), file.metadata
        leaves = {origin: known[origin] for _, origin, _ in wanted}
        place = sum(metadata.row_group(i).num_rows for i in range(split.start))
        numbers = sorted({leaf.number for leaf in leaves.values()})
        groups = list(range(split.start, split.stop))
        for batch in file.reader.iter_batches(_BATCH_ROWS, groups, numbers, use_threads=False):
            end = place + batch.num_rows
            columns: dict[str, pa.Array] = {
                PATH: pa.array([split.path] * batch.num_rows, pa.string()),
                POSITION: pa.array(range(place, end), pa.int64()),
            }
            for name, origin, kind in wanted:
                columns[name] = _portable(_cells(batch, leaves[origin]), kind)
            place = end
            yield pa.record_batch(columns)


def table_rows_of(
    wanted: "Wanted", path: str, batches: "Iterable[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Yield rows of a table in the form of ``rows_of``; batches have the columns by name."""
    import pyarrow as pa
    import pyarrow.compute as pc

    place = 0
    for batch in batches:
        end = place + batch.num_rows
        columns: dict[str, pa.Array] = {
            PATH: pa.array([path] * batch.num_rows, pa.string()),
            POSITION: pa.array(range(place, end), pa.int64()),
        }
        for name, origin, kind in wanted:
            is_there = origin in batch.schema.names
            first, *inner = [origin] if is_there else origin.split(".")
            cells = batch.column(first)
            columns[name] = _portable(pc.struct_field(cells, inner) if inner else cells, kind)
        place = end
        yield pa.record_batch(columns)


def _cells(batch: "pa.RecordBatch", leaf: _Leaf) -> "pa.Array":
    import pyarrow.compute as pc

    first, *inner = leaf.steps
    cells = _storage(batch.column(first))
    for name in inner:
        cells = _storage(pc.struct_field(cells, name))
    return cells


def _storage(cells: "pa.Array") -> "pa.Array":
    import pyarrow as pa

    return cells.storage if isinstance(cells, pa.ExtensionArray) else cells


def _portable_type(found: str, kind: str) -> "pa.DataType":
    """Return the type, one of Spark's, that cells of a physical type are handed on in."""
    import pyarrow as pa

    instant, day = pa.timestamp("us", "UTC"), pa.date32()
    if kind == "vector":
        return pa.list_(pa.float64())
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
        "decimal": _decimal(found),
        "bool": pa.bool_(),
        "binary": pa.binary(),
        "large_binary": pa.binary(),
        "fixed_size_binary": pa.binary(),
    }
    return next((t for start, t in by_beginning.items() if found.startswith(start)), pa.string())


def _decimal(found: str) -> "pa.DataType | None":
    import pyarrow as pa

    digits = re.fullmatch(r"decimal(?:32|64|128|256)\((\d+), (-?\d+)\)", found)
    if digits is None:
        return None
    kind = pa.decimal256 if found.startswith("decimal256") else pa.decimal128
    return kind(int(digits[1]), int(digits[2]))


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
    # Lists of integers become lists of the nearest doubles.
    return cells.cast(wanted, safe=not pa.types.is_list(wanted))


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
