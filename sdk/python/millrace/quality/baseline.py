"""Which earlier days a day is compared with, and what is usual among them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from statistics import median
from typing import Any

from millrace.calendar import days_after
from millrace.quality.profile import ColumnProfile, DayProfile

BASELINE_DAYS = 28
"""By default the baseline is this many of the latest days with rows."""

FEWEST_DAYS = 7
"""Fewer days than this say nothing of what is usual."""

SAME_WEEKDAYS = 8
"""Volumes and hours are compared with this many of the latest same weekdays."""

FEWEST_WEEKDAYS = 3
"""Of fewer same weekdays nothing is learned: the day is compared with all days alone."""

_NORMAL_MAD = 1.4826
_TRIMMED_FROM = 14


@dataclass(frozen=True)
class Limits:
    """What is usual, as an inclusive interval; None: no limit on that side."""

    low: float | None
    high: float | None

    def hold(self, value: float) -> bool:
        """Tell whether a value is usual."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True)
class Baseline:
    """The days a day is compared with.

    Attributes:
        days: with rows, ascending.
        weekdays: the latest same weekdays, empty ones too, ascending; older than ``days`` may be.
    """

    days: tuple[DayProfile, ...]
    weekdays: tuple[DayProfile, ...]
    _asked: dict[str, tuple[tuple[ColumnProfile, ...], ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def is_enough(self) -> bool:
        """False if there are too few days to say what is usual."""
        return len(self.days) >= FEWEST_DAYS

    @property
    def is_closed_weekday(self) -> bool:
        """True if most of the same weekdays had no rows, and there are enough of them to say so."""
        closed = sum(d.rows == 0 for d in self.weekdays)
        return len(self.weekdays) >= FEWEST_WEEKDAYS and closed * 2 > len(self.weekdays)

    @cached_property
    def similar(self) -> tuple[DayProfile, ...]:
        """The same weekdays with rows, where there are enough of them; else all days."""
        same = tuple(d for d in self.weekdays if d.rows)
        return same if len(same) >= FEWEST_WEEKDAYS else self.days

    @cached_property
    def groups(self) -> tuple[tuple[DayProfile, ...], ...]:
        """All days, and the same weekdays if there are enough: unusual is what is so in both."""
        return (self.days,) if self.similar is self.days else (self.days, self.similar)

    def column_groups(self, name: str) -> tuple[tuple[ColumnProfile, ...], ...]:
        """Return the column's profiles of the days that have a value in it.

        Of each of the ``groups`` that has any: there may be none at all.
        """
        if name not in self._asked:
            found = (_filled(days, name) for days in self.groups)
            self._asked[name] = tuple(columns for columns in found if columns)
        return self._asked[name]


def _filled(days: Iterable[DayProfile], name: str) -> tuple[ColumnProfile, ...]:
    found = [day.columns.get(name) for day in days]
    return tuple([c for c in found if c is not None and c.values])


def baseline_of(day: date, history: Sequence[DayProfile], arguments: Mapping[str, Any]) -> Baseline:
    """Choose the baseline of a day for a rule.

    Args:
        day: the day to judge; it and later days are used only if the rule names them.
        history: profiles of days that were not held back, ascending.
        arguments: of the rule. ``baseline: {start, end}`` (ISO days, the end exclusive) names the
            days; ``settled`` (ISO day) leaves out days before it.
    """
    named = arguments.get("baseline")
    if named is not None:
        first, end = date.fromisoformat(named["start"]), date.fromisoformat(named["end"])
    else:
        settled = arguments.get("settled")
        first, end = date.fromisoformat(settled) if settled else date.min, day
    candidates = [d for d in history if first <= d.day < end]
    filled = [d for d in candidates if d.rows]
    same = [d for d in candidates if d.day.weekday() == day.weekday()]
    if named is None:
        oldest = days_after(day, -7 * (SAME_WEEKDAYS + 1))
        filled = [d for d in filled if d.day >= oldest][-BASELINE_DAYS:]
        same = [d for d in same if d.day >= oldest][-SAME_WEEKDAYS:]
    return Baseline(tuple(filled), tuple(same))


def series(days: Iterable[Any], value_of: Callable[[Any], float | None]) -> tuple[float, ...]:
    """Return a metric of each day that has it."""
    return tuple(v for day in days if (v := value_of(day)) is not None)


def usual(values: Sequence[float], tolerance: float, spreads: float) -> Limits:
    """Return what is usual among past values.

    The middle is the median. The limits lie ``tolerance`` or ``spreads`` robust standard
    deviations from it, whichever is more, and include what was seen before: from fourteen values
    on without the single highest and lowest, so that one odd day does not blind the rule.
    """
    ordered = sorted(values)
    middle = median(ordered)
    spread = _NORMAL_MAD * median([abs(value - middle) for value in ordered])
    width = max(tolerance, spreads * spread)
    trimmed = ordered[1:-1] if len(ordered) >= _TRIMMED_FROM else ordered
    return Limits(
        min(middle - width, trimmed[0] - tolerance), max(middle + width, trimmed[-1] + tolerance)
    )


def wider(all_limits: Iterable[Limits]) -> Limits:
    """Return limits that hold whatever one of the given ones holds."""
    found = list(all_limits)
    lows = [limits.low for limits in found if limits.low is not None]
    highs = [limits.high for limits in found if limits.high is not None]
    return Limits(
        min(lows) if len(lows) == len(found) else None,
        max(highs) if len(highs) == len(found) else None,
    )
