"""The code location: its assets, jobs and schedules, what it imports, and what faults do to it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from feature_assets.timing import complete_day, daily_cron
from jobs.definitions import build_definitions, defs
from millrace.durations import HOUR_MS
from resources.settings import CHECKOUT, settings_from_env
from tests.support.fake_offline import FakeOffline, payments_there, plan_in
from tests.support.many_views import write_views

HEAVY = (
    "pyspark",
    "deltalake",
    "great_expectations",
    "kubernetes",
    "redis",
    "confluent_kafka",
    "pandas",
    "pyarrow",
    "duckdb",
    "openlineage",
)
LOAD_LIMIT_S = 3.0
MANY_LOAD_LIMIT_S = 6.0
LOAD = f"""
import json, sys, time
from jobs.definitions import defs
defs().get_repository_def()
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print(json.dumps({{"heavy": heavy, "cpu_s": time.process_time()}}))
"""
LOAD_AND_SEND = """
import json, time
from dagster._core.remote_representation.external_data import RepositorySnap
from jobs.definitions import defs
sent = RepositorySnap.from_def(defs().get_repository_def())
groups = {node.group_name for node in sent.asset_nodes}
print(json.dumps({"groups": len(groups), "cpu_s": time.process_time()}))
"""


@pytest.fixture
def location(tmp_path: Path) -> dg.Definitions:
    settings = settings_from_env({"MILLRACE_DATA": str(tmp_path), "MILLRACE_LAKE": "/lake"})
    return build_definitions(plan_in(tmp_path), settings, offline=FakeOffline())


def spec(location: dg.Definitions, *path: str) -> dg.AssetSpec:
    return location.resolve_asset_graph().get(dg.AssetKey(path)).to_asset_spec()


def test_keys_jobs_and_schedules_are_these(location: dg.Definitions) -> None:
    keys = location.resolve_asset_graph().get_all_asset_keys()
    assert sorted(key.to_user_string() for key in keys) == [
        "dead_letters/payments_dead_letters",
        "events/payments_events",
        "features/habits",
        "features/spend",
        "online/habits_online",
        "online/spend_online",
        "raw/payments_files",
        "tiles/habits_tiles",
        "tiles/spend_tiles",
    ]
    jobs = {
        job.name: sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
        for job in location.resolve_all_job_defs()
        if not job.name.startswith("__")
    }
    assert jobs == {
        "backfill_spend": ["events/payments_events", "features/spend", "tiles/spend_tiles"],
        "backfill_habits": ["events/payments_events", "features/habits", "tiles/habits_tiles"],
        "daily_payments": [
            "events/payments_events",
            "features/habits",
            "features/spend",
            "tiles/habits_tiles",
            "tiles/spend_tiles",
        ],
        "build_history": [],
        "deliver_alerts": [],
        "prune_history": [],
        "report_built_days": [],
        "upload_views": [],
        "send_lineage_now": [],
        "stream_actions": [],
        "stream_deploy": [],
        "stream_restart": [],
        "stream_stop": [],
    }
    repository = location.get_repository_def()
    assert {s.name: (s.cron_schedule, s.default_status) for s in repository.schedule_defs} == {
        "daily_payments": ("30 1 * * *", dg.DefaultScheduleStatus.RUNNING),
        "prune_history": ("20 3 * * *", dg.DefaultScheduleStatus.RUNNING),
    }


def test_every_job_runs_its_steps_in_one_process(location: dg.Definitions) -> None:
    executors = {job.executor_def.name for job in location.resolve_all_job_defs()}
    assert executors == {"in_process"}


def test_an_asset_says_what_it_is_and_who_owns_it(location: dg.Definitions) -> None:
    features = spec(location, "features", "spend")
    assert features.owners == ["payments@example.com"]
    assert features.tags["domain"] == "payments"
    assert features.tags["purpose_of_use"] == "fraud_risk"
    assert features.kinds == {"features", "spark", "delta"}
    assert features.group_name == "spend"
    assert features.metadata["dagster/uri"] == "/lake/features/spend"
    description = features.description or ""
    assert description.startswith("What a customer spends.")
    row = "| `amount_7d` | `sum(amount)` | last 7d, tail moves by 1h | decimal(22,2) | Money out. |"
    assert row in description


def test_an_owner_dagster_would_refuse_stays_in_the_metadata(location: dg.Definitions) -> None:
    habits = spec(location, "features", "habits")
    assert list(habits.owners) == []
    assert habits.metadata["owner"] == "nobody in particular"


def test_columns_and_their_lineage_are_declared(location: dg.Definitions) -> None:
    metadata: Any = spec(location, "features", "spend").metadata
    columns = {c.name: c.type for c in metadata["dagster/column_schema"].columns}
    assert columns == {
        "customer_id": "int64",
        "event_time": "timestamp",
        "payments_1h": "int64",
        "amount_7d": "decimal(22,2)",
        "feature_version": "string",
        "event_date": "date",
    }
    lineage = metadata["dagster/column_lineage"].deps_by_column
    assert {(d.asset_key.to_user_string(), d.column_name) for d in lineage["amount_7d"]} == {
        ("events/payments_events", "amount"),
        ("events/payments_events", "customer_id"),
        ("events/payments_events", "_event_ms"),
    }


def test_all_assets_of_a_source_share_one_set_of_days(location: dg.Definitions) -> None:
    graph = location.resolve_asset_graph()
    found = {
        str(graph.get(key).partitions_def)
        for key in graph.get_all_asset_keys()
        if not graph.get(key).is_external
    }
    assert found == {"Daily, starting 2020-01-01 UTC."}


def load(code: str, limit_s: float, **env: str) -> dict[str, Any]:
    """Load the location in a process of its own until it is within its limit, three times at most.

    The first may have to compile everything, and a busy machine makes CPU time longer than it is.
    """
    report: dict[str, Any] = {}
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=CHECKOUT,
            env=os.environ | env,
            check=True,
            capture_output=True,
            text=True,
        )
        report = json.loads(done.stdout.splitlines()[-1])
        if report["cpu_s"] < limit_s:
            break
    return report


def test_the_location_loads_fast_and_imports_nothing_heavy() -> None:
    report = load(LOAD, LOAD_LIMIT_S)
    assert report["heavy"] == []
    assert report["cpu_s"] < LOAD_LIMIT_S


def test_many_views_load_in_seconds(tmp_path: Path) -> None:
    """The location with what it sends the webserver of itself, as a code server does it."""
    write_views(tmp_path / "views", views=48, features=454)
    places = {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_DATA": str(tmp_path)}
    views = {"MILLRACE_VIEWS": str(tmp_path / "views")}
    report = load(LOAD_AND_SEND, MANY_LOAD_LIMIT_S, **places, **views)
    assert report["groups"] >= 48
    assert report["cpu_s"] < MANY_LOAD_LIMIT_S


def test_a_faulty_file_is_reported_and_the_others_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_in(tmp_path)
    (tmp_path / "broken.yaml").write_text(
        "version: millrace/v1\n"
        "feature_views:\n"
        "  - {name: lost, entity: custmer, source: payments, start: 2020-01-01, features: []}\n"
    )
    monkeypatch.setenv("MILLRACE_VIEWS", str(tmp_path))
    loaded = defs()
    names = {job.name for job in loaded.resolve_all_job_defs()}
    assert {"backfill_spend", "backfill_habits"} <= names
    assert "backfill_lost" not in names
    faults = str((loaded.metadata or {})["faults"].value)
    assert "broken.yaml:3" in faults
    assert "customer" in faults


@pytest.mark.parametrize(
    ("lateness_ms", "cron"),
    [(0, "0 0 * * *"), (HOUR_MS, "0 1 * * *"), (90_001, "2 0 * * *"), (26 * HOUR_MS, "0 2 * * *")],
)
def test_a_schedule_ticks_when_the_last_late_event_has_come(lateness_ms: int, cron: str) -> None:
    assert daily_cron(lateness_ms) == cron


@pytest.mark.parametrize(
    ("now", "lateness_ms", "day"),
    [
        (datetime(2020, 1, 9, 1, 0, tzinfo=UTC), HOUR_MS, date(2020, 1, 8)),
        (datetime(2020, 1, 9, 0, 59, tzinfo=UTC), HOUR_MS, date(2020, 1, 7)),
        (datetime(2020, 1, 9, 2, 0, tzinfo=UTC), 26 * HOUR_MS, date(2020, 1, 7)),
    ],
)
def test_the_newest_complete_day_is_the_one_no_event_can_join(
    now: datetime, lateness_ms: int, day: date
) -> None:
    assert complete_day(now, lateness_ms) == day


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp() as instance:
        yield instance


def tick(location: dg.Definitions, at: datetime, instance: dg.DagsterInstance) -> Any:
    schedule = location.resolve_schedule_def("daily_payments")
    context = dg.build_schedule_context(
        instance, scheduled_execution_time=at, repository_def=location.get_repository_def()
    )
    return schedule.evaluate_tick(context)


def test_a_tick_asks_for_the_newest_complete_day_once(
    location: dg.Definitions, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    payments_there(tmp_path)
    done = tick(location, datetime(2020, 1, 9, 1, 30, tzinfo=UTC), instance)
    [request] = done.run_requests
    assert request.partition_key == "2020-01-08"
    assert request.run_key == "2020-01-08"


def test_a_tick_is_skipped_with_the_reason_when_the_files_are_not_there(
    location: dg.Definitions, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    done = tick(location, datetime(2020, 1, 9, 1, 30, tzinfo=UTC), instance)
    assert not done.run_requests
    assert str(tmp_path / "payments.parquet") in (done.skip_message or "")


def test_a_tick_before_the_start_of_history_is_skipped(
    location: dg.Definitions, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    payments_there(tmp_path)
    done = tick(location, datetime(2020, 1, 1, 1, 30, tzinfo=UTC), instance)
    assert "2019-12-31 is before the start" in (done.skip_message or "")


@pytest.mark.parametrize("name", ["dagster.yaml", "production.yaml"])
def test_every_setting_of_an_instance_is_one_dagster_knows(name: str) -> None:
    import yaml
    from dagster._config import validate_config
    from dagster._core.instance.config import dagster_instance_config_schema

    document = yaml.safe_load((CHECKOUT / "dagster_home" / name).read_text(encoding="utf-8"))
    assert validate_config(dagster_instance_config_schema(), document).success
    assert os.fspath(CHECKOUT) not in str(document)
