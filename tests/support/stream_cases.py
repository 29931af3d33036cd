"""One stack with one stream over engines in memory, and what tests ask of it."""

from pathlib import Path
from typing import Any

from millrace.plan import Plan
from millrace.published import PublishedView
from streaming.control import deployments
from streaming.control.actions import perform
from streaming.control.reconcile import Action, decide
from streaming.control.survey import declared_of, survey
from streaming.publications.records import RecordFiles, StreamRecord
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views


def ignore(_: str) -> None:
    """Take progress and say nothing."""


class Streams:
    """One stack with one view, ``spend``."""

    def __init__(self, folder: Path) -> None:
        self.views = folder / "views"
        self.plan = write_views(self.views)
        self.engines: FakeEngines = fake_engines(folder, views=[self.views])
        self.flink = self.engines.fake
        self.files = RecordFiles.of(self.engines.settings.home)

    @property
    def record(self) -> StreamRecord:
        found = self.files.read("spend")
        assert found is not None
        return found

    @property
    def published(self) -> PublishedView:
        return self.engines.memory.online().publications.read().views["spend"]

    def declare(self, **changes: Any) -> Plan:
        self.plan = write_views(self.views, **changes)
        return self.plan

    def deploy(self, parallelism: int | None = None) -> StreamRecord:
        settings, engines = self.engines.settings, self.engines
        return deployments.deploy(
            settings, self.plan, "spend", ignore, parallelism=parallelism, engines=engines
        )

    def stop(self) -> StreamRecord:
        return deployments.stop(self.engines.settings, "spend", ignore, engines=self.engines)

    def restart(self, parallelism: int | None = None) -> StreamRecord:
        settings, engines = self.engines.settings, self.engines
        return deployments.restart(
            settings, "spend", ignore, parallelism=parallelism, engines=engines
        )

    def decide(self, *, has_faults: bool = False) -> list[Action]:
        records = self.files.read_all()
        settings = self.engines.settings
        declared = declared_of(records, self.plan, settings, has_faults=has_faults)
        seen = survey(self.engines, self.plan, records)
        return decide(records, declared, seen.facts, self.engines.now_ms())

    def reconcile(self) -> list[str]:
        """Decide and act until nothing is left to do; returns what was done."""
        done: list[str] = []
        while actions := self.decide():
            for action in actions:
                perform(self.engines.settings, self.plan, action, ignore, engines=self.engines)
                done.append(action.kind)
            assert len(done) < 20, done
        return done

    def wait(self, seconds: float) -> None:
        self.engines.clock[0] += int(seconds * 1000)

    def restores(self) -> list[str | None]:
        return [submission["restore_from"] for submission in self.flink.submissions]
