"""One part brought to what was asked of it and kept there, step by step.

The runner holds no state but the part's record, which is on disk after every change. So a
supervisor that was killed is replaced by one that reads the records and goes on: programs that
still run are looked after, those that died meanwhile are deaths like any other.
"""

import os
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from millrace.errors import PlatformError
from resources.settings import settings_from_env
from stack.files import Order, Record, StackFiles
from stack.parts import Context, Launch, Part, Program, Readiness
from stack.ports import choose_port, wait_until_free
from stack.processes import HOME_VARIABLE, Identity, spawn, stop
from stack.variables import VARIABLES, relevant

_BROKEN_LOOK_S = 2.0
_LOOK_S = 0.2
# A large process that was killed is gone at once for all to see, but holds its sockets until its
# memory is torn down.
_PORT_WAIT_S = 5.0


@dataclass(frozen=True)
class RestartPolicy:
    """When a program that died is started again, and when not any more.

    Attributes:
        first_wait_s: before the first restart; doubled for each further death in the window.
        longest_wait_s: where the doubling ends.
        most_deaths: with this many in the window, the part has failed.
        window_s: how far back deaths count.
    """

    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0
    most_deaths: int = 5
    window_s: float = 180.0


@dataclass
class Runner:
    """Drives one part. ``tick`` does what is due and returns soon, except while stopping.

    Attributes:
        publish: told of every change of the record, before the next step is taken.
        wanted: the newest order; None to stop.
    """

    part: Part
    files: StackFiles
    record: Record
    publish: Callable[[str, Record], None]
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    wanted: Order | None = None
    _launch: Launch | None = None
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _deaths: list[float] = field(default_factory=list)
    _not_before: float = 0.0
    _next_look: float = 0.0

    def tick(self) -> None:
        """Take the next step towards the order."""
        self._reap()
        if not self._is_same_order():
            self._take_order()
        if self.record.order is None or self._has_given_up():
            return
        if self._launch is None and not self._describe():
            return
        self._note_deaths()
        if not self._has_given_up() and self._start_missing():
            self._look()

    def _has_given_up(self) -> bool:
        return self.record.state == "failed" and not self.record.programs

    def _is_same_order(self) -> bool:
        have, want = self.record.order, self.wanted
        if have is None or want is None:
            return have is want and not (want is None and self.record.programs)
        return have.request == want.request and relevant(self.part, have) == relevant(
            self.part, want
        )

    def _take_order(self) -> None:
        self._stop_programs()
        self._launch = None
        self._deaths.clear()
        self._not_before = self._next_look = 0.0
        state = "stopped" if self.wanted is None else "starting"
        self._change(
            state=state, detail="", order=self.wanted, restarts=0, url="", endpoint="", token=""
        )

    def _stop_programs(self) -> None:
        leaders = tuple(reversed(tuple(self.record.programs.values())))
        if not leaders:
            return
        if self.wanted is not None:
            self._change(state="starting", detail="stopping the programs of before")
        for child in self._children.values():
            child.poll()
        stop(leaders, self.files.home, timeout_s=self.part.stop_timeout_s)
        self._reap()
        self._change(programs={})

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[name]

    def _describe(self) -> bool:
        """Build the launch; without one the part has failed."""
        order = self.record.order
        assert order is not None  # noqa: S101
        if not self.record.token:
            self._change(token=secrets.token_hex(16))
        environ = {k: v for k, v in os.environ.items() if k not in {*VARIABLES, HOME_VARIABLE}}
        environ |= order.environment
        context = Context(settings_from_env(environ), environ, self._port, self.record.token)
        try:
            self._launch = self.part.describe(context)
        except (PlatformError, OSError) as error:
            self._stop_programs()
            self._change(state="failed", detail=str(error))
            return False
        self._change(url=self._launch.url, endpoint=self._launch.endpoint)
        return True

    def _port(self, purpose: str) -> int:
        known = self.record.ports.get(purpose)
        if known is not None and (self.record.programs or wait_until_free(known, _PORT_WAIT_S)):
            return known
        port = choose_port(
            f"{self.files.home}/{self.part.name}/{purpose}",
            taken=[port for name, port in self.record.ports.items() if name != purpose],
        )
        self._change(ports={**self.record.ports, purpose: port})
        return port

    def _note_deaths(self) -> None:
        dead = [name for name, identity in self.record.programs.items() if not identity.is_alive]
        for name in dead:
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if at > now - self.policy.window_s] + [now]
            # What a dead program left behind would hold its ports and its memory.
            stop((self.record.programs[name],), self.files.home, timeout_s=0)
            left = {n: i for n, i in self.record.programs.items() if n != name}
            wait_s = self.policy.first_wait_s * 2 ** (len(self._deaths) - 1)
            self._not_before = now + min(wait_s, self.policy.longest_wait_s)
            self._change(
                state="starting",
                detail=f"{name} died; starting it again",
                programs=left,
                restarts=self.record.restarts + 1,
            )
        if dead and len(self._deaths) >= self.policy.most_deaths:
            self._stop_programs()
            self._change(
                state="failed",
                detail=f"{dead[-1]} died {len(self._deaths)} times "
                f"in {self.policy.window_s:.0f} s; given up",
            )
        elif dead and not self.record.programs:
            # Nothing holds the ports now: choose again, somebody else may have taken one.
            self._launch = None

    def _start_missing(self) -> bool:
        """Start what does not run and may; True when every program runs."""
        if self._launch is None and not self._describe():
            return False
        for program in self._launch.programs if self._launch else ():
            if program.name in self.record.programs:
                continue
            if time.monotonic() < self._not_before:
                return False
            if program.starts_after is not None and not program.starts_after():
                return False
            if not self._start(program):
                return False
        return True

    def _start(self, program: Program) -> bool:
        log = self.files.log_of(self.part.name, program.name)
        try:
            if program.prepare is not None:
                program.prepare()
            child = spawn(program, self.files.home, log)
        except OSError as error:
            self._stop_programs()
            self._change(state="failed", detail=f"cannot start {program.argv[0]}: {error}")
            return False
        identity = Identity.of(child.pid) or Identity(child.pid, "ended at once")
        self._children[program.name] = child
        self._change(state="starting", programs={**self.record.programs, program.name: identity})
        return True

    def _look(self) -> None:
        if self.record.state == "running" or time.monotonic() < self._next_look:
            return
        readiness = self._launch.probe() if self._launch else Readiness(is_ready=False)
        self._next_look = time.monotonic() + (_BROKEN_LOOK_S if readiness.is_broken else _LOOK_S)
        if readiness.is_ready:
            self._change(state="running", detail="")
        else:
            state = "failed" if readiness.is_broken else "starting"
            self._change(state=state, detail=readiness.detail)

    def _change(self, **changes: Any) -> None:
        changed = replace(self.record, **changes)
        if changed != self.record:
            self.record = changed
            self.publish(self.part.name, changed)
