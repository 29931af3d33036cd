"""Thirty days, two of them bad, as a platform engineer meets them: backfill, checks, alerts, lineage.

Real Spark, webserver, daemon and code server; a webhook and an OpenLineage consumer on HTTP.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.days import Days
from resources.dagster.client import DagsterApi, Materialized
from resources.endpoints import spark_remote
from resources.settings import CHECKOUT, Settings
from tests.support.dagster_stack import finished, running_dagster, wait_for
from tests.support.live.dagster_backfills import check_statuses, finish, launch, retry_run
from tests.support.live.http_receiver import Receiver, receiving
from tests.support.live.screens import browser, take

pytestmark = pytest.mark.services

EVENTS, TILES, FEATURES = (
    ("events", "payments_events"),
    ("tiles", "spend_tiles"),
    ("features", "spend"),
)
ASSETS = (EVENTS, TILES, FEATURES)
START, COUNT, ROWS = date(2024, 3, 1), 30, 400
DAYS = Days(START, START + timedelta(days=COUNT))
CUT_OFF, EMPTY_OF_AMOUNTS = date(2024, 3, 18), date(2024, 3, 24)
BAD = {CUT_OFF.isoformat(), EMPTY_OF_AMOUNTS.isoformat()}
# A cause is told once: not again for what is built of the day, nor for the day that a check holds.
CAUSES = {
    f"partition|events/payments_events||{CUT_OFF}|error",
    f"check|events/payments_events|null_rate|{EMPTY_OF_AMOUNTS}|error",
}
HOOK = "/alerts"
BUILT_S = 600
"""A real Spark on a machine that others use too."""

VIEW = """
version: millrace/v1
sources:
  - name: payments
    columns: {payment_id: int64, paid_at: timestamp, customer_id: int64, amount: float64}
    event_time: paid_at
    event_id: payment_id
    batch: {format: parquet, path: "${MILLRACE_DATA}/payments"}
entities: [{name: customer, join_key: customer_id, type: int64}]
feature_views:
  - name: spend
    entity: customer
    source: payments
    start: 2024-03-01
    owner: payments@example.com
    features:
      - {name: "payments_{window}", aggregate: count, windows: [1h, 1d]}
      - {name: amount_sum_1d, aggregate: sum, column: amount, window: 1d}
      - {name: amount_avg_1d, aggregate: avg, column: amount, window: 1d}
    checks:
      - {type: null_rate, column: amount, max: 0.1}
"""

ALERTS = """
version: millrace-alerts/v1
sinks:
  hook: {type: webhook, url: "%s"}
routes:
  - {owners: [payments@example.com], sinks: [hook]}
digest: {above: 100}
"""


@dataclass
class World:
    """Dagster over a lake of its own, and everything that hears of it."""

    api: DagsterApi
    data: Path
    receiver: Receiver

    def messages(self) -> list[dict[str, Any]]:
        return [m for body in self.receiver.bodies(HOOK) for m in body["messages"]]

    def errors(self) -> dict[str, list[str]]:
        """Return what was told of each condition that is an error, each transition once."""
        told: dict[str, dict[str, str]] = {}
        for message in self.messages():
            if message["severity"] == "error":
                told.setdefault(message["fingerprint"], {})[message["key"]] = message["status"]
        return {name: list(changes.values()) for name, changes in told.items()}

    def lineage(self) -> list[dict[str, Any]]:
        return [b for path in ("/lineage",) for b in self.receiver.bodies(path)]


@pytest.fixture(scope="module")
def world(spark_stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("trusted")
    (root / "views").mkdir()
    (root / "views" / "payments.yaml").write_text(VIEW)
    for day in DAYS:
        write_day(root / "data", day)
    with receiving() as receiver:
        (root / "alerts.yaml").write_text(ALERTS % f"{receiver.url}{HOOK}")
        env = {
            "MILLRACE_HOME": str(root / "home"),
            "MILLRACE_LAKE": str(root / "lake"),
            "MILLRACE_DATA": str(root / "data"),
            "MILLRACE_VIEWS": str(root / "views"),
            "MILLRACE_SPARK_REMOTE": spark_remote(spark_stack),
            "MILLRACE_ALERTS": str(root / "alerts.yaml"),
            "MILLRACE_LINEAGE": f"{receiver.url}/lineage",
        }
        with running_dagster(root, "jobs.definitions", env) as api:
            yield World(api, root / "data", receiver)


def write_day(data: Path, day: date, *, has_amounts: bool = True) -> Path:
    """Write the file of a day: steady traffic of 40 customers."""
    noon_us = (day - date(1970, 1, 1)).days * 86_400_000_000
    number = (day - START).days
    ids, draw = range(number * ROWS, (number + 1) * ROWS), random.Random(number)
    amounts = [draw.randrange(100, 10_000) / 100 if has_amounts else None for _ in ids]
    table = pa.table(
        {
            "payment_id": pa.array(ids, pa.int64()),
            "paid_at": pa.array(
                [noon_us + (i % ROWS) * (86_400_000_000 // ROWS) for i in ids],
                pa.timestamp("us", tz="UTC"),
            ),
            "customer_id": pa.array([draw.randrange(40) for _ in ids], pa.int64()),
            "amount": pa.array(amounts, pa.float64()),
        }
    )
    path = data / "payments" / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def cut_off(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_two_bad_days_of_thirty_are_named_checked_told_once_and_healed(world: World) -> None:
    cut_off(world.data / "payments" / f"{CUT_OFF}.parquet")
    write_day(world.data, EMPTY_OF_AMOUNTS, has_amounts=False)

    first = finish(world.api, launch(world.api, ASSETS, DAYS), deadline_s=BUILT_S)
    assert first.counts == dict.fromkeys(ASSETS, (COUNT, COUNT - 2, 2))
    for asset in ASSETS:
        state = world.api.asset(asset)
        assert state is not None
        failed = {day for day, status in state.statuses.items() if status == "FAILED"}
        assert failed == BAD, asset

    checks = check_statuses(world.api, EVENTS)
    wrong = {d for d, status in checks["null_rate"].items() if status == "FAILED"}
    assert wrong == {EMPTY_OF_AMOUNTS.isoformat()}
    judged = {d for d, status in checks["null_rate"].items() if status == "SUCCEEDED"}
    assert judged == {day.isoformat() for day in DAYS} - BAD
    # Of the day that could not be read no check says anything: there was nothing to judge.
    said = {name: days.get(CUT_OFF.isoformat(), "MISSING") for name, days in checks.items()}
    assert said == dict.fromkeys(checks, "MISSING")

    opened = wait_for("an alert of each bad day", lambda: settled(world, "opened"))
    assert opened == {key: ["opened"] for key in CAUSES}
    assert_pictures(world, first.id)

    write_day(world.data, CUT_OFF)
    write_day(world.data, EMPTY_OF_AMOUNTS)
    [run] = first.runs
    again = retry_run(world.api, run)
    second = finished(world.api, again, deadline_s=BUILT_S)
    assert second.status == "SUCCESS"
    built: dict[tuple[str, ...], set[str]] = {}
    for event in second.events:
        if isinstance(event, Materialized) and event.partition:
            built.setdefault(tuple(event.asset), set()).add(event.partition)
    assert built[EVENTS] == built[TILES] == BAD
    # Days whose windows reach into the two are restated with them.
    reached = {str(date.fromisoformat(day) + timedelta(n)) for day in BAD for n in range(3)}
    assert BAD < built[FEATURES] <= reached
    healed_days = check_statuses(world.api, EVENTS)["null_rate"]
    assert healed_days == {day.isoformat(): "SUCCEEDED" for day in DAYS}

    healed = wait_for("every alert resolved", lambda: settled(world, "resolved"))
    assert healed == {key: ["opened", "resolved"] for key in CAUSES}
    keys = Counter(message["key"] for message in world.messages())
    assert set(keys.values()) == {1}
    assert_lineage(world)
    assert_run_pictured(world, again)


def settled(world: World, change: str) -> dict[str, list[str]] | None:
    """Return what was told of errors, once every cause has come to a change."""
    told = world.errors()
    is_settled = told.keys() >= CAUSES and all(changes[-1] == change for changes in told.values())
    return told if is_settled else None


def assert_lineage(world: World) -> None:
    """Every run that was begun has ended once, and the edges are those declared."""

    def settled() -> dict[str, list[str]] | None:
        by_run: dict[str, list[str]] = {}
        for event in world.lineage():
            if "run" in event:
                by_run.setdefault(event["run"]["runId"], []).append(event["eventType"])
        ends = {"COMPLETE", "FAIL", "ABORT"}
        is_paired = all(
            types[0] == "START" and sum(t in ends for t in types) == 1 for types in by_run.values()
        )
        return by_run if is_paired and by_run else None

    wait_for("lineage of every run", settled)
    edges = {
        (Path(read["name"]).name, Path(written["name"]).parts[-2:])
        for event in world.lineage()
        for read in event.get("inputs", [])
        for written in event.get("outputs", [])
    }
    assert ("payments", ("events", "payments")) in edges
    assert ("payments", ("spend", "v1")) in edges


def assert_pictures(world: World, backfill: str) -> None:
    """Take the pictures of the documentation; they are kept if MILLRACE_KEEP_SCREENS is set."""
    if browser() is None:
        return
    base = world.api.url
    pages = {
        "view": f"{base}/assets/features/spend",
        "failing-check": f"{base}/assets/events/payments_events?view=checks&checkDetail=null_rate",
        "backfill": f"{base}/runs/b/{backfill}",
    }
    texts = {
        "view": "spend",
        "failing-check": "null_rate",
        "backfill": backfill,
    }
    keep(take(pages, world.data, texts=texts, clicks={"failing-check": "over_time"}))


def assert_run_pictured(world: World, run: str) -> None:
    """Take the picture of the run that was executed again from failure."""
    if browser() is not None:
        page = {"run": f"{world.api.url}/runs/{run}?logs=day(s)"}
        keep(take(page, world.data, texts={"run": "are left"}, clicks={}))


def keep(taken: Mapping[str, Path]) -> None:
    for name, path in taken.items():
        assert path.stat().st_size > 20_000, name
        if os.environ.get("MILLRACE_KEEP_SCREENS"):
            shutil.copy(path, CHECKOUT / "docs" / "screens" / path.name)
