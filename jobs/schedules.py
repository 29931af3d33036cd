"""The daily schedule of a source: yesterday, once its late events can no longer come."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg

from feature_assets.keys import daily_job, events_path
from feature_assets.timing import daily_cron
from jobs.backfills import SourceJob
from millrace.errors import SetupError
from millrace.plan import SourcePlan, ViewPlan
from resources.settings import Settings


def daily_schedule(
    source: SourcePlan, views: Sequence[ViewPlan], job: SourceJob, settings: Settings
) -> dg.ScheduleDefinition:
    """Return the schedule of a source; on by default.

    It ticks once a day, UTC, ``allowed_lateness`` after midnight, and asks for the newest day
    that is then complete. The run key is that day, so a second tick starts nothing. Ticks that a
    daemon slept through are made up for, five of them at most (Dagster's own bound).
    """

    @dg.schedule(
        name=daily_job(source.name),
        job=job,
        cron_schedule=daily_cron(source.allowed_lateness_ms),
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Builds the newest complete day of everything read from {source.name}.",
    )
    def newest_day(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = complete_day(context.scheduled_execution_time, source.allowed_lateness_ms)
        start = min(view.start for view in views)
        if day < start:
            return dg.SkipReason(f"{day} is before the start of {source.name}, {start}")
        absent = absence(source, settings)
        if absent:
            return dg.SkipReason(absent)
        return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())

    return newest_day


def complete_day(now: datetime, lateness_ms: int) -> date:
    """Return the newest UTC day whose events can no longer arrive at ``now`` (aware, UTC)."""
    return (now - timedelta(milliseconds=lateness_ms)).date() - timedelta(days=1)


def absence(source: SourcePlan, settings: Settings) -> str | None:
    """Say why a source has nothing to build from; None if it has, or if that is not local."""
    if source.batch is None:
        events = "/".join((settings.lake, *events_path(source)))
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
