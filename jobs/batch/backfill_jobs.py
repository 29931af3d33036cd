"""Jobs over the assets: one per view, and one per source that reads its raw files once."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from checks.history import check_key
from jobs.instance.run_kinds import BUILD
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.dagster.asset_keys import backfill_job, daily_job, view_paths

if TYPE_CHECKING:
    # Dagster exports the function that makes it, not its type.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

SourceJob: TypeAlias = "UnresolvedAssetJobDefinition"
"""A job over assets, before Dagster resolves it."""


def backfill_jobs(plan: Plan) -> "list[SourceJob]":
    """Return ``backfill_<view>`` for each view: its events, tiles and features."""
    return [
        _job(
            backfill_job(view.name),
            [view],
            view_paths(view),
            f"Events, tiles and features of {view.name} for a range of days, in one run.",
        )
        for view in plan.views.values()
    ]


def source_job(source: SourcePlan, views: Collection[ViewPlan]) -> SourceJob:
    """Return ``daily_<source>``: all views of the source, its raw files read once."""
    paths = dict.fromkeys(path for view in views for path in view_paths(view))
    about = f"Everything built from {source.name}, in one run."
    return _job(daily_job(source.name), views, paths, about)


def _job(
    name: str, views: Iterable[ViewPlan], paths: Iterable[tuple[str, str]], description: str
) -> SourceJob:
    selection = dg.AssetSelection.assets(*(dg.AssetKey(path) for path in paths))
    return dg.define_asset_job(
        name,
        # Histories are judged once the runs that change them are over.
        selection=selection - dg.AssetSelection.checks(*map(check_key, views)),
        description=description,
        tags=dict(BUILD),
        executor_def=dg.in_process_executor,
    )
