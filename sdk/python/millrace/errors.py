"""The errors a user of Millrace can meet.

    PlatformError
    ├── SpecError              a declaration is wrong; carries every fault found
    ├── PlanError              declarations are right one by one, wrong together
    │   └── BreakingChange     a change that the deployed version cannot absorb
    ├── CompileError           a plan cannot be told to an engine
    │   └── UnsupportedByEngine
    ├── DataError              the data is not what the declaration says
    ├── EngineError            Spark, Flink, Kafka or Dagster failed
    │   ├── EngineUnavailable  not reachable; worth another try
    │   └── EngineRejected     reachable, and refused what it was told
    ├── StoreError             the online store failed
    ├── ServingError           an online answer cannot be given
    │   ├── NotDeclared        unknown entity, feature or version
    │   └── StaleFeatures      known, but older than promised
    ├── SetupError             the machine lacks something, or a download is broken
    └── ParityError            two engines disagree

Every error says what is wrong (with the value), where, and how to mend it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

_MOST_NAMES = 8
"""An error lists at most this many valid names."""


class PlatformError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        what: what is wrong, with the offending value.
        where: view, column, file:line, table or job; empty if nothing narrower is known.
        fix: how to mend it, naming the nearest valid choices; may be empty.
    """

    code: ClassVar[str] = "platform_error"
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n  ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only constructors do not unpickle by themselves, and errors cross processes.
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[PlatformError], what: str, where: str, fix: str) -> PlatformError:
    return kind(what, where=where, fix=fix)


@dataclass(frozen=True)
class Fault:
    """One fault of one declaration.

    Attributes:
        what: what was found, with the value.
        where: ``file:line`` of the fault, or the object's name when built in Python code.
        fix: what would be right.
    """

    what: str
    where: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"\n  fix: {self.fix}" if self.fix else "")


class SpecError(PlatformError):
    """One or more declarations are wrong; ``faults`` lists every one that was found."""

    code = "spec_error"

    def __init__(
        self, what: str, *, where: str = "", fix: str = "", faults: Sequence[Fault] = ()
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.faults = tuple(faults) or (Fault(what, where, fix),)

    @classmethod
    def of(cls, faults: Sequence[Fault]) -> "SpecError":
        """Gather faults into one error, in the order given; at least one is required."""
        if len(faults) == 1:
            only = faults[0]
            return cls(only.what, where=only.where, fix=only.fix, faults=faults)
        return cls(f"{len(faults)} faults in the declarations", faults=faults)

    def __str__(self) -> str:
        if len(self.faults) == 1:
            return super().__str__()
        return "\n".join([self.what, *(str(fault) for fault in self.faults)])

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_spec, (type(self), self.what, self.where, self.fix, self.faults))


def _rebuild_spec(
    kind: type[SpecError], what: str, where: str, fix: str, faults: tuple[Fault, ...]
) -> SpecError:
    return kind(what, where=where, fix=fix, faults=faults)


class PlanError(PlatformError):
    """The declarations contradict each other."""

    code = "plan_error"


class BreakingChange(PlanError):
    """The change needs a new version and was asked for in place."""

    code = "breaking_change"


class CompileError(PlatformError):
    """A plan cannot be expressed for a target."""

    code = "compile_error"


class UnsupportedByEngine(CompileError):
    """The target engine has no way to say this with the same meaning."""

    code = "unsupported_by_engine"


class DataError(PlatformError):
    """Data contradicts its declaration: an unreadable file, a missing column, a wrong type."""

    code = "data_error"


class EngineError(PlatformError):
    """An engine failed while doing what it was told."""

    code = "engine_error"


class EngineUnavailable(EngineError):
    """An engine does not answer; the same call may succeed later."""

    code = "engine_unavailable"
    retryable = True


class EngineRejected(EngineError):
    """An engine refused the request; the same call will be refused again."""

    code = "engine_rejected"


class StoreError(PlatformError):
    """The online store failed."""

    code = "store_error"


class ServingError(PlatformError):
    """An online answer cannot be given."""

    code = "serving_error"


class NotDeclared(ServingError):
    """No such entity, view, feature, service or version."""

    code = "not_declared"


class StaleFeatures(ServingError):
    """The value is older than the view promises."""

    code = "stale_features"


class SetupError(PlatformError):
    """Something this machine needs is absent, broken or taken."""

    code = "setup_error"


class ParityError(PlatformError):
    """Two engines gave different values for the same question."""

    code = "parity_error"


def nearest(name: str, choices: Sequence[str], *, limit: int = 3) -> str:
    """Say which valid names come closest, for the ``fix`` of an error.

    Returns:
        ``"did you mean 'a' or 'b'?"``; with nothing close, the first choices; empty if none exist.

    >>> nearest("custmer", ["customer", "terminal"])
    "did you mean 'customer'?"
    >>> nearest("nn", ["n", "n"])
    "did you mean 'n'?"
    """
    close = get_close_matches(name, dict.fromkeys(choices), n=limit, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(repr(c) for c in close)}?"
    if not choices:
        return ""
    known = ", ".join(sorted(set(choices))[:_MOST_NAMES])
    return f"known: {known}" + (", …" if len(choices) > _MOST_NAMES else "")
