"""What a declaration may say under ``checks:``, and what it is told if it says something else."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from millrace.check_types import CHECK_TYPES
from millrace.compile.checks import Rule, check_rules, source_rules
from millrace.load.yaml import read_yaml
from millrace.plan import Plan
from millrace.quality.judge import MEASURES
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.spec import Check

YAML = """\
version: millrace/v1
sources:
  - name: cards
    columns:
      id: int64
      ts: timestamp
      customer_id: int64
      amount: decimal(12,2)
      channel: string
      is_fraud: bool
    event_time: ts
    event_id: id
    batch: {format: parquet, path: cards.parquet}
  - name: other
    columns: {ts: timestamp, customer_id: int64}
    event_time: ts
    batch: {format: parquet, path: other.parquet}
entities:
  - {name: customer, join_key: customer_id, type: int64}
feature_views:
  - name: spend
    entity: customer
    source: cards
    start: 2024-01-01
    owner: payments@example.com
    freshness: 60s
    features:
      - {name: tx_1d, aggregate: count, window: 1d}
      - {name: amount_sum_7d, aggregate: sum, column: amount, window: 7d, offset: 1d}
      - {name: last_channel, aggregate: last, column: channel, window: lifetime}
    checks:
      - CHECK
  - name: visits
    entity: customer
    source: other
    start: 2024-01-01
    features:
      - {name: visits_1h, aggregate: count, window: 1h}
"""


def faults_of(*checks: str) -> list[tuple[str, str, str]]:
    text = YAML.replace("CHECK", "\n      - ".join(checks))
    specs, read = read_yaml(text, "views.yaml")
    _, faults = resolve_as_far_as_read(specs)
    return [(f.what, f.fix, f.where) for f in [*read, *faults]]


def plan_of(*checks: str) -> Plan:
    specs, faults = read_yaml(YAML.replace("CHECK", "\n      - ".join(checks)), "views.yaml")
    assert not faults
    return resolve(specs)


GOOD = [
    "{type: rows, min: 100, max: 1000000, severity: warn}",
    "{type: volume, tolerance: 0.3, spreads: 4}",
    "{type: completeness, max: 2}",
    "{type: freshness, max_age: 2h, tolerance: 30m}",
    "{type: null_rate, feature: amount_sum_7d, max: 0.3, owner: me@example.com}",
    "{type: null_rate, column: channel, tolerance: 0.01, runbook: 'https://example.com/r'}",
    "{type: range, column: amount, min: 0, max: 5000}",
    "{type: cardinality, column: channel, min: 2, max: 20}",
    "{type: unseen, column: channel, values: [web, shop], max: 0.01}",
    "{type: frozen, feature: tx_1d, max: 0.99}",
    "{type: drift, feature: tx_1d, metric: js, max: 0.1, baseline: {start: 2024-02-01, end: 2024-03-01}}",
    "{type: uniqueness, max: 0}",
    "{type: expectation, feature: tx_1d, expect: expect_column_values_to_be_between, arguments: {min_value: 0}, mode: rows}",
]  # fmt: skip


def test_every_good_check_is_taken() -> None:
    assert faults_of(*GOOD) == []


def test_every_type_is_measured_or_an_expectation() -> None:
    assert set(CHECK_TYPES) == {*MEASURES, "expectation"}


FAULTS = {
    "unknown type": ("{type: nul_rate, feature: tx_1d}", "no check of the type 'nul_rate'", "'null_rate'"),
    "unknown argument": ("{type: rows, minimum: 1}", "a rows check takes no 'minimum'", "'min'"),
    "unknown feature": ("{type: null_rate, feature: tx_2d}", "no feature of 'spend'", "'tx_1d'"),
    "unknown column": ("{type: null_rate, column: amounts}", "no column of source 'cards'", "'amount'"),
    "feature and column": ("{type: drift, feature: tx_1d, column: amount}", "a feature, 'tx_1d', and a column, 'amount'", "keep feature:"),
    "no feature": ("{type: null_rate, max: 0.1}", "'null_rate' names no feature", "feature: tx_1d"),
    "feature of a table's check": ("{type: rows, feature: tx_1d, min: 1}", "judges the table, not the feature 'tx_1d'", "remove feature"),
    "range of a text": ("{type: range, column: channel, min: 0}", "cannot judge 'channel', a string", "decimal, float64"),
    "unseen of a decimal": ("{type: unseen, feature: amount_sum_7d}", "cannot judge 'amount_sum_7d', a decimal(22,2)", "bool, int32"),
    "no number": ("{type: null_rate, feature: tx_1d, max: few}", "max of the check 'null_rate' is the text 'few', not a number", "0.2"),
    "no finite number": ("{type: range, feature: tx_1d, min: .nan}", "is the text '.nan', not a number", "0.2"),
    "share above 1": ("{type: null_rate, feature: tx_1d, max: 30}", "max of the check 'null_rate' is 30, which is no share", "0.05 is 5 %"),
    "half a row": ("{type: rows, min: 0.5}", "is 0.5, which is no count", "whole number"),
    "true for a number": ("{type: rows, min: true}", "is the text 'true', not a number", "0.2"),
    "no duration": ("{type: freshness, max_age: soon}", "max_age of the check 'freshness' is 'soon', which is no duration", "15m"),
    "a list for a text": ("{type: drift, feature: tx_1d, owner: [a]}", "owner of the check 'drift' is a list", "write one value"),
    "no list": ("{type: unseen, column: channel, values: web}", "is 'web', which is no list", "[a, b]"),
    "unknown metric": ("{type: drift, feature: tx_1d, metric: ks}", "the metric 'ks'", "psi, or js, or mean, or variance"),
    "unknown severity": ("{type: rows, min: 1, severity: fatal}", "the severity 'fatal'", "error, or warn"),
    "unknown mode": ("{type: expectation, expect: expect_column_values_to_be_null, mode: all}", "the mode 'all'", "profile, or rows"),
    "no expectation": ("{type: expectation, feature: tx_1d}", "has no expect", "add expect"),
    "arguments that are a list": ("{type: expectation, expect: expect_column_values_to_be_null, arguments: [1]}", "is [1], which is no mapping", "{name: value}"),
    "rows without a limit": ("{type: rows}", "has no min and no max", "add min"),
    "baseline that is a day": ("{type: drift, feature: tx_1d, baseline: 2024-01-01}", "is '2024-01-01', not start and end", "start: 2024-01-01"),
    "baseline without days": ("{type: drift, feature: tx_1d, baseline: {start: new, end: old}}", "from 'new' to 'old', which are no days", "the end is not in it"),
    "baseline backwards": ("{type: drift, feature: tx_1d, baseline: {start: 2024-02-01, end: 2024-02-01}}", "which holds no day", "2024-02-01"),
    "min above max": ("{type: range, feature: tx_1d, min: 5, max: 1}", "is 5, above max, 1", "swap"),
    "mapping in a mapping": ("{type: drift, feature: tx_1d, baseline: {start: {a: 1}, end: b}}", "which are no days", "start: 2024-01-01"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_each_fault_is_told_with_its_line_and_its_mend(case: str) -> None:
    check, what, fix = FAULTS[case]
    faults = faults_of(check)
    found = [f for f in faults if what in f[0]]
    assert found, faults
    assert fix in found[0][1]
    assert found[0][2] == "views.yaml:32"


def test_a_check_declared_twice_is_told_with_the_place_of_the_first() -> None:
    twice = "{type: drift, feature: tx_1d, max: 0.1}"
    ((what, fix, where),) = faults_of(twice, "{type: drift, feature: tx_1d, metric: js}", twice)
    assert "has the check 'drift' of tx_1d already, at views.yaml:32" in what
    assert (fix, where) == ("keep one of the two", "views.yaml:34")


def rules_by_name(*checks: str) -> tuple[dict[str, Rule], dict[str, Rule]]:
    plan = plan_of(*checks)
    view = plan.views["spend"]
    of_source = source_rules(view.source, plan.views_of("cards"))
    return {r.name: r for r in of_source}, {r.name: r for r in check_rules(view)}


def test_a_source_has_rules_for_each_column_but_its_id_and_its_time() -> None:
    of_source, _ = rules_by_name(GOOD[0])
    assert list(of_source)[:6] == [
        "rows", "volume", "completeness", "freshness", "dead_letters", "uniqueness",
    ]  # fmt: skip
    assert {r.feature for r in of_source.values()} == {
        None, "ts", "customer_id", "amount", "channel", "is_fraud",
    }  # fmt: skip
    assert of_source["uniqueness"].arguments == {"max": 0.0}
    assert of_source["drift__ts"].arguments["metric"] == "psi"
    assert {n for n, r in of_source.items() if r.feature == "is_fraud"} == {
        "null_rate__is_fraud", "frozen__is_fraud", "drift__is_fraud", "drift__is_fraud__mean",
    }  # fmt: skip


def test_every_rule_has_an_owner_and_a_runbook() -> None:
    for rules in rules_by_name(GOOD[0]):
        for rule in rules.values():
            assert rule.owner == "payments@example.com"
            assert rule.runbook == f"docs/runbooks.md#{rule.type}"


def test_a_source_read_by_views_of_several_owners_has_none() -> None:
    plan = plan_of(GOOD[0])
    view = plan.views["spend"]
    rules = source_rules(view.source, [view, replace(view, name="b", owner="b@example.com")])
    assert {r.owner for r in rules} == {None}


def test_a_check_of_a_column_is_a_rule_of_the_source_and_takes_the_defaults_place() -> None:
    of_source, of_view = rules_by_name(
        "{type: range, column: amount, min: 0, severity: warn, owner: b@example.com}",
        "{type: freshness, max_age: 2h, runbook: 'https://example.com/r'}",
    )
    rule = of_source["range__amount"]
    assert (dict(rule.arguments), rule.severity, rule.is_default) == ({"min": 0}, "warn", False)
    assert rule.owner == "b@example.com"
    assert "range__amount" not in of_view
    fresh = of_view["freshness"]
    assert (dict(fresh.arguments), fresh.severity) == ({"max_age_ms": 7_200_000}, "error")
    assert fresh.runbook == "https://example.com/r"
    assert of_source["freshness"].is_default


def test_features_are_compared_once_their_windows_are_full() -> None:
    _, of_view = rules_by_name(GOOD[0])
    assert of_view["drift__tx_1d"].arguments["settled"] == "2024-01-02"
    assert of_view["drift__amount_sum_7d"].arguments["settled"] == "2024-01-09"
    # Over a lifetime values grow for ever.
    assert "null_rate__last_channel" not in of_view


def test_drift_of_another_metric_stands_beside_the_default() -> None:
    _, of_view = rules_by_name("{type: drift, feature: tx_1d, metric: js, max: 0.1}")
    assert of_view["drift__tx_1d"].is_default
    assert not of_view["drift__tx_1d__js"].is_default


def test_a_rule_is_a_json_document() -> None:
    _, of_view = rules_by_name(GOOD[0])
    document: dict[str, Any] = of_view["rows"].document()
    assert document["arguments"] == {"min": 100, "max": 1_000_000}
    assert (document["owner"], document["severity"]) == ("payments@example.com", "warn")


def test_a_check_built_in_code_is_held_to_the_same_rules() -> None:
    plan = plan_of(GOOD[0])
    view = replace(plan.views["spend"], checks=(Check("rows", MappingProxyType({"min": 1})),))
    assert {r.name: r for r in check_rules(view)}["rows"].is_default is False
