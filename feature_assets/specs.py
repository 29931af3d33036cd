"""Plans as Dagster asset specs: keys, partitions, owners, tags, columns and lineage."""

from collections.abc import Sequence

import dagster as dg

from feature_assets import descriptions
from feature_assets.keys import events_path, features_path, raw_path, tiles_path
from millrace.plan import SourcePlan, ViewPlan

_SAME_DAY = dg.TimeWindowPartitionMapping()
_KINDS = {"spark", "delta"}


def daily_partitions(views: Sequence[ViewPlan]) -> dg.DailyPartitionsDefinition:
    """Return the UTC days that all assets of one source share.

    They begin with the earliest view: Dagster takes a range of several assets in one run only if
    they share one definition. A day before a view's own start is an empty partition of it.
    """
    return dg.DailyPartitionsDefinition(min(view.start for view in views).isoformat())


def raw_spec(source: SourcePlan) -> dg.AssetSpec:
    """Return the external asset that stands for a source's files."""
    batch = source.batch
    return dg.AssetSpec(
        raw_path(source),
        description=source.description or f"Raw files of {source.name}.",
        group_name=source.name,
        kinds={batch.format} if batch else {"kafka"},
        metadata={"path": batch.path} if batch else {},
    )


def events_spec(source: SourcePlan, days: dg.DailyPartitionsDefinition, lake: str) -> dg.AssetSpec:
    """Return the asset of a source's accepted events."""
    return dg.AssetSpec(
        events_path(source),
        deps=[dg.AssetKey(raw_path(source))],
        description=descriptions.source_text(source),
        metadata={
            **_place(lake, events_path(source)),
            "dagster/column_schema": descriptions.events_schema(source),
        },
        group_name=source.name,
        code_version=source.fingerprint,
        kinds=_KINDS,
        partitions_def=days,
    )


def view_specs(
    view: ViewPlan, days: dg.DailyPartitionsDefinition, lake: str
) -> tuple[dg.AssetSpec, dg.AssetSpec]:
    """Return ``tiles/<view>`` and ``features/<view>``.

    Both read events: the point-in-time kernel of features needs no tiles.
    """
    about = {"owner": view.owner or "", "start": view.start.isoformat()}
    tiles = dg.AssetSpec(
        tiles_path(view),
        deps=[dg.AssetDep(dg.AssetKey(events_path(view.source)), partition_mapping=_SAME_DAY)],
        description=descriptions.tiles_text(view),
        metadata={**_place(lake, tiles_path(view)), **about},
        group_name=view.source.name,
        code_version=view.fingerprint,
        kinds=_KINDS,
        owners=descriptions.owners(view.owner),
        tags=descriptions.tags(view.tags),
        partitions_def=days,
    )
    features = tiles.replace_attributes(
        key=dg.AssetKey(features_path(view)),
        description=descriptions.features_text(view),
        metadata={
            **_place(lake, features_path(view)),
            **about,
            "dagster/column_schema": descriptions.features_schema(view),
            "dagster/column_lineage": descriptions.features_lineage(view),
        },
    )
    return tiles, features


def _place(lake: str, path: tuple[str, str]) -> dict[str, str]:
    return {"dagster/table_name": ".".join(path), "dagster/uri": "/".join((lake, *path))}
