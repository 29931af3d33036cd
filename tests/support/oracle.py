"""Features of plans as the reference knows them, and what tests tell aggregates."""

import math
from collections.abc import Mapping

from millrace.aggregates import AGGREGATES, TOLERANCES, Aggregate
from millrace.expressions import evaluate
from millrace.plan import DerivedPlan, FeaturePlan
from millrace.types import DataType
from tests import reference
from tests.support.window_cases import reference_fields

TOLD: Mapping[str, float] = {"limit": 3, "precision": 8, "p": 75, "k": 2}
"""What aggregates are told where a test does not say: small, so that a few events pass it."""


def told(aggregate: str) -> tuple[tuple[str, float], ...]:
    """Return the parameters of an aggregate in tests."""
    return tuple((one.name, TOLD[one.name]) for one in AGGREGATES[aggregate].parameters)


def bound_to(aggregate: str, type_: DataType | None) -> Aggregate:
    """Return an aggregate with those parameters, of values of a type or of events as such."""
    return AGGREGATES[aggregate].bind(type_, dict(told(aggregate)))


def agree_as_vectors(aggregate: Aggregate, got: object, want: object) -> bool | None:
    """Tell whether two vectors are as near as engines promise; None where they are none."""
    if aggregate.type.kind != "vector" or not (isinstance(got, list) and isinstance(want, list)):
        return None
    relative = TOLERANCES[aggregate.agreement]
    pairs = list(zip(got, want, strict=True))
    return all(math.isclose(a, b, rel_tol=relative, abs_tol=relative and 2**-149) for a, b in pairs)


def oracle_feature(feature: FeaturePlan) -> reference.Feature:
    """Return what the reference is asked about a feature of a plan."""
    measure = feature.measure
    return reference.Feature(
        f"{feature.aggregate.name}_rows" if measure is None else feature.aggregate.name,
        **reference_fields(feature.window),
        type="int64" if measure is None else str(measure.type),
        default=feature.default,
        parameters=feature.aggregate.parameters,
    )


def oracle_derived(feature: DerivedPlan) -> reference.Derived:
    """Return how the reference derives a feature of a plan."""
    return reference.Derived(
        feature.inputs, lambda row: evaluate(feature.expression, row), feature.default
    )
