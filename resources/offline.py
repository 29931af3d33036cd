"""The offline store: one method for each table that a feature view has in the lake."""

from collections.abc import Sequence
from dataclasses import dataclass

from millrace.plan import SourcePlan, ViewPlan
from resources.events_table import Progress, build_events, count_archived_events
from resources.features_table import build_features
from resources.reports import BuildReport, Days
from resources.settings import Settings
from resources.spark import connect
from resources.tiles_table import build_tiles


@dataclass(frozen=True)
class OfflineStore:
    """Builds ranges of days with the Spark that the settings name; every method is idempotent."""

    settings: Settings

    def build_events(
        self, source: SourcePlan, views: Sequence[ViewPlan], days: Days, *, progress: Progress
    ) -> BuildReport:
        """Build ``events/<source>``; see ``resources.events_table.build_events``."""
        if source.batch is None and source.stream is not None:
            return count_archived_events(self.settings, source, views, days)
        return build_events(connect(self.settings), self.settings, source, views, days, progress)

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build ``tiles/<view>``; see ``resources.tiles_table.build_tiles``."""
        return build_tiles(connect(self.settings), self.settings, view, days, progress)

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build ``features/<view>``; see ``resources.features_table.build_features``."""
        return build_features(connect(self.settings), self.settings, view, days, progress)
