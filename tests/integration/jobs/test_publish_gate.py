"""Days judged after a build on real Spark: what is profiled, what is held back, who sees it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from checks.quality.expectations import expectation_judge
from checks.quality.gate import JudgedTable, judge_again, judge_build
from checks.quality.judgement import JudgedDay, Judgement
from checks.quality.profiles_table import read_profiles
from feature_assets.judged_lake import JudgedLake
from jobs.definitions import build_definitions
from millrace.days import Days
from millrace.plan import Plan, SourcePlan, ViewPlan
from offline.tables.history import find_history
from offline.tables.partition_log import AWAITS_CHECKS, quarantined_days, read_partition_log
from resources.declarations import load_plan
from resources.lake.delta import table_version
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests.support.lake_builds import LakeBuilds
from tests.support.offline_contract import check_offline_tables

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 4)
DAYS = Days(FIRST, FIRST + timedelta(days=12))
BAD = FIRST + timedelta(days=10)
NOW_MS = Days(FIRST, FIRST + timedelta(days=400)).end_ms
A_DAY = 240

VIEWS = """
version: millrace/v1
sources:
  - name: orders
    columns: {id: int64, at: timestamp, shop: string, cents: int64, weight: float64}
    event_time: at
    event_id: id
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities:
  - {name: shop, join_key: shop, type: string}
feature_views:
  - name: shop_orders
    entity: shop
    source: orders
    start: 2024-03-04
    owner: shops@example.com
    features:
      - {name: n_1d, aggregate: count, window: 1d}
      - {name: weight_avg_1d, aggregate: avg, column: weight, window: 1d}
    checks:
      - {type: null_rate, column: weight, max: 0.5}
      - {type: expectation, column: weight, expect: expect_column_values_to_be_between, arguments: {column: null_rate, max_value: 0.5}, severity: error}
      - {type: expectation, column: shop, expect: expect_column_values_to_be_in_set, mode: rows, arguments: {value_set: [shop 0, shop 1, shop 2, shop 3]}, severity: warn}
"""


def orders(*, spoilt: bool) -> list[dict[str, Any]]:
    """Twelve days alike but for the eleventh, where most weights are missing if it is spoilt."""
    rows = []
    for n, day in enumerate(DAYS):
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        for i in range(A_DAY):
            missing = spoilt and day == BAD and i % 5 > 0
            rows.append(
                {
                    "id": n * A_DAY + i,
                    "at": midnight + timedelta(minutes=6 * i),
                    "shop": f"shop {i * i % 4}" if not spoilt or i or day != BAD else "shop 9",
                    "cents": (i * 37 + n) % 500,
                    "weight": None if missing or i % 60 == 0 else 10 + (i * 7 + n) % 13 / 4,
                }
            )
    return rows


def write_orders(settings: Settings, rows: Sequence[dict[str, Any]]) -> None:
    folder = Path(str(settings.data))
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(
        rows,
        schema=pa.schema(
            {
                "id": pa.int64(),
                "at": pa.timestamp("us", tz="UTC"),
                "shop": pa.string(),
                "cents": pa.int64(),
                "weight": pa.float64(),
            }
        ),
    )
    pq.write_table(table, folder / "orders.parquet")


@pytest.fixture
def plan(settings: Settings, tmp_path: Path) -> Plan:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "orders.yaml").write_text(VIEWS)
    return load_plan(settings)


def build_events(settings: Settings, plan: Plan, days: Days = DAYS) -> BuildReport:
    source = plan.sources["orders"]
    store = LakeBuilds(settings, gated=True)
    return store.build_events(source, plan.views_of("orders"), days, progress=lambda _: None)


def events_of(plan: Plan) -> tuple[SourcePlan, JudgedTable]:
    source = plan.sources["orders"]
    return source, JudgedTable.of_source(source, plan.views_of("orders"))


def judge(settings: Settings, table: JudgedTable, report: BuildReport, **told: Any) -> Judgement:
    return judge_build(settings, table, report, lambda _: None, now_ms=NOW_MS, **told)


def held(settings: Settings, table: str) -> dict[date, str]:
    return quarantined_days(read_partition_log(settings, table))


def test_days_are_hidden_until_judged_and_a_bad_one_stays_hidden(
    settings: Settings, plan: Plan
) -> None:
    write_orders(settings, orders(spoilt=True))
    source, table = events_of(plan)
    view = plan.view("shop_orders")
    report = build_events(settings, plan)
    assert held(settings, "events/orders") == dict.fromkeys(DAYS, AWAITS_CHECKS)

    with expectation_judge() as expectations:
        found = judge(settings, table, report, expectations=expectations, local_rows=0)
    assert list(found.held) == [BAD]
    assert "null_rate of weight" in found.held[BAD]
    assert held(settings, "events/orders") == found.held
    told = {f.rule.name: f for judged in found.days if judged.day == BAD for f in judged.findings}
    assert told["generated"].verdict == "passed", told["generated"].actual
    expectations_found = [f for f in told.values() if f.rule.type == "expectation"]
    assert {f.column: f.verdict for f in expectations_found} == {
        None: "passed",
        "weight": "failed",
        "shop": "failed",
    }
    assert "shop 9" in next(f.actual for f in expectations_found if f.column == "shop")

    store = LakeBuilds(settings, gated=True)
    features = store.build_features(view, DAYS, progress=lambda _: None)
    assert [o.day for o in features.failed] == [BAD]
    assert "is held back: null_rate of weight" in str(features.failed[0].error)
    asked = pa.array([DAYS.end_ms - 1], pa.int64())
    history = find_history(settings, view, asked)
    assert BAD not in history.days
    judged = judge(settings, JudgedTable.of_view(view, "v1"), features)
    assert set(judged.held) <= {BAD + timedelta(days=1)}
    assert all(f.verdict != "failed" for f in judged.days[2].findings)

    mend(settings, plan, table)
    assert held(settings, "events/orders") == {}
    assert BAD in find_history(settings, view, asked).days
    assert source.name == "orders"


def mend(settings: Settings, plan: Plan, table: JudgedTable) -> None:
    write_orders(settings, orders(spoilt=False))
    report = build_events(settings, plan, Days(BAD, BAD + timedelta(days=1)))
    found = judge(settings, table, report)
    assert [judged.day for judged in found.days] == [BAD]
    assert found.held == {}


def test_a_run_may_be_told_to_publish_what_its_checks_hold_back(
    settings: Settings, plan: Plan
) -> None:
    write_orders(settings, orders(spoilt=True))
    _, table = events_of(plan)
    report = build_events(settings, plan)
    found = judge(settings, table, report, publish=True)
    assert held(settings, "events/orders") == {}
    assert [judged.day for judged in found.days if judged.was_forced] == [BAD]


def test_built_days_are_judged_again_by_the_rules_of_now_and_nothing_is_published_or_held_by_it(
    settings: Settings, plan: Plan
) -> None:
    write_orders(settings, orders(spoilt=True))
    _, table = events_of(plan)
    first = judge(settings, table, build_events(settings, plan))
    assert list(first.held) == [BAD]
    before = held(settings, "events/orders")
    stored = table_version(settings, "profiles/events/orders")

    same = judge_again(settings, table, None)
    assert [verdicts(d) for d in same.days] == [verdicts(d) for d in first.days]

    rules = tuple(
        replace(r, arguments={**r.arguments, "min": 10_000}) if r.type == "rows" else r
        for r in table.rules
    )
    stricter = judge_again(settings, replace(table, rules=rules), Days(BAD, DAYS.end))
    assert [d.day for d in stricter.days] == [day for day in DAYS if day >= BAD]
    assert all(
        f.verdict == "failed" for d in stricter.days for f in d.findings if f.rule.type == "rows"
    )
    assert held(settings, "events/orders") == before
    assert table_version(settings, "profiles/events/orders") == stored

    changed = replace(table, fingerprint="another")
    assert judge_again(settings, changed, None).days == ()


def test_profiles_are_the_same_from_spark_and_from_this_process_and_are_kept(
    settings: Settings, plan: Plan
) -> None:
    write_orders(settings, orders(spoilt=False))
    _, table = events_of(plan)
    report = build_events(settings, plan)
    notes: list[str] = []

    def judged(local_rows: int) -> Judgement:
        return judge_build(
            settings, table, report, notes.append, now_ms=NOW_MS, local_rows=local_rows
        )

    by_spark = judged(local_rows=0)
    stored = read_profiles(settings, "events/orders", list(DAYS))
    assert [without_sketches(s.profile) for s in stored.values()] == [
        without_sketches(d.profile) for d in by_spark.days
    ]
    for judged_day in by_spark.days:
        kept = {f["rule"]: f for f in stored[judged_day.day].findings}
        assert kept == {f.rule.name: f.document() for f in judged_day.findings}
    again = judged(local_rows=0)
    assert sum("profiling" in note for note in notes) == 1, "the files have not changed"
    assert [verdicts(d) for d in again.days] == [verdicts(d) for d in by_spark.days]

    delete_profiles(settings)
    here = judged(local_rows=1_000_000)
    assert [without_sketches(d.profile) for d in here.days] == [
        without_sketches(d.profile) for d in by_spark.days
    ]


def verdicts(judged: JudgedDay) -> list[tuple[str, str]]:
    return [(f.rule.name, f.verdict) for f in judged.findings]


def delete_profiles(settings: Settings) -> None:
    DeltaTable(f"{settings.lake}/profiles/events/orders").delete()


def without_sketches(profile: Any) -> Any:
    columns = {
        name: replace(column, kll=None, hll=None, mean=round(column.mean or 0, 6), m2=None)
        for name, column in profile.columns.items()
    }
    return replace(profile, columns=columns)


def test_a_day_that_is_not_over_is_published_unjudged(settings: Settings, plan: Plan) -> None:
    write_orders(settings, orders(spoilt=True))
    _, table = events_of(plan)
    report = build_events(settings, plan)
    noon_ms = Days(BAD, BAD + timedelta(days=1)).start_ms + 12 * 3_600_000
    found = judge_build(settings, table, report, lambda _: None, now_ms=noon_ms)
    assert found.open_days == (BAD, BAD + timedelta(days=1))
    assert held(settings, "events/orders") == {}


def test_the_lake_keeps_what_steps_rely_on(settings: Settings, plan: Plan) -> None:
    write_orders(settings, orders(spoilt=False))
    lake = JudgedLake(settings)
    with lake.opened:
        check_offline_tables(lake, plan.sources["orders"], plan.views_of("orders"), DAYS)


def test_a_view_of_its_own_keeps_its_name(plan: Plan) -> None:
    view: ViewPlan = plan.view("shop_orders")
    assert JudgedTable.of_view(view, "v3").name == "features/shop_orders/v3"


def test_a_dagster_run_over_the_real_lake_names_the_bad_day_and_shows_the_good_ones(
    settings: Settings, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_orders(settings, orders(spoilt=True))
    for name, value in {
        "MILLRACE_HOME": settings.home,
        "MILLRACE_LAKE": settings.lake,
        "MILLRACE_DATA": settings.data,
        "MILLRACE_VIEWS": settings.views[0],
    }.items():
        monkeypatch.setenv(name, str(value))
    location = build_definitions(plan, settings)
    key = dg.AssetKey(["events", "orders_events"])
    with dg.DagsterInstance.ephemeral() as instance:
        result = location.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[key],
            tags={
                "dagster/asset_partition_range_start": DAYS.start.isoformat(),
                "dagster/asset_partition_range_end": DAYS.last.isoformat(),
            },
            raise_on_error=False,
        )
        assert not result.success
        check = dg.AssetCheckKey(key, "null_rate")
        days: Any = location.resolve_asset_graph().get(key).partitions_def
        state = instance.event_log_storage.get_asset_check_state([(check, days)])[check]
        shown = {
            status.value: [date.fromisoformat(d) for d in subset.subset_value.get_partition_keys()]
            for status, subset in state.subsets.items()
            if not subset.is_empty
        }
        history = instance.event_log_storage.get_asset_check_execution_history(check, limit=50)
    assert shown["FAILED"] == [BAD]
    assert sorted(shown["SUCCEEDED"]) == [day for day in DAYS if day != BAD]
    told = {record.partition: record.event for record in history}[BAD.isoformat()]
    assert told is not None
    assert told.dagster_event is not None
    metadata = told.dagster_event.asset_check_evaluation_data.metadata
    assert "data:image/png;base64," in str(metadata["over_time"].value)
    assert list(held(settings, "events/orders")) == [BAD]
