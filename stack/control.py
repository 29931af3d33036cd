"""What ``millrace up``, ``down`` and ``status`` do: write orders, read records, wait.

The command never starts a part itself. It writes what is wanted, sees that a supervisor runs, and
watches; so it may be interrupted anywhere, and the next command goes on from what is there.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from millrace.errors import EngineUnavailable, SetupError, nearest
from resources.endpoints import is_running
from resources.settings import CHECKOUT, Settings
from stack.files import Order, Record, StackFiles
from stack.logs import tail
from stack.parts import Part
from stack.processes import HOME_VARIABLE, find_leaders, stop
from stack.supervisor import CATALOGUE, held, load_parts
from stack.variables import VIEWS, changed_variables, environment_of, reads_more

_POLL_S = 0.1
_SUPERVISOR_START_S = 20.0
_SUPERVISOR_STOP_S = 90.0
_TAIL_LINES = 15


@dataclass(frozen=True)
class PartStatus:
    """One part as ``status`` shows it.

    Attributes:
        state: ``starting``, ``running``, ``failed``, ``stopped`` or ``external``.
        pids: by program; empty unless something runs.
        url: where it answers; no secret in it; empty when stopped.
        detail: what it waits for or why it failed.
    """

    name: str
    state: str
    pids: Mapping[str, int] = field(default_factory=dict)
    url: str = ""
    detail: str = ""
    restarts: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the part's entry of ``status --json``: ``pid`` for one program, else ``pids``."""
        entry: dict[str, Any] = {"state": self.state}
        if len(self.pids) == 1:
            entry["pid"] = next(iter(self.pids.values()))
        elif self.pids:
            entry["pids"] = dict(self.pids)
        optional = {"url": self.url, "detail": self.detail, "restarts": self.restarts}
        return entry | {name: value for name, value in optional.items() if value}


@dataclass(frozen=True)
class Change:
    """What ``up`` had to do for a part.

    Attributes:
        kind: ``kept`` (ran already), ``started``, ``restarted`` or ``external``.
        variables: for ``restarted``: the settings that differ from those it ran with.
    """

    part: str
    kind: str
    variables: tuple[str, ...] = ()


Watch = Callable[[PartStatus], None]
"""Called with a part's status whenever it differs from the last one told."""


@dataclass(frozen=True)
class Stack:
    """One local stack, by its settings.

    Attributes:
        environ: the environment new supervisors inherit; its settings' variables do not count.
        catalogue: ``module:function`` that lists the parts.
    """

    settings: Settings
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    catalogue: str = CATALOGUE

    @property
    def files(self) -> StackFiles:
        """The files of the stack's home."""
        return StackFiles(self.settings.home)

    def logs_of(self, part: str) -> dict[str, Path]:
        """Return the existing logs of a part by program; ``supervisor`` has one as well."""
        if part == "supervisor":
            found = [self.files.supervisor_log]
        else:
            found = sorted(self.files.logs.glob(f"{part}-*.log"))
        return {path.stem.removeprefix(f"{part}-"): path for path in found if path.exists()}

    def parts(self, names: Sequence[str] = ()) -> tuple[Part, ...]:
        """Return the named parts, or all.

        Raises:
            SetupError: a name is no part.
        """
        known = load_parts(self.catalogue)
        for name in names:
            if name not in known:
                raise SetupError(f"no part {name!r}", fix=nearest(name, list(known)))
        return tuple(part for part in known.values() if not names or part.name in names)

    def with_needs(self, names: Sequence[str] = ()) -> tuple[Part, ...]:
        """Return the named parts, or all, with every part that those need.

        Raises:
            SetupError: a name is no part.
        """
        found = self.parts(names)
        needed = {name for part in found for name in part.needs} - {part.name for part in found}
        return self.with_needs([*needed, *(part.name for part in found)]) if needed else found

    def missing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Name those of some parts that do not run, and what these cannot work without.

        Services of the user's own are there.
        """
        away = [part.name for part in self.parts(names) if not self._is_there(part)]
        if not away:
            return ()
        return tuple(part.name for part in self.with_needs(away) if not self._is_there(part))

    def _is_there(self, part: Part) -> bool:
        return part.external(self.settings) is not None or is_running(self.settings, part.name)

    def differing(self, names: Sequence[str]) -> tuple[str, ...]:
        """Name those of some parts that run with settings other than these.

        Folders of declarations that a part reads besides make no difference.
        """
        orders = self.files.read_desired()
        after = Order(environment_of(self.settings, self.environ))
        return tuple(
            part.name
            for part in self.parts(names)
            if part.name in orders
            and part.external(self.settings) is None
            and set(changed_variables(part, orders[part.name], after))
            - ({VIEWS} if reads_more(orders[part.name], after) else set())
        )

    def order(self, names: Sequence[str] = ()) -> tuple[Change, ...]:
        """Ask for parts and see that a supervisor hears it; does not wait for them.

        What a named part cannot work without is asked for with it. A part that runs with the same
        settings is left alone; one whose settings differ is asked for anew, and so is one that
        failed.
        """
        wanted = self.with_needs(names)
        environment = environment_of(self.settings, self.environ)
        with self.files.changing():
            orders = self.files.read_desired()
            before = dict(orders)
            changes = tuple(self._order_one(part, orders, environment) for part in wanted)
            if orders != before:
                self.files.write_desired(orders)
            if orders:
                self._ensure_supervisor()
        return changes

    def _order_one(
        self, part: Part, orders: dict[str, Order], environment: Mapping[str, str]
    ) -> Change:
        if part.external(self.settings) is not None:
            orders.pop(part.name, None)
            return Change(part.name, "external")
        before, record = orders.get(part.name), self.files.read_records().get(part.name, Record())
        if before is None:
            orders[part.name] = Order(environment)
            return Change(part.name, "started")
        after = Order(environment, before.request)
        differing = changed_variables(part, before, after)
        if record.state == "failed":
            after = replace(after, request=before.request + 1)
        elif not differing:
            return Change(part.name, "kept" if _runs(record) else "started")
        orders[part.name] = after
        return Change(part.name, "restarted" if differing else "started", differing)

    def _ensure_supervisor(self) -> None:
        if self.files.supervisor() is not None:
            return
        self.files.logs.mkdir(parents=True, exist_ok=True)
        environ = {k: v for k, v in self.environ.items() if k != HOME_VARIABLE}
        with self.files.supervisor_log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "stack.supervisor", self.settings.home, self.catalogue],
                cwd=CHECKOUT,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _SUPERVISOR_START_S
        while self.files.supervisor() is None:
            if child.poll() not in {None, os.EX_OK} or time.monotonic() > deadline:
                raise SetupError(
                    "the supervisor did not start:\n" + tail(self.files.supervisor_log, 5),
                    where=str(self.files.supervisor_log),
                    fix="millrace doctor",
                )
            time.sleep(_POLL_S / 2)

    def wait(self, names: Sequence[str] = (), *, watch: Watch | None = None) -> None:
        """Wait until the parts are ready.

        Raises:
            EngineUnavailable: one failed, was stopped by another command, or took longer than its
                start may take; the message ends with the end of its log.
        """
        started = time.monotonic()
        waiting = {
            part.name: part
            for part in self.with_needs(names)
            if part.external(self.settings) is None
        }
        told: dict[str, PartStatus] = {}
        while waiting:
            orders, records = self.files.read_desired(), self._current_records()
            for name, part in list(waiting.items()):
                status = self._status_in_order(name, orders, records)
                if watch is not None and told.get(name) != status:
                    watch(status)
                told[name] = status
                if status.state == "running":
                    del waiting[name]
                elif status.state in {"failed", "stopped"}:
                    raise self._not_ready(status, f"{name} {status.state}: {status.detail}")
                elif time.monotonic() - started > part.start_timeout_s:
                    after = f"{name} is not ready after {part.start_timeout_s:.0f} s"
                    raise self._not_ready(status, f"{after}: {status.detail}")
            if waiting:
                self._check_supervisor()
                time.sleep(_POLL_S)

    def _current_records(self) -> dict[str, Record]:
        """Return the records, or none while they are those of a supervisor that is gone."""
        if self.files.records_writer() != self.files.supervisor():
            return {}
        return self.files.read_records()

    def _status_in_order(
        self, name: str, orders: Mapping[str, Order], records: Mapping[str, Record]
    ) -> PartStatus:
        order, record = orders.get(name), records.get(name, Record())
        if order is None:
            return PartStatus(name, "stopped", detail="`millrace down` was called meanwhile")
        if record.order != order:
            return PartStatus(name, "starting", detail="waiting for the supervisor")
        if record.state == "running" and not _runs(record):
            return replace(_shown(name, record), state="starting", detail="it just died")
        return _shown(name, record)

    def _check_supervisor(self) -> None:
        if self.files.supervisor() is None:
            raise EngineUnavailable(
                "the supervisor ended while parts were starting:\n"
                + tail(self.files.supervisor_log, 5),
                where=str(self.files.supervisor_log),
                fix="millrace up starts another, which takes over what runs",
            )

    def _not_ready(self, status: PartStatus, what: str) -> EngineUnavailable:
        logs = self.logs_of(status.name).values()
        tails = [f"--- {log}\n{tail(log, _TAIL_LINES)}" for log in logs]
        return EngineUnavailable(
            "\n".join([what, *tails]),
            where=str(self.settings.home),
            fix=f"mend it and run `millrace up {status.name}` again; `millrace doctor` may say how",
        )

    def down(self) -> tuple[str, ...]:
        """Stop every part and the supervisor, or what a dead supervisor left.

        Returns:
            The names of the parts that were running; none if nothing was.
        """
        if not self.settings.home.exists():
            return self._stop_leftovers({})
        with self.files.changing():
            records = self.files.read_records()
            self.files.write_desired({})
            self._stop_supervisor()
            with held(self.files.supervisor_lock):
                stopped = self._stop_leftovers(self.files.read_records())
                self.files.write_records(
                    {name: _stopped(record) for name, record in records.items()}
                )
        return tuple(name for name, record in records.items() if record.programs) or stopped

    def _stop_supervisor(self) -> None:
        supervisor = self.files.supervisor()
        if supervisor is None:
            return
        os.kill(supervisor.pid, signal.SIGTERM)
        deadline = time.monotonic() + _SUPERVISOR_STOP_S
        while supervisor.is_alive and time.monotonic() < deadline:
            time.sleep(_POLL_S / 2)
        while supervisor.is_alive:
            os.kill(supervisor.pid, signal.SIGKILL)
            time.sleep(_POLL_S / 2)

    def _stop_leftovers(self, records: Mapping[str, Record]) -> tuple[str, ...]:
        recorded = {
            identity: name
            for name, record in records.items()
            for identity in record.programs.values()
            if identity.is_alive
        }
        strays = [i for i in find_leaders(self.settings.home) if i not in recorded]
        leaders = [*recorded, *strays]
        if leaders:
            longest_s = max(part.stop_timeout_s for part in self.parts())
            stop(leaders, self.settings.home, timeout_s=longest_s)
        names = dict.fromkeys(recorded.values())
        return tuple(names) + (("programs without a record",) if strays else ())

    def status(self) -> Iterator[PartStatus]:
        """Yield every part's status, as it is now: a record alone is not believed."""
        records = self.files.read_records()
        is_supervised = self.files.supervisor() is not None
        for part in self.parts():
            external = part.external(self.settings)
            record = records.get(part.name, Record())
            if external is not None:
                yield PartStatus(part.name, "external", url=external)
            elif is_supervised or record.state == "stopped":
                yield _shown(part.name, record)
            else:
                yield _unsupervised(part.name, record)


def _runs(record: Record) -> bool:
    """Whether a part runs now: its record may be of before a death nobody has noticed yet."""
    return record.state == "running" and all(i.is_alive for i in record.programs.values())


def _shown(name: str, record: Record) -> PartStatus:
    pids = {program: identity.pid for program, identity in record.programs.items()}
    return PartStatus(name, record.state, pids, record.url, record.detail, record.restarts)


def _unsupervised(name: str, record: Record) -> PartStatus:
    alive = {n: identity for n, identity in record.programs.items() if identity.is_alive}
    if not alive:
        return PartStatus(name, "stopped", detail="it ended with its supervisor; `millrace up`")
    status = _shown(name, replace(record, programs=alive))
    return replace(status, detail="the supervisor is gone; `millrace up` takes over")


def _stopped(record: Record) -> Record:
    return Record(ports=record.ports)
