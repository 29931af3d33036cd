"""Python declarations into specs.

A file is executed as an ordinary module; what it binds at module level is what it declares. It is
the author's code and runs with the author's rights: read only files you would run.
"""

import contextlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import CodeType, ModuleType

from millrace.aggregates import nearest_aggregate
from millrace.authoring import PUBLIC_NAMES, Declared, gathering
from millrace.errors import Fault, SpecError, nearest
from millrace.faults import FaultList
from millrace.spec import Entity, FeatureService, FeatureView, Location, Source, Specs

_UNKNOWN_IMPORT = re.compile(r"cannot import name '(\w+)'")


def read_python(text: str, file: str) -> tuple[Specs, list[Fault]]:
    """Execute one file and collect its declarations.

    Collected is every entity, source, view and service that is bound at module level, alone or in
    a list, tuple or dict, in the order bound; and every entity and source that a view was given
    without its being bound. What the file prints goes to stderr.

    Args:
        text: the whole file; an empty one declares nothing.
        file: its name, for ``file:line`` in faults.

    Returns:
        The declarations, and every fault. If the file is no Python or raises, no spec and the
        fault at the line that raised.
    """
    faults = FaultList()
    try:
        code = compile(text, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        line = (error.text or "").strip()
        what = f"this is no Python: {error.msg}" + (f": {line[:80]}" if line else "")
        faults.add(Location(file, error.lineno or 1), what)
        return Specs(), list(faults)
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or "it is nested too deeply"
        faults.add(Location(file, 1), f"this is no Python: {reason}")
        return Specs(), list(faults)
    with gathering() as made:
        module = _execute(code, file, faults)
    if module is None:
        return Specs(), list(faults)
    bound = list(_bound(module))
    _note_lost(made, bound, faults)
    keys_and_sources = [one for one in made if isinstance(one, (Entity, Source))]
    return _as_specs([*bound, *keys_and_sources]), list(faults)


def _execute(code: CodeType, file: str, faults: FaultList) -> ModuleType | None:
    module = ModuleType("millrace_declarations")
    module.__file__ = file
    try:
        with contextlib.redirect_stdout(sys.stderr):
            exec(code, module.__dict__)  # noqa: S102 - a Python declaration is code
    except SpecError as error:
        for fault in error.faults:
            faults.add(fault.where or _line_of(error, file), fault.what, fault.fix)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever the author's code raises
        what = f"{type(error).__name__}: {error}".removesuffix(": ")
        faults.add(_line_of(error, file), f"the declarations raise {what[:300]}", _hint(error))
    else:
        return module
    return None


def _line_of(error: BaseException, file: str) -> Location:
    """Return the innermost line of the file itself that the error passed through."""
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == file
    ]
    return Location(file, lines[-1] if lines else 1)


def _hint(error: BaseException) -> str:
    """Name what comes closest to an unknown name."""
    missing = getattr(error, "name", None)
    if isinstance(error, ImportError) and missing == "millrace":
        match = _UNKNOWN_IMPORT.search(str(error))
        missing = missing if match is None else match[1]
    if isinstance(error, (ImportError, NameError)) and isinstance(missing, str):
        return nearest_aggregate(missing) or nearest(missing, PUBLIC_NAMES)
    return ""


def _bound(module: ModuleType) -> Iterator[Declared]:
    for name, value in vars(module).items():
        if name.startswith("__"):
            continue
        if isinstance(value, dict):
            candidates: list[object] = list(value.values())
        else:
            candidates = list(value) if isinstance(value, (list, tuple)) else [value]
        for candidate in candidates:
            if isinstance(candidate, (Entity, Source, FeatureView, FeatureService)):
                yield candidate


def _note_lost(made: Sequence[Declared], bound: Sequence[Declared], faults: FaultList) -> None:
    """A view that nothing binds would be left out in silence."""
    kept = {(type(one), one.name) for one in bound}
    for one in made:
        if isinstance(one, (FeatureView, FeatureService)) and (type(one), one.name) not in kept:
            faults.add(
                one.where,
                f"{one.name!r} is constructed here, but bound to no name of the module",
                "bind it at module level, alone or in a list; or remove it",
            )


def _as_specs(declared: Sequence[Declared]) -> Specs:
    unique = list({id(one): one for one in declared}.values())
    return Specs(
        tuple(one for one in unique if isinstance(one, Source)),
        tuple(one for one in unique if isinstance(one, Entity)),
        tuple(one for one in unique if isinstance(one, FeatureView)),
        tuple(one for one in unique if isinstance(one, FeatureService)),
    )
