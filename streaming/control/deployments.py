"""Streams by hand: deploy, stop and restart a view's Flink job; the sensor's actions use the same.

Each function holds the view's lock, writes down what is wanted before anything is done about it,
and can be called again after any interruption: it goes on from what it finds.
"""

from dataclasses import replace

from millrace.errors import EngineRejected, EngineUnavailable, NotDeclared, nearest
from millrace.plan import Plan, ViewPlan
from resources.progress import Progress
from resources.settings import Settings
from streaming.control import lineage
from streaming.control.reconcile import ENDED
from streaming.control.submission import (
    at_parallelism,
    definition_of,
    new_record,
    stream_of,
    submit,
    topics_of,
)
from streaming.engines import Engines
from streaming.publications import publishing
from streaming.publications.checkpoints import drop_checkpoints
from streaming.publications.publishing import serving_of
from streaming.publications.records import (
    JobDefinition,
    RecordFiles,
    Savepoint,
    StreamRecord,
    retired_of,
)
from streaming.publications.service_lineage import services_published


def deploy(
    settings: Settings,
    plan: Plan,
    view_name: str,
    progress: Progress,
    *,
    parallelism: int | None = None,
    engines: Engines | None = None,
) -> StreamRecord:
    """Bring a view's stream to its declaration, and record that it is to run.

    A view that was never deployed gets topics, a job and a publication, and the batch tiles of its
    history if that was built. A changed view gets a new version with a job of its own, while the
    old one goes on and serves until the new one is complete. A stream that was stopped or has
    failed goes on from its newest state. One that runs as declared is left alone, unless it is to
    have another parallelism: then it goes on from a savepoint.

    Args:
        settings: the stack's.
        plan: everything declared.
        view_name: a view whose source has a stream.
        progress: told what is done.
        parallelism: of the job and of those after it; None: as it was, 1 at first.
        engines: stand-ins, in tests.

    Raises:
        NotDeclared: no such view; the nearest are named.
        UnsupportedByEngine: no Flink job can do what the view says, or its source has no stream.
        EngineUnavailable: Flink or Kafka does not answer; nothing is lost, deploy again.
        EngineRejected: the topic has fewer partitions than that.
        EngineError: Flink refuses the job.
        StoreError: the job runs, but could not be published; the sensor will do that.
    """
    engines = engines or Engines(settings)
    view = plan.view(view_name)
    stream_of(view)
    files = RecordFiles.of(settings.home)
    with files.changing(view.name):
        engines.ensure_topics(topics_of(view))
        record = _bring_up(engines, files, view, parallelism, progress)
        with engines.store() as store:
            publishing.publish(store, record, engines.now_ms())
            publishing.publish_services(store, plan)
        services_published(settings, plan)
    if record.cut_over_ms is None and _has_history(engines, view, record, progress):
        upload_tiles(engines, plan, view.name, progress)
        return deployed(files, view.name)
    return record


def _bring_up(
    engines: Engines,
    files: RecordFiles,
    view: ViewPlan,
    parallelism: int | None,
    progress: Progress,
) -> StreamRecord:
    record = files.read(view.name)
    if record is None:
        return _begin(engines, files, view, None, parallelism, progress)
    if record.fingerprint == view.fingerprint:
        return _go_on(engines, files, record, view, parallelism, progress)
    if record.previous is not None and record.previous.fingerprint == view.fingerprint:
        progress(f"{view.name}: back to {record.previous.version}, which still serves")
        back = _cancel_unfinished(engines, files, record)
        return _go_on(engines, files, back, view, parallelism, progress)
    return _begin(engines, files, view, record, parallelism, progress)


def _begin(
    engines: Engines,
    files: RecordFiles,
    view: ViewPlan,
    older: StreamRecord | None,
    parallelism: int | None,
    progress: Progress,
) -> StreamRecord:
    """Submit a version for the first time; the older one stays as what serves."""
    from resources.lake.view_versions import claim_version

    if older is not None and older.previous is not None:
        older = _cancel_unfinished(engines, files, older)
    version = claim_version(engines.settings, view)
    record = new_record(engines, view, version, 1 if older is None else older.generation + 1)
    if older is not None:
        progress(f"{view.name}: {older.version} serves until {version} is complete")
        # A meaning that comes back is not to be dropped any more.
        retired = tuple(old for old in older.retired if old.fingerprint != record.fingerprint)
        record = replace(
            record,
            previous=replace(older, retired=()),
            retired=retired,
            parallelism=older.parallelism,
        )
    if parallelism is not None:
        record = at_parallelism(engines, record, parallelism)
    lineage.stream_declared(engines, view, record)
    return submit(engines, record, files.write, progress)


def _cancel_unfinished(engines: Engines, files: RecordFiles, record: StreamRecord) -> StreamRecord:
    """Drop a version that never came to serve; returns the record of the one that does."""
    serving = record.previous
    if serving is None:
        return record
    kept = replace(
        serving,
        desired="running",
        generation=max(serving.generation, record.generation),
        retired=(*record.retired, retired_of(record, engines.now_ms())),
    )
    files.write(kept)
    cancel(engines, record.job_ids)
    return kept


def _go_on(
    engines: Engines,
    files: RecordFiles,
    record: StreamRecord,
    view: ViewPlan,
    parallelism: int | None,
    progress: Progress,
) -> StreamRecord:
    serving, definition = serving_of(view), definition_of(engines, view)
    if serving != record.serving:
        # A newer build may say the same meaning in more words.
        record = files.write(replace(record, serving=serving))
    is_same = definition == record.definition
    is_scaled = parallelism is not None and parallelism != record.parallelism
    if parallelism is not None:
        record = at_parallelism(engines, record, parallelism)
    if is_same and is_scaled:
        record = stop_jobs(engines, files, record, progress, with_previous=False)
    elif is_same and is_alive(engines, record.job_id):
        progress(f"{view.name} {record.version}: runs as declared, job {record.job_id}")
        return record if record.desired == "running" else files.write(_wanted(record))
    record = as_compiled(engines, record, definition, progress)
    return submit(engines, _wanted(record), files.write, progress)


def as_compiled(
    engines: Engines, record: StreamRecord, definition: JobDefinition, progress: Progress
) -> StreamRecord:
    """Return the record with the job that this build compiles its view into, its ``definition``.

    If that is another one, the jobs before it are ended and their state is dropped: another text
    shares none with them. The new job begins with its topic.
    """
    if definition == record.definition:
        return record
    progress(f"{record.view}: this build compiles the view into another job")
    cancel(engines, record.job_ids)
    drop_checkpoints(engines, record.job_ids)
    return replace(record, definition=definition, restores=(), savepoint=None)


def _wanted(record: StreamRecord) -> StreamRecord:
    """Return the record of a stream that is to run, with its failures forgotten."""
    return replace(record, desired="running", failures=(), error="", not_before_ms=0)


def stop(
    settings: Settings, view_name: str, progress: Progress, *, engines: Engines | None = None
) -> StreamRecord:
    """Stop a view's stream with a savepoint, and record that it is to stay so.

    Its values are served on; they become stale. ``deploy`` goes on from the savepoint.

    Raises:
        NotDeclared: the view was never deployed.
        EngineUnavailable: Flink does not answer; the sensor stops the job once it does.
    """
    engines = engines or Engines(settings)
    files = RecordFiles.of(settings.home)
    with files.changing(view_name):
        record = deployed(files, view_name)
        record = files.write(replace(record, desired="stopped"))
        return stop_jobs(engines, files, record, progress)


def restart(
    settings: Settings,
    view_name: str,
    progress: Progress,
    *,
    parallelism: int | None = None,
    engines: Engines | None = None,
) -> StreamRecord:
    """Stop a view's job if it runs, and submit it again from there; forgets its failures.

    Args:
        settings: the stack's.
        view_name: a deployed view.
        progress: told what is done.
        parallelism: of the job and of those after it; None: as it was.
        engines: stand-ins, in tests.

    Raises:
        NotDeclared: the view was never deployed.
        EngineUnavailable: Flink does not answer.
        EngineError: Flink refuses the job.
    """
    engines = engines or Engines(settings)
    files = RecordFiles.of(settings.home)
    with files.changing(view_name):
        record = deployed(files, view_name)
        if parallelism is not None:
            record = at_parallelism(engines, record, parallelism)
        record = stop_jobs(engines, files, record, progress, with_previous=False)
        return submit(engines, _wanted(record), files.write, progress)


def deployed(files: RecordFiles, view_name: str) -> StreamRecord:
    """Return the record of a deployed view.

    Raises:
        NotDeclared: it was never deployed; the nearest that were are named.
    """
    record = files.read(view_name)
    if record is None:
        raise NotDeclared(
            f"the view {view_name!r} has no stream that was deployed",
            fix=nearest(view_name, list(files.read_all())) or "millrace stream deploy",
        )
    return record


def stop_jobs(
    engines: Engines,
    files: RecordFiles,
    record: StreamRecord,
    progress: Progress,
    *,
    with_previous: bool = True,
) -> StreamRecord:
    """Stop the jobs of a record with savepoints; returns the record with these."""
    record = files.write(_stop_with_savepoint(engines, record, progress))
    if with_previous and record.previous is not None:
        older = replace(record.previous, desired=record.desired)
        older = _stop_with_savepoint(engines, older, progress)
        record = files.write(replace(record, previous=older))
    return record


def _stop_with_savepoint(
    engines: Engines, record: StreamRecord, progress: Progress
) -> StreamRecord:
    if not is_alive(engines, record.job_id):
        return record
    try:
        path = engines.flink.stop_with_savepoint(record.job_id)
    except EngineUnavailable:
        raise
    except EngineRejected as error:
        # A job that is not running takes no savepoint; its newest checkpoint does as well.
        progress(f"{record.view}: no savepoint, its checkpoint is kept: {error.what}")
        cancel(engines, (record.job_id,))
        return record
    progress(f"{record.view} {record.version}: stopped, state in {path}")
    lineage.jobs_ended(engines.settings, [record.job_id], "COMPLETE")
    return replace(record, savepoint=Savepoint(record.job_id, path, engines.now_ms()))


def cancel(engines: Engines, jobs: tuple[str, ...]) -> None:
    """Cancel those jobs that are alive; their checkpoints stay."""
    for job in jobs:
        if is_alive(engines, job):
            engines.flink.cancel(job)
            lineage.jobs_ended(engines.settings, [job], "ABORT", "the job was canceled")


def is_alive(engines: Engines, job: str) -> bool:
    """Say whether Flink knows the job and it has not ended."""
    report = engines.flink.job(job)
    return report is not None and report.state not in ENDED


def upload_tiles(engines: Engines, plan: Plan, view_name: str, progress: Progress) -> None:
    """Upload a view's batch tiles; afterwards publication and record say up to where.

    Raises:
        PlatformError: as ``streaming.upload.upload``.
    """
    from streaming.upload.upload import upload

    upload(engines.settings, plan, view_name, progress)


def _has_history(
    engines: Engines, view: ViewPlan, record: StreamRecord, progress: Progress
) -> bool:
    """Tell whether tiles are built that can be uploaded: all of those that the older version has."""
    from millrace.names import tiles_table
    from offline.tables.partition_log import ended_days, read_partition_log
    from streaming.control.waiting import history_reason, missing_history

    if record.previous is not None:
        history = missing_history(engines.settings, view, record.previous, engines.now_ms())
        if history.days:
            waits = f"{record.previous.version} serves until {record.version} has them"
            progress(f"{history_reason(view.name, history)}; {waits}")
            return False
    log = read_partition_log(engines.settings, tiles_table(record.view, record.version))
    return bool(ended_days(log, record.fingerprint))
