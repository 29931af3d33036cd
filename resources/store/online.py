"""The online store as the rooms above see it: what can be done, in nouns of a plan.

``resources.store.opening`` opens the real one, ``resources.store.memory`` holds one in this process;
``tests/contract/test_online_store.py`` says what both do. The server, which only reads and waits for
nothing, has a client of its own (``resources.store.asynchronous``).

Every call fails with a ``StoreUnavailable`` while the store is away, and with a ``StoreError`` where it
refuses. Nothing is repeated here: whoever calls knows whether a call may be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from millrace.errors import StoreError
from millrace.published import PublishedView
from resources.store.tile_rules import TileRules

NO_MARKER = -1
"""The marker of a partition of which nothing is stored."""

Change = Callable[[PublishedView | None], PublishedView | None]
Version = tuple[str, str]
"""View and fingerprint."""

RangedTile = tuple[bytes, bytes, bytes]
"""Field, end of the tile's range as a field (empty: a tile of one hop, after the seal), packed tile."""


class Published(NamedTuple):
    """What is published.

    Attributes:
        views: by name.
        is_blank: nothing at all is: no view, no service. A store that was emptied looks so.
    """

    views: dict[str, PublishedView]
    is_blank: bool


class Publications(Protocol):
    """What server and writer learn of views."""

    def read(self, on_unreadable: Callable[[str, StoreError], None] | None = None) -> Published:
        """Return all publications.

        Args:
            on_unreadable: told of each view whose publication cannot be read, which is left out;
                None: the first such raises.
        """
        ...

    def read_view(self, view: str) -> PublishedView | None:
        """Return a view's publication; None if it has none."""
        ...

    def amend(self, view: str, change: Change) -> PublishedView | None:
        """Change a view's publication and return what stands then, on disk if the store has one.

        Args:
            view: name of the view.
            change: gets the publication (None if there is none) and returns the new one (None
                removes it). Called again if another writer came between.
        """
        ...

    def replace_services(self, features: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Replace the published feature services: of each, its (view, feature) pairs."""
        ...


class ProgressReports(Protocol):
    """How far the writer says that it has come with each version."""

    def read(self) -> dict[Version, Mapping[str, Any]]:
        """Return the last report of each version."""
        ...

    def report(self, progress: Mapping[Version, Mapping[str, Any]]) -> None:
        """Replace the reports of these versions."""
        ...


class Claim(NamedTuple):
    """What a writer knows once a topic's partitions are its own.

    Attributes:
        epoch: the writer's; one with a higher takes over.
        markers: of each hash tag, the marker of each partition.
    """

    epoch: int
    markers: Sequence[Sequence[int]]


class Claims(Protocol):
    """Who writes the tiles of which partitions."""

    def claim(self, topic: str, partitions: Sequence[int], epoch: int = 0) -> Claim:
        """Become the writer of partitions, and learn where the store stands.

        Args:
            topic: a tile topic.
            partitions: of it.
            epoch: of an earlier claim of the same writer; 0: one above all before.

        Raises:
            Superseded: a newer writer has them.
        """
        ...

    def forget(self, topic: str, partition: int) -> None:
        """Delete the markers of a partition of a topic that was begun anew."""
        ...


@dataclass(frozen=True, slots=True)
class TileWrite:
    """Tiles of one hash tag, and the markers that cover them: stored together or not at all.

    Attributes:
        epoch: the writer's.
        markers: of each partition, the marker as the writer knows it and the new one.
        tiles: of each tiles hash, fields and packed tiles in turn.
    """

    topic: str
    tag: int
    epoch: int
    markers: Mapping[int, tuple[int, int]]
    tiles: Mapping[bytes, Sequence[bytes]]
    rules: TileRules
    now_ms: int


class TileSink(Protocol):
    """Takes the tiles of streams, a batch at a time while the writer prepares the next.

    A tile gives way only to one of at least as many rows, and a sealed one to none of these.
    """

    def send(self, writes: Sequence[TileWrite]) -> None:
        """Send writes without waiting; should this fail, what was done of them is not known."""
        ...

    def receive(self) -> None:
        """Wait until what was sent is done.

        Raises:
            Superseded: a newer writer has the partitions.
            StoreMoved: the store's markers are not those that were known; claim again.
        """
        ...

    def hang_up(self) -> None:
        """Forget what was sent and not answered; the next call takes a new connection."""
        ...


@dataclass(frozen=True)
class BatchTiles:
    """What all writes of an upload share.

    Attributes:
        topic: the version's tile topic, which its marks are named by.
        sealed_before_ms: tiles before it are coarse, and the upload's alone; None: none are.
    """

    topic: str
    sealed_before_ms: int | None
    rules: TileRules
    now_ms: int


class Uploads(Protocol):
    """Takes tiles of the lake.

    One before the seal takes the place of what lay in its range, unless that holds more rows; what
    is out of every window's reach goes.
    """

    def sealed_before_ms(self, topic: str) -> int | None:
        """Return the instant up to which a topic's tiles are sealed; None if none are."""
        ...

    def upload(
        self,
        batch: BatchTiles,
        entities: Mapping[int, Sequence[tuple[bytes, Sequence[RangedTile]]]],
    ) -> tuple[int, int]:
        """Store tiles and the seal; returns how many were written and how many gave way.

        Args:
            batch: what they are of.
            entities: by hash tag, key of a tiles hash and its tiles, ascending. A tag without any
                is sealed all the same.
        """
        ...

    def clear(self, version: Version, before_ms: int) -> int:
        """Delete a version's tiles that start before an instant; returns how many those were."""
        ...

    def settle(self) -> None:
        """Wait until what was uploaded is on disk, if the store keeps a log at all."""
        ...


class StoredVersions(Protocol):
    """All that there is of a version."""

    def drop(self, version: Version, topic: str) -> int:
        """Remove a version's rows, tiles, marks and progress; returns how many keys that were.

        It may be called again, and finds nothing then.
        """
        ...


@dataclass(frozen=True)
class OnlineStore:
    """One store, by what can be done with it.

    Several threads may use it, but for the sink, which is one writer's.
    """

    publications: Publications
    progress: ProgressReports
    claims: Claims
    tiles: TileSink
    uploads: Uploads
    versions: StoredVersions
    close: Callable[[], None]
