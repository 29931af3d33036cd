"""A code location whose runs write tiles into a real lake, without Spark; all else is the platform's."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from jobs.definitions import build_definitions
from jobs.streams import uploads
from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.partition_log import append_partition_log
from resources.declarations import load_valid_plan
from resources.lake.reports import BuildReport
from resources.progress import Progress
from resources.settings import Settings, settings_from_env
from tests.support.fake_offline import FakeOffline
from tests.support.tile_lakes import build, random_tiles

# A test cannot wait for minutes; what is told by runs does not depend on it.
uploads._INTERVAL_S = 5


@dataclass
class LakeOffline(FakeOffline):
    """Tiles of the same random events for every version of a view."""

    settings: Settings | None = None

    def build_events(
        self, source: SourcePlan, views: Sequence[ViewPlan], days: Days, *, progress: Progress
    ) -> BuildReport:
        """Log the days as built."""
        report = super().build_events(source, views, days, progress=progress)
        assert self.settings is not None
        append_partition_log(self.settings, report, source.fingerprint)
        return report

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Write the tiles of these days."""
        assert self.settings is not None
        build(self.settings, view, random_tiles(view, 12, 20), days)
        return super().build_tiles(view, days, progress=progress)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the platform's own definitions over such a lake."""
    settings = replace(settings_from_env(), views=(Path(os.environ["MILLRACE_VIEWS"]),))
    plan, _ = load_valid_plan(settings)
    return build_definitions(plan, settings, offline=LakeOffline(settings=settings))
