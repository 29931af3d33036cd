"""The names under which declarations appear in Dagster; the command and the tests use them too."""

from typing import Literal

from millrace.plan import SourcePlan, ViewPlan

Stage = Literal["raw", "topic", "events", "tiles", "features", "stream", "online"]

LOCATION = "millrace"
"""Name of the code location, as in ``workspace.yaml``."""


def raw_path(source: SourcePlan) -> tuple[str, str]:
    """Return the asset key of a source's files."""
    return ("raw", source.name)


def events_path(source: SourcePlan) -> tuple[str, str]:
    """Return the asset key of a source's accepted events."""
    return ("events", source.name)


def tiles_path(view: ViewPlan) -> tuple[str, str]:
    """Return the asset key of a view's partial aggregates."""
    return ("tiles", view.name)


def features_path(view: ViewPlan) -> tuple[str, str]:
    """Return the asset key of a view's values."""
    return ("features", view.name)


def topic_path(source: SourcePlan) -> tuple[str, str]:
    """Return the asset key of a source's topic."""
    return ("topic", source.name)


def dead_letters_path(source: SourcePlan) -> tuple[str, str]:
    """Return the asset key of what the archive refused."""
    return ("dead_letters", source.name)


def stream_path(view: ViewPlan) -> tuple[str, str]:
    """Return the asset key of a view's Flink job."""
    return ("stream", view.name)


def online_path(view: ViewPlan) -> tuple[str, str]:
    """Return the asset key of a view's values in the online store."""
    return ("online", view.name)


def view_paths(view: ViewPlan) -> tuple[tuple[str, str], ...]:
    """Return what a backfill of one view builds, in order."""
    return events_path(view.source), tiles_path(view), features_path(view)


def backfill_job(view: str) -> str:
    """Return the name of the job that builds one view."""
    return f"backfill_{view}"


def daily_job(source: str) -> str:
    """Return the name of the job, and of the schedule, that builds all views of a source.

    Not ``backfill_``: a source and a view may have the same name.
    """
    return f"daily_{source}"


def hourly_schedule(source: str) -> str:
    """Return the name of the schedule that builds the open days of a source each hour."""
    return f"hourly_{source}"
