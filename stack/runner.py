"""One part brought to what was asked of it and kept there, step by step.

The runner holds no state but the part's record, which is on disk after every change. So a
supervisor that was killed is replaced by one that reads the records and goes on: programs that
still run are looked after, those that died meanwhile are deaths like any other.
"""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

# Read with every start of a part: loaded before the supervisor says that it is there, not while
# somebody waits for a part.
import resources.configuration.reading  # noqa: F401
from millrace.errors import PlatformError, SetupError
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
_SCARCE_BYTES = 100 << 20


@dataclass(frozen=True)
class RestartPolicy:
    """When a program that died is started again, and when not any more.

    A death counts only if it was early. So a part that cannot start is given up soon, and one
    that somebody kills again and again is brought back each time.

    Attributes:
        first_wait_s: before the first restart; doubled for each further death that counts.
        longest_wait_s: where the doubling ends.
        most_deaths: with this many that count, the part has failed.
        early_s: a program that lived longer was healthy: deaths before it are forgotten.
    """

    first_wait_s: float = 0.5
    longest_wait_s: float = 10.0
    most_deaths: int = 5
    early_s: float = 10.0


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
    _started: dict[str, float] = field(default_factory=dict)
    _early_deaths: int = 0
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
        self._early_deaths = 0
        self._not_before = self._next_look = 0.0
        state = "stopped" if self.wanted is None else "starting"
        self._change(
            state=state,
            detail="",
            order=self.wanted,
            restarts=0,
            was_ready=False,
            url="",
            endpoint="",
            token="",
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
        self._change(programs={}, was_ready=False)

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
        try:
            settings = settings_from_env(environ)
            context = Context(settings, environ, self._port, self._fixed_port, self.record.token)
            self._launch = self.part.describe(context)
        except (PlatformError, OSError) as error:
            return self._give_up(str(error))
        self._change(url=self._launch.url, endpoint=self._launch.endpoint)
        return True

    def _port(self, purpose: str) -> int:
        known = self._known_port(purpose)
        return self._new_port(purpose) if known is None else known

    def _fixed_port(self, purpose: str) -> int:
        known = self._known_port(purpose)
        if known is not None:
            return known
        if purpose in self.record.ports:
            port = self.record.ports[purpose]
            raise SetupError(
                f"port {port}, where clients look for it, is taken by another process",
                where="127.0.0.1",
                fix=f"stop that one (`ss -ltnp 'sport = :{port}'` names it), then "
                f"millrace up {self.part.name}",
            )
        return self._new_port(purpose)

    def _known_port(self, purpose: str) -> int | None:
        """Return the port of before, unless it is taken or there was none."""
        known = self.record.ports.get(purpose)
        if known is not None and (self.record.programs or wait_until_free(known, _PORT_WAIT_S)):
            return known
        return None

    def _new_port(self, purpose: str) -> int:
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
            # One that a supervisor before this one started has lived for a while.
            lived_s = now - self._started.pop(name, -self.policy.early_s)
            is_early = lived_s < self.policy.early_s
            self._early_deaths = self._early_deaths + 1 if is_early else 0
            # What a dead program left behind would hold its ports and its memory.
            stop((self.record.programs[name],), self.files.home, timeout_s=0)
            left = {n: i for n, i in self.record.programs.items() if n != name}
            wait_s = self.policy.first_wait_s * 2 ** max(0, self._early_deaths - 1)
            self._not_before = now + min(wait_s, self.policy.longest_wait_s)
            self._change(
                state="starting",
                detail=f"{name} died; starting it again",
                programs=left,
                restarts=self.record.restarts + 1,
                was_ready=self.record.was_ready and bool(left),
            )
        if dead and self._early_deaths >= self.policy.most_deaths:
            self._stop_programs()
            self._change(
                state="failed",
                detail=f"{dead[-1]} died {self._early_deaths} times within "
                f"{self.policy.early_s:.0f} s of its start; given up{self._full_disk()}",
            )
        elif dead and not self.record.programs:
            # Nothing holds the ports now: choose again, somebody else may have taken one.
            self._launch = None

    def _full_disk(self) -> str:
        free_bytes = shutil.disk_usage(self.files.home).free
        if free_bytes >= _SCARCE_BYTES:
            return ""
        return f" (the disk of {self.files.home} is full: {free_bytes >> 20} MB are free)"

    def _start_missing(self) -> bool:
        """Start what does not run and may; True when every program that is wanted runs."""
        if self._launch is None and not self._describe():
            return False
        for program in self._launch.programs if self._launch else ():
            if program.name in self.record.programs or not program.is_wanted():
                continue
            if time.monotonic() < self._not_before:
                return False
            if program.starts_after is not None:
                others = program.starts_after()
                if not others.is_ready:
                    self._change(detail=others.detail)
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
        except PlatformError as error:
            return self._give_up(str(error))
        except OSError as error:
            return self._give_up(f"cannot start {program.argv[0]}: {error}")
        identity = Identity.of(child.pid) or Identity(child.pid, "ended at once")
        self._children[program.name] = child
        self._started[program.name] = time.monotonic()
        programs = {**self.record.programs, program.name: identity}
        names = [one.name for one in self._launch.programs] if self._launch else []
        in_order = {name: programs[name] for name in names if name in programs}
        self._change(state="starting", programs=in_order | programs)
        return True

    def _give_up(self, detail: str) -> bool:
        self._stop_programs()
        self._change(state="failed", detail=detail)
        return False

    def _look(self) -> None:
        if self.record.state == "running" or time.monotonic() < self._next_look:
            return
        readiness = self._launch.probe() if self._launch else Readiness(is_ready=False)
        self._next_look = time.monotonic() + (_BROKEN_LOOK_S if readiness.is_broken else _LOOK_S)
        if readiness.is_ready:
            self._change(state="running", detail="", was_ready=True)
        else:
            state = "failed" if readiness.is_broken else "starting"
            self._change(state=state, detail=readiness.detail)

    def _change(self, **changes: Any) -> None:
        changed = replace(self.record, **changes)
        if changed != self.record:
            self.record = changed
            self.publish(self.part.name, changed)
