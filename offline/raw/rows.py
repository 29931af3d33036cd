"""Raw rows of a batch source in Spark, each cell converted to its declared type or marked.

A cell that does not convert condemns its row (dead letter ``schema``), never the job.
"""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from millrace.errors import DataError
from millrace.plan import SourcePlan
from offline.raw.files import RawFile, absent_columns, missing_column
from offline.raw.text import read_text_rows, read_text_rows_of_url
from offline.raw.typed import read_parquet_rows, read_table_rows

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# A quote within quotes is doubled (RFC 4180).
_HEADER = {"header": "true", "escape": '"'}


def read_rows(spark: "SparkSession", source: SourcePlan, files: Sequence[RawFile]) -> "DataFrame":
    """Return every row of the files: declared columns, then those that ``raw_columns`` names.

    Parquet of the same physical columns is read together; a file whose column is narrower or wider
    than its neighbour's converts on its own.

    Raises:
        DataError: a column is missing, where nobody looked at the files before.
    """
    if not files[0].was_looked_at:
        return _read_by_spark(spark, source, files[0].path)
    if source.files.format != "parquet":
        return read_text_rows(spark, source, files)
    alike: dict[Hashable, list[RawFile]] = {}
    for file in files:
        alike.setdefault(_signature(file, source), []).append(file)
    frames = [read_parquet_rows(spark, source, group) for group in alike.values()]
    union = frames[0]
    for frame in frames[1:]:
        union = union.unionByName(frame)
    return union


def _signature(file: RawFile, source: SourcePlan) -> Hashable:
    columns = file.columns or {}
    return tuple(columns.get(column.origin) for column in source.columns)


def _read_by_spark(spark: "SparkSession", source: SourcePlan, path: str) -> "DataFrame":
    """Read a table, or what lies behind a URL: Spark alone finds it."""
    if source.files.format in {"delta", "parquet"}:
        return read_table_rows(source, spark.read.format(source.files.format).load(path))
    if source.files.format == "json":
        return read_text_rows_of_url(spark, source, path, None)
    # The header of one file tells the columns of all.
    names = spark.read.options(**_HEADER).csv(path).columns
    if missing := missing_column(names, source):
        raise DataError(missing, where=f"source {source.name}", fix="correct it, or `columns`")
    absent_columns(names, source)
    return read_text_rows_of_url(spark, source, path, names)
