"""When the sensor of a source's files and its daily tick ask for days, with the log of a real lake."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from jobs.batch.arrivals import ARRIVED_TAG
from jobs.definitions import build_definitions
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import FakeOffline
from tests.support.file_drops import FIRST, SECOND, Drop, at, ms


@dataclass
class Watched:
    """A code location of one source, its lake, and a clock."""

    drop: Drop
    instance: dg.DagsterInstance
    settings: Settings
    now: datetime
    cursor: str | None = None

    def __post_init__(self) -> None:
        plan = plan_of([self.drop.folder / "payments.yaml"])
        offline = FakeOffline()
        self.repository = build_definitions(
            plan, self.settings, offline=offline, now=self.now
        ).get_repository_def()

    def look(self, at: datetime) -> Any:
        self.now = at
        context = dg.build_sensor_context(
            self.instance, cursor=self.cursor, repository_def=self.repository
        )
        done = self.repository.get_sensor_def("build_arrived_payments").evaluate_tick(context)
        self.cursor = done.cursor
        return done

    def asked(self, at: datetime) -> list[tuple[str, str]]:
        tags = [request.tags for request in self.look(at).run_requests or ()]
        ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        return [(one[ends[0]], one[ends[1]]) for one in tags]

    def tick(self, at: datetime) -> Any:
        self.now = at
        context = dg.build_schedule_context(
            self.instance, scheduled_execution_time=at, repository_def=self.repository
        )
        return self.repository.get_schedule_def("daily_payments").evaluate_tick(context)

    def build(self, *days: date, error: str | None = None) -> None:
        """Write what a run writes of these days, from the files that are there now."""
        arrivals = self.drop.look()
        outcomes = [
            PartitionOutcome(day, rows=1, error=error, files=arrivals.signature(day))
            for day in days
        ]
        report = BuildReport("events/payments", None, 1, tuple(outcomes))
        append_partition_log(self.settings, report, self.drop.source.fingerprint)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path / "home")})
    with dg.DagsterInstance.local_temp() as instance:
        found = Watched(Drop(tmp_path, "{date}.csv", "csv"), instance, settings, at(FIRST, 12))
        for place in ("jobs.batch.arrivals._now", "jobs.batch.schedules._now"):
            monkeypatch.setattr(place, lambda: found.now)
        monkeypatch.setattr("offline.tables.partition_log._now_us", lambda: ms(found.now) * 1000)
        yield found


def test_a_late_day_waits_at_its_tick_and_is_built_when_it_comes(watched: Watched) -> None:
    # What was due before it looked is nobody's wish.
    watched.drop.csv(f"{FIRST - timedelta(days=1)}.csv", 1, at(FIRST))
    assert watched.asked(at(FIRST, 12)) == []
    tick = watched.tick(at(SECOND, 1, 30))
    assert "2031-03-01 waits for a file of that name" in tick.skip_message
    done = watched.look(at(SECOND, 1, 31))
    assert done.skip_message == tick.skip_message
    [told] = done.asset_events
    assert isinstance(told, dg.AssetCheckEvaluation)
    assert (told.passed, told.metadata["waiting"].value) == (True, "2031-03-01")
    # The same outlook is told once.
    assert watched.look(at(SECOND, 1, 36)).asset_events == []
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 3, 30))
    assert watched.asked(at(SECOND, 3, 36)) == []
    assert watched.asked(at(SECOND, 3, 41)) == [(str(FIRST), str(FIRST))]
    watched.build(FIRST)
    assert watched.asked(at(SECOND, 3, 45)) == []


def test_a_day_is_asked_for_by_one_of_the_two(watched: Watched) -> None:
    watched.look(at(SECOND, 1, 26))
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 1))
    # Its tick may still come.
    assert watched.asked(at(SECOND, 1, 31)) == []
    assert watched.asked(at(SECOND, 1, 35)) == [(str(FIRST), str(FIRST))]
    run = dg.DagsterRun(
        job_name="daily_payments",
        status=dg.DagsterRunStatus.STARTED,
        tags={ARRIVED_TAG: "payments", "dagster/asset_partition_range_start": str(FIRST)},
    )
    watched.instance.add_run(run)
    assert watched.asked(at(SECOND, 1, 36)) == []
    assert "is being built by run" in watched.tick(at(SECOND, 1, 30)).skip_message
    watched.instance.delete_run(run.run_id)
    watched.now = at(SECOND, 1, 40)
    watched.build(FIRST)
    assert "was built from the files" in watched.tick(at(SECOND, 1, 30)).skip_message


def test_a_failed_day_is_tried_again_once_its_file_is_another(watched: Watched) -> None:
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 1))
    watched.now = at(SECOND, 2)
    watched.build(FIRST, error="cut off")
    for minute in (0, 5):
        assert watched.asked(at(SECOND, 9, minute)) == []
    watched.drop.csv(f"{FIRST}.csv", 3, at(SECOND, 9, 8))
    assert watched.asked(at(SECOND, 9, 10)) == [(str(FIRST), str(FIRST))]


def test_days_of_before_there_were_digests_are_known_by_when_they_were_built(
    watched: Watched,
) -> None:
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 1))
    watched.now = at(SECOND, 2)
    report = BuildReport(
        "events/payments", None, 1, (PartitionOutcome(FIRST, rows=1),), began_ms=ms(watched.now)
    )
    append_partition_log(watched.settings, report, watched.drop.source.fingerprint)
    assert watched.asked(at(SECOND, 9)) == []
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 8))
    assert watched.asked(at(SECOND, 9)) == [(str(FIRST), str(FIRST))]


def test_a_flood_of_changed_days_is_asked_for_bit_by_bit(watched: Watched) -> None:
    start = FIRST - timedelta(days=100)
    days = [start + timedelta(days=n) for n in range(100)]
    for day in days:
        watched.drop.csv(f"{day}.csv", 1, at(FIRST))
    watched.now = at(FIRST, 1)
    watched.build(*days)
    assert watched.asked(at(FIRST, 2)) == []
    for day in days:
        watched.drop.csv(f"{day}.csv", 2, at(FIRST, 8))
    assert watched.asked(at(FIRST, 9)) == [(str(days[-31]), str(days[-1]))]


def test_a_day_whose_run_died_before_it_could_say_so_is_asked_for_in_the_next_hour(
    watched: Watched,
) -> None:
    watched.look(at(SECOND, 1, 25))
    watched.look(at(SECOND, 1, 29))
    watched.drop.csv(f"{FIRST}.csv", 2, at(SECOND, 1, 28))
    left = "2031-03-01 is there, and left to its tick for some minutes"
    assert watched.look(at(SECOND, 1, 32)).skip_message == left
    [request] = watched.look(at(SECOND, 1, 36)).run_requests
    run = dg.DagsterRun(
        job_name="daily_payments",
        status=dg.DagsterRunStatus.FAILURE,
        tags={**request.tags, "dagster/run_key": request.run_key},
    )
    watched.instance.add_run(run)
    done = watched.look(at(SECOND, 1, 37))
    assert not done.run_requests
    assert done.skip_message == (
        "2031-03-01 is there and to be built: asked for as run "
        f"{run.run_id} (FAILURE), and again in the next hour"
    )
    for minute in range(41, 60, 4):
        assert watched.asked(at(SECOND, 1, minute)) == []
    assert watched.asked(at(SECOND, 2, 1)) == [(str(FIRST), str(FIRST))]
    watched.build(FIRST)
    assert "is built" in watched.look(at(SECOND, 2, 2)).skip_message
