"""The server's store client against a store that is played: what goes out, and what a loss does."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hiredis
import pytest

from millrace.errors import SetupError, StoreError
from resources.store.asynchronous import Address, StoreClient
from resources.store.errors import StoreUnavailable

T = TypeVar("T")
OK = b"+OK\r\n"
Answer = Callable[[list[bytes]], bytes | None]
"""What a store answers to a command; None: it closes the connection."""


@dataclass
class PlayedStore:
    """A store that answers as told, and keeps what it was asked."""

    answer: Answer
    commands: list[list[bytes]] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        parser = hiredis.Reader()
        try:
            while data := await reader.read(65_536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(command)
                    told = self.answer(command)
                    if told is None:
                        return
                    writer.write(told)
        finally:
            writer.close()


def mget(command: list[bytes]) -> bytes:
    """Answer a read of rows with the keys themselves; anything else with OK."""
    if command[0] != b"MGET":
        return OK
    return b"*%d\r\n" % (len(command) - 1) + b"".join(
        b"$-1\r\n" if key == b"none" else b"$%d\r\n%s\r\n" % (len(key), key) for key in command[1:]
    )


def played(
    answer: Answer,
    work: Callable[[StoreClient, PlayedStore], Awaitable[T]],
    *,
    credentials: str = "",
    **timeouts: float,
) -> T:
    async def run() -> T:
        store = PlayedStore(answer)
        server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = StoreClient(Address.of_url(f"redis://{credentials}127.0.0.1:{port}/0"), **timeouts)
        try:
            async with asyncio.timeout(10):
                return await work(client, store)
        finally:
            await client.close()
            server.close()

    return asyncio.run(run())


def asked_rows(client: StoreClient, *keys: bytes) -> "asyncio.Future[Any]":
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    client.rows(keys, answer.set_result)
    return answer


def reads(store: PlayedStore) -> list[list[bytes]]:
    return [command[1:] for command in store.commands if command[0] == b"MGET"]


def test_rows_of_one_turn_are_one_read_and_a_key_of_many_is_read_once() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> list[Any]:
        wanted = [(b"a", b"none"), (b"b", b"a"), (b"a",)]
        found = await asyncio.gather(*(asked_rows(client, *keys) for keys in wanted))
        assert reads(store) == [[b"a", b"none", b"b"]]
        await asked_rows(client, b"a")
        assert len(reads(store)) == 2
        assert store.connections == 1
        return found

    assert played(mget, work) == [[b"a", None], [b"b", b"a"], [b"a"]]


def test_a_large_read_is_not_made_larger_by_others() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> list[int]:
        large = [b"%d" % number for number in range(3_000)]
        found = await asyncio.gather(asked_rows(client, *large), asked_rows(client, b"a"))
        assert [len(rows) for rows in found] == [3_000, 1]
        return [len(read) for read in reads(store)]

    assert played(mget, work) == [3_000, 1]


def test_what_was_under_way_when_the_connection_was_lost_is_sent_once_more() -> None:
    lost = [1]

    def answer(command: list[bytes]) -> bytes | None:
        if command[0] == b"MGET" and lost:
            lost.clear()
            return None
        return mget(command)

    async def work(client: StoreClient, store: PlayedStore) -> tuple[Any, int]:
        return await asked_rows(client, b"a"), store.connections

    assert played(answer, work) == ([b"a"], 2)


def test_what_is_lost_twice_fails() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> tuple[Any, int]:
        return await asked_rows(client, b"a"), store.connections

    told, connections = played(lambda c: None if c[0] == b"MGET" else OK, work)
    assert isinstance(told, StoreUnavailable)
    assert connections == 2


def test_a_store_that_hangs_fails_all_that_wait_and_is_connected_to_anew() -> None:
    hanging = [1]

    async def work(client: StoreClient, store: PlayedStore) -> list[Any]:
        told = await asyncio.gather(asked_rows(client, b"a"), asked_rows(client, b"b"))
        hanging.clear()
        return [*told, await asked_rows(client, b"c")]

    def answer(command: list[bytes]) -> bytes:
        return b"" if command[0] == b"MGET" and hanging else mget(command)

    first, second, third = played(answer, work, answer_timeout_s=0.1)
    assert isinstance(first, StoreUnavailable)
    assert isinstance(second, StoreUnavailable)
    assert "no answer within 0.1 s" in first.what
    assert third == [b"c"]


def test_a_store_that_does_not_let_in_is_given_up_in_time() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> None:
        with pytest.raises(StoreUnavailable, match=r"no connection within 0\.1 s"):
            await client.run("EXISTS", "a")

    played(lambda _: b"", work, connect_timeout_s=0.1)


def test_the_password_and_the_user_are_given_first() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> list[bytes]:
        await client.run("EXISTS", "a")
        return store.commands[0]

    hello = [b"HELLO", b"3", b"AUTH"]
    assert played(mget, work, credentials=":se%20cret@") == [*hello, b"default", b"se cret"]
    assert played(mget, work, credentials="me:pw@") == [*hello, b"me", b"pw"]


def test_refusals_are_told_apart() -> None:
    def answer(command: list[bytes]) -> bytes:
        return {
            b"ONE": b"-LOADING the log\r\n", b"TWO": b"-ERR no such command\r\n",
            b"THREE": b"%1\r\n$1\r\na\r\n:1\r\n", b"HELLO": OK,
        }[command[0]]  # fmt: skip

    async def work(client: StoreClient, store: PlayedStore) -> Any:
        with pytest.raises(StoreUnavailable, match="LOADING"):
            await client.run("ONE")
        with pytest.raises(StoreError, match="refused: ERR no such") as refused:
            await client.run("TWO")
        assert not isinstance(refused.value, StoreUnavailable)
        return await client.run("THREE")

    assert played(answer, work) == {b"a": 1}


def test_pushes_are_no_answers_and_nonsense_ends_the_connection() -> None:
    def answer(command: list[bytes]) -> bytes:
        if command[0] == b"HELLO":
            return OK
        return b"nonsense\r\n" if command[0] == b"BAD" else b">2\r\n+invalidate\r\n+x\r\n:7\r\n"

    async def work(client: StoreClient, store: PlayedStore) -> Any:
        with pytest.raises(StoreUnavailable, match="protocol"):
            await client.run("BAD")
        return await client.run("GOOD")

    assert played(answer, work) == 7


def test_what_waits_when_the_client_is_closed_fails() -> None:
    async def work(client: StoreClient, store: PlayedStore) -> Any:
        answer = asked_rows(client, b"a")
        while not reads(store):
            await asyncio.sleep(0)
        await client.close()
        return await answer

    told = played(lambda c: b"" if c[0] == b"MGET" else OK, work)
    assert isinstance(told, StoreUnavailable)


@pytest.mark.parametrize("url", ["http://store", "store:6379", ""])
def test_an_address_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="address of the store"):
        Address.of_url(url)


def test_addresses_are_read_with_their_options() -> None:
    sock = Address.of_url("unix:///run/store.sock?db=2")
    assert (sock.path, sock.database, sock.secure) == ("/run/store.sock", 2, None)
    secure = Address.of_url("rediss://store:7000/1?ssl_check_hostname=false&ssl_cert_reqs=none")
    assert (secure.host, secure.port, secure.database) == ("store", 7000, 1)
    assert secure.secure is not None
    assert not secure.secure.check_hostname
