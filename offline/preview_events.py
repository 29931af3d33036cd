"""The verdict on raw rows in this process, for a preview: the rules of ``tables.classification``.

One thread and its memory: for looking at some days, not for building them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millrace.days import Days
from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from offline.raw.columns import FAULT
from offline.raw.files import RawFile, days_of_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_ROW_STAMPED = "_stamped_ms"


@dataclass
class Verdicts:
    """What became of the rows that were read.

    Attributes:
        rows: all of them.
        duplicates: those whose event id had arrived before.
        dead_letters: by reason, those that no build would take.
    """

    rows: int = 0
    duplicates: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)


def with_times(source: SourcePlan, file: RawFile, rows: "pa.Table") -> "pa.Table":
    """Add ``_stamped_ms`` (null without an event time) and ``_ingest_ms`` to the rows of one file.

    A row of a day that its file, by the declaration of its name, is not of is marked.
    """
    import numpy as np
    import pyarrow as pa

    stamped, has_time = _epoch_ms(source, source.event_time, rows)
    faults = rows.column(FAULT).to_numpy(zero_copy_only=False)
    if file.day is not None:
        first, last = days_of_name(file.day, source)
        strays = has_time & ((stamped < first * DAY_MS) | (stamped >= (last + 1) * DAY_MS))
        faults, has_time = np.where(strays, "schema", faults), has_time & ~strays
    ingest = stamped
    if source.ingest_time is not None:
        arrived, has_arrival = _epoch_ms(source, source.ingest_time, rows)
        ingest = np.where(has_arrival, arrived, stamped)
    place = rows.column_names.index(FAULT)
    marked = rows.set_column(place, FAULT, pa.array(faults, pa.string(), from_pandas=True))
    return marked.append_column(
        _ROW_STAMPED, pa.array(stamped, pa.int64(), mask=~has_time)
    ).append_column("_ingest_ms", pa.array(ingest, pa.int64()))


def accepted_events(
    source: SourcePlan, rows: Sequence["pa.Table"], read: Days
) -> "tuple[pa.Table, Verdicts]":
    """Return the events that count, with ``_event_ms``, and what became of the others.

    Args:
        source: whose rows they are.
        rows: by file, in the order of their paths, as ``with_times`` gives them.
        read: rows stamped outside these days are left out; those without a time are counted.
    """
    import numpy as np
    import pyarrow as pa

    table = pa.concat_tables(rows).combine_chunks()
    stamped, has_time = _integers(table.column(_ROW_STAMPED))
    has_fault = table.column(FAULT).is_valid().to_numpy()
    near = (stamped >= read.start_ms) & (stamped < read.end_ms)
    is_read = near | ~has_time | has_fault
    table = table.filter(pa.array(is_read))
    stamped, has_time = stamped[is_read], has_time[is_read]
    ingest = table.column("_ingest_ms").to_numpy()
    ahead = stamped - ingest
    faults = table.column(FAULT).to_numpy(zero_copy_only=False)
    reasons = np.full(len(stamped), None, dtype=object)
    # The contract's order of rules: the first that speaks wins.
    reasons[-ahead > source.allowed_lateness_ms] = "late"
    reasons[ahead > source.clock_skew_ms] = "future"
    reasons[~has_time] = "schema"
    has_fault = has_fault[is_read]
    reasons[has_fault] = faults[has_fault]
    counts = np.array([reason is None for reason in reasons], dtype=bool)
    copies = _copies(source, table, ingest, counts)
    dead = Counter(str(reason) for reason in reasons[~counts])
    verdicts = Verdicts(len(stamped), int(copies.sum()), dead)
    events = table.append_column("_event_ms", pa.array(np.minimum(stamped, ingest), pa.int64()))
    return events.filter(pa.array(counts & ~copies)), verdicts


def _copies(
    source: SourcePlan,
    table: "pa.Table",
    ingest: "npt.NDArray[np.int64]",
    counts: "npt.NDArray[np.bool_]",
) -> "npt.NDArray[np.bool_]":
    """Mark rows whose event id arrived within the horizon before, kept or not."""
    import numpy as np
    import pyarrow.compute as pc

    copies = np.zeros(len(ingest), dtype=bool)
    if source.event_id is None:
        return copies
    ids = table.column(source.event_id).combine_chunks()
    places = np.flatnonzero(counts & ids.is_valid().to_numpy(zero_copy_only=False))
    codes = pc.dictionary_encode(ids.take(places)).indices.to_numpy()
    order = np.lexsort((ingest[places], codes))
    places, codes = places[order], codes[order]
    again = np.diff(codes) == 0
    copies[places[1:][again & (np.diff(ingest[places]) <= source.dedup_horizon_ms)]] = True
    return copies


def _epoch_ms(
    source: SourcePlan, name: str, rows: "pa.Table"
) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]":
    import pyarrow as pa

    column, kind = rows.column(name), source.column(name).type.kind
    if kind == "timestamp":
        values, known = _integers(column.cast(pa.int64()))
        return values // 1000, known
    if kind == "date":
        values, known = _integers(column.cast(pa.int32()))
        return values * DAY_MS, known
    return _integers(column)


def _integers(
    column: "pa.ChunkedArray",
) -> "tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]":
    known = column.is_valid().to_numpy()
    return column.fill_null(0).to_numpy().astype("int64"), known
