"""The rules of a view's features: their inputs, aggregates and types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from millrace.aggregates import AGGREGATES, WITHOUT_INPUT, Aggregate, Entry, aggregate_named
from millrace.errors import SpecError
from millrace.expressions import Expression, ExpressionError, column_expression, parse_expression
from millrace.faults import FaultList, is_read
from millrace.plan import FeaturePlan, Measure
from millrace.rules.literals import LiteralFault, literal
from millrace.rules.names import RESERVED_FEATURES, check_name
from millrace.rules.sources import Columns
from millrace.rules.windows import window_of
from millrace.spec import DerivedFeature, Feature, Location
from millrace.types import DataType

_OPERATORS = frozenset("+-*/%()<>=!")
"""Characters of expressions that stand in no name."""


@dataclass
class Measures:
    """The measures of one view, shared by features with equal expressions."""

    _by_expression: dict[Expression, Measure] = field(default_factory=dict)

    def of(self, expression: Expression) -> Measure:
        """Return the measure of an expression, a new one at its first use."""
        known = self._by_expression.get(expression)
        if known is None:
            known = Measure(f"m{len(self._by_expression)}", expression)
            self._by_expression[expression] = known
        return known

    def in_order(self) -> tuple[Measure, ...]:
        """Return them in order of first use."""
        return tuple(self._by_expression.values())


def read_expression(
    text: str, of: str, where: Location, columns: Columns | None, faults: FaultList
) -> Expression | None:
    """Return a typed expression; None with a fault, or if its columns are in doubt already.

    ``columns`` is None where the source itself is unknown; then nothing can be said.
    """
    if not is_read(text) or columns is None:
        return None
    # A column whose type could not be read, or a list of columns that could not, has its own
    # fault; complaining of an expression over it would only repeat that.
    if not columns.is_complete or any(name in text for name in columns.doubtful):
        return None
    try:
        return parse_expression(text, columns.types)
    except ExpressionError as error:
        faults.add(where, f"{of}: {error.what}", error.fix)
        return None


def feature_plan(
    feature: Feature,
    join_keys: frozenset[str],
    columns: Columns | None,
    measures: Measures,
    faults: FaultList,
) -> FeaturePlan | None:
    """Resolve one feature; None if a fault keeps it from having a meaning."""
    before = len(faults)
    check_feature_name(feature, join_keys, faults)
    window = window_of(feature, faults)
    entry = _entry(feature, faults)
    parameters = _parameters(feature, entry, faults)
    expression = _input(feature, columns, faults)
    if entry is not None:
        _check_input(feature, entry, expression, faults)
    has_input = feature.column is not None or feature.expr is not None
    is_unknown = has_input and expression is None
    if window is None or entry is None or parameters is None or is_unknown:
        return None
    if len(faults) > before:
        return None
    aggregate = entry.bind(None if expression is None else expression.type, parameters)
    default = _default(feature, aggregate, faults)
    if len(faults) > before:
        return None
    measure = None if expression is None else measures.of(expression)
    return FeaturePlan(
        name=feature.name,
        aggregate=aggregate,
        measure=measure,
        window=window,
        description=feature.description,
        default=default,
    )


def _default(feature: Feature, aggregate: Aggregate, faults: FaultList) -> Any:
    if aggregate.entry.is_never_null and feature.default is not None:
        faults.add(
            feature.where.at("default"),
            f"feature {feature.name!r}: a {aggregate.name} is never null, and has no default",
            f"remove default: a {aggregate.name} of nothing is {aggregate.empty}",
        )
        return None
    return default_of(feature, aggregate.type, feature.aggregate, faults)


def default_of(
    feature: Feature | DerivedFeature, type_: DataType, giver: str, faults: FaultList
) -> Any:
    """Return a feature's default as a value of its type; None if it has none, or with a fault.

    ``giver`` is what gives values of the type, for messages.
    """
    if feature.default is None or (
        isinstance(feature.default, str) and not is_read(feature.default)
    ):
        return None
    try:
        return literal(feature.default, type_)
    except LiteralFault as fault:
        what = f"feature {feature.name!r}: default {fault.what}"
        fix = f"{fault.fix}; {giver} gives a {type_} here"
        faults.add(feature.where.at("default"), what, fix)
        return None


def check_feature_name(
    feature: Feature | DerivedFeature, join_keys: frozenset[str], faults: FaultList
) -> None:
    """Note a fault if a feature cannot have its name."""
    where = feature.where.at("name")
    is_valid = check_name(feature.name, "a feature", where, faults, reserved=RESERVED_FEATURES)
    if is_valid and feature.name in join_keys:
        faults.add(
            where,
            f"{feature.name!r} cannot name a feature: it is a join key of the view",
            "call it otherwise; both are columns of one table",
        )


def _entry(feature: Feature, faults: FaultList) -> Entry | None:
    if not is_read(feature.aggregate):
        return None
    try:
        return aggregate_named(feature.aggregate)
    except SpecError as error:
        works = f"what works now: {', '.join(AGGREGATES)}"
        is_said = error.fix.startswith("did you mean")
        fix = error.fix if is_said else f"{error.fix}; {works}" if error.fix else works
        faults.add(feature.where.at("aggregate"), f"feature {feature.name!r}: {error.what}", fix)
        return None


def _parameters(
    feature: Feature, entry: Entry | None, faults: FaultList
) -> Mapping[str, float] | None:
    """Return what the aggregate is told; every fault of it is reported. None: it is not known."""
    if entry is None:
        return None
    takes = {parameter.name: parameter for parameter in entry.parameters}
    for name in feature.parameters:
        if name not in takes:
            faults.add(
                feature.where.at(name),
                f"feature {feature.name!r}: {feature.aggregate} takes no {name}",
                f"remove {name}",
            )
    written = dict(feature.where.lines)
    for name, parameter in takes.items():
        if name not in feature.parameters and (name in written or f"{name}s" in written):
            # Its reader has told that it could not be read.
            return None
        value = feature.parameters.get(name, parameter.default)
        fault = f"{name} is missing" if value is None else parameter.fault(value)
        if fault is not None:
            faults.add(
                feature.where.at(name),
                f"feature {feature.name!r}: {fault}",
                f"{name}: {parameter.description}, {parameter.least:g} to {parameter.most:g}",
            )
    return feature.parameters


def _input(feature: Feature, columns: Columns | None, faults: FaultList) -> Expression | None:
    where = feature.where
    if feature.column is not None and feature.expr is not None:
        faults.add(
            where.at("expr"), f"feature {feature.name!r} has column and expr", "keep one of them"
        )
        return None
    if feature.expr is not None:
        label = f"feature {feature.name!r}"
        return read_expression(feature.expr, label, where.at("expr"), columns, faults)
    if feature.column is None or not is_read(feature.column) or columns is None:
        return None
    found: DataType | None = columns.lookup(feature.column)
    if found is not None:
        return column_expression(feature.column, found)
    if columns.is_missing(feature.column):
        faults.add(
            where.at("column"),
            f"feature {feature.name!r}: the source has no column {feature.column!r}",
            _as_expression(feature.column, columns) or columns.nearest(feature.column),
        )
    return None


def _as_expression(text: str, columns: Columns) -> str:
    """Say where an expression belongs that stands where a column is named; empty for a mere name."""
    if not set(text) & _OPERATORS:
        return ""
    said = f"that is an expression, not a column: expr: {text}; in Python expr={text!r}"
    try:
        parse_expression(text, columns.types)
    except ExpressionError as error:
        return f"{said}; in it, {error.what}" + (f": {error.fix}" if error.fix else "")
    return said


def _check_input(
    feature: Feature, entry: Entry, expression: Expression | None, faults: FaultList
) -> None:
    if expression is None:
        if entry.needs_input and feature.column is None and feature.expr is None:
            faults.add(
                feature.where.at("aggregate"),
                f"feature {feature.name!r}: {feature.aggregate} of what?",
                f"name a column: or an expr:; without one work {WITHOUT_INPUT}",
            )
        return
    if entry.accepts(expression.type):
        return
    accepting = [a.name for a in AGGREGATES.values() if a.accepts(expression.type)]
    hint = f"{expression.type} works with {', '.join(accepting)}"
    if expression.type.kind == "bool":
        condition = expression.text
        hint = f"expr: CASE WHEN {condition} THEN 1 ELSE 0 END; or {', '.join(accepting)}"
    faults.add(
        feature.where.at("expr" if feature.expr is not None else "column"),
        f"feature {feature.name!r}: {feature.aggregate} of a {expression.type} has no meaning",
        hint,
    )
