"""What of a view's history is of another definition, or lacks part of its window; and its mend."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import typer
from typer.testing import CliRunner

from cli import stack as commands
from jobs.alerts.runs import runless_facts
from jobs.definitions import build_definitions
from millrace.days import ALL_HOURS
from millrace.plan import ViewPlan
from offline.tables.history_days import DayLedger
from offline.tables.partition_log import FORE_DAYS, append_partition_log, expected_days
from offline.tables.stages import Stage, Table
from offline.tables.view_history import ViewHistory, view_histories
from resources.declarations import load_valid_plan, plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import CHECKOUT, Settings, settings_from_env
from tests.support.fake_offline import FakeOffline
from tests.support.stream_fakes import write_views

START = date(2020, 1, 1)


def day(number: int) -> date:
    return START + timedelta(number)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    env = {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_LAKE": str(tmp_path / "lake")}
    return replace(settings_from_env(env), views=(tmp_path / "none", tmp_path / "views"))


def view_of(tmp_path: Path, **changes: Any) -> ViewPlan:
    return write_views(tmp_path / "views", **changes).view("spend")


def ledger(settings: Settings, view: ViewPlan, days: tuple[date, ...]) -> DayLedger:
    table = Table("features", view.source, view)
    return DayLedger.of(settings, view, Stage(table, "v1", None, restated=days))


def lifetime_view(tmp_path: Path, *, start: str) -> ViewPlan:
    view_of(tmp_path)
    file = tmp_path / "views" / "views.yaml"
    text = file.read_text().replace("start: 2020-01-01", f"start: {start}")
    file.write_text(text.replace("window: 1h", "window: lifetime"), encoding="utf-8")
    return plan_of([file]).view("spend")


def events(settings: Settings, view: ViewPlan, *outcomes: PartitionOutcome) -> None:
    report = BuildReport("events/payments", None, 0, outcomes)
    append_partition_log(settings, report, view.source.fingerprint)


def features(settings: Settings, view: ViewPlan, *outcomes: PartitionOutcome) -> None:
    table = f"features/spend/{claim_version(settings, view)}"
    append_partition_log(settings, BuildReport(table, None, 0, outcomes), view.fingerprint)


def built(*numbers: int, missing: Sequence[int] = ()) -> list[PartitionOutcome]:
    absent = tuple(map(day, missing))
    return [PartitionOutcome(day(n), rows=1, missing_days=absent) for n in numbers]


def history(settings: Settings, view: ViewPlan) -> ViewHistory:
    return view_histories(settings, [view])["spend"]


def test_a_view_that_was_never_built_has_nothing_wrong(settings: Settings, tmp_path: Path) -> None:
    found = history(settings, view_of(tmp_path))
    assert (found.state, found.command, found.detail) == ("unbuilt", "", "")


def test_days_of_another_definition_are_counted_until_they_are_built(
    settings: Settings, tmp_path: Path
) -> None:
    view = view_of(tmp_path)
    events(settings, view, *built(0, 1, 2))
    features(settings, view, *built(0, 1, 2))
    assert history(settings, view) == ViewHistory("spend", 3)
    changed = view_of(tmp_path, least=5)
    found = history(settings, changed)
    assert (found.state, found.built, found.unsynced) == ("unsynced", 0, (day(0), day(1), day(2)))
    assert found.command == "millrace backfill spend --start 2020-01-01 --end 2020-01-04"
    assert found.detail == ("3 day(s) of [2020-01-01, 2020-01-04) built from another definition")
    features(settings, changed, *built(1))
    assert history(settings, changed).unsynced == (day(0), day(2))
    assert history(settings, view).state == "ok", "the former definition is whole"
    features(settings, changed, *built(0, 2))
    assert history(settings, changed) == ViewHistory("spend", 3)


def test_a_changed_source_leaves_its_built_days_unsynced(
    settings: Settings, tmp_path: Path
) -> None:
    view = view_of(tmp_path)
    other = replace(view.source, fingerprint="another")
    events(settings, replace(view, source=other), *built(0, 1, 9))
    features(settings, view, *built(0, 1))
    assert history(settings, view).unsynced == (day(0), day(1))


def test_days_that_lack_part_of_their_window_name_the_days_to_build(
    settings: Settings, tmp_path: Path
) -> None:
    view = view_of(tmp_path)
    events(settings, view, *built(3, 4, 5))
    failed = PartitionOutcome(day(6), error="a broken file", missing_days=(day(2),))
    features(settings, view, *built(3, missing=[1, 2]), *built(4, missing=[2]), *built(5), failed)
    found = history(settings, view)
    assert (found.state, found.built) == ("incomplete", 3)
    assert (found.incomplete, found.absent) == ((day(3), day(4)), (day(1), day(2)))
    assert found.command == "millrace backfill spend --start 2020-01-02 --end 2020-01-04"
    events(settings, view, *built(1, 2))
    there = history(settings, view)
    assert (there.incomplete, there.absent) == ((day(3), day(4)), ())
    assert there.command == "millrace backfill spend --start 2020-01-04 --end 2020-01-06"
    features(settings, view, *built(1, 2, 3, 4))
    assert history(settings, view).state == "ok"


def test_entries_of_hours_are_put_together(settings: Settings, tmp_path: Path) -> None:
    view = view_of(tmp_path)
    events(settings, view, *built(0))
    features(settings, view, *built(0, missing=[-1]))
    features(settings, view, PartitionOutcome(day(0), range(5, 6), rows=1))
    assert history(settings, view).incomplete == (day(0),)
    features(settings, view, PartitionOutcome(day(0), ALL_HOURS, rows=1))
    assert history(settings, view).state == "ok"


def test_status_shows_what_is_wrong_and_the_command(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stack.control import Stack

    monkeypatch.setattr(commands, "_stack", lambda: Stack(settings))
    app = typer.Typer()
    commands.register(app)

    def status(*arguments: str) -> str:
        return CliRunner().invoke(app, ["status", *arguments], catch_exceptions=False).stdout

    assert json.loads(status("--json"))["views"] == {}, "no lake, nothing to read"
    view = view_of(tmp_path)
    events(settings, view, *built(3))
    features(settings, view, *built(3, missing=[2]))
    shown = json.loads(status("--json"))
    assert set(shown) == {"home", "parts", "views"}
    assert shown["views"]["spend"] == {
        "state": "incomplete",
        "built_days": 1,
        "unsynced": {"days": 0, "first": None, "last": None},
        "incomplete": {"days": 1, "first": "2020-01-04", "last": "2020-01-04"},
        "absent": {"days": 1, "first": "2020-01-03", "last": "2020-01-03"},
        "detail": "1 day(s) of [2020-01-04, 2020-01-05) built without part of their window, "
        "1 day(s) of [2020-01-03, 2020-01-04) missing",
        "command": "millrace backfill spend --start 2020-01-03 --end 2020-01-04",
    }
    text = status()
    assert "spend: incomplete: 1 day(s)" in text
    assert "millrace backfill spend --start 2020-01-03 --end 2020-01-04" in text


def test_a_start_before_there_were_any_data_leaves_no_days_missing(
    settings: Settings, tmp_path: Path
) -> None:
    """``start: 0001-01-01`` says "all there is": 738,000 days that were never there are no gap."""
    view = lifetime_view(tmp_path, start="0001-01-01")
    assert expected_days({}, date.min, START) == []
    events(settings, view, *built(0, 1, 3))
    found = ledger(settings, view, (day(1), day(4), day(3)))
    first = START - timedelta(FORE_DAYS)
    before = tuple(first + timedelta(n) for n in range(FORE_DAYS))
    assert found.missing == {day(1): before, day(3): (*before, day(2))}
    late = lifetime_view(tmp_path, start="2020-01-01")
    assert ledger(settings, late, (day(3),)).missing == {day(3): (day(2),)}
    # What came before everything that was known makes what is before it a gap again, no more.
    events(settings, view, *built(-FORE_DAYS))
    assert ledger(settings, view, (day(0),)).missing[day(0)] == (
        *(first - timedelta(n) for n in range(FORE_DAYS, 0, -1)),
        *before[1:],
    )


def test_status_reads_the_log_without_the_libraries_of_analysts(
    settings: Settings, tmp_path: Path
) -> None:
    """They were half of its CPU: Arrow's data sets import pandas."""
    view = view_of(tmp_path)
    events(settings, view, *built(0))
    features(settings, view, *built(0))
    code = (
        "import sys\nfrom cli.main import main\nsys.argv = ['millrace', 'status', '--json']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'pandas', 'pyarrow.dataset', 'dagster', 'pyspark'} & sys.modules.keys()))"
    )
    env = {
        **os.environ,
        "MILLRACE_HOME": str(tmp_path / "home"),
        "MILLRACE_LAKE": settings.lake,
        "MILLRACE_VIEWS": str(tmp_path / "views"),
    }
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=env, check=True, capture_output=True, text=True
    )
    told, _, imported = done.stdout.rpartition("\n[")
    assert json.loads(told)["views"]["spend"]["built_days"] == 1
    assert "[" + imported.strip() == "[]"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def test_the_sensor_tells_each_view_once_and_again_when_something_was_built(
    settings: Settings, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    view = view_of(tmp_path)
    plan = load_valid_plan(settings)[0]
    defs = build_definitions(plan, settings, offline=FakeOffline())
    sensor, cursor = defs.resolve_sensor_def("judge_history"), None
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING

    def tick() -> tuple[list[dg.AssetCheckEvaluation], str]:
        nonlocal cursor
        context = dg.build_sensor_context(instance=instance, cursor=cursor)
        done = sensor.evaluate_tick(context)
        cursor = done.cursor or cursor
        for event in done.asset_events:
            instance.report_runless_asset_event(event)
        told = [e for e in done.asset_events if isinstance(e, dg.AssetCheckEvaluation)]
        return told, done.skip_message or ""

    assert tick() == ([], "0 view(s) stand as declared")
    events(settings, view, *built(3))
    features(settings, view, *built(3, missing=[2]))
    [told], text = tick()
    assert (told.asset_key, told.check_name) == (dg.AssetKey(["features", "spend"]), "history")
    assert (told.passed, told.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert told.metadata["incomplete_days"].value == 1
    assert told.metadata["mend"].value == (
        "millrace backfill spend --start 2020-01-03 --end 2020-01-04"
    )
    assert "1 day(s) of [2020-01-04, 2020-01-05) built without part" in text
    assert tick() == ([], "nothing was built or declared since the last look")
    assert runless_facts(instance, [told.asset_check_key]) == [], "nobody is woken for it"

    events(settings, view, *built(2))
    features(settings, view, *built(2, 3))
    [told], text = tick()
    assert (told.passed, told.description) == (True, "2 day(s) stand as declared")
    features(settings, view, *built(2))
    assert tick() == ([], "1 view(s) stand as declared"), "what was told stands"

    spend = dg.AssetKey(["features", "spend"])
    instance.report_runless_asset_event(dg.AssetMaterialization(spend, partition="2020-01-03"))
    [again], _ = tick()
    assert again.description == "2 day(s) stand as declared", "Dagster shows nothing older"
    assert tick() == ([], "nothing was built or declared since the last look")


def test_no_run_of_a_build_judges_histories_and_by_hand_it_can_be(
    settings: Settings,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = view_of(tmp_path)
    defs = build_definitions(load_valid_plan(settings)[0], settings, offline=FakeOffline())
    for name in ("backfill_spend", "daily_payments"):
        steps = {node.name for node in defs.resolve_job_def(name).nodes}
        assert "view_history" not in steps
        assert steps
    events(settings, view, *built(3))
    features(settings, view, *built(3, missing=[2]))
    monkeypatch.setenv("MILLRACE_LAKE", settings.lake)
    job = defs.resolve_implicit_global_asset_job_def()
    check = dg.AssetCheckKey(dg.AssetKey(["features", "spend"]), "history")
    done = job.get_subset(asset_selection=set(), asset_check_selection={check}).execute_in_process(
        instance=instance
    )
    [found] = done.get_asset_check_evaluations()
    assert (found.check_name, found.passed) == ("history", False)
    sensor = defs.resolve_sensor_def("judge_history")
    [again] = sensor.evaluate_tick(dg.build_sensor_context(instance=instance)).asset_events
    assert again.description == found.description
