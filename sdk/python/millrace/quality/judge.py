"""Judge a day by its rules, against the days before it."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType

from millrace.calendar import days_after
from millrace.compile.checks import Rule
from millrace.quality import measures_column, measures_drift, measures_table
from millrace.quality.baseline import Baseline, baseline_of
from millrace.quality.case import Case
from millrace.quality.finding import Finding
from millrace.quality.profile import DayProfile

HISTORY_DAYS = 63
"""How many calendar days before a day the judge can make use of (8 same weekdays and a week)."""

MEASURES: Mapping[str, Callable[[Case], Finding]] = MappingProxyType(
    {
        "rows": measures_table.rows,
        "volume": measures_table.volume,
        "completeness": measures_table.completeness,
        "freshness": measures_table.freshness,
        "uniqueness": measures_table.uniqueness,
        "null_keys": measures_table.counted,
        "dead_letters": measures_table.counted,
        "null_rate": measures_column.null_rate,
        "range": measures_column.value_range,
        "cardinality": measures_column.cardinality,
        "unseen": measures_column.unseen,
        "frozen": measures_column.frozen,
        "drift": measures_drift.drift,
    }
)
"""How each type of rule is measured."""


def judge_empty_day(rules: Sequence[Rule]) -> tuple[Finding, ...]:
    """Return what is found on a day that has no rows and is declared to have none: nothing."""
    return tuple(
        Finding(
            rule=rule,
            verdict="passed",
            value=None,
            low=None,
            high=None,
            n=0,
            expected="no rows: the day is declared empty",
            actual="no rows",
        )
        for rule in rules
        if rule.type in MEASURES
    )


def judge_day(
    profile: DayProfile, history: Sequence[DayProfile], rules: Sequence[Rule]
) -> tuple[Finding, ...]:
    """Judge one closed day; one finding per rule, in the rules' order.

    Pure: the same arguments give the same findings. A rule whose type this judge does not measure
    (``expectation``) is left out.

    Args:
        profile: the day to judge.
        history: profiles of the same table that may serve as baseline, in any order: days of the
            ``HISTORY_DAYS`` before it (older ones too if a rule declares a ``baseline``) that
            were not held back. Days that were only warned about belong to them, so that a new
            normal is complained of once and then known; empty days belong to them, so that a
            closed weekday is. The day itself and later days are ignored, unless a declared
            baseline names them.
        rules: ``millrace.compile.checks.check_rules`` or ``source_rules``.
    """
    # However much is given, a day is judged by the same days, alone or in a long backfill.
    oldest = days_after(profile.day, -HISTORY_DAYS)
    by_day = attrgetter("day")
    ascending = sorted(history, key=by_day)
    first, end = (bisect_left(ascending, day, key=by_day) for day in (oldest, profile.day))
    recent = ascending[first:end]
    baselines: dict[str, Baseline] = {}
    findings = []
    for rule in rules:
        if rule.type not in MEASURES:
            continue
        named, settled = rule.arguments.get("baseline"), rule.arguments.get("settled")
        days = recent if named is None else ascending
        choice = f"{named} {settled}"
        if choice not in baselines:
            baselines[choice] = baseline_of(profile.day, days, rule.arguments)
        findings.append(MEASURES[rule.type](Case(rule, profile, days, baselines[choice])))
    return tuple(findings)
