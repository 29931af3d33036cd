"""What is built without a clock: what follows events, late data, uploads; and when things are due."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.freshness import CronFreshnessPolicy, TimeWindowFreshnessPolicy
from deltalake import write_deltalake

from feature_assets.specs import live_specs, source_partitions, view_specs
from jobs.batch.automation import closed_day, late_requests
from jobs.batch.schedules import absence
from jobs.definitions import build_definitions
from jobs.streams import uploads
from jobs.streams.sensor import tick
from millrace.days import Days
from millrace.errors import DataError, StoreError
from millrace.plan import Plan, SchedulePlan, SourcePlan
from offline.tables.late_days import LateDays, late_days
from offline.tables.partition_log import append_partition_log
from resources.dagster.partition_keys import range_tags
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env
from streaming.control import deployments
from streaming.publications.records import RecordFiles
from streaming.upload.plan import UploadPlan
from tests.support.fake_offline import DECLARATIONS, FakeOffline, plan_in
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views

VIEWS = [
    ("tiles", "spend_tiles"),
    ("features", "spend"),
    ("tiles", "habits_tiles"),
    ("features", "habits"),
]
EVENTS = ("events", "payments_events")
NOW = datetime(2020, 1, 20, 12, tzinfo=UTC)


def day(number: int) -> date:
    return date(2020, 1, number)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@dataclass
class Following:
    """A code location whose automation is looked at again and again."""

    defs: dg.Definitions
    instance: dg.DagsterInstance
    cursor: Any = None

    def build(self, assets: list[tuple[str, str]], first: int, last: int) -> None:
        self.run(assets, range_tags(Days(day(first), day(last + 1)), by_hour=False))

    def run(self, assets: list[tuple[str, str]], tags: dict[str, str]) -> None:
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(path) for path in assets]
        assert job.execute_in_process(
            instance=self.instance, asset_selection=keys, tags=tags
        ).success

    def asked(self) -> dict[str, set[str]]:
        result = dg.evaluate_automation_conditions(
            self.defs, self.instance, evaluation_time=NOW, cursor=self.cursor
        )
        self.cursor = result.cursor
        keys = {
            dg.AssetKey(path): result.get_requested_partitions(dg.AssetKey(path)) for path in VIEWS
        }
        return {k.to_user_string(): {str(d) for d in days} for k, days in keys.items() if days}


@pytest.fixture
def following(tmp_path: Path, instance: dg.DagsterInstance) -> Following:
    defs = build_definitions(plan_in(tmp_path), settings_from_env({}), offline=FakeOffline())
    found = Following(defs, instance)
    found.build([EVENTS, *VIEWS], 1, 18)
    found.asked()
    return found


def test_events_built_alone_are_followed_by_their_tiles_and_features(following: Following) -> None:
    following.build([EVENTS], 16, 17)
    both = {"2020-01-16", "2020-01-17"}
    assert following.asked() == {"/".join(path): both for path in VIEWS}


def test_a_run_that_builds_all_of_them_is_followed_by_nothing(following: Following) -> None:
    following.build([EVENTS, *VIEWS], 16, 17)
    assert following.asked() == {}


def test_days_that_events_were_built_for_in_reach_alone_are_followed_by_nothing(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(beyond=tuple(day(n) for n in range(12, 18)))
    defs = build_definitions(plan_in(tmp_path), settings_from_env({}), offline=offline)
    following = Following(defs, instance)
    following.asked()
    following.build([EVENTS, *VIEWS], 18, 18)
    built = instance.get_materialized_partitions(dg.AssetKey(EVENTS))
    assert built == {day(n).isoformat() for n in range(12, 19)}
    assert following.asked() == {}


def test_old_days_are_left_to_those_who_ask_for_them(following: Following) -> None:
    following.build([EVENTS], 2, 11)
    assert following.asked() == {}


def test_an_open_hour_is_built_again_without_more_being_asked_for(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    file = tmp_path / "hourly.yaml"
    text = DECLARATIONS.replace("lateness: 90m", "lateness: 90m\n    schedule: {refresh: hourly}")
    file.write_text(text, encoding="utf-8")
    defs = build_definitions(plan_of([file]), settings_from_env({}), offline=FakeOffline())
    following = Following(defs, instance)
    everything, newest = [EVENTS, *VIEWS], Days.parse("2020-01-19T22:00", "2020-01-20T00:00")
    following.run(everything, range_tags(Days(day(19), day(20)), by_hour=True))
    assert following.asked() == {}
    for _ in range(2):
        following.run(everything, range_tags(newest, by_hour=True))
        assert following.asked() == {}
    following.run([EVENTS], range_tags(newest, by_hour=True))
    hours = {"2020-01-19-22:00", "2020-01-19-23:00"}
    assert following.asked() == {"/".join(path): hours for path in VIEWS}


# Late data.

TAPS = """
version: millrace/v1
sources:
  - name: taps
    columns: {id: int64, at: timestamp, card: int64}
    event_time: at
    event_id: id
    allowed_lateness: 2h
    stream: {topic: gate.taps, format: json}
entities: [{name: card, join_key: card, type: int64}]
feature_views:
  - name: rides
    entity: card
    source: taps
    start: 2020-01-03
    freshness: 1h
    features: [{name: taps_1h, aggregate: count, window: 1h}]
"""


@dataclass
class Lake:
    settings: Settings
    plan: Plan

    @property
    def source(self) -> SourcePlan:
        return self.plan.sources["taps"]

    def archive(self, **rows: int) -> None:
        """Append rows to days of events: ``d5=2`` is two rows on the fifth."""
        days = [day(int(name[1:])) for name, count in rows.items() for _ in range(count)]
        write_deltalake(
            f"{self.settings.lake}/events/taps",
            pa.table({"id": pa.array(range(len(days)), pa.int64()), "event_date": days}),
            mode="append",
            partition_by=["event_date"],
        )

    def build(self, *outcomes: PartitionOutcome, fingerprint: str | None = None) -> None:
        report = BuildReport("events/taps", None, 0, outcomes)
        append_partition_log(self.settings, report, fingerprint or self.source.fingerprint)

    def late(self, newest: int = 20) -> list[int]:
        return [d.day for d in late_days(self.settings, self.source, day(newest)).days]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    file = tmp_path / "taps.yaml"
    file.write_text(TAPS, encoding="utf-8")
    env = {"MILLRACE_HOME": str(tmp_path), "MILLRACE_LAKE": str(tmp_path / "lake")}
    return Lake(settings_from_env(env), plan_of([file]))


def test_days_that_grew_after_they_were_built_are_late_until_they_are_built_again(
    lake: Lake,
) -> None:
    assert lake.late() == []
    lake.archive(d5=3, d6=1, d7=2)
    assert lake.late() == []
    lake.build(PartitionOutcome(day(5), rows=3), PartitionOutcome(day(6), rows=1))
    assert lake.late() == []
    lake.archive(d5=1, d7=1)
    assert lake.late() == [5]
    lake.build(PartitionOutcome(day(5), rows=4))
    assert lake.late() == []


def test_a_day_that_was_empty_when_it_was_built_can_be_late_too(lake: Lake) -> None:
    lake.archive(d5=1)
    lake.build(PartitionOutcome(day(4)), PartitionOutcome(day(5), rows=1))
    lake.archive(d4=1)
    assert lake.late() == [4]


def test_open_failed_and_outdated_days_are_not_late(lake: Lake) -> None:
    lake.archive(d5=3, d6=3, d7=3)
    lake.build(PartitionOutcome(day(5), error="cut off"))
    lake.build(PartitionOutcome(day(6), rows=1), fingerprint="of another declaration")
    lake.build(PartitionOutcome(day(7), rows=1))
    assert lake.late(newest=6) == []
    assert lake.late(newest=7) == [7]


def test_a_day_that_was_built_while_it_was_open_is_left_to_its_schedule_first(lake: Lake) -> None:
    closed = datetime(2020, 1, 6, 2, 0, tzinfo=UTC)
    hourly = replace(lake.source, schedule=SchedulePlan(is_hourly=True))
    assert closed_day(lake.source, closed) == day(5)
    assert closed_day(hourly, closed) == day(4)
    assert closed_day(hourly, closed + timedelta(minutes=5)) == day(5)


def test_late_days_are_asked_for_in_ranges_the_newest_first(lake: Lake) -> None:
    found = LateDays(tuple(day(n) for n in (12, 9, 8, 7, 2)), 17)
    requests = late_requests(lake.source, found, day(3), NOW)
    assert [(r.run_key, dict(r.tags)) for r in requests] == [
        (
            f"taps|2020-01-{first:02}|2020-01-{end:02}|17|2020-01-20",
            {
                "dagster/asset_partition_range_start": f"2020-01-{first:02}",
                "dagster/asset_partition_range_end": f"2020-01-{end - 1:02}",
                "millrace/late_data": "taps",
            },
        )
        for first, end in ((12, 13), (7, 10))
    ]


def test_a_flood_of_late_days_is_asked_for_bit_by_bit(lake: Lake) -> None:
    newest = date(2020, 6, 30)
    days = tuple(newest - timedelta(days=n) for n in range(100))
    [request] = late_requests(lake.source, LateDays(days, 1), day(1), NOW)
    assert request.tags["dagster/asset_partition_range_start"] == "2020-05-31"
    scattered = tuple(newest - timedelta(days=2 * n) for n in range(100))
    assert len(late_requests(lake.source, LateDays(scattered, 1), day(1), NOW)) == 5


def test_the_sensor_asks_once_for_what_it_finds_and_not_during_a_run(
    lake: Lake, instance: dg.DagsterInstance
) -> None:
    defs = build_definitions(lake.plan, lake.settings, offline=FakeOffline())
    sensor = defs.resolve_sensor_def("rebuild_late_taps")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING

    def tick() -> Any:
        context = dg.build_sensor_context(instance, definitions=defs)
        return sensor.evaluate_tick(context)

    assert "no event came to a built day" in tick().skip_message
    lake.archive(d5=3)
    lake.build(PartitionOutcome(day(5), rows=1))
    [request] = tick().run_requests
    assert request.tags["dagster/asset_partition_range_start"] == "2020-01-05"
    instance.create_run_for_job(
        defs.resolve_job_def("daily_taps"), status=dg.DagsterRunStatus.STARTED
    )
    assert tick().skip_message == "daily_taps is under way"


# Uploads.


@dataclass
class Served:
    """A deployed view; its lake is what ``plan`` says it is."""

    engines: FakeEngines
    instance: dg.DagsterInstance
    edge_ms: int = 0
    built_ms: int = 0
    cursor: str | None = None

    def look(self) -> list[str]:
        result = uploads.look(self.engines, self.instance, self.cursor, NOW)
        self.cursor = result.cursor
        return [str(request.run_key) for request in result.run_requests or ()]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Served:
    plan = write_views(tmp_path / "views")
    engines = fake_engines(tmp_path, views=[tmp_path / "views"])
    found = Served(engines, dg.DagsterInstance.ephemeral())

    def planned(_settings: object, view: Any, held: Any, _now_ms: int) -> UploadPlan:
        if not found.edge_ms:
            raise DataError("no day is built")
        edge = max(found.edge_ms, held.cut_over_ms or 0)
        nothing: Any = None
        return UploadPlan(
            view, "v1", "tiles/spend/v1", (), (), (), edge, None, nothing, found.built_ms
        )

    monkeypatch.setattr("streaming.upload.plan.plan_upload", planned)
    deployments.deploy(found.engines.settings, plan, "spend", lambda _: None, engines=found.engines)
    return found


def uploaded(served: Served) -> None:
    files = RecordFiles.of(served.engines.settings.home)
    record = files.read("spend")
    assert record is not None
    files.write(replace(record, cut_over_ms=served.edge_ms))


def test_a_new_day_of_a_served_view_is_uploaded_once(served: Served) -> None:
    assert served.look() == []
    served.edge_ms, served.built_ms = 86_400_000, 1
    [key] = served.look()
    assert key.startswith("spend|")
    assert key.endswith("|1|2020-01-20")
    # Until the day is in the store it is asked for, under the same key: Dagster runs it once.
    assert served.look() == [key]
    uploaded(served)
    assert served.look() == []


def test_a_day_that_was_built_again_is_uploaded_again(served: Served) -> None:
    served.edge_ms, served.built_ms = 86_400_000, 1
    uploaded(served)
    assert served.look() == []
    served.built_ms = 2
    [key] = served.look()
    assert key.endswith("|2|2020-01-20")
    assert served.look() == []


def test_what_is_being_uploaded_is_not_asked_for_beside_that(served: Served) -> None:
    files = RecordFiles.of(served.engines.settings.home)
    served.edge_ms, served.built_ms = 86_400_000, 1
    with files.uploading("spend"):
        assert served.look() == []
    with files.changing("spend"):
        assert served.look() == []
    # It was broken off: what it left is asked for.
    assert len(served.look()) == 1


def test_a_stopped_stream_is_not_uploaded(served: Served) -> None:
    files = RecordFiles.of(served.engines.settings.home)
    record = files.read("spend")
    assert record is not None
    files.write(replace(record, desired="stopped"))
    served.edge_ms, served.built_ms = 86_400_000, 1
    assert served.look() == []


def run_upload(served: Served, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return uploads.upload_job(served.engines).execute_in_process(
        run_config={"ops": {"upload_tiles": {"config": {"views": ["spend"]}}}},
        instance=instance,
        raise_on_error=False,
    )


def test_a_store_that_is_away_is_tried_again_and_bad_data_are_not(
    served: Served, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_RETRY_AFTER_S", 0)
    tried: list[str] = []

    def upload(_settings: object, _plan: Plan, view: str, _progress: object) -> None:
        tried.append(view)
        raise StoreError("the store is away") if len(tried) < 3 else DataError("no day is built")

    monkeypatch.setattr("streaming.upload.upload.upload", upload)
    result = run_upload(served, instance)
    assert not result.success
    assert tried == ["spend"] * 3
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert "no day is built" in str(event.step_failure_data.error)


# When things are due.


def test_promised_freshness_becomes_a_policy_of_what_is_built_and_what_is_served(
    lake: Lake,
) -> None:
    view = lake.plan.views["rides"]
    tiles, features = view_specs(view, source_partitions([view]), "/lake")
    assert tiles.freshness_policy is None
    deadline = features.freshness_policy
    assert isinstance(deadline, CronFreshnessPolicy)
    assert deadline.deadline_cron == "0 5 * * *"
    assert deadline.lower_bound_delta == timedelta(hours=3)
    [online] = [s for s in live_specs(lake.plan, "/lake") if s.key.path[0] == "online"]
    assert isinstance(online.freshness_policy, TimeWindowFreshnessPolicy)
    assert online.freshness_policy.fail_window.to_timedelta() == timedelta(hours=1)


def test_a_view_that_promises_nothing_has_no_policy(tmp_path: Path) -> None:
    view = plan_in(tmp_path).views["spend"]
    assert [s.freshness_policy for s in view_specs(view, source_partitions([view]), "/")] == [
        None
    ] * 2


def test_the_schedule_of_a_stream_waits_for_the_archive_and_not_for_files(lake: Lake) -> None:
    assert "nothing of taps is archived yet" in (absence(lake.source, lake.settings) or "")
    lake.archive(d5=1)
    assert absence(lake.source, lake.settings) is None


def test_an_online_view_counts_as_fresh_while_its_stream_and_its_writer_work(
    served: Served, instance: dg.DagsterInstance
) -> None:
    record = RecordFiles.of(served.engines.settings.home).read("spend")
    assert record is not None

    def online() -> Any:
        result = tick(served.engines, instance, None)
        assert isinstance(result, dg.SensorResult)
        [found] = [e for e in result.asset_events if e.asset_key.path[0] == "online"]
        return found

    assert isinstance(online(), dg.AssetObservation)
    served.engines.memory.online().progress.report({("spend", record.fingerprint): {"tile_lag": 0}})
    kept = online()
    assert isinstance(kept, dg.AssetMaterialization)
    assert kept.tags == {"dagster/code_version": record.fingerprint}
    served.engines.fake.fail(record.job_id)
    assert isinstance(online(), dg.AssetObservation)
