"""The archive process: one for all declared sources with a stream, following the declarations."""

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from millrace.errors import SpecError
from millrace.plan import SourcePlan
from resources.declarations import load_valid_plan
from resources.lake.lock import TableBusy, locked
from resources.lake.offset_ledger import archived_sources
from resources.settings import Settings, settings_from_env
from streaming.archive.worker import SourceWorker

log = logging.getLogger(__name__)

_TICK_S = 0.5
_DECLARATIONS_EVERY_S = 3.0
_STOP_WITHIN_S = 20.0
_HOPELESS = 3
"""A source that failed this often is not waited for before the archive calls itself ready."""


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    # The path of an answer comes first: a moment later is early enough for the books.
    os.nice(5)
    # A batch is some hundred thousand small tuples without cycles; looking through them again and
    # again took a third of the time.
    gc.freeze()
    gc.set_threshold(500_000, 10, 10)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    settings = settings_from_env()
    with _only_archive(settings, stopping):
        return ArchiveProcess(settings, stopping).run()


@contextmanager
def _only_archive(settings: Settings, stopping: threading.Event) -> Iterator[None]:
    """Wait until no other archive works on the lake."""
    while not stopping.is_set():
        try:
            with locked(settings, "archive", wait_s=_TICK_S):
                yield
                return
        except TableBusy:
            log.warning("another archive works on %s; waiting for its end", settings.lake)
            stopping.wait(_DECLARATIONS_EVERY_S)
    yield


class ArchiveProcess:
    """Keeps one worker per declared stream; tells the supervisor that it lives and works."""

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self._settings = settings
        self._stopping = stopping
        self._workers: dict[str, SourceWorker] = {}
        self._declarations = Declared(settings)
        self._folder = settings.home / "archive"

    def run(self) -> int:
        """Work until told to stop; 1 if a worker ended by a bug, to be started anew."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "ready").unlink(missing_ok=True)
        looked_s, is_ready = -_DECLARATIONS_EVERY_S, False
        while not self._stopping.is_set():
            if time.monotonic() - looked_s >= _DECLARATIONS_EVERY_S:
                self._follow_declarations()
                looked_s = time.monotonic()
            (self._folder / "heartbeat").touch()
            if not is_ready and self._is_ready():
                _write_atomically(self._folder / "ready", f"{os.getpid()}\n")
                is_ready = True
            if any(not w.is_alive() and not w.is_done for w in self._workers.values()):
                log.error("a worker ended unexpectedly; ending, to be started anew")
                return 1
            self._stopping.wait(_TICK_S)
        self._stop(list(self._workers.values()))
        return 0

    def _is_ready(self) -> bool:
        workers = self._workers.values()
        return all(w.cycles or w.failures >= _HOPELESS for w in workers) and (
            not workers or any(w.cycles for w in workers)
        )

    def _follow_declarations(self) -> None:
        wanted = self._declarations.sources()
        if wanted is None:
            return
        leaving = [w for name, w in self._workers.items() if wanted.get(name) != w.source]
        self._stop(leaving)
        for worker in leaving:
            del self._workers[worker.source.name]
        for name, source in wanted.items():
            if name not in self._workers:
                log.info("archiving %s", name)
                self._workers[name] = SourceWorker(self._settings, source)
                self._workers[name].start()

    def _stop(self, workers: list[SourceWorker]) -> None:
        for worker in workers:
            log.info("no longer archiving %s as it was", worker.source.name)
            worker.stop()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for worker in workers:
            while worker.is_alive() and time.monotonic() < deadline:
                (self._folder / "heartbeat").touch()
                worker.join(_TICK_S)


class Declared:
    """The declared sources with a stream, read again when a file changes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: dict[Path, tuple[int, int]] | None = None
        self._sources: dict[str, SourcePlan] = {}

    def sources(self) -> Mapping[str, SourcePlan] | None:
        """Return the sources by name; None if no file has changed since the last call.

        With a fault in some file, sources that were known and are not declared now are kept as
        they were: more likely they are in that file than gone.
        """
        seen = _stamps(self._settings.views)
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            plan, faults = load_valid_plan(self._settings)
        except SpecError as error:
            log.warning("the declarations cannot be read, keeping those known: %s", error)
            return self._sources
        found = archived_sources(plan)
        if faults:
            log.warning("declarations left out: %s", "; ".join(str(f) for f in faults[:5]))
            found = {**self._sources, **found}
        self._sources = found
        return found


def _stamps(folders: tuple[Path, ...]) -> dict[Path, tuple[int, int]]:
    stamps = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix in {".yaml", ".yml", ".py"}:
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                stamps[path] = (status.st_mtime_ns, status.st_size)
    return stamps


def _write_atomically(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
