"""Days that were compared with days which were built anew: what failed is judged once more.

A day that was wrong, and let through, was part of what is usual for the days after it. Once it is
mended, what those days failed may hold; nobody builds them again for that. So what they failed is
judged again by the profiles of their own build. A day that passed is left as it is: a repair opens
nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from checks.quality.judgement import JudgedDay
from checks.quality.profiles_table import Document, StoredDay
from millrace.calendar import days_after, days_between
from millrace.compile.checks import Rule
from millrace.quality.finding import Finding
from offline.tables.partition_log import PartitionState

if TYPE_CHECKING:
    from millrace.quality.profile import DayProfile

MENDED = "compared with days that were built anew since; it passed when it was built"


@dataclass(frozen=True)
class Rejudged:
    """A day that fails less than it did.

    Attributes:
        judged: the day, with the findings of those checks alone that say something else now.
        stored: the day as it is to be kept.
    """

    judged: JudgedDay
    stored: StoredDay


def later_days(built: Sequence[date], states: Mapping[date, PartitionState]) -> set[date]:
    """Return the days that may have been compared with some of ``built`` and are not among them.

    A day that readers do not see is left alone: what it is held back for is judged when it is built.
    """
    from millrace.quality.judge import HISTORY_DAYS

    if not built:
        return set()
    reached = days_between(days_after(built[0], 1), days_after(built[-1], HISTORY_DAYS))
    known = {day for day in reached if day in states and day not in built}
    return {day for day in known if states[day].error is None and states[day].held is None}


def judge_later(
    stored: Mapping[date, StoredDay],
    files: Mapping[date, str],
    baseline: "Sequence[DayProfile]",
    rules: Sequence[Rule],
) -> Iterator[Rejudged]:
    """Yield those of some days that failed by a baseline and fail less by the one of now; ascending.

    Args:
        stored: the days, with what was found when they were built.
        files: what holds each day now; one that was written since is left to its own build.
        baseline: profiles that may serve, the days built anew among them.
        rules: of the table.
    """
    from millrace.quality.judge import judge_day

    for day, kept in sorted(stored.items()):
        failed = {one["rule"] for one in kept.findings if _is_by_baseline(one)}
        if not failed or kept.files != files.get(day, ""):
            continue
        findings = judge_day(kept.profile, baseline, rules)
        healed = {f.rule.type for f in findings if f.rule.name in failed and not f.is_alarm}
        if healed:
            said = [_no_worse(f, failed) for f in findings if f.rule.type in healed]
            yield _rejudged(kept, said)


def _is_by_baseline(found: Document) -> bool:
    return bool(found["verdict"] == "failed" and found["baseline_days"])


def _no_worse(finding: Finding, failed: set[str]) -> Finding:
    if not finding.is_alarm or finding.rule.name in failed:
        return finding
    return replace(finding, verdict="unknown", reason=MENDED)


def _rejudged(kept: StoredDay, said: Sequence[Finding]) -> Rejudged:
    newer = {finding.rule.name: finding.document() for finding in said}
    documents = tuple(newer.get(one["rule"], one) for one in kept.findings)
    judged = JudgedDay(kept.profile, tuple(said), is_again=True)
    return Rejudged(judged, replace(kept, findings=documents))
