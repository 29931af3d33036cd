"""What is asked of an online store, of the one in memory and of a server alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, Protocol

import pytest
from redis import Redis

from millrace.codec import Codec, Packed, key_head, key_tail, read_tile_field, tile_field
from millrace.errors import StoreError
from millrace.layouts import Slot
from millrace.packing import TilePacker
from millrace.published import PLANS_KEY, PROGRESS_KEY, PublishedVersion, PublishedView
from millrace.types import FLOAT64, INT64
from resources.store.errors import StoreMoved, Superseded
from resources.store.keys import CHANGES_FIELD, is_tile, marker_key, row_key_of, version_pattern
from resources.store.memory import MemoryStore
from resources.store.online import NO_MARKER, BatchTiles, OnlineStore, TileWrite
from resources.store.opening import open_online_store
from resources.store.tile_rules import SLACK_MS, TileRules
from tests.support.store_server import StoreServer

PRINT = "00ff10ef01fe80aa"
TOPIC, TAG, HOP = "tiles", 7, 60_000
CODEC = Codec("tile", PRINT, [Slot("rows", INT64), Slot("m0_sum", FLOAT64)])
PACKER = TilePacker(CODEC)
KEY = key_head(TAG) + key_tail("tile", "view", PRINT) + b"entity"
ROW = row_key_of(KEY)
FOR_EVER = TileRules(PACKER.rows_at, None)
AN_HOUR = TileRules(PACKER.rows_at, 3_600_000)
VERSION = PublishedVersion("v1", PRINT, {"view": "view"}, TOPIC, "in", "job", "live", None, None, 0)
VIEW = PublishedView("view", ("entity",), "v1", (VERSION,))


class World(Protocol):
    """A store, and what no client of it sees or does."""

    def client(self) -> OnlineStore: ...

    def hash(self, key: bytes) -> dict[bytes, bytes]: ...

    def set_field(self, key: bytes, name: bytes, value: bytes) -> None: ...

    def put_row(self, key: bytes) -> None: ...

    def has_row(self, key: bytes) -> bool: ...

    def expires_in_ms(self, key: bytes) -> int | None: ...

    def keys(self) -> int: ...

    def clear(self) -> None: ...


@dataclass
class InMemory:
    clock: Iterator[int] = field(default_factory=lambda: count(1_700_000_000_000))

    def __post_init__(self) -> None:
        self.content = MemoryStore(lambda: next(self.clock))

    def client(self) -> OnlineStore:
        return self.content.online()

    def hash(self, key: bytes) -> dict[bytes, bytes]:
        return self.content.read(key)

    def set_field(self, key: bytes, name: bytes, value: bytes) -> None:
        self.content.write(key, {name: value})

    def put_row(self, key: bytes) -> None:
        self.content.rows[key] = b"merged"

    def has_row(self, key: bytes) -> bool:
        return key in self.content.rows

    def expires_in_ms(self, key: bytes) -> int | None:
        at_ms = self.content.expires_at_ms.get(key)
        return None if at_ms is None else at_ms - self.content.now_ms()

    def keys(self) -> int:
        return len(self.content.hashes) + len(self.content.rows)

    def clear(self) -> None:
        self.content.clear()


@dataclass
class OnServer:
    url: str
    redis: Redis
    clients: list[OnlineStore] = field(default_factory=list)

    def client(self) -> OnlineStore:
        self.clients.append(open_online_store(self.url))
        return self.clients[-1]

    def hash(self, key: bytes) -> dict[bytes, bytes]:
        held: Any = self.redis.hgetall(key)
        return dict(held)

    def set_field(self, key: bytes, name: bytes, value: bytes) -> None:
        self.redis.hset(key, name, value)

    def put_row(self, key: bytes) -> None:
        self.redis.set(key, b"merged")

    def has_row(self, key: bytes) -> bool:
        return bool(self.redis.exists(key))

    def expires_in_ms(self, key: bytes) -> int | None:
        left: Any = self.redis.pttl(key)
        return None if left < 0 else int(left)

    def keys(self) -> int:
        found: Any = self.redis.dbsize()
        return int(found)

    def clear(self) -> None:
        self.redis.flushall()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnServer]:
    own = StoreServer(tmp_path_factory.mktemp("store"))
    yield OnServer(own.url, own.start())
    own.stop()


@pytest.fixture(params=["memory", pytest.param("server", marks=pytest.mark.services)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    on_server: OnServer = request.getfixturevalue("server")
    on_server.clear()
    yield on_server
    while on_server.clients:
        on_server.clients.pop().close()


@pytest.fixture
def store(world: World) -> OnlineStore:
    return world.client()


def packed(rows: int, total: float = 1.5) -> bytes:
    return PACKER.pack((rows, total), 5)


def reaching(start_ms: int) -> tuple[TileRules, int]:
    """Return rules, and an instant at which no window reaches tiles before another."""
    return TileRules(PACKER.rows_at, HOP), start_ms + HOP + SLACK_MS


def tile_write(
    tiles: Mapping[int, bytes],
    *,
    known: int = NO_MARKER,
    end: int = 1,
    epoch: int = 1,
    rules: TileRules = FOR_EVER,
    now_ms: int = 0,
) -> TileWrite:
    listed = [part for start, tile in tiles.items() for part in (tile_field(start), tile)]
    held = {KEY: listed} if tiles else {}
    return TileWrite(TOPIC, TAG, epoch, {0: (known, end)}, held, rules, now_ms)


def write(store: OnlineStore, tiles: Mapping[int, bytes], **options: Any) -> None:
    store.tiles.send([tile_write(tiles, **options)])
    store.tiles.receive()


def claim(store: OnlineStore, epoch: int = 1) -> int:
    """Claim the partition, and return its marker on the tag."""
    return store.claims.claim(TOPIC, [0], epoch).markers[TAG][0]


def upload(
    store: OnlineStore,
    tiles: Sequence[tuple[int, int | None, bytes]],
    *,
    sealed: int | None,
    rules: TileRules = FOR_EVER,
    now_ms: int = 0,
) -> tuple[int, int]:
    parts = [
        (tile_field(start), b"" if end is None else tile_field(end), tile)
        for start, end, tile in tiles
    ]
    return store.uploads.upload(BatchTiles(TOPIC, sealed, rules, now_ms), {TAG: [(KEY, parts)]})


def tiles_in(world: World) -> dict[int, tuple[Any, ...]]:
    held = {read_tile_field(f): tile for f, tile in world.hash(KEY).items() if is_tile(f)}
    return {start: CODEC.decode(tile).values for start, tile in sorted(held.items())}


def counter(world: World) -> int:
    return int(world.hash(KEY).get(CHANGES_FIELD, 0))


def test_a_claim_tells_where_the_store_stands(store: OnlineStore) -> None:
    assert claim(store) == NO_MARKER
    write(store, {0: packed(1)}, end=9)
    found = store.claims.claim(TOPIC, [1, 0], 1)
    assert found.markers[TAG] == [NO_MARKER, 9]
    assert found.markers[TAG + 1] == [NO_MARKER, NO_MARKER]
    assert len(found.markers) == 256


def test_a_new_claim_is_above_all_earlier(store: OnlineStore) -> None:
    far_ms = 9_000_000_000_000
    store.claims.claim(TOPIC, [1], far_ms)
    assert store.claims.claim(TOPIC, [0, 1]).epoch == far_ms + 1
    assert store.claims.claim("another", [0]).epoch < far_ms


def test_markers_of_a_topic_begun_anew_are_forgotten(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(1)}, end=9)
    store.claims.forget(TOPIC, 0)
    assert claim(store) == NO_MARKER
    write(store, {0: packed(2)}, end=1)
    assert tiles_in(world) == {0: (2, 1.5)}


def test_a_tile_its_marker_and_its_counter_come_together_and_the_row_goes(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    world.put_row(ROW)
    write(store, {0: packed(1), HOP: packed(2)}, end=12)
    assert tiles_in(world) == {0: (1, 1.5), HOP: (2, 1.5)}
    assert world.hash(marker_key(TAG)) == {b"tiles/0": b"12", b"epoch/tiles/0": b"1"}
    assert not world.has_row(ROW)
    before = counter(world)
    write(store, {0: packed(3)}, known=12, end=13)
    assert counter(world) == before + 1


def test_a_hash_that_is_made_again_counts_on_from_elsewhere(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    write(store, {0: packed(1)})
    before = counter(world)
    assert before > 1
    world.clear()
    claim(store)
    write(store, {0: packed(1)})
    assert counter(world) != before


def test_a_replayed_batch_changes_nothing(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(4)}, end=5)
    before = counter(world)
    world.put_row(ROW)
    for known in (NO_MARKER, 4):
        with pytest.raises(StoreMoved):
            write(store, {0: packed(5), HOP: packed(1)}, known=known, end=9)
    assert tiles_in(world) == {0: (4, 1.5)}, "a refused write does nothing at all"
    write(store, {0: packed(4)}, known=5, end=6)
    assert counter(world) == before
    assert world.has_row(ROW), "a tile that is there already changes nothing"


def test_fewer_rows_never_replace_more(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(300)}, end=1)
    write(store, {0: packed(255)}, known=1, end=2)
    assert tiles_in(world) == {0: (300, 1.5)}
    write(store, {0: packed(300, 2.5)}, known=2, end=3)
    assert tiles_in(world) == {0: (300, 2.5)}, "as many rows do"


def test_an_older_writer_is_refused(world: World, store: OnlineStore) -> None:
    newer = world.client()
    claim(store, epoch=1_700_000_000_000)
    write(store, {0: packed(1)}, end=1, epoch=1_700_000_000_000)
    assert claim(newer, epoch=1_700_000_000_001) == 1
    with pytest.raises(Superseded, match="a newer writer has taken over") as caught:
        write(store, {0: packed(2)}, known=1, end=2, epoch=1_700_000_000_000)
    assert caught.value.where == TOPIC
    with pytest.raises(Superseded):
        claim(store, epoch=1_700_000_000_000)
    assert tiles_in(world) == {0: (1, 1.5)}
    write(newer, {0: packed(2)}, known=1, end=2, epoch=1_700_000_000_001)
    assert tiles_in(world) == {0: (2, 1.5)}


def test_a_writer_that_claimed_nothing_stores_nothing(world: World, store: OnlineStore) -> None:
    with pytest.raises(StoreMoved):
        write(store, {0: packed(1)})
    assert world.keys() == 0


def test_an_emptied_store_refuses_what_would_leave_a_gap(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(1)}, end=1)
    world.clear()
    with pytest.raises(StoreMoved):
        write(store, {HOP: packed(1)}, known=1, end=2)
    assert tiles_in(world) == {}


def test_of_a_batch_each_write_follows_from_the_one_before(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    store.tiles.send(
        [
            tile_write({0: packed(1)}, end=1),
            tile_write({0: packed(9)}, known=7, end=8),
            tile_write({0: packed(2)}, known=1, end=2),
        ]
    )
    with pytest.raises(StoreMoved):
        store.tiles.receive()
    store.tiles.hang_up()
    assert claim(store) == 2
    write(store, {HOP: packed(1)}, known=2, end=3)
    assert tiles_in(world) == {0: (2, 1.5), HOP: (1, 1.5)}


def test_what_was_sent_and_given_up_is_not_waited_for(store: OnlineStore) -> None:
    claim(store)
    store.tiles.send([tile_write({}, known=5, end=8)])
    store.tiles.hang_up()
    store.tiles.receive()


def test_a_write_without_tiles_moves_the_marker(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {}, end=40)
    assert world.hash(marker_key(TAG)) == {b"epoch/tiles/0": b"1", b"tiles/0": b"40"}


def test_instants_before_1970_are_ordered_as_time_is(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {-HOP: packed(1), 0: packed(1)}, end=1)
    upload(store, [(0, None, packed(5))], sealed=0)
    write(store, {-HOP: packed(7), 0: packed(7)}, known=1, end=2)
    assert tiles_in(world) == {-HOP: (1, 1.5), 0: (7, 1.5)}


def test_keys_outlive_their_reach_and_those_of_lifetimes_for_ever(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    write(store, {0: packed(1)}, rules=AN_HOUR)
    left_ms = world.expires_in_ms(KEY)
    assert left_ms is not None
    assert 3_600_000 < left_ms <= AN_HOUR.expiry_ms == 3_600_000 + SLACK_MS
    assert world.expires_in_ms(marker_key(TAG)) is None
    world.clear()
    claim(store)
    write(store, {0: packed(1)}, rules=FOR_EVER)
    assert world.expires_in_ms(KEY) is None
    assert FOR_EVER.horizon_ms(5) is None


def test_tiles_out_of_reach_are_dropped_now_and_then(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(1), 90 * HOP: packed(1)}, end=1)
    rules, now_ms = reaching(60 * HOP)
    for n in range(1, 70):
        write(store, {90 * HOP: packed(1 + n)}, known=n, end=n + 1, rules=rules, now_ms=now_ms)
    assert list(tiles_in(world)) == [90 * HOP]


def test_a_coarse_tile_takes_the_place_of_what_it_covers(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {start * HOP: packed(2) for start in range(6)}, end=1)
    world.put_row(ROW)
    coarse = [(0, 3 * HOP, packed(6)), (3 * HOP, 4 * HOP, packed(2)), (4 * HOP, None, packed(9))]
    assert upload(store, coarse, sealed=4 * HOP) == (3, 0)
    merged = {0: (6, 1.5), 3 * HOP: (2, 1.5), 4 * HOP: (9, 1.5), 5 * HOP: (2, 1.5)}
    assert tiles_in(world) == merged
    assert not world.has_row(ROW)
    before = counter(world)
    assert upload(store, coarse, sealed=4 * HOP) == (3, 0)
    assert counter(world) == before, "the same upload again changes nothing"
    write(store, {HOP: packed(2)}, known=1, end=2)
    assert HOP not in tiles_in(world), "the stream writes no sealed tile"


def test_wider_coarse_tiles_swallow_narrower_ones(world: World, store: OnlineStore) -> None:
    upload(store, [(0, 2 * HOP, packed(4)), (2 * HOP, 3 * HOP, packed(1))], sealed=3 * HOP)
    upload(store, [(0, 3 * HOP, packed(5))], sealed=4 * HOP)
    assert tiles_in(world) == {0: (5, 1.5)}


def test_a_coarse_tile_with_fewer_rows_than_it_covers_gives_way(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    write(store, {0: packed(2), HOP: packed(5), 8 * HOP: packed(1)}, end=1)
    coarse = [(0, 2 * HOP, packed(6)), (8 * HOP, 9 * HOP, packed(1))]
    assert upload(store, coarse, sealed=9 * HOP) == (1, 1)
    assert tiles_in(world) == {0: (2, 1.5), HOP: (5, 1.5), 8 * HOP: (1, 1.5)}


def test_an_upload_without_a_seal_gives_way_tile_by_tile(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(2), HOP: packed(5)}, end=1)
    assert upload(store, [(0, None, packed(3)), (HOP, None, packed(4))], sealed=None) == (1, 1)
    assert tiles_in(world) == {0: (3, 1.5), HOP: (5, 1.5)}
    assert store.uploads.sealed_before_ms(TOPIC) is None


def test_an_upload_leaves_what_it_does_not_know_and_drops_what_is_out_of_reach(
    world: World, store: OnlineStore
) -> None:
    claim(store)
    write(store, {0: packed(2), 5 * HOP: packed(3), 7 * HOP: packed(1)}, end=1)
    rules, now_ms = reaching(4 * HOP)
    upload(store, [(6 * HOP, 8 * HOP, packed(4))], sealed=9 * HOP, rules=rules, now_ms=now_ms)
    assert tiles_in(world) == {5 * HOP: (3, 1.5), 6 * HOP: (4, 1.5)}
    assert world.expires_in_ms(KEY) is not None


def test_a_seal_is_never_moved_back(world: World, store: OnlineStore) -> None:
    upload(store, [(0, 2 * HOP, packed(1))], sealed=4 * HOP)
    upload(store, [(0, 2 * HOP, packed(1))], sealed=2 * HOP)
    assert store.uploads.sealed_before_ms(TOPIC) == 4 * HOP
    store.uploads.upload(BatchTiles(TOPIC, 6 * HOP, FOR_EVER, 0), {3: []})
    assert store.uploads.sealed_before_ms(TOPIC) == 6 * HOP, "of any tag the latest"
    store.uploads.settle()


def test_clearing_deletes_tiles_before_an_instant(world: World, store: OnlineStore) -> None:
    claim(store)
    write(store, {0: packed(1), HOP: packed(1), 2 * HOP: packed(1)}, end=1)
    world.put_row(ROW)
    assert store.uploads.clear(("views", PRINT), 9 * HOP) == 0
    assert store.uploads.clear(("view", PRINT), 2 * HOP) == 2
    assert tiles_in(world) == {2 * HOP: (1, 1.5)}
    assert not world.has_row(ROW)


def test_a_dropped_version_leaves_nothing_and_takes_nothing_of_another(
    world: World, store: OnlineStore
) -> None:
    # Each byte of the fingerprint means something in a pattern; the other one would match it.
    version, other = ("view", "2a3f5b5d5c000102"), ("view", "ff3f5b5d5c000102")
    heads = [key_tail("tile", *one) for one in (version, other)]
    many = [key_head(n % 256) + heads[0] + b"%d" % n for n in range(2_500)]
    kept = key_head(TAG) + heads[1] + b"0"
    for key in (*many, kept):
        world.set_field(key, tile_field(0), packed(1))
    world.put_row(row_key_of(many[0]))
    world.put_row(row_key_of(kept))
    store.claims.claim(TOPIC, [0], 1)
    store.claims.claim(TOPIC + ".v2", [0], 1)
    store.uploads.upload(BatchTiles(TOPIC, HOP, FOR_EVER, 0), {TAG: []})
    store.progress.report({version: {"at_ms": 1}, other: {"at_ms": 2}})
    assert store.versions.drop(version, TOPIC) == 2_501
    assert world.hash(kept)
    assert world.has_row(row_key_of(kept))
    assert world.hash(marker_key(TAG)) == {b"epoch/tiles.v2/0": b"1"}
    assert store.progress.read() == {other: {"at_ms": 2}}
    assert store.versions.drop(version, TOPIC) == 0


def test_a_publication_is_read_as_it_was_written(world: World, store: OnlineStore) -> None:
    assert store.publications.read() == ({}, True)
    assert store.publications.amend("view", lambda found: VIEW if found is None else None) == VIEW
    assert world.client().publications.read_view("view") == VIEW
    assert world.hash(PLANS_KEY) == {b"view:view": VIEW.to_json().encode()}
    assert store.publications.read_view("another") is None
    store.publications.amend("view", lambda _: None)
    assert store.publications.read() == ({}, True)


def test_services_stand_beside_the_views(world: World, store: OnlineStore) -> None:
    store.publications.replace_services({"b": [("view", "n")], "a": []})
    assert world.hash(PLANS_KEY) == {b"services": b'{"a": [], "b": [["view", "n"]]}'}
    assert store.publications.read() == ({}, False)


def test_a_publication_that_stays_the_same_is_not_written(store: OnlineStore) -> None:
    store.publications.amend("view", lambda _: VIEW)
    asked = []

    def change(found: PublishedView | None) -> PublishedView | None:
        asked.append(found)
        return found

    assert store.publications.amend("view", change) == VIEW
    assert asked == [VIEW]


def test_a_publication_is_changed_again_if_another_writer_came_between(
    world: World, store: OnlineStore
) -> None:
    other, seen = world.client(), []

    def change(found: PublishedView | None) -> PublishedView:
        seen.append(found)
        if len(seen) == 1:
            other.publications.amend("view", lambda _: replace(VIEW, serving=None))
        return replace(found or VIEW, name="changed")

    stands = store.publications.amend("view", change)
    assert seen == [None, replace(VIEW, serving=None)]
    assert stands == replace(VIEW, serving=None, name="changed")
    assert store.publications.read_view("view") == stands


@pytest.mark.parametrize("text", [b"[", b'{"name": "\xff"}'])
def test_an_unreadable_publication_is_left_out_or_told(
    world: World, store: OnlineStore, text: bytes
) -> None:
    store.publications.amend("view", lambda _: VIEW)
    world.set_field(PLANS_KEY, b"view:odd", text)
    with pytest.raises(StoreError, match="a publication cannot be read"):
        store.publications.read()
    told: list[str] = []
    found = store.publications.read(lambda view, _: told.append(view))
    assert (list(found.views), found.is_blank, told) == (["view"], False, ["odd"])


def test_progress_is_told_version_by_version(world: World, store: OnlineStore) -> None:
    store.progress.report({("a/b", "1"): {"at_ms": 1}, ("c", "2"): {"at_ms": 1}})
    store.progress.report({("c", "2"): {"at_ms": 5, "progress_ms": None}})
    store.progress.report({})
    assert store.progress.read() == {
        ("a/b", "1"): {"at_ms": 1},
        ("c", "2"): {"at_ms": 5, "progress_ms": None},
    }
    assert world.hash(PROGRESS_KEY)[b"a/b/1"] == b'{"at_ms": 1}'


def test_a_key_in_memory_is_no_more_once_its_time_has_come() -> None:
    clock = [0]
    content = MemoryStore(lambda: clock[0])
    store = content.online()
    claim(store)
    write(store, {0: packed(1)}, rules=AN_HOUR)
    clock[0] = AN_HOUR.expiry_ms - 1
    assert content.read(KEY)
    clock[0] += 1
    assert content.read(KEY) == {}


def test_keys_of_a_version_are_found_whatever_bytes_its_fingerprint_has() -> None:
    pattern = version_pattern("spend", "2a3f5b5d5c000102")
    assert pattern.startswith(b"m1{??}[RT]\\*\\?\\[\\]\\\\\x00\x01\x02")
    assert pattern.endswith(b"\x00\x00\x00\x05spend*")
    assert version_pattern("spend", PRINT, "tile").startswith(b"m1{??}T\x00\xff")


def test_packed_tiles_are_what_the_codec_reads() -> None:
    assert CODEC.decode(packed(3)) == Packed((3, 1.5), 5)
