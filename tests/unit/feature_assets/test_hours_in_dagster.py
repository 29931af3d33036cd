"""A source of hours in Dagster: what a run tells of each hour, of days, and who is told of it."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.alerts.runs import run_facts
from jobs.definitions import build_definitions
from millrace.days import Days
from millrace.errors import PlatformError
from resources.dagster.partition_keys import range_tags
from resources.declarations import plan_of
from resources.settings import settings_from_env
from tests.support.fake_offline import DECLARATIONS, FakeOffline

PATHS = (
    ("events", "payments_events"),
    ("tiles", "spend_tiles"),
    ("features", "spend"),
    ("features", "habits"),
)
EVENTS, TILES, FEATURES, HABITS = map(dg.AssetKey, PATHS)
ROWS = dg.AssetCheckKey(EVENTS, "rows")
BAD = date(2020, 1, 4)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Hours:
    """A code location whose source is refreshed each hour, and runs in it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, offline: FakeOffline) -> None:
        file = folder / "payments.yaml"
        text = DECLARATIONS.replace(
            "lateness: 90m", "lateness: 90m\n    schedule: {refresh: hourly}"
        )
        file.write_text(text, encoding="utf-8")
        self.instance, self.offline = instance, offline
        self.defs = build_definitions(plan_of([file]), settings_from_env({}), offline=offline)

    def run(self, start: str, end: str) -> dg.ExecuteInProcessResult:
        graph = self.defs.resolve_asset_graph()
        return self.defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            # As a backfill does: without the checks of assets that it does not build.
            asset_selection=list(graph.materializable_asset_keys),
            tags=range_tags(Days.parse(start, end), by_hour=True),
            raise_on_error=False,
        )

    def stored(self, result: dg.ExecuteInProcessResult) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run

    def built(self, key: dg.AssetKey) -> list[str]:
        return sorted(self.instance.get_materialized_partitions(key))

    def statuses(self, check: dg.AssetCheckKey) -> dict[str, list[str]]:
        partitions: Any = self.defs.resolve_asset_graph().get(check.asset_key).partitions_def
        storage = self.instance.event_log_storage
        state = storage.get_asset_check_state([(check, partitions)])[check]
        return {
            status.value: sorted(subset.subset_value.get_partition_keys())
            for status, subset in state.subsets.items()
            if not subset.is_empty
        }


def keys(day: int, *hours: int) -> list[str]:
    return [f"2020-01-{day:02}-{hour:02}:00" for hour in hours]


def test_each_hour_is_a_partition_with_its_rows(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    found = Hours(tmp_path, instance, FakeOffline())
    assert found.run("2020-01-02T22:00", "2020-01-03T02:00").success
    hours = [*keys(2, 22, 23), *keys(3, 0, 1)]
    assert found.built(EVENTS) == found.built(TILES) == found.built(FEATURES) == hours
    records = instance.fetch_materializations(EVENTS, limit=10).records
    rows, of_day = {}, {}
    for one in records:
        assert one.asset_materialization is not None
        metadata = one.asset_materialization.metadata
        rows[one.partition_key] = metadata["dagster/partition_row_count"].value
        if "dead_letters" in metadata:
            of_day[one.partition_key] = metadata["rows_of_day"].value
    assert rows == dict(zip(hours, (0, 0, 13, 0), strict=True))
    # What is known of the day alone is told once.
    assert of_day == {"2020-01-02-23:00": 12, "2020-01-03-01:00": 13}


def test_a_day_is_judged_at_its_last_hour(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    found = Hours(tmp_path, instance, FakeOffline())
    found.run("2020-01-02T05:00", "2020-01-02T06:00")
    assert found.statuses(ROWS) == {}
    found.run("2020-01-02", "2020-01-03")
    assert found.statuses(ROWS) == {"SUCCEEDED": keys(2, 23)}
    found.run("2020-01-02T05:00", "2020-01-02T06:00")
    assert found.statuses(ROWS) == {"SUCCEEDED": keys(2, 23)}


def test_the_hours_of_a_bad_day_fail_and_the_others_stand(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    bad = {"events/payments": {BAD: "cut off"}}
    found = Hours(tmp_path, instance, FakeOffline(bad=bad))
    result = found.run("2020-01-03T22:00", "2020-01-05T01:00")
    assert not result.success
    assert found.built(EVENTS) == found.built(FEATURES) == [*keys(3, 22, 23), *keys(5, 0)]
    facts = run_facts(instance, found.stored(result))
    failed = {f.subject.partition for f in facts if f.subject.kind == "partition" and not f.is_ok}
    assert failed == set(keys(4, *range(24)))

    bad.clear()
    result = found.run("2020-01-04T00:00", "2020-01-05T00:00")
    assert result.success
    healed = run_facts(instance, found.stored(result))
    assert failed <= {f.subject.partition for f in healed if f.is_ok}


def test_a_day_held_back_is_told_by_its_check_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(spoilt={"events/payments": {BAD: "0; expected at least 1"}})
    found = Hours(tmp_path, instance, offline)
    result = found.run("2020-01-04", "2020-01-05")
    assert not result.success
    assert found.statuses(ROWS) == {"FAILED": keys(4, 23)}
    facts = run_facts(instance, found.stored(result))
    failed = [f.subject for f in facts if not f.is_ok]
    assert {(s.kind, s.aspect, s.partition) for s in failed} == {("check", "rows", keys(4, 23)[0])}


def test_hours_before_a_view_begins_are_empty_partitions_of_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline()
    found = Hours(tmp_path, instance, offline)
    assert found.run("2020-01-04T22:00", "2020-01-05T02:00").success
    assert found.built(HABITS) == [*keys(4, 22, 23), *keys(5, 0, 1)]
    asked = {table: str(days) for table, days, _ in offline.calls}
    assert asked["features/habits"] == "[2020-01-05T00:00, 2020-01-05T02:00)"
    assert asked["features/spend"] == "[2020-01-04T22:00, 2020-01-05T02:00)"


def test_hours_that_could_not_be_judged_are_told_at_the_day_s_last(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    crash: dict[str, list[BaseException]] = {"judge events/payments": [PlatformError("no room")]}
    found = Hours(tmp_path, instance, FakeOffline(crashes=crash))
    assert not found.run("2020-01-02", "2020-01-03").success
    assert found.statuses(ROWS) == {"FAILED": keys(2, 23)}
