"""Runs and datasets as OpenLineage events: plain JSON, ready for the outbox.

The envelope is what ``openlineage-python``'s ``RunEvent``, ``JobEvent`` and ``DatasetEvent`` write
(spec 2-0-2); it is put together here so that an event can be made of an earlier one, as the ABORT
of a run whose process is gone is made of its START.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from lineage import facets
from lineage.datasets import Dataset
from lineage.naming import JOB_NAMESPACE
from lineage.runs import Work

Event = dict[str, Any]

_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/"


def run_event(
    work: Work,
    state: str,
    at: datetime,
    *,
    run_facets: Mapping[str, Any] | None = None,
    inputs: Sequence[Dataset] | None = None,
    outputs: Sequence[Dataset] | None = None,
) -> Event:
    """Return an event of a run.

    Args:
        work: the run as it started; its facets stand in each of its events, so that a consumer
            that missed one knows as much.
        state: ``START``, ``RUNNING``, ``COMPLETE``, ``FAIL`` or ``ABORT``.
        at: when.
        run_facets: what is known by now and was not at the start.
        inputs: as they are known by now; None: as at the start.
        outputs: likewise.
    """
    parent = {"parent": work.enclosing.facet} if work.enclosing else {}
    return {
        "eventType": state,
        "eventTime": facets.instant(at),
        "producer": facets.PRODUCER,
        "schemaURL": f"{_SCHEMA}RunEvent",
        "run": {
            "runId": work.run_id,
            "facets": {**parent, **work.run_facets, **(run_facets or {})},
        },
        "job": _job(work.job, work.job_facets),
        "inputs": [d.as_input() for d in (work.inputs if inputs is None else inputs)],
        "outputs": [d.as_output() for d in (work.outputs if outputs is None else outputs)],
    }


def ending_of(start: Event, state: str, at: datetime, reason: str = "") -> Event:
    """Return the end of a run of which no more is left than its START."""
    run = start["run"]
    error = {"errorMessage": facets.error(reason)} if reason else {}
    return {
        **start,
        "eventType": state,
        "eventTime": facets.instant(at),
        "run": {**run, "facets": {**run["facets"], **error}},
    }


def job_event(
    job: str,
    at: datetime,
    *,
    job_facets: Mapping[str, Any],
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
) -> Event:
    """Return what is declared of a job, whether it ever runs or not."""
    return {
        "eventTime": facets.instant(at),
        "producer": facets.PRODUCER,
        "schemaURL": f"{_SCHEMA}JobEvent",
        "job": _job(job, job_facets),
        "inputs": [d.as_input() for d in inputs],
        "outputs": [d.as_output() for d in outputs],
    }


def dataset_event(dataset: Dataset, at: datetime) -> Event:
    """Return what is known of a dataset apart from any run."""
    return {
        "eventTime": facets.instant(at),
        "producer": facets.PRODUCER,
        "schemaURL": f"{_SCHEMA}DatasetEvent",
        "dataset": dataset.as_static(),
    }


def signed(event: Event, namespace: str, producer: str) -> Event:
    """Return an event, or a part of one, in which another namespace and producer stand.

    The namespace is that of jobs and of the logical names of datasets; physical names, by which the
    graph joins with what other tools tell, are left alone.
    """
    return {name: _signed(name, value, namespace, producer) for name, value in event.items()}


def _signed(name: str, value: Any, namespace: str, producer: str) -> Any:
    if isinstance(value, dict):
        return signed(value, namespace, producer)
    if isinstance(value, list):
        return [_signed(name, one, namespace, producer) for one in value]
    if name == "namespace" and value == JOB_NAMESPACE:
        return namespace
    return producer if name in {"producer", "_producer"} else value


def _job(name: str, job_facets: Mapping[str, Any]) -> dict[str, Any]:
    return {"namespace": JOB_NAMESPACE, "name": name, "facets": dict(job_facets)}
