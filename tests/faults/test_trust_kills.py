"""Daemon, webserver, sink and lineage consumer are killed at random while partitions fail and heal.

Everything is real: Spark, the stack's Dagster under its supervisor, runs launched by GraphQL, and
two receivers on HTTP. Each is struck at least once; ``MILLRACE_TEST_MINUTES`` says for how long
at least, and 10 is the full run.
"""

import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alerts.outbox import Outbox
from alerts.state import AlertStore
from lineage.outbox import Outbox as LineageOutbox
from lineage.shipping import standing
from millrace.days import Days
from resources.dagster.client import AssetPath, DagsterApi
from resources.endpoints import spark_remote
from resources.settings import Settings, settings_from_env
from stack.files import StackFiles
from tests.conftest import run_millrace
from tests.support.dagster_stack import wait_for
from tests.support.live.durable_receiver import ReceiverProcess
from tests.support.live.struck_dagster import (
    DagsterProgram,
    Evaluation,
    Run,
    Striker,
    asset_runs,
    build,
    evaluations,
)
from tests.support.ports import free_port

pytestmark = [pytest.mark.services, pytest.mark.soak]

MINUTES = float(os.environ.get("MILLRACE_TEST_MINUTES", "0.5"))
SEED = int(os.environ.get("MILLRACE_TEST_SEED", "5"))
DRAIN_S = 900.0
"""A delivery whose run was lost with the daemon is given up after three minutes, and tried anew."""

EVENTS: tuple[AssetPath, ...] = (("events", "payments_events"),)
ASSETS: tuple[AssetPath, ...] = (*EVENTS, ("tiles", "spend_tiles"), ("features", "spend"))
START, COUNT, ROWS = date(2024, 3, 1), 12, 200
GOOD, CUT_OFF, EMPTY = "good", "cut off", "empty of amounts"
ENDS = frozenset({"COMPLETE", "FAIL", "ABORT"})

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
      - {name: payments_1d, aggregate: count, window: 1d}
      - {name: amount_sum_1d, aggregate: sum, column: amount, window: 1d}
    checks:
      - {type: null_rate, column: amount, max: 0.1}
"""

ALERTS = """
version: millrace-alerts/v1
sinks:
  hook: {{type: webhook, url: "{url}/hook"}}
  platform: {{type: webhook, url: "{url}/platform"}}
routes:
  - {{owners: [payments@example.com], sinks: [hook]}}
fallback: [hook]
fold: {{enabled: false}}
operators: [platform]
"""

log = logging.getLogger(__name__)


def write_day(data: Path, day: date, kind: str) -> None:
    """Write the file of a day: steady traffic of twenty customers."""
    midnight_us = (day - date(1970, 1, 1)).days * 86_400_000_000
    ids, draw = range(ROWS), random.Random(day.toordinal())
    at = [midnight_us + i * (86_400_000_000 // ROWS) for i in ids]
    amounts = [draw.randrange(100, 10_000) / 100 for _ in ids]
    table = pa.table(
        {
            "payment_id": pa.array([(day - START).days * ROWS + i for i in ids], pa.int64()),
            "paid_at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array([draw.randrange(20) for _ in ids], pa.int64()),
            "amount": pa.array([None] * ROWS if kind == EMPTY else amounts, pa.float64()),
        }
    )
    path = data / "payments" / f"{day}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    if kind == CUT_OFF:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])


@dataclass
class Truth:
    """What the driver did, and what must follow from it; it knows nothing of what was told.

    Attributes:
        changes: condition to its transitions, in order. Errors follow from the files alone; warnings
            are learned from the days before, so they are taken from Dagster's own event log.
        rounds: of each round the assets it built, and the days and how each of them was.
    """

    changes: dict[str, list[str]] = field(default_factory=dict)
    rounds: list[tuple[Sequence[AssetPath], dict[date, str]]] = field(default_factory=list)

    def note(self, assets: Sequence[AssetPath], kinds: dict[date, str]) -> None:
        """Note a round that was built."""
        self.rounds.append((assets, kinds))
        for day, kind in kinds.items():
            # A day that is broken in one way says nothing of the other; a good one heals both.
            is_well = {
                f"partition|events/payments_events||{day}|error": {GOOD: True, CUT_OFF: False},
                f"check|events/payments_events|null_rate|{day}|error": {GOOD: True, EMPTY: False},
            }
            for name, by_kind in is_well.items():
                if kind in by_kind:
                    self._set(name, is_ok=by_kind[kind])

    def _set(self, name: str, *, is_ok: bool) -> None:
        changes = self.changes.get(name, [])
        if is_ok == (bool(changes) and changes[-1] == "opened"):
            self.changes[name] = [*changes, "resolved" if is_ok else "opened"]

    def note_warnings(self, found: Iterable[Evaluation]) -> None:
        """Note what checks warned of; every one that failed as an error must be known already."""
        errors = Truth()
        for one in found:
            name = f"check|{one.check}|{one.day}"
            self._set(f"{name}|warn", is_ok=one.failed_as != "warn")
            errors._set(f"{name}|error", is_ok=one.failed_as != "error")
        known = {n: c for n, c in self.changes.items() if n.startswith("check|")}
        assert errors.changes == {n: c for n, c in known.items() if n.endswith("|error")}

    @property
    def count(self) -> int:
        return sum(len(changes) for changes in self.changes.values())

    def lineage_of(self, run: Run, number: int) -> dict[str, list[str]]:
        """Return the jobs of a Dagster run, each with its events."""
        assets, days = self.rounds[number]
        kinds = set(days.values())
        ends = {"dagster/asset_job": "COMPLETE" if run.status == "SUCCESS" else "FAIL"}
        ends["events/payments"] = "COMPLETE" if kinds == {GOOD} else "FAIL"
        if kinds - {CUT_OFF}:
            ends["check/events/payments"] = "COMPLETE"
        if GOOD in kinds and assets == ASSETS:
            built = ("tiles/spend", "features/spend", "check/features/spend/v1")
            ends |= dict.fromkeys(built, "COMPLETE")
        return {job: ["START", end] for job, end in ends.items()}


@dataclass
class World:
    """A stack's Dagster over a lake of its own, and the two processes that hear of it."""

    root: Path
    settings: Settings
    sink: ReceiverProcess
    consumer: ReceiverProcess
    truth: Truth = field(default_factory=Truth)
    built: dict[str, int] = field(default_factory=dict)

    @property
    def api(self) -> DagsterApi:
        record = StackFiles(self.settings.home).read_records()["dagster"]
        return DagsterApi(record.url)

    def round(self, kinds: dict[date, str], assets: Sequence[AssetPath] = ASSETS) -> None:
        """Put files of these kinds there and build their days, which are neighbours."""
        number = len(self.truth.rounds)
        for day, kind in kinds.items():
            write_day(self.root / "data", day, kind)
        days = Days(min(kinds), max(kinds) + timedelta(days=1))
        self.built |= dict.fromkeys(build(self.api, assets, days, number), number)
        self.truth.note(assets, kinds)
        log.info("round %d: %s, %d transitions", number, [*kinds.values()], self.truth.count)

    def messages(self, path: str) -> list[dict[str, Any]]:
        """Return what the sink took at a path, each delivery once."""
        posts = [one for one in self.sink.posts() if one.path == path and not one.is_again]
        return [message for post in posts for message in post.body["messages"]]

    def events(self) -> list[dict[str, Any]]:
        """Return what the lineage consumer took, each event once."""
        return [one.body for one in self.consumer.posts() if not one.is_again]


@pytest.fixture
def world(spark_stack: Settings, tmp_path: Path) -> Iterator[World]:
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "payments.yaml").write_text(VIEW)
    sink, consumer = (
        ReceiverProcess(free_port(), tmp_path / f"{name}.jsonl", os.environ)
        for name in ("sink", "consumer")
    )
    (tmp_path / "alerts.yaml").write_text(ALERTS.format(url=sink.url))
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    env |= {
        "MILLRACE_HOME": str(tmp_path / "home"),
        "MILLRACE_DATA": str(tmp_path / "data"),
        "MILLRACE_VIEWS": str(tmp_path / "views"),
        "MILLRACE_SPARK_REMOTE": spark_remote(spark_stack),
        "MILLRACE_ALERTS": str(tmp_path / "alerts.yaml"),
        "MILLRACE_LINEAGE": f"{consumer.url}/lineage",
        "no_proxy": "127.0.0.1",
    }
    try:
        sink.start()
        consumer.start()
        run_millrace("up", "dagster", env=env)
        yield World(tmp_path, settings_from_env(env), sink, consumer)
    finally:
        run_millrace("down", env=env)
        sink.kill()
        consumer.kill()


def days_of(chance: random.Random) -> dict[date, str]:
    """Choose some neighbouring days, and how each of them is."""
    first = chance.randrange(COUNT - 2)
    length = chance.randint(min(4, COUNT - first), COUNT - first)
    kinds = chance.choices([GOOD, CUT_OFF, EMPTY], [4, 3, 3], k=length)
    return {START + timedelta(days=first + i): kind for i, kind in enumerate(kinds)}


def all_days(kind: str) -> dict[date, str]:
    return {START + timedelta(days=i): kind for i in range(COUNT)}


def test_deliveries_and_lineage_equal_the_truth_whoever_is_killed(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    home = world.settings.home
    striker = Striker(
        {name: DagsterProgram(home, name) for name in ("daemon", "webserver")},
        {"sink": world.sink, "lineage consumer": world.consumer},
        seed=SEED,
    )
    wait_for("first look of the watcher", lambda: last_look_ms(world.settings))
    world.round(all_days(GOOD))
    chance, end = random.Random(SEED), time.monotonic() + 60 * MINUTES
    with striker:
        # A slow machine needs longer until all were struck and there is something to tell.
        while time.monotonic() < end or striker.spared or not world.truth.count:
            # Days fail in their events, and those alone are built quickly.
            world.round(days_of(chance), chance.choice([ASSETS, EVENTS, EVENTS]))
            striker.check()
        world.round(all_days(GOOD))
    striker.check()
    built = [one.id for one in asset_runs(world.api) if one.id in world.built]
    world.truth.note_warnings(found for run in built for found in evaluations(world.api, run))
    until_still(world)
    assert_deliveries(world)
    assert_lineage(world)
    with capsys.disabled():
        sys.stderr.write(f"\n  {summary(world, striker)}\n")


def last_look_ms(settings: Settings) -> int | None:
    with AlertStore.open(settings) as store:
        watch = store.watch()
    return None if watch is None else watch.ticked_ms


def until_still(world: World) -> None:
    """Wait until all is said: nothing waits, also after one more look at everything."""
    wait_for("every transition", lambda: is_told(world) or None, deadline_s=DRAIN_S)
    wait_for("every event", lambda: is_shipped(world) or None, deadline_s=DRAIN_S)
    now_ms = time.time_ns() // 1_000_000
    looked: Callable[[], bool] = lambda: (last_look_ms(world.settings) or 0) > now_ms  # noqa: E731
    wait_for("one more look", lambda: looked() or None)
    wait_for("nothing more to tell", lambda: is_told(world) or None, deadline_s=DRAIN_S)


def is_told(world: World) -> bool:
    told = {message["key"] for message in world.messages("/hook")}
    with AlertStore.open(world.settings) as store:
        now_ms = time.time_ns() // 1_000_000
        waiting = Outbox(store.engine).statuses(["hook", "platform"], now_ms)
    return len(told) >= world.truth.count and not any(one.pending for one in waiting.values())


def is_shipped(world: World) -> bool:
    is_over = not LineageOutbox.of(world.settings).open_runs()
    return is_over and not any(one.waiting for one in standing(world.settings))


def assert_deliveries(world: World) -> None:
    """Every transition was delivered once and in order, and nothing else was."""
    messages = world.messages("/hook")
    told: dict[str, list[str]] = {}
    for message in messages:
        told.setdefault(message["fingerprint"], []).append(message["status"])
    assert told == world.truth.changes
    keys = Counter(message["key"] for message in messages)
    assert set(keys.values()) == {1}
    for path in ("/hook", "/platform"):
        for incident, statuses in by_incident(world.messages(path)).items():
            # A warning that was learned may stay.
            assert statuses == ["opened", "resolved"][: len(statuses)], incident
    assert {m["kind"] for m in world.messages("/platform")} <= {"tick", "daemon", "sink"}


def by_incident(messages: list[dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for message in messages:
        found.setdefault(message["incident"], []).append(message["status"])
    return found


def assert_lineage(world: World) -> None:
    """Each run, and each piece of work in it, began once and ended once, as it truly did."""
    told: dict[str, dict[str, list[str]]] = {}
    jobs: dict[str, str] = {}
    for event in world.events():
        run, job = event["run"]["runId"], event["job"]["name"]
        assert jobs.setdefault(run, job) == job
        parent = event["run"].get("facets", {}).get("parent")
        within = parent["run"]["runId"] if parent else run
        told.setdefault(within, {}).setdefault(job, []).append(event["eventType"])
    ended = asset_runs(world.api)
    # A run that never started has told of nothing.
    truth = {
        one.id: world.truth.lineage_of(one, world.built[one.id])
        for one in ended
        if one.id in world.built
    }
    assert told == truth
    assert all(one.is_finished or one.status == "NOT_STARTED" for one in ended)


def summary(world: World, striker: Striker) -> str:
    kills = ", ".join(f"{name} {count}" for name, count in sorted(striker.kills.items()))
    statuses = Counter(one.status for one in asset_runs(world.api))
    runs = ", ".join(f"{count} {status.lower()}" for status, count in sorted(statuses.items()))
    again = {
        name: sum(one.is_again for one in receiver.posts())
        for name, receiver in (("sink", world.sink), ("consumer", world.consumer))
    }
    return (
        f"{MINUTES:g} minutes: {striker.kills.total()} kills ({kills}); {len(world.truth.rounds)} rounds "
        f"({runs}); {world.truth.count} transitions = {len(world.messages('/hook'))} deliveries "
        f"({again['sink']} posts repeated); {len(world.events())} lineage events as they must be "
        f"({again['consumer']} repeated); {len(world.messages('/platform'))} about the platform"
    )
