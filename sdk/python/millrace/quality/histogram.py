"""Distributions of a day against those of its baseline, and how far they lie apart.

Bins come from the baseline: quantiles of numbers (equal ones fall together), the most frequent
values of texts, the hours of the day for event times; nulls have a bin of their own, and so have
values that the baseline does not know. Counts are smoothed as (c + 0.5)/(n + 0.5 k), never by an
epsilon, and every distance says what it would be by chance alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from millrace.quality.finding import Histogram
from millrace.quality.profile import ColumnProfile, DayProfile
from millrace.quality.sketches import kept_kll

Counts = npt.NDArray[np.float64]

BINS = 10
"""Quantile bins of numbers."""

_CATEGORIES = 20
_SMALLEST_CATEGORY = 0.005
_LEAST_COVERED = 0.5
_HALF = 0.5


class Bins(ABC):
    """Where the values of a column are counted; made of the baseline, used for any day."""

    labels: tuple[str, ...]

    @abstractmethod
    def count(self, columns: Sequence[ColumnProfile]) -> Counts:
        """Return the values of days (rows) in each bin (columns); a row adds up to its rows."""


class NumberBins(Bins):
    """Intervals between quantiles of the baseline, closed on the right."""

    def __init__(self, baseline: Sequence[ColumnProfile]) -> None:
        cuts = _pooled_quantiles(baseline, [i / BINS for i in range(1, BINS)])
        # The largest value as a cut opens a bin for what lies beyond all the baseline.
        highest = max((c.maximum for c in baseline if c.maximum is not None), default=None)
        lowest = min((c.minimum for c in baseline if c.minimum is not None), default=None)
        below = [] if lowest is None else [float(np.nextafter(lowest, -np.inf))]
        above = [] if highest is None or highest in cuts else [highest]
        self.cuts = [*below, *(c for c in cuts if c not in below), *above]
        self.labels = (*_interval_labels(self.cuts, lowest), "null")

    def count(self, columns: Sequence[ColumnProfile]) -> Counts:
        """Return the values of days (rows) in each bin (columns); a row adds up to its rows."""
        shares = np.array([self._shares_below(c) for c in columns])
        values = np.array([[c.values] for c in columns])
        nulls = np.array([[c.nulls] for c in columns])
        return np.hstack([np.diff(shares, prepend=0.0) * values, nulls])

    def _shares_below(self, column: ColumnProfile) -> Sequence[float]:
        if column.kll is None or not self.cuts:
            return [0.0] * (len(self.cuts) + 1)
        shares: list[float] = kept_kll(column.kll).get_cdf(self.cuts, inclusive=True)
        return shares


class ValueBins(Bins):
    """The most frequent values of the baseline, all others together."""

    def __init__(self, baseline: Sequence[ColumnProfile]) -> None:
        totals: dict[str, int] = {}
        for column in baseline:
            for value, count in column.top:
                totals[value] = totals.get(value, 0) + count
        values = max(1, sum(c.values for c in baseline))
        frequent = [v for v in totals if totals[v] >= _SMALLEST_CATEGORY * values]
        self.values = sorted(frequent, key=lambda v: (-totals[v], v))[:_CATEGORIES]
        self.covered = sum(totals[v] for v in self.values) / values
        self.labels = (*self.values, "other", "null")

    def count(self, columns: Sequence[ColumnProfile]) -> Counts:
        """Return the values of days (rows) in each bin (columns); a row adds up to its rows."""
        return np.array([self._counts(c) for c in columns], np.float64)

    def _counts(self, column: ColumnProfile) -> list[int]:
        known = [column.counts.get(v, 0) for v in self.values]
        return [*known, column.values - sum(known), column.nulls]


def bins_of(baseline: Sequence[ColumnProfile]) -> Bins | None:
    """Return the bins of a column; None if it has nothing to compare.

    Texts of so many values that the frequent ones are not half of them are compared by length.
    """
    kind = baseline[-1].kind
    if kind in {"text", "flag"}:
        bins = ValueBins(baseline)
        if kind == "flag" or bins.covered >= _LEAST_COVERED:
            return bins
    if kind in {"number", "text"}:
        return NumberBins(baseline)
    return None


def hour_counts(days: Sequence[DayProfile]) -> Counts:
    """Return the rows of days (rows) by hour of the event time (columns)."""
    return np.array([day.hours for day in days], np.float64)


def psi(baseline: Counts, actual: Counts) -> Counts:
    """Return the population stability index of histograms of the same bins (the last axis).

    >>> float(psi(np.array([50.0, 50.0]), np.array([50.0, 50.0])))
    0.0
    """
    p, q = _smoothed(baseline), _smoothed(actual)
    distances: Counts = ((q - p) * np.log(q / p)).sum(axis=-1)
    return distances


def js(baseline: Counts, actual: Counts) -> Counts:
    """Return the Jensen-Shannon divergence in bits: 0 for equal, 1 for disjoint.

    The bins are the last axis.
    """
    p, q = _smoothed(baseline), _smoothed(actual)
    m = (p + q) / 2
    distances: Counts = (p * np.log2(p / m) + q * np.log2(q / m)).sum(axis=-1) / 2
    return distances


def psi_by_chance(baseline: Counts, actual: Counts) -> float:
    """Return the PSI to expect of two samples of one distribution: (k - 1)(1/n + 1/m)."""
    n, m = max(1.0, float(baseline.sum())), max(1.0, float(actual.sum()))
    used = int(np.count_nonzero(baseline + actual))
    return max(0, used - 1) * (1 / n + 1 / m)


def js_by_chance(baseline: Counts, actual: Counts) -> float:
    """Return the JS divergence to expect of two samples of one distribution."""
    # For small differences JS is PSI / 8, in bits by 1 / ln 2.
    return psi_by_chance(baseline, actual) / (8 * float(np.log(2)))


def histogram(labels: Sequence[str], baseline: Counts, actual: Counts) -> Histogram:
    """Return both counts for a picture."""
    return Histogram(tuple(labels), tuple(baseline.tolist()), tuple(actual.tolist()))


def _smoothed(counts: Counts) -> Counts:
    totals = counts.sum(axis=-1, keepdims=True)
    smoothed: Counts = (counts + _HALF) / (totals + _HALF * counts.shape[-1])
    return smoothed


def _pooled_quantiles(baseline: Sequence[ColumnProfile], ranks: Sequence[float]) -> list[float]:
    # Out of the days' own quantiles: to merge their sketches would be a matter of chance.
    found = [c for c in baseline if len(c.grid)]
    if not found:
        return []
    points = np.concatenate([c.grid for c in found])
    weights = np.repeat([c.values / len(c.grid) for c in found], len(found[0].grid))
    order = np.argsort(points, kind="stable")
    shares = np.cumsum(weights[order])
    places = np.searchsorted(shares, np.asarray(ranks) * shares[-1])
    return sorted({float(v) for v in points[order][places]})


def _interval_labels(cuts: Sequence[float], lowest: float | None) -> tuple[str, ...]:
    if not cuts or lowest is None:
        return ("all",)
    ends = [f"{lowest:.6g}", *(f"{c:.6g}" for c in cuts[1:])]
    inner = [a if a == b else f"{a} to {b}" for a, b in pairwise(ends)]
    return (f"< {ends[0]}", *inner, f"> {ends[-1]}")
