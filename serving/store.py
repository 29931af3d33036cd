"""The server's door to the online store: pooled connections, few round trips, no waiting when down.

Once the store did not answer, calls fail at once; a probe asks it several times a second and opens
the door again with its first answer. So a request never waits for a store that is known to be
away, and is served right as soon as it is back.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError

from millrace.errors import EngineUnavailable, SetupError, StoreError
from millrace.published import PLANS_KEY, PROGRESS_KEY
from resources.store.client import StoreUnavailable, store_errors

logger = logging.getLogger(__name__)

CHANGES_FIELD = b"s"
"""Field of a tiles hash that counts its changes."""

_CONNECT_TIMEOUT_S = 0.5
_ANSWER_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 0.2
_HASHES_AT_ONCE = 256
_ROWS_AT_ONCE = 2_000
_ROW_READS_AT_ONCE = 2

WRITE_BACK = """
if (redis.call('HGET', KEYS[2], 's') or '') ~= ARGV[1] then return 0 end
local left_ms = redis.call('PTTL', KEYS[2])
if left_ms == -2 then return 0 end
if left_ms > 0 then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', left_ms)
else
  redis.call('SET', KEYS[1], ARGV[2])
end
if #ARGV > 2 then
  redis.call('HDEL', KEYS[2], unpack(ARGV, 3))
  redis.call('HINCRBY', KEYS[2], 's', 1)
end
return 1
"""
"""Keep a merged row if no tile changed since it was read, and drop tiles that nobody needs.

The row lives as long as its tiles: an entity is forgotten as a whole. A dropped tile is out of reach of every row merged from now on, so the row stays; the counter moves
as with every change.
"""

MOST_DROPPED = 1_000
"""Tiles dropped by one call; the rest follow with later ones."""


@dataclass(frozen=True)
class MergedRow:
    """A row to keep.

    Attributes:
        changes: the counter as it was read with the tiles; empty if there was none.
        dropped: fields of tiles out of reach.
    """

    row_key: bytes
    tiles_key: bytes
    changes: bytes
    row: bytes
    dropped: Sequence[bytes]


class ServingStore:
    """Reads rows, tiles and publications; keeps merged rows.

    Every method raises ``StoreUnavailable`` if the store is away, loading or too slow, and
    ``StoreError`` if it refuses.

    Args:
        url: gives the store's URL; asked again at each attempt to connect, for a local stack may
            move its store.
        on_error: called with each failure.
    """

    def __init__(self, url: Callable[[], str], on_error: Callable[[], None]) -> None:
        self._url = url
        self._on_error = on_error
        self._client: Redis | None = None
        self._client_url = ""
        self._reason: str | None = None
        self._probe: asyncio.Task[None] | None = None
        self._script = ""
        self._is_closed = False
        self._asked: deque[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]] = deque()
        self._row_reads = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_up(self) -> bool:
        """False from a failure to the next answer."""
        return self._reason is None

    async def rows(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the packed rows, None where there is none; one round trip.

        Calls that wait at the same time are sent as one: under load that is most of them.
        """
        answer: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._asked.append((keys, answer))
        if self._row_reads < _ROW_READS_AT_ONCE:
            self._row_reads += 1
            self._start(self._read_rows())
        return await answer

    async def _read_rows(self) -> None:
        """Send what is asked for, and again what was asked meanwhile."""
        try:
            while self._asked:
                batch, size = [], 0
                while self._asked and size < _ROWS_AT_ONCE:
                    batch.append(self._asked.popleft())
                    size += len(batch[-1][0])
                await self._answer_rows(batch)
        finally:
            self._row_reads -= 1

    async def _answer_rows(
        self, batch: Sequence[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]]
    ) -> None:
        keys = [key for asked, _ in batch for key in asked]
        try:
            found = await self._run(lambda client: client.mget(keys))
        except StoreError as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        first = 0
        for asked, answer in batch:
            if not answer.done():
                answer.set_result(found[first : first + len(asked)])
            first += len(asked)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def tiles(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Return the hashes of tiles, empty where there is none; each is read as of one instant."""
        found: list[dict[bytes, bytes]] = []
        for first in range(0, len(keys), _HASHES_AT_ONCE):
            chunk = keys[first : first + _HASHES_AT_ONCE]
            found += await self._run(partial(_hashes, keys=chunk))
        return found

    async def keep(self, rows: Sequence[MergedRow]) -> int:
        """Keep merged rows whose tiles have not changed; return how many were kept."""
        return int(await self._run(lambda client: self._keep(client, rows)))

    async def published(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Return the hashes of publications and of progress."""
        plans, progress = await self._run(partial(_hashes, keys=[PLANS_KEY, PROGRESS_KEY]))
        return plans, progress

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._probe is not None:
            await self._probe
        if self._client is not None:
            await self._client.aclose()

    async def _run(self, call: Callable[[Redis], Awaitable[Any]]) -> Any:
        if self._reason is not None:
            raise StoreUnavailable(self._reason, where="online store", fix="millrace status")
        try:
            with store_errors():
                return await call(self._connected())
        except (StoreUnavailable, EngineUnavailable) as error:
            self._on_error()
            self._close_door(error.what)
            raise StoreUnavailable(error.what, where=error.where, fix=error.fix) from error

    def _connected(self) -> Redis:
        if self._client is None:
            self._client_url = self._url()
            self._client = open_client(self._client_url)
        return self._client

    def _close_door(self, reason: str) -> None:
        if self._reason is None:
            logger.warning("store is away, lookups answer 503 until it is back: %s", reason)
        self._reason = reason
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._knock())

    async def _knock(self) -> None:
        while not self._is_closed:
            try:
                if self._client is not None and self._url() != self._client_url:
                    await self._client.aclose()
                    self._client = None
                # Not PING: that is answered while the store still loads its log.
                await self._connected().exists(PLANS_KEY)
            except (RedisError, EngineUnavailable, OSError) as error:
                self._reason = f"the online store does not answer: {error}"
                await asyncio.sleep(_PROBE_EVERY_S)
            else:
                self._reason = None
                logger.warning("store answers again")
                return

    async def _keep(self, client: Redis, rows: Sequence[MergedRow]) -> int:
        if not self._script:
            self._script = await client.script_load(WRITE_BACK)
        answers = await self._run_script(client, rows)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            self._script = await client.script_load(WRITE_BACK)  # the store was started anew
            answers = await self._run_script(client, rows)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(answers)

    async def _run_script(self, client: Redis, rows: Sequence[MergedRow]) -> list[Any]:
        pipeline = client.pipeline(transaction=False)
        for r in rows:
            pipeline.evalsha(
                self._script,
                2,
                *(r.row_key, r.tiles_key, r.changes, r.row, *r.dropped[:MOST_DROPPED]),
            )
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers


async def _hashes(client: Redis, keys: Sequence[bytes]) -> list[Any]:
    if len(keys) == 1:
        return [await client.hgetall(keys[0])]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    found: list[Any] = await pipeline.execute()
    return found


def open_client(url: str) -> Redis:
    """Return a client of a store; it connects at its first command.

    Raises:
        SetupError: the URL is of no known kind.
    """
    # One more try, and only after a lost connection: a pooled one may have died since its last use.
    # What the server sends may be sent twice: it reads, or sets what was computed.
    try:
        client: Redis = Redis.from_url(
            url,
            protocol=2,
            decode_responses=False,
            socket_connect_timeout=_CONNECT_TIMEOUT_S,
            socket_timeout=_ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
    except ValueError as error:
        raise SetupError(
            f"the address of the store cannot be used: {error}",
            where="MILLRACE_STORE_URL",
            fix="redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket",
        ) from error
    return client
