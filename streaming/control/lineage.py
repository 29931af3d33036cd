"""Tells OpenLineage of streams.

A stream is one run from submission to the end of its Flink job, whoever started or stopped it, and
however often this platform was restarted meanwhile: its run id is made of the job's, and what ended
without anyone saying so is found by the sensor, which compares what is told with what Flink says.
The writer, which moves a stream's tiles into the store as they are, is part of the stream.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lineage import datasets, events, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.naming import topic_name
from lineage.outbox import OpenRun, Outbox
from lineage.quiet import quietly
from lineage.runs import End, Work, current_enclosing, static_run_id
from millrace.errors import EngineUnavailable
from millrace.plan import Plan, ViewPlan
from resources.endpoints import store_url
from resources.flink.distribution import FLINK_VERSION
from resources.settings import Settings
from streaming.control.reconcile import ENDED, JobFacts
from streaming.engines import Engines
from streaming.publications.records import Retired, StreamRecord

if TYPE_CHECKING:
    from resources.flink.rest import CheckpointReport
    from streaming.control.survey import Survey

PERIOD_S = 300
"""A stream whose state does not change is told of this often."""

_ENDS: Mapping[str, tuple[End, str]] = {
    "FINISHED": ("COMPLETE", ""),
    "CANCELED": ("ABORT", "the job was canceled"),
    "SUSPENDED": ("ABORT", "the job was suspended"),
    "FAILED": ("FAIL", "the job failed"),
}
_LOST: tuple[End, str] = ("FAIL", "Flink does not know the job any more")
_STOPPED_UNSEEN: tuple[End, str] = ("ABORT", "it was to stop, and Flink does not know the job")


@quietly
def stream_started(engines: Engines, record: StreamRecord) -> None:
    """Tell of a submission, just before Flink is told."""
    emitter = Emitter(engines.settings)
    if emitter.is_on:
        from resources.declarations import load_valid_plan

        plan, _ = load_valid_plan(engines.settings)
        emitter.start(_stream_work(engines, plan, record))


@quietly
def stream_declared(engines: Engines, view: ViewPlan, record: StreamRecord) -> None:
    """Tell what a new version of a stream will do, and what will be served of it."""
    emitter = Emitter(engines.settings)
    if not emitter.is_on:
        return
    now = datetime.now(tz=UTC)
    read, written = _stream_datasets(engines, record, view)
    job_facets = _stream_job_facets(record, view)
    emitter.declare(
        events.job_event(
            f"stream/{view.name}", now, job_facets=job_facets, inputs=read, outputs=written
        )
    )
    for served in written[1:]:
        emitter.declare(events.dataset_event(served, now))


@quietly
def jobs_ended(settings: Settings, jobs: Collection[str], state: End, reason: str = "") -> None:
    """Tell that Flink jobs ended; those that nothing is told of are passed over."""
    if not Emitter(settings).is_on:
        return
    for run in _open_streams(settings):
        if _job_of(run) in jobs:
            _end(settings, run, state, reason)


@quietly
def stopped_with_flink(settings: Settings, by: str) -> None:
    """Tell that the stack's own Flink was stopped on purpose, and its jobs with it.

    None of them failed: those that are still wanted are restored as other runs.
    """
    if Emitter(settings).is_on:
        for run in _open_streams(settings):
            _end(settings, run, "ABORT", f"its Flink was stopped: {by}")


@quietly
def version_promoted(engines: Engines, record: StreamRecord) -> None:
    """Tell that another version of a view answers lookups from now on."""
    emitter = Emitter(engines.settings)
    if not emitter.is_on:
        return
    served = datasets.online_view(store_url(engines.settings), record.view, record.version)
    changed = {"lifecycleStateChange": facets.lifecycle("ALTER")}
    emitter.declare(events.dataset_event(served.with_facets(changed), datetime.now(tz=UTC)))


@quietly
def versions_dropped(engines: Engines, versions: Sequence[Retired]) -> None:
    """Tell that the topics of versions that serve no more are gone."""
    emitter, now = Emitter(engines.settings), datetime.now(tz=UTC)
    for old in versions if emitter.is_on else ():
        gone = Dataset(topic_name(engines.brokers, old.tile_topic))
        gone = gone.with_facets({"lifecycleStateChange": facets.lifecycle("DROP")})
        emitter.declare(events.dataset_event(gone, now))


@quietly
def observe(
    engines: Engines,
    plan: Plan,
    records: Mapping[str, StreamRecord],
    seen: "Survey",
    due: Collection[str],
) -> None:
    """Compare what is told of streams with what was seen, and tell the difference.

    Args:
        engines: to ask Flink about jobs that are no longer recorded.
        plan: the declarations.
        records: all recorded streams.
        seen: what was seen of them just now.
        due: views whose state is to be told even if nothing began or ended.
    """
    emitter = Emitter(engines.settings)
    if not emitter.is_on:
        return
    told = {_job_of(run): run for run in _open_streams(engines.settings)}
    looked_at = {one.job_id: (one, job) for one, job in _looked_at(records, seen)}
    for job_id, (record, job) in looked_at.items():
        if job.is_alive and job_id not in told:
            emitter.start(_stream_work(engines, plan, record))
        elif job.state in ENDED and job_id in told:
            state, reason = _ENDS[job.state]
            reason = record.error or reason if state == "FAIL" else reason
            _end(engines.settings, told[job_id], state, reason)
        elif job.state is None and job_id in told and record.desired == "stopped":
            # Nothing will take its place, and it was to end.
            _end(engines.settings, told[job_id], *_STOPPED_UNSEEN)
    for job_id in told.keys() - looked_at.keys():
        found = engines.flink.job(job_id)
        if found is None or found.state in ENDED:
            _end(engines.settings, told[job_id], *(_LOST if found is None else _ENDS[found.state]))
    for view in due:
        if seen.facts[view].job.is_alive:
            _report(engines, emitter, plan, records[view], seen)


def _looked_at(
    records: Mapping[str, StreamRecord], seen: "Survey"
) -> Iterator[tuple[StreamRecord, JobFacts]]:
    for view, record in records.items():
        yield record, seen.facts[view].job
        if record.previous is not None:
            yield record.previous, seen.facts[view].previous


def _report(
    engines: Engines, emitter: Emitter, plan: Plan, record: StreamRecord, seen: "Survey"
) -> None:
    offsets = engines.committed_offsets(record.flink_group, record.source_topic)
    checkpoint: CheckpointReport | None = seen.checkpoints[record.view]
    work = _stream_work(engines, plan, record)
    about = {
        **_about(record),
        "state": seen.health[record.view].state,
        "lagEvents": seen.lag(engines, record),
        "offsets": {str(p): o for p, o in sorted(offsets.items())},
    }
    if checkpoint is not None:
        about["checkpoints"] = {
            "completed": checkpoint.completed,
            "latestPath": checkpoint.latest_path,
            "ageSeconds": checkpoint.age_s,
        }
    text = ",".join(f"{p}:{o}" for p, o in sorted(offsets.items()))
    version = {"version": facets.version(text)} if text else {}
    read = [d.with_facets(version) for d in work.inputs]
    run_facets = {"millrace_stream": facets.custom_run(_known(about))}
    at = datetime.fromtimestamp(engines.now_ms() / 1000, tz=UTC)
    emitter.running(work, run_facets, inputs=read, at=at)


def _stream_work(engines: Engines, plan: Plan, record: StreamRecord) -> Work:
    declared = plan.views.get(record.view)
    # A stream of an older meaning is told of by what is recorded of it.
    view = declared if declared and declared.fingerprint == record.fingerprint else None
    read, written = _stream_datasets(engines, record, view)
    started = datetime.fromtimestamp(record.submitted_at_ms / 1000, tz=UTC)
    return Work(
        run_id=static_run_id(started, f"stream/{record.view}/{record.job_id}"),
        job=f"stream/{record.view}",
        owner=f"stream:{record.view}:{record.job_id}",
        started_at=started,
        enclosing=current_enclosing(),
        job_facets=_stream_job_facets(record, view),
        run_facets={
            "processing_engine": facets.engine("Flink", FLINK_VERSION),
            "millrace_stream": facets.custom_run(_known(_about(record))),
        },
        inputs=read,
        outputs=written,
    )


def _about(record: StreamRecord) -> dict[str, Any]:
    return {
        "view": record.view,
        "version": record.version,
        "fingerprint": record.fingerprint,
        "generation": record.generation,
        "jobId": record.job_id,
        "restoredFrom": record.restored_from,
    }


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _stream_datasets(
    engines: Engines, record: StreamRecord, view: ViewPlan | None
) -> tuple[list[Dataset], list[Dataset]]:
    """Return what a stream reads, and what it writes: its topic of tiles, then what is served."""
    brokers = engines.brokers
    source = None if view is None else datasets.topic(brokers, view.source)
    read = source or Dataset(topic_name(brokers, record.source_topic))
    written = [Dataset(topic_name(brokers, record.tile_topic))]
    try:
        url = store_url(engines.settings)
    except EngineUnavailable:
        return [read], written
    if view is None:
        served = datasets.online_view(url, record.view, record.version)
    else:
        served = datasets.online(url, view, record.version, read_from=read, is_stream=True)
    return [read], [*written, served]


def _stream_job_facets(record: StreamRecord, view: ViewPlan | None) -> dict[str, Any]:
    found = {
        "jobType": facets.job_type("STREAM", period_s=PERIOD_S),
        "sql": facets.sql(record.definition.script, "flink"),
    }
    if view is not None and view.owner:
        found["ownership"] = facets.job_owner(view.owner)
    if view is not None and view.tags:
        found["tags"] = facets.job_tags(view.tags)
    if view is not None and view.description:
        found["documentation"] = facets.job_text(view.description)
    if view is not None and view.where.file:
        found["sourceCodeLocation"] = facets.source_code(view.where.file, view.where.line)
    return found


def _open_streams(settings: Settings) -> list[OpenRun]:
    return [run for run in Outbox.of(settings).open_runs() if run.owner.startswith("stream:")]


def _job_of(run: OpenRun) -> str:
    return run.owner.rpartition(":")[2]


def _end(settings: Settings, run: OpenRun, state: End, reason: str) -> None:
    event = events.ending_of(run.start, state, datetime.now(tz=UTC), reason)
    Outbox.of(settings).end(run.run_id, state, event)
