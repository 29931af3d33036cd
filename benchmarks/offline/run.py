"""Offline benchmark: training sets by our engines and by their peers, in one run, checked equal.

    millrace up spark
    python -m benchmarks.offline.run cards skewed --repeats 3

Each scenario is a file in ``scenarios/``; results go to ``results/<scenario>.json`` and ``.md``. A method runs
once unmeasured, then ``--repeats`` times in turn with the others, so a busy minute of the machine
falls on all of them. Every output column is summed up and compared with the first method's.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.offline.lakes import ROW_ID, prepare
from benchmarks.offline.measuring import Measurement, machine, measure, server_pid
from benchmarks.offline.methods import METHODS, ON_SPARK, Task
from resources.declarations import plan_of
from resources.endpoints import spark_remote
from resources.settings import settings_from_env

HERE = Path(__file__).resolve().parent
PRIME = 1009


def main() -> int:
    """Run the scenarios named on the command line; 1 if methods disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Verbatim)
    parser.add_argument("scenarios", nargs="+", choices=[p.stem for p in _scenarios()])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="only these")
    parser.add_argument("--work", type=Path, default=None, help="folder for lakes and outputs")
    asked = parser.parse_args()
    agreed = [
        run_scenario(name, asked.repeats, asked.methods, asked.work) for name in asked.scenarios
    ]
    return 0 if all(agreed) else 1


class _Verbatim(argparse.RawDescriptionHelpFormatter):
    pass


def _scenarios() -> list[Path]:
    return sorted((HERE / "scenarios").glob("*.toml"))


def run_scenario(name: str, repeats: int, only: Sequence[str] | None, work: Path | None) -> bool:
    """Run one scenario, write its results, say whether all methods agree."""
    scenario = tomllib.loads((HERE / "scenarios" / f"{name}.toml").read_text(encoding="utf-8"))
    base = settings_from_env()
    folder = work or base.home / "benchmarks"
    settings = replace(base, lake=str(folder / scenario["lake"]))
    plan = plan_of([HERE / "views" / scenario["views"]])
    view = plan.view(scenario["view"])
    data = prepare(scenario["lake"], settings, view.source, scenario.get("generate", {}))
    print(f"{name}: {data.rows:,} labels x {len(view.features)} features, {data.events:,} events")
    task = Task(settings, plan, view, data.spine)
    methods = [m for m in scenario["methods"] if not only or m in only]
    runs: dict[str, list[Measurement]] = {m: [] for m in methods}
    sums: dict[str, Mapping[str, int]] = {}
    for turn in range(repeats + 1):
        for method in methods:
            out = folder / f"{name}-{method}.parquet"
            measured = _run(task, method, out)
            print(f"  {'warm-up' if turn == 0 else turn}: {method:<20} {measured.as_json()}")
            if turn == 0:
                sums[method] = checksums(out, [f.name for f in view.features])
            else:
                runs[method].append(measured)
    agreed = _all_equal(sums)
    report = {
        "scenario": name,
        "labels": data.rows,
        "features": len(view.features),
        "events": data.events,
        "machine": machine(),
        "methods": {m: _summary(found) for m, found in runs.items()},
        "all_equal": agreed,
        "checksums": sums[methods[0]],
    }
    write_report(report)
    print(table(report))
    return agreed


def write_report(report: Mapping[str, Any]) -> None:
    """Write the figures as JSON, and as the table that the documentation shows."""
    base = HERE / "results" / report["scenario"]
    base.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    host = report["machine"]
    place = f"{host['processor']}, {host['cores']} cores, {host['memory_gb']} GB"
    loads = [run["load_before"] for found in report["methods"].values() for run in found["runs"]]
    load = f"load of the machine before the runs: {min(loads)} to {max(loads)}"
    text = f"{table(report)}\n\n{place}; {load}.\n"
    base.with_suffix(".md").write_text(text, encoding="utf-8")


def _run(task: Task, method: str, out: Path) -> Measurement:
    if out.is_dir():
        shutil.rmtree(out)
    out.unlink(missing_ok=True)
    pids: tuple[int, ...] = (os.getpid(),)
    if method in ON_SPARK:
        pids = (*pids, server_pid(spark_remote(task.settings)))
    return measure(lambda: METHODS[method](task, out), pids)


def checksums(out: Path, columns: Sequence[str]) -> dict[str, int]:
    """Sum each column, weighted by row: equal only if equal values stand in equal rows.

    Decimals count as their digits; a null weighs in by its row. Sums wrap at 64 bits.
    """
    table = pq.read_table(out, columns=[ROW_ID, *columns])
    weights = table[ROW_ID].to_numpy() % PRIME + 1
    found = {"rows": table.num_rows}
    for name in columns:
        column = table[name].combine_chunks()
        nulls = column.is_null().to_numpy(zero_copy_only=False)
        values = np.where(nulls, PRIME, _integers(column))
        found[name] = int(np.sum(values * weights, dtype=np.int64))
    return found


def _integers(column: pa.Array) -> Any:
    if not pa.types.is_decimal(column.type):
        return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    digits = column.cast(pa.decimal128(38, 2))
    words = np.frombuffer(digits.buffers()[1], np.int64)[0::2]  # the low half is all of them
    return words[digits.offset : digits.offset + len(digits)]


def _all_equal(sums: Mapping[str, Mapping[str, int]]) -> bool:
    first, *others = sums
    for method in others:
        wrong = [c for c, value in sums[first].items() if sums[method][c] != value]
        if wrong:
            print(f"  {method} differs from {first} in {', '.join(wrong)}", file=sys.stderr)
            return False
    return True


def _summary(runs: Sequence[Measurement]) -> dict[str, Any]:
    walls = sorted(m.wall_s for m in runs)
    return {
        "wall_s": {
            "median": round(statistics.median(walls), 2),
            "min": round(walls[0], 2),
            "max": round(walls[-1], 2),
        },
        "cpu_s": round(statistics.median(m.cpu_s for m in runs), 2),
        "peak_rss_mb": max(m.peak_rss_mb for m in runs),
        "runs": [m.as_json() for m in runs],
    }


def table(report: Mapping[str, Any]) -> str:
    """Return the results as a Markdown table."""
    task = f"{report['labels']:,} labels x {report['features']} features"
    lines = [
        f"{task}, {report['events']:,} events; results equal: {report['all_equal']}",
        "",
        "| method | wall, median (min to max) s | CPU s | peak memory MB |",
        "|---|---|---|---|",
    ]
    for method, found in report["methods"].items():
        wall = found["wall_s"]
        lines.append(
            f"| {method} | {wall['median']} ({wall['min']} to {wall['max']}) "
            f"| {found['cpu_s']} | {found['peak_rss_mb']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
