"""Starting and ending processes, with no chance of ending somebody else's.

Each program leads a session of its own, so that whatever it starts can be found and ended with
it, and so that a closed terminal or Ctrl-C reaches none of them. A process is known by its pid
and its start mark together: pids are used again. Every process carries the stack's home in its
environment, by which even one that was started and never written down is found.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from resources.endpoints import start_mark
from stack.parts import Program

HOME_VARIABLE = "MILLRACE_SUPERVISED_BY"
"""Set to the stack's home in the environment of every supervised process."""

_POLL_S = 0.05
_KILL_WAIT_S = 5.0
_ROTATE_BYTES = 16 << 20


@dataclass(frozen=True)
class Identity:
    """One process, past or present: its pid and when it started."""

    pid: int
    mark: str

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """Identify the process that has the pid now; None if there is none."""
        mark = start_mark(pid)
        return None if mark is None else cls(pid, mark)

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return start_mark(self.pid) == self.mark


def spawn(program: Program, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a new session; its output is appended to ``log``.

    Raises:
        OSError: the command cannot be run.
    """
    program.cwd.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _ROTATE_BYTES:
        log.replace(log.with_suffix(".log.1"))
    with log.open("ab") as output:
        return subprocess.Popen(
            program.argv,
            env={**program.env, HOME_VARIABLE: str(home)},
            cwd=program.cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def stop(leaders: Sequence[Identity], home: Path, *, timeout_s: float) -> None:
    """End programs and all they started: TERM, up to ``timeout_s`` of patience, KILL.

    Those that ended already are passed over, but not what they left behind.
    """
    for leader in leaders:
        _signal_group(leader, signal.SIGTERM)
    _wait_until_gone(leaders, timeout_s)
    for leader in leaders:
        _signal_group(leader, signal.SIGKILL)
    for process in _members(leaders, home):
        _kill(process)
    _wait_until_gone(leaders, _KILL_WAIT_S)


def find_leaders(home: Path) -> tuple[Identity, ...]:
    """Find the running programs of a home by their environment, written down or not."""
    found = (
        Identity.of(process.pid)
        for process in psutil.process_iter()
        if _leads_its_session(process.pid) and _carries(process, home)
    )
    return tuple(identity for identity in found if identity is not None)


def _wait_until_gone(leaders: Iterable[Identity], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    left = [leader for leader in leaders if leader.is_alive]
    while left and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        left = [leader for leader in left if leader.is_alive]


def _signal_group(leader: Identity, number: signal.Signals) -> None:
    if not leader.is_alive:
        return
    try:
        os.killpg(leader.pid, number)
    except (ProcessLookupError, PermissionError):
        # It ended between the look and the signal (macOS says so with EPERM).
        return


def _members(leaders: Sequence[Identity], home: Path) -> Iterator[psutil.Process]:
    sessions = {leader.pid for leader in leaders}
    for process in psutil.process_iter():
        try:
            in_session = os.getsid(process.pid) in sessions
        except OSError:
            continue
        # A session number may be in use by others once all its processes are gone.
        if in_session and _carries(process, home):
            yield process


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _leads_its_session(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except OSError:
        return False


def _carries(process: psutil.Process, home: Path) -> bool:
    try:
        return process.environ().get(HOME_VARIABLE) == str(home)
    except (psutil.Error, OSError):
        return False
