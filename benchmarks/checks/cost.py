"""What checks cost beside the backfill that they judge: real card payments, one warm Spark.

    millrace up spark
    python -m benchmarks.checks.cost [--days N] [--times N] [--write]

Runs the step of the source as Dagster does, over a range of days, into a fresh lake and an event log
as the stack has it: events, tiles and features of two views are built, judged and reported. A first
run of two days warms Spark. ``--times`` has every payment made by so many payers at as many tills.

``share`` is the time of judging and reporting by that of all else. The process of Great Expectations
gets ready beside the first build; its processor time is told apart.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_assets import factory, table_step
from feature_assets.judging import Gate
from feature_assets.offline import OfflineLake
from resources.declarations import load_plan
from resources.settings import Settings, settings_from_env

ROOT = Path(__file__).resolve().parents[2]
FIRST = date(2018, 4, 1)
ALL_DAYS = 183
WARM_DAYS = 2
VIEWS = """
version: millrace/v1
sources:
  - name: payments
    columns: {transaction_id: int64, tx_ts: timestamp, customer_id: int64, terminal_id: int64, amount: "decimal(12,2)", is_fraud: bool}
    event_time: tx_ts
    event_id: transaction_id
    batch: {format: parquet, path: "${MILLRACE_DATA}/card_transactions.parquet"}
entities:
  - {name: payer, join_key: customer_id, type: int64}
  - {name: till, join_key: terminal_id, type: int64}
feature_views:
  - name: payer_habits
    entity: payer
    source: payments
    start: 2018-04-01
    features:
      - {name: "n_{window}", aggregate: count, windows: [10s, 2m, 1h, 30d]}
      - {name: sum_1d, aggregate: sum, column: amount, window: 1d}
      - {name: avg_7d, aggregate: avg, column: amount, window: 7d}
      - {name: max_7d, aggregate: max, column: amount, window: 7d}
  - name: till_risk
    entity: till
    source: payments
    start: 2018-04-01
    features:
      - {name: fraud_7d, aggregate: sum, expr: "CASE WHEN is_fraud THEN 1 ELSE 0 END", window: 7d, offset: 7d}
      - {name: n_30d, aggregate: count, window: 30d, offset: 7d}
"""


def many_payers(source: Path, target: Path, times: int, days: int) -> None:
    """Write the first days of the payments, each made ``times`` times, in order of time."""
    end = pa.scalar(FIRST + timedelta(days)).cast(pa.timestamp("us"))
    table = pq.read_table(source)
    table = table.filter(pc.less(table["tx_ts"].cast(pa.timestamp("us")), end))
    copies = []
    for number in range(times):
        copy = table
        for column, step in (
            ("transaction_id", 10_000_000),
            ("customer_id", 10_000),
            ("terminal_id", 20_000),
        ):
            place = copy.schema.get_field_index(column)
            moved = pc.add(copy[column].cast(pa.int64()), number * step)
            copy = copy.set_column(place, column, moved)
        copies.append(copy)
    pq.write_table(pa.concat_tables(copies).sort_by("tx_ts"), target, row_group_size=500_000)


def run(settings: Settings, days: int) -> dict[str, Any]:
    """Run the step over the first days; return the seconds of its parts."""
    plan = load_plan(settings)
    views = plan.views_of("payments")
    assets = factory.source_assets(plan.sources["payments"], views, settings.lake)
    job = dg.Definitions(
        assets=assets, resources={"offline": OfflineLake()}
    ).resolve_implicit_global_asset_job_def()
    tags = {
        "dagster/asset_partition_range_start": FIRST.isoformat(),
        "dagster/asset_partition_range_end": (FIRST + timedelta(days - 1)).isoformat(),
    }
    seconds: dict[str, float] = {"build": 0.0, "judge": 0.0, "report": 0.0}
    with dg.DagsterInstance.get() as instance, timed(seconds):
        of_child = _child_cpu_s()
        began = time.monotonic()
        job.execute_in_process(instance=instance, tags=tags)
        total = time.monotonic() - began
    checks = seconds["judge"] + seconds["report"]
    return {
        "days": days,
        "seconds": {k: round(v, 2) for k, v in {**seconds, "total": total}.items()},
        "share": round(checks / (total - checks), 3),
        "share_of_build_alone": round(checks / seconds["build"], 3),
        "great_expectations_cpu_s": round(_child_cpu_s() - of_child, 1),
    }


@contextmanager
def timed(seconds: dict[str, float]) -> Iterator[None]:
    """Add up what building, judging and reporting take."""

    def adding(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            began = time.monotonic()
            try:
                return call(*arguments, **named)
            finally:
                seconds[part] += time.monotonic() - began

        return called

    places = [(OfflineLake, f"build_{t}", "build") for t in ("events", "tiles", "features")]
    places += [(Gate, "judged", "judge"), (table_step, "report_checks", "report")]
    patches = [patch.object(o, name, adding(part, getattr(o, name))) for o, name, part in places]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def _child_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print, and write ``results/cost.json`` if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=ALL_DAYS)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    source = Path(settings_from_env().data or ".") / "card_transactions.parquet"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "card_transactions.parquet"
        many_payers(source, data, arguments.times, arguments.days)
        rows = pq.read_metadata(data).num_rows
        (folder / "views").mkdir()
        (folder / "views" / "payments.yaml").write_text(VIEWS)
        shutil.copy(ROOT / "dagster_home" / "dagster.yaml", folder)
        os.environ.update(MILLRACE_DATA=name, MILLRACE_LAKE=f"{name}/lake", DAGSTER_HOME=name)
        settings = replace(settings_from_env(), views=(folder / "views",))
        with patch("feature_assets.offline.settings_from_env", lambda: settings):
            run(settings, WARM_DAYS)
            found = run(settings, arguments.days)
    result = {
        "rows": rows,
        "rows_a_day": rows // arguments.days,
        **found,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(result, indent=1))
    if arguments.write:
        target = Path(__file__).parent / "results" / "cost.json"
        kept = json.loads(target.read_text()) if target.exists() else {}
        kept[f"{arguments.times} x payments"] = result
        target.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
