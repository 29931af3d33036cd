"""Rows in a file of another day: a declaration with ``{date}`` says which days a file is of.

What lies beyond would be looked for in other files by the build of its own day, and never be found:
so it is a dead letter of its file.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from offline.raw.columns import DETAIL, FAULT, FILE
from offline.raw.files import RawFile, days_of_name
from offline.tables.classification import epoch_ms

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_FIRST_MS, _END_MS = "_first_ms", "_end_ms"


def condemn_strays(
    spark: "SparkSession", rows: "DataFrame", source: SourcePlan, files: Sequence[RawFile]
) -> "DataFrame":
    """Mark rows whose event time lies outside the days of their file; they lose it."""
    import pyarrow as pa
    from pyspark.sql import functions as F

    spans = {f.path: days_of_name(f.day, source) for f in files if f.day is not None}
    if not spans:
        return rows
    table = pa.table(
        {
            FILE: list(spans),
            _FIRST_MS: [first * DAY_MS for first, _ in spans.values()],
            _END_MS: [(last + 1) * DAY_MS for _, last in spans.values()],
        }
    )
    stamped = epoch_ms(source, source.event_time)
    strays = (stamped < F.col(_FIRST_MS)) | (stamped >= F.col(_END_MS))
    is_stray = F.coalesce(strays, F.expr("false"))
    event_time = F.col(f"`{source.event_time}`")
    found = rows.join(F.broadcast(spark.createDataFrame(table)), FILE, "left").withColumns(
        {
            DETAIL: F.when(is_stray, "in a file of another day").otherwise(F.col(DETAIL)),
            FAULT: F.when(is_stray, "schema").otherwise(F.col(FAULT)),
            source.event_time: F.when(~is_stray, event_time),
        }
    )
    return found.select(*rows.columns)
