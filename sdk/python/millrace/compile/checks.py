"""The data-quality rules of a view: those every view has, and those it declares."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from millrace.errors import CompileError
from millrace.plan import FeaturePlan, ViewPlan

Severity = Literal["error", "warn"]

MAX_PSI = 0.2
"""Above this a population stability index is commonly read as a shift."""

_NEVER_NEGATIVE = frozenset({"count", "variance", "stddev"})


@dataclass(frozen=True)
class Rule:
    """One rule, judged for each partition of ``features/<view>``.

    Attributes:
        name: unique within the view: the type, or ``type__feature``.
        type: ``rows``, ``null_keys``, ``dead_letters``, ``null_rate``, ``range``, ``drift``,
            ``freshness``, or a type that the declaration names.
        feature: the column it judges; None for the table.
        arguments: limits as plain numbers: ``min``, ``max``, ``max_age_ms``, ``metric``.
        severity: ``warn`` reports, ``error`` also fails the asset check.
        is_default: False for a declared rule.
    """

    name: str
    type: str
    feature: str | None
    arguments: Mapping[str, Any]
    severity: Severity
    is_default: bool = True

    def document(self) -> dict[str, Any]:
        """Return the rule as a JSON object."""
        return {
            "name": self.name,
            "type": self.type,
            "feature": self.feature,
            "arguments": dict(self.arguments),
            "severity": self.severity,
            "is_default": self.is_default,
        }


def check_rules(view: ViewPlan) -> tuple[Rule, ...]:
    """Return a view's rules: the defaults in a fixed order, then what it declares.

    A declared rule takes the place of the default of the same type and feature.

    Raises:
        CompileError: two declared checks have the same type and feature, or a severity that is
            neither ``error`` nor ``warn``.
    """
    declared: dict[str, Rule] = {}
    for rule in _declared(view):
        if rule.name in declared:
            raise CompileError(
                f"the check {rule.type!r} is declared twice for {rule.feature or 'the table'}",
                where=f"view {view.name}",
                fix="keep one of them",
            )
        declared[rule.name] = rule
    defaults = [rule for rule in _defaults(view) if rule.name not in declared]
    return (*defaults, *declared.values())


def _defaults(view: ViewPlan) -> Iterator[Rule]:
    # A day without events is news, not an error; so are keys that belong to nobody.
    yield _rule("rows", None, "warn", min=1)
    yield _rule("null_keys", None, "warn", max=0)
    yield _rule("dead_letters", None, "warn", max=0)
    if view.freshness_ms is not None:
        yield _rule("freshness", None, "error", max_age_ms=view.freshness_ms)
    for feature in view.features:
        yield from _of_feature(feature)


def _of_feature(feature: FeaturePlan) -> Iterator[Rule]:
    # These two hold by the meaning of the aggregate: to break one is an error of the platform.
    if feature.aggregate == "count":
        yield _rule("null_rate", feature.name, "error", max=0.0)
    if feature.aggregate in _NEVER_NEGATIVE:
        yield _rule("range", feature.name, "error", min=0)
    if feature.type.is_numeric:
        yield _rule("drift", feature.name, "warn", metric="psi", max=MAX_PSI)


def _declared(view: ViewPlan) -> Iterator[Rule]:
    for check in view.checks:
        arguments = dict(check.arguments)
        feature = arguments.pop("feature", None)
        severity = arguments.pop("severity", "error")
        if severity not in ("error", "warn"):
            raise CompileError(
                f"the check {check.type!r} has the severity {severity!r}",
                where=f"view {view.name} ({check.where})",
                fix="write severity: error, or severity: warn",
            )
        name = _rule_name(check.type, feature)
        kept = MappingProxyType(arguments)
        yield Rule(name, check.type, feature, kept, severity, is_default=False)


def _rule(type_: str, feature: str | None, severity: Severity, **arguments: Any) -> Rule:
    kept = MappingProxyType(arguments)
    return Rule(_rule_name(type_, feature), type_, feature, kept, severity)


def _rule_name(type_: str, feature: str | None) -> str:
    return type_ if feature is None else f"{type_}__{feature}"
