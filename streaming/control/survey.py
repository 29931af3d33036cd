"""Looks at the streams as they are: what the reconciler decides on, and what status shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from millrace.calendar import day_ms
from millrace.errors import EngineError, EngineRejected, PlatformError
from millrace.plan import Plan, SourcePlan
from millrace.published import PublishedView
from resources.settings import Settings
from streaming.control.offsets import lag_events
from streaming.control.reconcile import (
    ENDED,
    Closing,
    Declared,
    JobFacts,
    PublishedFacts,
    StreamFacts,
)
from streaming.control.waiting import StoredProgress, Waiting, waiting_stream
from streaming.engines import Engines
from streaming.publications.records import RecordFiles, StreamRecord, superseded

if TYPE_CHECKING:
    from resources.flink.rest import CheckpointReport, JobReport

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


@dataclass(frozen=True)
class StreamHealth:
    """How one stream is.

    Attributes:
        state: ``degraded`` runs without completing checkpoints; ``missing`` is unknown to Flink;
            ``broken`` failed too often and waits for a restart by hand; ``unknown``: Flink does
            not answer.
        checkpoint_age_s: age of the last complete checkpoint; None before the first.
        detail: why it is not running, or what a version beside it waits for; else empty.
        waiting: the same of that version, to be read by programs; None without one.
        parallelism: of its job; None if it was never deployed.
    """

    state: State
    job_id: str | None = None
    version: str | None = None
    lag_events: int | None = None
    checkpoint_age_s: float | None = None
    detail: str = ""
    waiting: Waiting | None = None
    parallelism: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what ``stream status --json`` shows; all behind the age only if there is more to say."""
        shown: dict[str, Any] = {
            "state": self.state,
            "job_id": self.job_id,
            "version": self.version,
            "lag_events": self.lag_events,
            "checkpoint_age_s": self.checkpoint_age_s,
        }
        if self.parallelism is not None and self.parallelism > 1:
            shown["parallelism"] = self.parallelism
        if self.waiting is not None:
            shown |= {"serves": self.waiting.serving, "waits_for": self.waiting.to_json()}
        return {**shown, "detail": self.detail} if self.detail else shown

    def with_waiting(self, waiting: Waiting | None) -> "StreamHealth":
        """Return the same of a stream whose newest version waits; it says what for."""
        if waiting is None:
            return self
        detail = "; ".join(filter(None, (self.detail, waiting.text)))
        return replace(self, detail=detail, waiting=waiting)


@dataclass(frozen=True)
class Survey:
    """Everything that was seen at one look.

    Attributes:
        health: of the newest version of each.
        serving: of the version that answers lookups, which may be the one before it.
        published: what the store publishes, by view; of views without a stream too.
        checkpoints: by view; None where Flink does not know the job.
        progress: what the writer last said of each (view, fingerprint).
        away: why something could not be looked at, a line each.
    """

    facts: Mapping[str, StreamFacts]
    health: Mapping[str, StreamHealth]
    serving: Mapping[str, StreamHealth]
    published: Mapping[str, PublishedView]
    checkpoints: "Mapping[str, CheckpointReport | None]"
    progress: StoredProgress
    away: tuple[str, ...] = ()

    def lag(self, engines: Engines, record: StreamRecord) -> int | None:
        """Return a stream's lag in events; None if Kafka does not answer."""
        try:
            return lag_events(engines, record, self.checkpoints[record.view])
        except EngineError:
            return None


def survey(engines: Engines, plan: Plan, records: Mapping[str, StreamRecord]) -> Survey:
    """Look at the streams of some records; cheap enough for every few seconds.

    Raises:
        EngineUnavailable: Flink does not answer. A store that does not is noted in ``away``.
    """
    away: list[str] = []
    published: Mapping[str, PublishedView] = {}
    progress: StoredProgress = {}
    is_store_known = True
    try:
        with engines.store() as store:
            published = store.publications.read().views
            progress = store.progress.read()
    except PlatformError as error:
        is_store_known = False
        away.append(str(error))
    files = RecordFiles.of(engines.settings.home)
    facts, health, serving, reports = {}, {}, {}, {}
    living = {job.job_id for job in engines.flink.jobs() if job.state not in ENDED}
    for view, record in records.items():
        job, checkpoints = look(engines, record)
        known = facts_of(job)
        waiting = waiting_stream(
            engines, plan.views.get(view), record, known.hindrance, checkpoints, progress
        )
        previous = JobFacts()
        reports[view] = checkpoints
        now_ms = engines.now_ms()
        health[view] = health_of(record, job, checkpoints, now_ms).with_waiting(waiting)
        serving[view] = health[view]
        if record.previous is not None:
            older, of_older = look(engines, record.previous)
            previous = facts_of(older)
            serving[view] = health_of(record.previous, older, of_older, now_ms)
        facts[view] = StreamFacts(
            job=known,
            previous=previous,
            twins=tuple(job for job in superseded(record) if job in living),
            published=_published_facts(published.get(view)),
            is_store_known=is_store_known,
            is_complete=record.previous is not None and waiting is None,
            progress_ms=progress.get((view, record.fingerprint), {}).get("progress_ms"),
            is_busy=files.is_being_changed(view),
        )
    return Survey(facts, health, serving, published, reports, progress, tuple(away))


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


def facts_of(job: "JobReport | None") -> JobFacts:
    """Return what is decided on of what Flink says of a job."""
    return JobFacts() if job is None else JobFacts(job.state, job.is_running)


def _published_facts(found: PublishedView | None) -> PublishedFacts | None:
    if found is None:
        return None
    return PublishedFacts(
        fingerprints=frozenset(version.fingerprint for version in found.versions),
        serving=found.serving,
        cut_over_ms={version.fingerprint: version.cut_over_ms for version in found.versions},
    )


def health_of(
    record: StreamRecord,
    job: "JobReport | None",
    checkpoints: "CheckpointReport | None",
    now_ms: int,
) -> StreamHealth:
    """Judge a stream by what is recorded of it and what Flink says."""
    age_s = None if checkpoints is None else checkpoints.age_s
    state, detail = _judged(record, job, age_s, now_ms)
    return StreamHealth(
        state,
        job_id=record.job_id,
        version=record.version,
        checkpoint_age_s=age_s,
        detail=detail,
        parallelism=record.parallelism,
    )


def _judged(
    record: StreamRecord, job: "JobReport | None", age_s: float | None, now_ms: int
) -> tuple[State, str]:
    facts = facts_of(job)
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
            closing=None if view is None else closing_of(view.source),
        )
    return found


def closing_of(source: SourcePlan) -> Closing | None:
    """Return when a closed source ends; None if it goes on."""
    if source.end is None:
        return None
    end_ms = day_ms(source.end)
    return Closing(end_ms, end_ms + source.allowed_lateness_ms + source.clock_skew_ms)


def stream_views(plan: Plan) -> Sequence[str]:
    """Return the views that are to be fed by a stream, in declared order."""
    views = plan.views.values()
    return [view.name for view in views if view.is_online and view.source.stream is not None]
