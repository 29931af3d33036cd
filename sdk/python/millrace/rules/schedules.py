"""The rules of schedules, and of the days that bring nothing."""

import re
from collections.abc import Iterable
from datetime import time

from millrace.errors import nearest
from millrace.faults import FaultList, is_read
from millrace.plan import EmptyDays, SchedulePlan
from millrace.rules.values import check_zone, parse_day
from millrace.spec import Location, Schedule

REFRESHES = ("daily", "hourly")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


def schedule_plan(schedule: Schedule | None, faults: FaultList) -> SchedulePlan:
    """Resolve a schedule, that of a source which names none included; what is faulty is left out."""
    if schedule is None:
        return SchedulePlan()
    where, refresh, zone = schedule.where, schedule.refresh, schedule.timezone
    if is_read(refresh) and refresh not in REFRESHES:
        what = f"schedule has the refresh {refresh!r}"
        faults.add(where.at("refresh"), what, nearest(refresh, REFRESHES))
    at = None if schedule.at is None else _time_of_day(schedule.at, where.at("at"), faults)
    if zone is not None and is_read(zone):
        check_zone(zone, where.at("timezone"), faults)
        if schedule.at is None:
            faults.add(
                where.at("timezone"),
                f"schedule has the timezone {zone!r}, but no at that it could be the zone of",
                'add at: "06:00", or remove timezone: without at, days are built when they are '
                "complete",
            )
    return SchedulePlan(refresh == "hourly", at, zone or "UTC")


def empty_days(written: Iterable[str], where: Location, faults: FaultList) -> EmptyDays:
    """Read weekdays by name and days ``YYYY-MM-DD``; each one that is neither is a fault."""
    weekdays, days = set(), set()
    for text in filter(is_read, written):
        day = parse_day(text)
        if day is not None:
            days.add(day)
        elif text in WEEKDAYS:
            weekdays.add(WEEKDAYS.index(text))
        else:
            close = nearest(text.lower(), WEEKDAYS)
            faults.add(
                where,
                f"empty_days: {text[:80]!r} is no weekday and no day",
                close if close.startswith("did") else "write saturday, or YYYY-MM-DD: 2026-12-25",
            )
    if len(weekdays) == len(WEEKDAYS):
        faults.add(
            where,
            "empty_days names every weekday, so no day would bring anything",
            "leave out those that do; a source that is over has an `end`",
        )
    return EmptyDays(frozenset(weekdays), frozenset(days))


def _time_of_day(text: str, where: Location, faults: FaultList) -> time | None:
    if not is_read(text):
        return None
    # Without the pattern, fromisoformat would take 06, 0600 and 06:00:00+02:00 as well.
    if _TIME.fullmatch(text) is not None:
        return time.fromisoformat(text)
    faults.add(where, f"at: {text!r} is no time of day", 'write HH:MM, 00:00 to 23:59: "06:00"')
    return None
