"""What the watcher remembers: its position, the conditions, and what it handed to the outbox.

All of it changes in one transaction per look, so a process may die anywhere: either the look
counts, with everything that followed from it, or it is done again with the same result.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from alerts import tables
from alerts.conditions import Condition
from alerts.message import Message
from millrace.durations import DAY_MS
from resources.settings import Settings

_ONLY = 1
_AT_ONCE = 400
"""SQLite takes a limited number of parameters in one statement."""

_PAGES_KEPT_MS = 365 * DAY_MS

Seen = tuple[str, int]
"""A run, and the update of it that was read: its id and epoch microseconds."""


@dataclass(frozen=True)
class Watch:
    """Where the watcher is.

    Attributes:
        position_us: all updates of runs up to here were read, epoch microseconds.
        ticked_ms: when it last looked.
        heartbeat: number of the last sign of life; 0 before the first.
    """

    position_us: int
    ticked_ms: int
    heartbeat: int = 0


@dataclass(frozen=True)
class Posting:
    """One message for one sink."""

    message: Message
    sink: str


class AlertStore:
    """The database of the alerts; close it, or use it in a ``with``."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Open the database of a stack; see ``tables.open_engine``."""
        return cls(tables.open_engine(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    @contextmanager
    def deciding(self) -> Iterator["IncidentLog"]:
        """Lock the memory, and commit what was written when the block ends without an error."""
        with self.engine.begin() as connection:
            # On SQLite the transaction itself is the lock.
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(
                    f"LOCK TABLE {tables.watcher.name} IN SHARE ROW EXCLUSIVE MODE"
                )
            yield IncidentLog(connection)

    def watch(self) -> Watch | None:
        """Return where the watcher is; None if it never looked."""
        with self.engine.begin() as connection:
            return IncidentLog(connection).watch()

    def open_conditions(self) -> list[Condition]:
        """Return the conditions with an open incident, the oldest first."""
        with self.engine.begin() as connection:
            found = IncidentLog(connection).open_conditions().values()
        return sorted(found, key=lambda c: c.incident.opened_ms if c.incident else 0)

    def unseen(self, updates: Sequence[Seen]) -> list[Seen]:
        """Return those updates of runs that were not read, in the same order."""
        with self.engine.begin() as connection:
            known = IncidentLog(connection).seen(run_id for run_id, _ in updates)
        return [update for update in updates if update not in known]


class IncidentLog:
    """One transaction over the memory."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def watch(self) -> Watch | None:
        """Return where the watcher is; None if it never looked."""
        columns = tables.watcher.c
        row = self._connection.execute(
            sa.select(columns.position_us, columns.ticked_ms, columns.heartbeat)
        ).one_or_none()
        return None if row is None else Watch(*row)

    def set_watch(self, watch: Watch) -> None:
        """Note where the watcher is now."""
        self._connection.execute(sa.delete(tables.watcher))
        self._connection.execute(sa.insert(tables.watcher).values(id=_ONLY, **vars(watch)))

    def seen(self, run_ids: Iterable[str]) -> set[Seen]:
        """Return the updates that were read of some runs."""
        columns = tables.runs.c
        found: set[Seen] = set()
        for some in _slices(list(run_ids)):
            rows = self._connection.execute(
                sa.select(columns.run_id, columns.updated_us).where(columns.run_id.in_(some))
            )
            found.update((run_id, updated_us) for run_id, updated_us in rows)
        return found

    def add_seen(self, updates: Iterable[Seen], *, forget_before_us: int) -> None:
        """Note updates that were read, and forget those that will not be looked at again."""
        columns = tables.runs.c
        self._connection.execute(
            sa.delete(tables.runs).where(columns.updated_us < forget_before_us)
        )
        rows = [{"run_id": run_id, "updated_us": updated_us} for run_id, updated_us in updates]
        self._insert_new(tables.runs, rows)

    def conditions(self, fingerprints: Iterable[str]) -> dict[str, Condition]:
        """Return the known ones of some conditions."""
        columns = tables.conditions.c
        found: dict[str, Condition] = {}
        for some in _slices(list(dict.fromkeys(fingerprints))):
            found |= self._conditions(columns.fingerprint.in_(some))
        return found

    def open_conditions(self) -> dict[str, Condition]:
        """Return the conditions with an open incident."""
        return self._conditions(tables.conditions.c.is_open)

    def _conditions(self, where: sa.ColumnElement[bool]) -> dict[str, Condition]:
        columns = tables.conditions.c
        rows = self._connection.execute(
            sa.select(columns.fingerprint, columns.document).where(where)
        )
        return {name: Condition.from_json(json.loads(text)) for name, text in rows}

    def set_conditions(self, changed: Mapping[str, Condition]) -> None:
        """Put changed conditions in the place of what was known."""
        columns = tables.conditions.c
        for some in _slices(list(changed)):
            self._connection.execute(
                sa.delete(tables.conditions).where(columns.fingerprint.in_(some))
            )
        rows = [
            {
                "fingerprint": fingerprint,
                "is_open": condition.open_incident is not None,
                "at_ms": condition.at_ms,
                "document": json.dumps(condition.to_json()),
            }
            for fingerprint, condition in changed.items()
        ]
        if rows:
            self._connection.execute(sa.insert(tables.conditions), rows)

    def post(self, postings: Iterable[Posting], now_ms: int) -> None:
        """Queue messages; one that a sink has, or had, under the same key is not queued again."""
        rows = [
            {
                "key": one.message.key,
                "sink": one.sink,
                "state": "pending",
                "document": json.dumps(one.message.to_json()),
                "queued_ms": now_ms,
            }
            for one in postings
        ]
        self._insert_new(tables.outbox, rows)

    def forget(self, *, before_ms: int) -> None:
        """Remove what ended before an instant: closed conditions, and messages that are done.

        What was sent together stays a year longer: a page ends with its last incident.
        """
        conditions, outbox = tables.conditions.c, tables.outbox.c
        together_ms = before_ms - _PAGES_KEPT_MS
        self._connection.execute(
            sa.delete(tables.conditions).where(~conditions.is_open, conditions.at_ms < before_ms)
        )
        self._connection.execute(
            sa.delete(tables.outbox).where(
                outbox.state.in_(("sent", "dropped")),
                outbox.done_ms < sa.case((outbox.batch.is_(None), before_ms), else_=together_ms),
            )
        )

    def _insert_new(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        if rows:
            statement = insert_new(self._connection, table)
            self._connection.execute(statement, rows)


def insert_new(connection: sa.Connection, table: sa.Table) -> Any:
    """Return the INSERT that leaves rows alone whose key is there already."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def _slices(values: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
