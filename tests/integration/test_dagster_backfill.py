"""A real webserver, daemon and code server over fake tables, driven by GraphQL as the UI does."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest

from millrace.errors import EngineError, EngineRejected
from resources.dagster_api import DagsterApi, Failed, Materialized, RunProgress
from resources.reports import Days
from resources.settings import CHECKOUT
from tests.fake_offline import DECLARATIONS

pytestmark = pytest.mark.services

EVENTS, TILES, FEATURES = ("events", "payments"), ("tiles", "spend"), ("features", "spend")
SPEND = (EVENTS, TILES, FEATURES)
DEADLINE_S = 180

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None]) -> T:
    """Ask until there is an answer; an engine that is not up yet gives none."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            found = look()
        except EngineError:
            found = None
        if found is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {DEADLINE_S} s")


@dataclass
class Stack:
    """Dagster's three processes, and the file that says which days of which table are bad."""

    api: DagsterApi
    bad_days: Path

    def break_days(self, bad: dict[str, dict[str, str]]) -> None:
        self.bad_days.write_text(json.dumps(bad), encoding="utf-8")

    def finish(self, run: str) -> RunProgress:
        def ended() -> RunProgress | None:
            progress = self.api.progress(run)
            return progress if progress.is_finished else None

        return wait_for(f"end of run {run}", ended)

    def statuses(self, path: tuple[str, ...], days: Days) -> dict[str, list[int]]:
        state = self.api.asset(path)
        assert state is not None
        found: dict[str, list[int]] = {}
        for day in days:
            found.setdefault(state.statuses.get(day, "MISSING"), []).append(day.day)
        return found


def free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 55_536:
            return port


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("dagster")
    home, views, bad_days = root / "home", root / "views", root / "bad_days.json"
    home.mkdir()
    views.mkdir()
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", home)
    (views / "payments.yaml").write_text(DECLARATIONS, encoding="utf-8")
    bad_days.write_text("{}", encoding="utf-8")
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "MILLRACE_HOME": str(root / "millrace"),
        "MILLRACE_VIEWS": str(views),
        "MILLRACE_TEST_BAD_DAYS": str(bad_days),
        "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests"))),
    }
    code, web = free_port(), free_port()
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code}, location_name: millrace}}}}]"
    )
    prepare = "import dagster as dg; dg.DagsterInstance.get().get_runs_count()"
    subprocess.run([sys.executable, "-c", prepare], env=env, check=True, cwd=home)
    module = "integration.dagster_project.definitions"
    server = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code)]
    commands = [
        [*server, "-m", module, "-a", "defs", "-d", str(CHECKOUT)],
        ["dagster_webserver", "-h", "127.0.0.1", "-p", str(web), "-w", str(workspace)],
        ["dagster._daemon", "run", "-w", str(workspace)],
    ]
    api = DagsterApi(f"http://127.0.0.1:{web}")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (root / "log").open("wb") as log:
            for command in commands:
                argv = [sys.executable, "-m", *command]
                processes.append(subprocess.Popen(argv, env=env, cwd=home, stdout=log, stderr=log))
            wait_for("code location", lambda: api.reload() is None or None)
            yield Stack(api, bad_days)
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


BAD = {"events/payments": {"2020-01-04": "part-4 is cut off", "2020-01-07": "amount is missing"}}


def test_a_range_is_one_run_and_its_bad_days_fail_in_every_asset(stack: Stack) -> None:
    days = Days.parse("2020-01-01", "2020-01-11")
    stack.break_days(BAD)
    progress = stack.finish(stack.api.launch(SPEND, days))
    assert progress.status == "FAILURE"
    for path in SPEND:
        assert stack.statuses(path, days) == {
            "MATERIALIZED": [1, 2, 3, 5, 6, 8, 9, 10],
            "FAILED": [4, 7],
        }
    built = [e for e in progress.events if isinstance(e, Materialized)]
    assert len(built) == 3 * 8
    assert built[0].metadata["dagster/partition_row_count"] == 11
    [failed] = [e for e in progress.events if isinstance(e, Failed) and e.days]
    assert "events/payments: 2020-01-04: part-4 is cut off" in failed.message
    assert failed.days["features/spend"]["2020-01-07"] == (
        "events/payments failed: amount is missing"
    )


def test_a_range_run_again_after_the_mend_is_whole(stack: Stack) -> None:
    days = Days.parse("2020-02-01", "2020-02-06")
    stack.break_days({"events/payments": {"2020-02-03": "cut off"}})
    stack.finish(stack.api.launch(SPEND, days))
    stack.break_days({})
    progress = stack.finish(stack.api.launch(SPEND, days))
    assert progress.status == "SUCCESS"
    for path in SPEND:
        assert stack.statuses(path, days) == {"MATERIALIZED": [1, 2, 3, 4, 5]}


BACKFILL = """
mutation Backfill($params: LaunchBackfillParams!) {
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
BACKFILL_STATE = """
query Backfill($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill {
      status
      runs { runId tags { key value } }
      assetBackfillData { assetBackfillStatuses { ... on AssetPartitionsStatusCounts {
        assetKey { path }
        numPartitionsTargeted
        numPartitionsMaterialized
        numPartitionsFailed
      } } }
    }
  }
}
"""


def finish_backfill(stack: Stack, answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["__typename"] == "LaunchBackfillSuccess", answer

    def ended() -> dict[str, Any] | None:
        found = stack.api.query(BACKFILL_STATE, {"id": answer["backfillId"]})
        state: dict[str, Any] = found["partitionBackfillOrError"]
        return state if state["status"].startswith(("COMPLETED", "FAIL", "CANCEL")) else None

    return wait_for("end of the backfill", ended)


def counts(state: dict[str, Any]) -> set[tuple[str, int, int, int]]:
    return {
        (
            "/".join(s["assetKey"]["path"]),
            s["numPartitionsTargeted"],
            s["numPartitionsMaterialized"],
            s["numPartitionsFailed"],
        )
        for s in state["assetBackfillData"]["assetBackfillStatuses"]
    }


def test_a_backfill_of_the_daemon_is_one_run_and_its_retry_takes_only_the_bad_days(
    stack: Stack,
) -> None:
    stack.break_days(
        {"events/payments": {"2020-03-04": "cut off", "2020-03-05": "a column is missing"}}
    )
    parameters = {
        "assetSelection": [{"path": list(path)} for path in SPEND],
        "partitionNames": [f"2020-03-{day:02}" for day in range(1, 11)],
    }
    answer = stack.api.query(BACKFILL, {"params": parameters})["launchPartitionBackfill"]
    state = finish_backfill(stack, answer)
    assert counts(state) == {("/".join(path), 10, 8, 2) for path in SPEND}
    assert len(state["runs"]) == 1

    stack.break_days({})
    retry = {"parentRunId": answer["backfillId"], "strategy": "FROM_FAILURE"}
    again = stack.api.query(RETRY, {"params": retry})["reexecutePartitionBackfill"]
    state = finish_backfill(stack, again)
    assert counts(state) == {("/".join(path), 2, 2, 0) for path in SPEND}
    march = Days(date(2020, 3, 1), date(2020, 3, 11))
    for path in SPEND:
        assert stack.statuses(path, march) == {"MATERIALIZED": list(range(1, 11))}


def test_an_unknown_run_is_refused_by_name(stack: Stack) -> None:
    with pytest.raises(EngineRejected, match="run nonsense"):
        stack.api.progress("nonsense")


def test_an_asset_that_is_not_there_has_no_state(stack: Stack) -> None:
    assert stack.api.asset(("features", "nothing")) is None
    assert stack.api.asset(("raw", "payments")) is None
