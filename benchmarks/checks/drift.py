"""How long profiling and judging drift take: one day of 1 M rows x 50 features, 28 days before it.

python -m benchmarks.checks.drift [--rows N] [--features N] [--write]
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from millrace.compile.checks import Rule
from millrace.durations import DAY_MS
from millrace.plan import Column
from millrace.quality.judge import judge_day
from millrace.quality.partial import Partials, TableShape
from millrace.quality.profile import DayProfile
from millrace.types import FLOAT64

FIRST = date(2024, 1, 1)
BASELINE_DAYS = 28
BASELINE_ROWS = 20_000
REPEATS = 3
METRICS = ("psi", "js", "mean", "variance")


def day_table(rows: int, features: int, number: int, moved: float) -> pa.Table:
    """Return a day of skewed features, every tenth of them moved by so many deviations."""
    random = np.random.default_rng(number)
    first_ms = (FIRST + timedelta(number) - date(1970, 1, 1)).days * DAY_MS
    columns = {
        f"f{i}": random.gamma(2.0, 1.0 + i, rows) + (moved * (1.0 + i) if i % 10 == 0 else 0.0)
        for i in range(features)
    }
    times = first_ms + np.sort(random.integers(0, DAY_MS, rows))
    return pa.table({**columns, "_event_ms": times})


def profile(shape: TableShape, table: pa.Table) -> DayProfile:
    """Profile one day, in batches as an engine hands them over."""
    partials = Partials(shape)
    for batch in table.to_batches(max_chunksize=100_000):
        partials.add(batch)
    return partials.profiles()[0]


def timed(make: Callable[[], DayProfile]) -> tuple[float, float, DayProfile]:
    """Return wall seconds, seconds of processor, and what was made."""
    began, began_cpu = time.perf_counter(), time.process_time()
    made = make()
    return time.perf_counter() - began, time.process_time() - began_cpu, made


def main() -> None:
    """Measure, print, and write ``results/drift.json`` if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    names = [f"f{i}" for i in range(arguments.features)]
    shape = TableShape(
        "features/bench/v1", tuple(Column(n, FLOAT64) for n in names), "_event_ms", ()
    )
    history = [
        profile(shape, day_table(BASELINE_ROWS, arguments.features, n, 0.0))
        for n in range(BASELINE_DAYS)
    ]
    rules = [
        Rule(f"drift__{n}__{m}", "drift", n, {"metric": m}, "warn") for n in names for m in METRICS
    ]
    today = day_table(arguments.rows, arguments.features, BASELINE_DAYS, 0.5)
    runs = [timed(lambda: profile(shape, today)) for _ in range(REPEATS)]
    profiled_s, profiled_cpu_s, found = min(runs, key=lambda run: run[0])
    began = time.perf_counter()
    findings = judge_day(found, history, rules)
    judged_s = time.perf_counter() - began
    moved = {f.column for f in findings if f.is_alarm and f.rule.arguments["metric"] == "psi"}
    result = {
        "rows": arguments.rows,
        "features": arguments.features,
        "metrics": list(METRICS),
        "profile_s": round(profiled_s, 2),
        "profile_s_all": [round(run[0], 2) for run in runs],
        "profile_cpu_s": round(profiled_cpu_s, 2),
        "judge_s": round(judged_s, 2),
        "total_s": round(profiled_s + judged_s, 2),
        "moved_features_found_by_psi": len(moved),
        "moved_features": len(names[::10]),
        "load_before": os.getloadavg()[0],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    print(json.dumps(result, indent=1))
    if arguments.write:
        target = Path(__file__).parent / "results" / "drift.json"
        target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
