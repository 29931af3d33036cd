"""Twelve kinds of damage done to real data are found by the rules that every source has.

The departures of 2013 come with a package, so this runs everywhere; the limits were set on other
data. ``benchmarks/checks`` does the same to three tables and many days, and counts false alarms.
"""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from benchmarks.checks.damages import DAMAGES, KINDS, Damage
from benchmarks.checks.days import Dataset, read_dataset
from cli.demo.datasets import prepare_flights
from millrace.quality.finding import Finding
from millrace.quality.judge import HISTORY_DAYS, judge_day
from millrace.quality.profile import DayProfile
from resources.settings import settings_from_env

DAY = date(2013, 5, 15)
UNSURE = {
    "origin: each value the next": "three airports of nearly equal traffic: hardly a share moves",
    "+1 h": "departures vary so much by themselves; found on half of the days",
    "air_time_min: 1% times 10": "close to the longest flights; found on most days",
}
"""What the default rules do not find on every day, and why."""

Judged = tuple[Dataset, list[DayProfile], tuple[Finding, ...]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    home = tmp_path_factory.mktemp("home")
    settings = replace(settings_from_env(), home=home)
    whole = read_dataset(prepare_flights(settings).parent, "flights")
    near = {
        day: table
        for day, table in whole.days.items()
        if DAY - timedelta(HISTORY_DAYS) <= day <= DAY + timedelta(1)
    }
    dataset = replace(whole, days=near)
    profiles = dataset.profiles()
    history = [p for p in profiles if p.day < DAY]
    today = next(p for p in profiles if p.day == DAY)
    return dataset, history, judge_day(today, history, dataset.rules)


def test_the_undamaged_day_raises_no_alarm(judged: Judged) -> None:
    _, _, findings = judged
    assert [f.rule.name for f in findings if f.is_alarm] == []
    assert sum(f.verdict == "passed" for f in findings) > 0.8 * len(findings)


def test_all_twelve_kinds_are_tried() -> None:
    assert {d.kind for d in DAMAGES["flights"] if d.how not in UNSURE} == set(KINDS)


@pytest.mark.parametrize("damage", DAMAGES["flights"], ids=lambda d: f"{d.kind}: {d.how}")
def test_damage_is_found(damage: Damage, judged: Judged) -> None:
    dataset, history, _ = judged
    table = damage.apply(dataset, DAY, np.random.default_rng(7))
    findings = judge_day(dataset.profile(DAY, table), history, dataset.rules)
    alarms = [f for f in findings if f.is_alarm]
    assert alarms or damage.how in UNSURE
    assert all(f.reason and f.rule.runbook for f in alarms)
