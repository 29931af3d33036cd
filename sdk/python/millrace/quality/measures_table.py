"""How rules of a whole table are measured: rows, hours, identity, freshness."""

from math import expm1, log1p

import numpy as np
import numpy.typing as npt

from millrace.durations import DAY_MS, HOUR_MS
from millrace.quality.baseline import FEWEST_DAYS, Limits, series, usual, wider
from millrace.quality.case import Case
from millrace.quality.finding import Finding
from millrace.quality.profile import ColumnProfile, DayProfile
from millrace.quality.shares import SHARE_SPREADS, share_limits

VOLUME_SPREADS = 5.0
HOUR_SPREADS = 6.0
EMPTY_TOLERANCE = 0.2
EMPTY_SPREADS = 6.0
FRESHNESS_SPREADS = 5.0

_FEWEST_ROWS = 20.0
_FEWEST_FOR_HOURS = 21
_ALMOST_EMPTY = 0.1
_COPIED_ROWS = 20
_FEWEST_TELLING = 2
_MOST = 0.5


def rows(case: Case) -> Finding:
    """Judge the number of rows; a day without any never passes.

    By default it is no failure either, on a weekday that usually has none.
    """
    if case.rule.is_default and not case.day.rows and case.baseline.is_closed_weekday:
        return case.unknown(_closed(case))
    limits = Limits(max(1, case.argument("min", 1)), case.argument("max"))
    count = case.day.rows
    return case.judged(count, limits, n=count, words=_rows)


def volume(case: Case) -> Finding:
    """Judge the number of rows against the latest same weekdays, by ratio."""
    if reason := case.too_early():
        return case.unknown(reason, n=case.day.rows)
    if case.baseline.is_closed_weekday:
        if case.day.rows == 0:
            return case.unknown(_closed(case))
        return case.unknown("rows on a weekday that usually has none", n=case.day.rows)
    similar = case.baseline.similar
    found = wider(
        usual(
            [log1p(d.rows) for d in days],
            log1p(case.argument("tolerance", 0.5)),
            case.argument("spreads", VOLUME_SPREADS),
        )
        for days in case.baseline.groups[-1:]
    )
    limits = Limits(max(1.0, np.floor(expm1(found.low or 0.0))), np.ceil(expm1(found.high or 0.0)))
    return case.judged(
        case.day.rows, limits, n=case.day.rows, words=_rows, baseline_days=len(similar)
    )


def _closed(case: Case) -> str:
    weekdays = case.baseline.weekdays
    closed = sum(d.rows == 0 for d in weekdays)
    return f"{closed} of the last {len(weekdays)} {case.day.day:%A}s had no rows either"


def completeness(case: Case) -> Finding:
    """Count the hours without rows (or nearly so) that usually have them."""
    if not case.day.rows:
        return case.unknown("the day has no rows")
    if reason := case.too_early():
        return case.unknown(reason, n=case.day.rows)
    days = case.baseline.days
    if len(days) < _FEWEST_FOR_HOURS:
        return case.unknown(f"{len(days)} earlier days, {_FEWEST_FOR_HOURS} are needed for hours")
    counts = np.array([d.hours for d in days], np.float64)
    same = np.array([d.hours for d in case.baseline.similar], np.float64)
    # An hour is sure to have rows if none of these days was without, and if to be without would be
    # far out of the spread of their logarithms.
    least = np.minimum(counts.min(axis=0), same.min(axis=0))
    logs = np.log1p(counts)
    lowest = logs.mean(axis=0) - HOUR_SPREADS * logs.std(axis=0)
    sure = (least >= _FEWEST_ROWS) & (lowest > 0)
    missing = sure & (np.array(case.day.hours) < _ALMOST_EMPTY * least)
    if missing.any():
        names = ", ".join(f"{hour:02d}:00" for hour in np.flatnonzero(missing))
        return case.judged(
            int(missing.sum()),
            Limits(None, case.argument("max", 0)),
            n=int(sure.sum()),
            words=lambda v: f"{v:.0f} hours without rows",
            baseline_days=len(counts),
            because=lambda: f"missing: {names} UTC",
        )
    return _empty_hours(case, same)


def _empty_hours(case: Case, same: npt.NDArray[np.float64]) -> Finding:
    # No hour is sure, but several together may be: how much of a usual day lies in empty hours?
    shares = np.median(same / same.sum(axis=1, keepdims=True), axis=0)
    shares /= max(float(shares.sum()), np.finfo(float).tiny)
    limits = usual((shares * (same == 0)).sum(axis=1).tolist(), EMPTY_TOLERANCE, EMPTY_SPREADS)
    value = float(shares[np.array(case.day.hours) == 0].sum())
    return case.graded(is_grave=value > _MOST).judged(
        value,
        Limits(None, limits.high),
        n=case.day.rows,
        words=lambda v: f"{v:.1%} of a usual day lies in hours without rows",
        baseline_days=len(same),
    )


def freshness(case: Case) -> Finding:
    """Judge how long before the end of the day its newest event lies."""
    gap_ms = _gap_ms(case.day)
    if gap_ms is None:
        return case.unknown("the day has no rows")
    if reason := case.too_early():
        return case.unknown(reason, n=case.day.rows)
    tolerance = case.argument("tolerance_ms", HOUR_MS)
    spreads = case.argument("spreads", FRESHNESS_SPREADS)
    groups = [series(days, _gap_ms) for days in case.baseline.groups]
    high = wider(usual(gaps, tolerance, spreads) for gaps in groups).high or 0.0
    # What is promised of the pipeline cannot be more than what events there are.
    limits = Limits(None, max(high, case.argument("max_age_ms", 0)))
    return case.judged(
        gap_ms,
        limits,
        n=case.day.rows,
        words=lambda ms: f"{ms / HOUR_MS:.2f} h before midnight",
        baseline_days=len(case.baseline.days),
        because=lambda: "the newest event is older than is usual at the end of a day",
    )


def uniqueness(case: Case) -> Finding:
    """Judge the share of repeated rows; a day that repeats an earlier one fails as well."""
    day = case.day
    if not day.rows:
        return case.unknown("the day has no rows")
    copied = next((d for d in case.history if d.day < day.day and is_copy(day, d)), None)
    if copied is not None:
        found = case.judged(1.0, Limits(None, 0.0), n=day.rows, words=_share, baseline_days=1)
        return Finding(**{**vars(found), "reason": f"the day repeats {copied.day} row by row"})
    value = day.duplicates / day.rows
    if "max" in case.rule.arguments:
        limits = Limits(None, case.argument("max"))
        return case.judged(value, limits, n=day.rows, words=_share)
    if reason := case.too_early():
        return case.unknown(reason, n=day.rows)
    days = case.baseline.days
    tolerance = case.argument("tolerance", 0.1)
    spreads = case.argument("spreads", SHARE_SPREADS)
    high = usual([d.duplicates / d.rows for d in days], tolerance, spreads).high
    return case.judged(value, Limits(None, high), n=day.rows, words=_share, baseline_days=len(days))


def counted(case: Case) -> Finding:
    """Judge what the build counted beside the rows: ``null_keys``, ``dead_letters``.

    Without a ``max``, their share of all events is held against the usual one; where too little is
    known of that, more than half of the events fail all the same.
    """
    count = case.day.counts.get(case.rule.type)
    if count is None:
        return case.unknown("the build did not count them")
    if "max" in case.rule.arguments:
        limits = Limits(None, case.argument("max"))
        return case.judged(count, limits, n=case.day.rows, words=lambda v: f"{v:.0f} events")
    share, events = _counted_share(case.day, case.rule.type), case.day.rows + count
    if share is None:
        return case.unknown("the day has no events")
    groups = [
        series(days, lambda day: _counted_share(day, case.rule.type))
        for days in case.baseline.groups
    ]
    reason = case.too_early()
    if not reason and len(groups[0]) < FEWEST_DAYS:
        reason = f"{len(groups[0])} earlier days counted them, {FEWEST_DAYS} are needed"
    if reason and share <= _MOST:
        return case.unknown(reason, n=events)
    return case.judged(
        share,
        Limits(None, _MOST) if reason else share_limits(case, groups, n=events, default=0.02),
        n=events,
        words=lambda v: f"{v:.2%} of events",
        baseline_days=0 if reason else len(groups[0]),
        because=lambda: f"{count:,} of {events:,} events",
    )


def _counted_share(day: DayProfile, counted: str) -> float | None:
    count = day.counts.get(counted)
    return None if count is None or not day.rows + count else count / (day.rows + count)


def is_copy(day: DayProfile, earlier: DayProfile) -> bool:
    """Tell whether two days hold the same rows but for their times and ids that grow.

    Compared are the number of rows and the exact nulls and moments of every number, text and flag;
    at least one number or text that varies must agree, and at most one column may differ.
    """
    if day.rows != earlier.rows or day.rows < _COPIED_ROWS:
        return False
    compared = [
        (column, earlier.columns[name])
        for name, column in day.columns.items()
        if name in earlier.columns and column.kind in {"number", "text", "flag"}
    ]
    equal = [
        (a.nulls, a.minimum, a.maximum) == (b.nulls, b.minimum, b.maximum)
        and _near(a.mean, b.mean)
        and _near(a.m2, b.m2)
        for a, b in compared
    ]
    emitting = [same for (a, _), same in zip(compared, equal, strict=True) if _varies(a)]
    return sum(emitting) >= _FEWEST_TELLING and len(equal) - sum(equal) <= 1


def _varies(column: ColumnProfile) -> bool:
    return bool(column.m2) and column.kind != "flag"


def _near(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(np.isclose(a, b, rtol=1e-9, atol=1e-9))


def _gap_ms(day: DayProfile) -> float | None:
    if day.last_ms is None:
        return None
    return float(DAY_MS - day.last_ms % DAY_MS)


def _rows(value: float) -> str:
    return f"{value:,.0f} rows"


def _share(value: float) -> str:
    return f"{value:.2%} repeated"
