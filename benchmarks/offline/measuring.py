"""Wall time, CPU time and peak memory of a piece of work, in this process and in a server."""

import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import psutil

SAMPLE_EVERY_S = 0.25
PACKAGES = ("pyspark", "delta-spark", "deltalake", "pyarrow", "numpy", "duckdb")


@dataclass(frozen=True)
class Measurement:
    """One run. CPU and memory are of the processes that did the work, children included."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: int
    load_before: float

    def as_json(self) -> dict[str, Any]:
        """Return the measurement as plain values, rounded."""
        return {name: round(value, 2) for name, value in asdict(self).items()}


def measure(work: Callable[[], None], pids: tuple[int, ...]) -> Measurement:
    """Run ``work`` once and watch these processes and their children meanwhile."""
    load, before = os.getloadavg()[0], _cpu_by_process(pids)
    done, peak, seen = threading.Event(), [0], dict(before)

    def sample() -> None:
        # A worker that ends takes its times with it, so the last that was seen of each counts.
        seen.update(_cpu_by_process(pids))
        peak[0] = max(peak[0], sum(_rss(p) for p in _family(pids)))

    def watch() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            sample()

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    try:
        work()
    finally:
        wall = time.monotonic() - began
        done.set()
        watcher.join()
    sample()
    cpu = sum(spent - before.get(process, 0.0) for process, spent in seen.items())
    return Measurement(wall, cpu, peak[0] >> 20, load)


def server_pid(url: str) -> int:
    """Return the process that listens on the port of ``sc://host:port/…``."""
    port = int(url.split("://")[1].split("/", maxsplit=1)[0].rsplit(":", maxsplit=1)[1])
    for found in psutil.net_connections("tcp"):
        if found.laddr and found.laddr.port == port and found.status == psutil.CONN_LISTEN:
            return int(found.pid or 0)
    raise LookupError(f"no process of this machine listens on port {port}")


def machine() -> dict[str, Any]:
    """Return what figures depend on: processor, memory, versions, revision."""
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "revision": revision.stdout.strip(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()


def _family(pids: tuple[int, ...]) -> list[psutil.Process]:
    family = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            family += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    return family


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _cpu_by_process(pids: tuple[int, ...]) -> dict[psutil.Process, float]:
    found = {}
    for process in _family(pids):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        found[process] = times.user + times.system
    return found
