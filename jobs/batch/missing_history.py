"""The button for a version that waits: one run per range of days that it lacks, and no other day."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from feature_assets.links import BUILD_OP
from jobs.batch.backfill_plan import RangeRun, with_stages
from jobs.batch.backfill_runs import launch
from jobs.instance.run_kinds import UPKEEP
from jobs.instance.run_states import UNDER_WAY
from millrace.days import day_ranges
from millrace.errors import PlatformError
from millrace.plan import Plan, ViewPlan
from resources.dagster.client import HISTORY_JOB, DagsterApi
from resources.endpoints import dagster_url
from resources.settings import Settings
from streaming.engines import Engines

if TYPE_CHECKING:
    from streaming.control.waiting import History
    from streaming.publications.records import StreamRecord
    from streaming.publications.uploaded_views import UploadedView

    Served = StreamRecord | UploadedView

_MOST_RUNS = 20
"""Of one view at a time; the job can be run again for the rest."""
_VIEWS_SCHEMA = {
    "views": dg.Field(
        [str],
        default_value=[],
        is_required=False,
        description="Feature views; empty for all of which a version waits for days.",
    )
}


def history_job(engines: Engines) -> dg.JobDefinition:
    """Return the job ``build_history``; it starts runs, which build as a backfill does."""

    @dg.op(
        name=BUILD_OP,
        config_schema=_VIEWS_SCHEMA,
        description="Starts a run for each range of days that a waiting version lacks.",
    )
    def start_builds(context: dg.OpExecutionContext) -> None:
        from resources.declarations import load_valid_plan

        plan, _ = load_valid_plan(engines.settings)
        lacking = missing_histories(engines, plan)
        chosen = context.op_config["views"] or list(lacking)
        errors = []
        for name in chosen:
            if name not in lacking:
                context.log.info("%s: no version of it waits for days", plan.view(name).name)
                continue
            try:
                _start(context, engines.settings, *lacking[name])
            except PlatformError as error:
                errors.append(f"{name}: {error}")
        if errors:
            raise dg.Failure("\n".join(errors), allow_retries=False)

    @dg.job(
        name=HISTORY_JOB,
        tags=dict(UPKEEP),
        description="Builds the days that a changed view still lacks before it is served: of the "
        "views named, or of all that wait.",
        executor_def=dg.in_process_executor,
    )
    def build_history() -> None:
        start_builds()

    return build_history


def missing_histories(engines: Engines, plan: Plan) -> "Mapping[str, tuple[ViewPlan, History]]":
    """Return what lacks of each view of which a version waits for days."""
    from streaming.control.waiting import missing_history

    found = {}
    for view, serving in _serving(engines.settings, plan):
        history = missing_history(engines.settings, view, serving, engines.now_ms())
        if history.days:
            found[view.name] = view, history
    return found


def _serving(settings: Settings, plan: Plan) -> "Iterator[tuple[ViewPlan, Served]]":
    """Return each changed view with the record of the version that answers meanwhile."""
    from streaming.publications.records import RecordFiles
    from streaming.publications.uploaded_views import UploadedFiles

    serving: dict[str, Served] = {**UploadedFiles.of(settings.home).read_all()}
    for name, record in RecordFiles.of(settings.home).read_all().items():
        serving[name] = record.previous or record
    for name, found in serving.items():
        view = plan.views.get(name)
        if view is not None and view.is_online and view.fingerprint != found.fingerprint:
            yield view, found


def _start(
    context: dg.OpExecutionContext, settings: Settings, view: ViewPlan, history: "History"
) -> None:
    tags = {f"millrace.history/{view.name}": view.fingerprint}
    if context.instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=list(UNDER_WAY))):
        context.log.info("%s: its missing days are being built already", view.name)
        return
    api = DagsterApi(dagster_url(settings))
    ranges = day_ranges(history.days)
    for days in ranges[:_MOST_RUNS]:
        run = with_stages(settings, RangeRun(view.source, (view,), days))
        run_id = launch(api, run, tags)
        context.log.info("%s: %s is built by %s", view.name, days, api.run_url(run_id))
    left = len(ranges) - _MOST_RUNS
    if left > 0:
        context.log.info("%s: %d range(s) are left for the next run of this job", view.name, left)
