"""Does offline work of one checkout when it is told to; see ``benchmarks.beside``.

Run by the Python of the checkout that is measured, with that checkout before this one on the path.
Each line of stdin names a method; the answer is a line of JSON.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks.offline import run
from benchmarks.offline.backfill import RUNS
from benchmarks.offline.lakes import prepare
from benchmarks.offline.measuring import Measurement, measure, server_pid
from benchmarks.offline.methods import METHODS, ON_SPARK, Task
from resources.declarations import plan_of
from resources.endpoints import spark_remote
from resources.settings import settings_from_env


def main(folder: Path) -> None:
    """Answer until stdin ends."""
    expected = folder / "cards.sums.json"
    for line in sys.stdin:
        method = line.strip()
        if method == "backfill":
            server = server_pid(spark_remote(settings_from_env()))
            found = measure(backfill_all, (server,))
        else:
            found = training_set(folder, method, expected)
        sys.stdout.write(json.dumps(found.as_json()) + "\n")
        sys.stdout.flush()


def backfill_all() -> None:
    """Backfill the four example views."""
    for views, start, end in RUNS:
        command = [sys.executable, "-m", "cli.main", "backfill", *views]
        subprocess.run(
            [*command, "--start", start, "--end", end, "--wait"],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def training_set(folder: Path, method: str, expected: Path) -> Measurement:
    """Build the card payments' training set; every one must equal the first."""
    settings = replace(settings_from_env(), lake=str(folder / "cards"))
    plan = plan_of([run.HERE / "views" / "cards.yaml"])
    view = plan.view("customer_payments")
    data = prepare("cards", settings, view.source, {})
    task, out = Task(settings, plan, view, data.spine), folder / f"{method}-{os.getpid()}.parquet"
    pids: tuple[int, ...] = (os.getpid(),)
    if method in ON_SPARK:
        pids = (*pids, server_pid(spark_remote(settings)))
    found = measure(lambda: METHODS[method](task, out), pids)
    sums = run.checksums(out, [f.name for f in view.features])
    if expected.exists() and json.loads(expected.read_text()) != sums:
        raise RuntimeError(f"{method} differs from {expected}")
    expected.write_text(json.dumps(sums))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
