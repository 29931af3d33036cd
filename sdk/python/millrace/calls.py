"""Calls of declarations in Python: whose line they are, and what is wrong with how they are made."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

from millrace.errors import SpecError, nearest
from millrace.spec import Location

_P = ParamSpec("_P")
_R = TypeVar("_R")
_OURS = frozenset(
    {"millrace.calls", "millrace.aggregations", "millrace.authoring", "millrace.derivations"}
)


def here() -> Location:
    """Return the line of the author's code that called into the language."""
    frame = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller without a traceback
    while frame.f_back is not None and frame.f_globals.get("__name__") in _OURS:
        frame = frame.f_back
    return Location(frame.f_code.co_filename, frame.f_lineno)


def builder(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Make a function say what is wrong with a call of it, at the author's line.

    Unknown, missing and surplus arguments are a ``SpecError`` with the nearest name, and not a
    ``TypeError``, as any other fault of a declaration is.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise _fault(function.__name__, signature, str(error), kwargs) from None
        return function(*args, **kwargs)

    return called


def _fault(
    name: str, signature: inspect.Signature, reason: str, given: dict[str, object]
) -> SpecError:
    known = [
        p.name
        for p in signature.parameters.values()
        if p.name != "self" and p.kind is not inspect.Parameter.VAR_POSITIONAL
    ]
    unknown = [word for word in given if word not in known]
    where = str(here())
    if unknown:
        what = f"{name} takes no {' and no '.join(map(repr, unknown))}"
        return SpecError(what, where=where, fix=nearest(unknown[0], known))
    shown = str(signature).replace("(self, ", "(").replace("(self)", "()").partition(" ->")[0]
    return SpecError(f"{name}: {reason}", where=where, fix=f"write {name}{shown}"[:300])


class _NoStep(SpecError, AttributeError):
    """A step that there is not; also what tells ``hasattr`` so."""


class Steps:
    """What is built by steps: one that there is not is a fault at the author's line.

    Attributes:
        built: what it is, for people.
        elsewhere: steps that it has not, and why; the fix.
    """

    built: ClassVar[str]
    elsewhere: ClassVar[Mapping[str, str]] = {}

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        steps = [step for step, one in vars(type(self)).items() if hasattr(one, "__wrapped__")]
        raise _NoStep(
            f"{self.built} has no step {name!r}",
            where=str(here()),
            fix=self.elsewhere.get(name) or nearest(name, steps),
        )


def text(value: object) -> str:
    """Return a value as its text, which is what a spec holds."""
    return value if isinstance(value, str) else str(value)


def literal_text(value: Any) -> Any:
    """Return what a declaration spells out as YAML has it: decimals and days as their text."""
    return str(value) if isinstance(value, (Decimal, date)) else value


def optional(value: object | None) -> str | None:
    """Return a value as its text; None stays."""
    return None if value is None else text(value)
