"""The writer over a real broker and a store of its own that is killed, flushed and replaced."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from millrace.codec import tile_field
from millrace.compile.serving import codec_of, serving_plan
from millrace.packing import EntityKeys, TilePacker
from millrace.plan import ViewPlan
from millrace.published import PLANS_KEY, PROGRESS_KEY, PublishedVersion, PublishedView
from resources.declarations import load_valid_plan
from resources.endpoints import kafka_bootstrap
from resources.kafka import client as kafka
from resources.settings import CHECKOUT, Settings
from resources.store.errors import Superseded
from resources.store.opening import open_online_store
from streaming.writer.loop import Writer
from streaming.writer.presence import Presence
from tests.support.store_server import StoreServer

pytestmark = pytest.mark.services

DEADLINE_S = 60
NAME = "writer_spend"
DECLARATION = """
version: millrace/v1
sources:
  - name: writer_events
    columns: {id: int64, at: timestamp, account: int64, amount: "decimal(12,2)"}
    event_time: at
    event_id: id
    stream: {topic: writer_events, format: json}
entities:
  - {name: writer_account, join_key: account, type: int64}
feature_views:
  - name: writer_spend
    entity: writer_account
    source: writer_events
    start: 2024-01-01
    features:
      - {name: count_7d, aggregate: count, window: 7d}
      - {name: amount_sum_7d, aggregate: sum, column: amount, window: 7d}
      - {name: last_amount_7d, aggregate: last, column: amount, window: 7d}
"""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> ViewPlan:
    folder = tmp_path_factory.mktemp("views")
    (folder / "spend.yaml").write_text(DECLARATION, encoding="utf-8")
    settings = Settings(folder, folder, (folder,), None, "", None, None, None, None)
    plan, faults = load_valid_plan(settings)
    assert not faults
    return plan.view(NAME)


@dataclass
class World:
    """A topic, a store, writers, and what the store must hold in the end."""

    bootstrap: str
    view: ViewPlan
    store: StoreServer
    folder: Path
    topic: str = field(default_factory=lambda: f"millrace.tiles.{uuid.uuid4().hex}")
    expected: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)
    rows: dict[tuple[int, int], int] = field(default_factory=dict)
    running: list["RunningWriter"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.plan = serving_plan(self.view)
        self.packer = TilePacker(codec_of(self.plan, "tile"))
        join_keys = [(e.join_key, e.type) for e in self.view.entities]
        self.keys = EntityKeys(NAME, self.view.fingerprint, join_keys)
        self.hop = self.view.tile_hop_ms
        self.now = time.time_ns() // 1_000_000 // self.hop * self.hop
        self.source = f"source.{self.topic}"
        self.producer = kafka.producer(self.bootstrap)
        self.make_topics()
        self.client = self.store.start() if self.store.is_down else self.store.client()
        self.client.flushall()
        self.publish()

    def make_topics(self) -> None:
        topics = [kafka.Topic(self.topic), kafka.Topic(self.source)]
        kafka.ensure_topics(self.bootstrap, topics)

    def publish(self, *, also: PublishedVersion | None = None) -> None:
        versions = (self.version(),) if also is None else (self.version(), also)
        text = PublishedView(NAME, ("writer_account",), "v1", versions).to_json()
        self.client.hset(PLANS_KEY, f"view:{NAME}", text)

    def version(self) -> PublishedVersion:
        fingerprint, group = self.view.fingerprint, f"flink.{self.topic}"
        return PublishedVersion(
            "v1", fingerprint, self.plan, self.topic, self.source, group, "live", None, None, 0
        )

    def send(self, count: int, seed: int, *, accounts: int = 300) -> None:
        """Send upserts that grow tiles at random, now and then stepping back as Flink does."""
        chance = random.Random(seed)
        for _ in range(count):
            account, start = chance.randrange(accounts), self.now - chance.randrange(3) * self.hop
            rows = self.rows.get((account, start), 0) + 1
            self.rows[account, start] = rows
            self._upsert(account, start, rows)
            if rows > 3 and chance.random() < 0.05:
                self._upsert(account, start, rows - 2, is_counted=False)
                self._upsert(account, start, rows)
        self.producer.flush(30)

    def _upsert(self, account: int, start: int, rows: int, *, is_counted: bool = True) -> None:
        event_ms = start + rows
        edge = {"event_ms": event_ms, "ingest_ms": event_ms, "event_id": rows, "value": rows / 4}
        key = {"account": account, "tile_start_ms": start}
        columns = {"rows": rows, "m0_count": rows, "m0_sum": rows * 2.5, "m0_last": edge}
        value = {**key, **columns, "last_event_ms": event_ms}
        self.raw(json.dumps(value).encode(), json.dumps(key).encode())
        if is_counted:
            _, store_key = self.keys.find((account,))
            place = (event_ms, event_ms, rows, rows / 4)
            packed = self.packer.pack(self.packed_order({**columns, "m0_last": place}), event_ms)
            self.expected.setdefault(store_key, {})[tile_field(start)] = packed

    def packed_order(self, columns: dict[str, Any]) -> list[Any]:
        kinds = {slot["name"]: slot["type"] for slot in self.plan["slots"]["tile"]}
        values = []
        for name, type_ in kinds.items():
            value = columns[name]
            if name == "m0_last":
                value = (*value[:3], Decimal(str(value[3])))
            elif type_.startswith("decimal"):
                value = Decimal(str(value))
            values.append(value)
        return values

    def raw(self, value: bytes | None, key: bytes) -> None:
        while True:
            try:
                self.producer.produce(self.topic, value=value, key=key)
            except BufferError:
                self.producer.poll(0.1)
            else:
                self.producer.poll(0)
                return

    def stored(self) -> dict[bytes, dict[bytes, bytes]]:
        found: dict[bytes, Any] = {k: self.client.hgetall(k) for k in self.expected}
        return {
            key: {f: tile for f, tile in held.items() if len(f) == 8}
            for key, held in found.items()
            if held
        }

    def await_stored(self) -> None:
        self.until(lambda: self.stored() == self.expected, "the store does not hold all tiles")

    def until(self, is_so: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for writer in self.running:
                assert writer.failure is None, writer.failure
            try:
                if is_so():
                    return
            except RedisError:
                pass
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def progress(self) -> dict[str, Any]:
        text: Any = self.client.hget(PROGRESS_KEY, f"{NAME}/{self.view.fingerprint}")
        return json.loads(text) if text else {}

    def write(self, name: str = "writer") -> "RunningWriter":
        writer = RunningWriter(self, name)
        self.running.append(writer)
        return writer


class RunningWriter:
    """A writer on a thread of this process."""

    def __init__(self, world: World, name: str) -> None:
        self.folder = world.folder / name
        self.writer = Writer(
            open_online_store(world.store.url), world.bootstrap, Presence(self.folder)
        )
        self.failure: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.writer.run(self._stop)
        except BaseException as error:  # noqa: BLE001 - the test's thread tells of it
            self.failure = error

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def ended(self) -> BaseException | None:
        self._thread.join(30)
        return self.failure


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    own = StoreServer(tmp_path_factory.mktemp("store"))
    yield own
    own.stop()


@pytest.fixture
def world(
    live_stack: Settings, view: ViewPlan, server: StoreServer, tmp_path: Path
) -> Iterator[World]:
    world = World(kafka_bootstrap(live_stack), view, server, tmp_path)
    yield world
    for writer in world.running:
        writer.stop()
    world.client.close()
    kafka.delete_topics(world.bootstrap, [world.topic, world.source])


def test_the_store_holds_the_newest_of_every_tile(world: World) -> None:
    world.send(5_000, 1)
    world.write()
    world.send(2_000, 2)
    world.await_stored()
    assert (world.folder / "writer" / "ready").read_text() == f"{os.getpid()}\n"
    assert (world.folder / "writer" / "heartbeat").exists()


def test_foreign_records_are_passed_over(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.send(50, 1)
    for value in (b"", b"{", b"\xff\xfe", b'{"account": "x"}', None, b"[]"):
        world.raw(value, uuid.uuid4().bytes)
    world.send(50, 2)
    writer = world.write()
    world.await_stored()
    writer.stop()
    told = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert len([t for t in told if world.topic in t]) == 1, "said once a topic"


def test_a_killed_store_is_repaired_from_the_topic(world: World) -> None:
    world.write()
    for round_ in range(3):
        world.send(3_000, round_)
        world.store.kill()
        world.send(500, 100 + round_)
        world.client = world.store.start()
        world.send(500, 200 + round_)
    world.await_stored()


def test_a_flushed_store_is_filled_again_without_a_new_record(world: World) -> None:
    world.write()
    world.send(2_000, 1)
    world.await_stored()
    world.client.flushall()
    world.await_stored()


def test_a_replaced_store_is_filled_from_the_topic(world: World) -> None:
    world.write()
    world.send(2_000, 1)
    world.await_stored()
    world.store.kill()
    shutil.rmtree(world.store.folder)
    world.client = world.store.start()
    world.send(100, 2)
    world.await_stored()


def test_a_store_that_went_back_in_time_loses_nothing(world: World) -> None:
    world.write()
    world.send(1_000, 1)
    world.await_stored()
    dumps: dict[bytes, Any] = {
        key: world.client.dump(key) for key in world.client.scan_iter(b"m1{*")
    }
    world.send(1_000, 2)
    world.await_stored()
    gone_back = [
        key for tag in range(0, 256, 3) for key in world.client.scan_iter(b"m1{%02x}*" % tag)
    ]
    # In one transaction, as a snapshot replaces a store: a writer that looked in the middle would
    # read on from markers that go back again behind it, and hear of them minutes later.
    with world.client.pipeline(transaction=True) as replacing:
        for key in gone_back:
            replacing.delete(key)
            if dumps.get(key):
                replacing.restore(key, 0, dumps[key])
        replacing.execute()
    world.await_stored()


def test_a_newer_writer_takes_over_and_the_older_one_leaves(world: World) -> None:
    older = world.write("older")
    world.send(1_000, 1)
    world.await_stored()
    world.running.remove(older)
    world.write("newer")
    failure = older.ended()
    assert isinstance(failure, Superseded)
    assert "a newer writer has taken over" in str(failure)
    world.send(1_000, 2)
    world.await_stored()


def test_a_restarted_writer_reads_on_where_the_store_stands(world: World) -> None:
    first = world.write()
    world.send(2_000, 1)
    world.await_stored()
    first.stop()
    counters = {key: world.client.hget(key, b"s") for key in world.expected}
    world.write()
    world.until(lambda: world.progress().get("tile_lag") == 0, "no progress is told")
    assert {key: world.client.hget(key, b"s") for key in world.expected} == counters
    world.send(100, 2)
    world.await_stored()


def test_a_topic_that_was_begun_anew_is_read_from_its_start(world: World) -> None:
    writer = world.write()
    world.send(2_000, 1)
    world.await_stored()
    writer.stop()
    kafka.delete_topics(world.bootstrap, [world.topic])
    world.until(
        lambda: not kafka.topic_exists(world.bootstrap, world.topic), "the topic is still there"
    )
    world.make_topics()
    world.send(200, 2)
    world.write()
    world.await_stored()


def test_a_store_that_is_away_at_the_start_is_waited_for(world: World) -> None:
    world.send(500, 1)
    world.store.kill()
    writer = world.write()
    beat = writer.folder / "heartbeat"
    world.until(beat.exists, "the writer does not live")
    beat.unlink()
    world.until(beat.exists, "the writer does not live on")
    assert not (writer.folder / "ready").exists()
    world.client = world.store.start()
    world.publish()
    world.await_stored()


def test_progress_reaches_the_present_once_flink_has_committed(world: World) -> None:
    from confluent_kafka import TopicPartition

    world.producer.produce(world.source, b"{}", partition=0)
    world.producer.flush(30)
    world.send(10, 1)
    world.write()
    world.await_stored()
    world.until(lambda: world.progress().get("source_lag") == 1, "the lag is not told")
    assert world.progress()["progress_ms"] is None
    flink = kafka.consumer(world.bootstrap, **{"group.id": f"flink.{world.topic}"})
    flink.commit(offsets=[TopicPartition(world.source, 0, 1)], asynchronous=False)
    flink.close()
    committed_ms = time.time_ns() // 1_000_000
    world.until(
        lambda: (world.progress().get("progress_ms") or 0) > committed_ms, "progress stands still"
    )
    assert world.progress()["source_lag"] == world.progress()["tile_lag"] == 0


def test_a_version_without_its_topic_does_not_hold_up_the_others(world: World) -> None:
    topic = f"{world.topic}.v2"
    newer = replace(world.version(), version="v2", fingerprint="f" * 16, tile_topic=topic)
    world.publish(also=newer)
    world.write()
    world.send(500, 1)
    world.await_stored()
    kafka.ensure_topics(world.bootstrap, [kafka.Topic(topic)])
    marker = b"m1{00}M"
    world.until(
        lambda: world.client.hexists(marker, f"epoch/{topic}/0"), "the new topic is not followed"
    )
    world.send(500, 2)
    world.await_stored()
    kafka.delete_topics(world.bootstrap, [topic])
    world.send(500, 3)
    world.await_stored()
    world.publish(also=replace(newer, state="retired"))
    world.send(500, 4)
    world.await_stored()


def test_the_process_ends_in_order_when_it_is_asked_to(world: World) -> None:
    world.send(500, 1)
    home = world.folder / "home"
    env = {
        **os.environ,
        "MILLRACE_HOME": str(home),
        "MILLRACE_KAFKA": world.bootstrap,
        "MILLRACE_STORE_URL": world.store.url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.writer"],
        env=env,
        cwd=CHECKOUT,
        stderr=subprocess.PIPE,
    )
    try:
        world.await_stored()
        assert (home / "writer" / "ready").read_text() == f"{process.pid}\n"
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said.decode()
    assert not (home / "writer" / "ready").exists()
