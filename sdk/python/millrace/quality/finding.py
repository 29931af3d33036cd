"""What judging one rule on one day gives."""

from dataclasses import dataclass
from typing import Any, Literal

from millrace.compile.checks import Rule

Verdict = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True)
class Histogram:
    """The day against its baseline, bin by bin, for pictures and for the drift it was judged by.

    Attributes:
        labels: one per bin, in order: ``≤ 3``, ``3 to 7``, …, a value, ``other``, ``null``.
        baseline: rows of the baseline in each bin.
        actual: rows of the day in each bin.
    """

    labels: tuple[str, ...]
    baseline: tuple[float, ...]
    actual: tuple[float, ...]


@dataclass(frozen=True)
class Finding:
    """One rule judged on one day.

    Attributes:
        rule: the rule, with its severity, owner and runbook. Its severity is that of the finding:
            drift far beyond its limit is an ``error`` even of a rule that warns (``error_times``).
        verdict: ``unknown`` says that there is too little to judge by (``reason`` says what is
            missing); it is not a failure.
        value: what was measured; None if nothing could be.
        low, high: the limits it was held against, inclusive; None where there is none.
        n: rows (or values, or hours) it was measured on.
        expected, actual: the limits and the value in words.
        reason: why it failed or is unknown; empty if passed.
        baseline_days: how many earlier days it was compared with; 0 for absolute limits.
        histogram: for ``drift`` of psi and js where it could be measured.
    """

    rule: Rule
    verdict: Verdict
    value: float | None
    low: float | None
    high: float | None
    n: int
    expected: str
    actual: str
    reason: str = ""
    baseline_days: int = 0
    histogram: Histogram | None = None

    @property
    def column(self) -> str | None:
        """The column it judges; None for the table."""
        return self.rule.feature

    @property
    def is_alarm(self) -> bool:
        """True if it failed, whatever its severity."""
        return self.verdict == "failed"

    @property
    def is_error(self) -> bool:
        """True if it failed and its severity is ``error``."""
        return self.verdict == "failed" and self.rule.severity == "error"

    @property
    def is_blocking(self) -> bool:
        """True if it failed and keeps the day from readers."""
        return self.is_error and self.rule.is_blocking

    def document(self) -> dict[str, Any]:
        """Return the finding as a JSON object, without the histogram."""
        return {
            "rule": self.rule.name,
            "type": self.rule.type,
            "column": self.column,
            "severity": self.rule.severity,
            "verdict": self.verdict,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "expected": self.expected,
            "actual": self.actual,
            "reason": self.reason,
            "baseline_days": self.baseline_days,
        }
