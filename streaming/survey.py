"""Looks at the streams as they are: what the reconciler decides on, and what status shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from millrace.errors import EngineError, EngineRejected, PlatformError
from millrace.plan import Plan
from millrace.published import PublishedView
from resources.settings import Settings
from streaming import publishing
from streaming.actions import superseded
from streaming.engines import Engines
from streaming.reconcile import (
    ENDED,
    Declared,
    JobFacts,
    PublishedFacts,
    StreamFacts,
)
from streaming.records import RecordFiles, StreamRecord

if TYPE_CHECKING:
    from resources.flink import CheckpointReport, JobReport

State = Literal[
    "absent",
    "starting",
    "running",
    "degraded",
    "restarting",
    "failed",
    "missing",
    "broken",
    "stopping",
    "stopped",
    "unknown",
]

DEGRADED_AFTER_S = 90.0
"""No complete checkpoint for so long, at an interval of 10 s, means that something is wrong."""

_PROGRESS_FRESH_MS = 15_000

Progress = Mapping[tuple[str, str], Mapping[str, Any]]


@dataclass(frozen=True)
class StreamHealth:
    """How one stream is.

    Attributes:
        state: ``degraded`` runs without completing checkpoints; ``missing`` is unknown to Flink;
            ``broken`` failed too often and waits for a restart by hand; ``unknown``: Flink does
            not answer.
        checkpoint_age_s: age of the last complete checkpoint; None before the first.
        detail: why it is not running; empty if it is.
    """

    state: State
    job_id: str | None = None
    version: str | None = None
    lag_events: int | None = None
    checkpoint_age_s: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what ``stream status --json`` shows; ``detail`` only if there is one."""
        shown = {
            "state": self.state,
            "job_id": self.job_id,
            "version": self.version,
            "lag_events": self.lag_events,
            "checkpoint_age_s": self.checkpoint_age_s,
        }
        return {**shown, "detail": self.detail} if self.detail else shown


@dataclass(frozen=True)
class Survey:
    """Everything that was seen at one look.

    Attributes:
        checkpoints: by view; None where Flink does not know the job.
        progress: what the writer last said of each (view, fingerprint).
        away: why something could not be looked at, a line each.
    """

    facts: Mapping[str, StreamFacts]
    health: Mapping[str, StreamHealth]
    checkpoints: "Mapping[str, CheckpointReport | None]"
    progress: Progress
    away: tuple[str, ...] = ()

    def lag(self, engines: Engines, record: StreamRecord) -> int | None:
        """Return a stream's lag in events; None if Kafka does not answer."""
        try:
            return lag_events(engines, record, self.checkpoints[record.view])
        except EngineError:
            return None


def survey(engines: Engines, records: Mapping[str, StreamRecord]) -> Survey:
    """Look at the streams of some records; cheap enough for every few seconds.

    Raises:
        EngineUnavailable: Flink does not answer. A store that does not is noted in ``away``.
    """
    away: list[str] = []
    published: Mapping[str, PublishedView] = {}
    progress: Progress = {}
    is_store_known = True
    try:
        with engines.store() as client:
            published = publishing.read_published(client)
            progress = publishing.read_progress(client)
    except PlatformError as error:
        is_store_known = False
        away.append(str(error))
    files = RecordFiles.of(engines.settings.home)
    facts, health, reports = {}, {}, {}
    living = {job.job_id for job in engines.flink.jobs() if job.state not in ENDED}
    for view, record in records.items():
        job, checkpoints = look(engines, record)
        seen = StreamFacts(
            job=_facts_of(job),
            previous=_previous_facts(engines, record),
            twins=tuple(job for job in superseded(record) if job in living),
            published=_published_facts(published.get(view)),
            is_store_known=is_store_known,
            is_busy=files.is_being_changed(view),
        )
        if record.previous is not None and seen.job.is_running:
            is_complete = _is_complete(engines, record, checkpoints, progress, away)
            seen = replace(seen, is_complete=is_complete)
        facts[view], reports[view] = seen, checkpoints
        health[view] = health_of(record, job, checkpoints, engines.now_ms())
    return Survey(facts, health, reports, progress, tuple(away))


def look(
    engines: Engines, record: StreamRecord
) -> "tuple[JobReport | None, CheckpointReport | None]":
    """Return what Flink says of a stream's job and of its checkpoints.

    Raises:
        EngineUnavailable: Flink does not answer.
    """
    job = engines.flink.job(record.job_id)
    # A job that is being initialised cannot be asked yet.
    if job is None or job.state == "INITIALIZING":
        return job, None
    try:
        return job, engines.flink.checkpoints(record.job_id)
    except EngineRejected:
        return job, None


def _facts_of(job: "JobReport | None") -> JobFacts:
    return JobFacts() if job is None else JobFacts(job.state, job.is_running)


def _previous_facts(engines: Engines, record: StreamRecord) -> JobFacts:
    older = record.previous
    return JobFacts() if older is None else _facts_of(engines.flink.job(older.job_id))


def _published_facts(found: PublishedView | None) -> PublishedFacts | None:
    if found is None:
        return None
    return PublishedFacts(
        fingerprints=frozenset(version.fingerprint for version in found.versions),
        cut_over_ms={version.fingerprint: version.cut_over_ms for version in found.versions},
    )


def _is_complete(
    engines: Engines,
    record: StreamRecord,
    checkpoints: "CheckpointReport | None",
    progress: Progress,
    away: list[str],
) -> bool:
    """Say whether a new version holds all that the older one does."""
    older = record.previous
    if older is not None and older.cut_over_ms is not None and record.cut_over_ms is None:
        return False
    told = progress.get((record.view, record.fingerprint))
    if told is None or engines.now_ms() - told["at_ms"] > _PROGRESS_FRESH_MS:
        return False
    try:
        read = _read_offsets(engines, record, checkpoints)
    except EngineError as error:
        away.append(str(error))
        return False
    has_read = all(read.get(int(p), 0) >= end for p, end in record.catch_up.items())
    reached_ms = told["progress_ms"]
    return has_read and reached_ms is not None and reached_ms >= record.submitted_at_ms


def _read_offsets(
    engines: Engines, record: StreamRecord, checkpoints: "CheckpointReport | None"
) -> Mapping[int, int]:
    """Return how far the job has surely come, by partition.

    The group's offsets are of this job only once it has completed a checkpoint; a job that began
    at the topic's beginning must not be credited with what its forerunner had read.
    """
    is_its_own = checkpoints is not None and checkpoints.completed > 0
    if is_its_own or record.restored_from is not None:
        return engines.committed_offsets(record.flink_group, record.source_topic)
    return engines.begin_offsets(record.source_topic)


def lag_events(
    engines: Engines, record: StreamRecord, checkpoints: "CheckpointReport | None"
) -> int:
    """Return how many events of the source's topic the job has not surely counted.

    Offsets are committed with each checkpoint, so up to ten seconds of traffic are in it; zero
    means that everything is counted.

    Raises:
        EngineError: Kafka does not answer, or the topic is gone.
    """
    read = _read_offsets(engines, record, checkpoints)
    begins = engines.begin_offsets(record.source_topic)
    ends = engines.end_offsets(record.source_topic)
    return sum(max(end - max(read.get(p, 0), begins.get(p, 0)), 0) for p, end in ends.items())


def health_of(
    record: StreamRecord,
    job: "JobReport | None",
    checkpoints: "CheckpointReport | None",
    now_ms: int,
) -> StreamHealth:
    """Judge a stream by what is recorded of it and what Flink says."""
    age_s = None if checkpoints is None else checkpoints.age_s
    state, detail = _judged(record, job, age_s, now_ms)
    older = record.previous
    if older is not None and state in {"running", "starting"}:
        detail = f"{older.version} serves until {record.version} is complete"
    return StreamHealth(
        state,
        job_id=record.job_id,
        version=record.version,
        checkpoint_age_s=age_s,
        detail=detail,
    )


def _judged(
    record: StreamRecord, job: "JobReport | None", age_s: float | None, now_ms: int
) -> tuple[State, str]:
    facts = _facts_of(job)
    if record.desired == "stopped":
        return ("stopping", "") if facts.is_alive else ("stopped", "")
    if not facts.is_alive:
        return _judged_down(record, facts)
    if not facts.is_running:
        is_first = facts.state in {"INITIALIZING", "CREATED"} or not record.restores
        return ("starting" if is_first else "restarting"), record.error
    silent_s = (now_ms - record.submitted_at_ms) / 1000 if age_s is None else age_s
    if silent_s > DEGRADED_AFTER_S:
        return "degraded", f"no checkpoint was completed for {silent_s:.0f} s"
    return "running", ""


def _judged_down(record: StreamRecord, facts: JobFacts) -> tuple[State, str]:
    if record.is_circuit_open:
        restart = f"millrace stream restart {record.view}"
        times = f"failed {len(record.failures)} times within an hour"
        return "broken", f"{times}: {record.error}; mend the cause, then `{restart}`"
    if facts.state is None:
        return "missing", record.error or "Flink does not know the job; it will be restored"
    return "failed", record.error or f"the job is {facts.state}; it will be restored"


def declared_of(
    records: Mapping[str, StreamRecord], plan: Plan, settings: Settings, *, has_faults: bool
) -> dict[str, Declared]:
    """Return what the declarations say of each recorded view.

    A view that is absent counts as removed only if every declaration could be read, and if this
    process reads the folders that the view was deployed from: another shell may know more.
    """
    own = {str(folder) for folder in settings.views}
    found = {}
    for name, record in records.items():
        view = plan.views.get(name)
        is_here = view is not None and view.is_online and view.source.stream is not None
        found[name] = Declared(
            fingerprint=view.fingerprint if view is not None and is_here else None,
            is_known=set(record.folders) <= own and (is_here or not has_faults),
        )
    return found


def stream_views(plan: Plan) -> Sequence[str]:
    """Return the views that are to be fed by a stream, in declared order."""
    views = plan.views.values()
    return [view.name for view in views if view.is_online and view.source.stream is not None]
