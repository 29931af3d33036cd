"""The rules of derived features: what they read, in which order they are calculated, their types."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from millrace.errors import nearest
from millrace.expressions import AS_OF, Expression, ExpressionError, names_in, parse_expression
from millrace.faults import FaultList, is_read
from millrace.plan import DerivedPlan, FeaturePlan
from millrace.rules.features import default_of
from millrace.rules.sources import Columns
from millrace.spec import DerivedFeature, FeatureView
from millrace.types import KINDS, TIMESTAMP, DataType

_AS_WRITTEN = 6
"""Of a long cycle this many names are shown."""


@dataclass(frozen=True)
class Known:
    """What the derived features of one view may read.

    Attributes:
        features: the aggregates without fault.
        columns: of the source, for those who name one; None if it is not known.
    """

    view: FeatureView
    features: Sequence[FeaturePlan]
    columns: Columns | None


def derived_plans(known: Known, faults: FaultList) -> tuple[DerivedPlan, ...]:
    """Resolve the derived features of a view, each behind its inputs, else as declared.

    Left out are those with a fault, and those of which an input has one.
    """
    derived: dict[str, DerivedFeature] = {}
    reads: dict[str, tuple[str, ...]] = {}
    for feature in known.view.features:
        if isinstance(feature, DerivedFeature):
            found = _names(feature, known, faults)
            if found is not None and is_read(feature.name) and feature.name not in derived:
                derived[feature.name], reads[feature.name] = feature, found
    in_cycles = _check_cycles(reads, derived, faults)
    types: dict[str, DataType] = {f.name: f.type for f in known.features}
    plans: list[DerivedPlan] = []
    for name in _ordered(derived, reads, in_cycles):
        if types.keys() >= set(reads[name]):
            plan = _plan(derived[name], reads[name], types, faults)
            if plan is not None:
                types[name] = plan.type
                plans.append(plan)
    return tuple(plans)


def _names(feature: DerivedFeature, known: Known, faults: FaultList) -> tuple[str, ...] | None:
    """Return the features that one reads; None where it cannot be known or there are no such."""
    if not is_read(feature.derive):
        return None
    where = feature.where.at("derive")
    try:
        names = tuple(name for name in names_in(feature.derive) if name != AS_OF)
    except ExpressionError as error:
        faults.add(where, f"feature {feature.name!r}: {error.what}", error.fix)
        return None
    declared = [f.name for f in known.view.features]
    if not all(map(is_read, declared)):
        return names
    unknown = [name for name in names if name not in declared]
    for name in unknown:
        columns = known.columns
        is_column = columns is not None and columns.lookup(name) is not None
        faults.add(
            where,
            f"feature {feature.name!r}: view {known.view.name!r} has no feature {name!r}"
            + (f"; {known.view.source!r} has a column of that name" if is_column else ""),
            f"derive of an aggregate of it: {{name: …, aggregate: last, column: {name}, window: …}}"
            if is_column
            else nearest(name, [other for other in declared if other != feature.name]),
        )
    return None if unknown else names


def _check_cycles(
    reads: Mapping[str, tuple[str, ...]],
    derived: Mapping[str, DerivedFeature],
    faults: FaultList,
) -> set[str]:
    """Note each cycle once, at the first of its features as declared; return who is in one."""
    found: set[str] = set()
    for name in derived:
        cycle = [] if name in found else _cycle(name, reads)
        if cycle:
            found.update(cycle)
            shown = [*cycle[:_AS_WRITTEN], *(["…"] if len(cycle) > _AS_WRITTEN else []), name]
            faults.add(
                derived[name].where.at("derive"),
                f"feature {name!r} is derived of itself: {' -> '.join(shown)}",
                "let one of them read aggregates alone",
            )
    return found


def _cycle(start: str, reads: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the shortest way from a feature back to itself; empty if there is none."""
    paths, seen = [[start]], set[str]()
    for path in paths:
        for name in reads.get(path[-1], ()):
            if name == start:
                return path
            if name not in seen:
                seen.add(name)
                paths.append([*path, name])
    return []


def _ordered(
    derived: Mapping[str, DerivedFeature], reads: Mapping[str, tuple[str, ...]], skipped: set[str]
) -> Iterator[str]:
    """Yield the derived features, each behind what it reads, else in declared order."""
    done = set(skipped)
    for name in derived:
        # A stack and no recursion: a chain may be as long as a view.
        stack = [name]
        while stack:
            first = stack[-1]
            left = [n for n in reads[first] if n in derived and n not in done]
            if first in done or not left:
                stack.pop()
                if first not in done:
                    done.add(first)
                    yield first
            else:
                stack.extend(reversed(left))


def _plan(
    feature: DerivedFeature,
    reads: Sequence[str],
    types: Mapping[str, DataType],
    faults: FaultList,
) -> DerivedPlan | None:
    label, before = f"feature {feature.name!r}", len(faults)
    where = feature.where.at("derive")
    for name in reads:
        if types[name].kind not in KINDS:
            faults.add(
                where,
                f"{label}: {name!r} is a {types[name]}, and expressions have no {types[name].kind}s",
                "derive of features of one value",
            )
    if len(faults) > before:
        return None
    try:
        expression: Expression = parse_expression(
            feature.derive, {**types, AS_OF: TIMESTAMP}, of="feature"
        )
    except ExpressionError as error:
        faults.add(where, f"{label}: {error.what}", error.fix)
        return None
    default = default_of(feature, expression.type, "the expression", faults)
    if len(faults) > before:
        return None
    return DerivedPlan(feature.name, expression, feature.description, default)
