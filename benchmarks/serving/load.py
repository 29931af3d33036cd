"""A load generator in asyncio: raw HTTP over kept-alive connections, requests formatted before.

Closed loop (each connection sends its next request when it has its answer) measures throughput.
Open loop sends at a fixed rate whatever comes back, and counts time from the instant a request was
due, so that waiting counts.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast


@dataclass
class Measured:
    """What came of one run.

    Attributes:
        latencies_s: of every answer, ascending.
        bad: answers that were not 200.
    """

    seconds: float
    latencies_s: list[float]
    bad: int

    def as_json(self) -> dict[str, float]:
        """Return the figures; latencies in milliseconds."""
        found = {"requests": len(self.latencies_s), "bad": self.bad}
        return found | {
            "per_s": round(len(self.latencies_s) / self.seconds, 1),
            "p50_ms": self._quantile_ms(0.5),
            "p95_ms": self._quantile_ms(0.95),
            "p99_ms": self._quantile_ms(0.99),
        }

    def _quantile_ms(self, share: float) -> float:
        place = min(int(share * len(self.latencies_s)), len(self.latencies_s) - 1)
        return round(self.latencies_s[place] * 1000, 3)


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a formatted request."""
    lines = [f"POST {path} HTTP/1.1", "host: bench", "content-type: application/json", *headers]
    head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""])
    return head.encode() + body


@dataclass
class _Connection(asyncio.Protocol):
    """One connection with at most one request under way."""

    run: "_Run"
    _due_s: float = 0.0
    _held: bytes = b""
    transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.WriteTransport", transport)

    def send(self, request: bytes, due_s: float) -> None:
        self._due_s = due_s
        if self.transport is not None:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._held = b""
            self.run.answered(self, self._due_s, is_good=head.startswith(b"HTTP/1.1 200"))


@dataclass
class _Run:
    requests: Sequence[bytes]
    latencies_s: list[float] = field(default_factory=list)
    bad: int = 0
    waiting: list[float] = field(default_factory=list)
    idle: list[_Connection] = field(default_factory=list)
    is_closed_loop: bool = True
    is_over: bool = False

    def __post_init__(self) -> None:
        self._next = cycle(self.requests)

    def answered(self, connection: _Connection, due_s: float, *, is_good: bool) -> None:
        now = time.perf_counter()
        self.latencies_s.append(now - due_s)
        self.bad += not is_good
        if self.is_over:
            return
        if self.is_closed_loop:
            connection.send(next(self._next), now)
        elif self.waiting:
            connection.send(next(self._next), self.waiting.pop(0))
        else:
            self.idle.append(connection)

    def due(self, at_s: float) -> None:
        if self.idle:
            self.idle.pop().send(next(self._next), at_s)
        else:
            self.waiting.append(at_s)


async def closed_loop(
    address: tuple[str, int], requests: Sequence[bytes], *, connections: int, seconds: float
) -> Measured:
    """Send as fast as answers come back."""
    run = _Run(requests)
    opened = await _open(address, run, connections)
    began = time.perf_counter()
    for connection in opened:
        connection.send(next(run._next), time.perf_counter())  # noqa: SLF001
    await asyncio.sleep(seconds)
    return await _finished(run, opened, began)


async def open_loop(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    connections: int,
    per_s: float,
    seconds: float,
) -> Measured:
    """Send at a fixed rate; a request that finds no free connection waits, and that counts."""
    run = _Run(requests, is_closed_loop=False)
    opened = await _open(address, run, connections)
    run.idle = list(opened)
    began = time.perf_counter()
    for number in range(int(per_s * seconds)):
        at_s = began + number / per_s
        pause_s = at_s - time.perf_counter()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        run.due(at_s)
    while run.waiting or len(run.idle) < len(opened):
        await asyncio.sleep(0.01)
    return await _finished(run, opened, began)


async def _open(address: tuple[str, int], run: _Run, count: int) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(lambda: _Connection(run), *address))[1] for _ in range(count)
    ]


async def _finished(run: _Run, opened: Sequence[_Connection], began: float) -> Measured:
    seconds = time.perf_counter() - began
    run.is_over = True
    await asyncio.sleep(0.1)
    for connection in opened:
        if connection.transport is not None:
            connection.transport.close()
    return Measured(seconds, sorted(run.latencies_s), run.bad)
