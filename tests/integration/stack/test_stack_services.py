"""The real Spark and Dagster under the real supervisor, by the command, as a user has them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.dagster.client import DagsterApi
from resources.endpoints import dagster_url, server_url, spark_remote
from resources.settings import CHECKOUT, Settings, settings_from_env

pytestmark = pytest.mark.services

_PARTS = ("spark", "dagster")
_MOST_SPARK_BYTES = 5 * 1024**3


class Stack:
    """One stack, driven by the command."""

    def __init__(self, home: Path) -> None:
        self.env = {
            name: value for name, value in os.environ.items() if name != "MILLRACE_SPARK_REMOTE"
        } | {"MILLRACE_HOME": str(home)}

    @property
    def settings(self) -> Settings:
        return settings_from_env(self.env)

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**self.env, **env},
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
        )

    def status(self) -> dict[str, Any]:
        document = json.loads(self.run("status", "--json").stdout)
        assert document["home"] == self.env["MILLRACE_HOME"]
        parts: dict[str, Any] = document["parts"]
        return parts


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack(tmp_path_factory.mktemp("stack") / "home")
    try:
        started = one.run("up", *_PARTS)
        assert started.returncode == 0, started.stderr
        yield one
    finally:
        stopped = one.run("down")
    assert stopped.returncode == 0, stopped.stderr
    assert {part["state"] for part in one.status().values()} == {"stopped"}


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _session(settings: Settings) -> Any:
    from pyspark.sql.connect.session import SparkSession

    return SparkSession.builder.remote(spark_remote(settings)).create()


def test_status_shows_both_parts_running(stack: Stack) -> None:
    parts = stack.status()
    assert {part for part, entry in parts.items() if entry["state"] == "running"} == set(_PARTS)
    assert parts["spark"]["url"].startswith("sc://localhost:")
    assert {"webserver", "daemon"} <= set(parts["dagster"]["pids"])
    assert parts["dagster"]["url"] == dagster_url(stack.settings)


def test_spark_writes_and_reads_delta_and_runs_python(stack: Stack, tmp_path: Path) -> None:
    session, table = _session(stack.settings), str(tmp_path / "table")
    session.range(1000).write.format("delta").save(table)
    session.range(1000, 1500).write.format("delta").mode("append").save(table)

    def doubled(batches: Any) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in batches:
            yield pa.RecordBatch.from_arrays([pc.multiply(batch["id"], 2)], names=["id"])

    rows = session.read.format("delta").load(table).mapInArrow(doubled, "id long")
    assert rows.agg({"id": "sum"}).collect()[0][0] == sum(2 * i for i in range(1500))
    assert session.conf.get("spark.sql.session.timeZone") == "UTC"
    # Written by `LocalFiles`: no sums beside the files, and permissions all the same.
    files = [path for path in Path(table).iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".parquet"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    server = psutil.Process(stack.status()["spark"]["pid"])
    resident = sum(p.memory_info().rss for p in (server, *server.children(recursive=True)))
    assert resident < _MOST_SPARK_BYTES
    session.stop()


def test_spark_refuses_a_client_without_its_token_and_the_client_says_so(stack: Stack) -> None:
    # In a process of its own, left at once: the client goes on trying to release its session.
    code = (
        "import os\n"
        "from millrace.errors import EngineRejected\n"
        "from resources.settings import settings_from_env\n"
        "from resources.spark.session import connect\n"
        "try:\n"
        "    connect(settings_from_env()).range(1).collect()\n"
        "except EngineRejected as error:\n"
        "    print(error, flush=True)\n"
        "    os._exit(7)"
    )
    bare = spark_remote(stack.settings).partition(";")[0]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, "MILLRACE_SPARK_REMOTE": bare},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 7, done.stderr
    assert "No authentication token provided" in done.stdout
    assert "fix: give its token: spark.token" in done.stdout


def test_dagster_serves_the_code_location(stack: Stack) -> None:
    query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"
    (entry,) = DagsterApi(dagster_url(stack.settings)).query(query, {})["workspaceOrError"][
        "locationEntries"
    ]
    assert entry == {"name": "millrace", "loadStatus": "LOADED"}


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = stack.status()
    again = stack.run("up", *_PARTS)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert stack.status() == before


def test_a_spark_that_is_killed_comes_back_with_the_same_address(stack: Stack) -> None:
    before, address = stack.status()["spark"], spark_remote(stack.settings)
    os.kill(before["pid"], signal.SIGKILL)
    _until(lambda: stack.status()["spark"].get("restarts", 0) == before.get("restarts", 0) + 1)
    assert stack.run("up", "spark").returncode == 0
    assert spark_remote(stack.settings) == address
    session = _session(stack.settings)
    assert session.range(10).count() == 10
    session.stop()


def test_another_lake_restarts_dagster_alone_and_is_said(stack: Stack, tmp_path: Path) -> None:
    before = stack.status()
    restarted = stack.run("up", *_PARTS, MILLRACE_LAKE=str(tmp_path / "lake"))
    assert restarted.returncode == 0, restarted.stderr
    assert "dagster: restarted, for MILLRACE_LAKE differs" in restarted.stderr
    after = stack.status()
    assert after["spark"] == before["spark"]
    assert after["dagster"]["url"] == before["dagster"]["url"]
    assert after["dagster"]["pids"] != before["dagster"]["pids"]


def test_assets_lead_to_a_part_that_is_started_after_dagster(stack: Stack) -> None:
    started = stack.run("up", "server")
    assert started.returncode == 0, started.stderr
    query = """query Links($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
        ... on AssetNode { metadataEntries { label ... on UrlMetadataEntry { url } } } } }"""
    key = {"path": ["online", "airport_departures_online"]}
    node = DagsterApi(dagster_url(stack.settings)).query(query, {"key": key})["assetNodeOrError"]
    links = {entry["label"]: entry.get("url") for entry in node["metadataEntries"]}
    assert links["api_docs"] == f"{server_url(stack.settings)}/docs"


def test_doctor_finds_nothing_that_fails(stack: Stack) -> None:
    looked = stack.run("doctor", "--json")
    verdicts = {one["subject"]: one["verdict"] for one in json.loads(looked.stdout)["findings"]}
    assert {"Python", "Java", "jars", "spark", "dagster", "lake", "declarations"} <= set(verdicts)
    assert "fail" not in verdicts.values(), looked.stdout


def test_logs_are_shown(stack: Stack) -> None:
    shown = stack.run("logs", "dagster", "-n", "5")
    assert shown.returncode == 0
    assert shown.stdout.strip()
