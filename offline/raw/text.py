"""Lines of raw CSV and JSON files as rows of a source, read by the grammar in Spark's workers.

A line's bytes come as they stand there, and nothing but ``millrace.values`` reads them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from millrace.plan import SourcePlan
from millrace.rows.csv_rows import CsvRows
from millrace.rows.json_rows import JsonRows
from offline.raw.columns import ARRIVAL, FILE, raw_batch, raw_schema
from offline.raw.lines import BOM, LINE, PATH, POSITION, lines_of, split_text
from offline.raw.splits import Split, read_splits, without_collations

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from millrace.rows.lines import Rows
    from offline.raw.files import RawFile

_NOT_BLANK = r"[^ \t\r\n]"


def read_text_rows(
    spark: "SparkSession", source: SourcePlan, files: "Sequence[RawFile]"
) -> "DataFrame":
    """Return every row of local text files: rows as ``raw_columns`` says.

    Blank lines and a byte order mark at the beginning of a file are no rows. Each CSV file has a
    header of its own, which was read when the file was looked at.
    """
    from pyspark.sql import functions as F

    # Most files have one header, so it is sent to the workers once.
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    headers = {file.path: known.setdefault(file.header, file.header) for file in files}
    read = partial(text_rows_of, source, headers)
    splits = split_text({file.path: file.size_bytes for file in files})
    rows = read_splits(spark, splits, read, raw_schema(source))
    return rows.withColumn(ARRIVAL, F.struct(FILE, POSITION)).drop(POSITION)


def read_text_rows_of_url(
    spark: "SparkSession", source: SourcePlan, path: str, header: Sequence[str] | None
) -> "DataFrame":
    """Return the same of what lies behind a URL, whose CSV files share the header; None for JSON."""
    from pyspark.sql import functions as F
    from pyspark.sql.pandas.types import from_arrow_schema

    lines = spark.read.text(path).select(
        F.col("value").cast("binary").alias(LINE),
        F.col("_metadata.file_path").alias(PATH),
        F.col("_metadata.file_block_start").alias(POSITION),
    )
    schema = raw_schema(source)
    rows = lines.mapInArrow(partial(_rows_of_url, source, header), from_arrow_schema(schema))
    place = F.struct(FILE, POSITION, F.monotonically_increasing_id())
    return without_collations(rows, schema).withColumn(ARRIVAL, place).drop(POSITION)


def text_rows_of(
    source: SourcePlan, headers: Mapping[str, Sequence[str]], split: Split
) -> "Iterator[pa.RecordBatch]":
    """Yield the rows of a split, which Spark's workers call; ``headers`` are those of CSV, by path."""
    is_csv = source.files.format == "csv"
    read = _reader(source, headers[split.path] if is_csv else None)
    for lines in lines_of(split, has_header=is_csv):
        yield _batch(source, lines, read(lines.column(0)))


def _rows_of_url(
    source: SourcePlan, header: Sequence[str] | None, batches: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    read, heads = _reader(source, header), _Heads(are_headers=header is not None)
    for batch in batches:
        lines = heads.without(batch)
        yield _batch(source, lines, read(lines.column(0)))


def _reader(source: SourcePlan, header: Sequence[str] | None) -> "Callable[[pa.Array], Rows]":
    from millrace.rows.lines import read_csv_lines, read_json_lines

    if header is None:
        return partial(read_json_lines, JsonRows.of_files(source), source.columns)
    return partial(read_csv_lines, CsvRows.of_files(source, header))


class _Heads:
    """Knows the first line of each file, as lines pass by in the order of a task."""

    def __init__(self, *, are_headers: bool) -> None:
        self._are_headers = are_headers
        self._before: tuple[str, int] | None = None

    def without(self, batch: "pa.RecordBatch") -> "pa.RecordBatch":
        """Return the lines that are rows: none that is blank, no header, no byte order mark."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        lines = batch.filter(pc.match_substring_regex(batch.column(0), _NOT_BLANK))
        if lines.num_rows == 0:
            return lines
        files, blocks = lines.column(1), lines.column(2)
        changes = np.ones(len(files), dtype=bool)
        changes[1:] = pc.or_(
            pc.not_equal(files[1:], files[:-1]), pc.not_equal(blocks[1:], blocks[:-1])
        ).to_numpy(zero_copy_only=False)
        changes[0] = self._before != (files[0].as_py(), blocks[0].as_py())
        self._before = files[-1].as_py(), blocks[-1].as_py()
        heads = np.flatnonzero(changes & (blocks.to_numpy() == 0))
        if self._are_headers:
            is_row = np.ones(len(files), dtype=bool)
            is_row[heads] = False
            return lines.filter(pa.array(is_row))
        if not any(lines.column(0)[i].as_py().startswith(BOM) for i in heads):
            return lines
        texts = lines.column(0).to_pylist()
        for i in heads:
            texts[i] = texts[i].removeprefix(BOM)
        return lines.set_column(0, LINE, pa.array(texts, pa.binary()))


def _batch(source: SourcePlan, lines: "pa.RecordBatch", rows: "Rows") -> "pa.RecordBatch":
    return raw_batch(source.columns, rows, lines.column(0), lines.column(1), lines.column(2))
