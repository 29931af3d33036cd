"""Dagster's three processes over a code location of a test, driven by GraphQL as the UI does."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from millrace.errors import EngineError
from resources.dagster.client import DagsterApi, RunProgress
from resources.settings import CHECKOUT
from tests.support.ports import free_port

DEADLINE_S = 180

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], *, deadline_s: float = DEADLINE_S) -> T:
    """Ask until there is an answer; an engine that is not up yet gives none."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            found = look()
        except EngineError:
            found = None
        if found is not None:
            return found
        time.sleep(0.2)
    pytest.fail(f"no {what} within {deadline_s} s")


def finished(api: DagsterApi, run: str, *, deadline_s: float = DEADLINE_S) -> RunProgress:
    """Wait for a run's end; return everything it said."""

    def ended() -> RunProgress | None:
        progress = api.progress(run)
        return progress if progress.is_finished else None

    return wait_for(f"end of run {run}", ended, deadline_s=deadline_s)


@contextmanager
def running_dagster(root: Path, module: str, env: Mapping[str, str]) -> Iterator[DagsterApi]:
    """Start code server, webserver and daemon over ``module`` and stop them again.

    Args:
        root: a new folder; the instance is in ``home`` below it, what they print in ``log``.
        module: dotted name of a module with ``defs``, found from the checkout or from ``tests``.
        env: added to the environment of this process.
    """
    home = root / "home"
    home.mkdir()
    shutil.copy(CHECKOUT / "dagster_home" / "dagster.yaml", home)
    environ = {
        **os.environ,
        **env,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "tests"))),
    }
    code, web = free_port(), free_port()
    workspace = home / "workspace.yaml"
    workspace.write_text(
        f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code}, location_name: millrace}}}}]"
    )
    # Two processes that make the storage at once leave it broken.
    prepare = "import dagster as dg; dg.DagsterInstance.get().get_runs_count()"
    subprocess.run([sys.executable, "-c", prepare], env=environ, check=True, cwd=home)
    server = ["dagster", "code-server", "start", "-h", "127.0.0.1", "-p", str(code)]
    commands = [
        [*server, "-m", module, "-a", "defs", "-d", str(CHECKOUT)],
        ["dagster_webserver", "-h", "127.0.0.1", "-p", str(web), "-w", str(workspace)],
        ["dagster._daemon", "run", "-w", str(workspace)],
    ]
    api = DagsterApi(f"http://127.0.0.1:{web}")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with (root / "log").open("wb") as log:
            for command in commands:
                argv = [sys.executable, "-m", *command]
                processes.append(
                    subprocess.Popen(argv, env=environ, cwd=home, stdout=log, stderr=log)
                )
            wait_for("code location", lambda: api.reload() is None or None)
            yield api
    finally:
        _stop(processes)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ask the programs and all they started to end; after some seconds do not ask any more.

    A code server waits half a minute for the server it started, unless that is told as well.
    """
    started = [p for one in processes if one.poll() is None for p in _with_children(one.pid)]
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(started, timeout=10)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    for one in processes:
        one.wait()


def _with_children(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
