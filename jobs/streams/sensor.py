"""The sensor that keeps streams as wanted: it looks, decides, and asks for runs; it changes nothing.

It holds no state but what it last reported: each tick compares what is wanted with what is there,
and asks for at most one action per view. A run that failed is asked for again, each time after a
longer pause; a run whose reason has passed does nothing. A service that is away makes a tick a skip
that names it. Nothing of Flink, Kafka or the store is imported before a tick needs it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import dagster as dg

from feature_assets.links import job_link, links_of
from feature_assets.timing import REPORT_EVERY_MS
from jobs.instance.run_states import UNDER_WAY
from jobs.streams.online_reports import OnlineEvent, online_event, told_apart
from millrace.errors import PlatformError
from resources.dagster.asset_keys import asset_path
from streaming.engines import Engines

if TYPE_CHECKING:
    from streaming.control.reconcile import Action
    from streaming.control.survey import Survey
    from streaming.publications.records import StreamRecord

SENSOR = "stream_reconciler"
OBSERVE_EVERY_MS = REPORT_EVERY_MS
"""A stream whose state does not change is reported this often, not at each tick."""

_INTERVAL_S = 10
_RETRY_FIRST_S = 15
_RETRY_LONGEST_S = 600
_RUNS_REMEMBERED = 10

Reported = Mapping[str, tuple[str, int]]
"""What was last reported of each view: how it stood, and when."""


def stream_sensor(engines: Engines, actions_job: dg.JobDefinition) -> dg.SensorDefinition:
    """Return the sensor; on by default, every ten seconds."""

    @dg.sensor(
        name=SENSOR,
        job=actions_job,
        minimum_interval_seconds=_INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Keeps each view's Flink job as it was asked for and declared.",
    )
    def stream_reconciler(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        return tick(engines, context.instance, context.cursor)

    return stream_reconciler


def tick(
    engines: Engines, instance: dg.DagsterInstance, cursor: str | None
) -> dg.SensorResult | dg.SkipReason:
    """Look once at all streams that were ever deployed, and say what is to be run.

    Args:
        engines: the doors to Flink, Kafka and the store.
        instance: to know which runs are under way and which have failed.
        cursor: what earlier ticks reported.
    """
    from resources.declarations import load_valid_plan
    from streaming.control.lineage import observe
    from streaming.control.reconcile import decide
    from streaming.control.survey import declared_of, survey
    from streaming.publications.records import RecordFiles

    records = RecordFiles.of(engines.settings.home).read_all()
    if not records:
        return dg.SkipReason("no stream was ever deployed; `millrace stream deploy` does it")
    plan, faults = load_valid_plan(engines.settings)
    try:
        seen = survey(engines, plan, records)
    except PlatformError as error:
        return dg.SkipReason(str(error))
    now_ms = engines.now_ms()
    declared = declared_of(records, plan, engines.settings, has_faults=bool(faults))
    actions = decide(records, declared, seen.facts, now_ms)
    requests = _requests(instance, actions, now_ms)
    reported: Reported = json.loads(cursor) if cursor else {}
    stands = {view: _stands(seen, view) for view in records}
    due = [view for view in records if _is_due(reported.get(view), stands[view], now_ms)]
    observe(engines, plan, records, seen, due)
    told = {view: (stands[view], now_ms) for view in due}
    return dg.SensorResult(
        run_requests=requests,
        asset_events=[
            event for view in due for event in _events(engines, instance, records[view], seen)
        ],
        cursor=json.dumps({**{v: r for v, r in reported.items() if v in records}, **told}),
        skip_reason=None if requests else _skip_text(seen, actions),
    )


def _requests(
    instance: dg.DagsterInstance, actions: Sequence["Action"], now_ms: int
) -> list[dg.RunRequest]:
    """Return one run for each kind of action.

    A JobManager that was lost takes all jobs with it, and starting a process for each would be
    most of the time until they are back. A view that is acted on waits, and so does an action
    whose runs have failed.
    """
    by_kind: dict[str, list[Action]] = {}
    for action in actions:
        if _is_free(instance, action, now_ms):
            by_kind.setdefault(action.kind, []).append(action)
    return [_request(instance, same) for same in by_kind.values()]


def _is_free(instance: dg.DagsterInstance, action: "Action", now_ms: int) -> bool:
    under_way = dg.RunsFilter(tags=view_tag(action.view), statuses=list(UNDER_WAY))
    if instance.get_runs_count(under_way):
        return False
    decided = dg.RunsFilter(tags=decision_tag(action))
    return now_ms >= _pause_ends_ms(instance.get_run_records(decided, limit=_RUNS_REMEMBERED))


def _request(instance: dg.DagsterInstance, actions: Sequence["Action"]) -> dg.RunRequest:
    """Return the run of actions of one kind.

    The key names them and numbers the attempt, since Dagster starts nothing twice under one key.
    """
    tags: dict[str, str] = {"millrace/action": actions[0].kind}
    attempt = 1
    for action in actions:
        decided = decision_tag(action)
        attempt += instance.get_runs_count(dg.RunsFilter(tags=decided))
        tags |= {**view_tag(action.view), **decided}
    keys = " ".join(action.key for action in actions)
    return dg.RunRequest(
        run_key=f"{keys}|{attempt}",
        run_config={"ops": {"perform": {"config": {"actions": [a.to_json() for a in actions]}}}},
        tags=tags,
    )


def view_tag(view: str) -> dict[str, str]:
    """Return the tag of the runs that act on a view."""
    return {f"millrace.view/{view}": "acted on"}


def decision_tag(action: "Action") -> dict[str, str]:
    """Return the tag of the runs that were to do an action."""
    digest = hashlib.sha256(action.key.encode()).hexdigest()[:16]
    return {f"millrace.decision/{digest}": action.key}


def _pause_ends_ms(records: Sequence[dg.RunRecord]) -> float:
    """Return until when a decision waits after its runs, newest first, failed in a row."""
    failed = list(takewhile(lambda record: record.dagster_run.is_failure_or_canceled, records))
    if not failed:
        return 0
    ended_s: float = failed[0].end_time or failed[0].update_timestamp.timestamp()
    pause_s: int = min(_RETRY_FIRST_S * 2 ** (len(failed) - 1), _RETRY_LONGEST_S)
    return (ended_s + pause_s) * 1000


def _is_due(reported: tuple[str, int] | None, state: str, now_ms: int) -> bool:
    return reported is None or reported[0] != state or now_ms - reported[1] >= OBSERVE_EVERY_MS


def _stands(seen: "Survey", view: str) -> str:
    """Return a text that is another one as soon as there is news of a view."""
    served = "?"
    if seen.facts[view].is_store_known:
        served = told_apart(seen.published.get(view), seen.health[view].waiting)
    return f"{seen.health[view].state}|{served}"


def _events(
    engines: Engines, instance: dg.DagsterInstance, record: "StreamRecord", seen: "Survey"
) -> Iterator[OnlineEvent]:
    health = seen.health[record.view]
    yield dg.AssetObservation(
        asset_key=dg.AssetKey(asset_path("stream", record.view)),
        metadata=_told(
            state=health.state,
            version=record.version,
            lag_events=seen.lag(engines, record),
            checkpoint_age_s=health.checkpoint_age_s,
            job_id=health.job_id,
            detail=health.detail or None,
            **job_link(links_of(engines.settings), health.job_id),
        ),
    )
    if seen.facts[record.view].is_store_known:
        yield _online_event(engines, instance, record, seen)


def _online_event(
    engines: Engines, instance: dg.DagsterInstance, record: "StreamRecord", seen: "Survey"
) -> OnlineEvent:
    """Return what is served, with the state of the job that feeds that version."""
    view, found = record.view, seen.published.get(record.view)
    serving = record
    if record.previous is not None and found is not None and found.serving != record.version:
        serving = record.previous
    state = (seen.health if serving is record else seen.serving)[view].state
    progress = seen.progress.get((view, serving.fingerprint), {})
    return online_event(
        instance,
        engines.settings,
        view,
        found,
        waiting=seen.health[view].waiting,
        is_kept_up=state == "running" and bool(progress),
        state=state,
        tile_lag=progress.get("tile_lag"),
    )


def _told(**metadata: Any) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if value is not None}


def _skip_text(seen: "Survey", actions: Sequence["Action"]) -> str:
    """Say why nothing is run."""
    waiting = [f"{a.kind} {a.view} is under way or waits after a failed run" for a in actions]
    states = [f"{view}: {health.state}" for view, health in seen.health.items()]
    return "; ".join([*waiting, *seen.away, *states])
