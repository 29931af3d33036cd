"""What of a queue is sent at once: single messages, digests in a storm, or one page for a storm.

What is put together is written down before it is sent, so that another attempt sends the same.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from alerts import tables
from alerts.configuration import Digests
from alerts.message import Batching

_OPENED, _RESOLVED = ":opened", ":resolved"
_STORM = "digest:"


@dataclass(frozen=True)
class Picked:
    """Rows of the outbox that go together.

    Attributes:
        key: idempotency key of the whole.
        page: key of the page that this is the end of; empty if it ends none.
    """

    rows: Sequence[Any]
    key: str
    page: str = ""


def pick(
    connection: sa.Connection, sink: str, batching: Batching, digests: Digests, now_ms: int
) -> Picked | None:
    """Return what is to be sent next to a sink; None if nothing waits."""
    while True:
        rows = _waiting(connection, sink, limit=1)
        if not rows:
            return None
        first = rows[0]
        page = _page_of(connection, sink, first.key) if batching == "page" else ""
        if not page:
            break
        if first.key.endswith(_RESOLVED) and _is_last(connection, sink, page, first.key):
            return Picked(rows, first.key, page)
        # Told by the page already, or its end is still to come.
        _mark(connection, [first], state="sent", done_ms=now_ms, reason=f"told by {page}")
    if first.batch is not None:
        rows = _waiting(connection, sink, batch=first.batch)
    else:
        if batching != "single" and _is_storm(connection, sink, digests, now_ms):
            fresh = _waiting(connection, sink, limit=digests.size, is_fresh=True)
            rows = _leading(fresh, only_opened=batching == "page")
        # A single one as well: if its answer is lost, a digest would tell of it twice.
        _mark(connection, rows, batch=_batch_key(rows) if len(rows) > 1 else _alone(first.seq))
    return Picked(rows, first.key if len(rows) == 1 else _batch_key(rows))


def split(connection: sa.Connection, seqs: Sequence[int]) -> None:
    """Have the members of a digest sent one by one."""
    box = tables.outbox
    for seq in seqs:
        connection.execute(sa.update(box).where(box.c.seq == seq).values(batch=_alone(seq)))


def _waiting(
    connection: sa.Connection,
    sink: str,
    *,
    limit: int | None = None,
    batch: str | None = None,
    is_fresh: bool = False,
) -> list[Any]:
    box = tables.outbox.c
    asked = sa.select(box.seq, box.key, box.batch, box.document).where(
        box.sink == sink, box.state == "pending"
    )
    if batch is not None:
        asked = asked.where(box.batch == batch)
    if is_fresh:
        asked = asked.where(box.batch.is_(None))
    return list(connection.execute(asked.order_by(box.seq).limit(limit)))


def _is_storm(connection: sa.Connection, sink: str, digests: Digests, now_ms: int) -> bool:
    box = tables.outbox.c
    recent = (box.state == "sent") & (box.done_ms > now_ms - digests.window_ms)
    fresh = (box.state == "pending") & box.batch.is_(None)
    counted = connection.execute(sa.select(sa.func.count()).where(box.sink == sink, recent | fresh))
    return bool(counted.scalar_one() > digests.above)


def _leading(rows: Sequence[Any], *, only_opened: bool) -> list[Any]:
    """Return the rows that may be put together from the first on; signs of life go alone."""
    taken: list[Any] = []
    for row in rows:
        is_alone = row.key.startswith("heartbeat:") or (
            only_opened and not row.key.endswith(_OPENED)
        )
        if is_alone:
            return taken or [row]
        taken.append(row)
    return taken


def _page_of(connection: sa.Connection, sink: str, key: str) -> str:
    """Return the page that told of the incident of a later message; empty if none did."""
    incident, _, change = key.partition(":")
    if change.startswith("opened"):
        return ""
    box = tables.outbox.c
    opened = sa.select(box.batch).where(box.sink == sink, box.key == f"{incident}{_OPENED}")
    batch = connection.execute(opened).scalar_one_or_none() or ""
    return batch if batch.startswith(_STORM) else ""


def _is_last(connection: sa.Connection, sink: str, page: str, key: str) -> bool:
    """Say whether all other incidents of a page were resolved before this message."""
    box = tables.outbox.c
    members = connection.execute(sa.select(box.key).where(box.sink == sink, box.batch == page))
    others = {f"{member.removesuffix(_OPENED)}{_RESOLVED}" for (member,) in members} - {key}
    done = connection.execute(
        sa.select(sa.func.count()).where(
            box.sink == sink, box.key.in_(others), box.state != "pending"
        )
    )
    return bool(done.scalar_one() == len(others))


def _mark(connection: sa.Connection, rows: Sequence[Any], **values: Any) -> None:
    box = tables.outbox
    seqs = [row.seq for row in rows]
    connection.execute(sa.update(box).where(box.c.seq.in_(seqs)).values(**values))


def _alone(seq: int) -> str:
    return f"alone:{seq}"


def _batch_key(rows: Sequence[Any]) -> str:
    digest = hashlib.sha256("\n".join(row.key for row in rows).encode()).hexdigest()[:20]
    return f"{_STORM}{digest}"
