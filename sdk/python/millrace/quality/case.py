"""One rule about to be judged on one day, and how its finding is put together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from millrace.compile.checks import Rule
from millrace.quality.baseline import FEWEST_DAYS, Baseline, Limits
from millrace.quality.finding import Finding, Histogram
from millrace.quality.profile import ColumnProfile, DayProfile

Words = Callable[[float], str]


def _nothing() -> str:
    return ""


@dataclass(frozen=True)
class Case:
    """A rule, the day to judge and the days to judge it by.

    Attributes:
        history: all the days that may be used, ascending.
        baseline: those of them that the rule chooses.
    """

    rule: Rule
    day: DayProfile
    history: Sequence[DayProfile]
    baseline: Baseline

    @property
    def column(self) -> ColumnProfile | None:
        """The profile of the rule's column; None if the day has none."""
        return self.day.columns.get(self.rule.feature or "")

    def argument(self, name: str, default: Any = None) -> Any:
        """Return a limit as declared, or as every rule of the type has it."""
        return self.rule.arguments.get(name, default)

    def graded(self, *, is_grave: bool) -> "Case":
        """Return the case as one whose failure is an error only if it is grave.

        What is merely beyond a limit that nobody declared is worth a warning, whatever the default.
        """
        if is_grave or not self.rule.is_default or self.rule.is_blocking:
            return self
        return replace(self, rule=replace(self.rule, severity="warn"))

    def too_early(self) -> str:
        """Say why the day cannot be compared yet; empty if it can."""
        settled = self.argument("settled", "")
        if self.day.day.isoformat() < settled:
            return f"the feature's window is not full before {settled}"
        if not self.baseline.is_enough:
            return f"{len(self.baseline.days)} earlier days with rows, {FEWEST_DAYS} are needed"
        return ""

    def unknown(self, reason: str, *, n: int = 0) -> Finding:
        """Return the finding that nothing can be said."""
        return Finding(
            rule=self.rule,
            verdict="unknown",
            value=None,
            low=None,
            high=None,
            n=n,
            expected="nothing known",
            actual="not measured",
            reason=reason,
            baseline_days=0,
        )

    def judged(
        self,
        value: float,
        limits: Limits,
        *,
        n: int,
        words: Words,
        baseline_days: int = 0,
        because: Callable[[], str] = _nothing,
        histogram: Histogram | None = None,
    ) -> Finding:
        """Return the finding of a value against limits; ``because`` is asked if it failed."""
        passed = limits.hold(value)
        expected, actual = _expected(limits, words), words(value)
        reason = "" if passed else "; ".join(filter(None, (actual, expected, because())))
        return Finding(
            rule=self.rule,
            verdict="passed" if passed else "failed",
            value=value,
            low=limits.low,
            high=limits.high,
            n=n,
            expected=expected,
            actual=actual,
            reason=reason,
            baseline_days=baseline_days,
            histogram=histogram,
        )


def _expected(limits: Limits, words: Words) -> str:
    if limits.low is not None and limits.high is not None:
        return f"expected {words(limits.low)} to {words(limits.high)}"
    if limits.low is not None:
        return f"expected at least {words(limits.low)}"
    if limits.high is not None:
        return f"expected at most {words(limits.high)}"
    return "anything"
