"""When assets are due: the clock of a source's days, what follows from other assets, freshness.

Days are UTC and closed once no event of theirs can be accepted any more; before that they are open.
So are hours.
Why a schedule may name a zone and an hour and a day may not: ``docs/decisions/days.md``.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import dagster as dg
from dagster._utils.schedules import (
    get_latest_completed_cron_tick,
    schedule_execution_time_iterator,
)

from millrace.calendar import day_ms, newest_day_over, to_ms
from millrace.days import Days
from millrace.durations import DAY_MS, MINUTE_MS
from millrace.plan import SourcePlan, ViewPlan

FOLLOWED = timedelta(days=7)
"""Days older than this are built again by a schedule's or a person's wish only."""

REPORT_EVERY_MS = 300_000
"""How often the sensor of streams reports that an online view is kept up to date."""

BUILD_TIME = timedelta(hours=3)
"""From a day's close, or from the tick that asks for it, to the deadline of its values."""

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)

_MISSED_REPORTS = 3
_MINUTES_A_DAY = DAY_MS // MINUTE_MS
_MINUTES_AN_HOUR = 60


def daily_cron(lateness_ms: int) -> str:
    """Return the minute of the day, UTC, at which a day's last late event has come.

    >>> daily_cron(5_400_000)
    '30 1 * * *'
    """
    return _cron(-(-lateness_ms // MINUTE_MS))


def source_cron(source: SourcePlan) -> str:
    """Return when the daily tick of a source comes, in the zone of its schedule."""
    at = source.schedule.at
    if at is None:
        return daily_cron(source.allowed_lateness_ms)
    return _cron(_minutes(at))


def hourly_cron(lateness_ms: int) -> str:
    """Return the minute of each hour at which open hours are built: that at which one closes.

    >>> hourly_cron(5_400_000)
    '30 * * * *'
    """
    return f"{-(-lateness_ms // MINUTE_MS) % _MINUTES_AN_HOUR} * * * *"


def _cron(minutes: int) -> str:
    of_day = minutes % _MINUTES_A_DAY
    return f"{of_day % _MINUTES_AN_HOUR} {of_day // _MINUTES_AN_HOUR} * * *"


def _minutes(at: time) -> int:
    return at.hour * _MINUTES_AN_HOUR + at.minute


def complete_day(now: datetime, lateness_ms: int) -> date:
    """Return the newest UTC day whose events can no longer arrive at ``now``, aware of any zone."""
    # Between two instants of one zone Python counts by the wall clock, so UTC comes first.
    return newest_day_over(to_ms(now.astimezone(UTC)), lateness_ms)


def due_days(source: SourcePlan, tick: datetime) -> tuple[date, ...]:
    """Return the UTC days, ascending, that were completed since the daily tick before this one.

    That is one. Where the clock is put back between two ticks, which are then 25 hours apart, it
    may be two, and for a tick that comes within an hour of a day's close the first of two may be
    the day of yesterday's tick.
    """
    apart = _DAY if source.schedule.timezone == "UTC" else _DAY + _HOUR
    known = complete_day(tick.astimezone(UTC) - apart, source.allowed_lateness_ms)
    newest = complete_day(tick, source.allowed_lateness_ms)
    return _between(known, newest)


def newest_due(source: SourcePlan, now: datetime) -> date:
    """Return the newest UTC day that a daily tick has asked for by ``now``, before any end."""
    tick = get_latest_completed_cron_tick(source_cron(source), now, source.schedule.timezone)
    return due_days(source, tick)[-1]


def due_ms(source: SourcePlan, day: date) -> int:
    """Return the instant of the daily tick that asks for a day, epoch milliseconds."""
    complete_s = (day_ms(day) + DAY_MS + source.allowed_lateness_ms) / 1000
    ticks = schedule_execution_time_iterator(
        complete_s, source_cron(source), source.schedule.timezone
    )
    return to_ms(next(ticks))


def is_over(source: SourcePlan, now: datetime) -> bool:
    """Tell whether a closed source has had its last tick."""
    return source.end is not None and newest_due(source, now) >= source.end


def open_hours(source: SourcePlan, tick: datetime) -> Days:
    """Return the hours that an hourly tick is to build.

    These are the hours that hold an instant before it and still take events, and the one that was
    closed since the tick before: its last events came after that.
    """
    instant = tick.astimezone(UTC)
    lateness = timedelta(milliseconds=source.allowed_lateness_ms)
    begun = _hour(instant - timedelta(microseconds=1))
    return Days.between(_hour(instant - lateness) - _HOUR, begun + _HOUR)


def _hour(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def _between(after: date, last: date) -> tuple[date, ...]:
    return tuple(after + n * _DAY for n in range(1, (last - after).days + 1))


def after_events() -> dg.AutomationCondition[Any]:
    """Return when tiles and features are built anew by themselves: when their day's events were.

    Somebody built ``events/<source>`` alone, or another view's backfill did. A run that builds both
    asks for nothing more. Days that were never built are left to those who ask for them: events are
    also built where the windows of a later day reach, and nobody wants a view of these. Bounded to the
    newest days, so that an old range is one run of somebody's wish, not a run per day.
    """
    recent: Any = dg.AutomationCondition.in_latest_time_window(FOLLOWED)
    recent = recent.with_label(f"is one of the last {FOLLOWED.days} days")
    was_built = (~dg.AutomationCondition.missing()).with_label("had been built")
    eager = dg.AutomationCondition.eager().replace("in_latest_time_window", recent)
    return (eager & was_built).with_label("its events were built anew without it")


def features_freshness(view: ViewPlan) -> dg.FreshnessPolicy | None:
    """Return the deadline of a day's values; None without a promise, or where the source is closed.

    Of an hourly source it is an hour and a build after the last one. Dagster judges the newest
    build of any day. Which days lack is told by the check ``freshness``.
    """
    if view.freshness_ms is None or view.source.end is not None:
        return None
    schedule = view.source.schedule
    if schedule.is_hourly:
        return dg.FreshnessPolicy.time_window(_HOUR + BUILD_TIME)
    if schedule.at is None:
        deadline_ms = view.source.allowed_lateness_ms + BUILD_TIME // timedelta(milliseconds=1)
        return dg.FreshnessPolicy.cron(daily_cron(deadline_ms), BUILD_TIME)
    cron = _cron(_minutes(schedule.at) + BUILD_TIME // timedelta(minutes=1))
    # One hour more: in autumn that many lie between the two readings of the wall clock.
    return dg.FreshnessPolicy.cron(cron, BUILD_TIME + _HOUR, timezone=schedule.timezone)


def online_freshness(view: ViewPlan) -> dg.FreshnessPolicy | None:
    """Return how old the last report of an online view may be; None if it promises no freshness.

    No shorter than a few reports: the exact age is measured by the server and by the parity check.
    """
    if view.freshness_ms is None or view.source.stream is None:
        return None
    window_ms = max(view.freshness_ms, _MISSED_REPORTS * REPORT_EVERY_MS)
    return dg.FreshnessPolicy.time_window(timedelta(milliseconds=window_ms))
