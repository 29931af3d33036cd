"""Does what was decided about a stream, if it still holds when its turn comes.

Every action takes the view's lock, reads the record again and looks before it acts, so that a
decision made twice, or overtaken by a command, does nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from millrace.errors import EngineError
from millrace.plan import Plan
from resources.progress import Progress
from resources.settings import Settings
from streaming.control import lineage
from streaming.control.deployments import (
    as_compiled,
    cancel,
    deploy,
    is_alive,
    stop_jobs,
    upload_tiles,
)
from streaming.control.reconcile import RETIRE_AFTER_MS, Action, ActionKind
from streaming.control.submission import Save, definition_of, failed, submit
from streaming.engines import Engines
from streaming.publications import publishing
from streaming.publications.records import RecordFiles, StreamRecord, retired_of, superseded
from streaming.publications.retirement import drop_versions
from streaming.publications.service_lineage import services_published


@dataclass(frozen=True)
class _Context:
    """One action with all it needs; ``record`` is the record under the lock."""

    engines: Engines
    files: RecordFiles
    plan: Plan
    record: StreamRecord
    progress: Progress


def perform(
    settings: Settings,
    plan: Plan,
    action: Action,
    progress: Progress,
    *,
    engines: Engines | None = None,
) -> None:
    """Do one action; nothing if it was overtaken.

    Args:
        settings: whose streams.
        plan: the declarations as they are now.
        action: what was decided.
        progress: told what is done and why.
        engines: stand-ins for tests.

    Raises:
        EngineUnavailable: an engine does not answer; the next decision repeats the action.
        EngineError: Flink refuses the job, or it failed so often that it is left alone.
        StoreError: the store failed.
    """
    engines = engines or Engines(settings)
    progress(f"{action.kind} {action.view}: {action.reason}")
    # These two take the lock themselves, for the part that needs it.
    if action.kind == "upgrade":
        deploy(settings, plan, action.view, progress, engines=engines)
        return
    if action.kind == "upload":
        upload_tiles(engines, plan, action.view, progress)
        return
    files = RecordFiles.of(settings.home)
    with files.changing(action.view):
        record = files.read(action.view)
        found = None if record is None else (record.fingerprint, record.generation)
        if record is None or found != (action.fingerprint, action.generation):
            progress(f"overtaken: the stream is at {found} by now")
            return
        _ACTIONS[action.kind](_Context(engines, files, plan, record, progress))


def _restore(context: _Context) -> None:
    engines, record = context.engines, context.record
    view = context.plan.views.get(record.view)
    is_declared = view is not None and view.fingerprint == record.fingerprint
    if view is not None and is_declared and not is_alive(engines, record.job_id):
        # What an older build compiled may name functions that this one's jar does not have.
        record = as_compiled(engines, record, definition_of(engines, view), context.progress)
    _resubmit(engines, record, context.files.write, context.progress)


def _restore_previous(context: _Context) -> None:
    newest, older = context.record, context.record.previous

    def save(record: StreamRecord) -> StreamRecord:
        context.files.write(replace(newest, previous=record))
        return record

    if older is not None:
        _resubmit(context.engines, older, save, context.progress)


def _resubmit(engines: Engines, record: StreamRecord, save: Save, progress: Progress) -> None:
    report = engines.flink.job(record.job_id)
    if is_alive(engines, record.job_id):
        progress(f"job {record.job_id} lives: nothing to do")
        return
    if report is not None and report.state == "FAILED":
        cause = engines.flink.exceptions(record.job_id) or "Flink gives no cause"
        cause = engines.without_secrets(cause)
        progress(f"job {record.job_id} failed: {cause}")
        lineage.jobs_ended(engines.settings, [record.job_id], "FAIL", cause)
        record = save(failed(record, cause, engines.now_ms()))
    if record.is_circuit_open:
        raise EngineError(
            f"the stream failed {len(record.failures)} times within an hour, last: {record.error}",
            where=f"view {record.view}, job {record.job_id}",
            fix=f"mend the cause, then `millrace stream restart {record.view}`",
        )
    submit(engines, record, save, progress)


def _stop(context: _Context) -> None:
    stop_jobs(context.engines, context.files, context.record, context.progress)


def _finish(context: _Context) -> None:
    record = context.files.write(replace(context.record, desired="stopped"))
    stop_jobs(context.engines, context.files, record, context.progress)


def _withdraw(context: _Context) -> None:
    record = replace(context.record, desired="stopped")
    stop_jobs(context.engines, context.files, context.files.write(record), context.progress)
    with context.engines.store() as store:
        store.publications.amend(record.view, lambda _: None)
    context.progress(f"{record.view} is published no more")


def _publish(context: _Context) -> None:
    with context.engines.store() as store:
        publishing.publish(store, context.record, context.engines.now_ms())
        publishing.publish_services(store, context.plan)
    services_published(context.engines.settings, context.plan)


def _promote(context: _Context) -> None:
    engines, record, older = context.engines, context.record, context.record.previous
    if older is None:
        return
    retired = (*record.retired, retired_of(older, engines.now_ms()))
    record = context.files.write(replace(record, previous=None, retired=retired))
    with engines.store() as store:
        publishing.publish(store, record, engines.now_ms())
    context.progress(f"{record.view}: {record.version} serves, {older.version} is retired")
    lineage.version_promoted(engines, record)
    cancel(engines, older.job_ids)


def _cancel_twins(context: _Context) -> None:
    cancel(context.engines, superseded(context.record))


def _retire(context: _Context) -> None:
    engines, record = context.engines, context.record
    due_ms = engines.now_ms() - RETIRE_AFTER_MS
    due = [old for old in record.retired if old.retired_at_ms <= due_ms]
    kept = tuple(old for old in record.retired if old not in due)
    drop_versions(engines, record.view, due, context.progress)
    lineage.versions_dropped(engines, due)
    record = context.files.write(replace(record, retired=kept))
    with engines.store() as store:
        publishing.publish(store, record, engines.now_ms())


_ACTIONS: Mapping[ActionKind, Callable[[_Context], None]] = MappingProxyType(
    {
        "cancel_twins": _cancel_twins,
        "stop": _stop,
        "withdraw": _withdraw,
        "restore": _restore,
        "restore_previous": _restore_previous,
        "publish": _publish,
        "promote": _promote,
        "retire": _retire,
        "finish": _finish,
    }
)
