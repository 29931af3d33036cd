"""Raw files on Spark without Hadoop: parts of files, opened by its Python workers.

Hadoop takes a name on disk for a pattern and for a URI, knows compressions by the case of an
ending, and refuses Parquet that the look at the files had accepted. Here a path is a path, and what
looks at a file is what reads it. Files behind a URL are still Spark's, who has the credentials.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_TASK_BYTES = 32 << 20
_OPENING_COSTS_BYTES = 1 << 20


class Split(NamedTuple):
    """A part of a file: half-open, in bytes of text or in row groups of Parquet."""

    path: str
    start: int
    stop: int
    size_bytes: int


Read = Callable[[Split], "Iterator[pa.RecordBatch]"]
"""Reads one split. It runs in Spark's workers: a function of a module, or a partial of one."""


def read_splits(
    spark: "SparkSession", splits: Iterable[Split], read: Read, schema: "pa.Schema"
) -> "DataFrame":
    """Return the rows that ``read`` finds in each split.

    Args:
        spark: the session.
        splits: what to read; small ones share a task, in order.
        read: see ``Read``. What it raises fails the job.
        schema: of its batches; texts and bytes in 32 bits, instants in microseconds.
    """
    from pyspark.sql.pandas.types import from_arrow_schema

    tasks = _tasks(splits) or [()]

    def run(batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        for batch in batches:
            for number in batch.column(0).to_pylist():
                for split in tasks[number]:
                    yield from read(split)

    rows = spark.range(0, len(tasks), 1, len(tasks)).mapInArrow(run, from_arrow_schema(schema))
    return without_collations(rows, schema)


def without_collations(rows: "DataFrame", schema: "pa.Schema") -> "DataFrame":
    """Return rows out of ``mapInArrow`` as others can read them in Delta.

    Their texts carry a collation by name (4.2), which only Spark knows; a cast takes it off.
    """
    import pyarrow as pa
    from pyspark.sql import functions as F

    texts = {f.name: F.col(f"`{f.name}`").cast("string") for f in schema if f.type == pa.string()}
    return rows.withColumns(texts)


def _tasks(splits: Iterable[Split]) -> list[tuple[Split, ...]]:
    tasks: list[list[Split]] = []
    room = 0
    for split in splits:
        cost = split.size_bytes + _OPENING_COSTS_BYTES
        if not tasks or cost > room:
            tasks.append([])
            room = _TASK_BYTES
        tasks[-1].append(split)
        room -= cost
    return [tuple(task) for task in tasks]


def parts(size: int, weight: Sequence[int] | None = None) -> list[tuple[int, int]]:
    """Cut ``range(size)`` into ranges of about one task each.

    Args:
        size: bytes of a text, or the number of row groups.
        weight: bytes of each row group; None where the unit is the byte.

    >>> parts(3, [10 << 20, 30 << 20, 5 << 20])
    [(0, 1), (1, 2), (2, 3)]
    >>> parts(100)
    [(0, 100)]
    """
    if weight is None:
        edges = [*range(0, size, _TASK_BYTES), size]
        return list(pairwise(edges))
    found: list[tuple[int, int]] = []
    held = 0
    for number in range(size):
        if found and held + weight[number] <= _TASK_BYTES:
            found[-1] = (found[-1][0], number + 1)
            held += weight[number]
        else:
            found.append((number, number + 1))
            held = weight[number]
    return found
