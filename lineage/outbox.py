"""Events wait here until every receiver has them: a small SQLite file, ``<home>/lineage/outbox.db``.

Writing an event is one durable commit and needs no network, so an outage of a receiver costs the
work nothing and loses nothing. Commits of all processes have one order, and each receiver is told
in that order. A row per run makes START and its end exactly one each: whoever ends a run first has
ended it, be it the process that did the work or the one that found it dead.

The rollback journal is used, not WAL: that needs memory shared by all processes, hence one machine,
while this works wherever file locks do.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from resources.settings import Settings

Event = dict[str, Any]

_BUSY_TIMEOUT_S = 10.0
_DAY_MS = 86_400_000
KEPT_EVENTS_MS = 7 * _DAY_MS
"""Events that every receiver has are kept so long, for a new receiver and for a second look."""
KEPT_RUNS_MS = 30 * _DAY_MS

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, at_ms INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS run (
  run_id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, at_ms INTEGER NOT NULL,
  start TEXT
);
CREATE INDEX IF NOT EXISTS run_state ON run (state);
CREATE TABLE IF NOT EXISTS receiver (
  name TEXT PRIMARY KEY, seq INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0, away_since_ms INTEGER, error TEXT NOT NULL DEFAULT '',
  sent INTEGER NOT NULL DEFAULT 0, sent_ms INTEGER
);
CREATE TABLE IF NOT EXISTS parked (
  name TEXT NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, reason TEXT NOT NULL,
  PRIMARY KEY (name, seq)
);
"""

_VERSION = 2
# What was sent is counted since version 2; before, all but what was parked was, once.
_COUNTED = """
ALTER TABLE receiver ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE receiver ADD COLUMN sent_ms INTEGER;
UPDATE receiver SET sent = seq - (SELECT count(*) FROM parked WHERE parked.name = receiver.name);
"""


@dataclass(frozen=True)
class OpenRun:
    """A run that has begun and not ended; ``start`` is its START event."""

    run_id: str
    owner: str
    started_ms: int
    start: Event


@dataclass(frozen=True)
class Waiting:
    """An event that a receiver does not have yet; ``body`` is its JSON text."""

    seq: int
    run_id: str
    body: str


@dataclass(frozen=True)
class Receiver:
    """How far a receiver has come.

    Attributes:
        seq: the last event it has, or that was parked for it.
        failures: attempts in a row that failed.
        not_before_ms: no attempt before.
        away_since_ms: the first of these failures; None if it answers.
        error: the last failure in words.
        sent: events that it took, ever; those it was told again among them.
        sent_ms: when it took the last one; None if it has none, or took it before this was noted.
    """

    name: str
    seq: int = 0
    failures: int = 0
    not_before_ms: int = 0
    away_since_ms: int | None = None
    error: str = ""
    sent: int = 0
    sent_ms: int | None = None

    def after(self, seq: int, *, now_ms: int | None) -> "Receiver":
        """Return how far it has come with one more event.

        Args:
            seq: of the event.
            now_ms: when it took the event; None if it refused it for good.
        """
        if now_ms is None:
            return replace(self, **_ANSWERS, seq=seq)
        return replace(self, **_ANSWERS, seq=seq, sent=self.sent + 1, sent_ms=now_ms)


_ANSWERS: Mapping[str, Any] = MappingProxyType(
    {"failures": 0, "not_before_ms": 0, "away_since_ms": None, "error": ""}
)


class Outbox:
    """The waiting events of one stack; every method is one durable transaction.

    Raises (all methods):
        sqlite3.Error: the file cannot be read or written, or was locked for ten seconds.
        OSError: its folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, settings: Settings) -> "Outbox":
        """Return a stack's outbox; nothing is made before the first write."""
        return cls(settings.home / "lineage" / "outbox.db")

    def start(self, run_id: str, owner: str, event: Event) -> bool:
        """Begin a run; False, and nothing is written, if it has begun before."""
        body, now_ms = json.dumps(event), _now_ms()
        with self._changing() as db:
            begun = db.execute(
                "INSERT OR IGNORE INTO run VALUES (?, ?, 'START', ?, ?)",
                (run_id, owner, now_ms, body),
            ).rowcount
            if begun:
                _append(db, run_id, now_ms, body)
        return bool(begun)

    def add(self, run_id: str, event: Event) -> bool:
        """Add an event of a run that is open; False, and nothing is written, if it is not."""
        with self._changing() as db:
            is_open = db.execute(
                "SELECT 1 FROM run WHERE run_id = ? AND state = 'START'", (run_id,)
            ).fetchone()
            if is_open:
                _append(db, run_id, _now_ms(), json.dumps(event))
        return is_open is not None

    def add_static(self, event: Event) -> None:
        """Add an event that belongs to no run."""
        with self._changing() as db:
            _append(db, "", _now_ms(), json.dumps(event))

    def end(self, run_id: str, state: str, event: Event) -> bool:
        """End a run; False, and nothing is written, if it has ended or never begun."""
        now_ms = _now_ms()
        with self._changing() as db:
            ended = db.execute(
                "UPDATE run SET state = ?, at_ms = ?, start = NULL"
                " WHERE run_id = ? AND state = 'START'",
                (state, now_ms, run_id),
            ).rowcount
            if ended:
                _append(db, run_id, now_ms, json.dumps(event))
        return bool(ended)

    def open_runs(self) -> list[OpenRun]:
        """Return the runs that have not ended, in the order they began."""
        if not self.path.exists():
            return []
        with self._changing() as db:
            rows = db.execute(
                "SELECT run_id, owner, at_ms, start FROM run WHERE state = 'START' ORDER BY rowid"
            ).fetchall()
        return [OpenRun(run, owner, at_ms, json.loads(start)) for run, owner, at_ms, start in rows]

    def receivers(self, names: Sequence[str]) -> dict[str, Receiver]:
        """Return how far receivers have come; one that is new has nothing."""
        if not self.path.exists():
            return {name: Receiver(name) for name in names}
        with self._changing() as db:
            rows = db.execute(
                "SELECT name, seq, failures, not_before_ms, away_since_ms, error, sent, sent_ms"
                " FROM receiver"
            ).fetchall()
        known = {row[0]: Receiver(*row) for row in rows}
        return {name: known.get(name, Receiver(name)) for name in names}

    def waiting(self, receiver: Receiver, limit: int) -> list[Waiting]:
        """Return the next events for a receiver, oldest first."""
        with self._changing() as db:
            rows = db.execute(
                "SELECT seq, run_id, body FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
                (receiver.seq, limit),
            ).fetchall()
        return [Waiting(*row) for row in rows]

    def count_waiting(self, receiver: Receiver) -> int:
        """Return how many events a receiver does not have."""
        if not self.path.exists():
            return 0
        with self._changing() as db:
            found = db.execute("SELECT count(*) FROM event WHERE seq > ?", (receiver.seq,))
            return int(found.fetchone()[0])

    def count_parked(self, name: str) -> int:
        """Return how many events a receiver has refused for good."""
        if not self.path.exists():
            return 0
        with self._changing() as db:
            found = db.execute("SELECT count(*) FROM parked WHERE name = ?", (name,))
            return int(found.fetchone()[0])

    def note(self, receiver: Receiver, *, parked: tuple[int, str] | None = None) -> None:
        """Write down how far a receiver has come, and an event it refused for good."""
        with self._changing() as db:
            db.execute(
                "INSERT OR REPLACE INTO receiver VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                astuple(receiver),
            )
            if parked is not None:
                seq, reason = parked
                db.execute(
                    "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?)",
                    (receiver.name, seq, _now_ms(), reason),
                )

    def rewind(self, name: str, since_ms: int) -> int:
        """Let a receiver be told again of events since an instant; returns how many there are."""
        with self._changing() as db:
            found = db.execute(
                "SELECT count(*), coalesce(min(seq), 0) FROM event WHERE at_ms >= ?", (since_ms,)
            )
            count, first = found.fetchone()
            if count:
                db.execute(
                    "UPDATE receiver SET seq = min(seq, ?), not_before_ms = 0 WHERE name = ?",
                    (first - 1, name),
                )
        return int(count)

    def prune(self, names: Sequence[str], now_ms: int) -> None:
        """Forget old events that all of these receivers have, and old runs that have ended."""
        with self._changing() as db:
            oldest = db.execute("SELECT at_ms FROM event ORDER BY seq LIMIT 1").fetchone()
            if oldest is not None and oldest[0] < now_ms - KEPT_EVENTS_MS:
                marks = ", ".join("?" * len(names))
                behind = db.execute(
                    f"SELECT count(*), min(seq) FROM receiver WHERE name IN ({marks})",  # noqa: S608
                    tuple(names),
                ).fetchone()
                if behind[0] == len(names):
                    db.execute(
                        "DELETE FROM event WHERE seq <= ? AND at_ms < ?",
                        (behind[1], now_ms - KEPT_EVENTS_MS),
                    )
            db.execute(
                "DELETE FROM run WHERE state <> 'START' AND at_ms < ?", (now_ms - KEPT_RUNS_MS,)
            )

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        # A connection per call: a run writes a handful of events, and a forked or threaded caller
        # then needs no care.
        if not self.path.parent.is_dir():
            self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            _bring_up(connection)
            yield connection
            connection.execute("COMMIT")
        finally:
            # What was not committed is rolled back by the closing.
            connection.close()


def _bring_up(connection: sqlite3.Connection) -> None:
    """Make the tables, or those of an earlier build as they are now."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == _VERSION:
        return
    for statement in filter(str.strip, (_SCHEMA if version == 0 else _COUNTED).split(";")):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _append(db: sqlite3.Connection, run_id: str, at_ms: int, body: str) -> None:
    db.execute("INSERT INTO event (run_id, at_ms, body) VALUES (?, ?, ?)", (run_id, at_ms, body))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
