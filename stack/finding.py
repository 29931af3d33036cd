"""What ``millrace doctor`` says of one thing it looked at."""

from dataclasses import asdict, dataclass
from typing import Literal

from millrace.errors import Fault, PlatformError, SpecError

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        verdict: ``fail`` stops the platform from working, ``warn`` may.
        fix: how to mend it; empty when it is fine.
    """

    subject: str
    verdict: Verdict
    detail: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        """Return the finding as ``doctor --json`` shows it."""
        return asdict(self)


def faults_found(subject: str, verdict: Verdict, error: PlatformError) -> list[Finding]:
    """Return a finding for each fault of an error, with its place and its mend."""
    one = Fault(error.what, error.where, error.fix)
    faults = error.faults if isinstance(error, SpecError) else (one,)
    return [
        Finding(subject, verdict, ": ".join(filter(None, (fault.where, fault.what))), fault.fix)
        for fault in faults
    ]
