"""The server's client of the online store: one connection, written to once per turn of the loop.

What is asked for in one turn goes out in one write, and rows that are asked for in one turn by one
``MGET``, a key of several askers once. That is most of what a lookup costs less than with a client
that has a connection for each command. A command waits in no thread and makes no task: who asks
gives a callback. RESP3, so that pushes of the server (invalidations) can share the connection.

Commands may be sent twice: one that was under way when its connection was lost is sent again on the
next one, once. So only what reads, or sets what was computed, belongs here.

Source: the automatic pipelining of ioredis and StackExchange.Redis.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from millrace.errors import SetupError, StoreError
from resources.store.errors import StoreUnavailable

Argument = bytes | str | int
Done = Callable[[Any], None]
"""Takes the answer, or the ``StoreError`` in its place."""

_ROWS_AT_ONCE = 2_000
"""Keys of one ``MGET``, unless a single asker wants more."""

_UNAVAILABLE = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOAUTH", "WRONGPASS"})
_FIX = "millrace status; millrace up store"


@dataclass(frozen=True)
class Address:
    """Where a store is and how to be let in.

    Attributes:
        path: of a Unix socket; host and port are not used then.
        secure: how to speak TLS; None: not at all.
    """

    host: str
    port: int
    path: str | None
    secure: ssl.SSLContext | None
    hello: tuple[Argument, ...]
    database: int

    @classmethod
    def of_url(cls, url: str) -> "Address":
        """Read ``redis://``, ``rediss://`` or ``unix://``; options are those of redis-py.

        Raises:
            SetupError: it is of another kind.
        """
        try:
            given: dict[str, Any] = dict(parse_url(url))
        except ValueError as error:
            raise SetupError(
                f"the address of the store cannot be used: {error}",
                where="MILLRACE_STORE_URL",
                fix="redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket",
            ) from error
        kind = given.pop("connection_class", None)
        hello: tuple[Argument, ...] = ("HELLO", 3)
        if given.get("password") is not None:
            hello += ("AUTH", given.get("username") or "default", given["password"])
        secure = None
        if kind is SSLConnection:
            options = {name: value for name, value in given.items() if name.startswith("ssl_")}
            secure = SSLConnection(**options).ssl_context.get()
        return cls(
            given.get("host", "localhost"),
            given.get("port", 6379),
            given["path"] if kind is UnixDomainSocketConnection else None,
            secure,
            hello,
            given.get("db", 0),
        )


@dataclass
class _Command:
    """A command on its way.

    Attributes:
        is_again: it was under way already when its connection was lost.
    """

    data: bytes
    done: Done
    is_again: bool = False
    sent_s: float = 0.0


class _Link(asyncio.Protocol):
    """One connection: answers come in the order of the commands."""

    def __init__(self, on_lost: Callable[["_Link", str], None]) -> None:
        self._reader = hiredis.Reader()
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.WriteTransport | None = None
        self.under_way: deque[_Command] = deque()
        self.reason = "the connection was lost"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self.reason = f"the connection was lost: {exc}"
        self.transport = None
        self._on_lost(self, self.reason)

    def data_received(self, data: bytes) -> None:
        reader, under_way = self._reader, self.under_way
        try:
            reader.feed(data)
            answer = reader.gets()
            while answer is not False:
                if type(answer) is not hiredis.PushNotification:
                    under_way.popleft().done(answer)
                answer = reader.gets()
        except hiredis.ProtocolError as error:
            self.give_up(f"it does not speak the store's protocol: {error}")

    def send(self, commands: Sequence[_Command]) -> None:
        """Write commands at once."""
        now_s = self._loop.time()
        for command in commands:
            command.sent_s = now_s
        self.under_way += commands
        if self.transport is not None:
            self.transport.write(b"".join([command.data for command in commands]))

    def give_up(self, reason: str) -> None:
        """Close the connection without waiting for anything."""
        self.reason = reason
        if self.transport is not None:
            self.transport.abort()


@dataclass
class StoreClient:
    """Sends commands; connects when there is one to send, and again after a loss.

    Every failure is a ``StoreUnavailable`` or, where the store refuses, a ``StoreError``.

    Attributes:
        connect_timeout_s: until a connection is made and let in.
        answer_timeout_s: from when a command is sent until its answer; then the connection is
            given up, for all that wait behind it are late too.
    """

    address: Address
    connect_timeout_s: float = 0.5
    answer_timeout_s: float = 2.0
    _link: _Link | None = field(default=None, init=False)
    _connecting: asyncio.Task[None] | None = field(default=None, init=False)
    _waiting: list[_Command] = field(default_factory=list, init=False)
    _rows: list[tuple[Sequence[bytes], Done]] = field(default_factory=list, init=False)
    _is_due: bool = field(default=False, init=False)
    _watch: asyncio.TimerHandle | None = field(default=None, init=False)
    _is_closed: bool = field(default=False, init=False)

    def rows(self, keys: Sequence[bytes], done: Done) -> None:
        """Ask for the values of keys: ``done`` takes a list, None where a key has none."""
        self._rows.append((keys, done))
        if not self._is_due:
            self._flush_soon()

    def call(self, done: Done, *command: Argument) -> None:
        """Send a command; a map is answered as a dict."""
        self._waiting.append(_Command(_packed(*command), done))
        if not self._is_due:
            self._flush_soon()

    async def run(self, *command: Argument) -> Any:
        """Send a command and return its answer.

        Raises:
            StoreUnavailable: no answer.
            StoreError: the store refuses.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(told: Any) -> None:
            if answer.done():
                return
            error = failure(told)
            if error is None:
                answer.set_result(told)
            else:
                answer.set_exception(error)

        self.call(done, *command)
        return await answer

    async def close(self) -> None:
        """Close the connection; what is under way fails."""
        self._is_closed = True
        if self._watch is not None:
            self._watch.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            with suppress(asyncio.CancelledError):
                await self._connecting
        if self._link is not None:
            self._link.give_up("the client was closed")
            self._link = None

    def _flush_soon(self) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_due = False
        if self._rows:
            asked, self._rows = self._rows, []
            self._waiting += _merged(asked)
        if self._link is None:
            if self._connecting is None and self._waiting:
                self._connecting = asyncio.get_running_loop().create_task(self._connect())
            return
        commands, self._waiting = self._waiting, []
        if commands:
            self._link.send(commands)
            if self._watch is None:
                self._watch_soon()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self.connect_timeout_s):
                self._link = await self._opened()
        except (OSError, StoreError) as error:
            told = error.what if isinstance(error, StoreError) else str(error)
            self._fail(self._waiting, told or f"no connection within {self.connect_timeout_s} s")
        except asyncio.CancelledError:
            self._fail(self._waiting, "the client was closed")
            raise
        finally:
            self._connecting = None
        if self._waiting:
            self._flush()

    async def _opened(self) -> _Link:
        loop, address = asyncio.get_running_loop(), self.address
        if address.path is None:
            _, link = await loop.create_connection(
                self._new_link, address.host, address.port, ssl=address.secure
            )
        else:
            _, link = await loop.create_unix_connection(self._new_link, address.path)
        steps = [address.hello]
        if address.database:
            steps.append(("SELECT", address.database))
        answers: asyncio.Queue[Any] = asyncio.Queue()
        link.send([_Command(_packed(*s), answers.put_nowait, is_again=True) for s in steps])
        try:
            refusals = [failure(await answers.get()) for _ in steps]
        except asyncio.CancelledError:
            link.give_up("the store does not let this client in")
            raise
        for error in refusals:
            if error is not None:
                link.give_up(error.what)
                raise error
        return link

    def _new_link(self) -> _Link:
        return _Link(self._lost)

    def _lost(self, link: _Link, reason: str) -> None:
        again = [command for command in link.under_way if not command.is_again]
        late = [command for command in link.under_way if command.is_again]
        link.under_way.clear()
        if self._link is link:
            self._link = None
        if self._is_closed or link.reason.startswith(_TOO_SLOW):
            again, late = [], late + again
        for command in again:
            command.is_again = True
        self._waiting = again + self._waiting
        self._fail(late, reason)
        if self._waiting and not self._is_due:
            self._flush_soon()

    def _fail(self, commands: list[_Command], reason: str) -> None:
        failed = list(commands)
        commands.clear()
        error = StoreUnavailable(
            f"the online store does not answer: {reason}", where="online store", fix=_FIX
        )
        for command in failed:
            command.done(error)

    def _watch_soon(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(self.answer_timeout_s / 8, self._look)

    def _look(self) -> None:
        """Give the connection up if the oldest command waits too long."""
        self._watch = None
        link = self._link
        if link is None or not link.under_way:
            return
        waited_s = asyncio.get_running_loop().time() - link.under_way[0].sent_s
        if waited_s > self.answer_timeout_s:
            link.give_up(f"{_TOO_SLOW} {self.answer_timeout_s} s")
        else:
            self._watch_soon()


_TOO_SLOW = "no answer within"


def _packed(*command: Any) -> bytes:
    data: bytes = hiredis.pack_command(command)
    return data


def failure(told: Any) -> StoreError | None:
    """Return the error that an answer is; None if it is none."""
    if isinstance(told, StoreError):
        return told
    if not isinstance(told, hiredis.ReplyError):
        return None
    text = str(told)
    if text.partition(" ")[0] in _UNAVAILABLE or "max number of clients" in text:
        return StoreUnavailable(
            f"the online store does not answer: {text}", where="online store", fix=_FIX
        )
    return StoreError(f"the online store refused: {text}", where="online store", fix=_FIX)


def _merged(asked: Sequence[tuple[Sequence[bytes], Done]]) -> list[_Command]:
    """Return the fewest reads that answer everybody, none of them much larger than it must be."""
    commands, first, size = [], 0, 0
    for place, (keys, _) in enumerate(asked, start=1):
        size += len(keys)
        if size >= _ROWS_AT_ONCE or place == len(asked):
            commands.append(_read(asked[first:place]))
            first, size = place, 0
    return commands


def _read(asked: Sequence[tuple[Sequence[bytes], Done]]) -> _Command:
    if len(asked) == 1:
        ((keys, done),) = asked
        return _Command(_packed("MGET", *keys), done)
    wanted = list(dict.fromkeys(chain.from_iterable([keys for keys, _ in asked])))

    def answered(told: Any) -> None:
        if type(told) is not list:
            for _, done in asked:
                done(told)
            return
        found = dict(zip(wanted, told, strict=True))
        for keys, done in asked:
            done([found[key] for key in keys])

    return _Command(_packed("MGET", *wanted), answered)
