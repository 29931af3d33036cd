"""Which of Dagster's run statuses are an end, and which are not yet."""

import dagster as dg

ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
UNDER_WAY = tuple(status for status in dg.DagsterRunStatus if status not in ENDED)
"""Queued, starting, running or being cancelled."""
