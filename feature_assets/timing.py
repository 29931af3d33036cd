"""When assets are due: the clock of a source's days, what follows from other assets, freshness.

Days are UTC and closed once no event of theirs can be accepted any more. Why there is no other zone
and no hour: ``docs/decisions/days.md``.
"""

from datetime import timedelta
from typing import Any

import dagster as dg

from millrace.durations import DAY_MS, MINUTE_MS
from millrace.plan import SourcePlan, ViewPlan

FOLLOWED = timedelta(days=7)
"""Days older than this are built again by a schedule's or a person's wish only."""

REPORT_EVERY_MS = 300_000
"""How often the sensor of streams reports that an online view is kept up to date."""

_BUILD_TIME = timedelta(hours=3)
"""From a day's close to the deadline at which its values are expected."""

_MISSED_REPORTS = 3
_MINUTES_A_DAY = DAY_MS // MINUTE_MS
_MINUTES_AN_HOUR = 60


def daily_cron(lateness_ms: int) -> str:
    """Return the minute of the day, UTC, at which a day's last late event has come.

    >>> daily_cron(5_400_000)
    '30 1 * * *'
    """
    minutes = -(-lateness_ms // MINUTE_MS) % _MINUTES_A_DAY
    return f"{minutes % _MINUTES_AN_HOUR} {minutes // _MINUTES_AN_HOUR} * * *"


def after_events() -> dg.AutomationCondition[Any]:
    """Return when tiles and features are built anew by themselves: when their day's events were.

    Somebody built ``events/<source>`` alone, or another view's backfill did. A run that builds both
    asks for nothing more. Bounded to the newest days, so that an old range is one run of somebody's
    wish, not a run per day.
    """
    recent: Any = dg.AutomationCondition.in_latest_time_window(FOLLOWED)
    return dg.AutomationCondition.eager().replace("in_latest_time_window", recent)


def features_freshness(view: ViewPlan) -> dg.FreshnessPolicy | None:
    """Return the deadline of a day's values; None for a view that promises no freshness.

    Dagster judges the newest build of any day. Which days lack is told by the check ``freshness``.
    """
    if view.freshness_ms is None:
        return None
    deadline_ms = view.source.allowed_lateness_ms + int(_BUILD_TIME.total_seconds() * 1000)
    return dg.FreshnessPolicy.cron(daily_cron(deadline_ms), _BUILD_TIME)


def online_freshness(view: ViewPlan) -> dg.FreshnessPolicy | None:
    """Return how old the last report of an online view may be; None if it promises no freshness.

    No shorter than a few reports: the exact age is measured by the server and by the parity check.
    """
    if view.freshness_ms is None or view.source.stream is None:
        return None
    window_ms = max(view.freshness_ms, _MISSED_REPORTS * REPORT_EVERY_MS)
    return dg.FreshnessPolicy.time_window(timedelta(milliseconds=window_ms))


def closes_after(source: SourcePlan) -> timedelta:
    """Return how long after midnight UTC a day of a source still takes events."""
    return timedelta(milliseconds=source.allowed_lateness_ms)
