"""What a task of Spark does with a spine and its events.

Its worker is promised Python with numpy and pyarrow, and is sent our code; it imports nothing else.
"""

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyarrow import ipc

from millrace.kernel.arrow import KernelView, join_features
from resources.memory import small_pages

ROW = "_row"
"""The column that numbers the spine's rows; null in an event."""

PACKED = "packed"
"""The one column that comes back."""

_PACKED_ROWS = 1 << 15

Task = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


def rows_as_of(view: KernelView, *, hindsight: bool) -> Task:
    """Return what a task does with its entities: split events from spine rows, join, number."""

    def join(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        received = list(batches)
        if not received:
            return
        with small_pages():
            rows = pa.Table.from_batches(received)
            is_event = rows.column(ROW).is_null()
            asked = rows.filter(rows.column(ROW).is_valid())
            found = join_features(view, rows.filter(is_event), asked, hindsight=hindsight)
            numbered = found.append_column(ROW, asked.column(ROW))
            yield packed(numbered)

    return join


def packed(table: pa.Table) -> pa.RecordBatch:
    """Return a table as cells of Arrow's own stream format, some ten thousand rows each.

    Spark then passes bytes on. Given columns it would turn them into rows and back, which for
    decimals of more than 18 digits costs more than the join.
    """
    options = ipc.IpcWriteOptions(compression="lz4")
    cells = []
    for batch in table.combine_chunks().to_batches(max_chunksize=_PACKED_ROWS):
        sink = pa.BufferOutputStream()
        with ipc.new_stream(sink, batch.schema, options=options) as stream:
            stream.write_batch(batch)
        cells.append(sink.getvalue().to_pybytes())
    return pa.record_batch({PACKED: pa.array(cells, pa.binary())})
