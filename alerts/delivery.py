"""Sends what waits: every sink by itself, in order, until its queue is empty or it fails.

A message counts as sent once the receiver has answered so. If the process dies in between, the
message is sent once more under the same key.
"""

import os
import socket
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from alerts.configuration import AlertConfig
from alerts.message import redact
from alerts.outbox import Outbox, Parcel
from alerts.sinks.sink import MessageRefused, Sink, SinkUnavailable
from millrace.errors import PlatformError, SetupError

LEASE_MS = 45_000
"""Longer than any attempt takes; a process that died holds up its sink no longer than this."""
LONGEST_MS = 300_000
"""A sink that is slow leaves the rest of its queue to the next run."""

Clock = Callable[[], int]


@dataclass
class SinkReport:
    """What became of one sink's queue in one run.

    Attributes:
        sent: messages handed over.
        refused: why single messages were put aside.
        error: why the sink takes nothing; empty if its queue is empty.
        is_elsewhere: another process is sending to it.
    """

    sink: str
    sent: int = 0
    refused: list[str] = field(default_factory=list)
    error: str = ""
    is_elsewhere: bool = False


def now_ms() -> int:
    """Return the present instant, epoch milliseconds."""
    return int(datetime.now(tz=UTC).timestamp() * 1000)


def deliver(
    outbox: Outbox,
    config: AlertConfig,
    *,
    clock: Clock = now_ms,
    env: Mapping[str, str] | None = None,
) -> list[SinkReport]:
    """Send what is due to every sink, side by side; one that fails holds up no other.

    Messages to a sink that is configured no more are dropped.
    """
    due = {
        name for name, one in outbox.statuses(config.sinks, clock()).items() if one.is_due(clock())
    }
    for name in due - set(config.sinks):
        outbox.drop(name, "the sink is configured no more", clock())
    names = [name for name in config.sinks if name in due]
    if not names:
        return []
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(max_workers=len(names), thread_name_prefix="alerts") as threads:
        runs = [
            threads.submit(_Sending(outbox, config, name, owner, clock, env).run) for name in names
        ]
        return [run.result() for run in runs]


@dataclass(frozen=True)
class _Sending:
    """One run over one sink's queue."""

    outbox: Outbox
    config: AlertConfig
    name: str
    owner: str
    clock: Clock
    env: Mapping[str, str] | None

    def run(self) -> SinkReport:
        report = SinkReport(self.name)
        with self.outbox.lease(self.name, self.owner, self.clock(), LEASE_MS) as is_ours:
            if not is_ours:
                report.is_elsewhere = True
                return report
            try:
                sink = self.config.sinks[self.name].open(self.env)
            except SetupError as error:
                self._give_up(report, error)
                return report
            self._empty(sink, report)
        return report

    def _empty(self, sink: Sink, report: SinkReport) -> None:
        until_ms = self.clock() + LONGEST_MS
        digests = self.config.digests
        while self.clock() < until_ms:
            parcel = self.outbox.next(self.name, sink.batching, digests, self.clock())
            if parcel is None:
                return
            if not self.outbox.renew(self.name, self.owner, self.clock(), LEASE_MS):
                report.is_elsewhere = True
                return
            if not self._send(sink, parcel, report):
                return

    def _send(self, sink: Sink, parcel: Parcel, report: SinkReport) -> bool:
        """Send one parcel; returns whether the next one may be tried."""
        try:
            sink.send(parcel.delivery)
        except MessageRefused as error:
            self.outbox.park(self.name, parcel, redact(str(error)), self.clock())
            report.refused.append(f"{parcel.delivery.title}: {redact(str(error))}")
        except SinkUnavailable as error:
            self._give_up(report, error, error.retry_after_s)
            return False
        else:
            self.outbox.sent(self.name, parcel, self.clock())
            report.sent += len(parcel.seqs)
        return True

    def _give_up(
        self, report: SinkReport, error: PlatformError, retry_after_s: float | None = None
    ) -> None:
        report.error = redact(str(error))
        self.outbox.failed(self.name, report.error, self.clock(), retry_after_s)
