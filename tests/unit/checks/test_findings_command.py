"""``millrace findings``: what checks stored of each day, by day or by rule."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from checks.quality.findings import stored_findings
from checks.quality.profiles_table import StoredDay, write_profiles
from cli.main import build_app
from millrace.compile.checks import source_rules
from millrace.errors import NotDeclared
from millrace.plan import Plan
from millrace.quality.judge import judge_day
from millrace.quality.profile import DayProfile
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env

VIEW = """
version: millrace/v1
sources:
  - name: sales
    columns: {at: timestamp, who: string, price: float64}
    event_time: at
    batch: {format: csv, path: nowhere}
entities: [{name: buyer, join_key: who, type: string}]
feature_views:
  - name: buying
    entity: buyer
    source: sales
    start: 2024-03-01
    features: [{name: sales_1d, aggregate: count, window: 1d}]
"""
FIRST = date(2024, 3, 1)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "sales.yaml").write_text(VIEW)
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path / "views"))
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    return lambda *arguments: CliRunner().invoke(build_app(), ["findings", *arguments])


@pytest.fixture
def lake(run: Run, tmp_path: Path) -> tuple[Settings, Plan]:
    del run
    settings = replace(settings_from_env(), views=(tmp_path / "views",))
    return settings, plan_of(settings.views)


def judge(lake: tuple[Settings, Plan], empty: int, full: int = 1) -> None:
    """Store so many days without rows, which the check ``rows`` complains of, and others with."""
    settings, plan = lake
    rules = source_rules(plan.sources["sales"], list(plan.views.values()))
    stored = []
    for i in range(empty + full):
        counts = {"dead_letters": 0}
        profile = DayProfile("events/sales", FIRST + timedelta(i), 9 * (i >= empty), counts=counts)
        documents = tuple(finding.document() for finding in judge_day(profile, [], rules))
        stored.append(StoredDay(profile, "", documents))
    write_profiles(settings, "events/sales", stored)


def test_each_finding_is_shown_with_day_value_limit_and_what_is_held_back(
    run: Run, lake: tuple[Settings, Plan]
) -> None:
    judge(lake, empty=2)
    settings, plan = lake
    report = BuildReport("events/sales", None, 1, (PartitionOutcome(FIRST),))
    fingerprint = plan.sources["sales"].fingerprint
    append_partition_log(settings, report, fingerprint, held={FIRST: "rows: 0"})
    shown = run("buying").stdout
    (line,) = [x for x in shown.splitlines() if x.startswith(" events/sales  2024-03-02")]
    assert line.split()[1:4] == ["2024-03-02", "warn", "rows"]
    assert line.strip().endswith("0 rows  expected at least 1 rows")
    assert "held back events/sales 2024-03-01: rows: 0" in shown
    assert "events/sales: 3 day(s) judged, 2 with findings, 1 held back" in shown

    (told,) = json.loads(run("sales", "--since", "2024-03-02", "--json").stdout)["tables"]
    assert (told["days_judged"], told["days_with_findings"], told["held"]) == (2, 1, {})
    (found,) = told["findings"]
    assert (found["day"], found["type"], found["value"], found["low"]) == (
        "2024-03-02",
        "rows",
        0,
        1,
    )
    assert not found["held"]


def test_one_finding_of_many_days_is_one_line(run: Run, lake: tuple[Settings, Plan]) -> None:
    judge(lake, empty=60)
    shown = run().stdout
    (line,) = [x for x in shown.splitlines() if x.startswith(" events/sales  warn")]
    assert "60: 2024-03-01..2024-04-29" in line


def test_days_that_nobody_judged_are_said_to_be_so(run: Run) -> None:
    done = run("buying")
    assert done.exit_code == 0
    assert "no day was judged yet" in done.stdout


def test_an_unknown_name_is_refused_with_the_nearest(lake: tuple[Settings, Plan]) -> None:
    with pytest.raises(NotDeclared) as caught:
        stored_findings(*lake, "bying")
    assert "buying" in caught.value.fix
