"""The names under which declarations appear in Dagster; the command and the tests use them too.

Dagster's graph shows the last part of an asset's key alone, so the last parts differ too: the first
says which stage an asset is of and the last tells it from the others of its source or view.
``features/<view>`` is what people look for, and is named as its view is. Tables, topics and data sets
of lineage are named by stage and declaration alone: ``lake_table``.
"""

from collections.abc import Sequence

from millrace.plan import ServicePlan, SourcePlan, ViewPlan

AssetPath = tuple[str, str]

LOCATION = "millrace"
"""Name of the code location, as in ``workspace.yaml``."""

_ENDINGS = {
    "raw": "_files",
    "topic": "_topic",
    "events": "_events",
    "dead_letters": "_dead_letters",
    "tiles": "_tiles",
    "features": "",
    "stream": "_stream",
    "online": "_online",
    "services": "_service",
}


def asset_path(stage: str, name: str) -> AssetPath:
    """Return the key of a declaration's asset.

    Args:
        stage: ``raw``, ``topic``, ``events``, ``dead_letters``, ``tiles``, ``features``, ``stream``,
            ``online`` or ``services``.
        name: of the source, view or service.

    >>> asset_path("tiles", "spend"), asset_path("features", "spend")
    (('tiles', 'spend_tiles'), ('features', 'spend'))
    """
    return stage, f"{name}{_ENDINGS[stage]}"


def declared_name(path: Sequence[str]) -> str:
    """Return the source, view or service that an asset is of.

    >>> declared_name(("tiles", "spend_tiles"))
    'spend'
    """
    return path[-1].removesuffix(_ENDINGS[path[0]])


def lake_table(path: Sequence[str]) -> str:
    """Return the table of an asset, below the lake and without a version; its lineage's name too.

    >>> lake_table(("tiles", "spend_tiles"))
    'tiles/spend'
    """
    return f"{path[0]}/{declared_name(path)}"


def former_key(path: Sequence[str]) -> str | None:
    """Return the key that an asset had before its last part said what it is; None if it is the same.

    >>> former_key(("tiles", "spend_tiles")), former_key(("features", "spend"))
    ('tiles/spend', None)
    """
    former = lake_table(path)
    return None if path[0] == "services" or former == "/".join(path) else former


def view_group(view: ViewPlan) -> str:
    """Return the group of what is made of one view; that of its source holds what all views read."""
    return view.name if view.name != view.source.name else f"{view.name}_view"


def raw_path(source: SourcePlan) -> AssetPath:
    """Return the asset key of a source's files."""
    return asset_path("raw", source.name)


def events_path(source: SourcePlan) -> AssetPath:
    """Return the asset key of a source's accepted events."""
    return asset_path("events", source.name)


def tiles_path(view: ViewPlan) -> AssetPath:
    """Return the asset key of a view's partial aggregates."""
    return asset_path("tiles", view.name)


def features_path(view: ViewPlan) -> AssetPath:
    """Return the asset key of a view's values."""
    return asset_path("features", view.name)


def topic_path(source: SourcePlan) -> AssetPath:
    """Return the asset key of a source's topic."""
    return asset_path("topic", source.name)


def dead_letters_path(source: SourcePlan) -> AssetPath:
    """Return the asset key of what was refused of a source."""
    return asset_path("dead_letters", source.name)


def stream_path(view: ViewPlan) -> AssetPath:
    """Return the asset key of a view's Flink job."""
    return asset_path("stream", view.name)


def online_path(view: ViewPlan) -> AssetPath:
    """Return the asset key of a view's values in the online store."""
    return asset_path("online", view.name)


def service_path(service: ServicePlan) -> AssetPath:
    """Return the asset key of a feature service."""
    return asset_path("services", service.name)


def view_paths(view: ViewPlan) -> tuple[AssetPath, ...]:
    """Return what a backfill of one view builds, in order."""
    return events_path(view.source), tiles_path(view), features_path(view)


def backfill_job(view: str) -> str:
    """Return the name of the job that builds one view."""
    return f"backfill_{view}"


SERVICES = "services"
"""The group of feature services."""


def daily_job(source: str) -> str:
    """Return the name of the job, and of the schedule, that builds all views of a source.

    Not ``backfill_``: a source and a view may have the same name.
    """
    return f"daily_{source}"


def hourly_schedule(source: str) -> str:
    """Return the name of the schedule that builds the open days of a source each hour."""
    return f"hourly_{source}"


def arrived_sensor(source: str) -> str:
    """Return the name of the sensor that builds the days of a source whose files came, or changed."""
    return f"build_arrived_{source}"
