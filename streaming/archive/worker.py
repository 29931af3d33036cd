"""One thread per source: opens its archive, runs it, and opens it again after whatever fails."""

import logging
import threading

from millrace.errors import PlatformError
from millrace.plan import SourcePlan
from resources.endpoints import kafka_bootstrap
from resources.settings import Settings
from streaming.archive.compaction import Compaction
from streaming.archive.lineage import emitting_archive
from streaming.archive.source import SourceArchive

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 10.0
_CALM_RECORDS = 10_000
_CHECK_EVERY = 30


class SourceWorker(threading.Thread):
    """Archives one source until it is told to stop.

    Attributes:
        source: the declaration it works by.
        cycles: how many cycles were completed.
        failures: how many times in a row it could not work.
    """

    def __init__(self, settings: Settings, source: SourcePlan) -> None:
        super().__init__(name=f"archive-{source.name}", daemon=True)
        self.source = source
        self.cycles = 0
        self.failures = 0
        self.is_done = False
        self._settings = settings
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask it to commit what it has and end; returns at once."""
        self._stopping.set()

    def run(self) -> None:
        """Work; ends after ``stop``, or by an error that is no fault of the surroundings."""
        wait_s = _FIRST_WAIT_S
        while not self._stopping.is_set():
            cycles_before = self.cycles
            try:
                self._archive()
            except PlatformError as error:
                self.failures = 1 if self.cycles > cycles_before else self.failures + 1
                wait_s = _FIRST_WAIT_S if self.failures == 1 else min(2 * wait_s, _LONGEST_WAIT_S)
                log.warning("%s waits %.1f s: %s", self.source.name, wait_s, error)
                self._stopping.wait(wait_s)
        self.is_done = True

    def _archive(self) -> None:
        bootstrap = kafka_bootstrap(self._settings)
        archive = SourceArchive(self._settings, self.source, bootstrap, self._goes_on)
        compaction = Compaction(self._settings, archive.tables.all())
        try:
            with emitting_archive(self._settings, self.source, bootstrap, archive.books) as told:
                while self._goes_on():
                    records = archive.cycle()
                    told.cycle(archive.books)
                    self.cycles += 1
                    self.failures = 0
                    if records < _CALM_RECORDS and not archive.is_behind:
                        compaction.maybe_run()
                    if self.cycles % _CHECK_EVERY == 0:
                        archive.check_partitions(bootstrap)
        finally:
            archive.close()

    def _goes_on(self) -> bool:
        return not self._stopping.is_set()
