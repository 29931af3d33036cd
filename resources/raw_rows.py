"""Raw rows of a batch source in Spark, each cell converted to its declared type or marked.

A cell that does not convert condemns its row (dead letter ``schema``), never the job.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from millrace.compile.spark import sql_type
from millrace.errors import DataError
from millrace.plan import Column, SourcePlan
from resources.raw_files import RawFile, missing_column
from resources.raw_lines import LINE, PATH, POSITION, read_lines
from resources.raw_parquet import read_parquet

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

BROKEN = "_broken"
"""Boolean column: some cell does not convert, or the line is not of the format."""
PAYLOAD = "_payload"
"""The raw row as JSON text, for dead letters."""
FILE = "_file"
"""Path of the file a row came from."""
ARRIVAL = "_arrival"
"""Struct ordering rows as they stand in the source: file, and the place within it."""

_CORRUPT = "_corrupt_record"
_MARKED = {"columnNameOfCorruptRecord": _CORRUPT}
# A quote within quotes is doubled (RFC 4180), and no line ends within them: one that is never closed
# spoils a row and not the rest of the file.
_CSV = {"header": "true", "escape": '"'}
_INTEGERS = {"tinyint", "smallint", "int", "bigint"}


def read_rows(spark: "SparkSession", source: SourcePlan, files: Sequence[RawFile]) -> "DataFrame":
    """Return every row of the files: declared columns, then the four columns named above.

    Files with the same physical columns are read together; a file whose column is narrower or
    wider than its neighbour's converts on its own.

    Raises:
        DataError: a column is missing, where nobody looked at the files before.
    """
    if not files[0].was_looked_at:
        return _converted(_read_by_spark(spark, source, files[0].path), source)
    groups = groupby(sorted(files, key=_signature), key=_signature)
    frames = [
        _converted(_read(spark, source, list(group), dict(signature)), source)
        for signature, group in groups
    ]
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return union


def _signature(file: RawFile) -> tuple[tuple[str, str], ...]:
    return tuple((file.columns or {}).items())


def _read(
    spark: "SparkSession", source: SourcePlan, files: list[RawFile], columns: dict[str, str]
) -> "DataFrame":
    from pyspark.sql import functions as F

    if source.files.format == "parquet":
        return read_parquet(spark, source, {f.path: f.group_bytes for f in files}, columns)
    is_csv = source.files.format == "csv"
    lines = read_lines(spark, [f.path for f in files], have_header=is_csv)
    line = F.col(LINE).cast("string")
    names = list(columns) if is_csv else [c.name for c in source.columns]
    cells = (
        F.from_csv(line, _texts(names), {**_CSV, **_MARKED})
        if is_csv
        else F.from_json(line, _texts(names), _MARKED)
    )
    broken = F.when(~F.is_valid_utf8(line), line).otherwise(F.col(f"cells.{_CORRUPT}"))
    parsed = lines.select("*", cells.alias("cells"))
    return parsed.select(
        PATH,
        POSITION,
        *(F.col(f"cells.`{name}`") for name in names),
        broken.alias(_CORRUPT),
    )


def _read_by_spark(spark: "SparkSession", source: SourcePlan, path: str) -> "DataFrame":
    """Read a table, or what lies behind a URL: Spark alone finds it."""
    if source.files.format == "delta":
        return spark.read.format("delta").load(path)
    if source.files.format == "parquet":
        return spark.read.parquet(path)
    if source.files.format == "json":
        names = [c.name for c in source.columns]
        return spark.read.schema(_texts(names)).options(**_MARKED).json(path)
    # The header of one file tells the columns, and the others must agree.
    names = spark.read.options(**_CSV).csv(path).columns
    agreed = {**_CSV, **_MARKED, "enforceSchema": "false"}
    return spark.read.schema(_texts(names)).options(**agreed).csv(path)


def _texts(names: Sequence[str]) -> str:
    return ", ".join(f"`{name.replace('`', '``')}` STRING" for name in [*names, _CORRUPT])


def _converted(raw: "DataFrame", source: SourcePlan) -> "DataFrame":
    from pyspark.sql import functions as F

    found = {
        field.name: field.dataType.simpleString()
        for field in raw.schema.fields
        if field.name not in {PATH, POSITION}
    }
    if missing := missing_column([name for name in found if name != _CORRUPT], source):
        raise DataError(missing, where=f"source {source.name}", fix="correct it, or `columns`")
    converted, broken = [], [F.expr("false")]
    for column in source.columns:
        value, loses = _convert(F.col(f"`{column.name}`"), found[column.name], column)
        if column.type.kind == "timestamp":
            # Instants have milliseconds here, in every engine; finer digits are floored.
            value = F.timestamp_millis(F.unix_millis(value))
        converted.append(value.alias(column.name))
        broken.append(loses)
    if _CORRUPT in found:
        broken.append(F.col(_CORRUPT).isNotNull())
        if PATH not in raw.columns:
            # Spark reads bytes that are not UTF-8 as this character, without a word.
            texts = [F.col(f"`{column.name}`") for column in source.columns]
            broken += [F.coalesce(text.contains("\ufffd"), F.expr("false")) for text in texts]
    payload = [F.col(f"`{name}`") for name in found]
    if PATH in raw.columns:
        file, place = F.col(PATH), F.struct(PATH, POSITION)
    else:
        file = F.col("_metadata.file_path")
        block = F.col("_metadata.file_block_start")
        place = F.struct(file, block, F.monotonically_increasing_id())
    any_broken = broken[0]
    for one in broken[1:]:
        any_broken = any_broken | one
    return raw.select(
        *converted,
        any_broken.alias(BROKEN),
        F.to_json(F.struct(*payload)).alias(PAYLOAD),
        file.alias(FILE),
        place.alias(ARRIVAL),
    )


def _convert(
    cell: "SparkColumn", found: str, column: Column
) -> tuple["SparkColumn", "SparkColumn"]:
    """Return the cell as declared, and whether a value was there that does not convert."""
    from pyspark.sql import functions as F

    kind = column.type.kind
    if found in {"float", "double"}:
        # Not a number is no value: pandas writes missing integers so, and JSON cannot carry it.
        finite = ~F.isnan(cell) & (F.abs(cell) != float("inf"))
        cell = F.when(finite, cell)
    if kind == "float64":
        wide = cell.try_cast("double")
        return F.when(~F.isnan(wide) & (F.abs(wide) != float("inf")), wide), _lost(cell, wide)
    if found == "string" and kind in {"timestamp", "date"}:
        return _parsed_instant(cell, kind)
    if kind == "timestamp" and found == "bigint":
        instant = F.timestamp_millis(cell)
        return instant, F.expr("false")
    if kind == "bool" and found in _INTEGERS:
        return F.when(cell.isin(0, 1), cell == 1), cell.isNotNull() & ~cell.isin(0, 1)
    value = cell.try_cast(sql_type(column.type))
    lost = _lost(cell, value)
    if kind in {"int32", "int64"} and (found in {"float", "double"} or found.startswith("dec")):
        fraction = cell.isNotNull() & (cell != F.floor(cell))
        return F.when(~fraction, value), lost | fraction
    return value, lost


def _lost(cell: "SparkColumn", value: "SparkColumn") -> "SparkColumn":
    return cell.isNotNull() & value.isNull()


def _parsed_instant(cell: "SparkColumn", kind: str) -> tuple["SparkColumn", "SparkColumn"]:
    from pyspark.sql import functions as F

    if kind == "date":
        value = cell.try_cast("date")
    else:
        epoch_ms = cell.rlike(r"^-?\d{5,}$")
        value = F.when(epoch_ms, F.timestamp_millis(cell.try_cast("bigint"))).otherwise(
            cell.try_cast("timestamp")
        )
    return value, _lost(cell, value)
