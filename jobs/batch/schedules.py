"""The schedules of a source: its complete days, and its open hours if it is refreshed each hour.

Both start the job ``daily_<source>``; why days are UTC although a tick need not be:
``docs/decisions/days.md``.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg

from feature_assets.timing import due_days, hourly_cron, is_over, open_hours, source_cron
from jobs.batch.arrivals import ARRIVED_TAG, awaited, days_of, look_at_files, under_way
from jobs.batch.backfill_jobs import SourceJob
from jobs.instance.run_states import UNDER_WAY
from millrace.calendar import day_ms, to_ms
from millrace.days import Days
from millrace.names import events_table
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.partition_log import read_partition_log
from resources.dagster.asset_keys import daily_job, hourly_schedule
from resources.dagster.partition_keys import range_tags
from resources.lake.delta import table_path
from resources.settings import Settings

OPEN_HOURS_TAG = "millrace/open_hours"

_SCHEDULE_TAG = "dagster/schedule_name"


def source_schedules(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    job: SourceJob,
    settings: Settings,
    now: datetime,
) -> list[dg.ScheduleDefinition]:
    """Return ``daily_<source>``, and ``hourly_<source>`` if the source is refreshed each hour.

    A closed source has none once its last day was asked for: they would tick for ever.
    """
    if is_over(source, now):
        return []
    start = min(view.start for view in views)
    daily = _daily_schedule(source, views, start, job, settings)
    if not source.schedule.is_hourly:
        return [daily]
    return [daily, _hourly_schedule(source, start, job, settings)]


def _daily_schedule(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    start: date,
    job: SourceJob,
    settings: Settings,
) -> dg.ScheduleDefinition:
    """Return the schedule of complete days; on by default.

    Of a source of hours it builds all hours of the day once more, and the day is judged.

    It ticks once a day, as its source says or else ``allowed_lateness`` after midnight UTC, and
    asks for the newest day that is then complete, and for the one before if no tick came between
    the two, if their files are there; those that are not are left to ``build_arrived_<source>``. The
    run key is the day, so a second tick starts nothing. Ticks that a daemon slept through are made up
    for, five of them at most (Dagster's own bound). A time that a zone skips in spring comes as soon
    as the clock reads later; one that it repeats in autumn comes once.
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
        if days[-1] < start:
            return dg.SkipReason(_too_early(source, days[-1], start))
        due = [day for day in days if day >= start and source.has(day)]
        look = DueDays(source, views, settings, context.instance)
        left = {day: why for day in due if (why := look.why_not(day)) is not None}
        if len(left) == len(due):
            return dg.SkipReason("; ".join(left.values()))
        return [_day_request(source, day) for day in due if day not in left]

    return newest_day


class DueDays:
    """What a daily tick finds of the days that are due: one look for all of them."""

    def __init__(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        settings: Settings,
        instance: dg.DagsterInstance,
    ) -> None:
        self._source, self._settings = source, settings
        self._now_ms = to_ms(_now())
        self._wrong = absence(source, settings)
        self._arrivals = None if source.batch is None else look_at_files(source, settings)
        self._runs = under_way(instance, source, views)

    def why_not(self, day: date) -> str | None:
        """Say why a day is not to be asked for; None if it is."""
        if self._wrong is not None or self._arrivals is None:
            return self._wrong
        return awaited(self._source, self._arrivals, day, self._now_ms) or self._done(day)

    def _done(self, day: date) -> str | None:
        """Say whether a tick that is made up for comes behind the sensor of arrivals."""
        for run in self._runs:
            days = days_of(run)
            if ARRIVED_TAG in run.tags and days is not None and days[0] <= day <= days[1]:
                return f"{day} is being built by run {run.run_id}"
        if self._source.schedule.is_hourly or self._arrivals is None:
            return None
        state = read_partition_log(self._settings, events_table(self._source.name)).get(day)
        signature = self._arrivals.signature(day)
        if (
            state is not None
            and state.fingerprint == self._source.fingerprint
            and state.was_over(self._source.allowed_lateness_ms)
            and signature
            and state.files == signature
        ):
            return f"{day} was built from the files that are there"
        return None


def _now() -> datetime:
    return datetime.now(tz=UTC)


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
        if hours.last < start:
            return dg.SkipReason(_too_early(source, hours.last, start))
        found = _hours_there(source, hours.since(start), settings)
        if isinstance(found, str):
            return dg.SkipReason(found)
        if _is_under_way(context.instance, daily_job(source.name)):
            return dg.SkipReason(f"{daily_job(source.name)} is under way")
        return dg.RunRequest(
            run_key=f"{tick:%Y-%m-%dT%H}",
            tags={**range_tags(found, by_hour=True), OPEN_HOURS_TAG: source.name},
        )

    return newest_hours


def _is_under_way(instance: dg.DagsterInstance, job: str) -> bool:
    """Tell whether a run of a source's job is queued or goes on that its daily tick did not ask."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=list(UNDER_WAY)))
    return any(run.tags.get(_SCHEDULE_TAG) != job for run in runs)


def _closed(source: SourcePlan) -> str:
    return f"source {source.name} is closed: it ends on {source.end}"


def _hours_there(source: SourcePlan, hours: Days, settings: Settings) -> Days | str:
    """Return those of the open hours that are on days whose files are there; why there are none."""
    if source.batch is None:
        return absence(source, settings) or hours
    arrivals, now_ms = look_at_files(source, settings), to_ms(_now())
    why = {
        day: awaited(source, arrivals, day, now_ms, max(hours.start_ms, day_ms(day)))
        for day in hours
    }
    there = [day for day in hours if why[day] is None]
    return hours.within(there) if there else "; ".join(filter(None, why.values()))


def _too_early(source: SourcePlan, newest: date, start: date) -> str:
    return f"{newest} is before the start of {source.name}, {start}"


def absence(source: SourcePlan, settings: Settings) -> str | None:
    """Say why a source without files has nothing to build from; None if it has, or has files."""
    events = table_path(settings, events_table(source.name))
    if source.batch is not None or "://" in events or Path(events).exists():
        return None
    return f"nothing of {source.name} is archived yet: {events}"
