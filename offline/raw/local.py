"""Raw rows of a batch source in this process: the readers that Spark's workers call, and no Spark.

Files on disk and Delta tables on disk; what lies behind a URL is Spark's, who has the credentials.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from millrace.errors import DataError
from millrace.plan import SourcePlan
from offline.raw.files import RawFile, check_columns
from offline.raw.lines import whole
from offline.raw.parquet import parquet_splits, portable_types, table_rows_of
from offline.raw.text import text_rows_of
from offline.raw.typed import rows_of_batches, rows_of_split

if TYPE_CHECKING:
    import pyarrow as pa


def read_file(source: SourcePlan, file: RawFile) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of one file, or of a whole table, as batches of ``raw_schema``.

    Raises:
        DataError: it lies behind a URL, or a column of a table is missing or of another type.
        OSError, ValueError, pa.ArrowException: it is damaged, or gone; see ``files.damages``.
    """
    if not file.was_looked_at:
        yield from _read_table(source, file.path)
    elif source.files.format == "parquet":
        wanted = portable_types(source, file.columns or {})
        for split in parquet_splits({file.path: file.group_bytes}):
            yield from rows_of_split(source, wanted, split)
    else:
        yield from text_rows_of(source, {file.path: file.header}, whole(file.path))


def _read_table(source: SourcePlan, place: str) -> "Iterator[pa.RecordBatch]":
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError
    from pyarrow.dataset import ParquetReadOptions

    where = f"source {source.name}"
    if "://" in place:
        raise DataError(
            f"{place} is behind a URL, which Spark alone reads",
            where=where,
            fix="point `batch.path` to a sample on disk, or build the view: millrace backfill",
        )
    try:
        dataset = DeltaTable(place).to_pyarrow_dataset(
            parquet_read_options=ParquetReadOptions(coerce_int96_timestamp_unit="us")
        )
    except DeltaError as error:
        raise DataError(
            f"{place} is not readable as a Delta table: {str(error).splitlines()[0][:200]}",
            where=where,
            fix="correct `batch.path`; of a table with deletion vectors build the view",
        ) from error
    columns = _physical(dataset.schema)
    check_columns(columns, source)
    wanted = portable_types(source, columns)
    names = {o if o in dataset.schema.names else o.split(".")[0] for _, o, _ in wanted}
    batches = dataset.to_batches(columns=sorted(names))
    yield from rows_of_batches(source, table_rows_of(wanted, place, batches))


def _physical(schema: "pa.Schema") -> dict[str, str]:
    """Return the type of each column by name, and of what lies in a struct by its path."""
    import pyarrow as pa

    found: dict[str, str] = {}

    def walk(field: "pa.Field", name: str) -> None:
        found.setdefault(name, str(field.type))
        if pa.types.is_struct(field.type):
            for i in range(field.type.num_fields):
                inner = field.type.field(i)
                walk(inner, f"{name}.{inner.name}")

    for field in schema:
        walk(field, field.name)
    return found
