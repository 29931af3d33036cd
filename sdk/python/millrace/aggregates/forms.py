"""Tables of forms: what each engine makes of each partial or aggregate, checked when it is loaded.

An engine's module owns a table from kind to form, and one of what it cannot do with the reason. A
kind that is in neither is an error at import, so nothing is ever computed by a guess.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from millrace.errors import CompileError

K = TypeVar("K")


@dataclass(frozen=True)
class Unsupported:
    """Something that an engine cannot do.

    Attributes:
        reason: completes "it has no … since": what the engine lacks.
        fix: what the author of a view may do instead.
    """

    reason: str
    fix: str


def check_forms(
    engine: str,
    kinds: Collection[K],
    forms: Mapping[K, object],
    unsupported: Mapping[K, Unsupported] | None = None,
) -> None:
    """Hold an engine's tables against all kinds there are.

    Raises:
        CompileError: a kind has no form and no reason for having none, or has both.
    """
    refused = unsupported or {}
    for kind in kinds:
        name = getattr(kind, "__name__", None) or getattr(kind, "name", str(kind))
        if (kind in forms) == (kind in refused):
            what = "both a form and a reason for having none" if kind in forms else "no form"
            raise CompileError(
                f"{engine} has {what} of {name}",
                where=f"the forms of {engine}",
                fix="give it a form, or say in its table of what is unsupported why it has none",
            )
