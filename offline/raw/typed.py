"""Rows of raw files that have types of their own, Parquet and Delta, as rows of a source."""

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from millrace.plan import SourcePlan
from millrace.rows.json_rows import clock_columns
from offline.raw.columns import ARRIVAL, FILE, PAYLOAD, raw_batch, raw_schema
from offline.raw.files import RawFile, check_columns
from offline.raw.lines import PATH, POSITION
from offline.raw.parquet import parquet_splits, portable_types, rows_of
from offline.raw.splits import Split, read_splits, without_collations

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from millrace.rows.lines import Rows
    from offline.raw.parquet import Wanted


def read_parquet_rows(
    spark: "SparkSession", source: SourcePlan, files: "Sequence[RawFile]"
) -> "DataFrame":
    """Return every row of local Parquet files of one schema, as ``raw_columns`` says."""
    from pyspark.sql import functions as F

    wanted = portable_types(source, files[0].columns or {})
    splits = parquet_splits({file.path: file.group_bytes for file in files})
    rows = read_splits(spark, splits, partial(rows_of_split, source, wanted), raw_schema(source))
    return _with_payload(rows, source).withColumn(ARRIVAL, F.struct(FILE, POSITION)).drop(POSITION)


def read_table_rows(source: SourcePlan, raw: "DataFrame") -> "DataFrame":
    """Return the same of what Spark reads: a table, or Parquet behind a URL.

    Raises:
        DataError: a column is missing, or of a type that is never the declared one.
    """
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

    cells = _cells(to_arrow_schema(raw.schema, timezone="UTC"))
    check_columns({origin: str(found) for origin, (_, found) in cells.items()}, source)
    there = [c for c in source.columns if c.origin in cells]
    chosen = raw.select(
        F.col("_metadata.file_path").alias(PATH),
        F.col("_metadata.file_block_start").alias(POSITION),
        *(F.col(cells[c.origin][0]).alias(c.name) for c in there),
    )
    schema = raw_schema(source)
    rows = chosen.mapInArrow(partial(rows_of_batches, source), from_arrow_schema(schema))
    place = F.struct(FILE, POSITION, F.monotonically_increasing_id())
    numbered = without_collations(rows, schema).withColumn(ARRIVAL, place)
    return _with_payload(numbered, source).drop(POSITION)


def _cells(schema: "pa.Schema") -> "dict[str, tuple[str, pa.DataType]]":
    """Return by name, or path within structs, how Spark calls a column, and its type.

    A column of exactly that name comes before a path.
    """
    import pyarrow as pa

    cells: dict[str, tuple[str, pa.DataType]] = {}

    def walk(field: "pa.Field", name: str, quoted: str) -> None:
        cells.setdefault(name, (quoted, field.type))
        if pa.types.is_struct(field.type):
            for i in range(field.type.num_fields):
                inner = field.type.field(i)
                walk(inner, f"{name}.{inner.name}", f"{quoted}.{_quoted(inner.name)}")

    cells |= {field.name: (_quoted(field.name), field.type) for field in schema}
    for field in schema:
        walk(field, field.name, _quoted(field.name))
    return cells


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _with_payload(rows: "DataFrame", source: SourcePlan) -> "DataFrame":
    """Write good rows as JSON where somebody asks for it; workers wrote what does not fit."""
    from pyspark.sql import functions as F

    declared = F.to_json(F.struct(*(F.col(f"`{c.name}`") for c in source.columns)))
    return rows.withColumn(PAYLOAD, F.coalesce(F.col(PAYLOAD), declared.cast("binary")))


def rows_of_split(source: SourcePlan, wanted: "Wanted", split: Split) -> "Iterator[pa.RecordBatch]":
    """Yield the raw rows of some row groups of a Parquet file."""
    yield from rows_of_batches(source, rows_of(wanted, split))


def rows_of_batches(
    source: SourcePlan, batches: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    """Convert batches of ``PATH``, ``POSITION`` and declared columns in types of their own."""
    for batch in batches:
        rows = typed_rows(source, batch)
        yield raw_batch(
            source.columns, rows, _payload(batch, rows), batch.column(PATH), batch.column(POSITION)
        )


def typed_rows(source: SourcePlan, batch: "pa.RecordBatch") -> "Rows":
    """Return the declared columns of a batch that has them in types of their own."""
    from millrace.rows.typed_rows import read_typed_rows

    declared = {c.name for c in source.columns}
    cells = {n: batch.column(n) for n in batch.schema.names if n in declared}
    return read_typed_rows(source.columns, clock_columns(source), cells, batch.num_rows)


def _payload(batch: "pa.RecordBatch", rows: "Rows") -> "pa.Array":
    """Return what stood in the rows that do not fit, as JSON text; null for the others."""
    import pyarrow as pa

    texts: list[bytes | None] = [None] * batch.num_rows
    if rows.reason.null_count < batch.num_rows:
        bad = rows.reason.is_valid()
        places = [place for place, is_bad in enumerate(bad.to_pylist()) if is_bad]
        kept = batch.select([n for n in batch.schema.names if n not in {PATH, POSITION}])
        cells = {n: _told(kept.column(n).filter(bad)) for n in kept.schema.names}
        for i, place in enumerate(places):
            row = {name: values[i] for name, values in cells.items()}
            texts[place] = json.dumps(row, ensure_ascii=False).encode()
    return pa.array(texts, pa.binary())


def _told(cells: "pa.Array") -> list[object]:
    """Return cells as JSON can write them; instants as integers, for no calendar has some of them."""
    import pyarrow as pa

    if pa.types.is_timestamp(cells.type):
        cells = cells.cast(pa.int64())
    if pa.types.is_date(cells.type):
        cells = cells.cast(pa.int32())
    values: list[object] = cells.to_pylist()
    is_plain = pa.types.is_integer(cells.type) or pa.types.is_boolean(cells.type)
    if is_plain or pa.types.is_string(cells.type):
        return values
    return [None if value is None else str(value) for value in values]
