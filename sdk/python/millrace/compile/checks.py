"""The data-quality rules of a view and of its source: those all have, and those declared.

Limits marked ``tolerance`` are held against what is usual: the median of the baseline days, plus
or minus the larger of the tolerance and a number of times their own spread. ``min`` and ``max``
are absolute. ``millrace.quality.judge`` says what is measured for each type.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from millrace.calendar import days_after
from millrace.check_types import COMMON, absolute
from millrace.durations import DAY_MS, HOUR_MS
from millrace.errors import CompileError
from millrace.plan import Column, DerivedPlan, FeaturePlan, Output, SourcePlan, ViewPlan
from millrace.spec import Check

Severity = Literal["error", "warn"]

MAX_PSI = 0.1
"""Below this a population stability index is commonly read as no shift at all."""

MAX_HOURS_PSI = 0.03
"""Hours of the day are many rows in few bins: a shift by one hour is a small one in PSI."""

ERROR_TIMES = 10.0
"""Drift this many times beyond its limit is an error: it was no drift, something broke."""

RUNBOOKS = "docs/runbooks.md"
"""Where to read what to do: a heading per type."""


@dataclass(frozen=True)
class Rule:
    """One rule, judged for each day of ``events/<source>`` or ``features/<view>``.

    Attributes:
        name: unique within the table: the type, or ``type__column``; with the metric behind it
            for drift of another than psi, and with the expectation for an ``expectation``.
        type: a key of ``millrace.check_types.CHECK_TYPES``.
        feature: the column it judges, a feature or a source's column; None for the table.
        arguments: limits as plain values: ``min``, ``max``, ``tolerance``, ``metric``,
            ``max_age_ms``, ``baseline`` and so on.
        severity: how loud a finding is: ``error`` or ``warn``.
        is_default: False for a declared rule.
        is_blocking: True if a finding keeps the day from readers: of what holds by the meaning of a
            feature, and of what is declared with severity ``error``. A default that compares with
            what is usual may be wrong, so it alerts and lets the day through.
        owner: who is told; None if nobody was named.
        runbook: URL or place in the documentation that says what to do.
    """

    name: str
    type: str
    feature: str | None
    arguments: Mapping[str, Any]
    severity: Severity
    is_default: bool = True
    is_blocking: bool = False
    owner: str | None = None
    runbook: str = ""

    def document(self) -> dict[str, Any]:
        """Return the rule as a JSON object."""
        return {
            "name": self.name,
            "type": self.type,
            "feature": self.feature,
            "arguments": dict(self.arguments),
            "severity": self.severity,
            "is_default": self.is_default,
            "is_blocking": self.is_blocking,
            "owner": self.owner,
            "runbook": self.runbook,
        }


def check_rules(view: ViewPlan) -> tuple[Rule, ...]:
    """Return the rules of ``features/<view>``: the defaults in a fixed order, then the declared.

    A declared rule takes the place of the default of the same name. Checks that name a ``column``
    are rules of the source, not of the view.

    Raises:
        CompileError: two declared checks have the same name, or a severity that is neither
            ``error`` nor ``warn``.
    """
    declared = _declared(view, of_source=False)
    return _joined(_view_defaults(view), declared, f"view {view.name}", view.owner)


def source_rules(source: SourcePlan, views: Sequence[ViewPlan]) -> tuple[Rule, ...]:
    """Return the rules of ``events/<source>``: defaults, then what its views declare of columns.

    The owner of a rule is the one that all the views that read the source have in common; the
    owner of a declared rule is its view's.

    Args:
        source: the source.
        views: the views that read it (``Plan.views_of``); a check of theirs that names a
            ``column`` in place of a ``feature`` is a rule of the source.

    Raises:
        CompileError: two declared checks have the same name, or a severity that is neither
            ``error`` nor ``warn``.
    """
    owners = {view.owner for view in views}
    owner = next(iter(owners)) if len(owners) == 1 else None
    declared = [rule for view in views for rule in _declared(view, of_source=True)]
    return _joined(_source_defaults(source), declared, f"source {source.name}", owner)


def _joined(
    defaults: Iterator[Rule], declared: Sequence[Rule], where: str, owner: str | None
) -> tuple[Rule, ...]:
    by_name: dict[str, Rule] = {}
    for rule in declared:
        if rule.name in by_name:
            raise CompileError(
                f"the check {rule.type!r} is declared twice for {rule.feature or 'the table'}",
                where=where,
                fix="keep one of them",
            )
        by_name[rule.name] = rule
    kept = [_owned(rule, owner) for rule in defaults if rule.name not in by_name]
    return (*kept, *by_name.values())


def _source_defaults(source: SourcePlan) -> Iterator[Rule]:
    yield _rule("rows", None, "warn", min=1)
    yield _rule("volume", None, "warn", tolerance=0.5)
    yield _rule("completeness", None, "error", max=0)
    yield _rule("freshness", None, "warn", tolerance_ms=HOUR_MS)
    yield _rule("dead_letters", None, "warn", tolerance=0.005)
    # Where rows have no id, equal rows happen; how many is a matter of habit.
    limit = {"tolerance": 0.1} if source.event_id is None else {"max": 0.0}
    yield _rule("uniqueness", None, "error", **limit)
    for column in source.columns:
        if column.name not in (source.event_id, source.event_time, source.ingest_time):
            yield from _of_column(column)
    hours: dict[str, Any] = {"max": MAX_HOURS_PSI, "error_times": ERROR_TIMES}
    yield _rule("drift", source.event_time, "warn", metric="psi", **hours)


def _of_column(column: Column) -> Iterator[Rule]:
    name, kind = column.name, column.type.kind
    yield _rule("null_rate", name, "error", tolerance=0.02)
    if kind in {"timestamp", "date", "bytes", "vector"}:
        return
    yield _rule("frozen", name, "error", tolerance=0.4)
    yield _rule("drift", name, "warn", metric="psi", max=MAX_PSI, error_times=ERROR_TIMES)
    yield _rule("drift", name, "warn", metric="mean", tolerance=0.05)
    if kind == "string":
        yield _rule("unseen", name, "warn", tolerance=0.01)
    if kind == "bool":
        return
    yield _rule("cardinality", name, "warn", tolerance=0.5)
    if column.type.is_numeric:
        yield _rule("range", name, "warn", tolerance=0.002)
        yield _rule("drift", name, "warn", metric="variance", tolerance=0.5)


def _view_defaults(view: ViewPlan) -> Iterator[Rule]:
    # A day without events is news, not an error; so are keys that belong to nobody.
    yield _rule("rows", None, "warn", min=1)
    yield _rule("volume", None, "warn", tolerance=0.5)
    yield _rule("completeness", None, "warn", max=0)
    yield _rule("null_keys", None, "warn", tolerance=0.02)
    yield _rule("dead_letters", None, "warn", tolerance=0.005)
    if view.freshness_ms is not None:
        yield _rule("freshness", None, "error", max_age_ms=view.freshness_ms)
    yield _rule("uniqueness", None, "warn", tolerance=0.1)
    for feature in view.outputs:
        yield from _of_feature(view, feature)


def _of_feature(view: ViewPlan, feature: Output) -> Iterator[Rule]:
    is_never_null = False
    if not isinstance(feature, DerivedPlan):
        # These hold by the meaning of the aggregate: to break one is an error of the platform.
        is_never_null = feature.aggregate.entry.is_never_null
        if is_never_null:
            yield _blocking(_rule("null_rate", feature.name, "error", max=0.0))
        if feature.aggregate.entry.is_never_negative:
            yield _blocking(_rule("range", feature.name, "error", min=0))
    settled = _settled(view, view.aggregates_of(feature))
    if settled is None:
        return
    if not is_never_null:
        yield _rule("null_rate", feature.name, "warn", tolerance=0.05, settled=settled)
    if feature.type.is_numeric:
        yield _rule("frozen", feature.name, "warn", tolerance=0.3, settled=settled)
        yield _rule("drift", feature.name, "warn", metric="psi", max=MAX_PSI, settled=settled)


def _settled(view: ViewPlan, made_of: Sequence[FeaturePlan]) -> str | None:
    # Until its windows lie wholly behind the start, a feature grows; over a lifetime it never ends.
    days = 0
    for feature in made_of:
        reach_ms, hop_ms = feature.window.reach_ms, feature.window.hop_ms
        if reach_ms is None:
            return None
        days = max(days, -(-(reach_ms - hop_ms) // DAY_MS))
    return days_after(view.start, days).isoformat()


def _declared(view: ViewPlan, *, of_source: bool) -> list[Rule]:
    return [
        _declared_rule(view, check)
        for check in view.checks
        if ("column" in check.arguments) == of_source
    ]


def _declared_rule(view: ViewPlan, check: Check) -> Rule:
    given = dict(check.arguments)
    feature = given.get("feature", given.get("column"))
    severity = given.get("severity", "error")
    if severity not in ("error", "warn"):
        raise CompileError(
            f"the check {check.type!r} has the severity {severity!r}",
            where=f"view {view.name} ({check.where})",
            fix="write severity: error, or severity: warn",
        )
    limits = {name: value for name, value in given.items() if name not in COMMON}
    return Rule(
        name=_rule_name(check.type, feature, limits),
        type=check.type,
        feature=feature,
        arguments=MappingProxyType(absolute(limits)),
        severity=severity,
        is_default=False,
        is_blocking=severity == "error",
        owner=given.get("owner", view.owner),
        runbook=given.get("runbook", _runbook(check.type)),
    )


def _rule(type_: str, feature: str | None, severity: Severity, **arguments: Any) -> Rule:
    return Rule(
        _rule_name(type_, feature, arguments),
        type_,
        feature,
        MappingProxyType(arguments),
        severity,
        runbook=_runbook(type_),
    )


def _owned(rule: Rule, owner: str | None) -> Rule:
    return replace(rule, owner=owner)


def _blocking(rule: Rule) -> Rule:
    return replace(rule, is_blocking=True)


def _runbook(type_: str) -> str:
    return f"{RUNBOOKS}#{type_}"


def _rule_name(type_: str, feature: str | None, arguments: Mapping[str, Any]) -> str:
    metric = arguments.get("metric", "psi" if type_ == "drift" else None)
    # The usual metric goes without saying, unless `drift__a__mean` could be the mean of a as well.
    if metric == "psi" and "__" not in (feature or ""):
        metric = None
    parts = [type_, feature, arguments.get("expect"), metric]
    return "__".join(part for part in parts if part)
