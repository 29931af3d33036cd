"""What a raw row of a source is, whatever file it stood in: its values, and what is wrong with it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millrace.plan import Column, SourcePlan
from millrace.values.arrow import arrow_type
from offline.raw.lines import POSITION

if TYPE_CHECKING:
    import pyarrow as pa

    from millrace.rows.lines import Rows

FAULT = "_fault"
"""Why a row is none: ``malformed`` or ``schema``; null for a good one."""
DETAIL = "_detail"
"""The fault in words, with the offending value; null for a good row."""
PAYLOAD = "_payload"
"""The raw row as bytes, for dead letters: a line as it stands in its file, else as JSON text."""
FILE = "_file"
"""Path of the file a row came from."""
ARRIVAL = "_arrival"
"""Struct ordering rows as they stand in the source: file, then the place within it."""


def raw_schema(source: SourcePlan) -> "pa.Schema":
    """Return the columns of raw rows: those declared, then those named above but the arrival.

    The last column is the place within the file.
    """
    import pyarrow as pa

    declared = [(c.name, arrow_type(c.type)) for c in source.columns]
    told = [(FAULT, pa.string()), (DETAIL, pa.string()), (PAYLOAD, pa.binary())]
    return pa.schema([*declared, *told, (FILE, pa.string()), (POSITION, pa.int64())])


def raw_batch(
    columns: Sequence[Column],
    rows: "Rows",
    payload: "pa.Array",
    file: "pa.Array",
    position: "pa.Array",
) -> "pa.RecordBatch":
    """Return rows as a batch of ``raw_schema``."""
    import pyarrow as pa

    named = dict(zip([c.name for c in columns], rows.columns, strict=True))
    told = {FAULT: rows.reason, DETAIL: rows.detail, PAYLOAD: payload}
    return pa.record_batch({**named, **told, FILE: file, POSITION: position})
