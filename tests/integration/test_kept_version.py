"""What an earlier version wrote is read, served and continued by this one: tests/stored."""

import asyncio
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from redis import Redis

from millrace.coarsen import Coarsening
from millrace.codec import tile_field
from millrace.compile.serving import codec_of, serving_plan
from millrace.days import Days
from millrace.durations import DAY_MS
from millrace.names import tiles_table
from millrace.online.view import OnlineView
from millrace.packing import TilePacker
from millrace.plan import ViewPlan
from millrace.published import PLANS_KEY
from millrace.tiles import LAST_EVENT
from offline.tables.planned_changes import planned_change
from offline.tables.view_history import view_histories
from offline.training.sets import build_training_set
from resources.lake.view_versions import deployed_version
from resources.settings import Settings
from resources.store.opening import open_online_store
from streaming.control.reconcile import decide
from streaming.control.survey import declared_of, survey
from streaming.publications.records import RecordFiles
from streaming.upload.batch_tiles import BatchTiles
from streaming.upload.upload import upload
from streaming.writer.feeds import Feed
from streaming.writer.records import TileReader
from tests.support.kept_version import (
    BATCH_END_MS,
    VIEWS,
    Kept,
    Row,
    as_ms,
    is_fine,
    record_of,
    tiles_today,
)
from tests.support.lake_builds import LakeBuilds
from tests.support.serving_harness import Client, client_of, running_store, served
from tests.support.stream_fakes import FakeEngines, FakeFlink
from tests.support.training_cases import agree

SERVED = {"kept_spend": "kept_customer", "kept_pairs": "kept_customer,kept_shop"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept.unpack(tmp_path_factory.mktemp("kept"))


@pytest.fixture(params=VIEWS)
def view(kept: Kept, request: pytest.FixtureRequest) -> ViewPlan:
    return kept.plan.view(request.param)


def tiles_of_the_lake(
    kept: Kept, view: ViewPlan, *, sealed: bool
) -> dict[bytes, dict[bytes, bytes]]:
    """Return the stored tiles by entity, merged into coarse ones where ``sealed``."""
    coarsening = Coarsening.of(view, BATCH_END_MS, BATCH_END_MS if sealed else view.start_ms)
    days = tuple(Days(view.start, date(2026, 12, 2)))
    table = BatchTiles(view, tiles_table(view.name, "v1"), days, coarsening)
    return {
        one.key: {field: packed for field, _, packed in one.tiles}
        for one in table.entities(kept.settings)
    }


def tiles_of_the_topic(kept: Kept, view: ViewPlan) -> dict[bytes, dict[bytes, bytes]]:
    """Return the newest record of each tile, packed by this version."""
    read = TileReader(serving_plan(view)).read
    held: dict[bytes, dict[bytes, bytes]] = {}
    for record in kept.records(view):
        tile = read(record["value"])
        held.setdefault(tile.key, {})[tile.field] = tile.packed
    return held


def next_day(rows: int = 40) -> list[Row]:
    """Payments of the day behind all that was kept."""
    made: list[Row] = []
    for number in range(rows):
        at = BATCH_END_MS + DAY_MS + number * 1_800_000
        made.append(
            {
                "payment_id": 10_000 + number,
                "paid_at": at,
                "customer_id": (1, 2, 2**40)[number % 3],
                "shop": ("a", "b", "söld \N{SNOWMAN}", "")[number % 4],
                "amount": Decimal(number * 997 - 9_000).scaleb(-2),
                "items": number % 7 - 3,
                "points": number**3,
                "weight": number / 8,
                "by_card": number % 2 == 0,
                "seen_at": at - 7,
                "due": date(2026, 12, 1),
                "token": bytes([number]),
                "_event_ms": at,
                "_ingest_ms": at,
            }
        )
    return made


def test_nothing_that_is_kept_has_another_meaning_now(kept: Kept, view: ViewPlan) -> None:
    published = kept.published(view.name)
    assert published.fingerprint == view.fingerprint
    assert json.loads(json.dumps(serving_plan(view))) == published.plan
    assert deployed_version(kept.settings, view) == "v1"
    change = planned_change(kept.settings, view)
    assert (change.version, change.former, change.columns) == ("v1", None, ())
    assert (change.refused, change.event_days, change.view_days) == (None, (), ())


def test_the_history_that_was_built_stands(kept: Kept) -> None:
    histories = view_histories(kept.settings, kept.plan.views.values())
    assert {name: history.state for name, history in histories.items()} == dict.fromkeys(
        VIEWS, "ok"
    )


@pytest.mark.parametrize("hindsight", [False, True])
def test_training_sets_over_the_lake_equal_the_oracle(
    kept: Kept,
    tmp_path: Path,
    hindsight: bool,  # noqa: FBT001
) -> None:
    times = [r["_event_ms"] + k for r in kept.rows[::3] for k in (0, 1)]
    times += [BATCH_END_MS + n * DAY_MS // 4 for n in range(-12, 8)]
    customers, shops = (1, 2, 2**40, 77, None), ("a", "b", "söld \N{SNOWMAN}", "", None)
    spine = pa.table(
        {
            "event_timestamp": pa.array([t * 1000 for t in times], pa.timestamp("us", "UTC")),
            "customer_id": pa.array([customers[i % 5] for i in range(len(times))], pa.int64()),
            "shop": [shops[i // 5 % 5] for i in range(len(times))],
        }
    )
    path, out = tmp_path / "spine.parquet", tmp_path / "out.parquet"
    pq.write_table(spine, path)
    asked = ["kept_spend:*", "kept_pairs:*"]
    build_training_set(
        kept.settings, kept.plan, path, asked, out, engine="local", hindsight=hindsight
    )
    written = pq.read_table(out)
    for view in kept.plan.views.values():
        entities = list(zip(*(spine.column(k).to_pylist() for k in view.join_keys), strict=True))
        for feature in view.features:
            got = [as_ms(value) for value in written.column(feature.name).to_pylist()]
            want = [
                kept.expected(view, feature, entity, q_ms, hindsight=hindsight)
                for entity, q_ms in zip(entities, times, strict=True)
            ]
            wrong = [pair for pair in zip(got, want, strict=True) if not agree(*pair)]
            assert not wrong, (feature.name, wrong[:3])
            assert any(value not in {None, 0} for value in want), f"{feature.name} shows nothing"


@pytest.mark.parametrize("sealed", [False, True])
def test_tiles_of_then_merge_with_tiles_of_today(
    kept: Kept,
    view: ViewPlan,
    sealed: bool,  # noqa: FBT001
) -> None:
    document, also = serving_plan(view), next_day()
    online, packer = OnlineView.from_plan(document), TilePacker(codec_of(document, "tile"))
    lake, topic = tiles_of_the_lake(kept, view, sealed=sealed), tiles_of_the_topic(kept, view)
    today = tiles_today(view, also)
    compared = 0
    for entity, key in kept.keys(view).items():
        tiles = dict(lake.get(key, {}))
        tiles |= {field: t for field, t in topic.get(key, {}).items() if is_fine(field)}
        for start_ms, tile in today.get(entity, {}).items():
            values = [tile[slot.name] for slot in online.tiles.slots]
            tiles[tile_field(start_ms)] = packer.pack(values, tile[LAST_EVENT])
        for q_ms in range(BATCH_END_MS, BATCH_END_MS + 3 * DAY_MS, DAY_MS // 7):
            row = online.merge(tiles, q_ms)
            for got, feature in zip(row.values, view.features, strict=False):
                want = kept.expected(view, feature, entity, q_ms, also=also)
                assert agree(got, want), (feature.name, entity, q_ms)
                compared += want not in {None, 0}
    assert compared > 50


def test_records_of_the_tile_topic_are_packed_as_they_were(kept: Kept, view: ViewPlan) -> None:
    store, compared = kept.store(), 0
    for key, tiles in tiles_of_the_topic(kept, view).items():
        for field, packed in tiles.items():
            if is_fine(field):
                assert store[key][field] == packed
                compared += 1
    assert compared > 5


def test_jobs_that_run_are_left_alone_whatever_this_build_compiles(
    kept: Kept, tmp_path: Path
) -> None:
    (tmp_path / "runner.jar").write_bytes(b"functions")
    settings = replace(kept.settings, home=tmp_path)
    engines = FakeEngines(settings, FakeFlink(tmp_path / "flink" / "checkpoints"))
    own = tuple(str(folder) for folder in settings.views)
    records = {
        name: replace(record, folders=own)
        for name, record in RecordFiles.of(kept.settings.home).read_all().items()
    }
    assert records.keys() == set(VIEWS)
    for name, record in records.items():
        view = kept.plan.view(name)
        assert (record.fingerprint, record.serving) == (view.fingerprint, serving_plan(view))
        engines.fake.states[record.job_id] = "RUNNING"
    engines.memory.hashes |= {k: v for k, v in kept.store().items() if k == PLANS_KEY}
    declared = declared_of(records, kept.plan, settings, has_faults=False)
    facts = survey(engines, kept.plan, records).facts
    assert facts.keys() == set(VIEWS)
    assert decide(records, declared, facts, engines.now_ms()) == []


def upserts(tiles: Sequence[bytes], partition: int, first: int) -> list[Any]:
    """Return records of a partition of a tile topic, from an offset on."""
    return [
        SimpleNamespace(
            value=partial(bytes, data),
            partition=lambda: partition,
            offset=partial(int, first + place),
        )
        for place, data in enumerate(tiles)
    ]


@dataclass(frozen=True)
class Store:
    """A store with what was kept of one."""

    url: str
    client: "Redis"


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with running_store() as started:
        yield started


@pytest.fixture
def store(server: Any, kept: Kept) -> Store:
    client = client_of(server)
    client.flushall()
    for key, content in kept.store().items():
        if isinstance(content, dict):
            client.hset(key, mapping=content)
        else:
            client.set(key, content)
    return Store(server.connection_url, client)


def answers(kept: Kept, store: Store, *, from_tiles: bool = False) -> list[Any]:
    """Ask what was asked then, at the same instants; of rows, or where there are none of tiles."""
    if from_tiles:
        rows = [key for key, content in kept.store().items() if isinstance(content, bytes)]
        assert rows
        store.client.delete(*rows)
    return [lookup(store, told) for told in kept.read("answers.json")]


def lookup(store: Store, told: Any) -> Any:
    first = next(iter(told["results"]))
    view = "kept_pairs" if isinstance(first["key"], dict) else "kept_spend"
    body = {
        "entity_name": SERVED[view],
        "keys": [one["key"] for one in told["results"]],
        "features": [{"name": f"{view}:{name.rpartition(':')[2]}"} for name in first["features"]],
    }
    instant = as_ms(datetime.fromisoformat(told["as_of"]))

    async def ask(client: Client) -> Any:
        # A machine that is busy may be slow to connect; the server then says that the store is away.
        deadline = time.monotonic() + 60
        while (reply := await client.post("/v1/features:lookup", body)).status == 503:
            assert time.monotonic() < deadline, reply.json
            await asyncio.sleep(0.05)
        return reply.json

    return served(store.url, ask, now_ms=lambda: instant - 1)


def values_of(told: Any) -> list[Any]:
    return [list(one["features"].values()) for one in told["results"]]


def are_the_same(now: Any, was: Any) -> bool:
    """Compare answers: all to the letter, but doubles of added ones to what the contract promises."""
    pairs = [
        (served, before)
        for one, other in zip(now, was, strict=True)
        for mine, theirs in zip(values_of(one), values_of(other), strict=True)
        for served, before in zip(mine, theirs, strict=True)
    ]
    assert [{**one, "value": None} for one, _ in pairs] == [
        {**one, "value": None} for _, one in pairs
    ]
    return all(_is_near(one["value"], other["value"]) for one, other in pairs)


def _is_near(now: Any, was: Any) -> bool:
    if isinstance(now, float) and isinstance(was, float):
        return math.isclose(now, was, rel_tol=1e-9)
    return bool(now == was and type(now) is type(was))


@pytest.mark.services
@pytest.mark.parametrize("from_tiles", [False, True])
def test_what_the_store_holds_is_answered_as_it_was(
    kept: Kept,
    store: Store,
    from_tiles: bool,  # noqa: FBT001
) -> None:
    was = kept.read("answers.json")
    now = answers(kept, store, from_tiles=from_tiles)
    assert are_the_same(now, was)


@pytest.mark.services
def test_the_writer_goes_on_where_the_one_before_it_stopped(
    kept: Kept, store: Store, view: ViewPlan
) -> None:
    version = kept.published(view.name)
    counted: dict[int, int] = {}
    for record in kept.records(view):
        counted[record["partition"]] = record["offset"] + 1
    feed, writer = Feed(version, tuple(counted)), open_online_store(store.url)
    feed.take(writer.claims.claim(feed.topic, feed.partitions))
    assert {p: feed.resume(p, 0) for p in counted} == counted, "nothing is read again"
    also = next_day()
    now_ms = BATCH_END_MS + 2 * DAY_MS
    tiles = [
        record_of(view, entity, start_ms, tile)
        for entity, by_start in tiles_today(view, [*kept.rows, *also]).items()
        for start_ms, tile in by_start.items()
        if None not in entity and start_ms >= BATCH_END_MS
    ]
    partition = next(iter(counted))
    first = counted[partition]
    batch = upserts(tiles, partition, first)
    writes = feed.writes(batch, {partition: first + len(batch)}, now_ms)
    writer.tiles.send(list(writes.values()))
    writer.tiles.receive()
    writer.close()
    assert feed.skipped == 0
    online, compared = OnlineView.from_plan(version.plan), 0
    for entity, key in kept.keys(view).items():
        stored: Any = store.client.hgetall(key)
        row = online.merge({f: t for f, t in stored.items() if len(f) == 8}, now_ms)
        for got, feature in zip(row.values, view.features, strict=False):
            want = kept.expected(view, feature, entity, now_ms, also=also)
            assert agree(got, want), (feature.name, entity)
            compared += want not in {None, 0}
    assert compared > 10


@pytest.mark.services
def test_an_upload_of_the_lake_changes_no_answer(kept: Kept, store: Store, tmp_path: Path) -> None:
    env = replace(kept.settings, store_url=store.url, home=tmp_path)
    for name in VIEWS:
        version = kept.published(name)
        report = upload(env, kept.plan, name, lambda _: None, now_ms=version.published_at_ms)
        assert (report.version, report.missing_days) == ("v1", ())
        assert report.cut_over_ms == version.cut_over_ms == BATCH_END_MS
        assert report.sealed_before_ms == version.sealed_before_ms
    was = kept.read("answers.json")
    now = answers(kept, store, from_tiles=True)
    assert are_the_same(now, was)


@pytest.mark.services
def test_the_lake_is_continued_day_by_day(settings: Settings, tmp_path: Path) -> None:
    kept, also = Kept.unpack(tmp_path / "kept"), next_day()
    there = kept.settings
    own = replace(settings, lake=there.lake, data=there.data, views=there.views)
    file = kept.folder / "payments.parquet"
    before = pq.read_table(file)
    columns = [
        {**row, "paid_at": _instant(row["paid_at"]), "seen_at": _instant(row["seen_at"])}
        for row in also
    ]
    pq.write_table(pa.concat_tables([before, pa.Table.from_pylist(columns, before.schema)]), file)
    # The stream's last day, of which there are archived events alone, and one of the file.
    days, offline = Days(date(2026, 11, 30), date(2026, 12, 2)), LakeBuilds(own)
    views = list(kept.plan.views.values())
    for report in (
        offline.build_events(views[0].source, views, days, progress=lambda _: None),
        *(offline.build_tiles(view, days, progress=lambda _: None) for view in views),
        *(offline.build_features(view, days, progress=lambda _: None) for view in views),
    ):
        assert [outcome.day for outcome in report.outcomes] == [*days], report.table
        assert not any(outcome.error for outcome in report.outcomes)
    continued = replace(kept, settings=own)
    for view in views:
        table = DeltaTable(f"{own.lake}/features/{view.name}/v1").to_pyarrow_table()
        assert set(table["event_date"].to_pylist()) == {*Days(view.start, days.end)}
        for row in table.to_pylist():
            entity, q_ms = tuple(row[k] for k in view.join_keys), as_ms(row["event_time"])
            for feature in view.features:
                want = kept.expected(view, feature, entity, q_ms, also=also, hindsight=False)
                assert agree(as_ms(row[feature.name]), want), (feature.name, row)
        online = OnlineView.from_plan(serving_plan(view))
        lake = tiles_of_the_lake(continued, view, sealed=True)
        for entity, key in kept.keys(view).items():
            merged = online.merge(lake.get(key, {}), days.end_ms)
            for got, feature in zip(merged.values, view.features, strict=False):
                want = kept.expected(view, feature, entity, days.end_ms, also=also)
                assert agree(got, want), (feature.name, entity)


def _instant(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC)
