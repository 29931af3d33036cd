"""Days of files are built once their files are there: late ones when they come, changed ones anew.

The daily tick builds a day whose files are there by then. What it did not find is this sensor's:
it looks at the files, never into them, and holds what it sees against what each day was built from.
Days that were never due while it watched are nobody's wish, and none of its. The rules are in
``docs/decisions/arrivals.md``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import SensorInstigatorData
from dagster._core.storage.tags import RUN_KEY_TAG

from feature_assets.timing import due_ms, is_over, newest_due
from jobs.batch.backfill_jobs import SourceJob
from jobs.instance.run_states import UNDER_WAY
from millrace.calendar import days_after, days_between, to_ms
from millrace.days import day_list, day_ranges
from millrace.names import events_table
from millrace.plan import SourcePlan, ViewPlan
from offline.raw.arrivals import Arrivals
from offline.raw.files import Looks
from offline.tables.partition_log import PartitionState, read_partition_log
from resources.dagster.asset_keys import (
    arrived_sensor,
    backfill_job,
    daily_job,
    events_path,
    raw_path,
)
from resources.dagster.partition_keys import key_day, range_tags
from resources.settings import Settings

ARRIVAL = "arrival"
ARRIVED_TAG = "millrace/arrived"

GRACE_MS = 300_000
"""For so long a day that has become due is left to its tick, which may be made up for."""

WATCHED_ON = timedelta(days=31)
"""For so long the files of a source that has ended are looked at."""

_INTERVAL_S = 60
_MOST_DAYS = 31
_MOST_RUNS = 5
_MOST_WAITING = 62
"""The newest waiting days are remembered for whoever tells of them."""
_MOST_RUNS_READ = 200
_ASLEEP_MS = 3_600_000

_known: dict[str, Looks] = {}
"""What was seen in the files of each source, as long as this process lives."""


@dataclass(frozen=True)
class Watch:
    """What the sensor of a source remembers from one look to the next.

    Attributes:
        since: the first day that is its own: the first that became due while it watched.
        awake_ms: since when it has looked without a gap.
        looked_ms: when it looked last.
        waiting: the newest days that are due and not there, to when they were due.
        looks_for: what the newest of them waits for.
    """

    since: date
    awake_ms: int
    looked_ms: int
    waiting: Mapping[date, int] = field(default_factory=dict)
    looks_for: str = ""

    @classmethod
    def parse(cls, cursor: str | None) -> "Watch | None":
        """Read a cursor; None before the first look."""
        if not cursor:
            return None
        told = json.loads(cursor)
        waiting = {date.fromisoformat(day): ms for day, ms in told.pop("waiting").items()}
        return cls(**{**told, "since": date.fromisoformat(told["since"]), "waiting": waiting})

    @property
    def cursor(self) -> str:
        """The same as text, which ``parse`` reads."""
        waiting = {day.isoformat(): ms for day, ms in self.waiting.items()}
        return json.dumps({**vars(self), "since": self.since.isoformat(), "waiting": waiting})

    def looking(self, now_ms: int) -> "Watch":
        """Return it at the next look, which may come after a gap."""
        slept = now_ms - self.looked_ms > GRACE_MS
        return replace(self, looked_ms=now_ms, awake_ms=now_ms if slept else self.awake_ms)

    def is_awake(self, now_ms: int) -> bool:
        """Tell whether it looks; one that was switched off waits for nothing."""
        return now_ms - self.looked_ms <= _ASLEEP_MS

    def late_days(self, source: SourcePlan, now_ms: int) -> tuple[date, ...]:
        """Return the waiting days that are late by what the source declares, ascending."""
        after_ms = source.late_after_ms
        if after_ms is None:
            return ()
        return tuple(day for day, due in sorted(self.waiting.items()) if due + after_ms <= now_ms)


@dataclass(frozen=True)
class Found:
    """What one look came to.

    Attributes:
        watch: what to remember.
        wanted: days to build, each with what its files are.
        told: how it stands, in a sentence.
    """

    watch: Watch
    wanted: Mapping[date, str]
    told: str


def look_at_files(source: SourcePlan, settings: Settings) -> Arrivals:
    """Look at the files of a source; what did not change since the last look is not opened again."""
    known = _known.setdefault(source.name, {})
    found = Arrivals.look(source, settings, known=known)
    if len(known) > 2 * len(found.found.files) + 1000:
        _known[source.name] = {}
    return found


def awaited(
    source: SourcePlan, arrivals: Arrivals, day: date, now_ms: int, since_ms: int | None = None
) -> str | None:
    """Say what a day waits for; None if it can be built.

    Args:
        source: the source, with files.
        arrivals: the look at them.
        day: a day that is due, or open.
        now_ms: the present instant.
        since_ms: of an open day the instant from which on events are wanted of it.
    """
    if arrivals.problem is None and (
        source.stream is not None or day in source.empty_days or arrivals.has(day, now_ms, since_ms)
    ):
        return None
    return arrivals.looked_for(day, now_ms)


def is_changed(arrivals: Arrivals, state: PartitionState, day: date, now_ms: int) -> bool:
    """Tell whether the files of a built day are others than it was built from, and at rest."""
    signature = arrivals.signature(day)
    if not signature or not arrivals.is_settled(day, now_ms):
        return False
    if state.files is not None:
        return signature != state.files
    # Built before there were digests.
    return 0 < state.began_ms <= arrivals.written_ms(day)


def find(
    source: SourcePlan, start: date, settings: Settings, watch: Watch | None, now: datetime
) -> Found:
    """Look at the files of a source, and tell which days are to be built and which wait.

    Days that failed are built again once their files changed, and so are those that stand. What was
    built by another declaration is left to whoever builds it by the new one.
    """
    now_ms = to_ms(now)
    newest = newest_due(source, now)
    if source.end is not None:
        newest = min(newest, days_after(source.end, -1))
    if watch is None:
        watch = Watch(days_after(newest, 1), now_ms, now_ms)
    look = _Look(
        source,
        look_at_files(source, settings),
        read_partition_log(settings, events_table(source.name)),
        watch.looking(now_ms),
        now_ms,
    )
    waiting, ready, left = look.never_built(days_between(max(watch.since, start), newest))
    wanted = ready | look.changed(start, newest)
    expected = [day for day in waiting if day not in source.empty_days]
    told = f"every day up to {newest} that was due is built, and no file of a built day changed"
    if wanted:
        told = f"{day_list(sorted(wanted))} is there and to be built"
    elif left:
        told = f"{day_list(left)} is there, and left to its tick for some minutes"
    if waiting:
        told = look.arrivals.looked_for(waiting[-1], now_ms)
        if len(waiting) > 1:
            told += f"; {len(waiting)} days wait: {day_list(waiting)}"
    found = replace(
        look.watch,
        waiting={day: due_ms(source, day) for day in expected[-_MOST_WAITING:]},
        looks_for=told if expected else "",
    )
    return Found(found, wanted, told)


@dataclass(frozen=True)
class _Look:
    """One look: the files there are, what was built of them, and when."""

    source: SourcePlan
    arrivals: Arrivals
    log: Mapping[date, PartitionState]
    watch: Watch
    now_ms: int

    def never_built(self, days: Iterable[date]) -> tuple[list[date], dict[date, str], list[date]]:
        """Return which of these days wait for their files, and which can be built, by signature.

        The third are those that could be and are left to their tick, which may come yet.
        """
        waiting, ready, left = [], {}, []
        for day in days:
            if day in self.log:
                continue
            if awaited(self.source, self.arrivals, day, self.now_ms) is not None:
                waiting.append(day)
            elif self.now_ms >= self.watch.awake_ms + GRACE_MS and self._is_past_its_tick(day):
                # After a gap the schedule makes up for its ticks first.
                ready[day] = self.arrivals.signature(day)
            else:
                left.append(day)
        return waiting, ready, left

    def changed(self, start: date, newest: date) -> dict[date, str]:
        """Return the built days of a span whose files are others now, by signature."""
        return {
            day: self.arrivals.signature(day)
            for day, state in self.log.items()
            if start <= day <= newest
            and state.fingerprint == self.source.fingerprint
            and is_changed(self.arrivals, state, day, self.now_ms)
            and self._is_past_its_tick(day)
        }

    def _is_past_its_tick(self, day: date) -> bool:
        return self.now_ms >= due_ms(self.source, day) + GRACE_MS


def arrived_sensors(
    sources: Sequence[tuple[SourcePlan, Sequence[ViewPlan], SourceJob]],
    settings: Settings,
    now: datetime,
) -> list[dg.SensorDefinition]:
    """Return ``build_arrived_<source>`` for each source with files, but one that ended long ago."""
    return [
        _arrived_sensor(source, views, job, settings)
        for source, views, job in sources
        if source.batch is not None and not is_over(source, now - WATCHED_ON)
    ]


def _arrived_sensor(
    source: SourcePlan, views: Sequence[ViewPlan], job: SourceJob, settings: Settings
) -> dg.SensorDefinition:
    start = min(view.start for view in views)

    @dg.sensor(
        name=arrived_sensor(source.name),
        job=job,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Builds days of {source.name} whose files came after they were due, or changed "
        f"since they were built: at most {_MOST_DAYS} days at a time, the newest first.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        before, now = Watch.parse(context.cursor), _now()
        found = find(source, start, settings, before, now)
        # Whoever builds now may build these; what is left then is asked for at the next look.
        is_busy = found.wanted and under_way(context.instance, source, views)
        requests = [] if is_busy else _requests(source, found.wanted, now)
        told = f"{found.told}; a run of {source.name} is under way" if is_busy else found.told
        # Dagster itself would leave out what was asked for before, without a word.
        asked = _asked_before(context.instance, requests)
        requests = [request for request in requests if request.run_key not in asked]
        if asked and not requests:
            runs = ", ".join(f"{run.run_id} ({run.status.value})" for run in asked.values())
            told = f"{found.told}: asked for as run {runs}, and again in the next hour"
        is_news = _outlook(source, before, now) != _outlook(source, found.watch, now)
        return dg.SensorResult(
            run_requests=requests,
            cursor=found.watch.cursor,
            skip_reason=None if requests else told,
            asset_events=[evaluation(source, found.watch, now)] if is_news else [],
        )

    return arrivals


def _now() -> datetime:
    return datetime.now(tz=UTC)


def _outlook(source: SourcePlan, watch: Watch | None, now: datetime) -> object:
    if watch is None:
        return None
    # What was late at the last look is late still, so the look before is judged by its own time.
    at_ms = min(watch.looked_ms, to_ms(now))
    return (*watch.waiting,), watch.late_days(source, at_ms)


def under_way(
    instance: dg.DagsterInstance, source: SourcePlan, views: Sequence[ViewPlan]
) -> list[dg.DagsterRun]:
    """Return the runs that are to build events of a source and have not ended."""
    jobs = {daily_job(source.name), *(backfill_job(view.name) for view in views)}
    events = dg.AssetKey(events_path(source))
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNDER_WAY)), limit=_MOST_RUNS_READ)
    return [run for run in runs if run.job_name in jobs or events in (run.asset_selection or ())]


def days_of(run: dg.DagsterRun) -> tuple[date, date] | None:
    """Return the first and last day that a run is to build; None if it does not say."""
    first = run.tags.get("dagster/asset_partition_range_start") or run.tags.get("dagster/partition")
    last = run.tags.get("dagster/asset_partition_range_end") or first
    return None if first is None or last is None else (key_day(first), key_day(last))


def _requests(source: SourcePlan, wanted: Mapping[date, str], now: datetime) -> list[dg.RunRequest]:
    """Return a run for each range of wanted days, newest first, within the bounds of one look.

    The key names the range and its files, so the same finding is asked for once, and once more in
    the next hour if nothing came of it: its run died before it could say so, since a day that failed
    stands as failed in the log.
    """
    days = sorted(wanted, reverse=True)[:_MOST_DAYS]
    ranges = sorted(day_ranges(days), key=lambda some: some.start, reverse=True)[:_MOST_RUNS]
    return [
        dg.RunRequest(
            run_key=f"{source.name}|{some.start}|{some.end_text}|"
            f"{_digest(wanted[day] for day in some)}|{now:%Y-%m-%dT%H}",
            tags={
                **range_tags(some, by_hour=source.schedule.is_hourly),
                ARRIVED_TAG: source.name,
            },
        )
        for some in ranges
    ]


def _asked_before(
    instance: dg.DagsterInstance, requests: Iterable[dg.RunRequest]
) -> dict[str, dg.DagsterRun]:
    """Return the run that was launched for each of these requests before, by key, if there was one."""
    found = {}
    for request in requests:
        key = str(request.run_key)
        for run in instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: key}), limit=1):
            found[key] = run
    return found


def _digest(signatures: Iterable[str]) -> str:
    return blake2b(".".join(signatures).encode(), digest_size=8).hexdigest()


# What is told of it.


def evaluation(source: SourcePlan, watch: Watch, now: datetime) -> dg.AssetCheckEvaluation:
    """Return how the check ``arrival`` of a source's files ends: a late day fails it."""
    late = watch.late_days(source, to_ms(now))
    waiting = sorted(watch.waiting)
    metadata: dict[str, Any] = {
        "waiting": day_list(waiting) if waiting else "none",
        "late": day_list(late) if late else "none",
    }
    if waiting:
        due = datetime.fromtimestamp(watch.waiting[waiting[0]] / 1000, tz=UTC)
        metadata["due_since"] = dg.MetadataValue.timestamp(due)
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(raw_path(source)),
        check_name=ARRIVAL,
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=watch.looks_for or "every day that was due is there",
        metadata=metadata,
    )


def watched(instance: dg.DagsterInstance, sources: Iterable[str]) -> dict[str, Watch]:
    """Return what the sensors of sources remember, by source; those that never looked have nothing."""
    found: dict[str, Watch] = {}
    if instance.is_ephemeral:
        # It has no daemons, so nothing ticks.
        return found
    names = {arrived_sensor(source): source for source in sources}
    for state in instance.all_instigator_state():
        data = state.instigator_data
        if state.instigator_name in names and isinstance(data, SensorInstigatorData):
            watch = Watch.parse(data.cursor)
            if watch is not None:
                found[names[state.instigator_name]] = watch
    return found


def arrival_checks(
    sources: Sequence[tuple[SourcePlan, Sequence[ViewPlan], SourceJob]], settings: Settings
) -> list[dg.AssetChecksDefinition]:
    """Return the check ``arrival`` on ``raw/<source>``; the sensor tells it, a run of it looks anew."""
    return [
        _arrival_check(source, min(view.start for view in views), settings)
        for source, views, _ in sources
        if source.batch is not None
    ]


def _arrival_check(source: SourcePlan, start: date, settings: Settings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        # Of the files, which nothing runs: one of the events would be a step of each of their runs.
        asset=dg.AssetKey(raw_path(source)),
        name=ARRIVAL,
        description="Every day that was due is there. One whose files have not come is waited for; it "
        "is late, and this check fails, `late_after` after it was due.",
    )
    def arrival(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        now = _now()
        watch = watched(context.instance, [source.name]).get(source.name)
        found = evaluation(source, find(source, start, settings, watch, now).watch, now)
        return dg.AssetCheckResult(
            passed=found.passed,
            severity=found.severity,
            description=found.description,
            metadata=found.metadata,
        )

    return arrival
