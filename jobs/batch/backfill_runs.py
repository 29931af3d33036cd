"""Backfills as runs: launched, followed, and how each partition ended.

Holds no Dagster: runs are launched and read through the webserver, so that a command answers
fast and does the same as the UI.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any

from jobs.batch.backfill_plan import RangeRun
from millrace.days import days_by_reason
from millrace.errors import EngineRejected, EngineUnavailable
from resources.dagster.asset_keys import (
    view_paths,
)
from resources.dagster.client import UNDATED, ActiveRun, DagsterApi, Failed, Materialized, Note
from resources.dagster.partition_keys import key_day

_POLL_S = 0.5
_LONGEST_POLL_S = 2.0
_SLOWER = 1.1
_SILENCE_S = 90.0
_UNDECIDED_S = 15.0


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
