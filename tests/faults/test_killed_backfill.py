"""A backfill whose engine, and then whose own process, is killed with -9 in the middle."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from resources.settings import CHECKOUT
from tests.support.live.running_stack import RunningStack, until

pytestmark = pytest.mark.services

TABLES = ("events/clicks", "tiles/clicker/v1", "features/clicker/v1")
DAYS, ROWS_A_DAY = 10, 10_000
BUILT_S = 600
"""A real Spark on a machine that others use too."""
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


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[RunningStack]:
    """Spark and Dagster of its own, over a file of clicks for each day."""
    stack = RunningStack.declared(tmp_path, {"clicks": VIEW})
    stack.env = {**stack.env, "MILLRACE_DATA": str(tmp_path / "data")}
    write_clicks(tmp_path / "data")
    try:
        stack.up(("spark", "dagster"))
        yield stack
    finally:
        stack.down()


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


def start_backfill(stack: RunningStack) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "cli.main", "backfill", "clicker"),
            *("--start", "2024-03-01", "--end", "2024-03-11", "--wait", "--json"),
        ],
        env=dict(stack.env),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def content(stack: RunningStack) -> dict[str, Any]:
    found = {}
    for name in TABLES:
        table = DeltaTable(str(stack.home / "lake" / name)).to_pyarrow_table()
        found[name] = table.sort_by([(c, "ascending") for c in table.column_names if c != "first"])
    return found


def delta_version(stack: RunningStack, table: str) -> int:
    path = stack.home / "lake" / table
    return DeltaTable(str(path)).version() if DeltaTable.is_deltatable(str(path)) else -1


def run_process(stack: RunningStack) -> int | None:
    """Find the process of a Dagster run: a child of the stack's code server."""
    code = psutil.Process(stack.pid("dagster", "code"))
    for child in code.children(recursive=True):
        if {"spawn_main", "execute_run"} & set(" ".join(child.cmdline()).replace("(", " ").split()):
            return child.pid
    return None


def test_killed_engine_and_killed_run_leave_whole_days_and_a_rerun_gives_the_same_content(
    stack: RunningStack,
) -> None:
    first = start_backfill(stack)
    assert first.wait(timeout=BUILT_S) == 0
    clean = content(stack)
    assert clean["events/clicks"].num_rows == DAYS * ROWS_A_DAY

    tiles = delta_version(stack, TABLES[1])
    struck = start_backfill(stack)
    until(lambda: delta_version(stack, TABLES[1]) > tiles, "its tiles", BUILT_S)
    stack.kill("spark")
    struck.wait(timeout=BUILT_S)
    assert content(stack) == clean
    until(lambda: stack.status()["spark"]["state"] == "running", "Spark is started again")

    events = delta_version(stack, TABLES[0])
    orphaned = start_backfill(stack)
    until(lambda: delta_version(stack, TABLES[0]) > events, "its events", BUILT_S)
    os.kill(until(lambda: run_process(stack), "the process of the run"), signal.SIGKILL)
    # Dagster starts the run once more, and the command goes on with that one.
    output, _ = orphaned.communicate(timeout=BUILT_S)
    assert orphaned.returncode == 0, output
    assert content(stack) == clean
