"""Builds of single tables of a real lake, each planned and done as a step of a run does it."""

from collections.abc import Sequence
from typing import Literal

from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.store import OfflineStore
from resources.lake.reports import BuildReport
from resources.progress import Progress


class LakeBuilds(OfflineStore):
    """The offline store, asked for one table at a time."""

    def build_events(
        self, source: SourcePlan, views: Sequence[ViewPlan], days: Days, *, progress: Progress
    ) -> BuildReport:
        """Build events, and earlier ones that ``views`` reach into."""
        [stage] = self.plan(source, views, days, tables=[f"events/{source.name}"])
        return self.build(stage, progress=progress)

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build tiles."""
        return self._of_view("tiles", view, days, progress)

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build values."""
        return self._of_view("features", view, days, progress)

    def _of_view(
        self, kind: Literal["tiles", "features"], view: ViewPlan, days: Days, progress: Progress
    ) -> BuildReport:
        [stage] = self.plan(view.source, [view], days, tables=[f"{kind}/{view.name}"])
        return self.build(stage, progress=progress)
