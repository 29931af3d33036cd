"""``millrace backfill``: what it refuses, what it launches, and how it tells what came of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import backfill as command
from cli.main import build_app
from cli.output import progress
from jobs.batch.backfill_plan import range_runs, with_stages
from jobs.batch.backfill_runs import RunFollower, failure_lines, follow, launch
from millrace.days import Days
from millrace.errors import EngineRejected, EngineUnavailable, NotDeclared, PlatformError
from millrace.plan import Plan, SchedulePlan
from offline.tables.partition_log import append_partition_log
from resources.dagster.asset_keys import declared_name
from resources.dagster.client import (
    ASSET_JOB,
    ActiveRun,
    AssetState,
    DagsterApi,
    Failed,
    Materialized,
    Note,
    RunEvent,
    RunProgress,
)
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import plan_in
from tests.support.stack_fakes import pretend_running

NOW = datetime(2020, 3, 1, 5, 20, tzinfo=UTC)
DAYS = Days.parse("2020-01-06", "2020-01-08")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_in(tmp_path)


class FakeApi(DagsterApi):
    """A webserver that plays back what a run tells, one step at each look.

    Args:
        plan: what the code location has loaded.
        steps: what each look finds; an error is raised.
        loads_after: reloads that it takes until the plan's views are there.
        days_after: reloads that it takes until their partitions are days, and no hours.
    """

    def __init__(
        self,
        plan: Plan,
        steps: Sequence[RunProgress | PlatformError] = (),
        *,
        loads_after: int = 0,
        days_after: int = 0,
        load_error: str | None = None,
    ) -> None:
        super().__init__("http://dagster")
        self._plan, self._steps = plan, list(steps)
        self._missing_reloads, self._load_error = loads_after, load_error
        self._hourly_reloads = days_after
        self.reloads = 0
        self.ahead: tuple[ActiveRun, ...] = ()
        self.jobs: list[str] = []
        self.launched: list[tuple[Sequence[tuple[str, ...]], Days]] = []

    def asset(self, path: tuple[str, ...]) -> AssetState | None:
        if self.reloads < self._missing_reloads:
            return None
        named = self._plan.sources if path[0] == "events" else self._plan.views
        version = named[declared_name(path)].fingerprint
        is_hourly = self.reloads < self._hourly_reloads
        return AssetState(version, {"2020-01-06": "MATERIALIZED"}, is_hourly)

    def reload(self) -> str | None:
        self.reloads += 1
        return self._load_error

    def launch(
        self,
        assets: Sequence[tuple[str, ...]],
        days: Days,
        *,
        job: str = ASSET_JOB,
        by_hour: bool = False,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        self.launched.append((assets, days))
        self.jobs.append(job)
        return "run-1"

    def runs_before(self, run_id: str) -> tuple[ActiveRun, ...]:
        return self.ahead

    def progress(self, run_id: str, cursor: str | None = None) -> RunProgress:
        step = self._steps.pop(0)
        if isinstance(step, PlatformError):
            raise step
        return step


def built(asset: str, day: int, **metadata: Any) -> Materialized:
    counts = {"dagster/partition_row_count": 5, "bytes": 100, "null_keys": 1, "duplicates": 2}
    return Materialized(tuple(asset.split("/")), f"2020-01-{day:02}", {**counts, **metadata})


EVERYTHING: tuple[RunEvent, ...] = tuple(
    built(asset, day)
    for asset in ("events/payments_events", "tiles/spend_tiles", "features/spend")
    for day in (6, 7)
)
FINAL = {"dagster/will_retry": "false"}
RETRIED = {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "run-2"}
PARTLY: tuple[RunEvent, ...] = (
    *(built(a, 6) for a in ("events/payments_events", "tiles/spend_tiles", "features/spend")),
    Failed(
        "events/payments_events: 2020-01-07: cut off",
        {
            "events/payments_events": {"2020-01-07": "cut off"},
            "tiles/spend_tiles": {"2020-01-07": "events/payments_events failed: cut off"},
            "features/spend": {"2020-01-07": "events/payments_events failed: cut off"},
        },
    ),
)


def test_views_of_one_source_share_a_run(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend", "habits", "spend"], DAYS, NOW)
    assert run.assets == (
        ("events", "payments_events"),
        ("tiles", "spend_tiles"),
        ("features", "spend"),
        ("tiles", "habits_tiles"),
        ("features", "habits"),
    )
    assert run.partitions == 10
    assert run.tags == {
        "dagster/asset_partition_range_start": "2020-01-06",
        "dagster/asset_partition_range_end": "2020-01-07",
    }


def test_an_unknown_view_is_refused_with_the_nearest_name(plan: Plan) -> None:
    with pytest.raises(NotDeclared) as caught:
        range_runs(plan, ["spent"], DAYS, NOW)
    assert "no feature view 'spent'" in str(caught.value)
    assert "did you mean 'spend'?" in str(caught.value)


def test_days_before_the_history_are_refused_with_its_start(plan: Plan) -> None:
    with pytest.raises(PlatformError) as caught:
        range_runs(plan, ["habits"], Days.parse("2020-01-04", "2020-01-06"), NOW)
    assert "2020-01-04 is before the view's history, which starts on 2020-01-05" in str(
        caught.value
    )
    assert "--start 2020-01-05" in caught.value.fix


def test_views_of_one_source_are_built_from_the_earliest_start_on(plan: Plan) -> None:
    days = Days.parse("2020-01-01", "2020-01-08")
    [run] = range_runs(plan, ["habits", "spend"], days, NOW)
    assert run.days == days
    with pytest.raises(PlatformError) as caught:
        range_runs(plan, ["habits", "spend"], Days.parse("2019-12-31", "2020-01-08"), NOW)
    assert "view spend: 2019-12-31 is before" in str(caught.value)


def test_a_day_that_is_not_over_is_refused(plan: Plan) -> None:
    with pytest.raises(PlatformError) as caught:
        range_runs(plan, ["spend"], Days.parse("2020-02-01", "2020-03-02"), NOW)
    assert "2020-03-01 is not over" in str(caught.value)
    assert "--end 2020-03-01" in caught.value.fix


def test_today_is_built_of_a_source_that_is_refreshed_each_hour(plan: Plan) -> None:
    spend = plan.views["spend"]
    source = replace(spend.source, schedule=SchedulePlan(is_hourly=True))
    hourly = replace(plan, views={"spend": replace(spend, source=source)})
    [run] = range_runs(hourly, ["spend"], Days.parse("2020-02-29", "2020-03-02"), NOW)
    assert (run.days.last, run.days.to_hour) == (NOW.date(), 6)
    with pytest.raises(PlatformError) as caught:
        range_runs(hourly, ["spend"], Days.parse("2020-02-29", "2020-03-03"), NOW)
    assert "2020-03-02 has not begun" in str(caught.value)
    assert "--end 2020-03-02" in caught.value.fix


def test_a_view_declared_after_the_start_is_loaded_by_one_reload(plan: Plan) -> None:
    api = FakeApi(plan, loads_after=1)
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    assert launch(api, run) == "run-1"
    assert api.reloads == 1


def test_a_location_with_partitions_of_before_the_schedule_changed_is_loaded_again(
    plan: Plan,
) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    api = FakeApi(plan, days_after=1)
    assert launch(api, run) == "run-1"
    assert api.reloads == 1


def test_hours_are_refused_where_partitions_are_days(plan: Plan) -> None:
    with pytest.raises(PlatformError) as caught:
        range_runs(plan, ["spend"], Days.parse("2020-01-06T05:00", "2020-01-07"), NOW)
    assert "the partitions of source payments are days" in str(caught.value)
    assert "--start 2020-01-06 --end 2020-01-07" in caught.value.fix


def test_a_view_the_stack_cannot_see_is_refused_with_the_mend(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    with pytest.raises(EngineRejected) as caught:
        launch(FakeApi(plan, loads_after=9), run)
    assert "has not loaded spend as declared here" in str(caught.value)
    assert "millrace up dagster" in caught.value.fix


def test_a_location_that_does_not_load_is_told_with_its_fault(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    with pytest.raises(EngineRejected, match=r"spend\.yaml:7"):
        launch(FakeApi(plan, loads_after=9, load_error="fault in spend.yaml:7"), run)


def followed(plan: Plan, *steps: RunProgress | PlatformError) -> RunFollower:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    follower = RunFollower(FakeApi(plan, steps), run, "run-1")
    for _ in follow([follower], sleep=lambda _: None):
        pass
    return follower


def test_each_partition_is_told_apart(plan: Plan) -> None:
    follower = followed(
        plan,
        RunProgress("STARTED", (Note("reading"),), "1"),
        RunProgress("FAILURE", PARTLY, "2", FINAL),
    )
    outcomes = {(r.asset, r.day.day): r.error for r in follower.results()}
    assert outcomes == {
        ("events/payments_events", 6): None,
        ("events/payments_events", 7): "cut off",
        ("tiles/spend_tiles", 6): None,
        ("tiles/spend_tiles", 7): "events/payments_events failed: cut off",
        ("features/spend", 6): None,
        ("features/spend", 7): "events/payments_events failed: cut off",
    }
    assert follower.note == "reading"


def test_failures_are_a_line_for_each_reason(plan: Plan) -> None:
    partly = followed(plan, RunProgress("FAILURE", PARTLY, "2", FINAL))
    assert failure_lines(partly.results()) == [
        "events/payments_events 2020-01-07: cut off",
        "tiles/spend_tiles, features/spend 2020-01-07: events/payments_events failed: cut off",
    ]
    dead = followed(plan, RunProgress("FAILURE", (Failed("the process died"),), "1", FINAL))
    assert failure_lines(dead.results()) == [
        "events/payments_events, tiles/spend_tiles, features/spend 2020-01-06..2020-01-07: the process died"
    ]


def test_a_day_that_a_dead_run_never_mentioned_failed_with_it(plan: Plan) -> None:
    follower = followed(plan, RunProgress("FAILURE", (Failed("the process died"),), "1", FINAL))
    assert {r.error for r in follower.results()} == {"the process died"}


def test_a_run_that_dagster_starts_once_more_is_followed_to_its_end(plan: Plan) -> None:
    follower = followed(
        plan,
        RunProgress("FAILURE", (Failed("the process died"),), "1", {"dagster/will_retry": "true"}),
        RunProgress("FAILURE", (), "1", RETRIED),
        RunProgress("SUCCESS", EVERYTHING, "1"),
    )
    assert follower.run_id == "run-2"
    assert {r.error for r in follower.results()} == {None}


def test_a_run_that_dagster_has_not_judged_yet_is_waited_for(plan: Plan) -> None:
    """Dagster stores the failure first, and a moment later that it starts the run once more."""
    follower = followed(
        plan,
        RunProgress("FAILURE", (Failed("the process died"),), "1"),
        RunProgress("FAILURE", (), "1", {"dagster/will_retry": "true"}),
        RunProgress("FAILURE", (), "1", RETRIED),
        RunProgress("SUCCESS", EVERYTHING, "1"),
    )
    assert follower.status == "SUCCESS"


def test_an_instance_that_judges_no_failed_run_is_not_waited_for_long(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    unjudged = RunProgress("FAILURE", PARTLY, "1")
    ticks = iter(range(0, 100, 5))
    follower = RunFollower(FakeApi(plan, [unjudged] * 9), run, "run-1", clock=lambda: next(ticks))
    assert len(list(follow([follower], sleep=lambda _: None))) == 5
    assert follower.status == "FAILURE"


def test_a_day_built_on_the_way_is_told_but_is_no_progress(plan: Plan) -> None:
    events = (built("events/payments_events", 3), *EVERYTHING)
    follower = followed(plan, RunProgress("SUCCESS", events, "1"))
    assert follower.done == 6
    assert [(r.day.day, r.was_asked) for r in follower.results()][:2] == [(3, False), (6, True)]


def test_a_webserver_that_restarts_is_waited_for(plan: Plan) -> None:
    follower = followed(
        plan, EngineUnavailable("no answer"), RunProgress("SUCCESS", EVERYTHING, "1")
    )
    assert follower.is_finished


def test_a_webserver_that_stays_silent_is_reported(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    follower = RunFollower(FakeApi(plan, [EngineUnavailable("no answer")] * 9), run, "run-1")
    ticks = iter(range(0, 1000, 50))
    with pytest.raises(EngineUnavailable):
        list(follow([follower], sleep=lambda _: None, clock=lambda: next(ticks)))


class Command:
    """The command over a fake webserver, with this test's declarations alone."""

    def __init__(self, plan: Plan, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._plan, self._monkeypatch = plan, monkeypatch
        monkeypatch.setenv("MILLRACE_VIEWS", str(folder))
        monkeypatch.setenv("MILLRACE_DATA", str(folder))
        monkeypatch.setenv("MILLRACE_HOME", str(folder / "home"))
        pretend_running(folder / "home", "spark", "dagster")
        self.file = folder / "payments.parquet"
        columns = {"payment_id": [1], "paid_at": [0], "customer_id": [1], "amount": [1.0]}
        pq.write_table(pa.table(columns), self.file)

    def __call__(self, *arguments: str, steps: Sequence[RunProgress] = ()) -> Any:
        self.api = FakeApi(self._plan, steps)
        self._monkeypatch.setattr(command, "_api", lambda _: self.api)
        fixed = ["backfill", "spend", "--start", "2020-01-06", "--end", "2020-01-08"]
        return CliRunner().invoke(build_app(), [*fixed, *arguments])


@pytest.fixture
def run(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(plan, tmp_path, monkeypatch)


def test_a_whole_backfill_exits_0_with_a_line_per_partition(run: Command) -> None:
    done = run(steps=[RunProgress("SUCCESS", EVERYTHING, "1")])
    assert done.exit_code == 0, done.output
    assert "6 partitions built, 0 failed" in done.stdout
    assert done.stdout.count("2020-01-07") == 3


def test_a_bad_day_exits_1_and_is_named_with_its_reason(run: Command) -> None:
    done = run(steps=[RunProgress("FAILURE", PARTLY, "1", FINAL)])
    assert done.exit_code == 1
    assert "events/payments_events 2020-01-07: cut off" in done.stdout
    assert "3 partitions built, 3 failed" in done.stdout


def test_json_has_every_partition(run: Command) -> None:
    done = run("--json", steps=[RunProgress("SUCCESS", EVERYTHING, "1")])
    [told] = json.loads(done.stdout)["runs"]
    assert told["status"] == "SUCCESS"
    assert told["url"] == "http://dagster/runs/run-1"
    assert len(told["results"]) == 6
    assert told["results"][0]["rows"] == 5
    assert told["results"][0]["null_keys"] == 1


def test_dead_letters_of_no_day_are_told_once(run: Command) -> None:
    events = tuple(
        replace(e, metadata={**e.metadata, "dead_letters_of_no_day": 8255})
        if isinstance(e, Materialized) and e.asset[0] == "events"
        else e
        for e in EVERYTHING
    )
    done = run(steps=[RunProgress("SUCCESS", events, "1")])
    assert done.stdout.count("events/payments_events: 8,255 more dead letter(s) of no day") == 1


def test_without_waiting_the_run_is_named(run: Command) -> None:
    done = run("--no-wait", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["runs"][0]["run_id"] == "run-1"
    assert run.api.jobs == ["backfill_spend"], "it is found on the page of the view's job"


def test_several_views_are_a_run_of_their_source(plan: Plan) -> None:
    api = FakeApi(plan)
    days = Days.parse("2020-01-06", "2020-01-07")
    [both] = range_runs(plan, ["spend", "habits"], days, NOW)
    launch(api, both)
    assert api.jobs == ["daily_payments"] == [both.as_json()["job"]]


def test_a_path_that_is_not_there_is_said_once_and_nothing_is_started(run: Command) -> None:
    run.file.unlink()
    done = run()
    assert (done.exit_code, run.api.launched) == (1, [])
    assert "payments.parquet does not exist" in str(done.exception)


def test_a_column_that_no_file_has_is_said_once_and_nothing_is_started(run: Command) -> None:
    pq.write_table(pa.table({"payment_id": [1], "paid": [0]}), run.file)
    done = run()
    assert (done.exit_code, run.api.launched) == (1, [])
    assert "column 'paid_at' is missing" in str(done.exception)


def test_a_dry_run_shows_everything_and_starts_nothing(run: Command, plan: Plan) -> None:
    run.file.unlink()
    settings, monday = settings_from_env(), Days.parse("2020-01-06", "2020-01-07")
    claim_version(settings, plan.views["spend"])
    for table in ("events/payments", "tiles/spend/v1", "features/spend/v1"):
        stand(settings, plan, table, monday, 1)
    done = run("--dry-run", "--json")
    [foreseen] = json.loads(done.stdout)["runs"]
    assert run.api.launched == []
    assert foreseen["partitions"] == 6
    assert foreseen["built"] == {
        "events/payments_events": 1,
        "tiles/spend_tiles": 1,
        "features/spend": 1,
    }
    assert done.exit_code == 1, "there is nothing to build it from"
    assert "payments.parquet does not exist" in foreseen["raw"]["error"]
    assert "dagster/asset_partition_range_end" in foreseen["tags"]


def test_an_interrupted_wait_leaves_the_run_going(
    run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: RunFollower) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFollower, "poll", interrupted)
    done = run()
    assert done.exit_code == 130
    assert "goes on without this command: http://dagster/runs/run-1" in done.stderr


def test_two_weeks_are_a_line_for_each_asset(run: Command) -> None:
    days = range(6, 20)
    assets = ("events/payments_events", "tiles/spend_tiles", "features/spend")
    whole = tuple(built(asset, day) for asset in assets for day in days if day != 9)
    lost = Failed("cut off", {asset: {"2020-01-09": "cut off"} for asset in assets})
    steps = [RunProgress("FAILURE", (*whole, lost), "1", FINAL)]
    shown = run("--end", "2020-01-20", steps=steps).stdout
    lines = [
        line.split() for line in shown.splitlines() if line.strip().startswith("tiles/spend_tiles")
    ]
    assert lines == [["tiles/spend_tiles", "13", "1", "65", "1,300", "13", "26", "0", "0"]]
    assert "events/payments_events, tiles/spend_tiles, features/spend 2020-01-09: cut off" in shown


def test_a_queued_run_says_which_run_it_waits_for(plan: Plan) -> None:
    [run] = range_runs(plan, ["spend"], DAYS, NOW)
    api = FakeApi(plan, [RunProgress("QUEUED", (), "1"), RunProgress("STARTED", (), "2")])
    api.ahead = (ActiveRun("run-0", "STARTED", 1.0, "events/payments_events and 2 more"),)
    follower = RunFollower(api, run, "run-1")
    follower.poll()
    assert follower.state == "queued behind run run-0 (events/payments_events and 2 more)"
    follower.poll()
    assert follower.state == "started"


def stand(settings: Settings, plan: Plan, table: str, days: Days, began_ms: int) -> None:
    """Log days as built, of a build that began to read at an instant."""
    outcomes = tuple(PartitionOutcome(day, rows=5) for day in days)
    report = BuildReport(table, None, 1, outcomes, began_ms=began_ms)
    named = plan.sources["payments"] if table.startswith("events") else plan.views["spend"]
    append_partition_log(settings, report, named.fingerprint)


def test_events_that_stand_are_not_built_again_for_a_view_that_is_new(
    run: Command, plan: Plan, tmp_path: Path
) -> None:
    settings = settings_from_env()
    file = tmp_path / "payments.parquet"
    columns = {"id": [1], "paid_at": [0], "customer_id": [1], "amount": [1.0]}
    pq.write_table(pa.table(columns), file)
    changed_ms = max(path.stat().st_ctime_ns for path in (file, tmp_path)) // 1_000_000
    [asked] = range_runs(plan, ["spend"], DAYS, NOW)
    january = Days.parse("2020-01-01", "2020-01-08")
    assert not with_stages(settings, asked).has_events, "nothing is built"

    stand(settings, plan, "events/payments", january, changed_ms)
    assert not with_stages(settings, asked).has_events, "the file may be newer than the build"
    stand(settings, plan, "events/payments", january, changed_ms + 1)
    known = with_stages(settings, asked)
    assert known.assets == (("tiles", "spend_tiles"), ("features", "spend"))
    done = run("--dry-run")
    assert done.exit_code == 0
    assert (
        "events/payments stands and no raw file has changed since: not built again" in done.stdout
    )
    run(steps=[RunProgress("SUCCESS", EVERYTHING[2:], "1")])
    assert [assets for assets, _ in run.api.launched] == [known.assets]

    claim_version(settings, plan.views["spend"])
    stand(settings, plan, "tiles/spend/v1", DAYS, changed_ms + 1)
    assert not with_stages(settings, asked).has_events, "asked to be built again, it is"


def test_a_dry_run_names_the_earlier_days_that_are_built_besides(run: Command, plan: Plan) -> None:
    stand(settings_from_env(), plan, "events/payments", Days.parse("2020-01-02", "2020-01-03"), 1)
    shown = run("--dry-run").stdout
    [asked] = range_runs(plan, ["spend"], DAYS, NOW)
    earlier = with_stages(settings_from_env(), asked).earlier
    assert earlier
    assert earlier[-1] == date(2020, 1, 5)
    assert date(2020, 1, 2) not in earlier
    assert f"events/payments: {len(earlier)} earlier day(s), which windows reach into" in shown
    [told] = json.loads(run("--dry-run", "--json").stdout)["runs"]
    assert told["earlier_days"] == [day.isoformat() for day in earlier]


def test_what_several_runs_say_by_turns_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("waiting") as advance:
        for _ in range(60):
            advance(description="payments: 1 file is broken")
            advance(description="visits: reading")
    assert capsys.readouterr().err.splitlines() == [
        "waiting",
        "payments: 1 file is broken",
        "visits: reading",
    ]
