"""Backfills as runs: one for each source, with its days, its views and the stages that it will do.

The stages are those that the run's steps plan and do (``offline.tables.stages``); ``--dry-run`` prints them.
Holds no Dagster, so a command answers fast.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any

from millrace.calendar import days_after, next_day
from millrace.days import Days
from millrace.errors import DataError, PlatformError
from millrace.names import tiles_table
from millrace.plan import Plan, SourcePlan, ViewPlan
from offline.raw.changes import changed_since
from offline.raw.files import find_raw_files
from offline.tables.partition_log import (
    built_days,
    published_days,
    read_partition_log,
    read_partition_logs,
)
from offline.tables.stages import LakeState, Stage, plan_build, read_state
from resources.dagster.asset_keys import (
    asset_path,
    backfill_job,
    daily_job,
    events_path,
    view_paths,
)
from resources.dagster.partition_keys import FIRST_PARTITION, partition_keys, range_tags
from resources.settings import Settings

_FAULTS_NAMED = 3


@dataclass(frozen=True)
class RangeRun:
    """One Dagster run: a range of days of some views of one source, its raw files read once.

    Attributes:
        stages: what it will do, as the lake is now; none before ``with_stages``.
        has_events: the events of all days stand as declared and are not built again.
    """

    source: SourcePlan
    views: tuple[ViewPlan, ...]
    days: Days
    stages: tuple[Stage, ...] = ()
    has_events: bool = False

    @property
    def assets(self) -> tuple[tuple[str, str], ...]:
        """The assets to build, in order: events first, then tiles and features of each view."""
        paths = dict.fromkeys(path for view in self.views for path in view_paths(view))
        if self.has_events:
            del paths[events_path(self.source)]
        return tuple(paths)

    @property
    def job(self) -> str:
        """The job that it is a run of: the view's, or for several views their source's."""
        first, *others = self.views
        return daily_job(self.source.name) if others else backfill_job(first.name)

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags: the range."""
        return range_tags(self.days, by_hour=self.is_hourly)

    @property
    def is_hourly(self) -> bool:
        """True if the partitions are hours."""
        return self.source.schedule.is_hourly

    @property
    def keys(self) -> list[str]:
        """The partition keys of each asset, ascending."""
        return partition_keys(self.days, by_hour=self.is_hourly)

    @property
    def earlier(self) -> tuple[date, ...]:
        """Days before the range whose events are built besides, since windows reach into them."""
        return tuple(day for stage in self.stages for day in stage.earlier)

    @property
    def partitions(self) -> int:
        """How many partitions the run builds."""
        return len(self.assets) * len(self.keys)

    def as_json(self) -> dict[str, Any]:
        """Return the run as plain JSON values."""
        return {
            "source": self.source.name,
            "job": self.job,
            "views": [view.name for view in self.views],
            "start": self.days.start.isoformat(),
            "end": self.days.end_text,
            "assets": ["/".join(path) for path in self.assets],
            "partitions": self.partitions,
            "earlier_days": [day.isoformat() for day in self.earlier],
            "stages": [stage.as_json() for stage in self.stages],
            "events_stand": self.has_events,
            "tags": self.tags,
        }


def range_runs(plan: Plan, names: Sequence[str], days: Days, now: datetime) -> tuple[RangeRun, ...]:
    """Return one run per source for a backfill of some views.

    Views of one source may begin on different days: those of the range before a view's own start
    are empty partitions of it.

    Args:
        plan: all declarations.
        names: feature views, at least one; a name said twice counts once.
        days: half-open range of UTC days, or of hours for sources which are refreshed each hour.
        now: the present instant, UTC. The events of its day are not complete: only those are built
            that come from a source which is refreshed each hour, up to this hour.

    Raises:
        NotDeclared: no such view; the nearest are named.
        PlatformError: the range begins before every view of a source does, or holds a day that is
            not built yet, or hours of a source of days; or a source has no files.
    """
    views = [plan.view(name) for name in dict.fromkeys(names)]
    sources = {view.source.name: view.source for view in views}
    runs = tuple(
        RangeRun(
            source, tuple(v for v in views if v.source.name == name), _until(source, days, now)
        )
        for name, source in sources.items()
    )
    for run in runs:
        _check(run, now)
    return runs


def with_stages(settings: Settings, run: RangeRun) -> RangeRun:
    """Plan a run by what the lake has; a dry run shows the stages, and the run does them.

    Events that stand as declared, of whole days that readers may see, are not built again for views
    that are new to all of these days, unless a raw file has changed since the build began to read.
    A view that has some of the days already is built anew from the files, as was asked.
    """
    lake = read_state(settings, run.source, run.views)
    stages = plan_build(lake, run.source, run.views, run.days)
    if stages[0].earlier or run.is_hourly or not _events_stand(settings, run, lake):
        return replace(run, stages=stages)
    others = [stage.table.name for stage in stages[1:]]
    stages = plan_build(lake, run.source, run.views, run.days, tables=others)
    return replace(run, stages=stages, has_events=True)


def look_at_files(settings: Settings, run: RangeRun) -> None:
    """Look at the raw files as the run will, so that a fault of all days is said once and before.

    Raises:
        DataError: the path or a column is missing, or no file can be read.
    """
    if run.source.batch is None or run.has_events:
        return
    files = find_raw_files(run.source, settings).files
    faults = [f"{file.path}: {file.error}" for file in files if file.error is not None]
    if len(faults) == len(files):
        raise DataError(
            f"no file of {run.source.name} can be read: {'; '.join(faults[:_FAULTS_NAMED])}",
            where=f"source {run.source.name}",
            fix="mend the files, or the declaration; `--dry-run` looks again",
        )


def built_partitions(settings: Settings, run: RangeRun) -> dict[str, int]:
    """Count by asset the partitions of a run that stand already as declared, by the lake's own log."""
    logs = read_partition_logs(settings, [stage.name for stage in run.stages])
    built = {}
    for stage in run.stages:
        log, declared = logs[stage.name], stage.table.declared
        standing = [d for d in run.days if d in log and log[d].fingerprint == declared.fingerprint]
        built["/".join(asset_path(stage.table.kind, declared.name))] = sum(
            sum(not log[day].lacks(range(hour, hour + 1)) for hour in run.days.hours(day))
            if run.is_hourly
            else log[day].error is None
            for day in standing
        )
    return built


def _events_stand(settings: Settings, run: RangeRun, lake: LakeState) -> bool:
    log, days = lake.events, set(run.days)
    if not days <= published_days(log, run.source.fingerprint):
        return False
    for view in run.views:
        tiles = read_partition_log(settings, tiles_table(view.name, lake.versions[view.name]))
        if built_days(tiles, view.fingerprint) & days:
            return False
    try:
        files = find_raw_files(run.source, settings).files
    except PlatformError:
        return False
    return not changed_since(files, min(log[day].began_ms for day in days))


def _until(source: SourcePlan, days: Days, now: datetime) -> Days:
    """Leave out the hours of today that have not begun."""
    begun = now.hour + 1
    if not source.schedule.is_hourly or days.last != now.date() or days.to_hour <= begun:
        return days
    return replace(days, to_hour=begun)


def _check(run: RangeRun, now: datetime) -> None:
    first = min(run.views, key=lambda view: view.start)
    where = f"view {first.name}"
    if run.days.start < first.start:
        raise PlatformError(
            f"{run.days.start} is before the view's history, which starts on {first.start}",
            where=where,
            fix=f"--start {first.start}, or an earlier `start` in the declaration",
        )
    if run.days.start < FIRST_PARTITION:
        raise PlatformError(
            f"{run.days.start} is no partition: they begin with {FIRST_PARTITION}",
            where=where,
            fix=f"--start {FIRST_PARTITION}; earlier days are built where a window reaches them",
        )
    _check_end(run.source, run.days, now.date(), where)
    if run.days.parts and not run.is_hourly:
        raise PlatformError(
            f"the range {run.days} holds a part of a day, and the partitions of source "
            f"{run.source.name} are days",
            where=where,
            fix=f"--start {run.days.start} --end {run.days.end_text}, or `schedule: {{refresh: hourly}}`",
        )
    if run.source.batch is None:
        raise PlatformError(
            f"source {run.source.name} has no files to backfill from",
            where=where,
            fix="give the source a `batch`",
        )


def _check_end(source: SourcePlan, days: Days, today: date, where: str) -> None:
    if not source.has(days.last):
        raise PlatformError(
            f"source {source.name} is closed: it ends on {source.end}, and {days.last} is asked for",
            where=where,
            fix=f"--end {source.end} (the end is exclusive), or another `end` of the source",
        )
    is_hourly = source.schedule.is_hourly
    newest = today if is_hourly else days_after(today, -1)
    if days.last > newest:
        raise PlatformError(
            f"{days.last} has not begun (UTC)"
            if is_hourly
            else f"{days.last} is not over (UTC), so its events are not complete",
            where=where,
            fix=f"--end {next_day(newest)} (the end is exclusive)",
        )
