"""What the log of a source's Delta table tells of its files: which days they hold, and that they changed.

Files of the same days count as one, known by their statistics taken together: so a table that is
compacted has not changed, and one to which rows were added has.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from millrace.durations import DAY_MS
from millrace.plan import SourcePlan
from millrace.values.units import SURE_MS
from offline.raw.files import RawFile
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

_Row = Mapping[str, Any]


def delta_files(source: SourcePlan, settings: Settings) -> tuple[RawFile, ...]:
    """Return the files of a table on disk, those of the same days as one; none where it is elsewhere.

    Their ``path`` names what they hold and not where they lie; their ``size_bytes`` is a number of
    rows.
    """
    place = settings.expand(source.files.path, where=f"source {source.name}")
    if "://" in place:
        return ()
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    try:
        actions = pa.table(DeltaTable(place).get_add_actions(flatten=True))
    except (DeltaError, OSError):
        return ()
    spans = _spans(actions, source.column(source.event_time).origin)
    rows = _comparable(actions).to_pylist()
    groups: dict[tuple[int, int] | None, list[_Row]] = {}
    for span, row in zip(spans, rows, strict=True):
        groups.setdefault(span, []).append(row)
    return tuple(_file(place, span, of_span) for span, of_span in groups.items())


def _spans(actions: "pa.Table", event_time: str) -> Sequence[tuple[int, int] | None]:
    names = actions.column_names
    if f"partition.{event_time}" in names:
        edges = [_days(actions.column(f"partition.{event_time}"))] * 2
    elif f"min.{event_time}" in names and f"max.{event_time}" in names:
        edges = [_days(actions.column(f"{edge}.{event_time}")) for edge in ("min", "max")]
    else:
        return [None] * len(actions)
    return [
        None if first is None or last is None else (first, last)
        for first, last in zip(*edges, strict=True)
    ]


def _days(column: "pa.ChunkedArray") -> list[int | None]:
    """Return the days since 1970 of instants, in integers throughout; None where they do not tell."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        stamps = column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_pylist()
        return [None if us is None else us // (DAY_MS * 1000) for us in stamps]
    if pa.types.is_date32(column.type):
        numbers: list[int | None] = column.cast(pa.int32()).to_pylist()
        return numbers
    if pa.types.is_int64(column.type):
        return [ms // DAY_MS if ms in SURE_MS else None for ms in column.to_pylist()]
    return [None] * len(column)


def _comparable(actions: "pa.Table") -> "pa.Table":
    """Return the statistics as texts and integers, which any value has and which compare."""
    import pyarrow as pa

    columns = {}
    for name in actions.column_names:
        column = actions.column(name)
        is_edge = name.startswith(("min.", "max."))
        is_date = pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)
        # Behind the last instant that Python has there are others.
        columns[name] = column.cast(pa.string()) if is_edge and is_date else column
    return pa.table(columns)


def _file(place: str, span: tuple[int, int] | None, rows: Sequence[_Row]) -> RawFile:
    count = sum(row["num_records"] or 0 for row in rows)
    told = [f"rows={count}"]
    for name in sorted(rows[0]):
        values = [row[name] for row in rows if row[name] is not None]
        if name.startswith(("min.", "max.", "null_count.")):
            told.append(f"{name}={_together(name, values)}")
    digest = blake2b("\n".join(told).encode(), digest_size=8).hexdigest()
    changed_ns = max(row["modification_time"] for row in rows) * 1_000_000
    return RawFile(f"{place}/{digest}", count, days=span, changed_ns=changed_ns)


def _together(name: str, values: Iterable[Any]) -> object:
    found = list(values)
    if not found:
        return None
    if name.startswith("null_count."):
        return sum(found)
    return min(found) if name.startswith("min.") else max(found)
