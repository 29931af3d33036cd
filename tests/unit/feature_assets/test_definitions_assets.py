"""Assets of a plan: what runs tell Dagster about each day, good and bad."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from feature_assets import table_step
from jobs.definitions import build_definitions
from millrace.errors import DataError, EngineError, EngineUnavailable
from resources.settings import settings_from_env
from tests.support.fake_offline import FakeOffline, plan_in

EVENTS, TILES, FEATURES = (
    ("events", "payments_events"),
    ("tiles", "spend_tiles"),
    ("features", "spend"),
)
SPEND = (EVENTS, TILES, FEATURES)
LETTERS = ("dead_letters", "payments_dead_letters")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Run:
    """One run of some assets over a range of days, and what it told Dagster."""

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        offline: FakeOffline,
        first: str,
        last: str,
        assets: Sequence[tuple[str, str]] = SPEND,
        parent: "Run | None" = None,
    ) -> None:
        defs = build_definitions(plan_in(folder), settings_from_env({}), offline=offline)
        job = defs.resolve_implicit_global_asset_job_def()
        self.result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(path) for path in assets],
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
                **(parent.tags_of_retry if parent else {}),
            },
            raise_on_error=False,
        )
        # What was stored, not what the result holds: a step that fails keeps the last of its
        # logged events from the result, not from the instance.
        logged = instance.all_logs(
            self.result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        self.events = [e.asset_materialization for e in logged if e.asset_materialization]

    @property
    def tags_of_retry(self) -> dict[str, str]:
        """What Dagster gives to a run that is this one executed again from failure."""
        return {"dagster/parent_run_id": self.result.run_id, "dagster/is_resume_retry": "true"}

    def days(self, path: tuple[str, str]) -> list[str]:
        return sorted(e.partition or "" for e in self.events if e.asset_key == dg.AssetKey(path))

    def event(self, path: tuple[str, str], day: str) -> dg.AssetMaterialization:
        [found] = [
            e for e in self.events if e.asset_key == dg.AssetKey(path) and e.partition == day
        ]
        return found

    @property
    def failed_steps(self) -> list[str]:
        return [e.step_key or "" for e in self.result.all_events if e.is_step_failure]

    @property
    def failure(self) -> str:
        """What the failed steps said, one after another."""
        told = [e.step_failure_data.user_failure_data for e in self._failures]
        return "\n".join(str(one.description) for one in told if one is not None)

    @property
    def failures(self) -> dict[str, dict[str, str]]:
        """The failed partitions of each asset, with the reason."""
        found: dict[str, dict[str, str]] = {}
        for event in self._failures:
            told: Any = event.step_failure_data.user_failure_data
            found |= told.metadata["failures"].value if told is not None else {}
        return found

    @property
    def _failures(self) -> list[dg.DagsterEvent]:
        return [e for e in self.result.all_events if e.is_step_failure]


def january(*days: int) -> list[str]:
    return [f"2020-01-{day:02}" for day in days]


def test_a_range_is_one_build_per_asset_and_one_materialisation_per_day(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline()
    run = Run(tmp_path, instance, offline, "2020-01-02", "2020-01-11")
    assert run.result.success
    assert [(table, str(days)) for table, days, _ in offline.calls] == [
        ("events/payments", "[2020-01-02, 2020-01-12)"),
        ("tiles/spend", "[2020-01-02, 2020-01-12)"),
        ("features/spend", "[2020-01-02, 2020-01-12)"),
    ]
    for path in SPEND:
        assert run.days(path) == january(*range(2, 12))


def test_a_single_day_is_built_the_same_way(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    run = Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-02")
    assert run.result.success
    assert run.days(FEATURES) == january(2)


def test_each_partition_carries_its_counts_and_versions(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-03")
    metadata = run.event(FEATURES, "2020-01-03").metadata
    assert {name: value.value for name, value in metadata.items()} == {
        "dagster/partition_row_count": 13,
        "bytes": 1000,
        "null_keys": 2,
        "duplicates": 1,
        "dead_letters": 2,
        "dead_letters/late": 1,
        "dead_letters/schema": 1,
        "delta_version": 3,
        "feature_version": "v1",
        "input_versions": {"events/payments": 1},
        "build_seconds": 1.5,
    }
    assert (run.event(FEATURES, "2020-01-03").tags or {})["dagster/data_version"] == "3"


def test_every_build_of_events_tells_what_it_refused(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-04", [EVENTS])
    [dead_letters] = [e for e in run.events if e.asset_key == dg.AssetKey(LETTERS)]
    told = {name: value.value for name, value in dead_letters.metadata.items()}
    assert dead_letters.partition is None
    assert told == {
        "dead_letters": 6,
        "dead_letters/late": 3,
        "dead_letters/schema": 3,
        "days_built": 3,
        "days": "2020-01-02..2020-01-04",
    }
    alone = Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-04", [TILES])
    assert alone.days(LETTERS) == []


def test_bad_days_of_events_fail_everywhere_and_the_others_are_built(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    bad = {date(2020, 1, 4): "part-4.parquet is cut off", date(2020, 1, 7): "amount is missing"}
    offline = FakeOffline(bad={"events/payments": bad})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-10")
    assert not run.result.success
    for path in SPEND:
        assert run.days(path) == january(1, 2, 3, 5, 6, 8, 9, 10)
    assert "events/payments_events: 2020-01-04: part-4.parquet is cut off" in run.failure
    assert (
        "features/spend: 2020-01-07: events/payments_events failed: amount is missing"
        in run.failure
    )
    failures = run.failures
    assert sorted(failures) == ["events/payments_events", "features/spend", "tiles/spend_tiles"]
    assert sorted(failures["tiles/spend_tiles"]) == january(4, 7)


def test_bad_days_of_one_table_leave_the_others_whole(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(bad={"tiles/spend": {date(2020, 1, 1): "no memory"}})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    assert not run.result.success
    assert run.days(TILES) == january(2, 3)
    assert run.days(EVENTS) == run.days(FEATURES) == january(1, 2, 3)


def test_days_that_stand_in_a_failed_run_are_not_stale(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(bad={"events/payments": {date(2020, 1, 2): "broken"}})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    tags = run.event(FEATURES, "2020-01-03").tags or {}
    assert tags["dagster/data_version"] == "3"
    assert tags["dagster/code_version"]
    assert tags["dagster/input_data_version/events/payments_events"] == "1"
    assert int(tags["dagster/input_event_pointer/events/payments_events"]) > 0


def test_only_what_is_chosen_is_built(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    offline = FakeOffline()
    run = Run(tmp_path, instance, offline, "2020-01-06", "2020-01-07", [("features", "habits")])
    assert run.result.success
    assert [call[0] for call in offline.calls] == ["features/habits"]


def test_events_reach_back_for_the_chosen_views_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(beyond=(date(2020, 1, 3),))
    run = Run(tmp_path, instance, offline, "2020-01-06", "2020-01-07")
    assert offline.calls[0][2] == ("spend",)
    assert run.days(EVENTS) == january(3, 6, 7)
    assert run.days(FEATURES) == january(6, 7)


def test_days_before_a_view_starts_are_empty_partitions_of_it(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline()
    paths = [("tiles", "habits_tiles"), ("features", "habits")]
    run = Run(tmp_path, instance, offline, "2020-01-03", "2020-01-06", paths)
    assert run.result.success
    assert str(offline.calls[0][1]) == "[2020-01-05, 2020-01-07)"
    assert run.days(("tiles", "habits_tiles")) == january(3, 4, 5, 6)
    before = run.event(("features", "habits"), "2020-01-04").metadata
    assert before["dagster/partition_row_count"].value == 0


def test_a_table_that_cannot_be_built_at_all_fails_all_its_days(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(crashes={"tiles/spend": [EngineError("no space left on device")]})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    assert "tiles/spend_tiles: 2020-01-01..2020-01-03: no space left" in run.failure
    assert run.days(TILES) == []
    assert run.days(FEATURES) == january(1, 2, 3)


def test_without_any_events_nothing_else_is_tried(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(crashes={"events/payments": [DataError("no file can be read")]})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    assert [call[0] for call in offline.calls] == ["events/payments"]
    assert "features/spend: 2020-01-01..2020-01-03: events/payments_events failed" in (run.failure)


def test_an_engine_that_comes_back_is_asked_again(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_step, "RETRY_AFTER_S", 0)
    offline = FakeOffline(crashes={"tiles/spend": [EngineUnavailable("Spark is gone")]})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    assert run.result.success
    assert [call[0] for call in offline.calls] == [
        "events/payments",
        "tiles/spend",
        "tiles/spend",
        "features/spend",
    ]


def test_an_engine_that_stays_away_is_waited_for_once_in_a_run(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    now = [0.0]

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    clock = SimpleNamespace(sleep=sleep, monotonic=lambda: now[0])
    monkeypatch.setattr(table_step, "time", clock)
    gone = [EngineUnavailable("Spark is gone") for _ in range(20)]
    offline = FakeOffline(crashes={"tiles/spend": [*gone], "features/spend": [*gone]})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03")
    assert sum(waits) == table_step.GIVE_UP_AFTER_S
    assert run.failed_steps == ["tiles__spend", "features__spend"]
    assert "tiles/spend_tiles: 2020-01-01..2020-01-03: Spark is gone" in run.failure
    assert run.days(EVENTS) == january(1, 2, 3)
    assert run.days(FEATURES) == []


def test_each_table_is_a_step_with_a_time_and_a_log_of_its_own(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    bad = {"events/payments": {date(2020, 1, 2): "cut off"}}
    run = Run(tmp_path, instance, FakeOffline(bad=bad), "2020-01-01", "2020-01-03")
    steps = ["events__payments", "tiles__spend", "features__spend"]
    times = {step.step_key: step for step in instance.get_run_step_stats(run.result.run_id)}
    assert sorted(times, key=lambda step: times[step].start_time or 0) == steps
    logged = instance.all_logs(run.result.run_id)
    said = {entry.step_key: entry.message for entry in logged if "building" in entry.message}
    assert said == {step: f"building {step.replace('__', '/')}" for step in steps}
    assert not [entry for entry in logged if "expected outputs" in entry.message]


def test_a_step_that_breaks_fails_what_reads_its_table(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(crashes={"events/payments": [RuntimeError("of ours")]})
    run = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-02")
    assert [call[0] for call in offline.calls] == ["events/payments"]
    assert "features/spend: 2020-01-01..2020-01-02: events/payments_events failed" in run.failure
    assert "of ours" in run.failures["tiles/spend_tiles"]["2020-01-02"]


BAD = {"events/payments": {date(2020, 1, day): "cut off" for day in (4, 7)}}


def test_a_run_executed_again_from_failure_builds_the_bad_days_alone(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    first = Run(tmp_path, instance, FakeOffline(bad=BAD), "2020-01-01", "2020-01-10")
    offline = FakeOffline()
    again = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-10", parent=first)
    assert again.result.success
    assert [call[0] for call in offline.calls] == [
        "events/payments",
        "tiles/spend",
        "features/spend",
    ]
    assert [[day.day for day in call[1]] for call in offline.calls] == [[4, 7]] * 3
    for path in SPEND:
        assert again.days(path) == january(4, 7)
    # Checks of days that are left are not shown as skipped: they were not even meant.
    for path in (EVENTS, FEATURES):
        key = dg.AssetCheckKey(dg.AssetKey(path), "rows")
        told = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
        assert {record.status.value for record in told} == {"SUCCEEDED"}


def test_days_that_stand_do_not_fail_with_those_that_fail_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    first = Run(tmp_path, instance, FakeOffline(bad=BAD), "2020-01-01", "2020-01-10")
    still = FakeOffline(bad={"events/payments": {date(2020, 1, 7): "cut off"}})
    second = Run(tmp_path, instance, still, "2020-01-01", "2020-01-10", parent=first)
    assert second.days(FEATURES) == january(4)
    log = instance.event_log_storage
    for path in SPEND:
        lost = log.get_latest_asset_partition_materialization_attempts_without_materializations(
            dg.AssetKey(path)
        )
        assert sorted(lost) == january(7)

    offline = FakeOffline()
    third = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-10", parent=second)
    assert third.days(FEATURES) == january(7)
    assert len(offline.calls) == 3


def test_days_whose_inputs_changed_are_built_again_with_the_bad_ones(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    first = Run(tmp_path, instance, FakeOffline(bad=BAD), "2020-01-01", "2020-01-10")
    offline = FakeOffline(changed={"features/spend": frozenset({date(2020, 1, 5)})})
    again = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-10", parent=first)
    assert again.days(EVENTS) == january(4, 7)
    assert again.days(FEATURES) == january(4, 5, 7)


def test_days_that_dagster_never_heard_of_are_built_again(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """The run's process died between the commit and the word of it."""
    broken = FakeOffline(crashes={"features/spend": [RuntimeError("killed")]})
    first = Run(tmp_path, instance, broken, "2020-01-01", "2020-01-03")
    offline = FakeOffline()
    again = Run(tmp_path, instance, offline, "2020-01-01", "2020-01-03", parent=first)
    assert [call[0] for call in offline.calls] == ["features/spend"]
    assert again.result.success
    assert again.days(FEATURES) == january(1, 2, 3)


def test_a_whole_run_executed_again_builds_everything(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    Run(tmp_path, instance, FakeOffline(bad=BAD), "2020-01-01", "2020-01-10")
    offline = FakeOffline()
    Run(tmp_path, instance, offline, "2020-01-01", "2020-01-10")
    assert [len(call[1]) for call in offline.calls] == [10, 10, 10]
