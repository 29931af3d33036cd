"""Write many check evaluations of one run at once.

``context.log_event`` commits three transactions per event, each with a connection of its own: some
30 ms on SQLite. A range of 183 days with ten checks on two tables would wait two minutes for that.
Here hundreds are one transaction, below 1 ms each. What comes of it are the rows that Dagster's
storage writes; ``tests/contract/test_evaluation_log.py`` holds both ways against each other.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation

_CHUNK = 400
"""Evaluations in one transaction, so that SQLite is never locked for long; partitions asked for in
one query, whose parameters old builds of SQLite limit to 999.
"""


def log_evaluations(
    context: dg.AssetExecutionContext, evaluations: Sequence[AssetCheckEvaluation]
) -> None:
    """Store evaluations as events of this run's step, in order.

    On a storage that is no SQL database of Dagster's they are logged one by one.
    """
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = context.instance.event_log_storage
    if not evaluations:
        return
    if not isinstance(storage, SqlEventLogStorage):
        for evaluation in evaluations:
            context.log_event(evaluation)
        return
    entries = [_entry(context, evaluation) for evaluation in evaluations]
    for start in range(0, len(entries), _CHUNK):
        _store(storage, context.run.run_id, entries[start : start + _CHUNK])


@contextmanager
def withdrawing_planned(
    context: dg.AssetExecutionContext, keys: Sequence[dg.AssetKey], *, by_hour: bool = False
) -> Iterator[None]:
    """Take back the checks of assets that were planned and not evaluated, if the step fails.

    Dagster would take each of them for one that was executed and failed, and so show every check of
    an asset as failed for one day that could not be built, though of that day nothing was there to be
    judged. Without the plan they are as they were before the run. With ``by_hour`` they are taken
    back always: a day is judged at its last hour, and Dagster would show a check as skipped for the
    sake of the other 23. On a storage that is no SQL database of Dagster's nothing is taken back, nor
    if that database refuses: what is raised is always the step's own failure, which names its days.
    """
    try:
        yield
    except Exception:
        _try_to_withdraw(context, keys)
        raise
    if by_hour:
        _try_to_withdraw(context, keys)


def _try_to_withdraw(context: dg.AssetExecutionContext, keys: Sequence[dg.AssetKey]) -> None:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        _withdraw_planned(context, keys)
    except SQLAlchemyError as error:
        context.log.warning("checks that were not executed will show as failed: %s", error)


def _withdraw_planned(context: dg.AssetExecutionContext, keys: Sequence[dg.AssetKey]) -> None:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = context.instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return
    with storage.index_transaction() as connection:
        connection.execute(
            Executions.delete()
            .where(Executions.c.run_id == context.run.run_id)
            .where(Executions.c.asset_key.in_([key.to_string() for key in keys]))
            .where(Executions.c.execution_status == AssetCheckExecutionRecordStatus.PLANNED.value)
        )


def withdraw_planned_partitions(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partitions: Sequence[str]
) -> bool:
    """Take back that this run means to materialise some partitions of an asset.

    Dagster takes a partition for failed that was planned by a run which failed and did not materialise
    it. False on a storage that is no SQL database of Dagster's.
    """
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = context.instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return False
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    with storage.index_transaction() as connection:
        for start in range(0, len(partitions), _CHUNK):
            connection.execute(
                Events.delete()
                .where(Events.c.run_id == context.run.run_id)
                .where(Events.c.dagster_event_type == planned)
                .where(Events.c.asset_key == key.to_string())
                .where(Events.c.partition.in_(partitions[start : start + _CHUNK]))
            )
    return True


def _store(storage: Any, run_id: str, entries: Sequence[Any]) -> None:
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events

    # Turned into JSON once: it goes to the run's own database, to the index and to the execution.
    # Its values are what ``prepare_insert_event`` puts into its statement.
    rows = [storage._event_to_row(entry) for entry in entries]  # noqa: SLF001
    if storage.is_run_sharded:
        with storage.run_connection(run_id) as connection:
            connection.execute(Events.insert(), rows)
    with storage.index_transaction() as connection:
        in_order = Events.insert().returning(Events.c.id, sort_by_parameter_order=True)
        ids = [row[0] for row in connection.execute(in_order, rows)]
        executions = [
            _execution(entry, row, event_id)
            for entry, row, event_id in zip(entries, rows, ids, strict=True)
        ]
        _delete_planned(connection, run_id, executions)
        connection.execute(Executions.insert(), executions)


def _entry(context: dg.AssetExecutionContext, evaluation: AssetCheckEvaluation) -> Any:
    from dagster._core.events import DagsterEvent, DagsterEventType
    from dagster._core.events.log import EventLogEntry

    step = context.op_execution_context.get_step_execution_context()
    verdict = "passed" if evaluation.passed else "did not pass"
    message = (
        f"Asset check '{evaluation.check_name}' on "
        f"'{evaluation.asset_key.to_user_string()}' {verdict}."
    )
    if evaluation.description is not None:
        message += f" Description: '{evaluation.description}'"
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name=step.job_name,
        step_handle=step.step.handle,
        node_handle=step.step.node_handle,
        step_kind_value=step.step.kind.value,
        logging_tags=step.event_tags,
        event_specific_data=evaluation,
        message=message,
        pid=os.getpid(),
    )
    make: Any = EventLogEntry
    return make(
        error_info=None,
        level=logging.DEBUG,
        user_message=message,
        run_id=context.run.run_id,
        timestamp=datetime.now(tz=UTC).timestamp(),
        step_key=step.step.key,
        job_name=step.job_name,
        dagster_event=event,
    )


def _delete_planned(connection: Any, run_id: str, executions: Sequence[dict[str, Any]]) -> None:
    """Delete what was planned and is now known; Dagster changes the planned row instead."""
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
    from sqlalchemy import or_

    by_check: dict[tuple[str, str], list[str | None]] = {}
    for row in executions:
        by_check.setdefault((row["asset_key"], row["check_name"]), []).append(row["partition"])
    for (asset_key, check_name), partitions in by_check.items():
        of_partitions: Any = Executions.c.partition.in_([p for p in partitions if p is not None])
        if None in partitions:
            of_partitions = or_(of_partitions, Executions.c.partition.is_(None))
        connection.execute(
            Executions.delete()
            .where(Executions.c.run_id == run_id)
            .where(Executions.c.asset_key == asset_key)
            .where(Executions.c.check_name == check_name)
            .where(of_partitions)
        )


def _execution(entry: Any, row: dict[str, Any], event_id: int) -> dict[str, Any]:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

    evaluation = entry.dagster_event.event_specific_data
    status = AssetCheckExecutionRecordStatus
    target = evaluation.target_materialization_data
    return {
        "run_id": entry.run_id,
        "asset_key": evaluation.asset_key.to_string(),
        "check_name": evaluation.check_name,
        "partition": evaluation.partition,
        "execution_status": (status.SUCCEEDED if evaluation.passed else status.FAILED).value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": event_id,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


def newest_materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, Any]:
    """Return for each partition the pointer to its newest materialisation, if it has any.

    An evaluation without it is dropped from the UI's status of the partition as not current.
    """
    from dagster._core.definitions.asset_checks.asset_check_evaluation import (
        AssetCheckEvaluationTargetMaterializationData,
    )

    return {
        partition: AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for partition, record in newest_records(instance, key, partitions).items()
    }


def newest_records(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """Return the newest materialisation of each partition that has any."""
    found: dict[str, dg.EventLogRecord] = {}
    by_id: dict[int, str] = {}
    for start in range(0, len(partitions), _CHUNK):
        some = set(partitions[start : start + _CHUNK])
        newest = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions=some
        )
        by_id.update({storage_id: partition for partition, storage_id in newest.items()})
    ids = sorted(by_id)
    for start in range(0, len(ids), _CHUNK):
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=ids[start : start + _CHUNK])
        for record in instance.fetch_materializations(wanted, limit=_CHUNK).records:
            found[by_id[record.storage_id]] = record
    return found
