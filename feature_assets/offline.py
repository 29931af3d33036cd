"""The door from assets to the offline tables, narrow enough for a fake."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, Protocol

import dagster as dg
from pydantic import PrivateAttr

from checks.quality.judgement import Judgement
from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from resources.lake.reports import BuildReport
from resources.progress import Progress
from resources.settings import Settings, settings_from_env

if TYPE_CHECKING:
    from checks.quality.expectations import ExpectationJudge


class Judge(Protocol):
    """Judges the days of a build, and publishes or holds back each of them.

    With ``publish`` every day is published, whatever was found. An exception means that nothing
    was judged, and that all the days are held back.
    """

    def judge_events(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        report: BuildReport,
        *,
        publish: bool,
        progress: Progress,
    ) -> Judgement:
        """Judge built days of events; ``views`` are all that read the source."""
        ...

    def judge_features(
        self, view: ViewPlan, report: BuildReport, *, publish: bool, progress: Progress
    ) -> Judgement:
        """Judge built days of a view's values."""
        ...

    def judge_again(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        view: ViewPlan | None,
        days: Days | None,
    ) -> tuple[BuildReport, Judgement]:
        """Judge what is built by the rules of now; publish and hold back nothing.

        Args:
            source: the source.
            views: all that read it.
            view: the view whose values are judged; None for the events.
            days: which days; None for all that are built.

        Returns:
            The table as it stands, with no outcomes; what was found.
        """
        ...


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

    def standing_events(self, source: SourcePlan, days: Days, since_ms: int) -> frozenset[date]:
        """Return the days of events that stand as built since an instant, epoch milliseconds.

        They were built by this definition and released, from what has not changed since.
        """
        ...

    def standing_tiles(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """Return the days of a view's tiles that stand likewise."""
        ...

    def standing_features(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """Return the days of a view's values that stand likewise."""
        ...

    def judge(self) -> Judge:
        """Return what judges the tables of this run; asked for before the first build."""
        ...


class OfflineLake(dg.ConfigurableResource[Any]):
    """The tables under ``MILLRACE_LAKE``, computed by Spark; an ``OfflineTables``.

    Nothing is opened before a step asks for it: the settings are read and Spark is connected in
    the process of the run, whose steps share them.
    """

    _opened: ExitStack = PrivateAttr(default_factory=ExitStack)
    _judge: "LakeJudge | None" = PrivateAttr(default=None)

    def build_events(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        progress: Progress,
    ) -> BuildReport:
        """Build events; see ``OfflineStore.build_events``."""
        report: BuildReport = _store().build_events(source, views, days, progress=progress)
        return report

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build tiles; see ``OfflineStore.build_tiles``."""
        report: BuildReport = _store().build_tiles(view, days, progress=progress)
        return report

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Build features; see ``OfflineStore.build_features``."""
        report: BuildReport = _store().build_features(view, days, progress=progress)
        return report

    def standing_events(self, source: SourcePlan, days: Days, since_ms: int) -> frozenset[date]:
        """Look into the lake; see ``OfflineStore.standing_events``."""
        found: frozenset[date] = _store().standing_events(source, days, since_ms)
        return found

    def standing_tiles(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """Look into the lake; see ``OfflineStore.standing_tiles``."""
        found: frozenset[date] = _store().standing_tiles(view, days, since_ms)
        return found

    def standing_features(self, view: ViewPlan, days: Days, since_ms: int) -> frozenset[date]:
        """Look into the lake; see ``OfflineStore.standing_features``."""
        found: frozenset[date] = _store().standing_features(view, days, since_ms)
        return found

    def judge(self) -> Judge:
        """Start the process of Great Expectations beside the build; it serves the whole run."""
        from checks.quality.expectations import expectation_judge

        if self._judge is None:
            expectations = self._opened.enter_context(expectation_judge())
            self._judge = LakeJudge(settings_from_env(), expectations)
        return self._judge

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """End with the run what it opened."""
        self._judge = None
        self._opened.close()


@dataclass(frozen=True)
class LakeJudge:
    """Judges days of the lake; a ``Judge``."""

    settings: Settings
    expectations: "ExpectationJudge | None" = None

    def judge_events(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        report: BuildReport,
        *,
        publish: bool,
        progress: Progress,
    ) -> Judgement:
        """Judge events; see ``checks.quality.gate.judge_build``."""
        from checks.quality.gate import JudgedTable, judge_build

        return judge_build(
            self.settings,
            JudgedTable.of_source(source, views),
            report,
            progress,
            now_ms=_now_ms(),
            publish=publish,
            expectations=self.expectations,
        )

    def judge_features(
        self, view: ViewPlan, report: BuildReport, *, publish: bool, progress: Progress
    ) -> Judgement:
        """Judge features; see ``checks.quality.gate.judge_build``."""
        from checks.quality.gate import JudgedTable, judge_build

        version = report.table.rpartition("/")[2]
        return judge_build(
            self.settings,
            JudgedTable.of_view(view, version),
            report,
            progress,
            now_ms=_now_ms(),
            publish=publish,
            expectations=self.expectations,
        )

    def judge_again(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        view: ViewPlan | None,
        days: Days | None,
    ) -> tuple[BuildReport, Judgement]:
        """Judge what is built; see ``checks.quality.gate.judge_again``."""
        from checks.quality.gate import JudgedTable, judge_again
        from resources.lake.delta import table_version
        from resources.lake.view_versions import deployed_version

        if view is None:
            version, table = None, JudgedTable.of_source(source, views)
        else:
            # A definition that the lake never saw has built no day, whatever the table's name.
            version = deployed_version(self.settings, view) or "v1"
            table = JudgedTable.of_view(view, version)
        judged = judge_again(self.settings, table, days, expectations=self.expectations)
        stands = table_version(self.settings, table.name)
        return BuildReport(table.name, version, stands, ()), judged


def _now_ms() -> int:
    return int(datetime.now(tz=UTC).timestamp() * 1000)


def _store() -> Any:
    from offline.store import OfflineStore

    return OfflineStore(settings_from_env(), gated=True)
