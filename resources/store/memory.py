"""An online store in this process, with the keys and fields of a real one.

For tests and for trying things without a server. It passes the same contract suite as the real
one, and nothing of it is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.codec import TAGS, read_tile_field
from millrace.errors import StoreError
from millrace.published import PLANS_KEY, PROGRESS_KEY, PublishedView
from resources.store import publications as texts
from resources.store.apply import BEHIND, OK, SUPERSEDED, refuse
from resources.store.claim import next_epoch, read_marker
from resources.store.errors import Superseded
from resources.store.keys import (
    CHANGES_FIELD,
    SERVICES_FIELD,
    epoch_field,
    is_mark_of,
    is_of_version,
    is_tile,
    marker_field,
    marker_key,
    marker_keys,
    progress_field,
    row_key_of,
    sealed_field,
    view_field,
)
from resources.store.online import (
    NO_MARKER,
    BatchTiles,
    Change,
    Claim,
    OnlineStore,
    Published,
    RangedTile,
    TileWrite,
    Version,
)
from resources.store.tile_rules import EXPIRY_STEP_MS, PRUNE_EVERY, TileRules

Hash = dict[bytes, bytes]


@dataclass
class MemoryStore:
    """What a store holds.

    Attributes:
        now_ms: its clock.
        hashes: by key: publications, progress, marks and tiles.
        rows: merged rows by key.
        expires_at_ms: of each key that does not live for ever.
    """

    now_ms: Callable[[], int] = lambda: 0
    hashes: dict[bytes, Hash] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    expires_at_ms: dict[bytes, int] = field(default_factory=dict)

    def online(self) -> OnlineStore:
        """Return the store as a client of it sees it."""
        return OnlineStore(
            _Publications(self),
            _Progress(self),
            _Claims(self),
            _Tiles(self),
            _Uploads(self),
            _Versions(self),
            lambda: None,
        )

    def read(self, key: bytes) -> Hash:
        """Return a copy of a hash; empty if there is none, or none any more."""
        expires_at_ms = self.expires_at_ms.get(key)
        if expires_at_ms is not None and expires_at_ms <= self.now_ms():
            self.remove(key)
        return dict(self.hashes.get(key, {}))

    def write(self, key: bytes, fields: Mapping[Any, Any]) -> None:
        """Set fields of a hash; names and values that are no bytes, as their text."""
        self.read(key)
        held = self.hashes.setdefault(key, {})
        held.update({_bytes(name): _bytes(value) for name, value in fields.items()})

    def delete(self, key: bytes, names: Sequence[bytes]) -> None:
        """Delete fields of a hash; one without any is no more."""
        held = self.hashes.get(key, {})
        for name in names:
            held.pop(name, None)
        if not held:
            self.remove(key)

    def remove(self, key: bytes) -> None:
        """Delete a key."""
        for kept in (self.hashes, self.rows, self.expires_at_ms):
            kept.pop(key, None)

    def clear(self) -> None:
        """Lose everything."""
        for key in (*self.hashes, *self.rows):
            self.remove(key)

    def touch(self, key: bytes, rules: TileRules | None = None) -> int:
        """Note that tiles changed: as ``touch`` of the scripts; returns the counter."""
        counter = int(self.read(key).get(CHANGES_FIELD, self.now_ms() * 1_000)) + 1
        self.write(key, {CHANGES_FIELD: counter})
        self.remove(row_key_of(key))
        expiry_ms = rules.expiry_ms if rules else 0
        left_ms = self.expires_at_ms.get(key, 0) - self.now_ms()
        if expiry_ms > 0 and left_ms < expiry_ms - EXPIRY_STEP_MS:
            self.expires_at_ms[key] = self.now_ms() + expiry_ms
        return counter


@dataclass
class _Publications:
    store: MemoryStore

    def read(self, on_unreadable: Callable[[str, StoreError], None] | None = None) -> Published:
        return texts.read_published(self.store.read(PLANS_KEY), on_unreadable)

    def read_view(self, view: str) -> PublishedView | None:
        return texts.read_view(self.store.read(PLANS_KEY).get(view_field(view)))

    def amend(self, view: str, change: Change) -> PublishedView | None:
        while True:
            before = self.store.read(PLANS_KEY)
            found = texts.read_view(before.get(view_field(view)))
            new = change(found)
            if new == found:
                return new
            if self.store.read(PLANS_KEY) == before:
                break
        if new is None:
            self.store.delete(PLANS_KEY, [view_field(view)])
        else:
            self.store.write(PLANS_KEY, {view_field(view): new.to_json()})
        return new

    def replace_services(self, features: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self.store.write(PLANS_KEY, {SERVICES_FIELD: texts.services_text(features)})


@dataclass
class _Progress:
    store: MemoryStore

    def read(self) -> dict[Version, Mapping[str, Any]]:
        return texts.read_progress(self.store.read(PROGRESS_KEY))

    def report(self, progress: Mapping[Version, Mapping[str, Any]]) -> None:
        if progress:
            self.store.write(PROGRESS_KEY, texts.progress_fields(progress))


@dataclass
class _Claims:
    store: MemoryStore

    def claim(self, topic: str, partitions: Sequence[int], epoch: int = 0) -> Claim:
        names = {epoch_field(topic, p).encode() for p in partitions}
        marks = [self.store.read(key) for key in marker_keys()]
        known = [text for held in marks for name, text in held.items() if name in names]
        epoch = epoch or next_epoch(known)
        if any(int(text) > epoch for text in known):
            raise Superseded.on(topic)
        for key in marker_keys():
            self.store.write(key, {epoch_field(topic, p): epoch for p in partitions})
        fields = [marker_field(topic, p).encode() for p in partitions]
        return Claim(epoch, [[read_marker(held.get(name)) for name in fields] for held in marks])

    def forget(self, topic: str, partition: int) -> None:
        for key in marker_keys():
            self.store.delete(key, [marker_field(topic, partition).encode()])


@dataclass
class _Tiles:
    store: MemoryStore
    answers: list[tuple[int, str]] = field(default_factory=list)

    def send(self, writes: Sequence[TileWrite]) -> None:
        self.answers = [(self._apply(write), write.topic) for write in writes]

    def receive(self) -> None:
        answers, self.answers = self.answers, []
        for answer, topic in answers:
            refuse(answer, topic)

    def hang_up(self) -> None:
        self.answers = []

    def _apply(self, write: TileWrite) -> int:
        store, marks = self.store, self.store.read(marker_key(write.tag))
        for partition, (known, _) in write.markers.items():
            theirs = marks.get(epoch_field(write.topic, partition).encode())
            if theirs is None or int(theirs) != write.epoch:
                return SUPERSEDED if theirs and int(theirs) > write.epoch else BEHIND
            if read_marker(marks.get(marker_field(write.topic, partition).encode())) != known:
                return BEHIND
        sealed = read_marker(marks.get(sealed_field(write.topic).encode()))
        for key, listed in write.tiles.items():
            pairs = zip(listed[::2], listed[1::2], strict=True)
            open_ = {f: t for f, t in pairs if sealed == NO_MARKER or read_tile_field(f) >= sealed}
            old = store.read(key)
            new = {f: t for f, t in open_.items() if _gives_way(old.get(f), t, write.rules)}
            if not new:
                continue
            store.write(key, new)
            if store.touch(key, write.rules) % PRUNE_EVERY == 0:
                self._prune(key, write.rules.horizon_ms(write.now_ms))
        ends = {marker_field(write.topic, p): end for p, (_, end) in write.markers.items()}
        store.write(marker_key(write.tag), ends)
        return OK

    def _prune(self, key: bytes, horizon_ms: int | None) -> None:
        if horizon_ms is not None:
            self.store.delete(key, list(_tiles_before(self.store.read(key), horizon_ms)))


@dataclass
class _Uploads:
    store: MemoryStore

    def sealed_before_ms(self, topic: str) -> int | None:
        marks = [self.store.read(key) for key in marker_keys()]
        found = [held.get(sealed_field(topic).encode()) for held in marks]
        return max((int(text) for text in found if text), default=None)

    def upload(
        self,
        batch: BatchTiles,
        entities: Mapping[int, Sequence[tuple[bytes, Sequence[RangedTile]]]],
    ) -> tuple[int, int]:
        written = kept = 0
        for tag, of_tag in entities.items():
            self._seal(tag, batch)
            for key, tiles in of_tag:
                counts = self._upload(key, tiles, batch)
                written, kept = written + counts[0], kept + counts[1]
        return written, kept

    def clear(self, version: Version, before_ms: int) -> int:
        cleared = 0
        for key in [k for k in self.store.hashes if is_of_version(k, *version, "tile")]:
            gone = list(_tiles_before(self.store.read(key), before_ms))
            self.store.delete(key, gone)
            if gone:
                self.store.touch(key)
            cleared += len(gone)
        return cleared

    def settle(self) -> None:
        return None

    def _seal(self, tag: int, batch: BatchTiles) -> None:
        name, edge = sealed_field(batch.topic), batch.sealed_before_ms
        held = self.store.read(marker_key(tag)).get(name.encode())
        if edge is not None and (held is None or int(held) < edge):
            self.store.write(marker_key(tag), {name: edge})

    def _upload(
        self, key: bytes, tiles: Sequence[RangedTile], batch: BatchTiles
    ) -> tuple[int, int]:
        store, rules, held = self.store, batch.rules, self.store.read(key)
        covered, gone = _covered(held, tiles, batch)
        new, kept = {}, 0
        for name, _, packed in tiles:
            inside = covered.get(name)
            rows = [
                _rows(held[f], rules) for f in ([name] if inside is None else inside) if f in held
            ]
            if sum(rows) > _rows(packed, rules):
                kept += 1
                continue
            gone += [f for f in inside or () if f != name]
            new[name] = packed
        changed = {name: packed for name, packed in new.items() if held.get(name) != packed}
        if changed:
            store.write(key, changed)
        store.delete(key, gone)
        if changed or gone:
            store.touch(key, rules)
        return len(new), kept


@dataclass
class _Versions:
    store: MemoryStore

    def drop(self, version: Version, topic: str) -> int:
        store = self.store
        keys = [k for k in store.hashes if is_of_version(k, *version, "tile")]
        keys += [k for k in store.rows if is_of_version(k, *version, "row")]
        for key in keys:
            store.remove(key)
        for tag in range(TAGS):
            marks = store.read(marker_key(tag))
            store.delete(marker_key(tag), [name for name in marks if is_mark_of(name, topic)])
        store.delete(PROGRESS_KEY, [progress_field(*version)])
        return len(keys)


def _covered(
    held: Hash, tiles: Sequence[RangedTile], batch: BatchTiles
) -> tuple[dict[bytes, list[bytes]], list[bytes]]:
    """Return the tiles that lie in the range of each new one, and those that nobody reaches."""
    covered: dict[bytes, list[bytes]] = {}
    gone: list[bytes] = []
    if batch.sealed_before_ms is None:
        return covered, gone
    horizon_ms = batch.rules.horizon_ms(batch.now_ms)
    for name in _tiles_before(held, batch.sealed_before_ms):
        # Fields sort as the starts of their tiles do.
        new = next((first for first, end, _ in tiles if first <= name < end), None)
        if new is not None:
            covered.setdefault(new, []).append(name)
        elif horizon_ms is not None and read_tile_field(name) < horizon_ms:
            gone.append(name)
    return covered, gone


def _tiles_before(held: Hash, before_ms: int) -> Iterator[bytes]:
    return (f for f in sorted(held) if is_tile(f) and read_tile_field(f) < before_ms)


def _gives_way(old: bytes | None, new: bytes, rules: TileRules) -> bool:
    return old is None or (old != new and _rows(old, rules) <= _rows(new, rules))


def _rows(packed: bytes, rules: TileRules) -> int:
    end = rules.rows_at + 8
    return int.from_bytes(packed[rules.rows_at : end], signed=True) if len(packed) >= end else -1


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
