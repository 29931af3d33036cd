"""Which files a path of a batch source names, by their names alone.

Names on disk are literal. Only a declaration can say a pattern, and only it can say that a name
tells the day of a file's events: ``{date}``.
"""

import glob
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from millrace.calendar import day_number
from millrace.errors import DataError
from millrace.plan import BatchPlan, SourcePlan
from offline.raw.lines import COMPRESSIONS
from resources.settings import CHECKOUT, Settings

DATE = "{date}"
"""Stands in a path for a day: ``2024-03-01`` or ``20240301``."""

_SUFFIXES = {
    "parquet": (".parquet", ".parq", ".pq"),
    "csv": (".csv", ".txt"),
    "json": (".json", ".jsonl", ".ndjson"),
}
_FOREIGN = (
    *(".zip", ".7z", ".rar", ".lz4", ".lzo", ".lzma", ".br", ".sz", ".snappy", ".deflate", ".z"),
    *(".zstd", ".tar", ".tgz"),
)
_PLACEHOLDER = re.compile(r"\$\{\w+\}")
_DAY = r"(\d{4}-\d{2}-\d{2}|\d{8})"


@dataclass
class Listing:
    """The files that a path names.

    Attributes:
        paths: files to look at, in order of their paths.
        faults: why some of them cannot be read, which their names already tell.
        passed_over: what lies beside them and is not read, each with the reason.
        days: the day of a file's events, as a number of days since 1970, if the declaration says
            that its name tells it.
    """

    paths: list[str] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    passed_over: list[str] = field(default_factory=list)
    days: dict[str, int] = field(default_factory=dict)


def list_files(source: SourcePlan, settings: Settings) -> Listing:
    """List the files of a batch source.

    The path is a file, a folder, searched with those below it, or a pattern with ``*``, ``?``,
    ``[…]``, ``**`` or ``{date}`` of either. Links are followed; a file that is met under two names
    is listed once.

    Raises:
        DataError: the path does not exist or holds no file of the format.
    """
    declared, where = source.files, f"source {source.name}"
    literal = Path(settings.expand(declared.path, where=where))
    pattern = settings.expand(declared.path, where=where, quote=glob.escape)
    written = _PLACEHOLDER.sub("", declared.path)
    is_pattern = (glob.has_magic(written) or DATE in written) and not os.path.lexists(literal)
    listing = Listing()
    roots = _matches(pattern, listing) if is_pattern else {str(literal): None}
    seen: set[tuple[int, int]] = set()
    # Links last: of two names of a file the one that is no link is listed.
    for root in sorted(roots, key=lambda one: (os.path.islink(one), one)):
        before = len(listing.paths)
        name = os.path.basename(root)
        if is_pattern and name[0] in "._" and os.path.basename(pattern)[0] not in "._":
            listing.passed_over.append(f"{root} (hidden)")
            continue
        _add(listing, root, declared.format, seen)
        day = roots[root]
        if day is not None:
            listing.days |= dict.fromkeys(listing.paths[before:], day)
    listing.paths.sort()
    listing.passed_over.sort()
    if not listing.paths:
        raise _nothing(literal, declared, listing, where, is_pattern=is_pattern)
    return listing


def _nothing(
    literal: Path, declared: BatchPlan, listing: Listing, where: str, *, is_pattern: bool
) -> DataError:
    file_format = declared.format
    problem = f"holds no {file_format} file" if literal.is_dir() else "does not exist"
    if is_pattern:
        problem = f"matches no {file_format} file"
    if listing.passed_over:
        problem += f"; passed over: {', '.join(listing.passed_over[:3])}"
    return DataError(f"{literal} {problem}", where=where, fix=_path_fix(declared.path))


def _path_fix(path: str) -> str:
    """Say what decides where a declared path points to.

    >>> _path_fix("${MILLRACE_DATA}/cards"), _path_fix("/data/cards")
    ('set MILLRACE_DATA, or correct the path', 'correct the path')
    """
    if variables := re.findall(r"\$\{(\w+)\}", path):
        return f"set {' and '.join(dict.fromkeys(variables))}, or correct the path"
    if not os.path.isabs(path):
        return f"correct the path: a relative one counts from {CHECKOUT}"
    return "correct the path"


def _matches(pattern: str, listing: Listing) -> dict[str, int | None]:
    """Return what a pattern matches on disk, and the day that ``{date}`` stands for in each.

    What has something else there is noted as passed over.
    """
    found = glob.glob(pattern.replace(DATE, "*"), recursive=True)
    if DATE not in pattern:
        return dict.fromkeys(found)
    form = re.compile(_expression(pattern))
    days: dict[str, int | None] = {}
    for path in found:
        match = form.fullmatch(path.rstrip("/"))
        told = {_day(text) for text in match.groups()} if match else set()
        if len(told) == 1 and None not in told:
            days[path] = told.pop()
        else:
            listing.passed_over.append(f"{path} (no day where the path says {DATE})")
    return days


def _expression(pattern: str) -> str:
    r"""Return a pattern as a regular expression with a group for each ``{date}``.

    >>> re.fullmatch(_expression("/a/**/day={date}/[[]x].*"), "/a/b/day=20240301/[x].csv")[1]
    '20240301'
    """
    parts = re.split(r"(\*\*/|\*|\?|\[[^\]]+\]|\{date\})", pattern.rstrip("/"))
    ours = {"**/": "(?:.*/)?", "*": "[^/]*", "?": "[^/]", DATE: _DAY}
    return "".join(ours.get(part) or _literal_or_class(part) for part in parts)


def _literal_or_class(part: str) -> str:
    if not (part.startswith("[") and part.endswith("]")):
        return re.escape(part)
    is_not, members = part.startswith("[!"), part[1:-1].removeprefix("!")
    escaped = re.sub(r"[^\w-]", lambda found: "\\" + found[0], members)
    return f"[{'^' if is_not else ''}{escaped}]"


def _day(text: str) -> int | None:
    digits = text.replace("-", "")
    try:
        found = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None
    return day_number(found)


def _add(listing: Listing, root: str, file_format: str, seen: set[tuple[int, int]]) -> None:
    if not os.path.isdir(root):
        if os.path.lexists(root):
            _add_file(listing, root, file_format, seen)
        return
    for path in _walk(root, listing, seen):
        name = os.path.basename(path).lower()
        kind = _kind(name, file_format)
        if name[0] in "._":
            if kind is not None:
                listing.passed_over.append(f"{path} (hidden)")
        elif kind is None:
            listing.passed_over.append(f"{path} (no {file_format} by its name)")
        else:
            _add_file(listing, path, file_format, seen)


def _walk(root: str, listing: Listing, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the files in a folder and below it, those that are links last in each."""

    def is_new(folder: str) -> bool:
        found = os.stat(folder)
        key = (found.st_dev, found.st_ino)
        is_first = key not in seen
        seen.add(key)
        return is_first

    def note(error: OSError) -> None:
        listing.paths.append(str(error.filename))
        listing.faults[str(error.filename)] = f"the folder cannot be read: {error.strerror}"

    if not is_new(root):
        return
    for folder, folders, names in os.walk(root, followlinks=True, onerror=note):
        visible = sorted(name for name in folders if name[0] not in "._")
        folders[:] = [name for name in visible if is_new(os.path.join(folder, name))]
        inside = [os.path.join(folder, name) for name in names]
        yield from sorted(inside, key=lambda path: (os.path.islink(path), path))


def _kind(name: str, file_format: str) -> str | None:
    """Return by which ending a name, in small letters, is of the format: what it is packed with."""
    packed = (*COMPRESSIONS, *_FOREIGN)
    for ending in _SUFFIXES[file_format]:
        if name.endswith(ending):
            return ""
        for packing in packed:
            if name.endswith(ending + packing):
                return packing
    return None


def _add_file(listing: Listing, path: str, file_format: str, seen: set[tuple[int, int]]) -> None:
    try:
        found = os.stat(path)
    except OSError as error:
        listing.paths.append(path)
        listing.faults[path] = f"not readable: {error.strerror}"
        return
    if not stat.S_ISREG(found.st_mode):
        listing.passed_over.append(f"{path} (no file)")
        return
    key = (found.st_dev, found.st_ino)
    if key in seen and found.st_ino:
        listing.passed_over.append(f"{path} (another name of a file that is read)")
        return
    seen.add(key)
    listing.paths.append(path)
    ending = os.path.splitext(path)[1].lower()
    known = () if file_format == "parquet" else COMPRESSIONS
    if ending in {*_FOREIGN, *COMPRESSIONS} - {*known}:
        mend = ", ".join(known) or "no ending but its own"
        listing.faults[path] = f"packed as {ending}, which is not read; {mend} would be"


def named_day(path: str) -> int | None:
    """Return the day that a name seems to tell, as a number of days since 1970.

    A hint whom to blame for a damaged file, and nothing more: eight digits may be anything.

    >>> named_day("/a/day=20240301/part-0.json"), named_day("/a/2024-03-01T10.csv"), named_day("/a/b")
    (19783, 19783, None)
    """
    for part in reversed(Path(path).parts[-2:]):
        for text in re.findall(rf"(?<!\d){_DAY}(?!\d)", part):
            if (day := _day(text)) is not None:
                return day
    return None
