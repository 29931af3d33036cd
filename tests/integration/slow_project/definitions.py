"""The platform's own code location, with tiles that take their time while a file is there.

Everything is real: the tables, Spark, the write. Only, the tasks that write tiles pause after each
day, so that a test finds a job in the middle of a write; each pause leaves a line in a file.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from jobs.definitions import defs as platform_defs
from offline.tables import tiles as tiles_table
from resources.lake.writing import replace_days

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

_PAUSE_S = 0.2
_PAUSES = 300


def _paused(beats: str) -> Callable[[Iterator["pa.RecordBatch"]], Iterator["pa.RecordBatch"]]:
    def pause(batches: Iterator["pa.RecordBatch"]) -> Iterator["pa.RecordBatch"]:
        import pyarrow.compute as pc

        for batch in batches:
            days = batch.column(batch.schema.get_field_index("event_date"))
            for day in pc.unique(days).to_pylist():
                yield batch.filter(pc.equal(days, day))
                for _ in range(_PAUSES):
                    with open(beats, "a", encoding="utf-8") as file:
                        file.write(f"{time.time()} {day}\n")
                    time.sleep(_PAUSE_S)

    return pause


def _replace_slowly(frame: "DataFrame", path: str, predicate: str, *, sort: Sequence[str]) -> None:
    folder = Path(os.environ["MILLRACE_TEST_FOLDER"])
    if not (folder / "slow").exists():
        replace_days(frame, path, predicate, sort=sort)
        return
    ordered = frame.repartition(2, "event_date").sortWithinPartitions("event_date", *sort)
    paused = ordered.mapInArrow(_paused(str(folder / "beats")), ordered.schema)
    (
        paused.write.format("delta")
        .mode("overwrite")
        .partitionBy("event_date")
        .option("replaceWhere", predicate)
        .save(path)
    )


vars(tiles_table)["replace_days"] = _replace_slowly


@dg.definitions
def defs() -> dg.Definitions:
    """Return the platform's own definitions."""
    return platform_defs()
