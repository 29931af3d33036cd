"""Profile the days that a build wrote, judge them, and let readers see the good ones.

Days are judged in order, each against the days before it, those of the same build among them; a
day that is held back is nobody's baseline. What was profiled and found is kept in
``profiles/<table>``; the partition log says which days are held back
(``docs/decisions/publish-gate.md``).
"""

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from checks.quality.judgement import JudgedDay, Judgement, quarantine_reason
from checks.quality.profiles_table import StoredDay, day_files, read_profiles, write_profiles
from checks.quality.profiling import LOCAL_ROWS, profile_days
from checks.quality.rejudging import judge_later, later_days
from millrace.calendar import days_after, days_between, newest_day_over
from millrace.compile.checks import Rule, check_rules, source_rules
from millrace.plan import EmptyDays, SourcePlan, ViewPlan
from millrace.quality.finding import Finding
from offline.tables.partition_log import (
    append_partition_log,
    quarantined_days,
    read_partition_log,
    whole_days,
)
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    from checks.quality.expectations import ExpectationJudge
    from millrace.quality.partial import TableShape
    from millrace.quality.profile import DayProfile


_NO_FILES = ""


@dataclass(frozen=True)
class JudgedTable:
    """A table whose days are judged.

    Attributes:
        shape: its name and columns.
        rules: what it is judged by.
        fingerprint: of the source or view, for the partition log.
        closes_after_ms: how long after a day's end its last events may arrive.
        counted: which counts of a build's outcome belong to the day's profile.
        empty_days: days that are without rows by rule; nothing is wrong with them.
    """

    shape: "TableShape"
    rules: tuple[Rule, ...]
    fingerprint: str
    closes_after_ms: int
    counted: str
    empty_days: EmptyDays

    @classmethod
    def of_source(cls, source: SourcePlan, views: Sequence[ViewPlan]) -> "JudgedTable":
        """Return ``events/<source>``; ``views`` are all that read it."""
        from millrace.quality.partial import source_shape

        return cls(
            source_shape(source),
            source_rules(source, views),
            source.fingerprint,
            source.allowed_lateness_ms,
            "dead_letters",
            source.empty_days,
        )

    @classmethod
    def of_view(cls, view: ViewPlan, version: str) -> "JudgedTable":
        """Return ``features/<view>/<version>``."""
        from millrace.quality.partial import view_shape

        return cls(
            view_shape(view, version),
            check_rules(view),
            view.fingerprint,
            view.source.allowed_lateness_ms,
            "null_keys",
            view.source.empty_days,
        )

    @property
    def name(self) -> str:
        """The table's name under the lake."""
        return self.shape.table

    def is_closed(self, day: date, now_ms: int) -> bool:
        """Tell whether no event of a day is still to come."""
        return day <= newest_day_over(now_ms, self.closes_after_ms)

    def counts(self, outcome: PartitionOutcome) -> dict[str, int]:
        """Return what the build counted beside the rows."""
        if self.counted == "null_keys":
            return {"null_keys": outcome.null_keys}
        return {"dead_letters": sum(outcome.dead_letters.values())}


def judge_build(
    settings: Settings,
    table: JudgedTable,
    report: BuildReport,
    progress: Progress,
    *,
    now_ms: int,
    publish: bool = False,
    expectations: "ExpectationJudge | None" = None,
    local_rows: int = LOCAL_ROWS,
) -> Judgement:
    """Judge the days of a build that are over, and publish those that no blocking rule fails.

    What later days failed by comparison with days that are built anew is judged again
    (``checks.quality.rejudging``). A day of which some hours were never built is not over. Idempotent. A day whose files are those
    that were profiled before is not read again.

    Args:
        settings: the lake, and the Spark for large builds.
        table: what was built, and its rules.
        report: the build; its failed days are left alone.
        progress: told what is done.
        now_ms: the present instant.
        publish: release every day, whatever its rules found.
        expectations: the process of Great Expectations; None to do without.
        local_rows: up to so many rows are profiled in this process.

    Raises:
        EngineError: the profile pass failed; the days stay held back.
    """
    began = time.monotonic()
    outcomes = {o.day: o for o in report.built}
    states = read_partition_log(settings, table.name)
    closed = sorted(
        day for day in outcomes if table.is_closed(day, now_ms) and states[day].is_whole
    )
    files = day_files(settings, table.name)
    later = later_days(closed, states)
    stored = read_profiles(settings, table.name, _earlier(closed, table.rules) | later)
    profiles = _profiles(settings, table, closed, outcomes, files, stored, progress, local_rows)
    history = _history(stored, quarantined_days(states), profiles)
    judged = _judged(settings, table, profiles, history, expectations, publish=publish)
    seen = [*history, *(day.profile for day in judged if day.held is None)]
    compared = {day: stored[day] for day in later if day in stored}
    again = list(judge_later(compared, files, seen, table.rules))
    found = [
        StoredDay(d.profile, files.get(d.day, _NO_FILES), tuple(map(Finding.document, d.findings)))
        for d in judged
    ]
    write_profiles(settings, table.name, [*found, *(one.stored for one in again)])
    judgement = Judgement(
        table=table.name,
        days=tuple(judged),
        open_days=tuple(day for day in outcomes if day not in profiles),
        earlier=_measured_before({d: s for d, s in stored.items() if d not in later}, profiles),
        seconds=time.monotonic() - began,
        again=tuple(one.judged for one in again),
    )
    built = replace(report, outcomes=report.built)
    append_partition_log(settings, built, table.fingerprint, held=judgement.held)
    progress(_summary(judgement))
    return judgement


def judge_again(
    settings: Settings,
    table: JudgedTable,
    days: Container[date] | None,
    *,
    expectations: "ExpectationJudge | None" = None,
) -> Judgement:
    """Judge built days once more, by the rules of now and the profiles of their build.

    Nothing is written, so nothing is published or held back by it: that is what a build does. Days
    that are not over are left out, and so are those that were written since, or by another
    definition.

    Args:
        settings: the lake.
        table: what was built, and its rules.
        days: which days; None for all.
        expectations: the process of Great Expectations; None to do without.
    """
    began = time.monotonic()
    states = read_partition_log(settings, table.name)
    asked = sorted(d for d in whole_days(states, table.fingerprint) if days is None or d in days)
    files = day_files(settings, table.name)
    stored = read_profiles(settings, table.name, _earlier(asked, table.rules))
    profiles = _profiles_that_stand(asked, files, stored)
    history = _history(stored, quarantined_days(states), profiles)
    judged = _judged(settings, table, profiles, history, expectations, publish=False)
    return Judgement(
        table=table.name,
        days=tuple(judged),
        earlier=_measured_before(stored, profiles),
        seconds=time.monotonic() - began,
    )


def _history(
    stored: Mapping[date, StoredDay],
    held: "Container[date]",
    judged: "Container[date]",
) -> "list[DayProfile]":
    return [s.profile for day, s in stored.items() if day not in held and day not in judged]


def _earlier(days: Sequence[date], rules: Sequence[Rule]) -> set[date]:
    """Return the days that may serve as baseline of ``days``, and these themselves."""
    from millrace.quality.judge import HISTORY_DAYS

    if not days:
        return set()
    spans = [(days_after(days[0], -HISTORY_DAYS), days[-1])]
    for rule in rules:
        named = rule.arguments.get("baseline")
        if named is not None:
            first, end = (date.fromisoformat(named[edge]) for edge in ("start", "end"))
            spans.append((first, days_after(end, -1)))
    return {day for first, last in spans for day in days_between(first, last)}


def _profiles(
    settings: Settings,
    table: JudgedTable,
    days: Sequence[date],
    outcomes: Mapping[date, PartitionOutcome],
    files: Mapping[date, str],
    stored: Mapping[date, StoredDay],
    progress: Progress,
    local_rows: int,
) -> "dict[date, DayProfile]":
    """Return the profiles of the days, read from the table where their files have changed."""
    counts = {day: table.counts(outcomes[day]) for day in days}
    known = {
        day: replace(profile, counts=counts[day])
        for day, profile in _profiles_that_stand(days, files, stored).items()
    }
    wanted = [day for day in days if day not in known]
    if not wanted:
        return known
    progress(f"{table.name}: profiling {len(wanted)} day(s)")
    made = profile_days(settings, table.shape, wanted, counts, local_rows=local_rows)
    return {**known, **{profile.day: profile for profile in made}}


def _profiles_that_stand(
    days: Sequence[date], files: Mapping[date, str], stored: Mapping[date, StoredDay]
) -> "dict[date, DayProfile]":
    """Return the stored profiles of those days whose files are the ones that were profiled."""
    return {
        day: stored[day].profile
        for day in days
        if day in stored and stored[day].files == files.get(day, _NO_FILES)
    }


def _judged(
    settings: Settings,
    table: JudgedTable,
    profiles: "Mapping[date, DayProfile]",
    history: "Sequence[DayProfile]",
    expectations: "ExpectationJudge | None",
    *,
    publish: bool,
) -> list[JudgedDay]:
    from millrace.quality.judge import judge_day, judge_empty_day

    baseline, judged = list(history), []
    for day, profile in sorted(profiles.items()):
        if day in table.empty_days and not profile.rows:
            findings = judge_empty_day(table.rules)
        else:
            findings = judge_day(profile, baseline, table.rules)
        found = _gated(JudgedDay(profile, findings), findings, publish=publish)
        if found.held is None:
            baseline.append(profile)
        judged.append(found)
    if expectations is None:
        return judged
    from checks.quality.expectations import expected

    quiet = [d for d in judged if d.day in table.empty_days and not d.profile.rows]
    others = [d for d in judged if d not in quiet]
    asked = expected(expectations, settings, table.name, table.rules, others)
    gated = [_gated(day, day.findings, publish=publish) for day in asked]
    return sorted([*quiet, *gated], key=lambda judged: judged.day)


def _gated(judged: JudgedDay, findings: tuple[Finding, ...], *, publish: bool) -> JudgedDay:
    reason = quarantine_reason(findings)
    return replace(
        judged,
        findings=findings,
        held=None if publish else reason,
        was_forced=publish and reason is not None,
    )


def _measured_before(
    stored: Mapping[date, StoredDay], judged: "Mapping[date, DayProfile]"
) -> dict[str, tuple[tuple[date, float], ...]]:
    points: dict[str, list[tuple[date, float]]] = {}
    for day, kept in sorted(stored.items()):
        for finding in kept.findings:
            if day not in judged and finding["value"] is not None:
                points.setdefault(finding["rule"], []).append((day, finding["value"]))
    return {rule: tuple(found) for rule, found in points.items()}


def _summary(judgement: Judgement) -> str:
    told = f"{judgement.table}: {len(judgement.days)} day(s) judged in {judgement.seconds:.1f} s"
    told += f", {judgement.alarmed} with findings, {len(judgement.held)} held back"
    if judgement.alarmed:
        told += f" (millrace findings {judgement.table.split('/')[1]})"
    if judgement.again:
        told += f"; {len(judgement.again)} later day(s) fail less, compared with these"
    if judgement.open_days:
        told += f"; {len(judgement.open_days)} not over yet, published unjudged"
    return told
