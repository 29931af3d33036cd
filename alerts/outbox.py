"""The queues of the sinks: what waits, who is sending, what was sent, refused or put off.

A sink's queue is sent in the order decided; ``batching`` says what goes together.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from alerts import tables
from alerts.batching import pick, split
from alerts.configuration import Digests
from alerts.message import Batching, Delivery, Message
from alerts.state import insert_new

State = Literal["pending", "sent", "parked", "dropped"]

_FIRST_PAUSE_S = 15
_LONGEST_PAUSE_S = 600
_MOST_DOUBLINGS = 10
_REASON_LENGTH = 500


@dataclass(frozen=True)
class SinkStatus:
    """How one sink does.

    Attributes:
        pending: messages that wait.
        parked: messages that it refused for good.
        failures: attempts in a row that failed.
        not_before_ms: no attempt before.
        down_since_ms: the first of these failures; None if the last attempt went well.
        sent_ms: the last success; None if there never was one.
        error: why the last attempt failed; empty if it did not.
        oldest_ms: since when the oldest message waits; None if none does.
        is_leased: somebody is sending to it.
    """

    name: str
    pending: int = 0
    parked: int = 0
    failures: int = 0
    not_before_ms: int = 0
    down_since_ms: int | None = None
    sent_ms: int | None = None
    error: str = ""
    oldest_ms: int | None = None
    is_leased: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the sink's entry of ``alerts status --json``."""
        state = "away" if self.down_since_ms is not None else "behind" if self.pending else "ok"
        return {
            "state": state,
            "sent_ms": self.sent_ms,
            "waiting": self.pending,
            "waiting_since_ms": self.oldest_ms,
            "refused": self.parked,
            "since_ms": self.down_since_ms,
            "detail": self.error,
        }

    def is_due(self, now_ms: int) -> bool:
        """Say whether something waits and nothing speaks against sending it."""
        return bool(self.pending) and not self.is_leased and now_ms >= self.not_before_ms


@dataclass(frozen=True)
class Parcel:
    """A delivery, and the rows it is made of."""

    delivery: Delivery
    seqs: tuple[int, ...]


class Outbox:
    """The sending side of the alerts' database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def statuses(self, names: Collection[str], now_ms: int) -> dict[str, SinkStatus]:
        """Return how sinks do: those named, and any other that has messages waiting or parked."""
        box, sinks = tables.outbox.c, tables.sinks.c
        counted: dict[str, dict[str, int]] = {}
        oldest: dict[str, int] = {}
        with self._engine.begin() as connection:
            grouped = (
                sa.select(box.sink, box.state, sa.func.count(), sa.func.min(box.queued_ms))
                .where(box.state.in_(("pending", "parked")))
                .group_by(box.sink, box.state)
            )
            for sink, state, count, queued_ms in connection.execute(grouped):
                counted.setdefault(sink, {})[state] = count
                if state == "pending":
                    oldest[sink] = queued_ms
            rows = {row.name: row for row in connection.execute(sa.select(*sinks))}
        return {
            name: _status(name, rows.get(name), counted.get(name, {}), oldest.get(name), now_ms)
            for name in dict.fromkeys((*names, *counted))
        }

    @contextmanager
    def lease(self, sink: str, owner: str, now_ms: int, length_ms: int) -> Iterator[bool]:
        """Try to become the only one who sends to a sink; give it back at the end.

        Yields:
            False if somebody else is. A lease whose owner died ends by itself.
        """
        taken = self.renew(sink, owner, now_ms, length_ms)
        try:
            yield taken
        finally:
            if taken:
                sinks = tables.sinks
                mine = (sinks.c.name == sink) & (sinks.c.lease_owner == owner)
                with self._engine.begin() as connection:
                    connection.execute(sa.update(sinks).where(mine).values(lease_until_ms=0))

    def renew(self, sink: str, owner: str, now_ms: int, length_ms: int) -> bool:
        """Take or prolong the lease of a sink; False if it is somebody else's."""
        sinks = tables.sinks.c
        free = (sinks.lease_owner == owner) | (sinks.lease_until_ms <= now_ms)
        with self._engine.begin() as connection:
            connection.execute(insert_new(connection, tables.sinks), [{"name": sink}])
            done = connection.execute(
                sa.update(tables.sinks)
                .where(sinks.name == sink, free)
                .values(lease_owner=owner, lease_until_ms=now_ms + length_ms)
            )
        return done.rowcount == 1

    def next(self, sink: str, batching: Batching, digests: Digests, now_ms: int) -> Parcel | None:
        """Return what is to be sent next; None if nothing waits."""
        with self._engine.begin() as connection:
            picked = pick(connection, sink, batching, digests, now_ms)
        if picked is None:
            return None
        messages = tuple(Message.from_json(json.loads(row.document)) for row in picked.rows)
        delivery = Delivery(picked.key, messages, picked.page)
        return Parcel(delivery, tuple(row.seq for row in picked.rows))

    def sent(self, sink: str, parcel: Parcel, now_ms: int) -> None:
        """Note that a sink has a delivery, and that it works."""
        with self._engine.begin() as connection:
            _finish(connection, parcel, "sent", now_ms)
            _set_sink(connection, sink, failures=0, down_since_ms=None, error="", sent_ms=now_ms)

    def park(self, sink: str, parcel: Parcel, reason: str, now_ms: int) -> None:
        """Put aside what a sink refuses for good, so that the others go on.

        One message of a digest may be to blame: then each is sent by itself instead.
        """
        with self._engine.begin() as connection:
            if parcel.delivery.is_digest:
                split(connection, parcel.seqs)
            else:
                _finish(connection, parcel, "parked", now_ms, reason)
            _set_sink(connection, sink, failures=0, down_since_ms=None, error="")

    def failed(
        self, sink: str, error: str, now_ms: int, retry_after_s: float | None = None
    ) -> float:
        """Note that a sink takes nothing; returns for how many seconds it is left alone."""
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(tables.sinks).where(tables.sinks.c.name == sink)
            ).one_or_none()
            failures = (0 if row is None else row.failures) + 1
            doubled_s: float = _FIRST_PAUSE_S * 2 ** min(failures - 1, _MOST_DOUBLINGS)
            pause_s = min(max(doubled_s, retry_after_s or 0), _LONGEST_PAUSE_S)
            known_ms = None if row is None else row.down_since_ms
            _set_sink(
                connection,
                sink,
                failures=failures,
                down_since_ms=now_ms if known_ms is None else known_ms,
                error=error[:_REASON_LENGTH],
                not_before_ms=now_ms + int(pause_s * 1000),
            )
        return pause_s

    def drop(self, sink: str, reason: str, now_ms: int) -> int:
        """Give up everything that waits for a sink; returns how many messages."""
        box = tables.outbox.c
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.update(tables.outbox)
                .where(box.sink == sink, box.state == "pending")
                .values(state="dropped", done_ms=now_ms, reason=reason[:_REASON_LENGTH])
            )
        return int(done.rowcount)

    def retry(self, sink: str) -> int:
        """Queue what a sink has refused once more, and try at once; returns how many messages."""
        box = tables.outbox.c
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.update(tables.outbox)
                .where(box.sink == sink, box.state == "parked")
                .values(state="pending", done_ms=None, reason=None)
            )
            _set_sink(connection, sink, not_before_ms=0)
        return int(done.rowcount)

    def refused(self, limit: int = 20) -> list[dict[str, str]]:
        """Return what sinks have refused for good, newest first: sink, key, title and reason."""
        box = tables.outbox.c
        newest = (
            sa.select(box.sink, box.key, box.document, box.reason)
            .where(box.state == "parked")
            .order_by(box.seq.desc())
            .limit(limit)
        )
        with self._engine.begin() as connection:
            return [
                {
                    "sink": row.sink,
                    "key": row.key,
                    "title": json.loads(row.document)["title"],
                    "reason": row.reason or "",
                }
                for row in connection.execute(newest)
            ]

    def newest_pending(self) -> int:
        """Return the sequence number of the newest message that waits; 0 if none does."""
        box = tables.outbox.c
        with self._engine.begin() as connection:
            newest = sa.select(sa.func.max(box.seq)).where(box.state == "pending")
            return int(connection.execute(newest).scalar_one() or 0)


def _status(
    name: str, row: Any, counted: Mapping[str, int], oldest_ms: int | None, now_ms: int
) -> SinkStatus:
    pending, parked = counted.get("pending", 0), counted.get("parked", 0)
    if row is None:
        return SinkStatus(name, pending, parked, oldest_ms=oldest_ms)
    return SinkStatus(
        name,
        pending,
        parked,
        failures=row.failures,
        not_before_ms=row.not_before_ms,
        down_since_ms=row.down_since_ms,
        sent_ms=row.sent_ms,
        error=row.error,
        oldest_ms=oldest_ms,
        is_leased=row.lease_until_ms > now_ms,
    )


def _finish(
    connection: sa.Connection, parcel: Parcel, state: State, now_ms: int, reason: str = ""
) -> None:
    connection.execute(
        sa.update(tables.outbox)
        .where(tables.outbox.c.seq.in_(parcel.seqs))
        .values(state=state, done_ms=now_ms, reason=reason[:_REASON_LENGTH] or None)
    )


def _set_sink(connection: sa.Connection, sink: str, **values: Any) -> None:
    connection.execute(insert_new(connection, tables.sinks), [{"name": sink}])
    connection.execute(sa.update(tables.sinks).where(tables.sinks.c.name == sink).values(**values))
