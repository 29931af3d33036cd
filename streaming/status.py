"""``stream status``: every view with a stream and every source, as one document."""

from dataclasses import replace
from typing import Any

from millrace.errors import EngineError, EngineUnavailable
from millrace.plan import Plan
from resources.settings import Settings
from streaming.engines import Engines
from streaming.records import RecordFiles, StreamRecord
from streaming.survey import StreamHealth, health_of, lag_events, look, stream_views


def status(
    settings: Settings, plan: Plan, *, engines: Engines | None = None
) -> dict[str, dict[str, Any]]:
    """Return ``{"views": {name: …}, "sources": {name: …}}`` as SPEC §3 has it.

    Views are those with a stream and those that were deployed and are declared no more. Nothing
    that is away makes it fail: what is not known is null, and ``detail`` says why.
    """
    from streaming.archive.status import archive_status

    engines = engines or Engines(settings)
    records = RecordFiles.of(settings.home).read_all()
    names = dict.fromkeys([*stream_views(plan), *records])
    views = {name: view_health(engines, records.get(name)).to_json() for name in names}
    return {"views": views, "sources": archive_status(settings, plan)}


def view_health(engines: Engines, record: StreamRecord | None) -> StreamHealth:
    """Look at one stream, its lag included; ``absent`` if it was never deployed."""
    if record is None:
        return StreamHealth("absent", detail="never deployed")
    try:
        job, checkpoints = look(engines, record)
    except EngineUnavailable as error:
        return StreamHealth("unknown", record.job_id, record.version, detail=str(error))
    found = health_of(record, job, checkpoints, engines.now_ms())
    try:
        return replace(found, lag_events=lag_events(engines, record, checkpoints))
    except EngineError as error:
        return replace(found, detail=f"{found.detail} {error}".strip())
