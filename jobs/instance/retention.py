"""The job that keeps Dagster's own storage and the partition log from growing for ever.

What goes: ended runs, with their events and logs, that are older than ``keep_days`` and hold the
newest word on nothing; what sensors observed, older than ``keep_observations_days`` and observed
anew since; ticks older than ``keep_days``. What stays is all that the UI needs to say how each
partition and check stands, however old. Of the lake the files of its partition log are merged, each
build adds one to each table; what it says stays.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from jobs.instance.run_kinds import UPKEEP
from jobs.instance.run_states import ENDED
from offline.tables.partition_log import compact_partition_log
from resources.progress import Progress
from resources.settings import Settings

if TYPE_CHECKING:
    from jobs.instance.event_log_rows import EventRows

JOB = "prune_history"
CRON = "20 3 * * *"
"""When nights are quiet and the day before has long been built, UTC."""

_PAGE = 1000
_SAY_EVERY = 500

_CONFIG = {
    "keep_days": dg.Field(
        dg.IntSource, default_value=90, description="Age up to which runs and ticks are kept."
    ),
    "keep_observations_days": dg.Field(
        dg.IntSource,
        default_value=14,
        description="Age up to which every observation by a sensor is kept.",
    ),
    "most_runs": dg.Field(
        dg.IntSource,
        default_value=20_000,
        description="Runs deleted at most, so that a first pass over years ends; the next goes on.",
    ),
    "dry_run": dg.Field(bool, default_value=False, description="Count, and delete nothing."),
}


@dataclass(frozen=True)
class Policy:
    """What to keep; see the job's configuration."""

    keep_days: int
    keep_observations_days: int
    most_runs: int
    dry_run: bool = False


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be.

    Attributes:
        runs: how many runs, with their events.
        kept_runs: old runs that hold the newest word on some partition or check.
        observations: events of sensors.
        has_more: True if ``most_runs`` was reached.
    """

    runs: int
    kept_runs: int
    observations: int
    has_more: bool


def prune(instance: dg.DagsterInstance, policy: Policy, now: datetime, say: Progress) -> Pruned:
    """Delete what the policy does not keep. Broken off and run again, it goes on.

    Raises:
        SetupError: the instance keeps its events in no SQL database.
    """
    # Half a second that no load of the code location should take.
    from jobs.instance.event_log_rows import EventRows

    rows = EventRows.of(instance)
    runs_before = now - timedelta(days=policy.keep_days)
    observed_before = now - timedelta(days=policy.keep_observations_days)
    old = list(_old_runs(instance, runs_before))
    emitting = rows.telling_runs()
    doomed = [run for run in old if run not in emitting]
    chosen = doomed[: policy.most_runs]
    if policy.dry_run:
        observations = rows.old_observations(observed_before)
    else:
        _delete_runs(instance, rows, chosen, say)
        observations = rows.forget_observations(observed_before)
        _delete_ticks(instance, runs_before)
    return Pruned(len(chosen), len(old) - len(doomed), observations, len(chosen) < len(doomed))


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> Iterator[str]:
    """Yield the ids of ended runs that were made before an instant, newest first."""
    wanted = dg.RunsFilter(statuses=list(ENDED), created_before=before)
    cursor: str | None = None
    while page := instance.get_run_ids(wanted, cursor=cursor, limit=_PAGE):
        yield from page
        cursor = page[-1]


def _delete_runs(
    instance: dg.DagsterInstance, rows: "EventRows", runs: Sequence[str], say: Progress
) -> None:
    for number, run in enumerate(runs, 1):
        # The record goes last: a run whose deletion broke off is found again.
        instance.compute_log_manager.delete_logs(prefix=[run])
        rows.storage.delete_events(run)
        instance.run_storage.delete_run(run)
        if number % _SAY_EVERY == 0:
            say(f"{number} of {len(runs)} runs deleted")
    rows.forget_checks(runs)


def _delete_ticks(instance: dg.DagsterInstance, before: datetime) -> None:
    """Delete old ticks, also of schedules and sensors that are no longer declared."""
    for state in instance.all_instigator_state():
        instance.purge_ticks(state.instigator_origin_id, state.selector_id, before.timestamp())


def retention_job(settings: Settings) -> dg.JobDefinition:
    """Return the job; its op returns nothing and logs what went."""

    @dg.op(
        name="prune",
        config_schema=_CONFIG,
        description="Deletes old runs, events and ticks, keeps the newest of each partition; merges "
        "the small files of the lake's partition log.",
    )
    def prune_instance(context: dg.OpExecutionContext) -> None:
        policy = Policy(**context.op_config)
        pruned = prune(context.instance, policy, datetime.now(tz=UTC), context.log.info)
        done = "would be deleted" if policy.dry_run else "deleted"
        more = "; there are more, the next pass goes on" if pruned.has_more else ""
        text = (
            f"{pruned.runs} run(s) and {pruned.observations} observation(s) {done}, "
            f"{pruned.kept_runs} old run(s) kept for what they say of partitions{more}"
        )
        context.log.info(text)
        before, after = (0, 0) if policy.dry_run else compact_partition_log(settings)
        if before > after:
            context.log.info("%d file(s) of the partition log made %d", before, after)
        context.add_output_metadata(
            {
                "runs": pruned.runs,
                "observations": pruned.observations,
                "kept_runs": pruned.kept_runs,
                "dry_run": policy.dry_run,
            }
        )

    @dg.job(
        name=JOB,
        tags=dict(UPKEEP),
        description="Prunes Dagster's own storage, and merges the files of the partition log.",
        executor_def=dg.in_process_executor,
    )
    def retention() -> None:
        prune_instance()

    return retention


def retention_schedule(job: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Return the schedule of the job; on by default, once a night."""
    return dg.ScheduleDefinition(
        name=JOB,
        job=job,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Prunes Dagster's own storage and merges files of the partition log each night.",
    )
