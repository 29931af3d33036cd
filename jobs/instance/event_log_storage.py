"""Dagster's SQLite event log with its connections kept, for backfills of many partitions.

Dagster opens and closes a connection for every event. Closing the last one to a file makes SQLite
check-point and delete the write-ahead log, and each commit waits for the disk: a range of 183 days
of five assets is 1,800 events, and most of the time between a click and the first step. Here a
connection to each file stays open, and a commit is flushed at check-points only. A process that
dies loses nothing; a machine that loses power may lose the last events of its local instance.

Only the local instance uses it (``dagster_home/dagster.yaml``). It overrides a private method of
Dagster's class, so a contract test holds it to the pinned release.
"""

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster import EventLogEntry, StringSource
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.event import listen
from sqlalchemy.pool import QueuePool

_BUSY_TIMEOUT_S = 30
_OPEN_FILES = 8


class KeptSqliteEventLog(SqliteEventLogStorage):
    """The event log under ``<home>/history/runs``, where Dagster's own would be.

    Args:
        home: ``DAGSTER_HOME``.
        inst_data: how Dagster made it; passed through.
    """

    def __init__(self, home: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        super().__init__(os.path.join(home, "history", "runs"), inst_data)

    @classmethod
    def config_type(cls) -> Any:
        """Return the schema of the class's configuration."""
        return {"home": StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "KeptSqliteEventLog":
        """Make it from ``dagster.yaml``."""
        return cls(inst_data=inst_data, home=config_value["home"])

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> Engine:
        if shard in self._engines:
            self._engines.move_to_end(shard)
            return self._engines[shard]
        engine = create_engine(
            self.conn_string_for_shard(shard),
            poolclass=QueuePool,
            pool_size=1,
            # The lock above lets one thread at a time use a connection.
            connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
        )
        listen(engine, "connect", _flush_at_checkpoints)
        self._engines[shard] = engine
        # A webserver looks at many runs in its life; each has a file of its own.
        while len(self._engines) > _OPEN_FILES:
            self._engines.popitem(last=False)[1].dispose()
        return engine

    def store_event(self, event: EventLogEntry) -> None:
        """Store one event, and let those who watch the run's file see that it changed."""
        super().store_event(event)
        # The UI's live log watches this file, and a commit alone changes only the one beside it.
        os.utime(self.path_for_shard(event.run_id))

    def delete_events(self, run_id: str) -> None:
        """Delete a run's events, and the file that held them; Dagster's own leaves an empty one."""
        super().delete_events(run_id)
        with self._db_lock:
            engine = self._engines.pop(run_id, None)
            if engine is not None:
                engine.dispose()
            self._initialized_dbs.discard(run_id)
            for suffix in ("", "-wal", "-shm"):
                Path(self.path_for_shard(run_id) + suffix).unlink(missing_ok=True)

    def wipe(self) -> None:
        """Remove all events, and the files that hold them."""
        self.dispose_connections()
        super().wipe()

    def dispose(self) -> None:
        """Close everything."""
        self.dispose_connections()
        super().dispose()

    def dispose_connections(self) -> None:
        """Close the kept connections; the next use opens new ones."""
        while self._engines:
            self._engines.popitem()[1].dispose()


def _flush_at_checkpoints(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
