"""Days that were compared with bad ones: what they failed is judged again once those are mended."""

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from checks.quality.evaluations import report_judgement
from checks.quality.gate import JudgedTable, judge_build
from checks.quality.judgement import Judgement
from checks.quality.profiles_table import StoredDay, read_profiles, write_profiles
from checks.quality.rejudging import judge_later
from millrace.quality.judge import judge_day
from millrace.quality.profile import DayProfile
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import DECLARATIONS

FIRST = date(2020, 3, 2)
BAD = [FIRST + timedelta(n) for n in range(8)]
LATER = [BAD[-1] + timedelta(n) for n in (1, 2)]
NOW_MS = int(datetime(2020, 5, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_from_env({"MILLRACE_LAKE": str(tmp_path / "lake")})


@pytest.fixture
def table(tmp_path: Path) -> JudgedTable:
    file = tmp_path / "payments.yaml"
    file.write_text(DECLARATIONS, encoding="utf-8")
    plan = plan_of([file])
    source = plan.sources["payments"]
    return JudgedTable.of_source(source, plan.views_of("payments"))


def profiles(table: JudgedTable, days: Iterable[date], rows: int) -> list[DayProfile]:
    return [DayProfile(table.name, day, rows) for day in days]


def judged_by(
    table: JudgedTable, history: list[DayProfile], days: list[DayProfile]
) -> list[StoredDay]:
    """Return days as they were kept when they were built, each compared with the history alone."""
    kept = []
    for profile in days:
        found = judge_day(profile, history, table.rules)
        kept.append(StoredDay(profile, "", tuple(one.document() for one in found)))
    return kept


def failed(stored: StoredDay) -> set[str]:
    return {one["rule"] for one in stored.findings if one["verdict"] == "failed"}


def mended(settings: Settings, table: JudgedTable, held: Iterable[date] = ()) -> Judgement:
    """Keep ten times the rows of eight days, two days judged by them; then build the eight anew."""
    kept = judged_by(table, profiles(table, BAD, 5_000), profiles(table, LATER, 500))
    assert all(failed(one) == {"volume"} for one in kept)
    clean = [StoredDay(one, "", ()) for one in profiles(table, BAD, 500)]
    write_profiles(settings, table.name, [*clean, *kept])
    every = tuple(PartitionOutcome(day) for day in (*BAD, *LATER))
    built = BuildReport(table.name, None, 1, every)
    append_partition_log(
        settings, built, table.fingerprint, held=dict.fromkeys(held, "its checks failed")
    )
    again = BuildReport(table.name, None, 2, every[: len(BAD)])
    return judge_build(settings, table, again, lambda _: None, now_ms=NOW_MS)


def test_what_failed_by_a_bad_baseline_holds_by_the_mended_one(
    settings: Settings, table: JudgedTable
) -> None:
    judgement = mended(settings, table)
    assert [one.day for one in judgement.days] == BAD
    assert [one.day for one in judgement.again] == LATER
    assert {f.rule.type for one in judgement.again for f in one.findings} == {"volume"}
    assert not any(f.is_alarm for one in judgement.again for f in one.findings)
    stored = read_profiles(settings, table.name, LATER)
    assert [failed(one) for one in stored.values()] == [set(), set()]
    verdicts = [{f["rule"]: f["verdict"] for f in one.findings} for one in stored.values()]
    assert [one["volume"] for one in verdicts] == ["passed", "passed"]
    assert all("rows" in one for one in verdicts)


def test_a_day_that_readers_do_not_see_is_left_to_its_own_build(
    settings: Settings, table: JudgedTable
) -> None:
    judgement = mended(settings, table, held=LATER[:1])
    assert [one.day for one in judgement.again] == LATER[1:]


def test_a_repair_opens_nothing_and_days_written_since_are_left_alone(table: JudgedTable) -> None:
    bad, clean = profiles(table, BAD, 5_000), profiles(table, BAD, 500)
    passed = judged_by(table, bad, profiles(table, LATER[:1], 5_000))
    assert not failed(passed[0])
    assert not list(judge_later({LATER[0]: passed[0]}, {}, clean, table.rules))
    [kept] = judged_by(table, bad, profiles(table, LATER[:1], 500))
    assert not list(judge_later({LATER[0]: kept}, {LATER[0]: "newer"}, clean, table.rules))
    assert len(list(judge_later({LATER[0]: kept}, {}, clean, table.rules))) == 1


def test_the_days_judged_again_are_told_before_those_that_were_built(
    settings: Settings, table: JudgedTable
) -> None:
    judgement = mended(settings, table)
    days = dg.DailyPartitionsDefinition("2020-01-01")
    key = dg.AssetKey(["events", "payments_events"])

    @dg.asset(
        key=key,
        partitions_def=days,
        check_specs=[dg.AssetCheckSpec("volume", asset=key, partitions_def=days)],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def events(context: dg.AssetExecutionContext) -> Iterator[Any]:
        report_judgement(context, key, ["volume"], judgement, by_hour=False)
        yield dg.MaterializeResult()

    with dg.instance_for_test() as instance:
        tags = {
            "dagster/asset_partition_range_start": BAD[0].isoformat(),
            "dagster/asset_partition_range_end": BAD[-1].isoformat(),
        }
        run = dg.materialize([events], instance=instance, tags=tags, raise_on_error=False)
        records = instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
    stored = [one.event_log_entry.dagster_event for one in records]
    told = [one.asset_check_evaluation_data for one in stored if one is not None]
    assert [one.partition for one in told[:2]] == [day.isoformat() for day in LATER]
    assert all(one.passed for one in told[:2])
    assert all("Judged again" in (one.description or "") for one in told[:2])
    assert len(told) == 2 + len(BAD) + 1
