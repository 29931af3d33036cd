"""Raw files of a batch source: which there are, which days they hold, which are broken.

Looking costs a footer (Parquet) or the first line (text) per file; the rows are read once, by
Spark. A file is left out of a build only if it says itself, or the declaration says of its name,
that it holds no event of the days. A broken file costs itself, and the days that it alone holds.

A Delta table and what lies behind a URL are Spark's alone, who has the credentials: the whole of
it is read, and what is broken there fails the run.
"""

import lzma
import os
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date

from millrace.calendar import day_number
from millrace.durations import DAY_MS
from millrace.errors import DataError, nearest
from millrace.plan import SourcePlan
from millrace.rows.csv_rows import split_line
from offline.raw.lines import first_line, lines_of, whole
from offline.raw.listing import DATE, list_files, named_day
from offline.raw.parquet import read_footer, read_to_end
from resources.settings import Settings


@dataclass(frozen=True)
class RawFile:
    """One file of a source.

    Attributes:
        days: the first and the last day its events may be of, as numbers of days since 1970, UTC;
            None if only reading all of it would tell. The last is before the first if it is empty.
        day: the day that its name tells by declaration (``{date}``): rows of others are not its own.
        columns: column name to physical type as text; empty where the format does not say.
        header: names of the cells of a line of CSV, in order.
        error: why it cannot be used; None for a good file.
        group_bytes: unpacked size of each row group; empty where the format has none.
        modified_ns: when it was written last, epoch nanoseconds, as it says itself.
        changed_ns: the same by the disk, which no copying tool sets back: when it came.
        was_looked_at: False for a table or a URL, of which nothing but the address is known.
    """

    path: str
    size_bytes: int
    days: tuple[int, int] | None = None
    day: int | None = None
    columns: Mapping[str, str] | None = None
    header: tuple[str, ...] = ()
    error: str | None = None
    group_bytes: tuple[int, ...] = ()
    modified_ns: int = 0
    changed_ns: int = 0
    was_looked_at: bool = True

    @property
    def holds_rows(self) -> bool:
        """False if the file is known to be empty."""
        return self.days is None or self.days[0] <= self.days[1]

    def may_hold(self, first: date, last: date) -> bool:
        """True unless the file is known to hold no event of these days, both ends within."""
        return self.days is None or (
            self.holds_rows
            and self.days[0] <= day_number(last)
            and day_number(first) <= self.days[1]
        )


@dataclass(frozen=True)
class RawFiles:
    """What a look at the files of a source found.

    Attributes:
        files: by path, broken ones among them, each with its error.
        passed_over: what lies beside them and is not read, each with the reason.
        absent: declared columns that none of the readable files has: they are null.
    """

    files: tuple[RawFile, ...]
    passed_over: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def looked_at(self) -> bool:
        """True if there are files, and not a table or a URL that Spark alone sees."""
        return bool(self.files) and all(file.was_looked_at for file in self.files)


Looks = MutableMapping[tuple[str, RawFile], RawFile]
"""What was seen in files before, by the source's fingerprint and what the disk says of each file."""


def find_raw_files(
    source: SourcePlan, settings: Settings, *, known: Looks | None = None
) -> RawFiles:
    """List and look at the files of a batch source; see ``raw_listing`` for which they are.

    Of a Delta table or a URL the address alone is returned.

    Args:
        source: the declaration.
        settings: what its path is expanded by.
        known: looks of before, which are added to: a file that did not change is not opened again.

    Raises:
        DataError: the path does not exist or holds no file of the format; or a declared column is
            in none of the files, and one that is not declared has almost its name. Broken files do
            not raise: they carry their error.
    """
    batch, where = source.files, f"source {source.name}"
    place = settings.expand(batch.path, where=where)
    if batch.format == "delta" or "://" in place:
        if DATE in batch.path:
            raise DataError(
                f"{DATE} in the path {batch.path!r}: names of files on disk alone are looked at",
                where=where,
                fix=f"leave {DATE} out",
            )
        return RawFiles((RawFile(place, 0, was_looked_at=False),))
    listing = list_files(source, settings)

    def look(path: str) -> RawFile:
        file = _on_disk(path)
        if path in listing.faults:
            return replace(file, error=listing.faults[path])
        key = (source.fingerprint, file)
        seen = known.get(key) if known is not None else None
        if seen is None:
            seen = _looked_at(file, source)
            if known is not None:
                known[key] = seen
        return _named(seen, listing.days.get(path), source)

    with ThreadPoolExecutor(8) as pool:
        files = tuple(pool.map(look, listing.paths))
    absent = _absent(files, source)
    spelled = tuple(_spelled_as_declared(file, source) for file in files)
    return RawFiles(spelled, tuple(listing.passed_over), absent)


def _on_disk(path: str) -> RawFile:
    try:
        found = os.stat(path)
    except OSError:
        return RawFile(path, 0)
    changed_ns = max(found.st_mtime_ns, found.st_ctime_ns)
    return RawFile(path, found.st_size, modified_ns=found.st_mtime_ns, changed_ns=changed_ns)


def _named(file: RawFile, day: int | None, source: SourcePlan) -> RawFile:
    """Take the day that a name tells by declaration; events of a neighbouring one may be there."""
    if day is None:
        return file
    first, last = days_of_name(day, source)
    if file.days is not None:
        first, last = max(first, file.days[0]), min(last, file.days[1])
    return replace(file, day=day, days=(first, last))


_NONE = (0, -1)


def days_of_name(day: int, source: SourcePlan) -> tuple[int, int]:
    """Return the first and last day that a file named for one may hold: a day off, and the late."""
    late = -(-source.allowed_lateness_ms // DAY_MS)
    return day - 1 - late, day + 1 + late


def damages() -> tuple[type[Exception], ...]:
    """What readers raise of files that are not what they say, or are gone."""
    import pyarrow as pa

    return (
        OSError,
        EOFError,
        ValueError,
        ArithmeticError,
        KeyError,
        MemoryError,
        RuntimeError,
        zlib.error,
        lzma.LZMAError,
        pa.ArrowException,
    )


def _looked_at(file: RawFile, source: SourcePlan) -> RawFile:
    try:
        found = _LOOKS[source.files.format](file, source)
    except damages() as error:
        return replace(file, error=f"not readable as {source.files.format}: {_short(error)}")
    return found


def _look_at_parquet(file: RawFile, source: SourcePlan) -> RawFile:
    footer = read_footer(file.path, source.column(source.event_time).origin)
    fault = _column_fault(footer.columns, footer.twice, source)
    return replace(
        file,
        days=footer.days,
        columns=footer.columns,
        group_bytes=footer.group_bytes,
        error=fault,
    )


def _look_at_csv(file: RawFile, source: SourcePlan) -> RawFile:
    line = first_line(file.path) if file.size_bytes else b""
    if not line:
        # Engines write such files for tasks that had no rows.
        return replace(file, days=_NONE, columns={})
    header = tuple(split_line(line))
    columns = dict.fromkeys(header, "null")
    twice = frozenset(name for name in columns if header.count(name) > 1)
    fault = _column_fault(columns, twice, source)
    return replace(file, columns=columns, header=header, error=fault)


def _look_at_json(file: RawFile, source: SourcePlan) -> RawFile:
    has_lines = file.size_bytes > 0 and first_line(file.path)
    return replace(file, days=None if has_lines else _NONE)


_LOOKS: Mapping[str, Callable[[RawFile, SourcePlan], RawFile]] = {
    "parquet": _look_at_parquet,
    "csv": _look_at_csv,
    "json": _look_at_json,
}


def missing_column(columns: Collection[str], source: SourcePlan) -> str | None:
    """Say which needed column is not among those found, if any, and what comes closest.

    Without the event time rows belong to no day, and without the event id they are counted as often
    as they are sent. Any other column may be younger than a file, and is null there.
    """
    for name in (source.event_time, source.event_id):
        origin = source.column(name).origin if name is not None else None
        if origin is not None and origin not in columns:
            return f"column {origin!r} is missing ({nearest(origin, list(columns))})"
    return None


def _column_fault(
    columns: Mapping[str, str], twice: Collection[str], source: SourcePlan
) -> str | None:
    if missing := missing_column(columns, source):
        return missing
    for column in source.columns:
        if column.origin in twice:
            return f"column {column.origin!r} is there twice"
        found = columns.get(column.origin, "null")
        if not can_convert(found, column.type.kind):
            return f"column {column.origin!r} is {found}, declared {column.type}"
    return None


def _absent(files: Iterable[RawFile], source: SourcePlan) -> tuple[str, ...]:
    looked = [f.columns for f in files if f.error is None and f.columns]
    return (
        absent_columns({name for columns in looked for name in columns}, source) if looked else ()
    )


def _spelled_as_declared(file: RawFile, source: SourcePlan) -> RawFile:
    """Refuse a file that alone spells a column otherwise: it would be null there without a word."""
    if file.error is not None or not file.columns:
        return file
    declared = {c.origin for c in source.columns}
    strangers = {_plain(name): name for name in file.columns if name not in declared}
    for name in sorted(declared - set(file.columns)):
        if found := strangers.get(_plain(name)):
            return replace(file, error=f"column {name!r} is called {found!r} here")
    return file


def absent_columns(known: Collection[str], source: SourcePlan) -> tuple[str, ...]:
    """Return the declared columns that are not among those that the files of a source have.

    Raises:
        DataError: one that is not declared has almost the name: then it is meant.
    """
    absent = [c.origin for c in source.columns if c.origin not in known]
    strangers = sorted(set(known) - {c.origin for c in source.columns})
    for name in absent:
        if resembling := _resembling(name, strangers):
            raise DataError(
                f"column {name!r} is missing from every file, and {resembling!r} is not declared",
                where=f"source {source.name}",
                fix=f"write `from: {resembling}`, or correct the name",
            )
    return tuple(absent)


def _resembling(name: str, strangers: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    plain = {_plain(one): one for one in strangers}
    close = get_close_matches(_plain(name), list(plain), n=1, cutoff=_RESEMBLES)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


_RESEMBLES = 0.85

_LIST = re.compile(r"(?:large_|fixed_size_)?list<\w+: (\w+)")
_NUMBERS = ("int", "uint", "float", "double", "halffloat", "decimal")
_ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "int32": _NUMBERS,
    "int64": _NUMBERS,
    "float64": _NUMBERS,
    "decimal": _NUMBERS,
    "bool": ("bool", "int", "uint"),
    "string": ("string", "large_string", "int", "uint"),
    "timestamp": ("timestamp", "date", "int64"),
    "date": ("date", "timestamp"),
    "bytes": ("binary", "large_binary", "fixed_size_binary"),
    # Of the values of a list; Arrow makes of decimals doubles that are not the nearest.
    "vector": tuple(kind for kind in _NUMBERS if kind != "decimal"),
}


def check_columns(columns: Mapping[str, str], source: SourcePlan) -> None:
    """Refuse a table whose columns, by name or path with their types, are not those declared.

    Raises:
        DataError: a column is missing, or of a type that is never the declared one.
    """
    where = f"source {source.name}"
    if missing := missing_column(list(columns), source):
        raise DataError(missing, where=where, fix="correct it, or `columns`")
    absent_columns(list(columns), source)
    for column in source.columns:
        found = columns.get(column.origin, "null")
        if not can_convert(found, column.type.kind):
            told = f"column {column.origin!r} is {found}, declared {column.type}"
            raise DataError(told, where=where, fix="declare it as what it is")


def can_convert(found: str, declared_kind: str) -> bool:
    """True if a file's column of this physical type can become the declared kind.

    A column of text is never read as a number or an instant where the format has types of its
    own: that is a wrong declaration, not dirty data. A column that is wholly null converts.
    """
    if found == "null":
        return True
    if declared_kind == "vector":
        of_list = _LIST.match(found)
        return of_list is not None and of_list[1].startswith(_ACCEPTED[declared_kind])
    return found.startswith(_ACCEPTED[declared_kind])


def diagnose(files: Sequence[RawFile], source: SourcePlan) -> tuple[RawFile, ...]:
    """Read every file to its end and return those that break, each with its error.

    Used only after an engine failed on them: pages may be broken behind a healthy footer.
    """
    with ThreadPoolExecutor(4) as pool:
        told = pool.map(lambda file: _read_to_end(file, source), files)
        return tuple(file for file in told if file.error is not None)


def _read_to_end(file: RawFile, source: SourcePlan) -> RawFile:
    if not file.was_looked_at or not file.size_bytes:
        return file
    try:
        if source.files.format == "parquet":
            read_to_end(file.path, source, file.columns or {})
        else:
            for _ in lines_of(whole(file.path)):
                pass
    except damages() as error:
        fault = f"not readable as {source.files.format}: {_short(error)}"
        return replace(file, error=fault)
    return file


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def blamed_days(broken: RawFile, good: Sequence[RawFile], days: Sequence[date]) -> tuple[date, ...]:
    """Which of the wanted days a broken file spoils.

    The days that its footer or its name tell; else the wanted days that no readable file may hold.
    Days that others may hold are built: what is not there of them is named beside.
    """
    told = _of_day(broken.day) or broken.days or _of_day(named_day(broken.path))
    if told is not None:
        return tuple(d for d in days if told[0] <= day_number(d) <= told[1])
    return tuple(d for d in days if not any(file.may_hold(d, d) for file in good))


def _of_day(day: int | None) -> tuple[int, int] | None:
    return None if day is None else (day, day)
