"""The door from assets to the offline tables, narrow enough for a fake."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import dagster as dg

from millrace.plan import SourcePlan, ViewPlan
from resources.reports import BuildReport, Days
from resources.settings import settings_from_env

Progress = Callable[[str], None]


class OfflineTables(Protocol):
    """Builds ranges of days of the offline tables.

    Each method commits the days that can be built and names the others in its report; building
    a day again gives the same content. An exception means that no day could be built.
    """

    def build_events(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        progress: Progress,
    ) -> BuildReport:
        """Build events, and earlier days that the windows of ``views`` reach into."""
        ...

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build the partial aggregates of a view."""
        ...

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build the values of a view as of each of its events."""
        ...


class OfflineLake(dg.ConfigurableResource[Any]):
    """The tables under ``MILLRACE_LAKE``, computed by Spark; an ``OfflineTables``.

    Nothing is opened before a step asks for it: the settings are read and Spark is connected in
    the process of the run.
    """

    def build_events(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        progress: Progress,
    ) -> BuildReport:
        """Build events; see ``OfflineStore.build_events``."""
        return _store().build_events(source, views, days, progress=progress)

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build tiles; see ``OfflineStore.build_tiles``."""
        return _store().build_tiles(view, days, progress=progress)

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build features; see ``OfflineStore.build_features``."""
        return _store().build_features(view, days, progress=progress)


def _store() -> OfflineTables:
    from resources.offline import OfflineStore

    return OfflineStore(settings_from_env())
