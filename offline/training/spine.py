"""Reading a spine: the labelled (entity, time) rows that a training set is built on.

A spine is one Parquet or CSV file. Its rows and columns are never changed: what the join needs
(typed keys, query times in epoch milliseconds) is derived beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, cast

from millrace.calendar import FIRST_MS, LAST_MS
from millrace.errors import DataError, nearest
from millrace.plan import EntityPlan
from millrace.rows.csv_rows import BLANKS
from millrace.types import TIMESTAMP, DataType
from millrace.values.scalars import is_integer, is_number
from millrace.values.units import SURE_MS, unit_hint
from offline.training.dataset_file import check_ending, is_csv, read_table_file, typed_text

if TYPE_CHECKING:
    import pyarrow as pa

TIME_COLUMN = "event_timestamp"
"""The spine column that says as of when each row is asked for."""

_SHOWN_ROWS = 5
_EXACT_DOUBLES = 2**53
_LONGEST_INTEGER = 19
_FINER_THAN_MS = r"\.\d{4}"
_TEXT_TIMES = "ISO text such as 2018-04-01T12:00:00Z"


@dataclass(frozen=True)
class Spine:
    """A spine, read.

    Attributes:
        path: the file it came from.
        table: every column of the file, as it stands there. All columns of a CSV are text.
        query_ms: int64 array, epoch milliseconds (finer digits floored), one per row, no nulls.
    """

    path: Path
    table: "pa.Table"
    query_ms: "pa.Array"

    def __len__(self) -> int:
        return cast("int", self.table.num_rows)

    def keys(self, entities: Sequence[EntityPlan]) -> "pa.Table":
        """Return the join keys of ``entities`` in their declared types; nulls stay null.

        Raises:
            DataError: a key column is absent, or a value does not fit its type without loss.
        """
        import pyarrow as pa

        columns = {e.join_key: self._key(e) for e in entities}
        return pa.table(columns)

    def refuse_columns(self, names: Sequence[str]) -> None:
        """Refuse a spine that already has a column of one of these names.

        Raises:
            DataError: naming the columns that collide.
        """
        taken = [n for n in names if n in self.table.column_names]
        if taken:
            raise DataError(
                f"the spine already has {_listed(taken)}, asked for as a feature",
                where=str(self.path),
                fix="rename or drop that column of the spine, or ask for other features",
            )

    def columns_for(self, out: Path) -> "pa.Table":
        """Return the spine's columns as they go into ``out``.

        They are untouched, except for a CSV spine that goes into a Parquet file: there text
        becomes int64, float64 or bool, and the times become UTC timestamps, wherever no cell
        loses anything.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if not is_csv(self.path) or is_csv(out):
            return self.table
        typed = {name: typed_text(self.table.column(name)) for name in self.table.column_names}
        times = self.table.column(TIME_COLUMN)
        if not pc.any(pc.match_substring_regex(times, _FINER_THAN_MS), min_count=0).as_py():
            typed[TIME_COLUMN] = self.query_ms.cast(pa.timestamp("ms", "UTC"))
        return pa.table(typed)

    def _key(self, entity: EntityPlan) -> "pa.ChunkedArray":
        _require_column(self.table, entity.join_key, str(self.path), f"entity {entity.name}")
        where = f"{self.path}, column {entity.join_key}"
        column = self.table.column(entity.join_key)
        return _as_type(column, entity.type, where, is_text=is_csv(self.path))


def read_spine(path: Path) -> Spine:
    """Read a Parquet or CSV file that has a column ``event_timestamp``.

    That column is a timestamp of any unit (without a zone: UTC), ISO text with or without a zone,
    a date (its midnight UTC), or an integer of epoch milliseconds. Dates and times of day finer
    than a millisecond are floored. A file without rows is a spine.

    Raises:
        DataError: the file is unreadable, has no ``event_timestamp``, names a column twice, or
            has rows without a time or with one that cannot be understood.
    """
    check_ending(path, "a spine")
    table = read_table_file(path)
    repeated = sorted({n for n in table.column_names if table.column_names.count(n) > 1})
    if repeated:
        raise DataError(
            f"{_listed(repeated)} stands more than once in the spine",
            where=str(path),
            fix="give every column a name of its own",
        )
    _require_column(table, TIME_COLUMN, str(path), "the time of each row")
    return Spine(path, table, _query_ms(table.column(TIME_COLUMN), str(path)))


def _require_column(table: "pa.Table", name: str, where: str, purpose: str) -> None:
    if name not in table.column_names:
        raise DataError(
            f"the spine has no column {name!r} ({purpose})",
            where=where,
            fix=nearest(name, table.column_names) or "the file has no columns",
        )


# ---- times


def _query_ms(column: "pa.ChunkedArray", path: str) -> "pa.Array":
    import pyarrow as pa

    where = f"{path}, column {TIME_COLUMN}"
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_text(column.type):
        column = _text_ms(column, where)
    elif pa.types.is_timestamp(column.type):
        column = _floor_ms(column)
    elif pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    elif pa.types.is_integer(column.type):
        column = _signed(column)
        _require_milliseconds(column, where)
    elif not pa.types.is_null(column.type):
        raise DataError(
            f"{TIME_COLUMN} is {column.type}, which is no time",
            where=where,
            fix=f"make it a timestamp, {_TEXT_TIMES}, a date, or an integer of epoch milliseconds",
        )
    if column.null_count:
        raise DataError(
            f"{column.null_count} of {len(column)} rows have no {TIME_COLUMN}: "
            f"{_rows_where(column.is_null())}",
            where=where,
            fix="fill these rows in or drop them",
        )
    query_ms = column.cast(pa.int64()).combine_chunks()
    _require_calendar(query_ms, where)
    return query_ms


def _signed(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Return integers of 64 bits with a sign; the largest of those that have none is beyond time."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_uint64(column.type):
        most = pa.scalar(2**63 - 1, pa.uint64())
        column = pc.min_element_wise(column, most, skip_nulls=False)
    return column.cast(pa.int64())


def _require_calendar(query_ms: "pa.Array", where: str) -> None:
    """Refuse instants outside the years 1 to 9999: integers of another unit, as a rule."""
    import pyarrow as pa

    instants = query_ms.to_numpy()
    outside = (instants < FIRST_MS) | (instants > LAST_MS)
    if outside.any():
        first = int(instants[outside][0])
        raise DataError(
            f"{first} ms lies outside the years 1 to 9999: "
            f"{_rows_where(pa.chunked_array([outside]))}",
            where=where,
            fix=f"an integer time is epoch milliseconds: divide micro- or nanoseconds; "
            f"{unit_hint(first)}",
        )


def _require_milliseconds(times: "pa.ChunkedArray", where: str) -> None:
    """Refuse integers that are plainly seconds, days or dates without hyphens."""
    import numpy as np
    import pyarrow as pa

    instants = times.fill_null(0).to_numpy()
    sure = (instants >= SURE_MS.start) & (instants < SURE_MS.stop)
    doubtful = np.flatnonzero(~sure & (instants >= FIRST_MS) & (instants <= LAST_MS))
    hints = {int(i): unit_hint(int(instants[i])) for i in doubtful}
    other = [i for i, hint in hints.items() if hint]
    if other:
        bad = np.zeros(len(instants), dtype=bool)
        bad[other] = True
        raise DataError(
            f"{hints[other[0]]}: {_rows_where(pa.chunked_array([bad]))}",
            where=where,
            fix="an integer time is epoch milliseconds",
        )


def _floor_ms(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Floor to milliseconds; Arrow's integer division truncates, which is wrong before 1970."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    per_ms = {"s": None, "ms": 1, "us": 1_000, "ns": 1_000_000}[column.type.unit]
    ticks = column.cast(pa.int64())
    if per_ms is None:
        return pc.multiply_checked(ticks, 1_000)
    if per_ms == 1:
        return ticks
    nulls = ticks.is_null().to_numpy()
    whole = np.floor_divide(ticks.fill_null(0).to_numpy(), per_ms)
    return pa.chunked_array([pa.array(whole, mask=nulls if nulls.any() else None)])


def _text_ms(column: "pa.ChunkedArray", where: str) -> "pa.ChunkedArray":
    """Read text by the grammar of cells: each row with or without a zone, or as digits."""
    import numpy as np
    import pyarrow as pa

    from millrace.rows.lines import read_cells

    text = column.cast(pa.string()).combine_chunks()
    instants, misfits = read_cells(text, TIMESTAMP, is_clock=True)
    if misfits:
        bad = np.zeros(len(text), dtype=bool)
        bad[list(misfits)] = True
        first, told = next(iter(misfits.items()))
        raise DataError(
            f"{text[first].as_py()!r} is not understood as a time: "
            f"{_rows_where(pa.chunked_array([bad]))}",
            where=where,
            fix=told or f"write {_TEXT_TIMES}",
        )
    ms = np.floor_divide(instants.cast(pa.int64()).fill_null(0).to_numpy(), 1000)
    nulls = instants.is_null().to_numpy(zero_copy_only=False)
    return pa.chunked_array([pa.array(ms, mask=nulls)])


def _casts(value: "pa.Scalar", target: "pa.DataType") -> bool:
    import pyarrow as pa

    try:
        value.cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return False
    return True


# ---- keys


def _as_type(
    column: "pa.ChunkedArray", declared: DataType, where: str, *, is_text: bool
) -> "pa.ChunkedArray":
    """Cast a key column where no value loses anything; the text of a CSV is parsed."""
    import pyarrow as pa

    from millrace.kernel.arrow import arrow_type

    target = arrow_type(declared)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text:
        return _parsed(column, declared, where)
    if pa.types.is_floating(column.type):
        # Single and half precision are doubles, too, and doubles alone are compared and cast.
        column = _finite(column.cast(pa.float64()))
    if pa.types.is_timestamp(column.type) and declared.kind == "timestamp":
        # Like the instants of events.
        column = _floor_ms(column).cast(pa.timestamp("ms", "UTC"))
    if column.type == target:
        return column
    if not _may_become(column.type, declared):
        raise _wrong_type(column, declared, target, where)
    if pa.types.is_floating(column.type):
        _require_exact(column, declared, where)
    try:
        return column.cast(target)
    except pa.ArrowInvalid as error:
        raise _wrong_type(column, declared, target, where) from error


def _parsed(column: "pa.ChunkedArray", declared: DataType, where: str) -> "pa.ChunkedArray":
    """Read CSV cells by the grammar; whole numbers beside empty cells are often written 7.0."""
    import pyarrow as pa

    from millrace.rows.lines import read_cells

    text = column.combine_chunks()
    values, misfits = read_cells(text, declared)
    if misfits and declared.is_integer:
        text = pa.array([_whole(cell) for cell in text.to_pylist()], pa.string())
        values, misfits = read_cells(text, declared)
    if misfits:
        sample = column[next(iter(misfits))].as_py()
        raise _not_of_type(sample, column.type, declared, where)
    return pa.chunked_array([values])


def _whole(cell: str | None) -> str | None:
    """Write a number with a point or an exponent as the integer that it exactly is."""
    text = (cell or "").strip(BLANKS)
    if not is_number(text) or is_integer(text):
        return cell
    try:
        number = Decimal(text)
    except InvalidOperation:
        # An exponent beyond those of decimals.
        return cell
    is_short = number.adjusted() <= _LONGEST_INTEGER
    return str(int(number)) if is_short and number == number.to_integral_value() else cell


def _require_exact(column: "pa.ChunkedArray", declared: DataType, where: str) -> None:
    """Refuse doubles so large that several integers are the same one."""
    import pyarrow.compute as pc

    if not declared.is_integer:
        return
    large = column.filter(pc.greater(pc.abs(column), _EXACT_DOUBLES))
    if len(large):
        raise DataError(
            f"the key {large[0].as_py()!r} is a double beyond 2^53: which integer it was is lost",
            where=where,
            fix=f"keep the column {declared} before it is joined: dataframes make doubles of "
            "integers beside missing ones",
        )


def _may_become(found: "pa.DataType", declared: DataType) -> bool:
    """True where a checked cast keeps the meaning; a number never becomes text, nor text one."""
    import pyarrow as pa

    is_integer = pa.types.is_integer(found)
    is_floating = pa.types.is_floating(found)
    is_decimal = pa.types.is_decimal(found)
    accepted = {
        "int32": is_integer or is_floating or is_decimal,
        "int64": is_integer or is_floating or is_decimal,
        # Arrow rounds silently between doubles and decimals.
        "float64": is_integer or is_floating,
        "decimal": is_integer or is_decimal,
        "bool": pa.types.is_boolean(found),
        "string": _is_text(found),
        "bytes": pa.types.is_binary(found) or pa.types.is_large_binary(found),
        "timestamp": pa.types.is_timestamp(found),
        "date": pa.types.is_date(found),
    }
    return bool(pa.types.is_null(found) or accepted[declared.kind])


def _wrong_type(
    column: "pa.ChunkedArray", declared: DataType, target: "pa.DataType", where: str
) -> DataError:
    values = column.drop_null()
    # Only a misfit is worth showing where some of the values would do; a type may be wrong whole.
    sample = next((v for v in values if not _casts(v, target)), values[0])
    return _not_of_type(_shown(sample), column.type, declared, where)


def _shown(cell: "pa.Scalar") -> object:
    try:
        return cell.as_py()
    except OverflowError:
        # An instant beyond Python's years.
        return cell.value


def _not_of_type(value: object, found: "pa.DataType", declared: DataType, where: str) -> DataError:
    return DataError(
        f"the key is declared {declared}, which {str(value)[:60]!r} ({found}) is not",
        where=where,
        fix=f"cast the column to {declared} when writing the spine",
    )


def _finite(column: "pa.ChunkedArray") -> "pa.ChunkedArray":
    """Make NaN and infinities null, as everywhere; dataframes write missing integers as NaN."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.if_else(pc.is_finite(column), column, pa.scalar(None, column.type))


def _is_text(found: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_string_view(found)
    )


# ---- messages


def _rows_where(mask: "pa.ChunkedArray") -> str:
    import numpy as np

    rows = np.flatnonzero(mask.to_numpy()) + 1
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    more = ", …" if len(rows) > _SHOWN_ROWS else ""
    return f"row{'s' if len(rows) > 1 else ''} {shown}{more} (the first row is 1)"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:_SHOWN_ROWS])
    return f"the column {shown}" if len(names) == 1 else f"the columns {shown}"
