"""Writes what happens to the outbox. Callers wrap it in ``quietly``: telling never fails work."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lineage import events
from lineage.datasets import Dataset
from lineage.outbox import Outbox
from lineage.receivers import is_off
from lineage.runs import End, Work, enclosing_works
from resources.settings import Settings


class Emitter:
    """Tells of one stack's work; does nothing where ``MILLRACE_LINEAGE`` is ``none``.

    Each method is one durable write and no network. Told twice, or after another process has ended
    the run, it writes nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_on = not is_off(settings)
        self._outbox = Outbox.of(settings)
        self._settings = settings

    def _signed(self, event: events.Event) -> events.Event:
        of = self._settings
        return events.signed(event, of.lineage_namespace, of.lineage_producer)

    def start(self, work: Work) -> None:
        """Tell that work begins, and that the Dagster run it is part of has begun."""
        if not self.is_on:
            return
        for outer in enclosing_works(work.enclosing) if work.enclosing else ():
            self._start(outer)
        self._start(work)

    def _start(self, work: Work) -> None:
        event = events.run_event(work, "START", work.started_at)
        self._outbox.start(work.run_id, work.owner, self._signed(event))

    def running(
        self,
        work: Work,
        run_facets: Mapping[str, Any],
        *,
        inputs: Sequence[Dataset] | None = None,
        outputs: Sequence[Dataset] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Tell how work that goes on is doing."""
        if self.is_on:
            event = events.run_event(
                work,
                "RUNNING",
                at or datetime.now(tz=UTC),
                run_facets=run_facets,
                inputs=inputs,
                outputs=outputs,
            )
            self._outbox.add(work.run_id, self._signed(event))

    def end(
        self,
        work: Work,
        state: End,
        *,
        run_facets: Mapping[str, Any] | None = None,
        inputs: Sequence[Dataset] | None = None,
        outputs: Sequence[Dataset] | None = None,
        at: datetime | None = None,
    ) -> None:
        """Tell how work ended; if its beginning could not be told, that as well."""
        if not self.is_on:
            return
        event = events.run_event(
            work,
            state,
            at or datetime.now(tz=UTC),
            run_facets=run_facets,
            inputs=inputs,
            outputs=outputs,
        )
        event = self._signed(event)
        if not self._outbox.end(work.run_id, state, event):
            self.start(work)
            self._outbox.end(work.run_id, state, event)

    def declare(self, event: events.Event) -> None:
        """Tell of a job or a dataset apart from any run."""
        if self.is_on:
            self._outbox.add_static(self._signed(event))
