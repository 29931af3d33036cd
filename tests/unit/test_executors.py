"""What runs on Spark's executors imports only what docs/operations.md asks them to have."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pyspark import cloudpickle

from checks.quality.profile_task import profile_batches
from millrace.kernel.arrow import KernelView
from millrace.plan import Plan
from millrace.quality.partial import source_shape
from offline.raw.lines import whole
from offline.raw.parquet import portable_types
from offline.raw.splits import Split
from offline.raw.text import text_rows_of
from offline.raw.typed import rows_of_split
from offline.tables.features_task import events_as_of
from offline.training.spine_task import ROW, rows_as_of
from resources.declarations import plan_of
from resources.settings import CHECKOUT
from resources.spark.tile_bytes import encoded

PROMISED = (
    "numpy",
    "pyarrow",
    "pyspark",
    "py4j",
    "datasketches",
    "millrace",
    "resources",
    "offline",
    "checks",
)
"""Spark brings its own, and the rooms of ours are sent along; large tables' profiles take sketches."""

WORKER = f"""
import pickle, sys

class Promised:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in {PROMISED!r} or top in sys.stdlib_module_names or top[0] == "_":
            return None
        raise ModuleNotFoundError(f"executors have no {{name}}")

sys.meta_path.insert(0, Promised())
work, argument = pickle.load(sys.stdin.buffer)
found = work(argument)
rows = len(found) if hasattr(found, "type") else sum(batch.num_rows for batch in found)
print(rows)
"""

VIEWS = """
version: millrace/v1
sources:
  - name: sales
    columns: {at: timestamp, who: int64, what: string, paid: "decimal(12,2)", taste: vector(2)}
    event_time: at
    batch: {format: FORMAT, path: sales.FORMAT}
entities: [{name: buyer, join_key: who, type: int64}]
feature_views:
  - name: buyers
    entity: buyer
    source: sales
    start: 2024-01-01
    filter: "paid > 0"
    features:
      - {name: spent, aggregate: sum, column: paid, window: 1d}
      - {name: kinds, aggregate: approx_distinct, column: what, window: 1d}
      - {name: usual, aggregate: mode, column: what, window: {tumbling: 1d, timezone: Europe/Paris}}
      - {name: run, aggregate: last_k, k: 2, column: what, window: {session: 1h, max: 1d}}
      - {name: typical, aggregate: median, column: paid, window: 1d, default: 0}
      - {name: liked, aggregate: avg, column: taste, window: 1d}
      - {name: much, derive: "spent > 10 AND LENGTH(usual) > 1"}
"""


def declared(folder: Path, kind: str) -> Plan:
    file = folder / f"{kind}.yaml"
    file.write_text(VIEWS.replace("FORMAT", kind), encoding="utf-8")
    return plan_of([file])


def events(view: KernelView, **more: pa.Array) -> pa.Table:
    of_measures = {
        name: pa.nulls(2, KERNEL_TYPES[str(type_)]).fill_null(VALUES[str(type_)])
        if str(type_) in VALUES
        else pa.nulls(2, KERNEL_TYPES[str(type_)])
        for name, type_ in view.measures
    }
    times = pa.array([1_704_067_200_000, 1_704_070_800_000])
    keys = {"who": pa.array([1, 1])}
    return pa.table({**keys, "_event_ms": times, "_ingest_ms": times, **of_measures, **more})


KERNEL_TYPES: dict[str, Any] = {
    "decimal(12,2)": pa.decimal128(12, 2),
    "string": pa.string(),
    "vector(2)": pa.list_(pa.float32()),
}
VALUES: dict[str, Any] = {"string": "tea"}


def features(folder: Path) -> tuple[Any, Any, int]:
    view = KernelView.of(declared(folder, "csv").view("buyers"))
    work = events_as_of(view, "v1", [(0, 2_000_000_000_000)])
    return work, events(view).to_batches(), 2


def spine(folder: Path) -> tuple[Any, Any, int]:
    view = KernelView.of(declared(folder, "csv").view("buyers"))
    rows = events(
        view, **{ROW: pa.array([None, 0]), "_query_ms": pa.array([None, 1_704_070_800_000])}
    )
    return rows_as_of(view, hindsight=False), rows.to_batches(), 1


def profile(folder: Path) -> tuple[Any, Any, int]:
    shape = source_shape(declared(folder, "csv").view("buyers").source)
    day = pa.array([19_723, 19_723], pa.int32()).cast(pa.date32())
    at = pa.array([1_704_067_200_000_000] * 2, pa.timestamp("us", tz="UTC"))
    columns = {
        "at": at,
        "who": pa.array([1, 2]),
        "what": pa.array(["a", None]),
        "paid": pa.nulls(2, pa.decimal128(12, 2)),
        "taste": pa.nulls(2, pa.list_(pa.float32())),
        "_event_ms": pa.array([1_704_067_200_000] * 2),
        "_event_id": pa.array(["x", "y"]),
    }
    names = [name for name in shape.read if name in columns]
    return (
        profile_batches(shape),
        pa.table({"event_date": day, **{name: columns[name] for name in names}}).to_batches(),
        1,
    )


def csv_rows(folder: Path) -> tuple[Any, Any, int]:
    file = folder / "sales.csv"
    file.write_text("at,who,what,paid\n2024-01-01T10:00:00Z,1,tea,3.50\nnever,x,tea,3.50\n")
    source = declared(folder, "csv").view("buyers").source
    return (
        partial(text_rows_of, source, {str(file): ("at", "who", "what", "paid")}),
        whole(str(file)),
        2,
    )


def json_rows(folder: Path) -> tuple[Any, Any, int]:
    file = folder / "sales.json"
    file.write_text('{"at": 1704067200000, "who": 1, "taste": [1, 2]}\n{"at": [}\n')
    source = declared(folder, "json").view("buyers").source
    return partial(text_rows_of, source, {}), whole(str(file)), 2


def parquet_rows(folder: Path) -> tuple[Any, Any, int]:
    file = folder / "sales.parquet"
    table = pa.table({"at": pa.array([1_704_067_200_000], pa.timestamp("ms")), "who": [1]})
    parquet.write_table(table, file)
    source = declared(folder, "parquet").view("buyers").source
    wanted = portable_types(source, {"at": "timestamp[ms]", "who": "int64"})
    return partial(rows_of_split, source, wanted), Split(str(file), 0, 1, 0), 1


def tile_bytes(_: Path) -> tuple[Any, Any, int]:
    tiles = pa.array([["a", "b"], ["c"]], pa.list_(pa.string()))
    of_all = [pa.repeat(one, 2) for one in ("registers", "string")]
    return lambda tiles: encoded(*of_all, tiles, pa.repeat(12, 2)), tiles, 2


@pytest.mark.parametrize(
    "case", [features, spine, profile, csv_rows, json_rows, parquet_rows, tile_bytes]
)
def test_a_task_runs_with_what_executors_are_promised(case: Any, tmp_path: Path) -> None:
    work, argument, rows = case(tmp_path)
    sent = cloudpickle.dumps((work, argument))
    done = subprocess.run(
        [sys.executable, "-c", WORKER],
        input=sent,
        cwd=CHECKOUT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stdout) == rows
