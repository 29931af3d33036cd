"""The schedules of a source: its complete days, and its open hours if it is refreshed each hour.

Both start the job ``daily_<source>``; why days are UTC although a tick need not be:
``docs/decisions/days.md``.
"""

from collections.abc import Sequence
from datetime import UTC, date
from pathlib import Path

import dagster as dg

from feature_assets.keys import daily_job, events_path, hourly_schedule, lake_table
from feature_assets.timing import due_days, hourly_cron, open_hours, source_cron
from jobs.backfills import SourceJob
from jobs.run_states import UNDER_WAY
from millrace.errors import SetupError
from millrace.plan import SourcePlan, ViewPlan
from resources.partition_keys import range_tags
from resources.reports import Days
from resources.settings import Settings

OPEN_HOURS_TAG = "millrace/open_hours"

_SCHEDULE_TAG = "dagster/schedule_name"


def source_schedules(
    source: SourcePlan, views: Sequence[ViewPlan], job: SourceJob, settings: Settings
) -> list[dg.ScheduleDefinition]:
    """Return ``daily_<source>``, and ``hourly_<source>`` if the source is refreshed each hour."""
    start = min(view.start for view in views)
    daily = _daily_schedule(source, start, job, settings)
    if not source.schedule.is_hourly:
        return [daily]
    return [daily, _hourly_schedule(source, start, job, settings)]


def _daily_schedule(
    source: SourcePlan, start: date, job: SourceJob, settings: Settings
) -> dg.ScheduleDefinition:
    """Return the schedule of complete days; on by default.

    Of a source of hours it builds all hours of the day once more, and the day is judged.

    It ticks once a day, as its source says or else ``allowed_lateness`` after midnight UTC, and
    asks for the newest day that is then complete, and for the one before if no tick came between
    the two. The run key is the day, so a second tick starts nothing. Ticks that a daemon slept
    through are made up for, five of them at most (Dagster's own bound). A time that a zone skips in
    spring comes as soon as the clock reads later; one that it repeats in autumn comes once.
    """

    @dg.schedule(
        name=daily_job(source.name),
        job=job,
        cron_schedule=source_cron(source),
        execution_timezone=source.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Builds the newest complete day of everything read from {source.name}.",
    )
    def newest_day(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        days = due_days(source, context.scheduled_execution_time)
        if not source.has(days[0]):
            return dg.SkipReason(_closed(source))
        wrong = _unbuildable(source, days[-1], start, settings)
        if wrong:
            return dg.SkipReason(wrong)
        return [_day_request(source, day) for day in days if day >= start and source.has(day)]

    return newest_day


def _day_request(source: SourcePlan, day: date) -> dg.RunRequest:
    key = day.isoformat()
    if not source.schedule.is_hourly:
        return dg.RunRequest(run_key=key, partition_key=key)
    return dg.RunRequest(run_key=key, tags=range_tags(Days.covering([day]), by_hour=True))


def _hourly_schedule(
    source: SourcePlan, start: date, job: SourceJob, settings: Settings
) -> dg.ScheduleDefinition:
    """Return the schedule of open hours; on by default.

    One run over the range of them, unless another run of the job is under way. The daily one does
    not count: it comes at the same minute, reads another day, and the next tick is an hour away.
    The pool of the source's tables lets one begin when the other ends. Hours that a tick left out
    are built by the daily one at last.
    """

    @dg.schedule(
        name=hourly_schedule(source.name),
        job=job,
        cron_schedule=hourly_cron(source.allowed_lateness_ms),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Builds the hours of everything read from {source.name} that still take "
        "events, and the one that was closed last.",
    )
    def newest_hours(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(UTC)
        hours = open_hours(source, tick)
        if not source.has(hours.start):
            return dg.SkipReason(_closed(source))
        if source.end is not None:
            hours = hours.before(source.end)
        wrong = _unbuildable(source, hours.last, start, settings)
        if wrong:
            return dg.SkipReason(wrong)
        if _is_under_way(context.instance, daily_job(source.name)):
            return dg.SkipReason(f"{daily_job(source.name)} is under way")
        return dg.RunRequest(
            run_key=f"{tick:%Y-%m-%dT%H}",
            tags={**range_tags(hours.since(start), by_hour=True), OPEN_HOURS_TAG: source.name},
        )

    return newest_hours


def _is_under_way(instance: dg.DagsterInstance, job: str) -> bool:
    """Tell whether a run of a source's job is queued or goes on that its daily tick did not ask."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(UNDER_WAY)))
    return any(run.tags.get(_SCHEDULE_TAG) != job for run in runs)


def _closed(source: SourcePlan) -> str:
    return f"source {source.name} is closed: it ends on {source.end}"


def _unbuildable(source: SourcePlan, newest: date, start: date, settings: Settings) -> str | None:
    if newest < start:
        return f"{newest} is before the start of {source.name}, {start}"
    return absence(source, settings)


def absence(source: SourcePlan, settings: Settings) -> str | None:
    """Say why a source has nothing to build from; None if it has, or if that is not local."""
    if source.batch is None:
        events = f"{settings.lake}/{lake_table(events_path(source))}"
        if "://" in events or Path(events).exists():
            return None
        return f"nothing of {source.name} is archived yet: {events}"
    try:
        path = settings.expand(source.batch.path, where=f"source {source.name}")
    except SetupError as error:
        return str(error)
    if "://" in path or Path(path).exists():
        return None
    return f"the files of source {source.name} are not there: {path}"
