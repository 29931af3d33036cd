"""Raw files of a batch source: which there are, which days they hold, which are broken.

Looking costs a footer (Parquet) or a header line (CSV) per file; the rows are read once, by
Spark. Knowing the days of each file lets a backfill skip files outside its range and, where a
file is broken, fail exactly the days that it holds.

A Delta table and what lies behind a URL are Spark's alone, who has the credentials: the whole of
it is read, and what is broken there fails the run.
"""

import glob
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from millrace.calendar import to_date
from millrace.errors import DataError, nearest
from millrace.plan import SourcePlan
from resources.raw_parquet import read_footer
from resources.settings import Settings

_DAY_IN_NAME = re.compile(r"(?<!\d)(\d{4})-?(\d{2})-?(\d{2})(?!\d)")
_SUFFIXES = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": (".csv", ".csv.gz", ".txt"),
    "json": (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz"),
}


@dataclass(frozen=True)
class RawFile:
    """One file of a source.

    Attributes:
        days: the first and the last day it holds, UTC, or None if only reading all of it would
            tell.
        columns: column name to physical type as text; empty where the format does not say.
        error: why it cannot be used; None for a good file.
        group_bytes: unpacked size of each row group; empty where the format has none.
        was_looked_at: False for a table or a URL, of which nothing but the address is known.
    """

    path: str
    size_bytes: int
    days: tuple[date, date] | None = None
    columns: Mapping[str, str] | None = None
    error: str | None = None
    group_bytes: tuple[int, ...] = ()
    was_looked_at: bool = True

    def may_hold(self, first: date, last: date) -> bool:
        """True unless the file is known to hold no event of these days, both ends within."""
        return self.days is None or (self.days[0] <= last and first <= self.days[1])


def find_raw_files(source: SourcePlan, settings: Settings) -> tuple[RawFile, ...]:
    """List and look at the files of a batch source, ordered by path.

    The path is a file, a folder, searched with those below it, or a pattern with ``*``, ``?``,
    ``[…]`` or ``**`` of either. In folders, names of other formats or beginning with ``.`` or
    ``_`` are passed over. Of a Delta table or a URL the address alone is returned.

    Raises:
        DataError: the path does not exist or holds no file of the format. Broken files do not
            raise: they carry their error.
    """
    batch, where = source.files, f"source {source.name}"
    place = settings.expand(batch.path, where=where)
    if batch.format == "delta" or "://" in place:
        return (RawFile(place, 0, was_looked_at=False),)
    root = Path(place)
    is_pattern = glob.has_magic(place) and not root.exists()
    found = map(Path, glob.glob(place, recursive=True)) if is_pattern else [root]
    roots = [one for one in found if not is_pattern or one.name[0] not in "._"]
    paths = sorted({path for one in roots for path in _data_files(one, batch.format)})
    if not paths:
        problem = f"holds no {batch.format} file" if root.is_dir() else "does not exist"
        if is_pattern:
            problem = f"matches no {batch.format} file"
        raise DataError(
            f"{root} {problem}", where=where, fix="set MILLRACE_DATA, or correct the path"
        )
    look = _LOOKS[batch.format]
    with ThreadPoolExecutor(8) as pool:
        return tuple(pool.map(lambda path: _checked(look, path, source), paths))


def _data_files(root: Path, file_format: str) -> Iterable[Path]:
    if root.is_file():
        yield root
    for path in root.rglob("*"):
        hidden = any(part[0] in "._" for part in path.relative_to(root).parts)
        if not hidden and path.is_file() and path.name.lower().endswith(_SUFFIXES[file_format]):
            yield path


def _checked(
    look: Callable[[Path, SourcePlan], RawFile], path: Path, source: SourcePlan
) -> RawFile:
    found = look(path, source)
    if found.error is None and found.columns is not None:
        found = replace(found, error=_column_fault(found.columns, source))
    if found.days is None:
        return replace(found, days=_day_of_name(path))
    return found


def missing_column(columns: Collection[str], source: SourcePlan) -> str | None:
    """Say which declared column is not among those found, if any, and what comes closest."""
    missing = [c.name for c in source.columns if c.name not in columns]
    if not missing:
        return None
    return f"column {missing[0]!r} is missing ({nearest(missing[0], list(columns))})"


def _column_fault(columns: Mapping[str, str], source: SourcePlan) -> str | None:
    if missing := missing_column(columns, source):
        return missing
    for column in source.columns:
        found = columns[column.name]
        if not can_convert(found, column.type.kind):
            return f"column {column.name!r} is {found}, declared {column.type}"
    return None


_NUMBERS = ("int", "uint", "float", "double", "halffloat", "decimal")
_ACCEPTED: Mapping[str, tuple[str, ...]] = {
    "int32": _NUMBERS,
    "int64": _NUMBERS,
    "float64": _NUMBERS,
    "decimal": _NUMBERS,
    "bool": ("bool", "int", "uint"),
    "string": ("string", "large_string", "dictionary", "int", "uint"),
    "timestamp": ("timestamp", "date", "int64"),
    "date": ("date", "timestamp"),
    "bytes": ("binary", "large_binary", "fixed_size_binary"),
}


def can_convert(found: str, declared_kind: str) -> bool:
    """True if a file's column of this physical type can become the declared kind.

    A column of text is never read as a number or an instant where the format has types of its
    own: that is a wrong declaration, not dirty data. A column that is wholly null converts.
    """
    return found == "null" or found.startswith(_ACCEPTED[declared_kind])


def _look_at_parquet(path: Path, source: SourcePlan) -> RawFile:
    import pyarrow as pa

    size = path.stat().st_size
    try:
        footer = read_footer(str(path), source.event_time)
    except (OSError, pa.ArrowException) as error:
        return RawFile(str(path), size, error=f"not readable as parquet: {_short(error)}")
    days = None
    if footer.days is not None:
        first, last = map(to_date, footer.days)
        days = None if first is None or last is None else (first, last)
    return RawFile(
        str(path), size, days=days, columns=footer.columns, group_bytes=footer.group_bytes
    )


def _look_at_csv(path: Path, source: SourcePlan) -> RawFile:
    import pyarrow as pa
    from pyarrow import csv

    size = path.stat().st_size
    if size == 0:
        # Engines write such files for tasks that had no rows.
        return RawFile(str(path), size, columns={c.name: "null" for c in source.columns})
    try:
        with csv.open_csv(path, read_options=csv.ReadOptions(block_size=1 << 16)) as reader:
            columns = dict.fromkeys(reader.schema.names, "null")
    except (OSError, pa.ArrowException) as error:
        return RawFile(str(path), size, error=f"not readable as csv: {_short(error)}")
    return RawFile(str(path), size, columns=columns)


def _look_at_json(path: Path, source: SourcePlan) -> RawFile:
    return RawFile(str(path), path.stat().st_size)


_LOOKS: Mapping[str, Callable[[Path, SourcePlan], RawFile]] = {
    "parquet": _look_at_parquet,
    "csv": _look_at_csv,
    "json": _look_at_json,
}


def _day_of_name(path: Path) -> tuple[date, date] | None:
    """Read a day out of ``…/2018-05-03.parquet`` or ``…/day=20180503/part-0.parquet``."""
    for part in (path.stem, path.parent.name):
        for year, month, day in _DAY_IN_NAME.findall(part):
            try:
                found = date(int(year), int(month), int(day))
            except ValueError:
                continue
            return found, found
    return None


def diagnose(files: Sequence[RawFile], source: SourcePlan) -> tuple[RawFile, ...]:
    """Read every file to its end and return those that break, each with its error.

    Used only after an engine failed on them: pages may be broken behind a healthy footer.
    """
    broken = []
    for file in files:
        if not file.was_looked_at:
            continue
        error = _READERS[source.files.format](Path(file.path), [c.name for c in source.columns])
        if error is not None:
            broken.append(replace(file, error=error))
    return tuple(broken)


def _read_parquet(path: Path, columns: Sequence[str]) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches(columns=list(columns)):
                pass
    except (OSError, pa.ArrowException) as error:
        return f"not readable as parquet: {_short(error)}"
    return None


def _read_text(path: Path, columns: Sequence[str]) -> str | None:
    import gzip

    opener = gzip.open if path.name.endswith(".gz") else Path.open
    try:
        with opener(path, "rb") as stream:
            while stream.read(1 << 20):
                pass
    except (OSError, EOFError) as error:
        return f"not readable: {_short(error)}"
    return None


_READERS: Mapping[str, Callable[[Path, Sequence[str]], str | None]] = {
    "parquet": _read_parquet,
    "csv": _read_text,
    "json": _read_text,
}


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def blamed_days(broken: RawFile, good: Sequence[RawFile], days: Sequence[date]) -> tuple[date, ...]:
    """Which of the wanted days a broken file spoils.

    The days its footer or name tells; else the wanted days that no readable file holds; else all
    of them, for then any may be incomplete.
    """
    if broken.days is not None:
        return tuple(d for d in days if broken.days[0] <= d <= broken.days[1])
    covered = [f.days for f in good if f.days is not None]
    orphans = tuple(d for d in days if not any(a <= d <= b for a, b in covered))
    return orphans or tuple(days)
