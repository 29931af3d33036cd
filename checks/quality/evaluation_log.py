"""Write many check evaluations of one run at once.

``context.log_event`` commits three transactions per event, each with a connection of its own: some
30 ms on SQLite. A range of 183 days with ten checks on two tables would wait two minutes for that.
Here hundreds are one transaction, below 1 ms each. What comes of it are the rows that Dagster's
storage writes; ``tests/contract/test_evaluation_log.py`` holds both ways against each other.
"""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import dagster as dg
from dagster import AssetCheckEvaluation

_CHUNK = 400
"""Evaluations in one transaction, so that SQLite is never locked for long; partitions asked for in
one query, whose parameters old builds of SQLite limit to 999.
"""

T = TypeVar("T")

_BLANK = "what is said here by each evaluation alone"


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
    rows = _rows(context, storage, evaluations)
    for start in range(0, len(rows), _CHUNK):
        some = slice(start, start + _CHUNK)
        _store(storage, context.run.run_id, evaluations[some], rows[some])


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
    """Take back that this run means to materialise some partitions of an asset, and to check them.

    Dagster takes a partition for failed that was planned by a run which failed and did not materialise
    it, and a check of one for skipped that was planned and not evaluated. False on a storage that is no
    SQL database of Dagster's.
    """
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = context.instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return False
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value
    with storage.index_transaction() as connection:
        for some in _chunks(partitions):
            connection.execute(
                Events.delete()
                .where(Events.c.run_id == context.run.run_id)
                .where(Events.c.dagster_event_type == planned)
                .where(Events.c.asset_key == key.to_string())
                .where(Events.c.partition.in_(some))
            )
            connection.execute(
                Executions.delete()
                .where(Executions.c.run_id == context.run.run_id)
                .where(Executions.c.asset_key == key.to_string())
                .where(Executions.c.partition.in_(some))
                .where(
                    Executions.c.execution_status == AssetCheckExecutionRecordStatus.PLANNED.value
                )
            )
    return True


def _rows(
    context: dg.AssetExecutionContext, storage: Any, evaluations: Sequence[AssetCheckEvaluation]
) -> list[dict[str, Any]]:
    """Return the rows of the event log: the values that ``prepare_insert_event`` would put there.

    They are told at one instant by one step, so that they differ in the evaluation and its message
    alone; what is around these becomes JSON once. That is half of the JSON, and JSON is the half of the
    time that reporting takes.
    """
    from dagster._serdes import serialize_value

    blank = AssetCheckEvaluation(asset_key=evaluations[0].asset_key, check_name=_BLANK, passed=True)
    row = storage._event_to_row(_entry(context, blank, _BLANK))  # noqa: SLF001
    head, tail = row["event"].split(serialize_value(blank))
    before, between, after = tail.split(json.dumps(_BLANK))
    rows = []
    for evaluation in evaluations:
        message = json.dumps(_message(evaluation))
        event = f"{head}{serialize_value(evaluation)}{before}{message}{between}{message}{after}"
        key, partition = evaluation.asset_key.to_string(), evaluation.partition
        rows.append({**row, "event": event, "asset_key": key, "partition": partition})
    return rows


def _store(
    storage: Any,
    run_id: str,
    evaluations: Sequence[AssetCheckEvaluation],
    rows: Sequence[dict[str, Any]],
) -> None:
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Executions
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
    from sqlalchemy import select

    # The same JSON goes to the run's own database, to the index and to the execution.
    if storage.is_run_sharded:
        with storage.run_connection(run_id) as connection:
            connection.execute(Events.insert(), rows)
    with storage.index_transaction() as connection:
        # With RETURNING SQLite would insert one by one. Nobody else writes events of this step.
        connection.execute(Events.insert(), rows)
        newest = (
            select(Events.c.id)
            .where(Events.c.run_id == run_id)
            .where(Events.c.step_key == rows[0]["step_key"])
            .where(Events.c.dagster_event_type == rows[0]["dagster_event_type"])
            .order_by(Events.c.id.desc())
            .limit(len(rows))
        )
        ids = sorted(row[0] for row in connection.execute(newest))
        executions = [
            _execution(run_id, evaluation, row, event_id)
            for evaluation, row, event_id in zip(evaluations, rows, ids, strict=True)
        ]
        _delete_planned(connection, run_id, executions)
        connection.execute(Executions.insert(), executions)


def _message(evaluation: AssetCheckEvaluation) -> str:
    verdict = "passed" if evaluation.passed else "did not pass"
    message = (
        f"Asset check '{evaluation.check_name}' on "
        f"'{evaluation.asset_key.to_user_string()}' {verdict}."
    )
    if evaluation.description is not None:
        message += f" Description: '{evaluation.description}'"
    return message


def _entry(
    context: dg.AssetExecutionContext, evaluation: AssetCheckEvaluation, message: str
) -> Any:
    from dagster._core.events import DagsterEvent, DagsterEventType
    from dagster._core.events.log import EventLogEntry

    step = context.op_execution_context.get_step_execution_context()
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
    # The checks of a table are of the same days, as a rule: one statement for all of them.
    alike: dict[tuple[str, tuple[str | None, ...]], list[str]] = {}
    for (asset_key, name), partitions in by_check.items():
        alike.setdefault((asset_key, tuple(partitions)), []).append(name)
    for (asset_key, of), names in alike.items():
        of_partitions: Any = Executions.c.partition.in_([p for p in of if p is not None])
        if None in of:
            of_partitions = or_(of_partitions, Executions.c.partition.is_(None))
        connection.execute(
            Executions.delete()
            .where(Executions.c.run_id == run_id)
            .where(Executions.c.asset_key == asset_key)
            .where(Executions.c.check_name.in_(names))
            .where(of_partitions)
        )


def _execution(
    run_id: str, evaluation: AssetCheckEvaluation, row: dict[str, Any], event_id: int
) -> dict[str, Any]:
    from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

    status = AssetCheckExecutionRecordStatus
    target = evaluation.target_materialization_data
    return {
        "run_id": run_id,
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
    from dagster._core.storage.event_log.schema import SqlEventLogStorageTable as Events
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from sqlalchemy import select

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return {
            partition: AssetCheckEvaluationTargetMaterializationData(
                storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
            )
            for partition, record in newest_records(instance, key, partitions).items()
        }
    # Columns alone: reading whole events costs a tenth of all reporting.
    found: dict[str, Any] = {}
    by_id = _newest_ids(instance, key, partitions)
    with storage.index_connection() as connection:
        for ids in _chunks(sorted(by_id)):
            query = select(Events.c.id, Events.c.run_id, Events.c.timestamp)
            for row in connection.execute(query.where(Events.c.id.in_(ids))):
                found[by_id[row.id]] = AssetCheckEvaluationTargetMaterializationData(
                    storage_id=row.id,
                    run_id=row.run_id,
                    timestamp=row.timestamp.replace(tzinfo=UTC).timestamp(),
                )
    return found


def newest_records(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """Return the newest materialisation of each partition that has any."""
    found: dict[str, dg.EventLogRecord] = {}
    by_id = _newest_ids(instance, key, partitions)
    for ids in _chunks(sorted(by_id)):
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=ids)
        for record in instance.fetch_materializations(wanted, limit=_CHUNK).records:
            found[by_id[record.storage_id]] = record
    return found


def _newest_ids(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[int, str]:
    by_id: dict[int, str] = {}
    for some in _chunks(partitions):
        newest = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions=set(some)
        )
        by_id.update({storage_id: partition for partition, storage_id in newest.items()})
    return by_id


def _chunks(some: Sequence[T]) -> Iterator[Sequence[T]]:
    return (some[start : start + _CHUNK] for start in range(0, len(some), _CHUNK))
