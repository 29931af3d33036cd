"""Streams as Dagster jobs: what the sensor decided, and the same by hand.

Each run is the audit of one change: its log says what was done and why, and the stream's asset
carries an observation of it. Nothing of Flink, Kafka or the store is imported before a run needs
it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import dagster as dg

from jobs.instance.run_kinds import UPKEEP
from jobs.streams.online_reports import changed_event
from lineage.builds import enclosing
from lineage.runs import within
from millrace.errors import PlatformError
from resources.dagster.asset_keys import asset_path
from resources.progress import Progress
from resources.settings import Settings
from streaming.engines import Engines

ACTIONS_JOB = "stream_actions"

Act = Callable[[Engines, str, Progress], None]

# A stream that is down is more urgent than any history.
_PRIORITY = {**UPKEEP, "dagster/priority": "10"}

_ACTION = {
    "kind": dg.Field(str, description="What to do, as the reconciler names it."),
    "view": dg.Field(str, description="Feature view."),
    "fingerprint": dg.Field(str, description="Meaning that was decided on."),
    "generation": dg.Field(int, description="Submission that was decided on."),
    "reason": dg.Field(str, default_value="by hand", description="Why."),
}
_ACTIONS_SCHEMA = {"actions": dg.Field([_ACTION], description="What was decided, in order.")}
_VIEWS_SCHEMA = {
    "views": dg.Field(
        [str],
        default_value=[],
        is_required=False,
        description="Feature views; empty for all that have a stream.",
    )
}


def stream_jobs(engines: Engines) -> list[dg.JobDefinition]:
    """Return ``stream_actions`` and the jobs ``stream_deploy``, ``_stop`` and ``_restart``."""
    return [_actions_job(engines), *(_hand_job(engines, verb) for verb in _VERBS)]


def _actions_job(engines: Engines) -> dg.JobDefinition:
    @dg.op(
        name="perform",
        config_schema=_ACTIONS_SCHEMA,
        description="Does each action, unless it was overtaken; one that fails stops no other.",
    )
    def perform(context: dg.OpExecutionContext) -> None:
        from resources.declarations import load_valid_plan
        from streaming.control import actions
        from streaming.control.reconcile import Action

        plan, _ = load_valid_plan(engines.settings)

        def act(action: Action) -> str:
            actions.perform(engines.settings, plan, action, context.log.info, engines=engines)
            return f"{action.kind}: {action.reason}"

        decided = [Action(**entry) for entry in context.op_config["actions"]]
        _each(context, engines, {action.view: partial(act, action) for action in decided})

    @dg.job(
        name=ACTIONS_JOB,
        description="What the sensor decided about streams.",
        tags=_PRIORITY,
        executor_def=dg.in_process_executor,
    )
    def stream_actions() -> None:
        perform()

    return stream_actions


def _deploy(engines: Engines, view: str, progress: Progress) -> None:
    from resources.declarations import load_valid_plan
    from streaming.control.deployments import deploy

    plan, _ = load_valid_plan(engines.settings)
    deploy(engines.settings, plan, view, progress, engines=engines)


def _stop(engines: Engines, view: str, progress: Progress) -> None:
    from streaming.control.deployments import stop

    stop(engines.settings, view, progress, engines=engines)


def _restart(engines: Engines, view: str, progress: Progress) -> None:
    from streaming.control.deployments import restart

    restart(engines.settings, view, progress, engines=engines)


_VERBS: Mapping[str, tuple[Act, str]] = MappingProxyType(
    {
        "deploy": (_deploy, "Submits the jobs of views, or goes on from where they were stopped."),
        "stop": (_stop, "Stops the jobs of views with a savepoint; their values are served on."),
        "restart": (_restart, "Stops and resubmits the jobs of views; forgets their failures."),
    }
)


def _hand_job(engines: Engines, verb: str) -> dg.JobDefinition:
    act, description = _VERBS[verb]

    @dg.op(name=f"{verb}_streams", config_schema=_VIEWS_SCHEMA, description=description)
    def by_hand(context: dg.OpExecutionContext) -> None:
        def on(view: str) -> str:
            act(engines, view, context.log.info)
            return f"{verb}: by hand"

        views = context.op_config["views"] or _all_views(engines.settings, verb)
        _each(context, engines, {view: partial(on, view) for view in views})

    @dg.job(
        name=f"stream_{verb}",
        description=description,
        tags=_PRIORITY,
        executor_def=dg.in_process_executor,
    )
    def stream_by_hand() -> None:
        by_hand()

    return stream_by_hand


def _all_views(settings: Settings, verb: str) -> Sequence[str]:
    from resources.declarations import load_valid_plan
    from streaming.control.survey import stream_views
    from streaming.publications.records import RecordFiles

    if verb == "deploy":
        return stream_views(load_valid_plan(settings)[0])
    return list(RecordFiles.of(settings.home).read_all())


def _each(
    context: dg.OpExecutionContext, engines: Engines, acts: Mapping[str, Callable[[], str]]
) -> None:
    """Act on each view and report what was done, and what is served since then.

    Raises:
        dagster.Failure: some acts failed, in their own words. Not retried here: the sensor
            decides anew.
    """
    errors = []
    outer = enclosing(context)
    for view, act in acts.items():
        try:
            with within(outer):
                done = act()
        except PlatformError as error:
            errors.append(f"{view}: {error}")
            continue
        key = dg.AssetKey(asset_path("stream", view))
        context.log_event(dg.AssetObservation(asset_key=key, metadata={"action": done}))
        _tell_served(context, engines, view, done)
    if errors:
        raise dg.Failure("\n".join(errors), allow_retries=False)


def _tell_served(context: dg.OpExecutionContext, engines: Engines, view: str, done: str) -> None:
    """Report the version that answers lookups, if it is another by now."""
    try:
        with engines.store() as store:
            found = store.publications.read_view(view)
    except PlatformError as error:
        context.log.warning("what is served of %s is told by the sensor: %s", view, error)
        return
    event = changed_event(context.instance, engines.settings, view, found, done)
    if event is not None:
        context.log_event(event)
