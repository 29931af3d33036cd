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
from resources.raw_lines import PATH, POSITION
from resources.raw_parquet import read_parquet
from resources.raw_text import (
    ARRIVAL,
    DETAIL,
    FAULT,
    FILE,
    PAYLOAD,
    read_text_rows,
    read_text_rows_of_url,
)

if TYPE_CHECKING:
    from pyspark.sql import Column as SparkColumn
    from pyspark.sql import DataFrame, SparkSession

# A quote within quotes is doubled (RFC 4180).
_HEADER = {"header": "true", "escape": '"'}
_INTEGERS = {"tinyint", "smallint", "int", "bigint"}


def read_rows(spark: "SparkSession", source: SourcePlan, files: Sequence[RawFile]) -> "DataFrame":
    """Return every row of the files: declared columns, then those that ``raw_text`` names.

    Parquet of the same physical columns is read together; a file whose column is narrower or wider
    than its neighbour's converts on its own.

    Raises:
        DataError: a column is missing, where nobody looked at the files before.
    """
    if not files[0].was_looked_at:
        return _read_by_spark(spark, source, files[0].path)
    if source.files.format != "parquet":
        return read_text_rows(spark, source, [file.path for file in files])
    groups = groupby(sorted(files, key=_signature), key=_signature)
    frames = [
        _converted(
            read_parquet(spark, source, {f.path: f.group_bytes for f in group}, dict(signature)),
            source,
        )
        for signature, group in groups
    ]
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return union


def _signature(file: RawFile) -> tuple[tuple[str, str], ...]:
    return tuple((file.columns or {}).items())


def _read_by_spark(spark: "SparkSession", source: SourcePlan, path: str) -> "DataFrame":
    """Read a table, or what lies behind a URL: Spark alone finds it."""
    if source.files.format in {"delta", "parquet"}:
        return _converted(spark.read.format(source.files.format).load(path), source)
    if source.files.format == "json":
        return read_text_rows_of_url(spark, source, path, None)
    # The header of one file tells the columns of all.
    names = spark.read.options(**_HEADER).csv(path).columns
    if missing := missing_column(names, source):
        raise DataError(missing, where=f"source {source.name}", fix="correct it, or `columns`")
    return read_text_rows_of_url(spark, source, path, names)


def _converted(raw: "DataFrame", source: SourcePlan) -> "DataFrame":
    from pyspark.sql import functions as F

    found = {
        field.name: field.dataType.simpleString()
        for field in raw.schema.fields
        if field.name not in {PATH, POSITION}
    }
    if missing := missing_column(list(found), source):
        raise DataError(missing, where=f"source {source.name}", fix="correct it, or `columns`")
    converted, broken = [], [F.expr("false")]
    for column in source.columns:
        value, loses = _convert(F.col(f"`{column.name}`"), found[column.name], column)
        if column.type.kind == "timestamp":
            # Instants have milliseconds here, in every engine; finer digits are floored.
            value = F.timestamp_millis(F.unix_millis(value))
        converted.append(value.alias(column.name))
        broken.append(loses)
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
        F.when(any_broken, "schema").alias(FAULT),
        F.lit(None).cast("string").alias(DETAIL),
        F.to_json(F.struct(*payload)).cast("binary").alias(PAYLOAD),
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
