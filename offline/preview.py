"""The newest values of a view out of its raw files, in this process: no JVM, nothing is written.

What comes out is what ``features/<view>`` would hold of these events. It is for a look at a
declaration before the first backfill, and says where it ends: ``max_rows``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Any

from millrace.calendar import day_ms, day_number, days_after, to_date
from millrace.days import Days, parse_day
from millrace.durations import DAY_MS, parse_duration
from millrace.errors import DataError, PlatformError
from millrace.plan import SourcePlan, ViewPlan
from offline.preview_events import Verdicts, accepted_events, with_times
from offline.raw.columns import FAULT, FILE
from offline.raw.files import RawFile, damages, find_raw_files
from offline.raw.local import read_file
from offline.tables.classification import pad_ms
from offline.tables.stages import history_start
from offline.training.local_join import measured_events, needed_columns
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROWS = 2_000_000
"""How many raw rows are read at most where nobody says otherwise: some hundred MB."""

_WIDER = 8


@dataclass(frozen=True)
class Preview:
    """Values of a view as of some of its events.

    Attributes:
        table: join keys, ``event_time`` (UTC) and the features in declared order; newest first.
        read: the days that were read.
        files: how many files were.
        verdicts: what became of their rows.
        unreadable: path of each file that could not be read, with the reason.
    """

    table: "pa.Table"
    read: Days | None = None
    files: int = 0
    verdicts: Verdicts = field(default_factory=Verdicts)
    unreadable: Mapping[str, str] = field(default_factory=dict)


def preview_view(
    settings: Settings,
    view: ViewPlan,
    *,
    limit: int = 10,
    key: Mapping[str, Any] | None = None,
    since: str | None = None,
    max_rows: int = MAX_ROWS,
    progress: Progress = lambda _: None,
) -> Preview:
    """Return the values of a view as of its newest events, from the raw files of its source.

    Only the days that the windows need are read, as far as files tell their days: Parquet by its
    footers, text by a ``{date}`` in the path. What the archive took from a topic is not seen.

    Args:
        settings: what the path of the source is expanded by.
        view: a valid view; it need not be built, nor in any file.
        limit: how many events.
        key: of one entity alone: the value of each join key; instants in epoch milliseconds.
        since: a day (UTC), or a duration before the newest event asked for; earlier ones are left out.
        max_rows: how many raw rows may be read.
        progress: told of each step.

    Raises:
        DataError: the source has no files, they are not there or behind a URL, none can be read, or
            more than ``max_rows`` rows would be.
        PlatformError: ``since`` is neither a day nor a duration.
    """
    import pyarrow.compute as pc

    source = _source_with_files(view)
    since_day, since_ms = _since(since)
    found = find_raw_files(source, settings)
    reader = _Reader(view, found.files, max_rows, progress)
    earliest = max(view.start, since_day or view.start)
    for first, last in _ever_wider(source, reader.good, earliest):
        events, read, verdicts = reader.events(first, last)
        asked = events.filter(pc.greater_equal(events.column("_event_ms"), day_ms(first)))
        asked = _of_key(asked, view, key)
        if since_ms is not None and asked.num_rows:
            after = pc.max(asked.column("_event_ms")).as_py() - since_ms
            asked = asked.filter(pc.greater_equal(asked.column("_event_ms"), after))
            if after >= day_ms(first):
                earliest = first
        if asked.num_rows >= limit or first <= earliest:
            table = _values(view, events, asked, limit)
            return Preview(table, read, len(reader.tables), verdicts, reader.unreadable)
    nothing = reader.nothing()
    return Preview(_values(view, nothing, nothing, limit), unreadable=reader.unreadable)


def _source_with_files(view: ViewPlan) -> SourcePlan:
    if view.source.batch is None:
        raise DataError(
            f"the source {view.source.name} of {view.name} is a stream without files, and a preview "
            "reads files",
            where=f"source {view.source.name}",
            fix="give it `batch: {format: …, path: …}`, a sample will do, or deploy the view: "
            f"millrace stream deploy {view.name}",
        )
    return view.source


def _since(text: str | None) -> tuple[date | None, int | None]:
    if text is None:
        return None, None
    try:
        return None, parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_day(text), None
    except PlatformError as error:
        raise PlatformError(
            f"{text!r} is neither a day nor a duration",
            where="--since",
            fix="write a day, 2018-04-01, or a time before the newest event: 36h, 7d",
        ) from error


def _ever_wider(
    source: SourcePlan, files: Iterable[RawFile], earliest: date
) -> Iterator[tuple[date, date]]:
    """Yield the first and last day of events, newest days first, wider until all are in.

    Where any file does not tell its days there is one step, for it is read anyway.
    """
    known = [file.days for file in files if file.holds_rows]
    if not known:
        return
    told = [to_date(days[1]) for days in known if days is not None]
    lasts = [day for day in told if day is not None]
    last = max(lasts) if len(lasts) == len(known) else date.max
    if source.end is not None:
        last = min(last, days_after(source.end, -1))
    if last < earliest:
        return
    if last == date.max or len(lasts) < len(known):
        yield earliest, last
        return
    back = 0
    while True:
        first = to_date(day_number(last) - back)
        yield (earliest if first is None or first < earliest else first), last
        if first is None or first <= earliest:
            return
        back = back * _WIDER or 1


class _Reader:
    """Reads files, each once, and keeps the columns that a view needs."""

    def __init__(
        self, view: ViewPlan, files: Iterable[RawFile], max_rows: int, progress: Progress
    ) -> None:
        self.good: list[RawFile] = []
        self.unreadable: dict[str, str] = {}
        self.tables: dict[str, pa.Table] = {}
        self._view, self._max_rows, self._progress = view, max_rows, progress
        for file in files:
            if file.error is None:
                self.good.append(file)
            else:
                self.unreadable[file.path] = file.error
        if not self.good:
            path, error = next(iter(self.unreadable.items()))
            raise DataError(
                f"none of the {len(self.unreadable)} file(s) can be read; first {path}: {error}",
                where=f"source {view.source.name}",
                fix="mend the file, or correct the declaration of the source",
            )

    def events(self, first: date, last: date) -> "tuple[pa.Table, Days, Verdicts]":
        """Return the measured events that values of these days need, and what was read for them."""
        view, source = self._view, self._view.source
        pad_days = 1 + -(-pad_ms(source) // DAY_MS)
        start = _near(history_start(view, first), -pad_days)
        read = Days.through(start, _near(last, pad_days))
        for file in self.good:
            if file.path not in self.tables and file.may_hold(read.start, read.last):
                self._read(file)
        rows = [self.tables[f.path] for f in self.good if f.path in self.tables]
        if not rows:
            return self.nothing(), read, Verdicts()
        events, verdicts = accepted_events(source, rows, read)
        return self._measured(events), read, verdicts

    def nothing(self) -> "pa.Table":
        """Return measured events, none."""
        events, _ = accepted_events(
            self._view.source,
            [with_times(self._view.source, self.good[0], self._schema().empty_table())],
            Days.through(self._view.start, self._view.start),
        )
        return self._measured(events)

    def _measured(self, events: "pa.Table") -> "pa.Table":
        import pyarrow.compute as pc

        view, times = self._view, events.column("_event_ms")
        counts = pc.greater_equal(times, view.start_ms)
        if view.source.end is not None:
            counts = pc.and_(counts, pc.less(times, day_ms(view.source.end)))
        has_id = view.source.event_id is not None
        return measured_events(view, events.filter(counts), reads_event_id=has_id)

    def _read(self, file: RawFile) -> None:
        import pyarrow as pa

        before = sum(table.num_rows for table in self.tables.values())
        self._progress(
            f"reading {file.path} ({file.size_bytes / 1e6:.1f} MB); {before:,} rows so far"
        )
        schema, batches, rows = self._schema(), [], before
        try:
            for batch in read_file(self._view.source, file):
                rows += batch.num_rows
                if rows > self._max_rows:
                    raise self._too_many(file)
                batches.append(batch.select(schema.names))
        except damages() as error:
            raise DataError(
                f"{file.path} cannot be read to its end: {(str(error).splitlines() or [''])[0][:200]}",
                where=f"source {self._view.source.name}",
                fix="mend the file, or take it out of the path",
            ) from error
        table = pa.Table.from_batches(batches, schema)
        self.tables[file.path] = with_times(self._view.source, file, table)

    def _too_many(self, file: RawFile) -> DataError:
        name, count = self._view.name, len(self.good)
        return DataError(
            f"a preview of {name} needs more than {self._max_rows:,} raw rows: it came to file "
            f"{len(self.tables) + 1} of {count}, {file.path}",
            where=f"view {name}",
            fix="name a later --since, an --entity with newer events or a smaller --limit; where the "
            "windows reach that far, raise --max-rows, or build the view: millrace backfill",
        )

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        from offline.raw.columns import raw_schema

        source = self._view.source
        times = [source.event_time, *([source.ingest_time] if source.ingest_time else ())]
        of_view = needed_columns(self._view, reads_event_id=source.event_id is not None)
        names = dict.fromkeys([*of_view, *times, FAULT, FILE])
        whole = raw_schema(source)
        return pa.schema([whole.field(n) for n in names if n in whole.names])


def _near(day: date, days: int) -> date:
    moved = to_date(day_number(day) + days)
    return moved if moved is not None else (date.max if days > 0 else date.min)


def _of_key(events: "pa.Table", view: ViewPlan, key: Mapping[str, Any] | None) -> "pa.Table":
    import pyarrow.compute as pc

    from millrace.values.arrow import array_of

    for entity in view.entities if key is not None else ():
        wanted = array_of([(key or {})[entity.join_key]], entity.type)[0]
        events = events.filter(pc.equal(events.column(entity.join_key), wanted))
    return events


def _values(view: ViewPlan, events: "pa.Table", asked: "pa.Table", limit: int) -> "pa.Table":
    """Return the features as of the newest of the events asked for, by time and then by key."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from millrace.kernel.arrow import KernelView, join_features

    order = [("_event_ms", "descending"), *((k, "ascending") for k in view.join_keys)]
    newest = asked.take(pc.sort_indices(asked, order)[:limit])
    query_ms = newest.column("_event_ms")
    keys = {k: newest.column(k) for k in view.join_keys}
    found = join_features(KernelView.of(view), events, pa.table({**keys, "_query_ms": query_ms}))
    event_time = pc.multiply(query_ms, 1000).cast(pa.timestamp("us", tz="UTC"))
    features = {name: found.column(name) for name in found.column_names}
    return pa.table({**keys, "event_time": event_time, **features})
