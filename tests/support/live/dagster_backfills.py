"""Backfills as Dagster's UI starts and retries them, and what it shows of them afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from millrace.days import Days, parse_day
from resources.dagster.client import AssetPath, DagsterApi
from tests.support.dagster_stack import wait_for

LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""

RETRY = """
mutation Retry($params: ReexecutionParams!) {
  reexecutePartitionBackfill(reexecutionParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}
"""

RETRY_RUN = """
mutation RetryRun($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { id } }
    ... on Error { message }
  }
}
"""

STEPS = """
query Steps($run: ID!) {
  runOrError(runId: $run) {
    __typename
    ... on Run { stepStats { stepKey status startTime endTime } }
  }
}
"""

BACKFILL = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    __typename
    ... on PartitionBackfill {
      status
      runs { id status }
      assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
        assetKey { path } numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed
      } } }
    }
    ... on Error { message }
  }
}
"""

CHECKS = """
query Checks($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    __typename
    ... on AssetNode { assetChecksOrError { __typename ... on AssetChecks { checks {
      name
      partitionStatuses { __typename ... on AssetCheckTimePartitionStatuses {
        ranges { startKey endKey status }
      } }
    } } } }
  }
}
"""

ENDED = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})


@dataclass(frozen=True)
class Backfill:
    """How a backfill ended.

    Attributes:
        status: Dagster's.
        runs: their ids.
        counts: of each asset, the partitions targeted, materialised and failed.
    """

    id: str
    status: str
    runs: tuple[str, ...]
    counts: Mapping[AssetPath, tuple[int, int, int]]


def launch(api: DagsterApi, assets: Sequence[AssetPath], days: Days) -> str:
    """Start a backfill of these days; returns its id."""
    answer = api.query(
        LAUNCH,
        {
            "params": {
                "assetSelection": [{"path": list(path)} for path in assets],
                "partitionNames": [day.isoformat() for day in days],
                "title": "thirty days",
            }
        },
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def retry(api: DagsterApi, backfill: str) -> str:
    """Start what failed in a backfill once more; returns the new backfill's id."""
    answer = api.query(RETRY, {"params": {"parentRunId": backfill, "strategy": "FROM_FAILURE"}})
    answer = answer["reexecutePartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def retry_run(api: DagsterApi, run: str) -> str:
    """Execute a run again from failure; returns the new run's id."""
    answer = api.query(RETRY_RUN, {"params": {"parentRunId": run, "strategy": "FROM_FAILURE"}})
    answer = answer["launchRunReexecution"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["id"])


def step_times(api: DagsterApi, run: str) -> dict[str, tuple[str, float, float]]:
    """Return of each step of a run that began how it ended, and when it did both, in that order."""
    found = api.query(STEPS, {"run": run})["runOrError"]["stepStats"]
    steps = {
        s["stepKey"]: (s["status"], s["startTime"], s["endTime"]) for s in found if s["startTime"]
    }
    return dict(sorted(steps.items(), key=lambda step: step[1][1]))


def finish(api: DagsterApi, backfill: str, *, deadline_s: float = 300) -> Backfill:
    """Wait for a backfill's end."""

    def ended() -> Backfill | None:
        found: dict[str, Any] = api.query(BACKFILL, {"id": backfill})["partitionBackfillOrError"]
        assert found["__typename"] == "PartitionBackfill", found
        if found["status"] not in ENDED:
            return None
        data = found["assetBackfillData"]["assetBackfillStatuses"]
        counts = {
            tuple(one["assetKey"]["path"]): (
                one["numPartitionsTargeted"],
                one["numPartitionsMaterialized"],
                one["numPartitionsFailed"],
            )
            for one in data
            if one
        }
        runs = tuple(str(run["id"]) for run in found["runs"])
        return Backfill(backfill, str(found["status"]), runs, counts)

    return wait_for(f"end of backfill {backfill}", ended, deadline_s=deadline_s)


def check_statuses(api: DagsterApi, asset: AssetPath) -> dict[str, dict[str, str]]:
    """Return of each check of an asset what the UI shows for each day: check to day to status."""
    node = api.query(CHECKS, {"key": {"path": list(asset)}})["assetNodeOrError"]
    found: dict[str, dict[str, str]] = {}
    for check in node["assetChecksOrError"]["checks"]:
        days = found.setdefault(check["name"], {})
        for part in (check["partitionStatuses"] or {}).get("ranges", []):
            first, last = parse_day(part["startKey"]), parse_day(part["endKey"])
            for day in Days(first, last + timedelta(days=1)):
                days[day.isoformat()] = str(part["status"])
    return found
