"""The door to the online store: one way to connect, and its errors as the platform's.

Nothing here retries. Whoever calls knows whether a call may be repeated: the writer starts from its
markers again, the server answers 503, a command says so and ends.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from millrace.errors import SetupError, StoreError
from resources.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from redis import Redis

_CONNECT_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 10.0
_SCANNED = 1_000
_FIX = "millrace status; millrace up store"


def open_store(url: str, **options: Any) -> "Redis":
    """Return a client of the store; it connects at its first command.

    Answers are bytes. A command is sent once: no retries, for a repeated one may act twice.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; may hold a password, which no error shows.
        **options: options of ``redis.Redis.from_url`` that override these.

    Raises:
        SetupError: the URL is of another kind.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    defaults: dict[str, Any] = {
        "decode_responses": False,
        "socket_connect_timeout": _CONNECT_TIMEOUT_S,
        "socket_timeout": _ANSWER_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    try:
        return Redis.from_url(url, **(defaults | options))
    except ValueError as error:
        raise SetupError(
            f"the address of the store cannot be used: {error}",
            where="MILLRACE_STORE_URL",
            fix="redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket",
        ) from error


@contextmanager
def store_errors(where: str = "online store") -> Iterator[None]:
    """Turn the client's exceptions into the platform's.

    Raises:
        StoreUnavailable: the store is away, still loading, or too slow.
        StoreError: it answers, and refuses.
    """
    from redis.exceptions import BusyLoadingError, RedisError, TimeoutError
    from redis.exceptions import ConnectionError as Disconnected

    try:
        yield
    except (Disconnected, TimeoutError, BusyLoadingError) as error:
        raise StoreUnavailable(
            f"the online store does not answer: {error}", where=where, fix=_FIX
        ) from error
    except RedisError as error:
        raise StoreError(f"the online store refused: {error}", where=where, fix=_FIX) from error


def pages(client: "Redis", pattern: bytes) -> Iterator[list[bytes]]:
    """Yield the keys of a pattern, a thousand or so at a time; one that moves may come twice.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    cursor = 0
    while True:
        with store_errors():
            found: Any = client.scan(cursor, match=pattern, count=_SCANNED)
        cursor, keys = found
        if keys:
            yield keys
        if cursor == 0:
            return


def wait_for_disk(client: "Redis", timeout_ms: int) -> None:
    """Wait until the store has what this client wrote on disk, if it keeps a log at all.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    from redis.exceptions import ResponseError

    with store_errors():
        try:
            client.execute_command("WAITAOF", 1, 0, timeout_ms)  # type: ignore[no-untyped-call]
        except ResponseError:
            # No append-only file, or a Redis before 7.2: there is nothing to wait for. What such a
            # store loses of publications, the sensor puts back.
            return
