"""How rules of one column are measured: nulls, range, values, constancy."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import exp, log, log1p
from statistics import fmean, median

import numpy as np

from millrace.quality.baseline import Limits, usual, wider
from millrace.quality.case import Case
from millrace.quality.finding import Finding
from millrace.quality.profile import ColumnProfile
from millrace.quality.shares import is_grave, share_limits

CARDINALITY_SPREADS = 6.0

_FEWEST_VALUES = 20
_FEWEST_OUTSIDE = 3
_EVEN = 1e-4
_GROWING = 0.8
_WARM_UP_DAYS = 14
_MOST_NAMED = 5
_OFTEN = 0.9


def null_rate(case: Case) -> Finding:
    """Judge the share of nulls; more than usual fails, fewer does not."""
    column = case.column
    if column is None or not column.rows:
        return case.unknown("the day has no rows")
    if "max" in case.rule.arguments:
        limits = Limits(None, case.argument("max"))
        return case.judged(column.null_rate, limits, n=column.rows, words=_nulls)
    if reason := case.too_early():
        return case.unknown(reason, n=column.rows)
    groups = [
        [c.null_rate for d in days if (c := d.columns.get(column.column)) and c.rows]
        for days in case.baseline.groups
    ]
    limits = share_limits(case, groups, n=column.rows, default=0.02)
    return case.graded(is_grave=is_grave(column.null_rate, limits, groups)).judged(
        column.null_rate, limits, n=column.rows, words=_nulls, baseline_days=len(groups[0])
    )


def value_range(case: Case) -> Finding:
    """Count the values outside the given range, or outside what the baseline days reached."""
    column = case.column
    if column is None or not column.smallest:
        return case.unknown("the day has no values")
    low, high = case.argument("min"), case.argument("max")
    if low is not None or high is not None:
        outside = count_outside(column, low, high)
        return _outside(case, column, outside, 0, f"allowed: {_interval(low, high)}", 0)
    if reason := case.too_early():
        return case.unknown(reason, n=column.values)
    groups = case.baseline.column_groups(column.column)
    if not groups:
        return case.unknown("no earlier day has values", n=column.values)
    past = groups[0]
    if grows(past):
        return case.unknown("it grows from day to day, as a sequence does", n=column.values)
    low, high = reach(past)
    share = case.argument("tolerance", 0.002)
    allowed = max(_FEWEST_OUTSIDE, share * column.values)
    said = f"usual: {_interval(low, high)}"
    return _outside(case, column, count_outside(column, low, high), allowed, said, len(past))


def cardinality(case: Case) -> Finding:
    """Judge the number of different values, by ratio to what so many rows usually have."""
    column = case.column
    if column is None or not column.values:
        return case.unknown("the day has no values")
    low, high = case.argument("min"), case.argument("max")
    if low is not None or high is not None:
        return case.judged(column.distinct, Limits(low, high), n=column.values, words=_different)
    if reason := case.too_early():
        return case.unknown(reason, n=column.values)
    groups = case.baseline.column_groups(column.column)
    if not groups:
        return case.unknown("no earlier day has values", n=column.values)
    # Days of more rows have more values: compared are ratios to a power of the rows.
    past = groups[0]
    slope = _slope([log(c.values) for c in past], [log(max(1.0, c.distinct)) for c in past])
    tolerance = log1p(case.argument("tolerance", 0.5))
    few = log((column.distinct + 2.0) / max(1.0, column.distinct))
    spreads = case.argument("spreads", CARDINALITY_SPREADS)
    found = wider(
        usual(
            [log(max(1.0, c.distinct)) - slope * log(c.values) for c in group],
            tolerance + few,
            spreads,
        )
        for group in groups
    )
    scale = slope * log(column.values)
    limits = Limits(exp((found.low or 0.0) + scale), exp((found.high or 0.0) + scale))
    return case.judged(
        column.distinct, limits, n=column.values, words=_different, baseline_days=len(past)
    )


def unseen(case: Case) -> Finding:
    """Judge the share of values that no earlier day had, or that are not among those given."""
    column = case.column
    if column is None or not column.values:
        return case.unknown("the day has no values")
    given = case.argument("values")
    if given is not None:
        share, names = _strange(column, {_as_text(v) for v in given})
        limits = Limits(None, case.argument("max", 0.0))
        return _unseen(case, share, names, limits, 0)
    if reason := case.too_early():
        return case.unknown(reason, n=column.values)
    earlier = (d.columns.get(column.column) for d in case.history if d.day < case.day.day)
    past = [c for c in earlier if c is not None and c.values]
    if not column.top_is_complete or not all(c.top_is_complete for c in past):
        return case.unknown("too many different values to list", n=column.values)
    known: set[str] = set()
    shares: list[float] = []
    for number, one in enumerate(past):
        if number >= min(_WARM_UP_DAYS, len(past) // 2):
            shares.append(_strange(one, known)[0])
        known.update(one.counts)
    share, names = _strange(column, known)
    if "max" in case.rule.arguments:
        limits = Limits(None, case.argument("max"))
    else:
        # Where new values keep coming, their usual share is no news.
        often = float(np.quantile(shares, _OFTEN)) if shares else 0.0
        most = max(shares, default=0.0)
        limits = Limits(None, max(often, most / 2) + case.argument("tolerance", 0.01))
    return _unseen(case, share, names, limits, len(past))


def frozen(case: Case) -> Finding:
    """Judge the share of the most frequent value: of a stuck column it is nearly all."""
    column = case.column
    if column is None or not column.values:
        return case.unknown("the day has no values")
    if column.values < _FEWEST_VALUES:
        return case.unknown(f"{column.values} values are too few to tell", n=column.values)
    share = column.top_share
    if "max" in case.rule.arguments:
        limits = Limits(None, case.argument("max"))
        return case.judged(share, limits, n=column.values, words=_one_value)
    if reason := case.too_early():
        return case.unknown(reason, n=column.values)
    groups = [
        [c.top_share for c in group if c.values >= _FEWEST_VALUES]
        for group in case.baseline.column_groups(column.column)
    ]
    if not groups or not groups[0]:
        return case.unknown("no earlier day has values enough", n=column.values)
    limits = share_limits(case, groups, n=column.values, default=0.25)
    return case.judged(
        share, limits, n=column.values, words=_one_value, baseline_days=len(groups[0])
    )


def grows(past: Sequence[ColumnProfile]) -> bool:
    """Tell whether a column is a sequence: hardly a day reaches back into the day before it."""
    pairs = [
        a.maximum < b.minimum
        for a, b in pairwise(past)
        if a.maximum is not None and b.minimum is not None
    ]
    return bool(pairs) and sum(pairs) >= _GROWING * len(pairs)


def reach(past: Sequence[ColumnProfile]) -> tuple[float, float]:
    """Return between which values the baseline days lie, widened by how much their ends vary."""
    lows = [c.smallest[0] for c in past if c.smallest]
    highs = [c.largest[-1] for c in past if c.largest]
    lowest, usual_low = min(lows), median(lows)
    highest, usual_high = max(highs), median(highs)
    margin = 0.1 * max(usual_high - usual_low, 0.0)
    return lowest - max(usual_low - lowest, margin), highest + max(highest - usual_high, margin)


def count_outside(column: ColumnProfile, low: float | None, high: float | None) -> int:
    """Count the values outside an inclusive range: exact up to 64 on each side."""
    below = 0 if low is None else bisect_left(column.smallest, low)
    above = 0 if high is None else len(column.largest) - bisect_right(column.largest, high)
    return min(below + above, column.values)


def _outside(
    case: Case, column: ColumnProfile, count: int, allowed: float, said: str, days: int
) -> Finding:
    return case.judged(
        count,
        # More than 64 on a side are not counted, so no more can be asked for.
        Limits(None, min(allowed, len(column.smallest) - 1 if allowed else 0)),
        n=column.values,
        words=lambda v: f"{v:.0f} values outside",
        baseline_days=days,
        because=lambda: f"{said}; found {_interval(column.minimum, column.maximum)}",
    )


def _unseen(case: Case, share: float, names: Sequence[str], limits: Limits, days: int) -> Finding:
    column = case.column
    return case.judged(
        share,
        limits,
        n=column.values if column else 0,
        words=lambda v: f"{v:.2%} of values are new",
        baseline_days=days,
        because=lambda: f"new: {', '.join(map(repr, names[:_MOST_NAMED]))}",
    )


def _strange(column: ColumnProfile, known: set[str]) -> tuple[float, list[str]]:
    strange = [value for value in column.counts if value not in known]
    return sum(column.counts[value] for value in strange) / column.values, strange


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    steps = np.asarray(x) - fmean(x)
    spread = float(steps @ steps)
    if spread < _EVEN * len(x):
        return 0.0
    return min(1.0, max(0.0, float(steps @ (np.asarray(y) - fmean(y))) / spread))


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _interval(low: float | None, high: float | None) -> str:
    ends = ["…" if end is None else f"{end:.6g}" for end in (low, high)]
    return f"{ends[0]} to {ends[1]}"


def _nulls(value: float) -> str:
    return f"{value:.2%} null"


def _different(value: float) -> str:
    return f"{value:,.0f} different values"


def _one_value(value: float) -> str:
    return f"{value:.0%} of one value"
