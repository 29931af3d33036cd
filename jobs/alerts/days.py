"""Which recent days should have been built and were not: no run failed, for there was none.

A daemon that slept for longer than Dagster makes up for, a range that somebody chose too short:
nothing that Dagster records is wrong then. Sampled at every look, from the days that each table has. A
day whose files have not come is no such day: it waits, and is late once its source says so.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from alerts.facts import Fact, Story, Subject
from feature_assets.timing import BUILD_TIME, newest_due
from jobs.batch.arrivals import Watch, watched
from millrace.calendar import days_after
from millrace.days import Days, day_list
from millrace.plan import Plan, SourcePlan
from resources.dagster.asset_keys import events_path, features_path
from resources.dagster.partition_keys import key_day, partition_keys

LOOKED_BACK = timedelta(days=31)
"""Older holes are history that somebody chose not to build."""

_RUNBOOK = "docs/runbooks.md#days-never-built"
_LATE_RUNBOOK = "docs/runbooks.md#files-that-are-late"


def day_facts(instance: dg.DagsterInstance, plan: Plan, now_ms: int) -> Iterator[Fact]:
    """Yield for each table of events and features whether no recent day of it was left out, and late.

    A day counts from the first one within ``LOOKED_BACK`` that was built, so a source whose data
    ended years ago lacks nothing; up to the one that the daily tick asked for ``BUILD_TIME`` ago. A
    day that a run was to build is left to what that run says, and one whose events were left out is
    told of the events alone. One that waits for its files is told of by ``late``, once its source says
    that it is.
    """
    watches = watched(instance, plan.sources)
    for name, source in plan.sources.items():
        views = plan.views_of(name)
        if not views:
            continue
        newest = newest_due(source, datetime.fromtimestamp(now_ms / 1000, tz=UTC) - BUILD_TIME)
        if source.end is not None:
            newest = min(newest, days_after(source.end, -1))
        key, by_hour = dg.AssetKey(events_path(source)), source.schedule.is_hourly
        first = min(view.start for view in views)
        watch = watches.get(name)
        waiting = frozenset(watch.waiting if watch and watch.is_awake(now_ms) else ())
        without = _left_out(instance, key, first, newest, by_hour=by_hour) - waiting
        yield _fact(key, without, now_ms)
        if watch is not None and source.late_after_ms is not None:
            yield _late_fact(key, source, watch, now_ms)
        for view in views:
            key = dg.AssetKey(features_path(view))
            days = _left_out(instance, key, view.start, newest, by_hour=by_hour) - without - waiting
            yield _fact(key, days, now_ms)


def _left_out(
    instance: dg.DagsterInstance, key: dg.AssetKey, start: date, newest: date, *, by_hour: bool
) -> frozenset[date]:
    first = max(start, days_after(newest, -LOOKED_BACK.days))
    if first > newest:
        return frozenset()
    asked = set(partition_keys(Days.through(first, newest), by_hour=by_hour))

    def with_event(kind: dg.DagsterEventType) -> set[str]:
        storage = instance.event_log_storage
        return set(storage.get_latest_storage_id_by_partition(key, kind, partitions=asked))

    built = with_event(dg.DagsterEventType.ASSET_MATERIALIZATION)
    unbuilt = {one for one in asked - built if built and one > min(built)}
    if unbuilt:
        unbuilt -= with_event(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    return frozenset(map(key_day, unbuilt))


def _fact(key: dg.AssetKey, days: frozenset[date], now_ms: int) -> Fact:
    story = Story("no recent day was left out")
    if days:
        names = day_list(sorted(days))
        told = f"{len(days)} of the newest days were never built: {names}"
        story = Story(told, runbook=_RUNBOOK, days=names)
    return Fact(Subject("days", key.to_user_string()), "error", not days, now_ms, story)


def _late_fact(key: dg.AssetKey, source: SourcePlan, watch: Watch, now_ms: int) -> Fact:
    late = watch.late_days(source, now_ms) if watch.is_awake(now_ms) else ()
    story = Story("no file is late")
    if late:
        story = Story(
            watch.looks_for,
            {"late": day_list(late), "waiting": day_list(sorted(watch.waiting))},
            runbook=_LATE_RUNBOOK,
            days=day_list(late),
        )
    return Fact(Subject("late", key.to_user_string()), "error", not late, now_ms, story)
