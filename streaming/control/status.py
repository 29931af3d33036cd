"""``stream status``: every view with a stream, what uploads alone serve, and every source."""

from dataclasses import replace
from typing import Any

from millrace.errors import EngineError, EngineUnavailable, PlatformError
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.settings import Settings
from streaming.control.offsets import lag_events
from streaming.control.survey import StreamHealth, facts_of, health_of, look, stream_views
from streaming.control.waiting import StoredProgress, waiting_stream, waiting_upload
from streaming.engines import Engines
from streaming.publications.records import RecordFiles, StreamRecord
from streaming.publications.uploaded_views import UploadedFiles


def status(
    settings: Settings, plan: Plan, *, engines: Engines | None = None
) -> dict[str, dict[str, Any]]:
    """Return ``{"views": {name: …}, "uploads": {name: …}, "sources": {name: …}}`` as SPEC §3 has it.

    Views are those with a stream and those that were deployed and are declared no more; uploads are
    those that are served without one. Nothing that is away makes it fail: what is not known is null,
    and ``detail`` says why.
    """
    from streaming.archive.status import archive_status

    engines = engines or Engines(settings)
    records = RecordFiles.of(settings.home).read_all()
    names = dict.fromkeys([*stream_views(plan), *records])
    views = {name: view_health(engines, records.get(name), plan.views.get(name)) for name in names}
    return {
        "views": {name: health.to_json() for name, health in views.items()},
        "uploads": _uploads(engines, plan),
        "sources": archive_status(settings, plan),
    }


def view_health(
    engines: Engines, record: StreamRecord | None, view: ViewPlan | None = None
) -> StreamHealth:
    """Look at one stream, its lag and what it waits for included; ``absent`` if never deployed."""
    if record is None:
        return StreamHealth("absent", detail="never deployed")
    try:
        job, checkpoints = look(engines, record)
    except EngineUnavailable as error:
        return StreamHealth(
            "unknown",
            record.job_id,
            record.version,
            detail=str(error),
            parallelism=record.parallelism,
        )
    found = health_of(record, job, checkpoints, engines.now_ms())
    if record.previous is not None:
        hindrance = facts_of(job).hindrance
        told = _progress(engines)
        waiting = waiting_stream(engines, view, record, hindrance, checkpoints, told)
        found = found.with_waiting(waiting)
    if view is not None and view.source.end is not None and not found.detail:
        found = replace(found, detail=_closed(view.source, found.state))
    try:
        return replace(found, lag_events=lag_events(engines, record, checkpoints))
    except EngineError as error:
        return replace(found, detail=f"{found.detail} {error}".strip())


def _closed(source: SourcePlan, state: str) -> str:
    ended = f"its source {source.name} is closed: it ends on {source.end}"
    if state == "stopped":
        return f"{ended}; what is served stays"
    return f"{ended}. The job stops once it has read past the end and all days are uploaded"


def _progress(engines: Engines) -> StoredProgress:
    try:
        with engines.store() as store:
            return store.progress.read()
    except PlatformError:
        return {}


def _uploads(engines: Engines, plan: Plan) -> dict[str, Any]:
    settings, found = engines.settings, {}
    for name, record in UploadedFiles.of(settings.home).read_all().items():
        waiting = waiting_upload(settings, plan.views.get(name), record, engines.now_ms())
        shown: dict[str, Any] = {
            "state": "serving",
            "version": record.version,
            "cut_over_ms": record.cut_over_ms,
        }
        if waiting is not None:
            shown |= {"waits_for": waiting.to_json(), "detail": waiting.text}
        found[name] = shown
    return found
