"""Ports of 127.0.0.1: which are free, and whether somebody answers."""

import socket
import time
import zlib
from collections.abc import Collection

from millrace.errors import SetupError

# Below the range from which systems take the ports of outgoing connections (32768 on Linux), so
# that a port chosen now is not gone when the program gets to bind it.
_LOWEST = 20_000
_HIGHEST = 32_000
_CONNECT_TIMEOUT_S = 1.0
_POLL_S = 0.05


def choose_port(purpose: str, *, taken: Collection[int] = ()) -> int:
    """Return a free port, found from ``purpose``.

    The search starts at a number made from ``purpose``, so the same purpose gets the same port on
    a quiet machine, and two stacks seldom meet.

    Args:
        purpose: names the use, with the stack's home in it.
        taken: ports promised to others and not yet bound.

    Raises:
        SetupError: every port of the range is in use.
    """
    span = _HIGHEST - _LOWEST
    first = zlib.crc32(purpose.encode()) % span
    for step in range(span):
        port = _LOWEST + (first + step) % span
        if port not in taken and is_free(port):
            return port
    raise SetupError(
        f"no free port between {_LOWEST} and {_HIGHEST}",
        where="127.0.0.1",
        fix="stop what holds them; `ss -ltnp` lists it",
    )


def is_free(port: int) -> bool:
    """Whether a server could bind the port now (connections in TIME_WAIT do not count)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until_free(port: int, timeout_s: float) -> bool:
    """Wait for a port to become free; False if it is still taken after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def is_answering(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
