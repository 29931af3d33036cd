"""The real Great Expectations in its own process: verdicts by day, errors by name, a dead process."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from checks.quality.expectations import ExpectationJudge, expectation_judge, expected
from checks.quality.judgement import JudgedDay
from millrace import expectation_types
from millrace.compile.checks import Rule
from millrace.quality.finding import Finding
from millrace.quality.profile import ColumnProfile, DayProfile
from resources.settings import settings_from_env


def test_the_language_knows_the_expectations_of_the_installed_release() -> None:
    """After an upgrade: ``python -m checks.quality.known_expectations``."""
    known = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "from checks.quality.known_expectations import written\nprint(written(), end='')"],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    assert Path(expectation_types.__file__).read_text(encoding="utf-8") == known


NULLS = Rule("null_rate__amount", "null_rate", "amount", {}, "error")
BAD = date(2024, 3, 7)
BETWEEN = "expect_column_values_to_be_between"


@pytest.fixture(scope="module")
def judge() -> Iterator[ExpectationJudge]:
    with expectation_judge() as judge:
        yield judge


def days() -> list[JudgedDay]:
    """Five days with few nulls, but for the fourth with half of the values null."""
    found = []
    for i in range(5):
        day = date(2024, 3, 4) + timedelta(days=i)
        rate = 0.5 if day == BAD else i / 100
        amount = ColumnProfile("amount", "number", 100, int(100 * rate), 9.0, 1.0, 8.0, 3.5, 20.0)
        finding = Finding(
            NULLS, "failed" if rate > 0.1 else "passed", rate, None, 0.1, 100, "at most 0.1", ""
        )
        profile = DayProfile("events/x", day, 100, columns={"amount": amount})
        found.append(JudgedDay(profile, (finding,)))
    return found


def declare(name: str, expect: str = BETWEEN, **arguments: Any) -> Rule:
    given = {"expect": expect, "arguments": arguments}
    return Rule(name, "expectation", "amount", given, "error")


def verdicts(judge: ExpectationJudge, *rules: Rule) -> dict[str, dict[date, Finding]]:
    judged = expected(judge, settings_from_env({}), "events/x", [NULLS, *rules], days())
    return {
        name: {d.day: f for d in judged for f in d.findings if f.rule.name == name}
        for name in ("generated", *(rule.name for rule in rules))
    }


def failed(findings: dict[date, Finding]) -> list[date]:
    return [day for day, finding in findings.items() if finding.is_alarm]


def test_the_generated_suite_comes_to_the_verdicts_of_the_rules(judge: ExpectationJudge) -> None:
    told = verdicts(judge)["generated"]
    assert failed(told) == []
    assert told[BAD].actual == "0 of 1 rules hold"


def test_a_verdict_that_differs_is_told(judge: ExpectationJudge) -> None:
    [*good, _, last] = days()
    finding = last.findings[0]
    wrong = replace(last, findings=(replace(finding, verdict="failed"),))
    judged = expected(judge, settings_from_env({}), "events/x", [NULLS], [*good, wrong])
    assert "other verdicts on null_rate__amount" in judged[-1].findings[-1].reason


def test_declared_expectations_fail_the_days_that_do_not_meet_them(
    judge: ExpectationJudge,
) -> None:
    told = verdicts(
        judge,
        declare("by_value", column="null_rate", max_value=0.3),
        declare(
            "as_a_whole", "expect_column_mean_to_be_between", column="null_rate", max_value=0.3
        ),
    )
    assert failed(told["by_value"]) == failed(told["as_a_whole"]) == [BAD]
    assert told["by_value"][BAD].actual == "null_rate(amount) 0.5"
    assert told["as_a_whole"][BAD].actual == "observed 0.5"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (declare("unknown", "expect_miracles"), "expect_miracles not found"),
        (declare("typo", colum="null_rate"), "extra fields not permitted"),
        (declare("absent", column="null_rate(nothing)", max_value=1), "does not exist"),
    ],
)
def test_what_cannot_be_judged_fails_with_the_reason(
    judge: ExpectationJudge, rule: Rule, said: str
) -> None:
    told = verdicts(judge, rule)[rule.name]
    assert len(failed(told)) == 5
    assert said in told[BAD].reason


def test_a_process_that_dies_fails_what_was_declared_and_leaves_the_rules_their_verdicts() -> None:
    import subprocess

    pipe = subprocess.PIPE
    dead = subprocess.Popen([sys.executable, "-c", ""], stdin=pipe, stdout=pipe, text=True)
    dead.wait()
    told = verdicts(ExpectationJudge(dead), declare("mine", column="null_rate", max_value=0.3))
    assert len(failed(told["mine"])) == len(failed(told["generated"])) == 5
    assert "the process of Great Expectations" in told["mine"][BAD].reason
