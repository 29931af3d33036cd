"""What is built without a clock: days that late events came to, and what follows from other assets.

Both only decide; runs build. Each is bounded, so that no surprise in the data fills the queue.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from feature_assets.timing import complete_day
from jobs.batch.backfill_jobs import SourceJob
from jobs.instance.run_states import UNDER_WAY
from millrace.days import day_ranges
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.late_days import LateDays, late_days
from resources.dagster.asset_keys import daily_job
from resources.dagster.partition_keys import range_tags
from resources.settings import Settings

FOLLOWING = "build_after_events"
LATE_DATA_TAG = "millrace/late_data"

_INTERVAL_S = 60
_LATE_INTERVAL_S = 300
_MOST_DAYS = 31
_MOST_RUNS = 5


def following_sensor() -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the assets' automation conditions; on by default."""
    return dg.AutomationConditionSensorDefinition(
        FOLLOWING,
        target=dg.AssetSelection.all(),
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Builds tiles and features of a recent day anew whose events were built alone.",
    )


def late_data_sensors(
    sources: Sequence[tuple[SourcePlan, Sequence[ViewPlan], SourceJob]], settings: Settings
) -> list[dg.SensorDefinition]:
    """Return ``rebuild_late_<source>`` for each source with a stream: events of files come as files do."""
    return [
        _late_sensor(source, min(view.start for view in views), job, settings)
        for source, views, job in sources
        if source.stream is not None
    ]


def _late_sensor(
    source: SourcePlan, start: date, job: SourceJob, settings: Settings
) -> dg.SensorDefinition:
    @dg.sensor(
        name=f"rebuild_late_{source.name}",
        job=job,
        minimum_interval_seconds=_LATE_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Builds days of {source.name} again that events came to after they were "
        f"built: at most {_MOST_DAYS} days at a time, the newest first.",
    )
    def late(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        under_way = dg.RunsFilter(job_name=daily_job(source.name), statuses=list(UNDER_WAY))
        if context.instance.get_runs_count(under_way):
            return dg.SkipReason(f"{daily_job(source.name)} is under way")
        now = datetime.now(tz=UTC)
        found = late_days(settings, source, closed_day(source, now))
        requests = late_requests(source, found, start, now)
        if not requests:
            return dg.SkipReason(f"no event came to a built day of {source.name}")
        return dg.SensorResult(run_requests=requests)

    return late


def closed_day(source: SourcePlan, now: datetime) -> date:
    """Return the newest day whose growth is late data.

    A day that was built while it was open has grown when it closes, and the schedule that builds it
    then is given the time to ask first.
    """
    grace_s = _LATE_INTERVAL_S if source.schedule.is_hourly else 0
    return complete_day(now - timedelta(seconds=grace_s), source.allowed_lateness_ms)


def late_requests(
    source: SourcePlan, found: LateDays, start: date, now: datetime
) -> list[dg.RunRequest]:
    """Return a run for each range of late days, newest first, within the bounds of one look.

    The key names the range and what was found, so the same finding is asked for once, and once
    more on the next day if nothing came of it.
    """
    days = [day for day in found.days if day >= start and source.has(day)][:_MOST_DAYS]
    ranges = sorted(day_ranges(days), key=lambda some: some.start, reverse=True)[:_MOST_RUNS]
    return [
        dg.RunRequest(
            run_key=f"{source.name}|{some.start}|{some.end_text}|{found.version}|{now.date()}",
            tags={
                **range_tags(some, by_hour=source.schedule.is_hourly),
                LATE_DATA_TAG: source.name,
            },
        )
        for some in ranges
    ]
