"""What came of judging the days of one table: plain records, for Dagster, pictures and lineage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from millrace.quality.finding import Finding
from millrace.quality.profile import DayProfile

_NAMED = 3


@dataclass(frozen=True)
class JudgedDay:
    """One day, what its rules found, and whether readers may see it.

    Attributes:
        profile: what was counted.
        findings: one per rule, expectations among them.
        held: why readers do not see the day; None if it is published.
        was_forced: True if it is published although a blocking rule failed, because the run was
            told to.
        is_again: True for a day of an earlier build, which is compared with days of this one.
    """

    profile: DayProfile
    findings: tuple[Finding, ...]
    held: str | None = None
    was_forced: bool = False
    is_again: bool = False

    @property
    def day(self) -> date:
        """The partition."""
        return self.profile.day


@dataclass(frozen=True)
class Judgement:
    """The days of one build of one table, judged.

    Attributes:
        table: the table's name under the lake.
        days: closed days, ascending.
        open_days: built days that are not over yet; they are published and not judged.
        earlier: values measured on earlier days, by the name of the rule, ascending.
        seconds: wall time of profiling and judging.
        again: days of earlier builds that fail less, now that days of this one are as they are;
            with the findings of those checks alone that say something else.
    """

    table: str
    days: tuple[JudgedDay, ...]
    open_days: tuple[date, ...] = ()
    earlier: Mapping[str, tuple[tuple[date, float], ...]] = field(default_factory=dict)
    seconds: float = 0.0
    again: tuple[JudgedDay, ...] = ()

    @property
    def alarmed(self) -> int:
        """How many days have findings that somebody should see."""
        return sum(any(f.is_alarm for f in judged.findings) for judged in self.days)

    @property
    def held(self) -> dict[date, str]:
        """The days that readers do not see, with the reason."""
        return {judged.day: judged.held for judged in self.days if judged.held is not None}


def readers_text(table: str, judged: JudgedDay) -> str:
    """Say whether readers of a table see a day that was found bad."""
    where = f"{judged.day} of {table}"
    if judged.held is not None:
        return f"do not see {where}: it is held back"
    return f"see {where}" + (", published by hand" if judged.was_forced else " as it is")


def finding_text(finding: Finding) -> str:
    """Say in one line what was found: ``null_rate of amount: 40 %; expected at most 10 %``."""
    what = finding.rule.type + (f" of {finding.column}" if finding.column else "")
    if finding.verdict == "unknown":
        return f"{what}: not judged, {finding.reason or 'too little is known'}"
    return f"{what}: {finding.reason or f'{finding.actual}; {finding.expected}'}"


def findings_text(findings: "tuple[Finding, ...] | list[Finding]") -> str:
    """Say the first few of several findings and count the rest."""
    named = "; ".join(finding_text(finding) for finding in findings[:_NAMED])
    more = len(findings) - _NAMED
    return f"{named}; and {more} more" if more > 0 else named


def quarantine_reason(findings: tuple[Finding, ...]) -> str | None:
    """Return why a day with these findings is held back; None if nothing blocks it."""
    blocking = [finding for finding in findings if finding.is_blocking]
    return findings_text(blocking) if blocking else None
