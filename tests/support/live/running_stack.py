"""A whole stack of a test's own: started, asked, struck and stopped as a user would."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from resources.declarations import load_valid_plan
from resources.settings import CHECKOUT, settings_from_env
from stack.control import Stack
from streaming.control.status import status as stream_status
from tests.conftest import run_millrace

PARTS = ("kafka", "flink", "store", "writer", "archive", "server", "dagster")
PRODUCER = CHECKOUT / "tests" / "support" / "live" / "foreign_producer.py"


def until(condition: Callable[[], Any], what: str, deadline_s: float = 120) -> Any:
    """Ask again and again until the answer is true; returns it."""
    end = time.monotonic() + deadline_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline_s:.0f} s")
        time.sleep(0.1)


@dataclass
class RunningStack:
    """The stack of one ``MILLRACE_HOME``; every method goes through a public door.

    What is asked again and again is asked in this process: a command of its own for each look
    would take the core that the stack needs to become what is waited for.
    """

    home: Path
    env: Mapping[str, str]
    _urls: dict[str, str] = field(default_factory=dict)

    @classmethod
    def declared(cls, root: Path, declarations: Mapping[str, str]) -> "RunningStack":
        """Write declarations down and return their stack, not started yet."""
        views = root / "views"
        views.mkdir(parents=True)
        for name, text in declarations.items():
            (views / f"{name}.yaml").write_text(text, encoding="utf-8")
        env = {k: v for k, v in os.environ.items() if not k.startswith("MILLRACE_")}
        if "MILLRACE_CACHE" in os.environ:
            env["MILLRACE_CACHE"] = os.environ["MILLRACE_CACHE"]
        env |= {"MILLRACE_HOME": str(root / "home"), "MILLRACE_VIEWS": str(views)}
        return cls(root / "home", env)

    def up(self, parts: Sequence[str] = PARTS) -> None:
        """Start parts and wait until they are ready."""
        run_millrace("up", *parts, env=dict(self.env))

    def down(self) -> None:
        """Stop all."""
        run_millrace("down", env=dict(self.env))

    def run(self, *arguments: str) -> str:
        """Run ``millrace …``; returns what it wrote to stdout."""
        return run_millrace(*arguments, env=dict(self.env)).stdout

    def status(self) -> dict[str, Any]:
        """Return the parts as ``millrace status --json`` shows them."""
        stack = Stack(settings_from_env(self.env))
        return {one.name: one.as_json() for one in stack.status()}

    def streams(self) -> dict[str, Any]:
        """Return what ``millrace stream status --json`` shows."""
        settings = settings_from_env(self.env)
        plan, _ = load_valid_plan(settings)
        return stream_status(settings, plan)

    def url(self, part: str) -> str:
        """Return where a part answers; it keeps its address over restarts."""
        if part not in self._urls:
            self._urls.update({n: one.get("url", "") for n, one in self.status().items()})
        return self._urls[part]

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self.url("kafka")

    def pid(self, part: str, program: str | None = None) -> int:
        """Return the process of a part, or of one of its programs."""
        one = self.status()[part]
        return int(one["pids"][program] if program else one["pid"])

    def kill(self, part: str, program: str | None = None) -> float:
        """Kill a part with -9; returns when, by the monotonic clock."""
        os.kill(self.pid(part, program), signal.SIGKILL)
        return time.monotonic()

    def post(self, path: str, body: Mapping[str, Any], timeout_s: float = 20) -> Any:
        """Post JSON to the online API; fractions of the answer come as ``Decimal``."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.url('server')}{path}", data, headers)  # noqa: S310
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return json.loads(response.read(), parse_float=Decimal)

    def lookup(
        self, entity: str, keys: Sequence[Any], features: Sequence[str], **named: str
    ) -> Any:
        """Ask for features of up to 5,000 entities; ``named`` may hold a ``version``."""
        asked = [{"name": name, **named} for name in features]
        body = {"entity_name": entity, "keys": list(keys), "features": asked}
        return self.post("/v1/features:batchLookup", body)

    def try_lookup(
        self, entity: str, keys: Sequence[Any], features: Sequence[str], **named: str
    ) -> Any:
        """Return what ``lookup`` does; None while the server or its store is away."""
        try:
            return self.lookup(entity, keys, features, **named)
        except HTTPError as error:
            if error.code in {404, 503, 504}:
                return None
            raise
        except (HTTPException, OSError):
            return None

    def memory_bytes(self) -> int:
        """Return the resident memory of all parts and their children."""
        pids = {
            pid
            for one in self.status().values()
            for pid in [one.get("pid"), *one.get("pids", {}).values()]
            if pid
        }
        family = {p for pid in pids for p in _family(pid)}
        return sum(_resident(process) for process in family)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def start_producer(
    bootstrap: str, topic: str, *, rate: float, seconds: float, seed: int
) -> "subprocess.Popen[str]":
    """Start the foreign producer as a process of its own."""
    options = {"bootstrap": bootstrap, "topic": topic, "rate": rate, "seconds": seconds}
    arguments = [f"--{name}={value}" for name, value in {**options, "seed": seed}.items()]
    return subprocess.Popen(
        [sys.executable, str(PRODUCER), *arguments], stdout=subprocess.PIPE, text=True
    )


def finish_producer(producer: "subprocess.Popen[str]", *, at_once: bool) -> dict[str, Any]:
    """Wait for the producer, or end it now; returns what the broker acknowledged."""
    if at_once:
        producer.terminate()
    output, _ = producer.communicate(timeout=300)
    assert producer.returncode == 0, output
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert found["delivered"] == found["sent"]
    return found
