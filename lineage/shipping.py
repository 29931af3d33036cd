"""From the outbox to the receivers: in order, at least once, each receiver for itself.

Only one process ships at a time. A receiver that is away is left alone for a growing while and
told everything once it is back; an event that it refuses for good is parked, which is said, and the
next ones follow.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lineage.facets import instant
from lineage.outbox import Outbox
from lineage.outbox import Receiver as Position
from lineage.quiet import quietly
from lineage.receivers import EventRefused, Receiver, ReceiverAway, receivers
from resources.settings import Settings

logger = logging.getLogger(__name__)

BUDGET_S = 5.0
"""How long one call ships; what is left is for the next."""
SOON_S = 1.0
"""How long work that has just ended may ship its own events."""

_BATCH = 100
_FIRST_PAUSE_MS = 2_000
_LONGEST_PAUSE_MS = 60_000
_MOST_DOUBLINGS = 10


@dataclass(frozen=True)
class Shipped:
    """How it stands with a receiver.

    Attributes:
        sent: taken in this call.
        total: taken, ever.
        waiting: not taken yet.
        parked: refused for good, ever; they stay in the outbox for seven days.
        error: why it does not take events; empty if it does.
        away_since_ms: since when.
        sent_ms: when it took the last one.
        was_tried: False if it was left alone this time.
    """

    name: str
    sent: int
    total: int
    waiting: int
    parked: int
    error: str = ""
    away_since_ms: int | None = None
    sent_ms: int | None = None
    was_tried: bool = True

    def __str__(self) -> str:
        return self._told(f"{self.sent} sent now")

    @property
    def standing(self) -> str:
        """All that was sent instead of what was sent in this call."""
        last = "" if self.sent_ms is None else f", last {_iso(self.sent_ms)}"
        return self._told(f"{self.total} sent{last}")

    def _told(self, sent: str) -> str:
        said = f"{self.name}: {sent}, {self.waiting} waiting"
        said += f", {self.parked} refused for good" if self.parked else ""
        since = "" if self.away_since_ms is None else f", away since {_iso(self.away_since_ms)}"
        return f"{said}{since}: {self.error}" if self.error else said + since

    @property
    def state(self) -> str:
        """``away`` if it does not take events, else ``behind`` while some wait, else ``ok``."""
        if self.away_since_ms is not None:
            return "away"
        return "behind" if self.waiting else "ok"

    def as_json(self) -> dict[str, Any]:
        """Return the receiver's entry of ``lineage status --json``."""
        return {
            "state": self.state,
            "sent": self.total,
            "sent_ms": self.sent_ms,
            "waiting": self.waiting,
            "refused": self.parked,
            "since_ms": self.away_since_ms,
            "detail": self.error,
        }


def ship(
    settings: Settings,
    *,
    budget_s: float = BUDGET_S,
    is_forced: bool = False,
    now_ms: int | None = None,
) -> list[Shipped]:
    """Send what waits; returns how it stands with each receiver, or nothing if another ships.

    Args:
        settings: names outbox and receivers.
        budget_s: for each receiver, and for each wait for an answer.
        is_forced: also try receivers that were left alone for a while.
        now_ms: the present instant; None: the clock's.

    Raises:
        SetupError: a receiver's name says nothing.
        sqlite3.Error: the outbox cannot be used.
    """
    named = receivers(settings, timeout_s=budget_s)
    outbox = Outbox.of(settings)
    if not named or not outbox.path.exists():
        return []
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    with _only_shipper(outbox.path.with_name(".shipping.lock")) as is_ours:
        if not is_ours:
            return []
        progress = outbox.receivers([receiver.name for receiver in named])
        done = [
            _ship_to(outbox, to, progress[to.name], budget_s, now_ms, is_forced=is_forced)
            for to in named
        ]
        outbox.prune([receiver.name for receiver in named], now_ms)
    return done


@quietly
def ship_soon(settings: Settings) -> None:
    """Ship for at most a second per receiver, for work that has just ended; never raises.

    A receiver that is away costs at most that second, and then nothing while it is left alone.
    """
    ship(settings, budget_s=SOON_S)


def standing(settings: Settings) -> list[Shipped]:
    """Return how it stands with each receiver, without sending anything."""
    outbox = Outbox.of(settings)
    names = [receiver.name for receiver in receivers(settings, timeout_s=SOON_S)]
    return [_standing(outbox, at, 0) for at in outbox.receivers(names).values()]


def _ship_to(
    outbox: Outbox,
    to: Receiver,
    at: Position,
    budget_s: float,
    now_ms: int,
    *,
    is_forced: bool,
) -> Shipped:
    if now_ms < at.not_before_ms and not is_forced:
        return replace(_standing(outbox, at, 0), was_tried=False)
    sent, deadline = 0, time.monotonic() + budget_s
    try:
        while time.monotonic() < deadline and (batch := outbox.waiting(at, _BATCH)):
            for event in batch:
                try:
                    to.send(event)
                except EventRefused as error:
                    logger.error(  # noqa: TRY400 - the message is written for its reader
                        "event %d of run %s is parked: %s", event.seq, event.run_id, error
                    )
                    at = at.after(event.seq, now_ms=None)
                    outbox.note(at, parked=(event.seq, str(error)))
                except ReceiverAway as error:
                    at = _away(at, error, now_ms)
                    outbox.note(at)
                    return _standing(outbox, at, sent)
                else:
                    at = at.after(event.seq, now_ms=now_ms)
                    outbox.note(at)
                    sent += 1
                if time.monotonic() >= deadline:
                    break
    finally:
        to.close()
    return _standing(outbox, at, sent)


def _away(at: Position, error: ReceiverAway, now_ms: int) -> Position:
    pause_ms = min(_FIRST_PAUSE_MS * 2 ** min(at.failures, _MOST_DOUBLINGS), _LONGEST_PAUSE_MS)
    if at.failures == 0:
        logger.warning("lineage waits in the outbox: %s", error)
    return replace(
        at,
        failures=at.failures + 1,
        not_before_ms=now_ms + pause_ms,
        away_since_ms=at.away_since_ms or now_ms,
        error=str(error),
    )


def _standing(outbox: Outbox, at: Position, sent: int) -> Shipped:
    waiting, parked = outbox.count_waiting(at), outbox.count_parked(at.name)
    return Shipped(at.name, sent, at.sent, waiting, parked, at.error, at.away_since_ms, at.sent_ms)


def _iso(instant_ms: int) -> str:
    return instant(datetime.fromtimestamp(instant_ms / 1000, tz=UTC))


@contextmanager
def _only_shipper(path: Path) -> Iterator[bool]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
