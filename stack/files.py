"""The files of one stack's home by which the command and the supervisor talk.

    desired.json     what should run, and with which environment     written by the command
    state.json       what runs                                       written by the supervisor
    endpoints.json   where clients connect                           written by the supervisor
    supervisor.lock  held by the one supervisor for as long as it lives
    control.lock     held by a command while it changes what is desired

Every file is replaced whole and readable by the owner alone (URLs may carry passwords), so a
reader never sees half of one, whoever is killed when.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from millrace.errors import SetupError
from resources.endpoints import FILE_NAME as ENDPOINTS
from stack.processes import Identity

PartState = Literal["starting", "running", "failed", "stopped"]


@dataclass(frozen=True)
class Order:
    """What was asked of a part.

    Attributes:
        environment: the settings' variables, absolute; one that is not set is absent.
        request: grows when a part that failed is asked for again.
    """

    environment: Mapping[str, str]
    request: int = 0


@dataclass(frozen=True)
class Record:
    """What a part is at the moment.

    Attributes:
        order: what it is being brought to; None once it was told to stop.
        detail: what it waits for or why it failed.
        programs: those started and not known to have ended.
        ports: by purpose; kept while the part is stopped, so that it returns to them.
        restarts: deaths since the order.
        was_ready: it answered since all of its programs were started; its address is told to
            clients from then on, also while one of several programs is being started again.
        url: for people; ``endpoint`` for clients, with its secret.
    """

    state: PartState = "stopped"
    detail: str = ""
    order: Order | None = None
    programs: Mapping[str, Identity] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    token: str = ""
    restarts: int = 0
    was_ready: bool = False
    url: str = ""
    endpoint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the record as ``from_json`` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Record":
        """Read what ``to_json`` wrote."""
        order = document["order"]
        programs = {name: Identity(**entry) for name, entry in document["programs"].items()}
        return cls(
            **{
                **document,
                "order": None if order is None else Order(**order),
                "programs": programs,
            }
        )


@dataclass(frozen=True)
class StackFiles:
    """Access to the files of one home."""

    home: Path

    @property
    def logs(self) -> Path:
        """The folder of all logs."""
        return self.home / "logs"

    @property
    def supervisor_log(self) -> Path:
        """The supervisor's own log."""
        return self.logs / "supervisor.log"

    @property
    def supervisor_lock(self) -> Path:
        """The lock that makes the supervisor the only one; its text is the holder's identity."""
        return self.home / "supervisor.lock"

    def log_of(self, part: str, program: str) -> Path:
        """The log of one program of a part."""
        return self.logs / f"{part}-{program}.log"

    def read_desired(self) -> dict[str, Order]:
        """Return the orders by part; none if nothing was ever asked for."""
        document = self._read("desired.json")
        return {name: Order(**order) for name, order in document.get("parts", {}).items()}

    def write_desired(self, orders: Mapping[str, Order]) -> None:
        """Replace all orders."""
        self._write("desired.json", {"parts": {n: asdict(order) for n, order in orders.items()}})

    def desired_stamp(self) -> tuple[int, int]:
        """Return a value that changes whenever the orders are replaced."""
        try:
            status = (self.home / "desired.json").stat()
        except FileNotFoundError:
            return (0, 0)
        return (status.st_ino, status.st_mtime_ns)

    def read_records(self) -> dict[str, Record]:
        """Return the parts' records by name; none if no supervisor ever ran."""
        document = self._read("state.json")
        return {name: Record.from_json(entry) for name, entry in document.get("parts", {}).items()}

    def records_writer(self) -> Identity | None:
        """Identify the supervisor that wrote the records, dead or alive; None for a command."""
        writer = self._read("state.json").get("supervisor")
        return None if writer is None else Identity(**writer)

    def write_records(
        self, records: Mapping[str, Record], supervisor: Identity | None = None
    ) -> None:
        """Replace the state, and the endpoints that follow from it."""
        endpoints = {}
        for name, record in records.items():
            if record.programs and record.was_ready:
                first = next(iter(record.programs.values()))
                url = record.endpoint or record.url
                endpoints[name] = {"url": url, "pid": first.pid, "started": first.mark}
        # First: who reads in the state that a part runs may connect to it at once.
        self._write(ENDPOINTS, endpoints)
        parts = {name: record.to_json() for name, record in records.items()}
        writer = None if supervisor is None else asdict(supervisor)
        self._write("state.json", {"supervisor": writer, "parts": parts})

    def supervisor(self) -> Identity | None:
        """Identify the supervisor that holds the lock; None if none runs."""
        try:
            pid, mark = self.supervisor_lock.read_text(encoding="utf-8").split(maxsplit=1)
            identity = Identity(int(pid), mark)
        except (FileNotFoundError, ValueError):
            return None
        return identity if identity.is_alive else None

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the right to change what is desired; waits for another command to finish."""
        self._ensure()
        with (self.home / "control.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self, name: str) -> dict[str, Any]:
        try:
            document: dict[str, Any] = json.loads((self.home / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return document

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        self._ensure()
        fresh = self.home / f".{name}.{os.getpid()}"
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
            fresh.replace(self.home / name)
        except OSError as error:
            raise SetupError(
                f"the stack's home cannot be written: {error.strerror}",
                where=str(self.home),
                fix="free some space there, or set MILLRACE_HOME to another disk",
            ) from error

    def _ensure(self) -> None:
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SetupError(
                f"the stack's home cannot be made: {error.strerror}",
                where=str(self.home),
                fix="set MILLRACE_HOME to a folder you can write to",
            ) from error


def write_if_new(path: Path, text: str) -> None:
    """Replace a text file whole, unless it says the same already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
