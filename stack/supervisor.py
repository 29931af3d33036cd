"""The supervisor: one process per home that keeps the asked-for parts running.

    python -m stack.supervisor HOME [MODULE:FUNCTION]

It is started by ``millrace up`` and told what to do by ``desired.json`` alone; TERM makes it stop
all parts and leave. It also leaves when its home is deleted, for nobody could reach it any more.
"""

import fcntl
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from millrace.errors import SetupError
from stack.files import Record, StackFiles
from stack.parts import Part
from stack.processes import Identity, find_leaders, stop
from stack.runner import Runner

CATALOGUE = "stack.catalogue:all_parts"
"""``module:function`` that lists the parts of the stack."""

_TICK_S = 0.1
_STRAY_STOP_S = 5.0
_UNWRITTEN_WAIT_S = 2.0

log = logging.getLogger(__name__)


def load_parts(catalogue: str = CATALOGUE) -> dict[str, Part]:
    """Return the parts by name, in the order of their start."""
    module, _, function = catalogue.partition(":")
    parts: Sequence[Part] = getattr(import_module(module), function)()
    return {part.name: part for part in parts}


class Supervisor:
    """Runs every part in a thread of its own, so that a slow one holds up no other."""

    def __init__(self, files: StackFiles, parts: Sequence[Part]) -> None:
        self._files = files
        self._identity = Identity.of(os.getpid())
        self._publishing = threading.Lock()
        self._records = {part.name: Record() for part in parts} | {
            name: record
            for name, record in files.read_records().items()
            if name in {part.name for part in parts}
        }
        self._runners = {
            part.name: Runner(part, files, self._records[part.name], self._publish)
            for part in parts
        }
        self._dependents = {
            part.name: tuple(other.name for other in parts if part.name in other.needs)
            for part in parts
        }
        self._ended = {part.name: threading.Event() for part in parts}
        self._stamp = (-1, -1)
        self._wake = threading.Event()
        self._is_closing = False
        self._is_unwritten = False

    def close(self) -> None:
        """Ask ``run`` to stop all parts and return; safe in a signal handler."""
        self._is_closing = True
        self._wake.set()

    def run(self, is_abandoned: Callable[[], bool]) -> None:
        """Look after the parts until ``close`` is called or ``is_abandoned`` says so."""
        self._stop_strays()
        # From here on the records are this supervisor's, and commands believe them.
        self._files.write_records(self._records, self._identity)
        threads = {
            name: threading.Thread(target=self._drive, args=(runner,), name=name, daemon=True)
            for name, runner in self._runners.items()
        }
        self._read_orders()
        for thread in threads.values():
            thread.start()
        while not self._is_closing and not is_abandoned():
            self._wake.wait(_TICK_S)
            self._read_orders()
            self._mark_ended(threads)
            if self._is_unwritten:
                self._wake.wait(_UNWRITTEN_WAIT_S)
                with self._publishing:
                    self._write_down()
        self._is_closing = True
        self._wake.set()
        for thread in threads.values():
            thread.join()

    def _drive(self, runner: Runner) -> None:
        try:
            while not self._is_closing:
                runner.tick()
                self._wake.wait(_TICK_S)
            # What works on this part is stopped first, while it still can finish what it began.
            for dependent in self._dependents[runner.part.name]:
                self._ended[dependent].wait()
            runner.wanted = None
            runner.tick()
        finally:
            self._ended[runner.part.name].set()

    def _read_orders(self) -> None:
        stamp = self._files.desired_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        orders = self._files.read_desired()
        for name, runner in self._runners.items():
            runner.wanted = orders.get(name)

    def _stop_strays(self) -> None:
        """End programs of this home that were started and never written down."""
        known = {
            identity for record in self._records.values() for identity in record.programs.values()
        }
        strays = [leader for leader in find_leaders(self._files.home) if leader not in known]
        if strays:
            log.warning("stopping %d programs that nobody looked after", len(strays))
            stop(strays, self._files.home, timeout_s=_STRAY_STOP_S)

    def _mark_ended(self, threads: dict[str, threading.Thread]) -> None:
        """Say so where a thread ended early: its part runs on with nobody looking after it."""
        for name, thread in threads.items():
            record = self._records[name]
            if not thread.is_alive() and record.state != "failed" and not self._is_closing:
                detail = f"nobody looks after it: see {self._files.supervisor_log}"
                self._publish(name, replace(record, state="failed", detail=detail))

    def _publish(self, name: str, record: Record) -> None:
        with self._publishing:
            before = self._records[name]
            self._records[name] = record
            self._write_down()
        if (before.state, before.restarts) != (record.state, record.restarts):
            log.info("%s: %s %s", name, record.state, record.detail)

    def _write_down(self) -> None:
        # A home that was deleted is not made again by the last word about it.
        if not self._files.home.exists():
            return
        try:
            self._files.write_records(self._records, self._identity)
            self._is_unwritten = False
        except SetupError as error:
            # The parts matter more than the record of them, which is tried again soon.
            self._is_unwritten = True
            log.warning("%s", error)


@contextmanager
def held(lock: Path, holder: Identity | None = None) -> Iterator[Callable[[], bool] | None]:
    """Hold the supervisor's lock, if nobody does.

    Args:
        lock: its file.
        holder: the supervisor, to be found by commands; None for a command that takes the place
            of one for a moment.

    Yields:
        A function that says whether the lock's file is gone or replaced; None if it is taken.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        # Only the supervisor's own name may stand there: whoever is named is sent TERM.
        file.truncate(0)
        if holder is not None:
            file.write(f"{holder.pid} {holder.mark}")
            file.flush()
        inode = os.fstat(file.fileno()).st_ino

        def is_gone() -> bool:
            try:
                return lock.stat().st_ino != inode
            except FileNotFoundError:
                return True

        yield is_gone


def main(arguments: Sequence[str]) -> int:
    """Supervise the home given until told to stop; at once 0 if another supervisor does."""
    if not arguments:
        raise SetupError("no home given", fix="python -m stack.supervisor HOME")
    files = StackFiles(Path(arguments[0]))
    parts = load_parts(*arguments[1:2])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    with held(files.supervisor_lock, Identity.of(os.getpid())) as is_abandoned:
        if is_abandoned is None:
            return os.EX_OK
        if not files.read_desired():
            # The command that started this one was interrupted, and another called it all off.
            return os.EX_OK
        supervisor = Supervisor(files, list(parts.values()))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: supervisor.close())
        log.info("supervising %s as pid %d", files.home, os.getpid())
        supervisor.run(is_abandoned)
        log.info("all parts stopped")
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
