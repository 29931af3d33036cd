"""The suite that Great Expectations holds a day's metrics against, generated from the rules.

The metrics are a frame of one row per day. For each rule it has the column ``<type>(<column>)``
with what was measured, and ``… at least`` and ``… at most`` with the limits, which differ from day
to day where a rule compares with a baseline. So the whole suite is readable: one pair of columns
per limit. Beside them stand the plain counts (``nulls(amount)``, ``mean(amount)``), for the
expectations that a declaration adds.

Everything here is plain data; ``checks.quality.expectation_judge`` is what imports Great Expectations.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from checks.quality.judgement import JudgedDay
from millrace.compile.checks import Rule
from millrace.quality.profile import DayProfile

AT_LEAST, AT_MOST = " at least", " at most"

_SEVERITIES = {"error": "critical", "warn": "warning"}
_COUNTS = ("null_rate", "nulls", "distinct", "minimum", "maximum", "mean", "variance")
_ORDERED = "expect_column_pair_values_a_to_be_greater_than_b"
_DECLARED = "declared"
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


def measure_names(rules: Sequence[Rule]) -> dict[str, str]:
    """Return the frame's column of each rule by its name: ``rows``, ``null_rate(amount)``.

    A rule that measures what an earlier one does has a column of its own name.
    """
    names: dict[str, str] = {}
    for rule in rules:
        if rule.type != "expectation":
            name = _measure(rule)
            names[rule.name] = rule.name if name in names.values() else name
    return names


def _measure(rule: Rule) -> str:
    measure = rule.type
    if rule.type == "drift":
        metric = rule.arguments.get("metric", "psi")
        # ``mean(amount)`` is the mean itself; this is how far it lies from the usual one.
        measure = f"{metric}_shift" if metric in ("mean", "variance") else metric
    return f"{measure}({rule.feature})" if rule.feature else measure


def suite(table: str, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return a table's suite as the JSON that Great Expectations itself writes and reads.

    The generated expectations come first, in the order of the rules, then the declared ones that
    judge metrics. Expectations on rows are in ``row_suite``.
    """
    names = measure_names(rules)
    expectations = [
        *(e for r in rules if r.name in names for e in _generated(r, names[r.name])),
        *(declared(rule) for rule in rules if judges_metrics(rule)),
    ]
    return {
        "name": table,
        "expectations": expectations,
        "meta": {"generated_by": "millrace compile --target expectations"},
    }


def applicable(suite: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Leave out the generated expectations of which a frame has nothing to compare on any day."""
    empty = {name for name, values in columns.items() if all(v is None for v in values)}
    kept = [
        e
        for e in suite["expectations"]
        if not (e["meta"]["notes"] != _DECLARED and {*e["kwargs"].values()} & empty)
    ]
    return {**suite, "expectations": kept}


def row_suite(table: str, rules: Sequence[Rule]) -> dict[str, Any]:
    """Return the suite of the declared expectations on the rows of a day (``mode: rows``)."""
    expectations = [declared(rule) for rule in rules if judges_rows(rule)]
    return {"name": f"{table} rows", "expectations": expectations, "meta": {}}


def judges_metrics(rule: Rule) -> bool:
    """Tell whether a rule is a declared expectation on the metrics of a day."""
    return rule.type == "expectation" and rule.arguments.get("mode", "profile") == "profile"


def judges_rows(rule: Rule) -> bool:
    """Tell whether a rule is a declared expectation on the rows of a day."""
    return rule.type == "expectation" and rule.arguments.get("mode", "profile") == "rows"


def _generated(rule: Rule, name: str) -> Iterator[dict[str, Any]]:
    """One expectation per side; a limit that a rule does not have is null and ignored."""
    for larger, smaller, words in (
        (name + AT_MOST, name, "at most what is allowed or usual"),
        (name, name + AT_LEAST, "at least what is allowed or usual"),
    ):
        arguments = {
            "column_A": larger,
            "column_B": smaller,
            "or_equal": True,
            "ignore_row_if": "either_value_is_missing",
        }
        side = "high" if larger.endswith(AT_MOST) else "low"
        yield _document(rule, _ORDERED, arguments, f"{rule.name}:{side}", f"{name} is {words}")


def declared(rule: Rule) -> dict[str, Any]:
    """Return a declared expectation as Great Expectations reads it.

    Over metrics, ``feature: amount`` and ``column: null_rate`` mean the column
    ``null_rate(amount)``; over rows, the column is the feature unless another one is named.
    """
    arguments = dict(rule.arguments.get("arguments", {}))
    if judges_rows(rule):
        if rule.feature is not None and not set(arguments) & {*_COLUMN_ARGUMENTS, "column_list"}:
            arguments["column"] = rule.feature
    else:
        for name in _COLUMN_ARGUMENTS:
            column = arguments.get(name)
            if rule.feature is not None and isinstance(column, str) and "(" not in column:
                arguments[name] = f"{column}({rule.feature})"
    return _document(rule, rule.arguments["expect"], arguments, rule.name, _DECLARED)


def _document(
    rule: Rule, expectation: str, arguments: Mapping[str, Any], identity: str, notes: str
) -> dict[str, Any]:
    return {
        "type": expectation,
        "kwargs": dict(arguments),
        "severity": _SEVERITIES[rule.severity],
        "meta": {
            "id": identity,
            "rule": rule.name,
            "notes": notes,
            "owner": rule.owner,
            "runbook": rule.runbook,
        },
    }


def frame(days: Sequence[JudgedDay], rules: Sequence[Rule]) -> dict[str, list[Any]]:
    """Return the metrics of days as columns, one value per day; null where nothing was measured."""
    columns: dict[str, list[Any]] = {"day": [judged.day.isoformat() for judged in days]}
    names = dict.fromkeys(c for judged in days for c in judged.profile.columns)
    columns["row_count"] = [judged.profile.rows for judged in days]
    columns["duplicates"] = [judged.profile.duplicates for judged in days]
    for column in names:
        for count in _COUNTS:
            values = [_count(judged.profile, column, count) for judged in days]
            columns[f"{count}({column})"] = values
    for rule, name in measure_names(rules).items():
        for title, values in _measured(rule, name, days).items():
            # A plain count of the same name is the same number, and known on every day.
            columns.setdefault(title, values)
    return columns


def _count(profile: DayProfile, column: str, count: str) -> float | None:
    found = profile.columns.get(column)
    value = None if found is None else getattr(found, count)
    return None if value is None else float(value)


def _measured(rule: str, name: str, days: Sequence[JudgedDay]) -> dict[str, list[Any]]:
    findings = [next((f for f in d.findings if f.rule.name == rule), None) for d in days]
    return {
        name: [f.value if f else None for f in findings],
        name + AT_LEAST: [f.low if f else None for f in findings],
        name + AT_MOST: [f.high if f else None for f in findings],
    }


def row_columns(rules: Iterable[Rule]) -> list[str]:
    """Return the columns of the table that the expectations on rows read; empty for all."""
    wanted: dict[str, None] = {}
    for rule in rules:
        arguments = declared(rule)["kwargs"]
        named = [arguments[name] for name in _COLUMN_ARGUMENTS if name in arguments]
        named += arguments.get("column_list", [])
        if not named or "row_condition" in arguments:
            return []
        wanted.update(dict.fromkeys(named))
    return list(wanted)
