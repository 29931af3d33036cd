"""What feeds what, edge by edge: as declared, in Dagster's graph, and as OpenLineage is told it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feature_assets.specs import source_partitions
from jobs.definitions import build_definitions
from lineage.shipping import ship
from millrace.coarsen import Coarsening
from millrace.compile.lineage import lineage
from millrace.plan import Plan
from resources.dagster.asset_keys import declared_name, lake_table
from resources.declarations import plan_of
from resources.lake.offset_ledger import OffsetLedger
from resources.lake.view_versions import claim_version
from resources.settings import CHECKOUT, Settings, settings_from_env
from streaming.archive.lineage import emitting_archive
from streaming.control import deployments
from streaming.publications.service_lineage import services_published
from streaming.upload.lineage import emitting_upload
from streaming.upload.plan import UploadPlan
from tests.support.fake_offline import FakeOffline
from tests.support.many_views import write_views
from tests.support.stream_fakes import FakeEngines, fake_engines

Edge = tuple[str, str]
VIEWS = {"every kind": 9, "many": 48}


def plan_named(name: str, folder: Path) -> Plan:
    """Return the declarations that are shipped, or so many views over three kinds of sources."""
    if name in VIEWS:
        return plan_of([write_views(folder / "views", VIEWS[name], 3 * VIEWS[name])])
    rooms = (CHECKOUT / "feature_assets" / room for room in ("examples", "views"))
    return plan_of([file for room in rooms for file in sorted(room.glob("*.yaml"))])


def settings_in(folder: Path) -> Settings:
    return replace(
        settings_from_env({"MILLRACE_HOME": str(folder / "home")}),
        lake=str(folder / "lake"),
        store_url="redis://store:6379/0",
        kafka="broker:9092",
        data=str(folder / "data"),
    )


def declared(plan: Plan) -> set[Edge]:
    """Return the edges that follow from the declarations, by the rules of the documentation."""
    edges: set[Edge] = set()
    for source in plan.sources.values():
        if not plan.views_of(source.name):
            continue
        origins = [f"raw/{source.name}"] if source.batch else []
        origins += [f"topic/{source.name}"] if source.stream else []
        made = (f"events/{source.name}", f"dead_letters/{source.name}")
        edges |= {(origin, table) for origin in origins for table in made}
    for name, view in plan.views.items():
        events = f"events/{view.source.name}"
        edges |= {(events, f"tiles/{name}"), (events, f"features/{name}")}
        if view.is_online:
            edges.add((f"tiles/{name}", f"online/{name}"))
        if view.is_online and view.source.stream:
            edges |= {
                (f"topic/{view.source.name}", f"stream/{name}"),
                (f"stream/{name}", f"online/{name}"),
            }
    for service in plan.services.values():
        for name in service.views:
            kind = "online" if plan.view(name).is_online else "features"
            edges.add((f"{kind}/{name}", f"services/{service.name}"))
    return edges


def in_dagster(defs: dg.Definitions) -> set[Edge]:
    graph = defs.resolve_asset_graph()
    return {
        (lake_table(parent.path), lake_table(key.path))
        for key in graph.get_all_asset_keys()
        for parent in graph.get(key).parent_keys
    }


def in_documents(plan: Plan) -> set[Edge]:
    """Return the edges of ``millrace compile --target lineage`` of all views."""
    edges = set()
    for view in plan.views.values():
        source = view.source
        names = {}
        if source.batch:
            names[source.batch.path] = f"raw/{source.name}"
        if source.stream:
            names[source.stream.topic] = f"topic/{source.name}"
        edges |= {
            (names.get(read, read), one["name"])
            for one in lineage(view)["datasets"]
            for read in one["inputs"]
        }
    return edges


def without_jobs(edges: set[Edge]) -> set[Edge]:
    """Return the edges between data alone: through a stream, and up to what services read."""
    read = {job: data for data, job in edges if job.startswith("stream/")}
    return {
        (read.get(origin, origin), made)
        for origin, made in edges
        if not made.startswith(("stream/", "services/"))
    }


@pytest.mark.parametrize("declarations", ["shipped", "every kind", "many"])
def test_dagster_and_the_compiled_document_have_the_declared_edges(
    declarations: str, tmp_path: Path
) -> None:
    plan, settings = plan_named(declarations, tmp_path), settings_in(tmp_path)
    expected = declared(plan)
    assert in_dagster(build_definitions(plan, settings, offline=FakeOffline())) == expected
    assert in_documents(plan) == without_jobs(expected)


@pytest.mark.parametrize("declarations", ["shipped", "many"])
def test_every_link_leads_to_an_asset_and_every_name_is_told_apart(
    declarations: str, tmp_path: Path
) -> None:
    plan = plan_named(declarations, tmp_path)
    graph = build_definitions(plan, settings_in(tmp_path), offline=FakeOffline())
    nodes = graph.resolve_asset_graph()
    keys = nodes.get_all_asset_keys()
    ends = [key.path[-1] for key in keys]
    assert len(set(ends)) == len(ends), "the graph shows the last part alone"
    for key in keys:
        node = nodes.get(key)
        assert set(node.parent_keys) <= set(keys)
        former = node.metadata.get("former_key")
        assert former in {None, lake_table(key.path)}
        assert declared_name(key.path) in {*plan.sources, *plan.views, *plan.services}
    columns = [node.metadata.get("dagster/column_lineage") for node in map(nodes.get, keys)]
    deps = [dep for one in columns if one for d in one.deps_by_column.values() for dep in d]
    assert {dep.asset_key for dep in deps} <= set(keys)


@pytest.mark.parametrize("declarations", ["shipped", "every kind"])
def test_openlineage_is_told_the_declared_edges(
    declarations: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, settings = plan_named(declarations, tmp_path), settings_in(tmp_path)
    engines = replace(fake_engines(tmp_path / "home"), settings=settings)
    engines.fake.total_slots = lambda: len(plan.views)
    for name, value in (("HOME", settings.home), ("LAKE", settings.lake), ("DATA", tmp_path)):
        monkeypatch.setenv(f"MILLRACE_{name}", str(value))
    monkeypatch.delenv("MILLRACE_LINEAGE", raising=False)
    for room in ("lineage.builds", "streaming.upload.lineage"):
        monkeypatch.setattr(f"{room}.ship_soon", lambda _: None)  # It is all sent at the end.
    with dg.DagsterInstance.ephemeral() as instance:
        everything_happens(plan, settings, engines, instance)
    ship(settings, is_forced=True)
    told = (settings.home / "lineage" / "events.jsonl").read_text(encoding="utf-8")
    events = [json.loads(line) for line in told.splitlines()]
    assert set(in_openlineage(plan, events)) == declared(plan)


def everything_happens(
    plan: Plan, settings: Settings, engines: FakeEngines, instance: dg.DagsterInstance
) -> None:
    """Build a day of everything, archive, deploy and upload: all that is ever told of."""
    defs = build_definitions(plan, settings, offline=FakeOffline(), engines=engines)
    for source in plan.sources.values():
        views = plan.views_of(source.name)
        day = source_partitions(views).get_first_partition_key() if views else None
        if day:
            job = defs.resolve_job_def(f"daily_{source.name}")
            assert job.execute_in_process(instance=instance, partition_key=day).success
        if views and source.stream:
            books = OffsetLedger(source.name, first={0: 0}, next={0: 0})
            with emitting_archive(settings, source, engines.brokers, books):
                pass
    for view in plan.views.values():
        version = claim_version(settings, view)
        if not view.is_online:
            continue
        if view.source.stream:
            deployments.deploy(settings, plan, view.name, lambda _: None, engines=engines)
        table, first = f"tiles/{view.name}/{version}", view.start
        days = (first, first + timedelta(days=1))
        shape = Coarsening.of(view, 0, 0)
        what = UploadPlan(view, version, table, days, (), (), 0, None, shape, 0)
        with emitting_upload(settings, what):
            pass
    services_published(settings, plan)


def in_openlineage(plan: Plan, events: Iterable[dict[str, Any]]) -> Iterator[Edge]:
    """Yield the edges of what was told, data sets by stage and declaration.

    A job with an asset of its own stands between what it reads and writes. The topic of tiles is
    within the stream.
    """
    for event in events:
        if "job" not in event:
            continue
        reads = [stage for one in event["inputs"] if (stage := stage_of(plan, one))]
        writes = [stage for one in event["outputs"] if (stage := stage_of(plan, one))]
        kind, _, name = event["job"]["name"].partition("/")
        if kind in {"stream", "service"}:
            job = f"{'services' if kind == 'service' else kind}/{name}"
            yield from ((read, job) for read in reads)
            yield from ((job, made) for made in writes)
        else:
            yield from ((read, made) for read in reads for made in writes)


def stage_of(plan: Plan, dataset: dict[str, Any]) -> str | None:
    space, name = dataset["namespace"], dataset["name"]
    if space.startswith("kafka:"):
        topics = {s.stream.topic: s.name for s in plan.sources.values() if s.stream}
        return f"topic/{topics[name]}" if name in topics else None
    if space.startswith("redis:"):
        return f"online/{name.removeprefix('millrace:')}"
    if "/lake/" in name:
        return "/".join(name.partition("/lake/")[2].split("/")[:2])
    [source] = [
        s.name
        for s in plan.sources.values()
        if s.batch and name.endswith(s.batch.path.partition("}")[2].partition("*")[0].rstrip("/"))
    ]
    return f"raw/{source}"
