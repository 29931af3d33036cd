"""What may go from Dagster's event log: everything old that is not the newest word on something.

Dagster (1.13) prunes ticks and nothing else. Whether a partition is built, stale or failed is read
from the newest event of each kind for it, however old, and so is the state of a check: a run that
holds one of these stays, whole. Written in SQL over Dagster's own tables, for there is no call that
tells the newest events of all partitions; a contract test holds them to the pinned release.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import ColumnElement, Connection, delete, func, select

from millrace.errors import SetupError

_RUNLESS = ""
"""The run id of events that no run wrote: what sensors observed."""

_TELLING = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_FAILED_TO_MATERIALIZE,
)
"""Events whose newest one, per asset and partition, says how the partition stands."""

_CHUNK = 500

_events = SqlEventLogStorageTable.c
_checks = AssetCheckExecutionsTable.c


@dataclass(frozen=True)
class EventRows:
    """The rows of one instance's event log.

    Args:
        storage: the log; both SQLite and Postgres keep it in the same tables.
    """

    storage: SqlEventLogStorage

    @classmethod
    def of(cls, instance: dg.DagsterInstance) -> "EventRows":
        """Open the log of an instance.

        Raises:
            SetupError: it is no SQL database.
        """
        storage = instance.event_log_storage
        if not isinstance(storage, SqlEventLogStorage):
            raise SetupError(
                f"the event log {type(storage).__name__} is no SQL database",
                where="dagster.yaml",
                fix="keep events in Postgres or SQLite, or switch the schedule `prune_history` off",
            )
        return cls(storage)

    def telling_runs(self) -> frozenset[str]:
        """Return the runs that hold the newest word on a partition or a check."""
        with self.storage.index_connection() as connection:
            written = select(_events.run_id).where(_events.id.in_(_newest_events()))
            judged = select(_checks.run_id).where(_checks.id.in_(_newest_checks()))
            return frozenset(
                row[0] for query in (written, judged) for row in connection.execute(query)
            )

    def forget_checks(self, runs: Sequence[str]) -> int:
        """Delete check results of runs that were deleted; returns how many there were."""
        count = 0
        with self.storage.index_connection() as connection:
            for first in range(0, len(runs), _CHUNK):
                chunk = runs[first : first + _CHUNK]
                found = connection.execute(
                    delete(AssetCheckExecutionsTable).where(_checks.run_id.in_(chunk))
                )
                count += found.rowcount
        return count

    def old_observations(self, before: datetime) -> int:
        """Count the runless events before an instant that a newer one has replaced."""
        with self.storage.index_connection() as connection:
            query = select(func.count()).where(_is_replaced(before))
            return int(connection.execute(query).scalar_one())

    def forget_observations(self, before: datetime) -> int:
        """Delete the runless events, and runless check results, that newer ones have replaced."""
        with self.storage.index_connection() as connection:
            count = _delete_events(connection, _is_replaced(before))
            connection.execute(
                delete(AssetCheckExecutionsTable).where(
                    _checks.run_id == _RUNLESS,
                    _checks.create_timestamp < before.replace(tzinfo=None),
                    _checks.id.not_in(_newest_checks()),
                )
            )
        if self.storage.is_run_sharded:
            # SQLite keeps them twice; nothing asks the copy by run about the newest.
            with self.storage.run_connection(_RUNLESS) as connection:
                _delete_events(connection, _is_runless(before))
        return count


def _newest_events() -> Any:
    kinds = [kind.value for kind in _TELLING]
    return (
        select(func.max(_events.id))
        .where(_events.dagster_event_type.in_(kinds), _events.asset_key.is_not(None))
        .group_by(_events.asset_key, _events.partition, _events.dagster_event_type)
    )


def _newest_checks() -> Any:
    # A result that was planned and never came does not replace the one before it.
    return select(func.max(_checks.id)).group_by(
        _checks.asset_key, _checks.check_name, _checks.partition, _checks.execution_status
    )


def _is_runless(before: datetime) -> ColumnElement[bool]:
    # Dagster's columns hold UTC without saying so.
    return (_events.run_id == _RUNLESS) & (_events.timestamp < before.replace(tzinfo=None))


def _is_replaced(before: datetime) -> ColumnElement[bool]:
    judged = select(_checks.evaluation_event_storage_id).where(
        _checks.id.in_(_newest_checks()), _checks.evaluation_event_storage_id.is_not(None)
    )
    return _is_runless(before) & _events.id.not_in(_newest_events()) & _events.id.not_in(judged)


def _delete_events(connection: Connection, condition: ColumnElement[bool]) -> int:
    ids = [row[0] for row in connection.execute(select(_events.id).where(condition))]
    for first in range(0, len(ids), _CHUNK):
        chunk = ids[first : first + _CHUNK]
        connection.execute(delete(SqlEventLogStorageTable).where(_events.id.in_(chunk)))
        connection.execute(
            delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id.in_(chunk))
        )
    return len(ids)
