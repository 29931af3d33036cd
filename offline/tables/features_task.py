"""What a task of Spark does with events of which it makes features.

Its worker is promised Python with numpy and pyarrow, and is sent our code; it imports nothing else.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from millrace.durations import DAY_MS
from millrace.kernel.arrow import KernelView, join_features
from resources.memory import small_pages

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def events_as_of(view: KernelView, version: str, bounds_ms: list[tuple[int, int]]) -> Task:
    """Return what a task does with the events of its entities.

    Args:
        view: the view.
        version: what the column ``feature_version`` says.
        bounds_ms: half-open ranges of event times whose rows are asked for; the others are history.
    """

    def values(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = list(batches)
        if not received:
            return
        events = pa.Table.from_batches(received)
        times = events["_event_ms"].to_numpy()
        wanted = np.zeros(len(times), dtype=bool)
        for start, end in bounds_ms:
            wanted |= (times >= start) & (times < end)
        asked = events.filter(pa.array(wanted))
        query_ms = asked["_event_ms"]
        keys = {k: asked[k] for k in view.join_keys}
        with small_pages():
            found = join_features(view, events, pa.table({**keys, "_query_ms": query_ms}))
        moments = query_ms.to_numpy()
        event_time = pa.array(moments * 1000, pa.timestamp("us", tz="UTC"))
        day = pa.array((moments // DAY_MS).astype("int32"), pa.int32()).cast(pa.date32())
        columns = {name: found[name] for name in found.column_names}
        result = pa.table(
            {
                **keys,
                "event_time": event_time,
                **columns,
                "feature_version": pa.repeat(version, len(moments)),
                "event_date": day,
            }
        )
        yield from result.combine_chunks().to_batches(max_chunksize=200_000)

    return values
