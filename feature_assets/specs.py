"""Plans as Dagster asset specs: keys, partitions, owners, tags, columns and lineage."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from feature_assets import descriptions, links, timing
from millrace.names import dead_letter_topic
from millrace.plan import BatchPlan, Plan, ServicePlan, SourcePlan, ViewPlan
from resources.dagster.asset_keys import (
    SERVICES,
    dead_letters_path,
    events_path,
    features_path,
    lake_table,
    online_path,
    raw_path,
    service_path,
    stream_path,
    tiles_path,
    topic_path,
    view_group,
)
from resources.dagster.partition_keys import LAST_PARTITION, first_partition, keys_of_day

_SAME_PARTITION = dg.TimeWindowPartitionMapping()
_ENGINES = ("spark", "delta")
_ARCHIVED = ("kafka", "delta")


def source_partitions(views: Sequence[ViewPlan]) -> dg.TimeWindowPartitionsDefinition:
    """Return the partitions, of UTC, that all assets of one source share: days, or hours.

    They are hours if the source is refreshed each hour; then the hour that is not over yet is among
    them. ``views`` are all that read the source, and the partitions begin with the earliest: Dagster
    takes a range of several assets in one run only if they share one definition. What lies before a
    view's own start are empty partitions of it. A closed source has none from its end on.
    """
    start, source = first_partition(min(view.start for view in views)), views[0].source
    end = None if source.end is None else min(source.end, LAST_PARTITION)
    if not source.schedule.is_hourly:
        return dg.DailyPartitionsDefinition(
            start.isoformat(), end_date=None if end is None else end.isoformat()
        )
    return dg.HourlyPartitionsDefinition(
        keys_of_day(start, by_hour=True)[0],
        end_date=None if end is None else keys_of_day(end, by_hour=True)[0],
        end_offset=1,
    )


def raw_spec(source: SourcePlan, batch: BatchPlan, views: Sequence[ViewPlan]) -> dg.AssetSpec:
    """Return the external asset that stands for a source's files."""
    return dg.AssetSpec(
        raw_path(source),
        description=source.description or f"Raw files of {source.name}.",
        group_name=source.name,
        kinds=_kinds(raw_path(source), batch.format),
        owners=descriptions.owners_of(views),
        metadata={**links.about(raw_path(source), source.where), "path": batch.path},
    )


def events_spec(
    source: SourcePlan,
    views: Sequence[ViewPlan],
    partitions: dg.TimeWindowPartitionsDefinition,
    lake: str,
) -> dg.AssetSpec:
    """Return the asset of a source's accepted events; ``views`` are those that read it."""
    return dg.AssetSpec(
        events_path(source),
        deps=_origins(source),
        description=descriptions.source_text(source),
        metadata={
            **_place(lake, events_path(source)),
            **links.about(events_path(source), source.where),
            "dagster/column_schema": descriptions.events_schema(source),
        },
        group_name=source.name,
        code_version=source.fingerprint,
        kinds=_kinds(events_path(source), *(_ARCHIVED if source.batch is None else _ENGINES)),
        owners=descriptions.owners_of(views),
        partitions_def=partitions,
    )


def _origins(source: SourcePlan) -> list[dg.AssetKey]:
    """Return what the events of a source come from, and what is refused of them."""
    files = [raw_path(source)] if source.batch is not None else []
    topics = [topic_path(source)] if source.stream is not None else []
    return [dg.AssetKey(path) for path in (*files, *topics)]


def view_specs(
    view: ViewPlan, partitions: dg.TimeWindowPartitionsDefinition, lake: str
) -> tuple[dg.AssetSpec, dg.AssetSpec]:
    """Return ``tiles/<view>`` and ``features/<view>``.

    Both read events: the point-in-time kernel of features needs no tiles.
    """
    tiles = dg.AssetSpec(
        tiles_path(view),
        deps=[
            dg.AssetDep(dg.AssetKey(events_path(view.source)), partition_mapping=_SAME_PARTITION)
        ],
        description=descriptions.tiles_text(view),
        metadata={**_place(lake, tiles_path(view)), **_about(view, tiles_path(view))},
        group_name=view_group(view),
        code_version=view.fingerprint,
        kinds=_kinds(tiles_path(view), *_ENGINES),
        owners=descriptions.owners(view.owner),
        tags=descriptions.tags(view.tags),
        partitions_def=partitions,
        automation_condition=timing.after_events(),
    )
    features = tiles.replace_attributes(
        key=dg.AssetKey(features_path(view)),
        description=descriptions.features_text(view),
        metadata={
            **_place(lake, features_path(view)),
            **_about(view, features_path(view)),
            "dagster/column_schema": descriptions.features_schema(view),
            "dagster/column_lineage": descriptions.features_lineage(view),
        },
        kinds=_kinds(features_path(view), *_ENGINES),
        freshness_policy=timing.features_freshness(view),
    )
    return tiles, features


def live_specs(plan: Plan, lake: str, addresses: links.Links | None = None) -> list[dg.AssetSpec]:
    """Return the external assets of the live half, in declared order.

    The topic of each source with a stream that a view reads; the dead letters of each source that
    one reads; the job of each view with a stream, and what is served of it: what its stream and
    uploads of its tiles bring there; none for one that is kept offline. Then the feature services.
    Nothing here is ever run: builds, uploads and a sensor report what they do and see of them.
    """
    addresses = addresses or links.Links()
    specs = []
    for source in plan.sources.values():
        views = plan.views_of(source.name)
        if views and source.stream is not None:
            specs.append(_topic_spec(source, views, addresses))
        if views:
            specs.append(_dead_letters_spec(source, views, lake))
        for view in (view for view in views if view.is_online):
            deps = [tiles_path(view)]
            if source.stream is not None:
                specs.append(_stream_spec(view, addresses))
                deps.append(stream_path(view))
            specs.append(_online_spec(view, deps, addresses))
    return [*specs, *(_service_spec(service, plan) for service in plan.services.values())]


def _topic_spec(
    source: SourcePlan, views: Sequence[ViewPlan], addresses: links.Links
) -> dg.AssetSpec:
    topic = source.stream.topic if source.stream else ""
    return dg.AssetSpec(
        topic_path(source),
        description=source.description or f"Events of {source.name} as they arrive.",
        group_name=source.name,
        kinds=_kinds(topic_path(source), "kafka"),
        owners=descriptions.owners_of(views),
        metadata={
            **links.about(topic_path(source), source.where),
            **links.topic_links(addresses, topic),
            "topic": topic,
            "dead_letter_topic": dead_letter_topic(topic),
            "format": source.stream.format if source.stream else "",
            "dagster/column_schema": descriptions.events_schema(source),
        },
    )


def _dead_letters_spec(source: SourcePlan, views: Sequence[ViewPlan], lake: str) -> dg.AssetSpec:
    path = dead_letters_path(source)
    return dg.AssetSpec(
        path,
        deps=_origins(source),
        description=descriptions.dead_letters_text(source),
        group_name=source.name,
        kinds=_kinds(path, *(_ENGINES if source.stream is None else _ARCHIVED)),
        owners=descriptions.owners_of(views),
        metadata={**_place(lake, path), **links.about(path, source.where)},
    )


def _stream_spec(view: ViewPlan, addresses: links.Links) -> dg.AssetSpec:
    path = stream_path(view)
    return _live_spec(view).replace_attributes(
        key=dg.AssetKey(path),
        deps=[dg.AssetKey(topic_path(view.source))],
        description=descriptions.stream_text(view),
        kinds=_kinds(path, "flink", "kafka"),
        metadata={**_about(view, path), **links.stream_links(addresses)},
    )


def _online_spec(
    view: ViewPlan, deps: Sequence[tuple[str, str]], addresses: links.Links
) -> dg.AssetSpec:
    return _live_spec(view).replace_attributes(
        deps=[dg.AssetKey(path) for path in deps],
        description=descriptions.online_text(view),
        metadata={
            **_about(view, online_path(view)),
            **links.online_links(addresses, view),
            "dagster/column_schema": descriptions.served_schema(view),
        },
        kinds=_kinds(online_path(view), "redis"),
        freshness_policy=timing.online_freshness(view),
    )


def _live_spec(view: ViewPlan) -> dg.AssetSpec:
    return dg.AssetSpec(
        online_path(view),
        group_name=view_group(view),
        code_version=view.fingerprint,
        owners=descriptions.owners(view.owner),
        tags=descriptions.tags(view.tags),
    )


def _service_spec(service: ServicePlan, plan: Plan) -> dg.AssetSpec:
    """Return the asset of a feature service: downstream of what its views serve.

    A view that is kept offline gives it what training sets of it are made of, its features.
    """
    views = [plan.view(name) for name in service.views]
    path = service_path(service)
    return dg.AssetSpec(
        path,
        deps=[dg.AssetKey(online_path(v) if v.is_online else features_path(v)) for v in views],
        description=descriptions.service_text(service),
        group_name=SERVICES,
        kinds=_kinds(path),
        owners=descriptions.owners_of(views),
        metadata=links.about(path, service.where),
    )


def _about(view: ViewPlan, path: tuple[str, str]) -> dict[str, Any]:
    said = {"owner": view.owner} if view.owner else {}
    return {**said, "start": view.start.isoformat(), **links.about(path, view.where)}


def _kinds(path: tuple[str, str], *engines: str) -> set[str]:
    """Return an asset's labels: what it is, since the graph shows only the end of its key; its engines."""
    return {path[0], *engines}


def _place(lake: str, path: tuple[str, str]) -> dict[str, str]:
    table = lake_table(path)
    return {
        "dagster/table_name": table.replace("/", "."),
        "dagster/storage_kind": "delta",
        "dagster/uri": f"{lake}/{table}",
    }
