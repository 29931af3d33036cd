"""A real webserver, daemon and code server over fake tables, driven by GraphQL as the UI does."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from jobs.batch import backfill_runs as runs
from jobs.batch.backfill_plan import range_runs
from millrace.days import Days
from millrace.errors import EngineRejected
from millrace.plan import Plan
from offline.tables.partition_log import append_partition_log
from resources.dagster.client import AssetState, DagsterApi, Failed, Materialized, RunProgress
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env
from tests.support.dagster_stack import finished, running_dagster, wait_for
from tests.support.fake_offline import DECLARATIONS
from tests.support.live.dagster_backfills import finish, launch, retry, retry_run, step_times

pytestmark = pytest.mark.services

EVENTS, TILES, FEATURES = (
    ("events", "payments_events"),
    ("tiles", "spend_tiles"),
    ("features", "spend"),
)
SPEND = (EVENTS, TILES, FEATURES)


TAPS = """
version: millrace/v1
sources:
  - name: taps
    columns: {id: int64, at: timestamp, card: int64}
    event_time: at
    event_id: id
    stream: {topic: gate.taps, format: json}
entities: [{name: card, join_key: card, type: int64}]
feature_views:
  - name: rides
    entity: card
    source: taps
    start: 2020-01-01
    features: [{name: taps_1h, aggregate: count, window: 1h}]
"""
LATE = Days(date(2020, 1, 5), date(2020, 1, 7))


def events_came_late(settings: Settings, plan: Plan) -> None:
    """Archive two rows for each of some days that were built with one."""
    days = [day for day in (date(2020, 1, 4), *LATE) for _ in range(2)]
    rows = {"id": pa.array(range(len(days)), pa.int64()), "event_date": days}
    path = f"{settings.lake}/events/taps"
    write_deltalake(path, pa.table(rows), partition_by=["event_date"])
    built = [PartitionOutcome(day, rows=1) for day in LATE]
    outcomes = (PartitionOutcome(date(2020, 1, 4), rows=2), *built)
    report = BuildReport("events/taps", None, 0, outcomes)
    append_partition_log(settings, report, plan.sources["taps"].fingerprint)


@dataclass
class Stack:
    """Dagster's three processes, its declarations, and a file with the bad days of each table."""

    api: DagsterApi
    declarations: Path
    bad_days: Path

    def break_days(self, bad: dict[str, dict[str, str]]) -> None:
        self.bad_days.write_text(json.dumps(bad), encoding="utf-8")

    def finish(self, run: str) -> RunProgress:
        return finished(self.api, run)

    def statuses(self, path: tuple[str, ...], days: Days) -> dict[str, list[int]]:
        state = self.api.asset(path)
        assert state is not None
        found: dict[str, list[int]] = {}
        for day in days:
            found.setdefault(state.statuses.get(day.isoformat(), "MISSING"), []).append(day.day)
        return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("dagster")
    declarations, bad_days = root / "views" / "payments.yaml", root / "bad_days.json"
    declarations.parent.mkdir()
    declarations.write_text(DECLARATIONS, encoding="utf-8")
    (declarations.parent / "taps.yaml").write_text(TAPS, encoding="utf-8")
    bad_days.write_text("{}", encoding="utf-8")
    env = {
        "MILLRACE_HOME": str(root / "millrace"),
        "MILLRACE_VIEWS": str(declarations.parent),
        "MILLRACE_TEST_BAD_DAYS": str(bad_days),
    }
    events_came_late(settings_from_env(env), plan_of([declarations.parent]))
    with running_dagster(root, "integration.dagster_project.definitions", env) as api:
        yield Stack(api, declarations, bad_days)


BAD = {"events/payments": {"2020-01-04": "part-4 is cut off", "2020-01-07": "amount is missing"}}


def test_a_range_is_one_run_and_its_bad_days_fail_in_every_asset(stack: Stack) -> None:
    days = Days.parse("2020-01-01", "2020-01-11")
    stack.break_days(BAD)
    progress = stack.finish(stack.api.launch(SPEND, days))
    assert progress.status == "FAILURE"
    for path in SPEND:
        assert stack.statuses(path, days) == {
            "MATERIALIZED": [1, 2, 3, 5, 6, 8, 9, 10],
            "FAILED": [4, 7],
        }
    built = [e for e in progress.events if isinstance(e, Materialized) and e.partition]
    assert len(built) == 3 * 8
    assert built[0].metadata["dagster/partition_row_count"] == 11
    failed = [e for e in progress.events if isinstance(e, Failed) and e.partitions]
    assert [list(e.partitions) for e in failed] == [["/".join(path)] for path in SPEND]
    assert "events/payments_events: 2020-01-04: part-4 is cut off" in failed[0].message
    assert failed[2].partitions["features/spend"]["2020-01-07"] == (
        "events/payments_events failed: amount is missing"
    )


def test_a_run_executed_again_from_failure_mends_the_bad_days_alone(stack: Stack) -> None:
    days = Days.parse("2020-02-01", "2020-02-06")
    stack.break_days({"events/payments": {"2020-02-03": "cut off", "2020-02-05": "cut off"}})
    first = stack.api.launch(SPEND, days)
    stack.finish(first)
    stack.break_days({"events/payments": {"2020-02-05": "cut off"}})
    second = retry_run(stack.api, first)
    assert stack.finish(second).status == "FAILURE"
    for path in SPEND:
        assert stack.statuses(path, days) == {"MATERIALIZED": [1, 2, 3, 4], "FAILED": [5]}

    stack.break_days({})
    third = retry_run(stack.api, second)
    progress = stack.finish(third)
    assert progress.status == "SUCCESS"
    assert [
        (e.asset, e.partition)
        for e in progress.events
        if isinstance(e, Materialized) and e.partition
    ] == [(path, "2020-02-05") for path in SPEND]
    for path in SPEND:
        assert stack.statuses(path, days) == {"MATERIALIZED": [1, 2, 3, 4, 5]}
    steps = {step: times for step, times in step_times(stack.api, third).items() if "__" in step}
    assert list(steps) == ["events__payments", "tiles__spend", "features__spend"]
    ends = [(began, ended) for _, began, ended in steps.values()]
    assert all(ended <= began for (_, ended), (began, _) in pairwise(ends))


def test_a_backfill_of_the_daemon_is_one_run_and_its_retry_takes_only_the_bad_days(
    stack: Stack,
) -> None:
    stack.break_days(
        {"events/payments": {"2020-03-04": "cut off", "2020-03-05": "a column is missing"}}
    )
    march = Days(date(2020, 3, 1), date(2020, 3, 11))
    first = finish(stack.api, launch(stack.api, SPEND, march))
    assert first.counts == dict.fromkeys(SPEND, (10, 8, 2))
    assert len(first.runs) == 1

    stack.break_days({})
    again = finish(stack.api, retry(stack.api, first.id))
    assert again.counts == dict.fromkeys(SPEND, (2, 2, 0))
    for path in SPEND:
        assert stack.statuses(path, march) == {"MATERIALIZED": list(range(1, 11))}


def test_days_that_events_came_to_late_are_built_again_by_themselves(stack: Stack) -> None:
    everything = (("events", "taps_events"), ("tiles", "rides_tiles"), ("features", "rides"))

    def built() -> bool | None:
        found = [stack.statuses(path, LATE) for path in everything]
        return found == [{"MATERIALIZED": [5, 6]}] * 3 or None

    wait_for("days that were late", built)
    around = Days(date(2020, 1, 3), date(2020, 1, 9))
    assert stack.statuses(everything[0], around)["MISSING"] == [3, 4, 7, 8]


def test_an_unknown_run_is_refused_by_name(stack: Stack) -> None:
    with pytest.raises(EngineRejected, match="run nonsense"):
        stack.api.progress("nonsense")


def test_an_asset_that_is_not_there_has_no_state(stack: Stack) -> None:
    assert stack.api.asset(("features", "nothing")) is None
    assert stack.api.asset(("raw", "payments_files")) is None


STALE = """
query Stale($assets: [AssetKeyInput!], $days: [String!]) {
  assetNodes(assetKeys: $assets) {
    assetKey { path }
    staleStatusByPartition(partitions: $days)
    staleCauses(partition: "2020-04-02") { category key { path } }
  }
}
"""


HABITS = (("tiles", "habits_tiles"), ("features", "habits"))


def stale(stack: Stack, days: list[str]) -> dict[str, dict[str, Any]]:
    """Reload the declarations; return what Dagster then says of each asset's days."""
    assert stack.api.reload() is None
    keys = [{"path": list(path)} for path in (*SPEND, *HABITS)]
    nodes = stack.api.query(STALE, {"assets": keys, "days": days})["assetNodes"]
    return {"/".join(node["assetKey"]["path"]): node for node in nodes}


def what_needs_a_backfill(stack: Stack) -> dict[str, set[tuple[str, str]]]:
    """Return the assets that are not fresh, none of their days, with the causes for one of them."""
    found = {}
    for asset, node in stale(stack, [f"2020-04-0{day}" for day in range(1, 5)]).items():
        statuses = set(node["staleStatusByPartition"])
        if statuses != {"FRESH"}:
            assert statuses == {"STALE"}, node
            causes = {(c["category"], "/".join(c["key"]["path"])) for c in node["staleCauses"]}
            found[asset] = causes
    return found


def test_what_needs_a_backfill_is_what_a_change_of_the_declaration_touches(stack: Stack) -> None:
    stack.break_days({})
    april = Days.parse("2020-04-01", "2020-04-05")
    stack.finish(stack.api.launch((*SPEND, *HABITS), april))
    assert what_needs_a_backfill(stack) == {}

    said = DECLARATIONS.replace("What a customer spends.", "Other words, for the same.")
    said = said.replace("payments@example.com", "others@example.com") + "# And a comment.\n"
    said = said.replace("domain: payments", "domain: cards").replace("amount > 0", " amount  >  0 ")
    stack.declarations.write_text(said, encoding="utf-8")
    assert what_needs_a_backfill(stack) == {}

    longer = DECLARATIONS.replace("column: amount, window: 7d", "column: amount, window: 14d")
    stack.declarations.write_text(longer, encoding="utf-8")
    assert what_needs_a_backfill(stack) == {
        "tiles/spend_tiles": {("CODE", "tiles/spend_tiles")},
        "features/spend": {("CODE", "features/spend")},
    }

    stricter = DECLARATIONS.replace("allowed_lateness: 90m", "allowed_lateness: 30m")
    stack.declarations.write_text(stricter, encoding="utf-8")
    changed = what_needs_a_backfill(stack)
    assert sorted(changed) == [
        "events/payments_events",
        "features/habits",
        "features/spend",
        "tiles/habits_tiles",
        "tiles/spend_tiles",
    ]
    assert ("CODE", "events/payments_events") in changed["events/payments_events"]

    stack.declarations.write_text(DECLARATIONS, encoding="utf-8")
    assert what_needs_a_backfill(stack) == {}


def test_hours_are_built_failed_and_mended_by_the_hour(stack: Stack) -> None:
    """The location is loaded again for it: before, the partitions of this source were days."""
    stack.break_days({"events/payments": {"2020-05-02": "cut off"}})
    hourly = DECLARATIONS.replace("lateness: 90m", "lateness: 90m\n    schedule: {refresh: hourly}")
    stack.declarations.write_text(hourly, encoding="utf-8")
    plan = plan_of([stack.declarations])

    def built(start: str, end: str) -> tuple[runs.RunFollower, AssetState]:
        [run] = range_runs(plan, ["spend"], Days.parse(start, end), datetime.now(tz=UTC))
        follower = runs.RunFollower(stack.api, run, runs.launch(stack.api, run))
        for _ in runs.follow([follower]):
            pass
        state = stack.api.asset(SPEND[-1])
        assert state is not None
        return follower, state

    follower, state = built("2020-05-01T22:00", "2020-05-03T02:00")
    bad = [f"2020-05-02-{hour:02}:00" for hour in range(24)]
    good = ["2020-05-01-22:00", "2020-05-01-23:00", "2020-05-03-00:00", "2020-05-03-01:00"]
    assert follower.done == 3 * len(good)
    for path in SPEND:
        own = [r for r in follower.results() if r.asset == "/".join(path)]
        assert [r.partition for r in own if r.error] == bad
        assert [r.partition for r in own if not r.error] == good
    assert state.is_hourly
    assert state.statuses == {**dict.fromkeys(bad, "FAILED"), **dict.fromkeys(good, "MATERIALIZED")}
    assert runs.failure_lines(follower.results())[0] == "events/payments_events 2020-05-02: cut off"

    stack.break_days({})
    follower, state = built("2020-05-02", "2020-05-03")
    assert not any(result.error for result in follower.results())
    assert state.statuses == dict.fromkeys([*good, *bad], "MATERIALIZED")
    stack.declarations.write_text(DECLARATIONS, encoding="utf-8")
    assert stack.api.reload() is None
