"""The daily schedule of a source: yesterday, once its late events can no longer come."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg

from feature_assets.keys import daily_job
from jobs.backfills import source_job
from millrace.durations import DAY_MS, MINUTE_MS
from millrace.errors import SetupError
from millrace.plan import SourcePlan, ViewPlan
from resources.settings import Settings

_MINUTES_A_DAY = DAY_MS // MINUTE_MS
_MINUTES_AN_HOUR = 60


def daily_schedule(
    source: SourcePlan, views: Sequence[ViewPlan], settings: Settings
) -> dg.ScheduleDefinition:
    """Return the schedule of a source; on by default.

    It ticks once a day, UTC, ``allowed_lateness`` after midnight, and asks for the newest day
    that is then complete. The run key is that day, so a second tick starts nothing.
    """

    @dg.schedule(
        name=daily_job(source.name),
        job=source_job(source, views),
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


def daily_cron(lateness_ms: int) -> str:
    """Return the minute of the day, UTC, at which a day's last late event has come.

    >>> daily_cron(5_400_000)
    '30 1 * * *'
    """
    minutes = -(-lateness_ms // MINUTE_MS) % _MINUTES_A_DAY
    return f"{minutes % _MINUTES_AN_HOUR} {minutes // _MINUTES_AN_HOUR} * * *"


def complete_day(now: datetime, lateness_ms: int) -> date:
    """Return the newest UTC day whose events can no longer arrive at ``now`` (aware, UTC)."""
    return (now - timedelta(milliseconds=lateness_ms)).date() - timedelta(days=1)


def absence(source: SourcePlan, settings: Settings) -> str | None:
    """Say why a source has no files to read; None if it has, or if they are not local."""
    if source.batch is None:
        return f"source {source.name} names no batch files"
    try:
        path = settings.expand(source.batch.path, where=f"source {source.name}")
    except SetupError as error:
        return str(error)
    if "://" in path or Path(path).exists():
        return None
    return f"the files of source {source.name} are not there: {path}"
