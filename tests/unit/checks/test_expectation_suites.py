"""Suites and metrics for Great Expectations, without it: plain documents from rules and days."""

from datetime import date
from typing import Any

from checks.quality.judgement import JudgedDay
from checks.quality.suites import applicable, declared, frame, measure_names, row_columns, suite
from millrace.compile.checks import Rule
from millrace.quality.finding import Finding
from millrace.quality.profile import ColumnProfile, DayProfile

NULLS = Rule("null_rate__amount", "null_rate", "amount", {"max": 0.1}, "error", owner="me@x.com")
DRIFT = Rule("drift__amount__mean", "drift", "amount", {"metric": "mean"}, "warn")
AGAIN = Rule("second", "null_rate", "amount", {"max": 0.2}, "warn")


def expectation(feature: str | None, **told: Any) -> Rule:
    given = {"expect": "expect_column_values_to_be_between", **told}
    return Rule("declared", "expectation", feature, given, "error")


def day(*findings: Finding) -> JudgedDay:
    amount = ColumnProfile("amount", "number", 100, 40, 9.0, 1.0, 8.0, 3.5, 20.0)
    return JudgedDay(
        DayProfile("events/x", date(2024, 3, 4), 100, columns={"amount": amount}), findings
    )


def found(rule: Rule, value: float, low: float | None, high: float | None) -> Finding:
    return Finding(rule, "failed", value, low, high, 100, "", "")


def test_each_rule_is_two_readable_expectations_with_owner_and_severity() -> None:
    document = suite("events/x", [NULLS])
    high, low = document["expectations"]
    assert high["kwargs"]["column_A"] == "null_rate(amount) at most"
    assert high["kwargs"]["column_B"] == low["kwargs"]["column_A"] == "null_rate(amount)"
    assert low["kwargs"]["column_B"] == "null_rate(amount) at least"
    assert high["severity"] == "critical"
    assert high["meta"]["owner"] == "me@x.com"


def test_what_measures_the_same_has_a_column_of_its_own() -> None:
    assert measure_names([NULLS, DRIFT, AGAIN]) == {
        "null_rate__amount": "null_rate(amount)",
        "drift__amount__mean": "mean_shift(amount)",
        "second": "second",
    }


def test_the_frame_has_a_row_per_day_with_values_limits_and_counts() -> None:
    columns = frame(
        [day(found(NULLS, 0.4, None, 0.1), found(DRIFT, 0.7, -0.5, 0.5))], [NULLS, DRIFT]
    )
    assert columns["day"] == ["2024-03-04"]
    assert columns["null_rate(amount)"] == [0.4]
    assert columns["null_rate(amount) at most"] == [0.1]
    assert columns["mean(amount)"] == [3.5]
    assert columns["mean_shift(amount)"] == [0.7]


def test_a_limit_that_no_day_has_is_not_asked_about_but_what_is_declared_always_is() -> None:
    rules = [NULLS, expectation("amount", arguments={"column": "nothing", "max_value": 1})]
    columns = frame([day(found(NULLS, 0.4, None, 0.1))], rules)
    kept = applicable(suite("events/x", rules), columns)
    assert [e["meta"]["id"] for e in kept["expectations"]] == ["null_rate__amount:high", "declared"]


def test_a_metric_is_named_by_itself_or_with_its_column() -> None:
    short = declared(expectation("amount", arguments={"column": "mean", "max_value": 5}))
    long = declared(expectation("amount", arguments={"column": "psi(weight)", "max_value": 5}))
    assert short["kwargs"] == {"column": "mean(amount)", "max_value": 5}
    assert long["kwargs"]["column"] == "psi(weight)"


def test_an_expectation_on_rows_reads_its_column_alone() -> None:
    rule = expectation("country", mode="rows", arguments={"value_set": ["FR"]})
    assert declared(rule)["kwargs"] == {"value_set": ["FR"], "column": "country"}
    assert row_columns([rule]) == ["country"]
    table = expectation(None, mode="rows", arguments={"min_value": 1})
    assert row_columns([rule, table]) == []
