"""How the streams do: sampled at every look, from what the reconciler looks at too."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from alerts.configuration import StreamLimits
from alerts.facts import Fact, Story, Subject
from millrace.errors import PlatformError
from millrace.plan import Plan
from streaming.engines import Engines

if TYPE_CHECKING:
    from streaming.control.survey import StreamHealth
    from streaming.control.waiting import Waiting
    from streaming.publications.records import StreamRecord

FLINK = "flink"
_WELL = frozenset({"running", "degraded", "stopping", "stopped"})
_RUNBOOK = "docs/streams.md"


def stream_facts(
    engines: Engines, plan: Plan, limits: StreamLimits, now_ms: int
) -> tuple[list[Fact], set[str]]:
    """Look once at every stream that was deployed.

    Returns:
        The facts, and the names of all streams there are; any other is gone.
    """
    from streaming.control.survey import survey
    from streaming.publications.records import RecordFiles

    records = RecordFiles.of(engines.settings.home).read_all()
    wanted = {view: record for view, record in records.items() if record.desired == "running"}
    facts, uploaded = _uploaded(engines, plan, limits, now_ms)
    if not records:
        return facts, uploaded
    try:
        seen = survey(engines, plan, records)
    except PlatformError as error:
        # Whatever ails the streams must not keep anything else from being told.
        told = _reachable(now_ms, limits, str(error) if wanted else "")
        return [told, *facts], {FLINK, *records, *uploaded}
    facts.append(_reachable(now_ms, limits))
    for view, record in records.items():
        lag = None
        if limits.max_lag_events is not None and view in wanted:
            lag = seen.lag(engines, record)
        facts += _of(record, seen.health[view], lag, limits, plan, now_ms)
        facts.append(_waits(plan, view, seen.health[view].waiting, limits, now_ms))
    return facts, {FLINK, *records, *uploaded}


def _reachable(now_ms: int, limits: StreamLimits, error: str = "") -> Fact:
    story = Story(error or "Flink answers", runbook=_RUNBOOK)
    subject = Subject("stream", FLINK, "does not answer")
    return Fact(subject, "error", not error, now_ms, story, hold_ms=limits.hold_ms)


def _uploaded(
    engines: Engines, plan: Plan, limits: StreamLimits, now_ms: int
) -> tuple[list[Fact], set[str]]:
    """Say of views that uploads alone serve whether a version of theirs waits."""
    from streaming.control.waiting import waiting_upload
    from streaming.publications.uploaded_views import UploadedFiles

    settings = engines.settings
    records = UploadedFiles.of(settings.home).read_all()
    facts = [
        _waits(
            plan, view, waiting_upload(settings, plan.views.get(view), one, now_ms), limits, now_ms
        )
        for view, one in records.items()
    ]
    return facts, set(records)


def _waits(
    plan: Plan, name: str, waiting: "Waiting | None", limits: StreamLimits, now_ms: int
) -> Fact:
    view = plan.views.get(name)
    details = {}
    if waiting is not None:
        details = {"serves": waiting.serving, "waits": waiting.version}
        if command := waiting.history.command(name):
            details["command"] = command
    story = Story(
        summary="the version that was declared serves" if waiting is None else waiting.text,
        details=details,
        owners=(view.owner,) if view is not None and view.owner else (),
        tags=dict(view.tags) if view is not None else {},
        runbook=_RUNBOOK,
    )
    subject = Subject("stream", name, "version waits")
    return Fact(subject, "warn", waiting is None, now_ms, story, hold_ms=limits.max_wait_ms)


def _of(
    record: "StreamRecord",
    health: "StreamHealth",
    lag: int | None,
    limits: StreamLimits,
    plan: Plan,
    now_ms: int,
) -> Iterator[Fact]:
    view = plan.views.get(record.view)
    owner = view.owner if view is not None else None

    def fact(aspect: str, wrong: str, details: Mapping[str, str], hold_ms: int) -> Fact:
        story = Story(
            summary=wrong or f"the stream is {health.state}",
            details=details,
            owners=(owner,) if owner else (),
            tags=dict(view.tags) if view is not None else {},
            runbook=_RUNBOOK,
        )
        subject = Subject("stream", record.view, aspect)
        return Fact(subject, "error", not wrong, now_ms, story, hold_ms=hold_ms)

    about = {"state": health.state, "version": record.version, "job": health.job_id or ""}
    is_broken = health.state == "broken"
    is_down = health.state not in _WELL
    yield fact("given up", health.detail if is_broken else "", about, 0)
    down = (health.detail or f"the job is {health.state}") if is_down else ""
    yield fact("not running", down, about, limits.hold_ms)
    age_s = health.checkpoint_age_s
    is_old = health.state == "degraded" or (
        health.state == "running"
        and age_s is not None
        and age_s * 1000 > limits.max_checkpoint_age_ms
    )
    old = (health.detail or f"the last checkpoint is {age_s:.0f} s old") if is_old else ""
    yield fact("without checkpoints", old, about, 0)
    if limits.max_lag_events is None:
        return
    is_behind = lag is not None and lag > limits.max_lag_events
    behind = f"{lag} events wait, {limits.max_lag_events} may" if is_behind else ""
    # What is not known is no news: Kafka that does not answer heals nothing.
    if lag is not None or record.desired == "stopped":
        yield fact("behind", behind, about | {"lag_events": str(lag)}, limits.hold_ms)
