"""The compiled jobs, run by Flink over Kafka, give the tiles of the events that count."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import uuid4

import pytest

from millrace.compile.flink import FlinkEndpoints, StreamJob, stream_job
from millrace.plan import SourcePlan, ViewPlan
from millrace.tiles import Tile, tile_columns
from millrace.types import parse_type
from resources.endpoints import flink_url, kafka_bootstrap
from resources.flink.rest import FlinkCluster
from resources.kafka.client import Topic, consumer, end_offsets, ensure_topics, producer
from resources.settings import Settings
from streaming.runner.build import ensure_runner_jar
from tests.golden.rewrite import golden_plan
from tests.support.flink_cases import (
    PARTITIONS,
    Record,
    as_bytes,
    end_records,
    expected_tiles,
    read_tile,
    sentinels,
    some_records,
    tile_key,
)

pytestmark = pytest.mark.services

PLAN = golden_plan()
VIEW = PLAN.views["every_aggregate"]
DEADLINE_S = 120
RECORDS = 4_000
# Records keep the times they are given, so that lateness does not hang on the clock.
GIVEN_TIMES = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}


@dataclass(frozen=True)
class Stream:
    """A view's job over topics of its own, on a running stack."""

    view: ViewPlan
    cluster: FlinkCluster
    bootstrap: str
    source: str
    tiles: str
    job: StreamJob
    jar: str

    @classmethod
    def of(cls, settings: Settings, view: ViewPlan) -> "Stream":
        bootstrap = kafka_bootstrap(settings)
        name = f"{view.name}.{uuid4().hex[:8]}"
        source, tiles = f"source.{name}", f"tiles.{name}"
        # One partition stays empty, and must hold nobody up.
        topics = [Topic(source, PARTITIONS + 1, GIVEN_TIMES), Topic(tiles, PARTITIONS)]
        ensure_topics(bootstrap, topics)
        assert view.source.stream is not None
        renamed = replace(view.source, stream=replace(view.source.stream, topic=source))
        job = stream_job(replace(view, source=renamed), FlinkEndpoints(bootstrap, tile_topic=tiles))
        cluster = FlinkCluster(flink_url(settings))
        jar = cluster.ensure_jar(ensure_runner_jar(settings))
        return cls(view, cluster, bootstrap, source, tiles, job, jar)

    def write(self, records: Sequence[Record]) -> None:
        out = producer(self.bootstrap)
        for record in records:
            place = {"partition": record.partition, "timestamp": record.timestamp_ms}
            out.produce(self.source, record.value, **place)
            out.poll(0)
        assert out.flush(30) == 0

    def write_in_transactions(self, records: Sequence[Record]) -> None:
        """Write the records in transactions; those that follow are written before, and taken back."""
        out = producer(self.bootstrap, **{"transactional.id": self.source})
        out.init_transactions(30)

        def write(some: Sequence[Record], finish: Callable[[float], None]) -> None:
            out.begin_transaction()
            for record in some:
                place = {"partition": record.partition, "timestamp": record.timestamp_ms}
                out.produce(self.source, record.value, **place)
                out.poll(0)
            out.flush(30)
            finish(30)

        for start in range(0, len(records), 200):
            write(records[start : start + 200], out.commit_transaction)
            write(records[start + 200 : start + 400] or records[:9], out.abort_transaction)

    def run_over(
        self,
        records: Sequence[Record],
        restore_from: str | None = None,
        *,
        in_transactions: bool = False,
        parallelism: int = 1,
    ) -> str:
        """Write the records, run until their tiles are out, stop; returns the savepoint."""
        mark = 0 if restore_from is None else 1
        write = self.write_in_transactions if in_transactions else self.write
        write([*records, *end_records(self.view, records, mark)])
        job_id = uuid4().hex
        configuration = self.job.configuration
        self.cluster.run(
            self.jar, self.job.script, job_id, configuration, parallelism, restore_from
        )
        try:
            self._wait_for(sentinels(self.view, mark), job_id)
            savepoint = self.cluster.stop_with_savepoint(job_id)
            assert self.cluster.exceptions(job_id) is None
        finally:
            self.cluster.cancel(job_id)
        return savepoint

    def _wait_for(self, keys: set[tuple[Any, ...]], job_id: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not keys <= {name[:-1] for name in self.read()}:
            report, cause = self.cluster.job(job_id), self.cluster.exceptions(job_id)
            assert report is not None
            assert report.state != "FAILED", cause
            assert time.monotonic() < deadline, (report, cause)
            time.sleep(0.3)

    def read(self) -> dict[tuple[Any, ...], Tile]:
        """Return the last value of each tile in the topic."""
        from confluent_kafka import TopicPartition

        inlet = consumer(self.bootstrap, **{"group.id": uuid4().hex, "enable.partition.eof": True})
        partitions = end_offsets(self.bootstrap, self.tiles)
        inlet.assign([TopicPartition(self.tiles, partition, 0) for partition in partitions])
        found, ended = {}, 0
        while ended < len(partitions):
            for message in inlet.consume(1000, timeout=1):
                if message.error() is not None:
                    ended += 1
                else:
                    key = tile_key(self.view, message.key())
                    found[key] = read_tile(self.view, message.value())
        inlet.close()
        return found


def assert_same(name: str, got: Any, want: Any) -> None:
    if isinstance(want, list) and isinstance(got, list):
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            assert_same(f"{name}[{i}]", one, other)
    elif isinstance(want, float) and isinstance(got, float):
        assert math.isclose(got, want, rel_tol=1e-9), (name, got, want)
    else:
        assert got == want, (name, got, want)


def assert_tiles(
    view: ViewPlan, got: Mapping[tuple[Any, ...], Tile], want: Mapping[tuple[Any, ...], Tile]
) -> None:
    assert got.keys() == want.keys()
    for key, tile in want.items():
        for column in tile_columns(view):
            assert_same(f"{key} {column.name}", got[key][column.name], tile[column.name])


def with_source(view: ViewPlan, **changes: Any) -> ViewPlan:
    source: SourcePlan = replace(view.source, **changes)
    return replace(view, source=source)


def expected(view: ViewPlan, *parts: Sequence[Record]) -> dict[tuple[Any, ...], Tile]:
    """Return the tiles of records written in parts, each with its end."""
    written = [
        record
        for mark, part in enumerate(parts)
        for record in (*part, *end_records(view, part, mark))
    ]
    return expected_tiles(view, written)


@pytest.mark.parametrize("view", PLAN.views.values(), ids=PLAN.views)
def test_tiles_on_flink_equal_the_algebra(view: ViewPlan, live_stack: Settings) -> None:
    stream, records = Stream.of(live_stack, view), some_records(view, RECORDS, seed=3)
    stream.run_over(records)
    want = expected(view, records)
    assert len(want) > 50
    assert_tiles(view, stream.read(), want)


@pytest.mark.parametrize("kind", ["date", "int64"])
def test_an_event_time_may_be_a_day_or_milliseconds(kind: str, live_stack: Settings) -> None:
    view = PLAN.views["shopper_lifetime"]
    columns = tuple(
        replace(column, type=parse_type(kind)) if column.name == view.source.event_time else column
        for column in view.source.columns
    )
    view = with_source(view, columns=columns, allowed_lateness_ms=10**9)
    stream, records = Stream.of(live_stack, view), some_records(view, RECORDS // 4, seed=9)
    stream.run_over(records)
    assert_tiles(view, stream.read(), expected(view, records))


@pytest.mark.parametrize(
    ("in_transactions", "parallelism"),
    [(False, 1), (True, 2)],
    ids=["plain", "transactions"],
)
def test_a_copy_that_comes_after_the_horizon_counts_again(
    live_stack: Settings, parallelism: int, *, in_transactions: bool
) -> None:
    view = VIEW
    view = with_source(view, dedup_horizon_ms=view.tile_hop_ms, allowed_lateness_ms=10**9)
    stream, records = Stream.of(live_stack, view), some_records(view, RECORDS, seed=5)
    stream.run_over(records, in_transactions=in_transactions, parallelism=parallelism)
    want = expected(view, records)
    assert want != expected(with_source(view, dedup_horizon_ms=10**9), records)
    assert_tiles(view, stream.read(), want)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 2)])
def test_a_restored_job_goes_on_where_it_was_stopped_at_any_parallelism(
    live_stack: Settings, before: int, after: int
) -> None:
    records = with_rivals(some_records(VIEW, RECORDS, seed=7))
    stream = Stream.of(live_stack, VIEW)
    first, second = records[: RECORDS // 2], records[RECORDS // 2 :]
    savepoint = stream.run_over(first, parallelism=before)
    assert_tiles(VIEW, stream.read(), expected(VIEW, first))
    stream.run_over(second, restore_from=savepoint, parallelism=after)
    assert_tiles(VIEW, stream.read(), expected(VIEW, first, second))


def with_rivals(records: Sequence[Record]) -> list[Record]:
    """Return the records with others among them that have an id of before, and say otherwise.

    Which of two counts shows in the tiles then. All are in the order in which the first is told.
    """
    chance, written = Random(1), list(records)
    named = [r for r in records if r.row is not None and r.row["payment_id"] is not None]
    for record in chance.sample(named, len(named) // 4):
        assert record.row is not None
        row = record.row | {"customer_id": chance.choice([1, -7]), "quantity": chance.randint(0, 9)}
        place = chance.randrange(PARTITIONS)
        rival = Record(place, record.timestamp_ms + chance.randint(0, 3), b"", row)
        written.append(replace(rival, value=as_bytes(row, VIEW.source, chance)))
    return sorted(written, key=lambda r: (r.timestamp_ms, r.partition))


def test_the_first_copy_counts_at_any_parallelism(live_stack: Settings) -> None:
    records = with_rivals(some_records(VIEW, 3 * RECORDS, seed=11))
    want = expected(VIEW, records)
    for parallelism in (1, 2, PARTITIONS):
        stream = Stream.of(live_stack, VIEW)
        stream.run_over(records, parallelism=parallelism)
        assert_tiles(VIEW, stream.read(), want)
