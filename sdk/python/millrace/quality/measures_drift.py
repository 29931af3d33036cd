"""How drift is measured: PSI, Jensen-Shannon, and shifts of mean and variance."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import exp, log, log1p, sqrt

import numpy as np

from millrace.quality.baseline import Limits, usual, wider
from millrace.quality.case import Case
from millrace.quality.finding import Finding
from millrace.quality.histogram import (
    Counts,
    bins_of,
    histogram,
    hour_counts,
    js,
    js_by_chance,
    psi,
    psi_by_chance,
)
from millrace.quality.measures_column import grows
from millrace.quality.profile import ColumnProfile

DISTANCE_SPREADS = 8.0
MEAN_SPREADS = 8.0
VARIANCE_SPREADS = 8.0

_MAX = {"psi": 0.1, "js": 0.02}

_TIMES_CHANCE = 4.0
_MARGIN = 1.25
"""The farthest of a few weeks is soon passed by a little, by a day that is not to blame."""
_STANDARD_ERRORS = 6.0
_HOURS = tuple(f"{hour:02d}:00" for hour in range(24))

_DISTANCES: dict[str, tuple[Callable[[Counts, Counts], Counts], Callable[..., float]]] = {
    "psi": (psi, psi_by_chance),
    "js": (js, js_by_chance),
}


def drift(case: Case) -> Finding:
    """Judge the day's distribution by the rule's metric (``psi`` unless it names another).

    Of the event time, the hours of the day are compared.
    """
    column = case.column
    if column is None or not column.values:
        return case.unknown("the day has no values")
    if reason := case.too_early():
        return case.unknown(reason, n=case.day.rows)
    if column.kind == "instant":
        return _of_hours(case)
    return _of_column(case, column)


def _of_column(case: Case, column: ColumnProfile) -> Finding:
    groups = case.baseline.column_groups(column.column)
    if not groups:
        return case.unknown("no earlier day has values", n=column.values)
    if column.kind == "number" and grows(groups[0]):
        return case.unknown("it grows from day to day, as a sequence does", n=column.values)
    measure = {"mean": _mean, "variance": _variance}.get(case.argument("metric", "psi"), _distance)
    return measure(case, column, groups)


def _distance(
    case: Case, column: ColumnProfile, groups: Sequence[Sequence[ColumnProfile]]
) -> Finding:
    found = None
    for past in groups:
        bins = bins_of(past)
        if bins is None:
            return case.unknown(f"values of {column.column} are not compared", n=column.values)
        counts = bins.count([*past, column])
        found = _of_counts(case, bins.labels, counts[:-1], counts[-1])
        if found.verdict == "passed":
            break
    return found or case.unknown("no earlier day has values", n=column.values)


def _of_hours(case: Case) -> Finding:
    found = None
    for group in case.baseline.groups:
        counts = hour_counts([*group, case.day])
        found = _of_counts(case, _HOURS, counts[:-1], counts[-1])
        if found.verdict == "passed":
            break
    return found or case.unknown("no earlier day has rows", n=case.day.rows)


def _of_counts(case: Case, labels: Sequence[str], days: Counts, actual: Counts) -> Finding:
    metric = case.argument("metric", "psi")
    distance, by_chance = _DISTANCES[metric]
    total = days.sum(axis=0)
    chance = by_chance(total, actual)
    limit = max(case.argument("max", _MAX[metric]), _TIMES_CHANCE * chance)
    if case.rule.is_default or "spreads" in case.rule.arguments:
        # Days that differ among themselves say how far a day may lie from all of them. Each is
        # held against the others: against a sum with itself in it, it would look too close.
        own = distance(total - days, days).tolist()
        spreads = case.argument("spreads", DISTANCE_SPREADS)
        limit = max(limit, _MARGIN * (usual(own, 0.0, spreads).high or 0.0))
    value = float(distance(total, actual))
    return _graver(case, value, limit).judged(
        value,
        Limits(None, limit),
        n=int(actual.sum()),
        words=lambda v: f"{metric} {v:.3f}",
        baseline_days=len(days),
        because=lambda: f"by chance {chance:.3f}; {_most_moved(labels, total, actual)}",
        histogram=histogram(labels, total, actual),
    )


def _graver(case: Case, value: float, limit: float) -> Case:
    # What has moved many times as far as is worth a warning must not reach readers.
    times = case.argument("error_times")
    if times is None or value <= times * limit:
        return case
    return replace(case, rule=replace(case.rule, severity="error"))


def _mean(case: Case, column: ColumnProfile, groups: Sequence[Sequence[ColumnProfile]]) -> Finding:
    mean, variance = pooled(groups[0])
    deviation = sqrt(variance)
    # In standard errors of the day, and as an effect: a share of the standard deviation.
    tolerance = max(
        case.argument("tolerance", 0.05) * deviation,
        _STANDARD_ERRORS * deviation / sqrt(column.values),
    )
    spreads = case.argument("spreads", MEAN_SPREADS)
    limits = wider(
        usual([c.mean for c in past if c.mean is not None], tolerance, spreads) for past in groups
    )
    value = column.mean or 0.0
    effect = (value - mean) / deviation if deviation else 0.0
    what = "mean length" if column.kind == "text" else "mean"
    return case.judged(
        value,
        limits,
        n=column.values,
        words=lambda v: f"{what} {v:.5g}",
        baseline_days=len(groups[0]),
        because=lambda: f"{effect:+.2f} standard deviations from {mean:.5g}",
    )


def _variance(
    case: Case, column: ColumnProfile, groups: Sequence[Sequence[ColumnProfile]]
) -> Finding:
    tolerance = log1p(case.argument("tolerance", 0.5))
    spreads = case.argument("spreads", VARIANCE_SPREADS)
    logs = [[log(c.variance) for c in past if c.variance] for past in groups]
    if not logs[0]:
        return case.unknown("it never varied", n=column.values)
    found = wider(usual(own, tolerance, spreads) for own in logs if own)
    limits = Limits(exp((found.low or 0.0) / 2), exp((found.high or 0.0) / 2))
    return case.judged(
        sqrt(column.variance or 0.0),
        limits,
        n=column.values,
        words=lambda v: f"standard deviation {v:.5g}",
        baseline_days=len(groups[0]),
    )


def pooled(past: Sequence[ColumnProfile]) -> tuple[float, float]:
    """Return mean and population variance of all the days together."""
    values = mean = m2 = 0.0
    for column in past:
        if column.mean is None or column.m2 is None:
            continue
        total = values + column.values
        step = column.mean - mean
        m2 += column.m2 + step * step * values * column.values / total
        mean += step * column.values / total
        values = total
    return mean, m2 / values if values else 0.0


def _most_moved(labels: Sequence[str], baseline: Counts, actual: Counts) -> str:
    p, q = baseline / max(1.0, baseline.sum()), actual / max(1.0, actual.sum())
    most = int(np.argmax(np.abs(q - p)))
    return f"most moved: {labels[most]}, {p[most]:.1%} to {q[most]:.1%}"
