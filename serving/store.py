"""The server's door to the online store: few round trips, and no waiting when it is down.

Once the store did not answer, calls fail at once; a probe asks it several times a second and opens
the door again with its first answer. So a request never waits for a store that is known to be
away, and is served right as soon as it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from millrace.errors import EngineUnavailable, StoreError
from millrace.published import PLANS_KEY, PROGRESS_KEY
from resources.store.asynchronous import Address, StoreClient, failure
from resources.store.errors import StoreUnavailable
from resources.store.keep import KEEP, MergedRow, keep_arguments

logger = logging.getLogger(__name__)

Rows = list[bytes | None]

_CONNECT_TIMEOUT_S = 0.5
_ANSWER_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 0.2
_HASHES_AT_ONCE = 256


class ServingStore:
    """Reads rows, tiles and publications; keeps merged rows.

    Every method raises ``StoreUnavailable`` if the store is away, loading or too slow, and
    ``StoreError`` if it refuses. Rows have a connection of their own: they never wait behind tiles.

    Args:
        url: gives the store's URL; asked again at each attempt to connect, for a local stack may
            move its store.
        on_error: called with each failure.
    """

    def __init__(self, url: Callable[[], str], on_error: Callable[[], None]) -> None:
        self._url = url
        self._on_error = on_error
        self._rows: StoreClient | None = None
        self._others: StoreClient | None = None
        self._connected_url = ""
        self._reason: str | None = None
        self._probe: asyncio.Task[None] | None = None
        self._script = ""
        self._is_closed = False

    @property
    def is_up(self) -> bool:
        """False from a failure to the next answer."""
        return self._reason is None

    def read_rows(self, keys: Sequence[bytes], done: Callable[[Rows | StoreError], None]) -> None:
        """Ask for packed rows, None where there is none; ``done`` takes them, or what went wrong.

        What is asked for in one turn of the loop is one round trip.
        """
        try:
            client = self._client_of_rows()
        except StoreError as error:
            done(error)
            return

        def answered(told: Any) -> None:
            if type(told) is list:
                done(told)
                return
            done(self._failed(told))

        client.rows(keys, answered)

    async def rows(self, keys: Sequence[bytes]) -> Rows:
        """Return packed rows, None where there is none."""
        answer: asyncio.Future[Rows | StoreError] = asyncio.get_running_loop().create_future()
        self.read_rows(keys, lambda told: None if answer.done() else answer.set_result(told))
        found = await answer
        if isinstance(found, StoreError):
            raise found
        return found

    async def tiles(self, keys: Sequence[bytes]) -> list[dict[bytes, bytes]]:
        """Return the hashes of tiles, empty where there is none; each is read as of one instant."""
        found: list[dict[bytes, bytes]] = []
        for first in range(0, len(keys), _HASHES_AT_ONCE):
            asked = [("HGETALL", key) for key in keys[first : first + _HASHES_AT_ONCE]]
            found += await self._run(asked)
        return found

    async def keep(self, rows: Sequence[MergedRow]) -> int:
        """Keep merged rows whose tiles have not changed; return how many were kept."""
        if not self._script:
            await self._load_script()
        answers = await self._run_script(rows)
        if any(_is_unknown_script(answer) for answer in answers):
            await self._load_script()  # the store was started anew
            answers = await self._run_script(rows)
        for answer in answers:
            if isinstance(answer, StoreError):
                raise answer
        return sum(answers)

    async def published(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """Return the hashes of publications and of progress."""
        plans, progress = await self._run([("HGETALL", PLANS_KEY), ("HGETALL", PROGRESS_KEY)])
        return plans, progress

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._probe is not None:
            await self._probe
        await self._disconnect()

    async def _run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        answers = await self._answers(commands)
        for answer in answers:
            if isinstance(answer, StoreError):
                raise answer
        return answers

    async def _answers(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return what each command is answered, its error in place of an answer."""
        client = self._client_of_others()
        asked = [client.run(*command) for command in commands]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, StoreUnavailable):
                raise self._failed(answer)
            if isinstance(answer, BaseException) and not isinstance(answer, StoreError):
                raise answer
        return answers

    async def _load_script(self) -> None:
        (digest,) = await self._run([("SCRIPT", "LOAD", KEEP)])
        self._script = digest.decode()

    async def _run_script(self, rows: Sequence[MergedRow]) -> list[Any]:
        return await self._answers(
            [("EVALSHA", self._script, *keep_arguments(row)) for row in rows]
        )

    def _client_of_rows(self) -> StoreClient:
        self._connect()
        if self._rows is None:
            self._rows = open_client(self._connected_url)
        return self._rows

    def _client_of_others(self) -> StoreClient:
        self._connect()
        if self._others is None:
            self._others = open_client(self._connected_url)
        return self._others

    def _connect(self) -> None:
        """Learn where the store is.

        Raises:
            StoreUnavailable: it is known to be away, or to be nowhere.
        """
        if self._reason is not None:
            raise StoreUnavailable(self._reason, where="online store", fix="millrace status")
        if not self._connected_url:
            try:
                self._connected_url = self._url()
            except EngineUnavailable as error:
                raise self._failed(
                    StoreUnavailable(error.what, where=error.where, fix=error.fix)
                ) from error

    def _failed(self, told: Any) -> StoreError:
        """Count a failure, close the door if the store is away, and return the error."""
        error = failure(told)
        if error is None:
            error = StoreError(f"the online store answered {told!r}", where="online store")
        if isinstance(error, StoreUnavailable):
            self._on_error()
            self._close_breaker(error.what)
        return error

    def _close_breaker(self, reason: str) -> None:
        if self._is_closed:
            return
        if self._reason is None:
            logger.warning("store is away, lookups answer 503 until it is back: %s", reason)
        self._reason = reason
        if self._probe is None or self._probe.done():
            self._probe = asyncio.get_running_loop().create_task(self._knock())

    async def _knock(self) -> None:
        while not self._is_closed:
            try:
                url = self._url()
                if url != self._connected_url:
                    await self._disconnect()
                    self._connected_url = url
                if self._others is None:
                    self._others = open_client(url)
                # Not PING: that is answered while the store still loads its log.
                await self._others.run("EXISTS", PLANS_KEY)
            except (StoreError, EngineUnavailable) as error:
                self._reason = error.what
                await asyncio.sleep(_PROBE_EVERY_S)
            else:
                self._reason = None
                logger.warning("store answers again")
                return

    async def _disconnect(self) -> None:
        clients, self._rows, self._others = (self._rows, self._others), None, None
        for client in clients:
            if client is not None:
                await client.close()


def _is_unknown_script(answer: Any) -> bool:
    return isinstance(answer, StoreError) and "NOSCRIPT" in answer.what


def open_client(url: str) -> StoreClient:
    """Return a client of a store; it connects at its first command.

    Raises:
        SetupError: the URL is of no known kind.
    """
    return StoreClient(Address.of_url(url), _CONNECT_TIMEOUT_S, _ANSWER_TIMEOUT_S)
