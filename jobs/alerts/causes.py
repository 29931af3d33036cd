"""The graph that causes of alerts run along, as the code location declares it."""

import dagster as dg

from alerts.causes import Causes
from millrace.durations import DAY_MS
from millrace.plan import Plan, ViewPlan
from resources.dagster.asset_keys import features_path

FARTHEST_DAYS = 31
"""A bad day that nobody has mended for longer explains nothing new."""


def causes_of(repository: dg.RepositoryDefinition | None, plan: Plan) -> Causes:
    """Return what is upstream of what, how far windows reach, and what each schedule builds.

    Without a repository only what happens to one asset, or to one stream, is put together.
    """
    if repository is None:
        return Causes()
    graph = repository.asset_graph
    upstream = {
        key.to_user_string(): frozenset(
            above.to_user_string() for above in graph.get_ancestor_asset_keys(key)
        )
        for key in graph.get_all_asset_keys()
    }
    builds = {
        schedule.name: frozenset(
            key.to_user_string()
            for key in repository.get_job(schedule.job_name).asset_layer.selected_asset_keys
        )
        for schedule in repository.schedule_defs
    }
    return Causes(upstream, reach_of_views(plan), builds)


def reach_of_views(plan: Plan) -> dict[str, int]:
    """Return how many days the windows of each view's features reach back, by asset."""
    return {"/".join(features_path(view)): _reach_days(view) for view in plan.views.values()}


def _reach_days(view: ViewPlan) -> int:
    if view.reach_ms is None:
        return FARTHEST_DAYS
    return min(FARTHEST_DAYS, -(-view.reach_ms // DAY_MS))
