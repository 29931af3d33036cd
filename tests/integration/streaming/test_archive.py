"""The archive on a real broker: every record once, whatever it is interrupted by."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from deltalake import DeltaTable

from checks.reconciliation import examine
from millrace.errors import EngineUnavailable
from millrace.plan import Plan, SourcePlan
from resources.endpoints import kafka_bootstrap
from resources.kafka.client import Topic, consumer, ensure_topics, producer
from resources.settings import CHECKOUT, Settings
from streaming.archive.compaction import SMALL_BYTES, Compaction, small_files
from streaming.archive.dead_letter_topic import DeadLetterTopic
from streaming.archive.source import SourceArchive
from streaming.archive.status import archive_status
from streaming.archive.tables import LakeTable, OvertakenError
from tests.support.archive_cases import PARTITIONS, Expected, Sent, awkward, expected, payments

pytestmark = pytest.mark.services


class CrashError(Exception):
    """The process dies here."""


@pytest.fixture
def lake(live_stack: Settings, tmp_path: Path) -> Settings:
    """The running broker with a lake and a home of this test's own."""
    return replace(
        live_stack,
        home=tmp_path / "home",
        lake=str(tmp_path / "lake"),
        kafka=kafka_bootstrap(live_stack),
    )


@pytest.fixture
def source(lake: Settings, request: pytest.FixtureRequest) -> SourcePlan:
    """A source with a topic of its own, whose record times the producer chooses."""
    topic = "archive_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:50]
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    ensure_topics(lake.kafka or "", [Topic(topic, PARTITIONS, config)])
    return payments(topic)


def send(settings: Settings, topic: str, records: Sequence[Sent]) -> None:
    client = producer(settings.kafka or "")
    for record in records:
        client.produce(
            topic, value=record.value, partition=record.partition, timestamp=record.arrived_ms
        )
    assert client.flush(30) == 0


def opened(settings: Settings, source: SourcePlan) -> SourceArchive:
    return SourceArchive(settings, source, settings.kafka or "", lambda: True)


def drain(archive: SourceArchive) -> None:
    while archive.cycle() or not archive.is_drained:
        pass


def archived(settings: Settings, source: SourcePlan) -> Expected:
    """Return what the tables hold; a row that is there twice fails."""
    rows = table(settings, f"events/{source.name}")
    events = {
        (r["_partition"], r["_offset"]): (
            r["id"],
            r["_event_ms"],
            r["_ingest_ms"],
            r["who"],
            r["amount"],
        )
        for r in rows
    }
    dead_letters = table(settings, f"dead_letters/{source.name}")
    duplicates = table(settings, f"duplicates/{source.name}")
    found = Expected(
        events,
        {(r["partition"], r["offset"]): r["reason"] for r in dead_letters},
        {(r["partition"], r["offset"]) for r in duplicates},
    )
    assert len(found.events) == len(rows)
    assert len(found.dead_letters) == len(dead_letters)
    assert len(found.duplicates) == len(duplicates)
    return found


def table(settings: Settings, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = (
        DeltaTable(f"{settings.lake}/{name}").to_pyarrow_table().to_pylist()
    )
    return rows


def dead_letter_messages(settings: Settings, topic: str) -> list[Any]:
    """Return all messages of the dead-letter topic."""
    from confluent_kafka import TopicPartition

    reader = consumer(settings.kafka or "", **{"enable.partition.eof": True})
    reader.assign([TopicPartition(f"{topic}.dlq", p, 0) for p in range(4)])
    found: list[Any] = []
    at_end: set[int] = set()
    while len(at_end) < 4:
        for message in reader.consume(500, 0.1):
            if message.error() is None:
                found.append(message)
            else:
                at_end.add(message.partition())
    reader.close()
    return found


def assert_exact(settings: Settings, source: SourcePlan, sent: Sequence[Sent]) -> None:
    """Hold tables, dead-letter topic, books and check to the reference."""
    wanted = expected(sent, source)
    assert archived(settings, source) == wanted
    status = archive_status(settings, Plan({source.name: source}, {}, {}, {}))[source.name]
    counts = wanted.counts()
    assert status == {
        "events": counts.pop("events"),
        "duplicates": counts.pop("duplicates"),
        "dead_letters": counts,
        "lag_events": 0,
    }
    messages = dead_letter_messages(settings, source.name)
    keys = [m.key().decode() for m in messages]
    assert sorted(keys) == sorted(f"{p}:{o}" for p, o in wanted.dead_letters)
    result = examine(settings, source)
    assert result.passed, result.description


def test_a_topic_is_archived_as_the_reference_judges_it(lake: Settings, source: SourcePlan) -> None:
    sent = awkward(3_000, Random(1))
    send(lake, source.name, sent)
    archive = opened(lake, source)
    drain(archive)
    archive.close()
    assert_exact(lake, source, sent)

    dead_letters = {
        (r["partition"], r["offset"]): r for r in table(lake, f"dead_letters/{source.name}")
    }
    messages = {m.key().decode(): m for m in dead_letter_messages(lake, source.name)}
    offsets = dict.fromkeys(range(PARTITIONS), 0)
    for record in sent:
        place = (record.partition, offsets[record.partition])
        offsets[record.partition] += 1
        if place not in dead_letters:
            continue
        dead_letter, message = dead_letters[place], messages[f"{place[0]}:{place[1]}"]
        assert dead_letter["payload"] == record.value == message.value()
        assert dead_letter["arrived_ms"] == record.arrived_ms
        assert dead_letter["origin"] == f"kafka:{source.name}/{place[0]}/{place[1]}"
        headers = {name: value.decode() for name, value in message.headers()}
        assert headers == {
            "reason": dead_letter["reason"],
            "detail": dead_letter["detail"],
            "source": source.name,
            "partition": str(place[0]),
            "offset": str(place[1]),
            "timestamp_ms": str(record.arrived_ms),
        }
        assert dead_letter["detail"]


def _crash_after(function: Callable[..., Any], only: str = "") -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        function(self, *arguments, **named)
        if getattr(self, "name", "").startswith(only):
            raise CrashError
        return True

    return call


def _half_sent(self: Any, dead_letters: Any, beat: Any) -> bool:
    sent = list(dead_letters)
    _SEND(self, sent[: len(sent) // 2], beat)
    raise CrashError


def _crash_before(only: str) -> Callable[..., Any]:
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.name.startswith(only):
            raise CrashError
        return _APPEND(self, *arguments, **named)

    return call


_SEND, _APPEND = DeadLetterTopic.send, LakeTable.append
CRASHES: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "when half of the letters are sent": (DeadLetterTopic, "send", _half_sent),
    "after the letters are sent": (DeadLetterTopic, "send", _crash_after(_SEND)),
    "after the letters are in the lake": (
        LakeTable,
        "append",
        _crash_after(_APPEND, "dead_letters/"),
    ),
    "after the duplicates are in the lake": (
        LakeTable,
        "append",
        _crash_after(_APPEND, "duplicates/"),
    ),
    "before the events are in the lake": (LakeTable, "append", _crash_before("events/")),
    "after the events are in the lake": (LakeTable, "append", _crash_after(_APPEND, "events/")),
}


def test_a_crash_at_any_step_leaves_every_record_written_once(
    lake: Settings, source: SourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, sent = Random(2), list[Sent]()
    for owner, name, crash in [*CRASHES.values(), *reversed(CRASHES.values())]:
        chunk = awkward(150, rng, sent[-1].arrived_ms if sent else payments_start())
        send(lake, source.name, chunk)
        sent += chunk
        archive = opened(lake, source)
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, crash)
            with pytest.raises(CrashError):
                drain(archive)
        archive.close()
    archive = opened(lake, source)
    drain(archive)
    archive.close()
    assert_exact(lake, source, sent)


def payments_start() -> int:
    from tests.support.archive_cases import BASE_MS

    return BASE_MS


def test_a_verdict_told_before_a_crash_stands_when_the_declaration_changes(
    lake: Settings, source: SourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = awkward(200, Random(3))
    send(lake, source.name, sent)
    archive = opened(lake, source)
    with monkeypatch.context() as patch:
        patch.setattr(LakeTable, "append", _crash_before("events/"))
        with pytest.raises(CrashError):
            drain(archive)
    archive.close()
    archive = opened(lake, replace(source, allowed_lateness_ms=10 * source.allowed_lateness_ms))
    drain(archive)
    archive.close()
    assert_exact(lake, source, sent)


def test_an_archive_that_was_overtaken_writes_nothing(lake: Settings, source: SourcePlan) -> None:
    sent = awkward(100, Random(4))
    send(lake, source.name, sent)
    slow, fast = opened(lake, source), opened(lake, source)
    drain(fast)
    with pytest.raises(OvertakenError, match="another archive writes"):
        drain(slow)
    slow.close()
    fast.close()
    wanted = expected(sent, source)
    assert archived(lake, source) == wanted


def test_small_files_of_a_day_are_merged_and_nothing_is_lost(
    lake: Settings, source: SourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.archive.compaction._LOOK_EVERY_S", 0.0)
    rng, sent = Random(5), list[Sent]()
    archive = opened(lake, source)
    for _ in range(6):
        chunk = awkward(20, rng, sent[-1].arrived_ms if sent else payments_start())
        send(lake, source.name, chunk)
        sent += chunk
        drain(archive)
    assert max(small_files(archive.tables.events).values()) >= 6
    compaction = Compaction(lake, archive.tables.all())
    compaction.maybe_run()
    compaction.maybe_run()  # now nothing was added since the last look
    assert max(small_files(archive.tables.events).values()) == 1
    chunk = awkward(20, rng, sent[-1].arrived_ms)
    send(lake, source.name, chunk)
    drain(archive)
    archive.close()
    assert_exact(lake, source, [*sent, *chunk])
    assert SMALL_BYTES > 1 << 20


def test_a_topic_made_again_is_read_from_its_start_and_the_books_still_balance(
    lake: Settings, source: SourcePlan
) -> None:
    from resources.kafka.client import delete_topics, topic_exists

    first = awkward(120, Random(6))
    send(lake, source.name, first)
    archive = opened(lake, source)
    drain(archive)
    archive.close()
    delete_topics(lake.kafka or "", [source.name])
    deadline = time.monotonic() + 30
    while topic_exists(lake.kafka or "", source.name):
        assert time.monotonic() < deadline
    config = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    ensure_topics(lake.kafka or "", [Topic(source.name, PARTITIONS, config)])
    second = awkward(60, Random(7), first[-1].arrived_ms + 10 * 60_000)
    send(lake, source.name, second)
    archive = opened(lake, source)
    drain(archive)
    books = archive.books
    archive.close()
    one, two = expected(first, source).counts(), expected(second, source).counts()
    assert {name: n for name, n in books.counts.items() if n} == {
        name: one[name] + two[name] for name in one if one[name] + two[name]
    }
    assert books.span == books.accounted == 180
    assert examine(lake, source).passed


@pytest.fixture
def process(lake: Settings, source: SourcePlan, tmp_path: Path) -> Iterator["Process"]:
    """The archive as a process of its own, following declarations in a folder."""
    views = tmp_path / "views"
    views.mkdir()
    started = Process(lake, views)
    yield started
    started.kill()


class Process:
    """``python -m streaming.archive``, to be killed and started."""

    def __init__(self, settings: Settings, views: Path) -> None:
        self.views = views
        self._settings = settings
        self._env = {
            **os.environ,
            "MILLRACE_HOME": str(settings.home),
            "MILLRACE_LAKE": settings.lake,
            "MILLRACE_KAFKA": settings.kafka or "",
            "MILLRACE_VIEWS": str(views),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self._settings.home.parent / "archive.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streaming.archive"],
                env=self._env,
                cwd=CHECKOUT,
                stderr=stream,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)


def declaration(source: SourcePlan) -> str:
    return f"""
version: millrace/v1
sources:
  - name: {source.name}
    columns: {{id: string, at: timestamp, who: int64, amount: "decimal(12,2)"}}
    event_time: at
    event_id: id
    allowed_lateness: 1h
    clock_skew: 5s
    dedup_horizon: 20s
    stream: {{topic: {source.name}, format: json}}
"""


def counted(settings: Settings, source: SourcePlan) -> int:
    status = archive_status(settings, Plan({source.name: source}, {}, {}, {}))[source.name]
    return int(status["events"] + status["duplicates"] + sum(status["dead_letters"].values()))


def until_counted(settings: Settings, source: SourcePlan, records: int) -> None:
    until(lambda: counted(settings, source) >= records)


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_killed_again_and_again_follows_its_declarations_and_loses_nothing(
    lake: Settings, source: SourcePlan, process: Process
) -> None:
    rng, sent = Random(8), list[Sent]()
    process.start()
    until((lake.home / "archive" / "ready").exists)
    broken = process.views / "broken.yaml"
    broken.write_text("version: millrace/v1\nsources: [{name: half\n")
    (process.views / "source.yaml").write_text(declaration(source))
    for _ in range(3):
        for _ in range(4):
            start_ms = sent[-1].arrived_ms if sent else payments_start()
            chunk = awkward(80, rng, start_ms, scattered=False)
            send(lake, source.name, chunk)
            sent += chunk
            if rng.random() < 0.7:
                until_counted(lake, source, len(sent) - 80 * rng.randrange(2))
        process.kill()
        process.start()
    until_counted(lake, source, len(sent))
    assert process.stop() == 0
    assert_exact(lake, source, sent)


def test_a_lake_that_takes_no_commit_is_told_and_tried_again(
    lake: Settings, source: SourcePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = awkward(50, Random(9))
    send(lake, source.name, sent)
    archive = opened(lake, source)

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("deltalake.write_deltalake", no_room)
        with pytest.raises(EngineUnavailable, match=r"No space left[\s\S]*full disk"):
            drain(archive)
    archive.close()
    archive = opened(lake, source)
    drain(archive)
    archive.close()
    assert_exact(lake, source, sent)


def test_a_file_produced_twice_counts_once(
    live_stack: Settings, lake: Settings, source: SourcePlan, tmp_path: Path
) -> None:
    from streaming.produce.producer import Pace, produce

    path = tmp_path / "rows.jsonl"
    rows = [
        f'{{"id":"{n}","at":{1_709_251_200_000 + 1_000 * n},"who":{n % 3},"amount":{n}.5}}'
        for n in range(40)
    ]
    path.write_text("\n".join(rows))
    plan = Plan({source.name: replace(source, dedup_horizon_ms=86_400_000)}, {}, {}, {})
    pace = Pace(rate=2_000, shift_to_now=True)
    told: list[tuple[int, int]] = []
    reports = [
        produce(lake, plan, source.name, path, pace=pace, progress=lambda *at: told.append(at))
        for _ in range(2)
    ]
    assert [(r.rows, r.key, r.late) for r in reports] == [(40, "id", 0)] * 2
    assert told[-1] == (40, 40)
    archive = opened(lake, plan.sources[source.name])
    drain(archive)
    books = archive.books
    archive.close()
    assert (books.counts["events"], books.counts["duplicates"]) == (40, 40)
    for row in table(lake, f"events/{source.name}"):
        assert 0 <= row["_ingest_ms"] - row["_event_ms"] < 60_000
