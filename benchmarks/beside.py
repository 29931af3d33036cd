"""Two revisions in turn: the CPU time that the same work takes in another checkout and in this one.

    git worktree add /tmp/before 7c62cda && (cd /tmp/before && make setup)
    python -m benchmarks.beside training --other /tmp/before --pairs 9
    python -m benchmarks.beside lookups throughput backfill --other /tmp/before --pairs 3

A pair is the work once by the other checkout and once by this one, each by its own Python, its own
stack and its own benchmarks; a first pair warms up and is left out. Wall time would tell of whatever
else runs, so CPU time is compared, of all processes that did the work. Training sets are DuckDB's too, and all
are checked equal. Results: ``results/beside-<work>.json``, and a table on stdout.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.offline.measuring import machine

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent
EVENTS = 1_000_000
LOOKUP_S = 3
Costs = Mapping[str, float]
"""CPU seconds, or microseconds an answer, by what was done."""

Work = Callable[[], Costs]


class Side:
    """One checkout with a home of its own."""

    def __init__(self, name: str, checkout: Path, folder: Path) -> None:
        self.name, self.checkout = name, checkout
        self.home = folder / name
        own = {"MILLRACE_HOME": str(self.home), "PYTHONPATH": str(checkout)}
        self.env = {**os.environ, **own}

    def python(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run this checkout's Python to its end; what it says goes to a log in the home."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "beside.log").open("a", encoding="utf-8") as log:
            return subprocess.run(
                self.command(*arguments),
                cwd=self.checkout,
                env={**self.env, **env},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                check=True,
            )

    def command(self, *arguments: str) -> list[str]:
        """Return the command of this checkout's Python."""
        return [str(self.checkout / ".venv" / "bin" / "python"), *arguments]

    @property
    def revision(self) -> str:
        """The commit that is measured."""
        told = ["git", "-C", str(self.checkout), "rev-parse", "--short", "HEAD"]
        return subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()

    @contextmanager
    def stack(self, *parts: str, **env: str) -> Iterator[None]:
        """Have parts of the local stack run."""
        try:
            self.python("-m", "cli.main", "up", *parts, **env)
            yield
        finally:
            self.python("-m", "cli.main", "down")


@contextmanager
def training(side: Side, lake: Path) -> Iterator[Work]:
    """Training sets of the card payments, in process and on Spark; DuckDB's by this checkout."""
    with side.stack("spark"), worker(side, lake) as ask:
        methods = ["local", "spark"] + ["duckdb-range"] * (side.checkout == CHECKOUT)

        def run() -> Costs:
            costs = {method: ask(method) for method in methods}
            return {m: cost["cpu_s"] for m, cost in costs.items()} | {
                f"{m}, wall": cost["wall_s"] for m, cost in costs.items()
            }

        yield run


@contextmanager
def backfill(side: Side, lake: Path) -> Iterator[Work]:
    """From raw files to features of the four example views, through Dagster."""
    views = str(side.checkout / "feature_assets" / "examples")
    side.env["MILLRACE_VIEWS"] = views
    with side.stack("spark", "dagster"), worker(side, lake) as ask:
        yield lambda: {"Spark and its workers": ask("backfill")["cpu_s"]}


@contextmanager
def worker(side: Side, lake: Path) -> Iterator[Callable[[str], dict[str, float]]]:
    """Yield what asks a process of a checkout to do a thing once and to say what it took."""
    command = side.command(str(HERE / "offline" / "beside_worker.py"), str(lake))
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=side.checkout, env=side.env, stdin=pipe, stdout=pipe, text=True
    ) as process:
        asks, answers = process.stdin, process.stdout
        if asks is None or answers is None:
            raise RuntimeError("the worker has no pipes")

        def ask(method: str) -> dict[str, float]:
            asks.write(f"{method}\n")
            asks.flush()
            found: dict[str, float] = json.loads(answers.readline())
            return found

        yield ask
        asks.close()


@contextmanager
def lookups(side: Side, _lake: Path) -> Iterator[Work]:
    """CPU time of the server, in microseconds for each answer."""
    results = side.checkout / "benchmarks" / "serving" / "results" / "lookups.json"

    def run() -> Costs:
        with kept(results):
            side.python("-m", "benchmarks.serving.lookups", "--seconds", str(LOOKUP_S))
            figures = json.loads(results.read_text(encoding="utf-8"))
        return {n: f["server_cpu_us"] for n, f in figures.items() if isinstance(f, dict)}

    yield run


@contextmanager
def throughput(side: Side, _lake: Path) -> Iterator[Work]:
    """CPU time from Kafka to the store, in microseconds for each event."""
    results = side.checkout / "benchmarks" / "streaming" / "results" / "throughput.json"
    table = results.with_suffix(".md")
    views = str(side.checkout / "benchmarks" / "streaming" / "views")
    home, turn = side.home, iter(range(1_000))

    def run() -> Costs:
        side.home = home / str(next(turn))
        side.env["MILLRACE_HOME"] = str(side.home)
        side.env["MILLRACE_VIEWS"] = views
        with side.stack("kafka", "flink", "store", "writer", "server"), kept(results), kept(table):
            side.python("-m", "benchmarks.streaming.throughput", "--events", str(EVENTS))
            figures = json.loads(results.read_text(encoding="utf-8"))
        found = {name: seconds / EVENTS * 1e6 for name, seconds in figures["cpu_s"].items()}
        return {**found, "all": sum(found.values())}

    yield run


@contextmanager
def kept(file: Path) -> Iterator[None]:
    """Put a file back as it was."""
    was = file.read_bytes() if file.exists() else None
    try:
        yield
    finally:
        if was is not None:
            file.write_bytes(was)


WORK = {one.__name__: one for one in (training, backfill, lookups, throughput)}


def main() -> None:
    """Do each work in pairs and write what it took."""
    parser = argparse.ArgumentParser(description="two revisions in turn")
    parser.add_argument("work", nargs="+", choices=WORK)
    parser.add_argument("--other", type=Path, required=True, help="a checkout of another revision")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--lake", type=Path, help="folder of the benchmark's lakes; made if absent")
    asked = parser.parse_args()
    for name in asked.work:
        with tempfile.TemporaryDirectory() as folder:
            lake = asked.lake or Path(folder) / "lakes"
            sides = (
                Side("before", asked.other.resolve(), Path(folder)),
                Side("now", CHECKOUT, Path(folder)),
            )
            runs = measured(name, sides, asked.pairs, lake)
        report = report_of(name, sides, runs)
        base = HERE / "results"
        base.mkdir(exist_ok=True)
        text = json.dumps(report, indent=1) + "\n"
        (base / f"beside-{name}.json").write_text(text, encoding="utf-8")
        sys.stdout.write(table(report) + "\n")


def measured(
    name: str, sides: Sequence[Side], pairs: int, lake: Path
) -> dict[str, list[dict[str, float]]]:
    """Return the costs of each side's runs; the first pair is left out."""
    runs: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    with ExitStack() as stacks:
        works = [(side, stacks.enter_context(WORK[name](side, lake))) for side in sides]
        for turn in range(pairs + 1):
            for side, run in works:
                costs = {what: round(cost, 3) for what, cost in run().items()}
                sys.stderr.write(f"{turn} {side.name} {costs}\n")
                if turn:
                    runs[side.name].append(costs)
    return runs


def report_of(
    name: str, sides: Sequence[Side], runs: Mapping[str, list[dict[str, float]]]
) -> dict[str, Any]:
    """Return medians, quartiles and the ratio of each pair."""
    before, now = runs["before"], runs["now"]
    found = {}
    for what in now[0]:
        mine = [costs[what] for costs in now]
        found[what] = {"now": spread(mine)}
        if what in before[0]:
            others = [costs[what] for costs in before]
            ratios = [m / o for m, o in zip(mine, others, strict=True) if o]
            found[what] |= {"before": spread(others)} | (
                {"ratio": spread(ratios)} if ratios else {}
            )
    return {
        "work": name,
        "revisions": {side.name: side.revision for side in sides},
        "pairs": len(now),
        "machine": machine(),
        "costs": found,
        "runs": runs,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    held = [*values, *values] if len(values) == 1 else values
    low, middle, high = statistics.quantiles(held, n=4, method="inclusive")
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def table(report: Mapping[str, Any]) -> str:
    """Return the costs as a Markdown table."""
    before, now = (report["revisions"][side] for side in ("before", "now"))
    lines = [
        f"| {report['work']}, {report['pairs']} pairs | {before} | {now} | ratio of a pair |",
        "|---|---|---|---|",
    ]
    for what, found in report["costs"].items():
        cells = [_cell(found.get(side)) for side in ("before", "now", "ratio")]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    return "" if found is None else f"{found['median']} ({found['low']} to {found['high']})"


if __name__ == "__main__":
    main()
