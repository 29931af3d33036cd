"""Reads declarations from files and folders into specs and plans."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from millrace.errors import Fault, SpecError
from millrace.faults import by_place
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.plan import Plan
from millrace.resolve import resolve_as_far_as_read
from millrace.spec import Specs
from resources.settings import Settings

_READERS = {".yaml": read_yaml, ".yml": read_yaml, ".py": read_python}
_SUFFIXES = "*.yaml, *.yml or *.py"


@dataclass(frozen=True)
class Declarations:
    """What was read.

    Attributes:
        faults: faults of reading; those of meaning come from ``resolve``.
        is_complete: False if some file could not be read at all.
    """

    specs: Specs = field(default_factory=Specs)
    faults: tuple[Fault, ...] = ()
    is_complete: bool = True

    def __add__(self, other: "Declarations") -> "Declarations":
        return Declarations(
            self.specs + other.specs,
            self.faults + other.faults,
            self.is_complete and other.is_complete,
        )


def load_plan(settings: Settings) -> Plan:
    """Return the plan of everything under the folders of ``settings.views``.

    Files are read in sorted order, folders below folders included; names that start with ``_`` or
    ``.`` are left out. Python declarations are executed.

    Raises:
        SpecError: with every fault of every file, by file and line.
    """
    return load_declared(settings)[1]


def load_declared(settings: Settings) -> tuple[Specs, Plan]:
    """Return everything under the folders of ``settings.views`` as written, and its plan.

    Raises:
        SpecError: as ``load_plan``.
    """
    return _resolved(_read_all(_folders(settings)))


def load_valid_plan(settings: Settings) -> tuple[Plan, tuple[Fault, ...]]:
    """Return the plan of the files that have no fault, and the faults of the others.

    A file goes whole: with one faulty view its other views are missing too, and so are the files
    that need something declared in it.
    """
    files = declaration_files(settings)
    found: list[Fault] = []
    while True:
        try:
            return plan_of(files), tuple(found)
        except SpecError as error:
            places = {fault.where for fault in error.faults}
            faulty = places | {place.rpartition(":")[0] for place in places}
            sound = [file for file in files if _shown(file) not in faulty]
            if len(sound) == len(files):
                raise
            found.extend(error.faults)
            files = sound


def declaration_files(settings: Settings) -> list[Path]:
    """Return the files of declarations under the folders of ``settings.views``."""
    return [file for folder in _folders(settings) for file in _files(folder)]


def refuse_empty(paths: Sequence[Path]) -> None:
    """Refuse folders that hold no file of declarations: where they were named, some were meant.

    Raises:
        SpecError: naming each.
    """
    empty = [path for path in paths if path.is_dir() and next(_files(path), None) is None]
    if empty:
        what = f"the folder holds no file of declarations ({_SUFFIXES})"
        raise SpecError.of([Fault(what, _shown(path), "correct the path") for path in empty])


def plan_of(paths: Sequence[Path]) -> Plan:
    """Return the plan of the declarations in files and folders.

    Raises:
        SpecError: with every fault of every file, by file and line.
    """
    return _resolved(_read_all(paths))[1]


def _resolved(read: Declarations) -> tuple[Specs, Plan]:
    plan, faults = resolve_as_far_as_read(read.specs, is_complete=read.is_complete)
    if plan is None or read.faults:
        raise SpecError.of(by_place([*read.faults, *faults]))
    return read.specs, plan


def _read_all(paths: Sequence[Path]) -> Declarations:
    read = Declarations()
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            fault = Fault(
                "there is no such file or folder of declarations",
                _shown(path),
                "create it, or correct the path (MILLRACE_VIEWS names folders)",
            )
            read += Declarations(faults=(fault,), is_complete=False)
            continue
        for file in _files(path):
            # One folder may be named twice, or lie within another.
            if file.resolve() not in seen:
                seen.add(file.resolve())
                read += _read_file(file)
    return read


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    found: list[Path] = []
    seen: set[str] = set()
    for folder, below, names in os.walk(path, followlinks=True):
        # A link may lead back to a folder above it.
        seen.add(os.path.realpath(folder))
        below[:] = [
            name
            for name in below
            if not name.startswith(("_", ".")) and os.path.realpath(Path(folder, name)) not in seen
        ]
        found.extend(
            Path(folder, name)
            for name in names
            if Path(name).suffix.lower() in _READERS and not name.startswith(("_", "."))
        )
    yield from sorted(found)


def _read_file(file: Path) -> Declarations:
    shown = _shown(file)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        fault = Fault("this is no file of declarations", shown, f"name it {_SUFFIXES}")
        return Declarations(faults=(fault,), is_complete=False)
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        fault = Fault(f"the file cannot be read: {error.strerror}", shown, "check its permissions")
        return Declarations(faults=(fault,), is_complete=False)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"the file is not UTF-8: byte 0x{raw[error.start]:02x}"
        fault = Fault(what, f"{shown}:{line}", "save it as UTF-8")
        return Declarations(faults=(fault,), is_complete=False)
    specs, faults = reader(text, shown)
    return Declarations(specs, tuple(faults), is_complete=not (faults and specs == Specs()))


def _shown(path: Path) -> str:
    """Return a path as short as it can be said: relative to the working folder if below it."""
    absolute = path.absolute()
    try:
        return str(absolute.relative_to(Path.cwd()))
    except ValueError:
        return str(absolute)


def _folders(settings: Settings) -> list[Path]:
    own, *extra = settings.views
    return [*([own] if own.is_dir() else []), *extra]
