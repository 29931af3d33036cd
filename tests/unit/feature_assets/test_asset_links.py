"""What an asset's page leads to: its declaration, docs, table, topic, job and served values."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feature_assets.links import Links, links_of
from feature_assets.specs import live_specs
from jobs.definitions import build_definitions
from resources.dagster.asset_keys import asset_path
from resources.declarations import plan_of
from resources.settings import CHECKOUT, settings_from_env
from tests.support.fake_offline import FakeOffline

LINKS = Links(kafka="broker:9092", flink="http://flink:8081", server="http://api:8080")
DECLARATIONS = """
version: millrace/v1
sources:
  - name: taps
    columns: {id: int64, at: timestamp, card: string, gate: int32}
    event_time: at
    event_id: id
    stream: {topic: gate.taps, format: json}
entities:
  - {name: card, join_key: card, type: string}
  - {name: gate, join_key: gate, type: int32}
feature_views:
  - name: rides
    entity: card
    source: taps
    start: 2020-01-01
    owner: team:gates
    features: [{name: taps_1h, aggregate: count, window: 1h}]
  - name: at_gate
    entities: [card, gate]
    source: taps
    start: 2020-01-01
    owner: rides@example.com
    features: [{name: pair_1h, aggregate: count, window: 1h}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "taps.yaml"
    file.write_text(DECLARATIONS, encoding="utf-8")
    return file


def live(file: Path, stage: str, name: str, links: Links = LINKS) -> dg.AssetSpec:
    specs = live_specs(plan_of([file]), "/lake", links)
    [found] = [spec for spec in specs if spec.key == dg.AssetKey(asset_path(stage, name))]
    return found


def test_every_asset_leads_to_its_declaration_and_a_page_of_the_docs(file: Path) -> None:
    settings = settings_from_env({"MILLRACE_LAKE": "/lake", "MILLRACE_HOME": str(file.parent)})
    graph = build_definitions(plan_of([file]), settings, offline=FakeOffline())
    nodes = graph.resolve_asset_graph()
    for key in nodes.get_all_asset_keys():
        metadata: Any = nodes.get(key).metadata
        [reference] = metadata["dagster/code_references"].code_references
        assert reference.file_path == str(file)
        line = file.read_text(encoding="utf-8").splitlines()[reference.line_number - 1]
        assert line.strip().startswith("- name:"), (key, line)
        assert (CHECKOUT / metadata["docs"]).is_file()


def test_docs_that_are_served_somewhere_are_links(file: Path) -> None:
    env = {"MILLRACE_LAKE": "/lake", "MILLRACE_HOME": str(file.parent)}
    plain = build_definitions(plan_of([file]), settings_from_env(env), offline=FakeOffline())
    served = settings_from_env({**env, "MILLRACE_DOCS_URL": "https://docs.example.com/m/"})
    defs = build_definitions(plan_of([file]), served, offline=FakeOffline())
    before, nodes = plain.resolve_asset_graph(), defs.resolve_asset_graph()
    assert nodes.get_all_asset_keys() == before.get_all_asset_keys()
    for key in nodes.get_all_asset_keys():
        page = before.get(key).metadata["docs"].removeprefix("docs/")
        link: Any = nodes.get(key).metadata["docs"]
        assert link.url == f"https://docs.example.com/m/{page}"
        assert nodes.get(key).parent_keys == before.get(key).parent_keys
        assert nodes.get(key).code_version == before.get(key).code_version
    rows = dg.AssetCheckKey(dg.AssetKey(["features", "rides"]), "rows")
    books = [str(graph.get_check_spec(rows).metadata["runbook"].value) for graph in (before, nodes)]
    assert books == ["`docs/runbooks.md#rows`", "<https://docs.example.com/m/runbooks.md#rows>"]

    with dg.DagsterInstance.ephemeral() as instance:
        done = defs.resolve_job_def("daily_taps").execute_in_process(
            instance=instance, partition_key="2020-01-02"
        )
        built = {event.asset_key for event in done.get_asset_materialization_events()}
    assert dg.AssetKey(["features", "rides"]) in built


def test_a_fault_in_events_concerns_the_owners_of_all_views(file: Path) -> None:
    assert list(live(file, "topic", "taps").owners) == ["team:gates", "rides@example.com"]
    assert list(live(file, "online", "rides").owners) == ["team:gates"]


def test_tables_say_where_they_lie_and_by_whom_they_are_written(file: Path) -> None:
    dead_letters = live(file, "dead_letters", "taps")
    assert dead_letters.metadata["dagster/uri"] == "/lake/dead_letters/taps"
    assert dead_letters.metadata["dagster/storage_kind"] == "delta"
    assert dead_letters.kinds == {"dead_letters", "kafka", "delta"}


def test_live_assets_lead_to_the_topic_the_job_and_the_api(file: Path) -> None:
    assert live(file, "topic", "taps").metadata["dagster/uri"] == "kafka://broker:9092/gate.taps"
    assert live(file, "stream", "rides").metadata["flink_ui"].url == (
        "http://flink:8081/#/job/running"
    )
    assert live(file, "online", "rides").metadata["api_docs"].url == "http://api:8080/docs"


@pytest.mark.parametrize(
    ("view", "entity", "key"),
    [("rides", "card", "A-101"), ("at_gate", "card,gate", {"card": "A-101", "gate": 101})],
)
def test_a_served_view_shows_a_line_to_try(file: Path, view: str, entity: str, key: object) -> None:
    text = live(file, "online", view).metadata["try_it"].value
    assert "curl -s http://api:8080/v1/features:lookup " in text
    body = json.loads(text[text.index("-d '") + 4 : text.rindex("'")])
    assert body == {"entity_name": entity, "keys": [key], "features": [f"{view}:*"]}


def test_parts_that_do_not_run_have_no_links(file: Path) -> None:
    assert links_of(settings_from_env({"MILLRACE_HOME": str(file.parent)})) == Links()
    assert "flink_ui" not in live(file, "stream", "rides", links=Links()).metadata
    assert "$MILLRACE_SERVER/v1" in (
        live(file, "online", "rides", links=Links()).metadata["try_it"].value
    )


def test_parts_of_the_users_own_are_linked(file: Path) -> None:
    settings = settings_from_env(
        {
            "MILLRACE_HOME": str(file.parent),
            "MILLRACE_KAFKA": "broker:9092",
            "MILLRACE_FLINK_URL": "http://flink:8081/",
            "MILLRACE_STORE_URL": "redis://:secret@store:6379",
        }
    )
    assert links_of(settings) == Links(kafka="broker:9092", flink="http://flink:8081")
