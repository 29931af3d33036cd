"""The upload: what the store answers after it is what the lake says, for every later instant."""

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from deltalake import write_deltalake
from redis import Redis

from checks.parity.history_served import served_history
from cli import upload as command
from cli.main import build_app
from jobs.streams.uploads import look
from millrace.codec import online_key, read_tile_field
from millrace.compile.serving import serving_plan
from millrace.durations import DAY_MS, HOUR_MS
from millrace.errors import DataError, NotDeclared, PlanError
from millrace.kernel.arrow import arrow_type
from millrace.names import tile_topic
from millrace.online.view import OnlineView
from millrace.plan import Plan, ViewPlan
from millrace.published import PLANS_KEY, PublishedVersion, PublishedView
from millrace.tiles import merge_tiles
from offline.tables.history import find_history
from resources.declarations import load_valid_plan
from resources.settings import Settings, settings_from_env
from resources.store.publications import ServerPublications
from serving.catalog import served_view
from streaming.engines import Engines
from streaming.publications.uploaded_views import drop_retired, withdraw_upload
from streaming.upload import batch_tiles
from streaming.upload.upload import UploadReport, upload
from tests.support.store_server import StoreServer
from tests.support.tile_lakes import (
    DECLARATIONS,
    START,
    START_MS,
    Tiles,
    build,
    plan_of,
    random_tiles,
    touch_events,
)

pytestmark = pytest.mark.services

DAYS = 20
NOW_MS = START_MS + DAYS * DAY_MS + 7 * HOUR_MS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreServer]:
    own = StoreServer(tmp_path_factory.mktemp("store"))
    own.start().close()
    yield own
    own.stop()


@pytest.fixture
def settings(server: StoreServer, tmp_path: Path) -> Settings:
    env = {
        "MILLRACE_HOME": str(tmp_path / "home"),
        "MILLRACE_VIEWS": str(tmp_path / "views"),
        "MILLRACE_STORE_URL": server.url,
    }
    return replace(settings_from_env(env), views=(tmp_path / "views",))


@pytest.fixture
def store(server: StoreServer) -> Iterator[Redis]:
    client = server.start() if server.is_down else server.client()
    client.flushall()
    yield client
    client.close()


def days(first: int, end: int) -> list[date]:
    return [START + timedelta(days=n) for n in range(first, end)]


def publish(store: Redis, view: ViewPlan) -> None:
    version = PublishedVersion(
        version="v1",
        fingerprint=view.fingerprint,
        plan=serving_plan(view),
        tile_topic=tile_topic(view),
        source_topic="uploads",
        flink_group="flink",
        state="live",
        cut_over_ms=None,
        sealed_before_ms=None,
        published_at_ms=0,
    )
    text = PublishedView(view.name, ("shopper",), "v1", (version,)).to_json()
    store.hset(PLANS_KEY, f"view:{view.name}", text)


def published_in(store: Redis) -> dict[str, PublishedView]:
    return ServerPublications(store).read().views


def tiles_of(store: Redis, view: ViewPlan, shopper: str) -> dict[bytes, bytes]:
    join_keys = [(e.join_key, e.type) for e in view.entities]
    held: Any = store.hgetall(
        online_key("tile", view.name, view.fingerprint, join_keys, {"shopper": shopper})
    )
    return {field: tile for field, tile in held.items() if len(field) == 8}


def run(settings: Settings, name: str, **options: Any) -> UploadReport:
    said: list[str] = []
    return upload(settings, plan_of(settings), name, said.append, **{"now_ms": NOW_MS, **options})


def assert_answers(store: Redis, view: ViewPlan, tiles: Tiles, seed: int = 1) -> None:
    """The stored tiles give what the fine ones give, at instants from the upload on."""
    chance, online = random.Random(seed), OnlineView.from_plan(serving_plan(view))
    for shopper, fine in tiles.items():
        stored = tiles_of(store, view, shopper)
        for _ in range(12):
            q_ms = NOW_MS + chance.randrange(9 * DAY_MS)
            row = online.merge(stored, q_ms)
            for place, feature in enumerate(view.features):
                tail, end = feature.window.bounds(q_ms)
                inside = [t for s, t in fine.items() if s < end and (tail is None or s >= tail)]
                want = merge_tiles(feature, inside, q_ms)
                got = feature.aggregate.value_at(q_ms, row.values[place])
                if isinstance(want, float):
                    assert math.isclose(got, want, rel_tol=1e-9, abs_tol=1e-9), feature.name
                else:
                    assert got == want, feature.name


@pytest.mark.parametrize("name", ["upload_windows", "upload_lifetimes"])
def test_what_was_uploaded_answers_as_the_lake_does(
    name: str, settings: Settings, store: Redis
) -> None:
    view = plan_of(settings).view(name)
    publish(store, view)
    tiles = random_tiles(view, 1, DAYS)
    build(settings, view, tiles, days(0, DAYS))
    report = run(settings, name)
    assert_answers(store, view, tiles)
    assert report.cut_over_ms == START_MS + DAYS * DAY_MS
    assert report.sealed_before_ms == START_MS + (DAYS - 1) * DAY_MS
    assert report.missing_days == report.outdated_days == ()
    assert 0 < report.tiles < report.rows
    published = published_in(store)[name].versions[0]
    assert published.cut_over_ms == report.cut_over_ms
    assert published.sealed_before_ms == report.sealed_before_ms


def test_the_old_part_of_a_lifetime_is_one_tile(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    publish(store, view)
    tiles = random_tiles(view, 1, DAYS, shoppers=1)
    build(settings, view, tiles, days(0, DAYS))
    run(settings, view.name)
    starts = sorted(map(read_tile_field, tiles_of(store, view, "shopper 0")))
    assert starts[0] == START_MS
    # A lifetime with an offset of a day still has to pass the last two days.
    assert starts[1] >= START_MS + (DAYS - 2) * DAY_MS


def test_uploading_day_by_day_ends_where_one_upload_ends(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    tiles = random_tiles(view, 2, DAYS)
    build(settings, view, tiles, days(0, DAYS))
    publish(store, view)
    run(settings, view.name)
    at_once = {shopper: tiles_of(store, view, shopper) for shopper in tiles}
    store.flushall()
    publish(store, view)
    for day in range(1, DAYS + 1):
        now_ms = START_MS + day * DAY_MS + 7 * HOUR_MS
        run(settings, view.name, until=START + timedelta(days=day), now_ms=now_ms)
    by_day = {shopper: tiles_of(store, view, shopper) for shopper in tiles}
    assert {s: set(t) for s, t in by_day.items()} == {s: set(t) for s, t in at_once.items()}
    assert_answers(store, view, tiles)


def test_parity_names_days_whose_tiles_were_not_built_or_not_uploaded(
    settings: Settings, store: Redis
) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    publish(store, view)
    build(settings, view, random_tiles(view, 1, DAYS), days(0, DAYS))
    with_events = days(0, DAYS + 1)
    declared = {c.name: pa.nulls(DAYS + 1, arrow_type(c.type)) for c in view.source.columns}
    rows = {**declared, "event_date": pa.array(with_events), "_event_ms": [0] * (DAYS + 1)}
    table = f"{settings.lake}/events/{view.source.name}"
    write_deltalake(table, pa.table(rows), partition_by=["event_date"])
    history = find_history(settings, view, pa.array([NOW_MS + DAY_MS]))
    assert served_history(settings, view, "v1", history).not_uploaded == tuple(days(0, DAYS))
    run(settings, view.name, until=START + timedelta(days=3))
    served = served_history(settings, view, "v1", history)
    assert served.not_uploaded == tuple(days(3, DAYS))
    assert served.without_tiles == tuple(days(DAYS, DAYS + 1))
    assert served.hint is not None
    assert f"not uploaded, so what is served lacks them: millrace upload {view.name}" in served.hint


def test_the_same_upload_again_changes_nothing(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_windows")
    publish(store, view)
    tiles = random_tiles(view, 3, DAYS)
    build(settings, view, tiles, days(0, DAYS))
    first = run(settings, view.name)
    before = {key: store.hgetall(key) for key in store.scan_iter(b"m1{*}T*")}
    assert len(before) == first.entities
    second = run(settings, view.name)
    assert {key: store.hgetall(key) for key in store.scan_iter(b"m1{*}T*")} == before
    assert (second.tiles, second.kept) == (first.tiles, 0)


def test_only_what_a_window_reaches_is_uploaded(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_windows")
    publish(store, view)
    tiles = random_tiles(view, 4, DAYS)
    reach_from = START_MS + DAYS * DAY_MS - 7 * DAY_MS - DAY_MS
    tiles["long gone"] = {
        start: tile for start, tile in tiles["shopper 0"].items() if start < reach_from
    }
    build(settings, view, tiles, days(0, DAYS))
    report = run(settings, view.name)
    assert report.days == 8
    assert tiles_of(store, view, "long gone") == {}
    assert report.entities == len(tiles) - 1


def test_a_gap_and_outdated_tiles_are_told_and_not_sealed(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    publish(store, view)
    tiles = random_tiles(view, 5, DAYS)
    build(settings, view, tiles, [*days(0, 10), *days(11, DAYS)])
    report = run(settings, view.name)
    assert report.missing_days == (START + timedelta(days=10),)
    assert report.sealed_before_ms == START_MS + 10 * DAY_MS
    store.flushall()
    publish(store, view)
    build(settings, view, tiles, days(10, 11))
    touch_events(settings, view, START + timedelta(days=4))
    report = run(settings, view.name)
    assert report.missing_days == ()
    assert report.outdated_days == (START + timedelta(days=4),)
    assert report.sealed_before_ms == START_MS + 4 * DAY_MS
    assert_answers(store, view, tiles)


def test_a_restated_lake_with_fewer_events_needs_replace(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    publish(store, view)
    more, fewer = random_tiles(view, 6, DAYS, events=600), random_tiles(view, 6, DAYS, events=300)
    build(settings, view, more, days(0, DAYS))
    run(settings, view.name)
    build(settings, view, fewer, days(0, DAYS))
    assert run(settings, view.name).kept > 0
    report = run(settings, view.name, is_replacing=True)
    assert report.kept == 0
    assert_answers(store, view, fewer)


def test_an_upload_in_many_shards_is_the_same(
    settings: Settings, store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = plan_of(settings).view("upload_lifetimes")
    publish(store, view)
    tiles = random_tiles(view, 7, DAYS, shoppers=60, events=1_000)
    build(settings, view, tiles, days(0, DAYS))
    monkeypatch.setattr(batch_tiles, "SHARD_ROWS", 100)
    monkeypatch.setattr(batch_tiles, "_SAMPLE_STEP", 3)
    report = run(settings, view.name)
    assert report.entities == len(tiles)
    assert report.rows == sum(map(len, tiles.values()))
    assert_answers(store, view, tiles)


def test_a_dry_run_counts_and_stores_nothing(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_windows")
    build(settings, view, random_tiles(view, 8, DAYS), days(0, DAYS))
    report = run(settings, view.name, is_dry_run=True)
    assert report.is_dry_run
    assert store.dbsize() == 0
    publish(store, view)
    real = run(settings, view.name)
    assert (real.tiles, real.bytes) == (report.tiles, report.bytes)


def test_what_cannot_be_uploaded_says_why(settings: Settings, store: Redis) -> None:
    view = plan_of(settings).view("upload_windows")
    with pytest.raises(NotDeclared, match="not published"):
        run(settings, view.name)
    publish(store, view)
    with pytest.raises(DataError, match="no day of the tiles of upload_windows is built"):
        run(settings, view.name)
    build(settings, view, random_tiles(view, 9, DAYS), days(0, DAYS))
    run(settings, view.name)
    with pytest.raises(DataError, match="coarse tiles of the days before 2024-01-20"):
        run(settings, view.name, until=START + timedelta(days=3))


def batch_plan(settings: Settings, **changes: str) -> Plan:
    """Return the plan with a source of files alone, and texts of it replaced."""
    text = DECLARATIONS.replace(
        "stream: {topic: uploads, format: json}", "batch: {format: csv, path: uploads.csv}"
    )
    for old, new in changes.items():
        text = text.replace(old, new)
    path = settings.views[0] / "uploads.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    plan, faults = load_valid_plan(settings)
    assert not faults
    return plan


@dataclass(frozen=True)
class EnginesAt(Engines):
    """Engines at an instant of the test's own."""

    at_ms: int = NOW_MS

    def now_ms(self) -> int:
        return self.at_ms


def test_a_view_without_a_stream_is_published_by_its_uploads(
    settings: Settings, store: Redis
) -> None:
    def uploaded(plan: Plan) -> UploadReport:
        return upload(settings, plan, "upload_windows", lambda _: None, now_ms=NOW_MS)

    plan = batch_plan(settings)
    view = plan.view("upload_windows")
    tiles = random_tiles(view, 11, DAYS)
    build(settings, view, tiles, days(0, DAYS))
    report = uploaded(plan)
    assert_answers(store, view, tiles)
    published = published_in(store)[view.name]
    served = served_view(published).version(None)
    assert (published.serving, served.version) == ("v1", "v1")
    assert served.progress_ms({}) == report.cut_over_ms == START_MS + DAYS * DAY_MS
    uploaded(plan)
    assert published_in(store)[view.name] == published

    # Another definition serves as soon as it is uploaded, and what it replaces is dropped later.
    changed = batch_plan(settings, weight_stddev_1d="weight_stddev_2d", count_1h="n_1h")
    newer = changed.view(view.name)
    build(settings, newer, random_tiles(newer, 11, DAYS), days(0, DAYS))
    uploaded(changed)
    versions = {v.version: v.state for v in published_in(store)[view.name].versions}
    assert (versions, published_in(store)[view.name].serving) == (
        {"v1": "retired", "v2": "live"},
        "v2",
    )
    later = EnginesAt(settings, NOW_MS + 601_000)
    assert drop_retired(EnginesAt(settings), view.name) == 0
    assert drop_retired(later, view.name) == 1
    assert tiles_of(store, view, "shopper 0") == {}
    assert tiles_of(store, newer, "shopper 0") != {}
    assert [v.version for v in published_in(store)[view.name].versions] == ["v2"]

    withdraw_upload(later, view.name)
    assert published_in(store) == {}
    assert list(store.scan_iter(b"m1{*}[RT]*")) == []


def test_a_view_that_is_kept_offline_is_not_uploaded(settings: Settings, store: Redis) -> None:
    plan = batch_plan(settings, **{"start: 2024-01-01": "start: 2024-01-01\n    online: false"})
    with pytest.raises(PlanError, match="is kept offline"):
        upload(settings, plan, "upload_windows", lambda _: None, now_ms=NOW_MS)


def test_the_sensor_follows_builds_and_definitions_of_uploaded_views(
    settings: Settings, store: Redis
) -> None:
    engines, cursor, instance = EnginesAt(settings), None, dg.DagsterInstance.ephemeral()
    now = datetime(2024, 1, 21, 7, tzinfo=UTC)

    def due() -> list[str]:
        nonlocal cursor
        found = look(engines, instance, cursor, now)
        cursor = found.cursor
        return [str(request.run_key).split("|")[1] for request in found.run_requests or []]

    plan = batch_plan(settings)
    view = plan.view("upload_windows")
    tiles = random_tiles(view, 12, DAYS + 1)
    build(settings, view, tiles, days(0, DAYS - 1))
    assert due() == []  # nobody asked for it to be served
    upload(settings, plan, view.name, lambda _: None, now_ms=NOW_MS)
    assert due() == []
    build(settings, view, tiles, days(DAYS - 1, DAYS))
    assert due() == ["built"]
    upload(settings, plan, view.name, lambda _: None, now_ms=NOW_MS)
    store.flushall()
    assert due()[0].startswith("lost at")
    upload(settings, plan, view.name, lambda _: None, now_ms=NOW_MS)

    changed = batch_plan(settings, count_1h="n_1h")
    newer = changed.view(view.name)
    build(settings, newer, random_tiles(newer, 12, DAYS), days(0, 2))
    assert due() == []  # it would know less than what is served
    build(settings, newer, random_tiles(newer, 12, DAYS), days(DAYS - 1, DAYS))
    assert due() == []  # the newest day alone, as the schedule builds it, is no history either
    build(settings, newer, random_tiles(newer, 12, DAYS), days(2, DAYS - 1))
    assert due() == ["version"]
    batch_plan(settings, **{"start: 2024-01-01": "start: 2024-01-01\n    online: false"})
    assert due() == ["withdraw"]


def test_the_command_prints_its_report(
    settings: Settings,
    store: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = plan_of(settings).view("upload_windows")
    publish(store, view)
    build(settings, view, random_tiles(view, 10, DAYS), days(0, DAYS))
    monkeypatch.setenv("MILLRACE_HOME", str(settings.home))
    monkeypatch.setenv("MILLRACE_VIEWS", str(settings.views[0]))
    monkeypatch.setenv("MILLRACE_LAKE", settings.lake)
    monkeypatch.setenv("MILLRACE_STORE_URL", settings.store_url or "")
    app = build_app()
    if "upload" not in {info.name for info in app.registered_commands}:
        command.register(app)
    app(["upload", view.name, "--until", "2024-01-15", "--json"], standalone_mode=False)
    report = json.loads(capsys.readouterr().out)
    assert report["view"] == "upload_windows"
    assert report["cut_over_ms"] == START_MS + 14 * DAY_MS
    assert report["entities"] == 6
    assert 0 < report["tiles"] <= report["rows"]
