"""Days that the lake has as built and Dagster does not know: reported, once, and fresh."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from feature_assets.specs import view_specs
from jobs.batch.known_days import report_built_days
from jobs.definitions import build_definitions
from millrace.days import Days
from millrace.plan import Plan
from offline.tables.partition_log import append_partition_log
from resources.dagster.asset_keys import events_path, features_path, former_key, tiles_path
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import FakeOffline, plan_in

DAYS = Days.parse("2020-01-01", "2020-01-06")
BAD = date(2020, 1, 4)


@dataclass
class House:
    """A lake whose log has five days of a view, one of them failed, and a Dagster."""

    plan: Plan
    settings: Settings
    instance: dg.DagsterInstance

    def __post_init__(self) -> None:
        view = self.plan.views["spend"]
        version = claim_version(self.settings, view)
        self.paths = events_path(view.source), tiles_path(view), features_path(view)
        for table in ("events/payments", f"tiles/spend/{version}", f"features/spend/{version}"):
            meaning = view.source if table.startswith("events") else view
            outcomes = tuple(
                PartitionOutcome(day, rows=5, error="cut off" if day == BAD else None)
                for day in DAYS
            )
            report = BuildReport(table, None, 1, outcomes)
            append_partition_log(self.settings, report, meaning.fingerprint)
        self.defs = build_definitions(self.plan, self.settings, offline=FakeOffline())

    def report(self, *, dry_run: bool = False) -> dict[str, int]:
        said: list[str] = []
        found = report_built_days(
            self.instance, self.settings, self.plan, said.append, dry_run=dry_run
        )
        assert said
        return dict(found)

    def build(self) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        tags = {
            "dagster/asset_partition_range_start": "2020-01-01",
            "dagster/asset_partition_range_end": "2020-01-05",
        }
        keys = [dg.AssetKey(path) for path in self.paths]
        assert job.execute_in_process(
            instance=self.instance, asset_selection=keys, tags=tags
        ).success

    def known(self, path: tuple[str, str]) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(path))

    def status(self, path: tuple[str, str], day: str) -> StaleStatus:
        graph = self.defs.resolve_asset_graph()
        context = LoadingContextForTest(self.instance)
        resolver = CachingStaleStatusResolver(self.instance, graph, context)
        return resolver.get_status(dg.AssetKey(path), day)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path / "home")})
    settings = replace(settings, lake=str(tmp_path / "lake"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(plan_in(tmp_path), settings, instance)


def test_days_that_dagster_has_lost_are_reported_once_and_are_not_stale(house: House) -> None:
    events, tiles, features = house.paths
    four = {f"2020-01-0{day}" for day in (1, 2, 3, 5)}
    foreseen = house.report(dry_run=True)
    assert foreseen == {"/".join(path): 4 for path in house.paths}
    assert house.known(events) == set()

    assert house.report() == foreseen
    for path in (events, tiles, features):
        assert house.known(path) == four
        assert {house.status(path, day) for day in four} == {StaleStatus.FRESH}
    [record] = house.instance.fetch_materializations(dg.AssetKey(tiles), limit=1).records
    told = record.asset_materialization
    assert told is not None
    assert told.metadata["dagster/partition_row_count"].value == 5
    assert house.report() == {}


def test_days_that_a_run_has_built_are_known(house: House) -> None:
    house.build()
    assert house.report() == {}


def test_days_made_of_an_asset_under_its_former_key_are_reported_again(house: House) -> None:
    """As an upgrade leaves them: what features were made of has another name now."""
    events, _, features = house.paths
    view = house.plan.views["spend"]
    former = former_key(events)
    for day in ("2020-01-01", "2020-01-02"):
        tags = {
            "dagster/data_version": "7",
            "dagster/code_version": view.fingerprint,
            f"dagster/input_data_version/{former}": "7",
            f"dagster/input_event_pointer/{former}": "1",
        }
        key = dg.AssetKey(features)
        event = dg.AssetMaterialization(key, partition=day, tags=tags)
        house.instance.report_runless_asset_event(event)
    assert house.status(features, "2020-01-01") is StaleStatus.STALE
    assert house.report()["features/spend"] == 4
    assert house.status(features, "2020-01-01") is StaleStatus.FRESH


def test_days_of_another_definition_are_reported_as_built_by_it(house: House) -> None:
    report = BuildReport("events/payments", None, 2, (PartitionOutcome(date(2020, 1, 2), rows=1),))
    append_partition_log(house.settings, report, "f" * 16)
    house.report()
    assert house.status(house.paths[0], "2020-01-01") is StaleStatus.FRESH
    assert house.status(house.paths[0], "2020-01-02") is StaleStatus.STALE


def test_every_table_is_made_of_something(house: House) -> None:
    """What is known is told by what it is made of."""
    view = house.plan.views["spend"]
    for spec in view_specs(view, dg.DailyPartitionsDefinition("2020-01-01"), "/lake"):
        assert list(spec.deps)


def test_the_job_does_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resources.declarations.load_valid_plan", lambda _: (house.plan, []))
    job = house.defs.resolve_job_def("report_built_days")
    assert job.execute_in_process(instance=house.instance).success
    assert len(house.known(house.paths[2])) == 4
