"""A backfill whose engine, and then whose own process, is killed with -9 in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from resources.settings import CHECKOUT
from tests.conftest import run_millrace

pytestmark = pytest.mark.services

TABLES = ("events/clicks", "tiles/clicker/v1", "features/clicker/v1")
DAYS, ROWS_A_DAY = 20, 10_000
START_US = (date(2024, 3, 1) - date(1970, 1, 1)).days * 86_400_000_000

VIEW = """
version: millrace/v1
sources:
  - name: clicks
    columns: {id: int64, at: timestamp, who: int64, price: float64}
    event_time: at
    event_id: id
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities: [{name: clicker, join_key: who, type: int64}]
feature_views:
  - name: clicker
    entity: clicker
    source: clicks
    start: 2024-03-01
    features:
      - {name: "clicks_{window}", aggregate: count, windows: [1h, 1d, 7d]}
      - {name: price_sum_7d, aggregate: sum, column: price, window: 7d}
      - {name: price_max_7d, aggregate: max, column: price, window: 7d}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A whole stack of its own, over twenty files of clicks; yields its environment."""
    root = tmp_path_factory.mktemp("killed")
    (root / "views").mkdir()
    (root / "views" / "clicks.yaml").write_text(VIEW)
    write_clicks(root / "data")
    env = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    if "MILLRACE_CACHE" in os.environ:
        env["MILLRACE_CACHE"] = os.environ["MILLRACE_CACHE"]
    env |= {
        "MILLRACE_HOME": str(root / "home"),
        "MILLRACE_VIEWS": str(root / "views"),
        "MILLRACE_DATA": str(root / "data"),
    }
    run_millrace("up", env=env)
    try:
        yield env
    finally:
        run_millrace("down", env=env)


def write_clicks(folder: Path) -> None:
    folder.mkdir()
    for day in range(DAYS):
        ids = range(day * ROWS_A_DAY, (day + 1) * ROWS_A_DAY)
        at = [START_US + day * 86_400_000_000 + (i % ROWS_A_DAY) * 8_640_000 for i in ids]
        table = pa.table(
            {
                "id": pa.array(ids, pa.int64()),
                "at": pa.array(at, pa.timestamp("us", tz="UTC")),
                "who": pa.array([i * i % 97 for i in ids], pa.int64()),
                "price": pa.array([(i % 1_000) / 7 for i in ids], pa.float64()),
            }
        )
        pq.write_table(table, folder / f"day-{day:02}.parquet")


def start_backfill(env: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cli.main", "backfill", "clicker"),
            *("--start", "2024-03-01", "--end", "2024-03-21", "--wait", "--json"),
        ],
        env=env,
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def content(env: dict[str, str]) -> dict[str, Any]:
    lake = Path(env["MILLRACE_HOME"]) / "lake"
    found = {}
    for name in TABLES:
        table = DeltaTable(str(lake / name)).to_pyarrow_table()
        found[name] = table.sort_by([(c, "ascending") for c in table.column_names if c != "first"])
    return found


def status(env: dict[str, str]) -> dict[str, Any]:
    parts: dict[str, Any] = json.loads(run_millrace("status", "--json", env=env).stdout)["parts"]
    return parts


def until(condition: Callable[[], Any], what: str, deadline_s: float = 120) -> Any:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {deadline_s} s")


def delta_version(env: dict[str, str], table: str) -> int:
    path = Path(env["MILLRACE_HOME"]) / "lake" / table
    return DeltaTable(str(path)).version() if DeltaTable.is_deltatable(str(path)) else -1


def run_process(env: dict[str, str]) -> int | None:
    """Find the process of a Dagster run: a child of the stack's code server."""
    code = psutil.Process(status(env)["dagster"]["pids"]["code"])
    for child in code.children(recursive=True):
        if {"spawn_main", "execute_run"} & set(" ".join(child.cmdline()).replace("(", " ").split()):
            return child.pid
    return None


def test_killed_engine_and_killed_run_leave_whole_days_and_a_rerun_gives_the_same_content(
    stack: dict[str, str],
) -> None:
    first = start_backfill(stack)
    assert first.wait(timeout=300) == 0
    clean = content(stack)
    assert clean["events/clicks"].num_rows == DAYS * ROWS_A_DAY

    tiles = delta_version(stack, TABLES[1])
    struck = start_backfill(stack)
    until(lambda: delta_version(stack, TABLES[1]) > tiles, "tiles of the second backfill")
    os.kill(status(stack)["spark"]["pid"], signal.SIGKILL)
    struck.wait(timeout=300)
    assert content(stack) == clean
    until(lambda: status(stack)["spark"]["state"] == "running", "Spark is started again")

    events = delta_version(stack, TABLES[0])
    orphaned = start_backfill(stack)
    until(lambda: delta_version(stack, TABLES[0]) > events, "events of the third backfill")
    os.kill(until(lambda: run_process(stack), "the process of the run"), signal.SIGKILL)
    # Dagster starts the run once more, and the command goes on with that one.
    output, _ = orphaned.communicate(timeout=300)
    assert orphaned.returncode == 0, output
    assert content(stack) == clean
