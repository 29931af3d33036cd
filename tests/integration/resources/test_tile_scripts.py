"""What the scripts do to a real store: guard, markers, epochs, seal, counter, expiry, pruning."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from redis import Redis

from millrace.codec import Codec, Packed, key_head, key_tail, tile_field
from millrace.layouts import Slot
from millrace.packing import TilePacker
from millrace.types import FLOAT64, INT64
from resources.store.keys import marker_key
from resources.store.tile_scripts import (
    APPLY,
    BEHIND,
    CLAIM,
    CLEAR,
    OK,
    SUPERSEDED,
    UPLOAD,
    expiry_ms,
    horizon_ms,
)
from tests.support.store_server import StoreServer

pytestmark = pytest.mark.services

PRINT = "00ff10ef01fe80aa"
TOPIC, TAG, HOP = "tiles", 7, 60_000
CODEC = Codec("tile", PRINT, [Slot("rows", INT64), Slot("m0_sum", FLOAT64)])
PACKER = TilePacker(CODEC)
KEY = key_head(TAG) + key_tail("tile", "view", PRINT) + b"entity"
ROW = key_head(TAG) + key_tail("row", "view", PRINT) + b"entity"
SEED = 1_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    own = StoreServer(tmp_path_factory.mktemp("store"))
    yield own.start()
    own.stop()


@pytest.fixture
def store(server: Redis) -> Redis:
    server.flushall()
    return server


def packed(rows: int, total: float = 1.5) -> bytes:
    return PACKER.pack((rows, total), 5)


def run(store: Redis, script: str, keys: list[bytes], *arguments: Any) -> Any:
    return store.eval(script, len(keys), *keys, *arguments)


def apply(
    store: Redis,
    tiles: dict[int, bytes],
    *,
    known: object = "",
    end: int = 1,
    epoch: int = 1,
    horizon: object = "",
    expiry: int = 0,
) -> Any:
    listed = [part for start, tile in tiles.items() for part in (tile_field(start), tile)]
    head = (TOPIC, epoch, SEED, expiry, PACKER.rows_at + 1, horizon, 1, 0, known, end)
    keys = [marker_key(TAG), KEY] if tiles else [marker_key(TAG)]
    return run(store, APPLY, keys, *head, *([len(tiles), *listed] if tiles else []))


def claim(store: Redis, epoch: int = 1) -> Any:
    return run(store, CLAIM, [marker_key(TAG)], f"{TOPIC}/0", epoch)


def upload(
    store: Redis,
    tiles: Sequence[tuple[int, int | None, bytes]],
    *,
    sealed: object,
    horizon: object = "",
) -> Any:
    parts = [
        part
        for start, end, tile in tiles
        for part in (tile_field(start), b"" if end is None else tile_field(end), tile)
    ]
    head = (TOPIC, sealed, SEED, 0, PACKER.rows_at + 1, horizon)
    return run(store, UPLOAD, [marker_key(TAG), KEY], *head, len(tiles), *parts)


def tiles_in(store: Redis) -> dict[int, tuple[Any, ...]]:
    held: Any = store.hgetall(KEY)
    fields = {f: tile for f, tile in held.items() if len(f) == 8}
    starts = {int.from_bytes(f, "big") - 2**63: tile for f, tile in fields.items()}
    return {start: CODEC.decode(tile).values for start, tile in sorted(starts.items())}


def counter(store: Redis) -> int:
    return int(store.hget(KEY, "s") or 0)


def test_a_claim_tells_where_the_store_stands(store: Redis) -> None:
    assert claim(store) == [OK, [b""]]
    assert apply(store, {0: packed(1)}, end=9) == OK
    assert claim(store) == [OK, [b"9"]]


def test_a_tile_its_marker_and_its_counter_come_together_and_the_row_goes(store: Redis) -> None:
    claim(store)
    store.set(ROW, b"merged before")
    assert apply(store, {0: packed(1), HOP: packed(2)}, end=12) == OK
    assert tiles_in(store) == {0: (1, 1.5), HOP: (2, 1.5)}
    assert store.hget(marker_key(TAG), f"{TOPIC}/0") == b"12"
    assert counter(store) == SEED + 1
    assert not store.exists(ROW)
    apply(store, {0: packed(3)}, known=12, end=13)
    assert counter(store) == SEED + 2


def test_a_replayed_batch_changes_nothing(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(4)}, end=5)
    store.set(ROW, b"merged after")
    assert apply(store, {0: packed(4)}, end=5) == BEHIND, "the marker is not where it was"
    assert apply(store, {0: packed(4), HOP: packed(1)}, known=4, end=9) == BEHIND
    assert tiles_in(store) == {0: (4, 1.5)}, "a refused call does nothing at all"
    assert apply(store, {0: packed(4)}, known=5, end=6) == OK
    assert counter(store) == SEED + 1
    assert store.exists(ROW), "a tile that is there already changes nothing"


def test_fewer_rows_never_replace_more(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(300)}, end=1)
    apply(store, {0: packed(255)}, known=1, end=2)
    assert tiles_in(store) == {0: (300, 1.5)}
    apply(store, {0: packed(300, 2.5)}, known=2, end=3)
    assert tiles_in(store) == {0: (300, 2.5)}, "as many rows do"


def test_an_older_writer_is_refused(store: Redis) -> None:
    claim(store, epoch=1_700_000_000_000)
    apply(store, {0: packed(1)}, end=1, epoch=1_700_000_000_000)
    assert claim(store, epoch=1_700_000_000_001) == [OK, [b"1"]]
    assert apply(store, {0: packed(2)}, known=1, end=2, epoch=1_700_000_000_000) == SUPERSEDED
    assert claim(store, epoch=1_700_000_000_000) == [SUPERSEDED]
    assert tiles_in(store) == {0: (1, 1.5)}


def test_a_flushed_store_refuses_what_would_leave_a_gap(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(1)}, end=1)
    store.flushall()
    assert apply(store, {HOP: packed(1)}, known=1, end=2) == BEHIND
    assert tiles_in(store) == {}


def test_a_call_without_tiles_moves_the_marker(store: Redis) -> None:
    claim(store)
    assert apply(store, {}, end=40) == OK
    assert store.hgetall(marker_key(TAG)) == {f"epoch/{TOPIC}/0".encode(): b"1", b"tiles/0": b"40"}


def test_instants_before_1970_are_ordered_as_time_is(store: Redis) -> None:
    claim(store)
    apply(store, {-HOP: packed(1), 0: packed(1)}, end=1)
    upload(store, [(0, None, packed(5))], sealed=0)
    apply(store, {-HOP: packed(7), 0: packed(7)}, known=1, end=2)
    assert tiles_in(store) == {-HOP: (1, 1.5), 0: (7, 1.5)}


def test_keys_outlive_their_reach_and_those_of_lifetimes_for_ever(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(1)}, end=1, expiry=expiry_ms(3_600_000))
    ttl: Any = store.pttl(KEY)
    assert 3_600_000 < ttl <= expiry_ms(3_600_000)
    store.flushall()
    claim(store)
    apply(store, {0: packed(1)}, end=1, expiry=expiry_ms(None))
    assert store.pttl(KEY) == -1
    assert horizon_ms(None, 5) is None


def test_tiles_out_of_reach_are_dropped_now_and_then(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(1), 90 * HOP: packed(1)}, end=1)
    for n in range(1, 70):
        apply(store, {90 * HOP: packed(1 + n)}, known=n, end=n + 1, horizon=60 * HOP)
    assert list(tiles_in(store)) == [90 * HOP]


def test_a_coarse_tile_takes_the_place_of_what_it_covers(store: Redis) -> None:
    claim(store)
    fine = {start * HOP: packed(2) for start in range(6)}
    apply(store, fine, end=1)
    coarse = [(0, 3 * HOP, packed(6)), (3 * HOP, 4 * HOP, packed(2)), (4 * HOP, None, packed(9))]
    assert upload(store, coarse, sealed=4 * HOP) == [3, 0]
    assert tiles_in(store) == {
        0: (6, 1.5),
        3 * HOP: (2, 1.5),
        4 * HOP: (9, 1.5),
        5 * HOP: (2, 1.5),
    }
    before = counter(store)
    assert upload(store, coarse, sealed=4 * HOP) == [3, 0]
    assert counter(store) == before, "the same upload again changes nothing"
    apply(store, {HOP: packed(2)}, known=1, end=2)
    assert HOP not in tiles_in(store), "the stream writes no sealed tile"


def test_wider_coarse_tiles_swallow_narrower_ones(store: Redis) -> None:
    upload(store, [(0, 2 * HOP, packed(4)), (2 * HOP, 3 * HOP, packed(1))], sealed=3 * HOP)
    upload(store, [(0, 3 * HOP, packed(5))], sealed=4 * HOP)
    assert tiles_in(store) == {0: (5, 1.5)}


def test_a_coarse_tile_with_fewer_rows_than_it_covers_gives_way(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(2), HOP: packed(5), 8 * HOP: packed(1)}, end=1)
    coarse = [(0, 2 * HOP, packed(6)), (8 * HOP, 9 * HOP, packed(1))]
    assert upload(store, coarse, sealed=9 * HOP) == [1, 1]
    assert tiles_in(store) == {0: (2, 1.5), HOP: (5, 1.5), 8 * HOP: (1, 1.5)}


def test_an_upload_leaves_what_it_does_not_know_and_drops_what_is_out_of_reach(
    store: Redis,
) -> None:
    claim(store)
    apply(store, {0: packed(2), 5 * HOP: packed(3), 7 * HOP: packed(1)}, end=1)
    upload(store, [(6 * HOP, 8 * HOP, packed(4))], sealed=9 * HOP, horizon=4 * HOP)
    assert tiles_in(store) == {5 * HOP: (3, 1.5), 6 * HOP: (4, 1.5)}


def test_a_seal_is_never_moved_back(store: Redis) -> None:
    upload(store, [(0, 2 * HOP, packed(1))], sealed=4 * HOP)
    upload(store, [(0, 2 * HOP, packed(1))], sealed=2 * HOP)
    assert store.hget(marker_key(TAG), f"sealed/{TOPIC}") == str(4 * HOP).encode()


def test_clearing_deletes_tiles_before_an_instant(store: Redis) -> None:
    claim(store)
    apply(store, {0: packed(1), HOP: packed(1), 2 * HOP: packed(1)}, end=1)
    store.set(ROW, b"merged before")
    assert run(store, CLEAR, [KEY], 2 * HOP, SEED) == 2
    assert tiles_in(store) == {2 * HOP: (1, 1.5)}
    assert not store.exists(ROW)


def test_packed_tiles_are_what_the_codec_reads() -> None:
    assert CODEC.decode(packed(3)) == Packed((3, 1.5), 5)
