"""Tells OpenLineage of the archive: a topic into the table of accepted events."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from lineage import datasets, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.quiet import quietly
from lineage.runs import End, Work, python_version
from millrace.names import dead_letters_table
from millrace.plan import SourcePlan
from resources.lake.offset_ledger import OffsetLedger
from resources.settings import Settings

PERIOD_S = 300.0
"""The books are told this often."""


@contextmanager
def emitting_archive(
    settings: Settings, source: SourcePlan, bootstrap: str, books: OffsetLedger
) -> "Iterator[ArchiveLineage]":
    """Tell that a source is being archived, until the block ends.

    Args:
        settings: whose outbox and lake.
        source: has a stream.
        bootstrap: Kafka's ``host:port`` list.
        books: as they are at the start.
    """
    told = ArchiveLineage(settings, source, bootstrap, books)
    told.begin()
    try:
        yield told
    except Exception as error:
        told.end("FAIL", str(error))
        raise
    except BaseException:
        told.end("ABORT", "interrupted")
        raise
    told.end("COMPLETE")


class ArchiveLineage:
    """The archive of one source, as lineage is told of it; none of its methods fails."""

    def __init__(
        self, settings: Settings, source: SourcePlan, bootstrap: str, books: OffsetLedger
    ) -> None:
        self._settings, self._source, self._bootstrap = settings, source, bootstrap
        self._before = self._books = books
        self._work: Work | None = None
        self._due_s = time.monotonic() + PERIOD_S

    @quietly
    def begin(self) -> None:
        """Tell that archiving begins."""
        emitter = Emitter(self._settings)
        read = datasets.topic(self._bootstrap, self._source)
        if not emitter.is_on or read is None:
            return
        self._work = Work.of(
            f"archive/{self._source.name}",
            datetime.now(tz=UTC),
            job_facets={"jobType": facets.job_type("ARCHIVE", period_s=int(PERIOD_S))},
            run_facets={"processing_engine": facets.engine("Python", python_version())},
            inputs=[read],
            outputs=self._outputs(read),
        )
        emitter.start(self._work)

    def cycle(self, books: OffsetLedger) -> None:
        """Take the books after a cycle; told every five minutes, and at the end."""
        self._books = books
        if time.monotonic() >= self._due_s:
            self._due_s += PERIOD_S
            self._report()

    @quietly
    def _report(self) -> None:
        if self._work is not None:
            emitter = Emitter(self._settings)
            emitter.running(self._work, self._told(), inputs=self._read(), outputs=self._written())

    @quietly
    def end(self, state: End, reason: str = "") -> None:
        """Tell that archiving ended."""
        if self._work is None:
            return
        error = {"errorMessage": facets.error(reason)} if reason else {}
        Emitter(self._settings).end(
            self._work,
            state,
            run_facets={**self._told(), **error},
            inputs=self._read(),
            outputs=self._written(),
        )

    def _outputs(self, read: Dataset) -> list[Dataset]:
        events = datasets.events(self._settings, self._source, [read])
        return [events, datasets.table(self._settings, dead_letters_table(self._source.name))]

    def _told(self) -> dict[str, facets.Facet]:
        offsets = {str(p): o for p, o in sorted(self._books.next.items())}
        counts = dict(self._books.counts)
        return {"millrace_archive": facets.custom_run({"offsets": offsets, "books": counts})}

    def _read(self) -> list[Dataset]:
        text = ",".join(f"{p}:{o}" for p, o in sorted(self._books.next.items()))
        version = {"version": facets.version(text)} if text else {}
        read = {"inputStatistics": facets.input_statistics(self._books.span - self._before.span)}
        inputs = self._work.inputs if self._work else ()
        return [d.with_facets(version).with_input_facets(read) for d in inputs]

    def _written(self) -> list[Dataset]:
        added = self._books.counts["events"] - self._before.counts["events"]
        dead_letters = sum(self._books.dead_letters.values()) - sum(
            self._before.dead_letters.values()
        )
        outputs = self._work.outputs if self._work else ()
        return [
            d.with_output_facets({"outputStatistics": facets.output_statistics(rows)})
            for d, rows in zip(outputs, (added, dead_letters), strict=False)
        ]
