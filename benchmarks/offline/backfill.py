"""Offline benchmark: from raw files to ``features/…``, through Dagster, as a user starts it.

    millrace up          # with MILLRACE_VIEWS=feature_assets/examples
    python -m benchmarks.offline.backfill --repeats 2

Backfills every partition of the four card and retail views, one run per source, and records wall
time, CPU time and peak memory of Spark (the server and its Python workers). The first pass warms
up; since a backfill replaces what it finds, each pass does the same work. Results go to
``results/backfill.json`` and ``.md``.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.offline.measuring import Measurement, machine, measure, server_pid
from millrace.days import Days
from resources.endpoints import spark_remote
from resources.settings import settings_from_env

RESULTS = Path(__file__).resolve().parent / "results"
RUNS = (
    (("customer_spend", "terminal_risk"), "2018-04-01", "2018-10-01"),
    (("shopper_activity", "item_demand"), "2010-12-01", "2011-12-10"),
)


def main() -> int:
    """Run the passes and write the figures."""
    parser = argparse.ArgumentParser(description="files to features, all four views")
    parser.add_argument("--repeats", type=int, default=2)
    repeats: int = parser.parse_args().repeats
    server = server_pid(spark_remote(settings_from_env()))
    passes: list[Measurement] = []
    for turn in range(repeats + 1):
        found = measure(_backfill_all, (server,))
        print(f"{'warm-up' if turn == 0 else turn}: {found.as_json()}")
        if turn:
            passes.append(found)
    write(passes)
    return 0


def _backfill_all() -> None:
    for views, start, end in RUNS:
        _backfill(views, start, end)


def _backfill(views: tuple[str, ...], start: str, end: str) -> None:
    command = [sys.executable, "-m", "cli.main", "backfill", *views]
    subprocess.run(
        [*command, "--start", start, "--end", end, "--wait"],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def write(passes: Sequence[Measurement]) -> None:
    """Write JSON with every pass, and the table that the documentation shows."""
    partitions = sum(
        len(Days.parse(start, end)) * (2 * len(views) + 1) for views, start, end in RUNS
    )
    report = {
        "scenario": "backfill",
        "partitions": partitions,
        "machine": machine(),
        "passes": [p.as_json() for p in passes],
    }
    base = RESULTS / "backfill"
    base.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    rows = (
        ("wall, through Dagster", "s", [p.wall_s for p in passes]),
        ("CPU of Spark and its workers", "s", [p.cpu_s for p in passes]),
        ("peak memory of Spark and its workers", "MiB", [p.peak_rss_mb for p in passes]),
    )
    loads = ", ".join(f"{p.load_before:.1f}" for p in passes)
    lines = [
        f"| files to features, {partitions} partitions | median | lowest to highest |",
        "|---|---|---|",
        *(f"| {what} | {_figures(values, unit)} |" for what, unit, values in rows),
        "",
        f"{len(passes)} warm passes; load of the machine before each: {loads}.",
    ]
    base.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _figures(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):,.0f} {unit} | {min(values):,.0f} to {max(values):,.0f}"


if __name__ == "__main__":
    sys.exit(main())
