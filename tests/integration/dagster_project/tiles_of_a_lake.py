"""A code location whose runs write tiles into a real lake, without Spark; all else is the platform's."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg

from jobs.definitions import build_definitions
from jobs.streams import uploads
from offline.tables.partition_log import append_partition_log
from offline.tables.stages import Stage
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

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Log days of events as built; write tiles."""
        assert self.settings is not None
        view = stage.table.view
        if stage.table.kind == "tiles" and view is not None and stage.days is not None:
            build(self.settings, view, random_tiles(view, 12, 20), stage.days)
        report = super().build(stage, progress=progress)
        if view is None:
            append_partition_log(self.settings, report, stage.table.source.fingerprint)
        return report


@dg.definitions
def defs() -> dg.Definitions:
    """Return the platform's own definitions over such a lake."""
    settings = replace(settings_from_env(), views=(Path(os.environ["MILLRACE_VIEWS"]),))
    plan, _ = load_valid_plan(settings)
    return build_definitions(plan, settings, offline=LakeOffline(settings=settings))
