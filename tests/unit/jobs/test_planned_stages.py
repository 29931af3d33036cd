"""What a backfill's dry run prints is what its run then does: one list of stages for both."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner

from cli.main import build_app
from jobs.batch.backfill_plan import range_runs, with_stages
from jobs.definitions import build_definitions
from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.store import OfflineStore
from offline.tables.partition_log import append_partition_log
from offline.tables.stages import LakeState, Stage, plan_build
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.progress import Progress
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import FakeOffline, payments_there, plan_in
from tests.support.offline_contract import check_offline_tables

DAYS = Days.parse("2020-01-04", "2020-01-07")
NOW = datetime(2020, 3, 1, tzinfo=UTC)


def january(*days: int) -> tuple[date, ...]:
    return tuple(date(2020, 1, day) for day in days)


@dataclass
class LoggedBuilds(FakeOffline):
    """Plans by a real lake, into whose log it writes what it built, as Spark's builds do."""

    settings: Settings = field(default_factory=settings_from_env)

    def plan(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        tables: Collection[str] | None = None,
        skipped: Mapping[str, Mapping[date, str]] | None = None,
    ) -> tuple[Stage, ...]:
        store = OfflineStore(self.settings)
        return store.plan(source, views, days, tables=tables, skipped=skipped)

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        if stage.table.view is not None:
            claim_version(self.settings, stage.table.view)
        report = super().build(stage, progress=progress)
        append_partition_log(self.settings, report, stage.table.declared.fingerprint)
        return report


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path))
    monkeypatch.setenv("MILLRACE_DATA", str(tmp_path))
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    payments_there(tmp_path)
    return settings_from_env()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_what_the_dry_run_prints_is_what_the_run_does(
    tmp_path: Path, settings: Settings, instance: dg.DagsterInstance
) -> None:
    plan = plan_in(tmp_path)
    source, spend = plan.sources["payments"], plan.views["spend"]
    # The ninth was built when nothing of the week before it was there.
    claim_version(settings, spend)
    ninth = PartitionOutcome(date(2020, 1, 9), rows=1)
    append_partition_log(
        settings, BuildReport("events/payments", None, 1, (ninth,)), source.fingerprint
    )
    lacking = PartitionOutcome(date(2020, 1, 9), rows=1, missing_days=january(3, 4, 5, 6, 7, 8))
    append_partition_log(
        settings, BuildReport("features/spend/v1", "v1", 1, (lacking,)), spend.fingerprint
    )

    arguments = ["backfill", "spend", "habits", "--start", str(DAYS.start), "--end", DAYS.end_text]
    shown = CliRunner().invoke(build_app(), [*arguments, "--dry-run", "--json"])
    [foreseen] = json.loads(shown.stdout)["runs"]
    [run] = [with_stages(settings, r) for r in range_runs(plan, ["spend", "habits"], DAYS, NOW)]
    events, _, features, *_, habits = run.stages
    assert (events.earlier, features.restated, habits.early) == (
        january(1, 2, 3),
        january(9),
        january(4),
    )

    offline = LoggedBuilds(settings=settings)
    defs = build_definitions(plan, settings, offline=offline)
    result = defs.resolve_job_def(run.job).execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(path) for path in run.assets],
        tags=run.tags,
    )
    assert result.success
    assert tuple(offline.built) == run.stages
    assert [stage.as_json() for stage in offline.built] == foreseen["stages"]
    told = [entry.user_message for entry in instance.all_logs(result.run_id)]
    lines = "\n".join(line for stage in run.stages for line in stage.lines())
    assert lines in told, "the run's first step says it all"
    text = CliRunner().invoke(build_app(), [*arguments, "--dry-run"]).stdout
    assert "features/spend/v1: 3 day(s) [2020-01-04, 2020-01-07), as asked" in text


def test_a_stage_says_what_is_left_as_it_is_and_why(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    lake = LakeState(versions={"habits": "v1"}, features={"habits": {}})
    skipped = {"tiles/habits": dict.fromkeys(january(5, 6), "cut off")}
    events, tiles, _ = plan_build(
        lake, plan.sources["payments"], [plan.views["habits"]], DAYS, skipped=skipped
    )
    assert events.earlier == (), "a view looks at nothing before its start"
    assert (tiles.days, tiles.early) == (None, january(4))
    assert list(tiles.lines()) == [
        "tiles/habits/v1: empty before the view's start: 2020-01-04",
        "tiles/habits/v1: not built: 2020-01-05..2020-01-06: cut off",
    ]


def test_the_fake_tables_keep_what_the_lake_keeps(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    offline = FakeOffline(judged_before=tuple(DAYS))
    check_offline_tables(offline, plan.sources["payments"], plan.views_of("payments"), DAYS)
