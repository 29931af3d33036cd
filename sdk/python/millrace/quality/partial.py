"""Partial profiles: each task makes its own from the batches it sees, and they add up.

    partials = Partials(shape)
    partials.add(batch)             # Arrow record batches of any days, any number of times
    partials.merge_bytes(other)     # what another process made with to_bytes()
    partials.profiles()             # one DayProfile per day seen

The order of batches and of merges changes nothing but the noise of the KLL sketch.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from millrace.calendar import to_date
from millrace.durations import DAY_MS, HOUR_MS
from millrace.names import events_table, features_table
from millrace.plan import Column, SourcePlan, ViewPlan
from millrace.quality.column_partial import ColumnPartial
from millrace.quality.profile import DayProfile
from millrace.quality.sketches import Identities, join_hashes
from millrace.quality.values import epoch_ms, kind_of, read_values

_HELD_ROWS = 1 << 19
"""Batches are held until this many rows are there: few large steps cost less than many small."""
_ROWS_AT_ONCE = 1 << 16
"""So many rows of a column still lie in a processor's cache."""


@dataclass(frozen=True)
class TableShape:
    """What a table's profile is made of; pickles, and goes to the tasks.

    Attributes:
        table: the table's name under the lake.
        columns: the columns to profile, in order.
        event_time: the column of the event time: a timestamp, or int64 epoch milliseconds.
        identity: columns that tell one row from another, for ``duplicates``; they are among
            ``columns``. Empty: duplicates are not counted.
    """

    table: str
    columns: tuple[Column, ...]
    event_time: str
    identity: tuple[str, ...]

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that the batches must have."""
        names = (*(c.name for c in self.columns), self.event_time)
        return tuple(dict.fromkeys(names))


def source_shape(source: SourcePlan) -> TableShape:
    """Return the shape of ``events/<source>``; the identity is the event id, or the whole row."""
    names = tuple(c.name for c in source.columns)
    identity = names if source.event_id is None else (source.event_id,)
    return TableShape(events_table(source.name), source.columns, "_event_ms", identity)


def view_shape(view: ViewPlan, version: str) -> TableShape:
    """Return the shape of ``features/<view>/<version>`` (``v1``): join keys, then features.

    The identity is the whole row with its event time: two events of one entity at the same
    instant may well have equal features, so duplicates are judged against what is usual.
    """
    keys = tuple(Column(e.join_key, e.type) for e in view.entities)
    columns = (*keys, *(Column(f.name, f.type) for f in view.outputs))
    names = tuple(c.name for c in columns)
    return TableShape(features_table(view.name, version), columns, "event_time", names)


@dataclass
class _Day:
    rows: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    hours: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(24, np.int64))
    identities: Identities = field(default_factory=Identities)
    columns: dict[str, ColumnPartial] = field(default_factory=dict)

    def add_times(self, times: npt.NDArray[np.int64]) -> None:
        self.rows += len(times)
        self.hours += np.bincount((times % DAY_MS) // HOUR_MS, minlength=24)
        self.add_span(int(times.min()), int(times.max()))

    def add_span(self, first_ms: int | None, last_ms: int | None) -> None:
        firsts = [ms for ms in (self.first_ms, first_ms) if ms is not None]
        lasts = [ms for ms in (self.last_ms, last_ms) if ms is not None]
        self.first_ms, self.last_ms = min(firsts, default=None), max(lasts, default=None)

    def merge(self, other: "_Day") -> None:
        self.rows += other.rows
        self.hours += other.hours
        self.add_span(other.first_ms, other.last_ms)
        self.identities.merge(other.identities)
        for name, column in other.columns.items():
            self.columns[name].merge(column)


class _DayRows(NamedTuple):
    number: int
    start: int
    stop: int


class Partials:
    """Partial profiles of the days of one table, held while batches pass."""

    def __init__(self, shape: TableShape) -> None:
        self._shape = shape
        self._days: dict[int, _Day] = {}
        self._held: list[Any] = []
        self._held_rows = 0

    def add(self, batch: Any) -> None:
        """Add a ``pyarrow.RecordBatch`` or ``Table`` with at least the columns ``shape.read``.

        Rows without an event time are left out. The UTC day of the event time is the row's day.
        """
        if not batch.num_rows:
            return
        self._held.append(batch.select(list(self._shape.read)))
        self._held_rows += batch.num_rows
        if self._held_rows >= _HELD_ROWS:
            self._flush()

    def to_bytes(self) -> bytes:
        """Return everything held, for ``merge_bytes`` in another process (up to ~1 MB a day)."""
        self._flush()
        days = {
            number: {
                "rows": day.rows,
                "first_ms": day.first_ms,
                "last_ms": day.last_ms,
                "hours": day.hours,
                "identities": day.identities.document(),
                "columns": {name: c.document() for name, c in day.columns.items()},
            }
            for number, day in self._days.items()
        }
        return json.dumps(days, default=_plain).encode()

    def merge_bytes(self, data: bytes) -> None:
        """Add what another ``Partials`` of the same shape returned by ``to_bytes``."""
        for number, found in json.loads(data, object_hook=_array).items():
            columns = {n: ColumnPartial.from_document(c) for n, c in found["columns"].items()}
            other = _Day(
                found["rows"],
                found["first_ms"],
                found["last_ms"],
                found["hours"],
                Identities.from_document(found["identities"]),
                columns,
            )
            self._day(int(number)).merge(other)

    def profiles(
        self,
        days: Sequence[date] = (),
        counts: Mapping[date, Mapping[str, int]] | None = None,
    ) -> list[DayProfile]:
        """Return one profile per day, ascending.

        Args:
            days: days that must be in the answer, empty if no row was seen.
            counts: ``DayProfile.counts`` by day.
        """
        self._flush()
        seen = {day: d for n, d in self._days.items() if (day := to_date(n)) is not None}
        made = []
        for day in sorted({*days, *seen}):
            found = seen.get(day, _Day())
            made.append(
                DayProfile(
                    table=self._shape.table,
                    day=day,
                    rows=found.rows,
                    duplicates=found.identities.duplicates,
                    hours=tuple(found.hours.tolist()),
                    first_ms=found.first_ms,
                    last_ms=found.last_ms,
                    columns={name: c.profile(name) for name, c in found.columns.items()},
                    counts=dict((counts or {}).get(day, {})),
                )
            )
        return made

    def _day(self, number: int) -> _Day:
        if number not in self._days:
            columns = {c.name: ColumnPartial(kind_of(c.type)) for c in self._shape.columns}
            self._days[number] = _Day(columns=columns)
        return self._days[number]

    def _flush(self) -> None:
        if not self._held:
            return
        import pyarrow as pa

        held = [
            pa.Table.from_batches([b]) if isinstance(b, pa.RecordBatch) else b for b in self._held
        ]
        self._held, self._held_rows = [], 0
        table = pa.concat_tables(held)
        times, valid = epoch_ms(table[self._shape.event_time])
        if not valid.all():
            table, times = table.filter(pa.array(valid)), times[valid]
        if not len(times):
            return
        numbers = times // DAY_MS
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            table, times, numbers = table.take(pa.array(order)), times[order], numbers[order]
        for days in _groups(numbers):
            first, end = days[0].start, days[-1].stop
            self._add_days(days, table.slice(first, end - first), times[first:end])

    def _add_days(self, days: Sequence[_DayRows], table: Any, times: npt.NDArray[np.int64]) -> None:
        """Add whole days, each column of all of them at once: a step costs more than a row."""
        places = [slice(d.start - days[0].start, d.stop - days[0].start) for d in days]
        taken = [(self._day(d.number), place) for d, place in zip(days, places, strict=True)]
        for day, place in taken:
            day.add_times(times[place])
        # A table whose identity is its whole row has the event time in it.
        names = self._shape.identity
        identities = times.view(np.uint64) if len(names) > 1 else np.zeros(len(times), np.uint64)
        for column in self._shape.columns:
            read = read_values(table[column.name], column.type)
            for day, place in taken:
                day.columns[column.name].add(read.day(place))
            if column.name in names:
                identities = join_hashes(identities, read.row_hashes)
        if names:
            for day, place in taken:
                day.identities.add(identities[place])


def _groups(numbers: npt.NDArray[np.int64]) -> Iterator[list[_DayRows]]:
    """Split rows, ordered by day, into whole days; small ones are grouped."""
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist()]
    group: list[_DayRows] = []
    for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
        if group and stop - group[0].start > _ROWS_AT_ONCE:
            yield group
            group = []
        group.append(_DayRows(int(numbers[start]), start, stop))
    if group:
        yield group


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"__bytes__": base64.b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"__array__": data, "dtype": value.dtype.str}
    raise TypeError(type(value).__name__)


def _array(document: dict[str, Any]) -> Any:
    if "__bytes__" in document:
        return base64.b64decode(document["__bytes__"])
    if "__array__" in document:
        data = base64.b64decode(document["__array__"])
        return np.frombuffer(data, np.dtype(document["dtype"])).copy()
    return document
