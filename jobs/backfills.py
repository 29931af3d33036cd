"""Jobs over the assets: one per view, and one per source that reads its raw files once."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from feature_assets.keys import backfill_job, daily_job, view_paths
from millrace.plan import Plan, SourcePlan, ViewPlan

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
            view_paths(view),
            f"Events, tiles and features of {view.name} for a range of days, in one run.",
        )
        for view in plan.views.values()
    ]


def source_job(source: SourcePlan, views: Iterable[ViewPlan]) -> SourceJob:
    """Return ``daily_<source>``: all views of the source, its raw files read once."""
    paths = dict.fromkeys(path for view in views for path in view_paths(view))
    return _job(daily_job(source.name), paths, f"Everything built from {source.name}, in one run.")


def _job(name: str, paths: Iterable[tuple[str, str]], description: str) -> SourceJob:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(dg.AssetKey(path) for path in paths)),
        description=description,
        executor_def=dg.in_process_executor,
    )
