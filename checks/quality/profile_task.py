"""What a task of Spark does with the rows that it profiles.

Its worker is promised Python with numpy and pyarrow, and is sent our code; it imports nothing else.
"""

from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millrace.quality.partial import Partials, TableShape


def profile_batches(
    shape: TableShape,
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return what a task does: one partial profile for each day it meets.

    A file holds one day, so a task meets its days one after another and hands each on as soon as
    the next one begins: neither it nor a message ever holds more than a day.
    """

    def partial_profiles(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        def handed_on(partials: Partials) -> Any:
            made = pa.array([partials.to_bytes()], pa.binary())
            return pa.RecordBatch.from_arrays([made], ["partial"])

        held: tuple[date, Partials] | None = None
        for day, part in _by_day(batches):
            if held is not None and held[0] != day:
                yield handed_on(held[1])
                held = None
            if held is None:
                held = (day, Partials(shape))
            held[1].add(part)
        if held is not None:
            yield handed_on(held[1])

    return partial_profiles


def _by_day(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[date, pa.RecordBatch]]:
    for batch in batches:
        days = batch.column("event_date")
        for day in sorted(pc.unique(days).to_pylist()):
            part = batch.filter(pc.equal(days, day))
            yield day, part.drop_columns(["event_date"])
