"""Do the default rules find damage, and do they keep quiet without?

    python -m benchmarks.checks.study --data DIR [--write] [cards retail flights]

Every day of the two real tables is judged by the rules its source has by default, against the
days before it that were not held back: the false alarms. Then days are damaged, one damage at a
time, and judged against the undamaged days before them: the damage found. A damage counts as
found if a rule fails that did not fail on the undamaged day.
"""

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from benchmarks.checks.damages import DAMAGES, Damage
from benchmarks.checks.days import FILES, Dataset, read_dataset
from benchmarks.checks.features import feature_tables
from millrace.quality.finding import Finding
from millrace.quality.judge import HISTORY_DAYS, judge_day
from millrace.quality.profile import DayProfile

Report = dict[str, list[dict[str, object]]]

EVERY_NTH_DAY = 8
FIRST_DAMAGED = 35
SEED = 7


@dataclass(frozen=True)
class Quiet:
    """What was said of the undamaged days of one table.

    Attributes:
        days: days with rows.
        empty_days: days without; each fails ``rows`` and is not counted below.
        error_days, warn_days: days with at least one failed rule of that severity.
        unjudged_days: days with too little history for most rules.
        by_rule: failed rules with their days.
    """

    table: str
    days: int
    empty_days: int
    unjudged_days: int
    error_days: int
    warn_days: int
    error_findings: int
    warn_findings: int
    by_rule: dict[str, int]


@dataclass(frozen=True)
class Found:
    """How often one damage was found.

    Attributes:
        found: days on which a rule failed that did not without the damage.
        as_error: days on which such a rule was an ``error``.
        by_rule: these rules with their days.
    """

    table: str
    kind: str
    how: str
    days: int
    found: int
    as_error: int
    by_rule: dict[str, int]


def judged_days(dataset: Dataset) -> tuple[list[DayProfile], dict[date, tuple[Finding, ...]]]:
    """Judge all days in turn; those held back do not enter the history of later ones."""
    history: list[DayProfile] = []
    findings: dict[date, tuple[Finding, ...]] = {}
    for profile in dataset.profiles():
        found = judge_day(profile, recent(history, profile.day), dataset.rules)
        findings[profile.day] = found
        if not any(f.is_blocking for f in found):
            history.append(profile)
    return history, findings


def recent(history: list[DayProfile], day: date) -> list[DayProfile]:
    """Return the history that a day is judged by."""
    return [p for p in history if day - timedelta(HISTORY_DAYS) <= p.day < day]


def quiet(dataset: Dataset, findings: dict[date, tuple[Finding, ...]]) -> Quiet:
    """Count the alarms over the undamaged days."""
    alarms = {d: [f for f in findings[d] if f.is_alarm] for d in dataset.days}
    failed = [f for found in alarms.values() for f in found]
    errors = [f for f in failed if f.is_error]
    return Quiet(
        table=dataset.name,
        days=len(dataset.days),
        empty_days=len(dataset.all_days) - len(dataset.days),
        unjudged_days=sum(
            2 * sum(f.verdict == "unknown" for f in findings[d]) > len(findings[d])
            for d in dataset.days
        ),
        error_days=sum(any(f.is_error for f in found) for found in alarms.values()),
        warn_days=sum(any(not f.is_error for f in found) for found in alarms.values()),
        error_findings=len(errors),
        warn_findings=len(failed) - len(errors),
        by_rule=dict(Counter(f.rule.name for f in failed).most_common()),
    )


def search(
    dataset: Dataset,
    damage: Damage,
    history: list[DayProfile],
    findings: dict[date, tuple[Finding, ...]],
) -> Found:
    """Damage some days and count where it is found."""
    random = np.random.default_rng(SEED)
    days = found = as_error = 0
    by_rule: Counter[str] = Counter()
    for day in list(dataset.days)[FIRST_DAMAGED::EVERY_NTH_DAY]:
        table = damage.apply(dataset, day, random)
        if table is None:
            continue
        days += 1
        before = {f.rule.name for f in findings[day] if f.is_alarm}
        judged = judge_day(dataset.profile(day, table), recent(history, day), dataset.rules)
        new = [f for f in judged if f.is_alarm and f.rule.name not in before]
        found += bool(new)
        as_error += any(f.is_error for f in new)
        by_rule.update(f.rule.name for f in new)
    return Found(
        dataset.name, damage.kind, damage.how, days, found, as_error, dict(by_rule.most_common(6))
    )


def study(data: Path, example: str, report: Report) -> None:
    """Judge one source and its views, undamaged and damaged; print and note what is found."""
    dataset = read_dataset(data, example)
    history, findings = judged_days(dataset)
    _note(quiet(dataset, findings), report)
    for damage in DAMAGES[dataset.name]:
        one = search(dataset, damage, history, findings)
        report["damaged"].append(asdict(one))
        rules = ", ".join(f"{name} {n}" for name, n in list(one.by_rule.items())[:4])
        print(
            f"  {one.kind:17} {one.how:48} {one.found:3}/{one.days:<3} "
            f"as_error {one.as_error:3}  {rules}"
        )
    for table in feature_tables(data, example):
        _note(quiet(table, judged_days(table)[1]), report)


def _note(calm: Quiet, report: Report) -> None:
    report["undamaged"].append(asdict(calm))
    print(
        f"\n{calm.table}: {calm.days} undamaged days ({calm.unjudged_days} with too little "
        f"history), {calm.error_days} with an error, {calm.warn_days} with a warning\n  "
        + ", ".join(f"{name} {n}" for name, n in calm.by_rule.items())
    )


def main() -> None:
    """Run the study and print it as a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=list(FILES), help="cards, retail, flights")
    parser.add_argument("--data", type=Path, required=True, help="where the Parquet files are")
    parser.add_argument("--write", action="store_true", help="write results/study.json")
    arguments = parser.parse_args()
    report: Report = {"undamaged": [], "damaged": []}
    for example in arguments.examples:
        study(arguments.data, example, report)
    if arguments.write:
        target = Path(__file__).parent / "results" / "study.json"
        target.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
