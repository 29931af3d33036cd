"""Features of plans as the reference knows them."""

from millrace.plan import FeaturePlan
from tests import reference


def oracle_feature(feature: FeaturePlan) -> reference.Feature:
    """Return what the reference is asked about a feature of a plan."""
    window, measure = feature.window, feature.measure
    return reference.Feature(
        f"{feature.aggregate.name}_rows" if measure is None else feature.aggregate.name,
        window.length_ms,
        window.hop_ms,
        window.offset_ms,
        "int64" if measure is None else str(measure.type),
        feature.default,
    )
