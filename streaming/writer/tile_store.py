"""The writer's conversation with the store: claims of partitions, and the calls that store tiles."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from millrace.codec import TAGS
from millrace.errors import PlatformError, StoreError
from resources.store.client import open_store, store_errors
from resources.store.keys import marker_key
from resources.store.tile_scripts import APPLY, CLAIM, OK, SUPERSEDED
from streaming.writer.feeds import Call, Feed

if TYPE_CHECKING:
    from redis import Redis


class Superseded(PlatformError):
    """A newer writer has taken over the partitions; this one must leave."""

    code = "superseded"


class StoreMoved(StoreError):
    """The store does not stand where the writer left it: its markers must be read again."""

    code = "store_moved"


class TileStore:
    """The store as the writer uses it; every failure ends the call and nothing is repeated here."""

    def __init__(self, url: str) -> None:
        self._client: Redis = open_store(url)
        self._apply: Any = None
        self._claim: Any = None
        self._line: Any = None
        self._awaited: list[str] = []

    def close(self) -> None:
        """Close the connections."""
        self.hang_up()
        self._client.close()

    def claim(self, feeds: Iterable[Feed]) -> None:
        """Become the writer of all partitions of these feeds, and learn where the store stands.

        A feed that was claimed before keeps its epoch; a new one gets one above all earlier.

        Raises:
            Superseded: a newer writer has them.
            StoreUnavailable, StoreError: the store failed; claim again.
        """
        with store_errors():
            self._apply = self._client.script_load(APPLY)
            self._claim = self._client.script_load(CLAIM)
        for feed in feeds:
            if not feed.epoch:
                feed.epoch = self._next_epoch(feed)
            names = [word for p in feed.partitions for word in (feed.name(p), feed.epoch)]
            calls = [(self._claim, 1, marker_key(tag), *names) for tag in range(TAGS)]
            answers = self._run(calls)
            if any(answer[0] == SUPERSEDED for answer in answers):
                raise _superseded(feed)
            feed.take_markers([answer[1] for answer in answers])

    def _next_epoch(self, feed: Feed) -> int:
        names = [f"epoch/{feed.name(p)}" for p in feed.partitions]
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for tag in range(TAGS):
                pipe.hmget(marker_key(tag), names)
            known = [int(epoch) for held in pipe.execute() for epoch in held if epoch]
        return max([time.time_ns() // 1_000_000, *(epoch + 1 for epoch in known)])

    def forget_markers(self, feed: Feed, partition: int) -> None:
        """Delete the markers of a partition of a topic that was begun anew.

        Raises:
            StoreUnavailable, StoreError: the store failed.
        """
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for tag in range(TAGS):
                pipe.hdel(marker_key(tag), feed.name(partition))
            pipe.execute()

    def send(self, calls: Mapping[str, Mapping[int, Call]], feeds: Mapping[str, Feed]) -> None:
        """Send the calls of each feed, by topic and tag; ``receive`` takes the answers.

        The feeds take over the markers at once: should the store not do a call, it will not do
        one that follows from it either, for their markers would not meet.

        Raises:
            StoreUnavailable, StoreError: the store failed; what it did of this is not known.
        """
        self._awaited = [topic for topic, by_tag in calls.items() for _ in by_tag]
        if not self._awaited:
            return
        with store_errors():
            if self._line is None:
                self._line = self._client.connection_pool.get_connection()
            commands = [
                ("EVALSHA", self._apply, *call.arguments)
                for by_tag in calls.values()
                for call in by_tag.values()
            ]
            self._line.send_packed_command(self._line.pack_commands(commands))
        for topic, by_tag in calls.items():
            feeds[topic].advance(by_tag)

    def receive(self, feeds: Mapping[str, Feed]) -> None:
        """Wait until the store has done what was sent.

        Raises:
            Superseded: a newer writer has the partitions.
            StoreMoved: the store's markers are not those of the feeds; claim again.
            StoreUnavailable, StoreError: the store failed; what it did of this is not known.
        """
        from redis.exceptions import ResponseError

        failures: list[ResponseError] = []
        awaited, self._awaited = self._awaited, []
        with store_errors():
            for topic in awaited:
                try:
                    answer = self._line.read_response()
                except ResponseError as error:
                    failures.append(error)
                    continue
                if answer == SUPERSEDED:
                    raise _superseded(feeds[topic])
                if answer != OK:
                    raise StoreMoved("the store was rolled back, flushed or replaced", where=topic)
            if failures:
                raise failures[0]

    def hang_up(self) -> None:
        """Forget what was sent and not answered; the next call takes a new connection."""
        self._awaited = []
        if self._line is not None:
            self._line.disconnect()
            self._client.connection_pool.release(self._line)
            self._line = None

    def _run(self, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        with store_errors(), self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.execute_command("EVALSHA", *call)  # type: ignore[no-untyped-call]
            return pipe.execute()


def _superseded(feed: Feed) -> Superseded:
    return Superseded(
        f"a newer writer has taken over the tiles of {feed.version.plan['view']}",
        where=feed.topic,
        fix="let one writer run for each store; stop this one",
    )
