"""Backfills as runs: what to launch for some views and days, and how each partition ended.

Holds no Dagster: runs are launched and read through the webserver, so that a command answers
fast and does the same as the UI.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import cached_property
from typing import Any

from millrace.calendar import days_after, next_day
from millrace.errors import DataError, EngineRejected, EngineUnavailable, PlatformError
from millrace.names import events_table, tiles_table
from millrace.plan import Plan, SourcePlan, ViewPlan
from offline.raw.changes import changed_since
from offline.raw.files import find_raw_files
from offline.tables.events import earlier_days
from offline.tables.partition_log import built_days, published_days, read_partition_log
from resources.dagster.asset_keys import (
    backfill_job,
    daily_job,
    declared_name,
    events_path,
    view_paths,
)
from resources.dagster.client import UNDATED, ActiveRun, DagsterApi, Failed, Materialized, Note
from resources.dagster.partition_keys import FIRST_PARTITION, key_day, partition_keys, range_tags
from resources.lake.reports import Days, days_by_reason
from resources.lake.view_versions import deployed_version
from resources.settings import Settings

_POLL_S = 0.5
_LONGEST_POLL_S = 2.0
_SLOWER = 1.1
_SILENCE_S = 90.0
_UNDECIDED_S = 15.0
_FAULTS_NAMED = 3


@dataclass(frozen=True)
class RangeRun:
    """One Dagster run: a range of days of some views of one source, its raw files read once.

    Attributes:
        earlier: days before the range whose events are built besides, since windows reach into them.
        has_events: the events of all days stand as declared and are not built again.
    """

    source: SourcePlan
    views: tuple[ViewPlan, ...]
    days: Days
    earlier: tuple[date, ...] = ()
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


def with_history(settings: Settings, run: RangeRun) -> RangeRun:
    """Say of a run what the lake makes of it; a dry run shows it, and the run does it.

    Events that stand as declared, of whole days that readers may see, are not built again for views
    that are new to all of these days, unless a raw file has changed since the build began to read.
    A view that has some of the days already is built anew from the files, as was asked.
    """
    earlier = earlier_days(settings, run.source, run.views, run.days)
    has_events = not (earlier or run.is_hourly) and _events_stand(settings, run)
    return replace(run, earlier=earlier, has_events=has_events)


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
    source = run.source
    built = {}
    for path in run.assets:
        table, fingerprint = events_table(source.name), source.fingerprint
        if path[0] != "events":
            view = next(view for view in run.views if view.name == declared_name(path))
            table = f"{path[0]}/{view.name}/{deployed_version(settings, view)}"
            fingerprint = view.fingerprint
        log = read_partition_log(settings, table)
        standing = [day for day in run.days if day in log and log[day].fingerprint == fingerprint]
        built["/".join(path)] = sum(
            sum(not log[day].lacks(range(hour, hour + 1)) for hour in run.days.hours(day))
            if run.is_hourly
            else log[day].error is None
            for day in standing
        )
    return built


def _events_stand(settings: Settings, run: RangeRun) -> bool:
    log = read_partition_log(settings, events_table(run.source.name))
    if not set(run.days) <= published_days(log, run.source.fingerprint):
        return False
    for view in run.views:
        version = deployed_version(settings, view)
        if version is not None:
            tiles = read_partition_log(settings, tiles_table(view.name, version))
            if built_days(tiles, view.fingerprint) & set(run.days):
                return False
    try:
        files = find_raw_files(run.source, settings).files
    except PlatformError:
        return False
    return not changed_since(files, min(log[day].began_ms for day in run.days))


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


def launch(api: DagsterApi, run: RangeRun, tags: Mapping[str, str] | None = None) -> str:
    """Launch one run, reloading the code location if it holds other declarations; returns its id.

    ``tags`` are added to those of the range.

    Raises:
        EngineRejected: Dagster cannot load the view, or refuses the run.
    """
    if not _is_loaded(api, run):
        error = api.reload()
        if error is not None or not _is_loaded(api, run):
            names = ", ".join(view.name for view in run.views)
            raise EngineRejected(
                error or f"Dagster has not loaded {names} as declared here",
                where=api.url,
                fix="`millrace up dagster` restarts it with the MILLRACE_VIEWS of this shell",
            )
    return api.launch(run.assets, run.days, job=run.job, by_hour=run.is_hourly, tags=tags)


def _is_loaded(api: DagsterApi, run: RangeRun) -> bool:
    for view in run.views:
        for path in view_paths(view):
            wanted = view.source.fingerprint if path[0] == "events" else view.fingerprint
            state = api.asset(path)
            if state is None or state.code_version != wanted:
                return False
            # A changed schedule changes no version, and may change what the partitions are.
            if state.is_hourly != run.is_hourly:
                return False
    return True


@dataclass(frozen=True)
class PartitionResult:
    """How one partition of one asset ended in a run.

    Attributes:
        asset: its key: ``features/customer_spend``, ``events/payments_events``.
        partition: its key: ``2018-04-01``, or ``2018-04-01-05:00`` of an hour.
        metadata: what Dagster shows for the day: counts, bytes, versions; empty if it failed.
        error: why it was not built; None if it was.
        was_asked: False for one built on the way, which windows of the asked ones reach into.
    """

    asset: str
    partition: str
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    was_asked: bool = True

    @property
    def day(self) -> date:
        """The day that it is, or lies in."""
        return key_day(self.partition)

    def count(self, name: str) -> int:
        """Return a counter of the metadata, 0 where it is absent."""
        return int(self.metadata.get(name, 0))

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        reasons = {
            name.removeprefix("dead_letters/"): n
            for name, n in self.metadata.items()
            if name.startswith("dead_letters/")
        }
        return {
            "asset": self.asset,
            "day": self.day.isoformat(),
            "partition": self.partition,
            "status": "built" if self.error is None else "failed",
            "rows": self.count("dagster/partition_row_count"),
            "bytes": self.count("bytes"),
            "null_keys": self.count("null_keys"),
            "duplicates": self.count("duplicates"),
            "dead_letters": reasons,
            "missing_days": self.metadata.get("missing_days"),
            "delta_version": self.metadata.get("delta_version"),
            "version": self.metadata.get("feature_version"),
            "error": self.error,
        }


@dataclass
class RunFollower:
    """Reads one run's events until it ends, and says how each partition ended."""

    api: DagsterApi
    run: RangeRun
    run_id: str
    status: str = "QUEUED"
    note: str = ""
    waits_for: tuple[ActiveRun, ...] = ()
    clock: Callable[[], float] = time.monotonic
    _cursor: str | None = None
    _built: dict[tuple[str, str], PartitionResult] = field(default_factory=dict)
    _errors: dict[tuple[str, str], str] = field(default_factory=dict)
    _messages: list[str] = field(default_factory=list)
    _is_finished: bool = False
    _undecided_since: float | None = None

    @cached_property
    def _asked(self) -> frozenset[str]:
        return frozenset(self.run.keys)

    @property
    def url(self) -> str:
        """The run's page in the UI."""
        return self.api.run_url(self.run_id)

    @property
    def done(self) -> int:
        """How many partitions that were asked for are built."""
        return sum(result.was_asked for result in self._built.values())

    @property
    def is_finished(self) -> bool:
        """True once the run has ended and everything it reported is known."""
        return self._is_finished

    @property
    def state(self) -> str:
        """What the run does at the moment, in a line: its newest note, or what it waits for."""
        if self.waits_for:
            first, *others = self.waits_for
            more = f" and {len(others)} more" if others else ""
            return f"queued behind run {first.run_id} ({first.what}){more}"
        return self.note.splitlines()[0] if self.note else self.status.lower()

    def poll(self) -> None:
        """Read what is new.

        Raises:
            EngineUnavailable: the webserver does not answer; the run itself may well go on.
        """
        progress = self.api.progress(self.run_id, self._cursor)
        self._cursor, self.status = progress.cursor, progress.status
        is_waiting = self.status == "QUEUED" and not progress.will_be_retried
        self.waits_for = self.api.runs_before(self.run_id) if is_waiting else ()
        for event in progress.events:
            if isinstance(event, Materialized) and event.partition is not None:
                self._note_built(event, event.partition)
            elif isinstance(event, Failed):
                self._messages.append(event.message)
                for asset, partitions in event.partitions.items():
                    for key, reason in partitions.items():
                        self._errors[asset, key] = reason
            elif isinstance(event, Note):
                self.note = event.message
        if progress.will_be_retried:
            self._follow_retry(progress.retry_run_id)
        elif progress.is_undecided:
            self._is_finished = self._was_undecided_for() > _UNDECIDED_S
        else:
            self._is_finished = progress.is_finished

    def _was_undecided_for(self) -> float:
        now = self.clock()
        if self._undecided_since is None:
            self._undecided_since = now
        return now - self._undecided_since

    def _follow_retry(self, run_id: str | None) -> None:
        """Go on with the run that takes the place of one whose process died.

        What the other built stands, or is built and told anew; until Dagster has made it, there is
        none.
        """
        self.status = "QUEUED"
        self.note = "the run's process died, Dagster starts it once more"
        if run_id is not None:
            self.run_id, self._cursor, self._undecided_since = run_id, None, None
            self._errors.clear()
            self._messages.clear()

    def _note_built(self, event: Materialized, key: str) -> None:
        asset = "/".join(event.asset)
        asked = key in self._asked and event.asset in self.run.assets
        self._built[asset, key] = PartitionResult(asset, key, dict(event.metadata), was_asked=asked)

    def results(self) -> tuple[PartitionResult, ...]:
        """Return every partition that was asked for, and those built besides, by asset and day.

        A partition that nothing was said about failed with the run.
        """
        unsaid = self._messages[0] if self._messages else f"the run ended as {self.status}"
        found = dict(self._built)
        for path in self.run.assets:
            asset = "/".join(path)
            for key in self.run.keys:
                error = self._errors.get((asset, key))
                if error is not None or (asset, key) not in found:
                    found[asset, key] = PartitionResult(asset, key, error=error or unsaid)
        order = ["/".join(path) for path in self.run.assets]
        return tuple(sorted(found.values(), key=lambda r: (order.index(r.asset), r.partition)))

    @property
    def undated(self) -> dict[str, int]:
        """The dead letters of no day that were found in the files, by asset."""
        found: dict[str, int] = {}
        for result in self._built.values():
            if count := result.count(UNDATED):
                found[result.asset] = max(count, found.get(result.asset, 0))
        return found

    def as_json(self) -> dict[str, Any]:
        """Return run, status and results as plain JSON values."""
        return {
            **self.run.as_json(),
            "run_id": self.run_id,
            "url": self.url,
            "status": self.status,
            "undated": self.undated,
            "results": [result.as_json() for result in self.results()],
        }


def undated_lines(followers: Iterable[RunFollower]) -> list[str]:
    """Say how many rows of the files belong to no day, a line for each asset that met any."""
    return [
        f"{asset}: {count:,} more dead letter(s) of no day, rows of the whole files whose time is "
        "missing or cannot be read"
        for follower in followers
        for asset, count in sorted(follower.undated.items())
    ]


def failure_lines(results: Iterable[PartitionResult]) -> list[str]:
    """Name the failed partitions, a line for each reason and the days it is given for.

    In the order of the results; assets that lost the same days for the same reason share a line.
    """
    failed: dict[str, list[tuple[date, str]]] = {}
    for result in results:
        if result.error is not None:
            failed.setdefault(result.asset, []).append((result.day, result.error))
    assets: dict[tuple[str, str], list[str]] = {}
    for asset, days in failed.items():
        for cause in days_by_reason(days).items():
            assets.setdefault(cause, []).append(asset)
    return [f"{', '.join(some)} {days}: {why}" for (why, days), some in assets.items()]


def follow(
    followers: Sequence[RunFollower],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RunFollower]:
    """Poll runs until all have ended, yielding each follower after each look at it.

    A long run is looked at less often: each look costs the webserver as much as it costs Spark to
    build a day or two.

    A webserver that is silent for a while is waited for: its supervisor restarts it, and the
    runs do not need it.

    Raises:
        EngineUnavailable: it stayed silent for 90 s.
    """
    heard, pause_s = clock(), _POLL_S
    while open_runs := [f for f in followers if not f.is_finished]:
        for follower in open_runs:
            try:
                follower.poll()
            except EngineUnavailable:
                if clock() - heard > _SILENCE_S:
                    raise
            else:
                heard = clock()
                yield follower
        if not all(f.is_finished for f in open_runs):
            sleep(pause_s)
            pause_s = min(pause_s * _SLOWER, _LONGEST_POLL_S)
