"""The offline store behind its publish gate."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

from checks.quality.expectations import ExpectationJudge, expectation_judge
from checks.quality.gate import JudgedTable, judge_again, judge_build
from checks.quality.judgement import Judgement
from millrace.calendar import to_ms
from millrace.days import Days
from millrace.plan import ViewPlan
from offline.store import OfflineStore
from offline.tables.stages import Stage, Table
from resources.lake.delta import table_version
from resources.lake.reports import BuildReport
from resources.lake.view_versions import deployed_version
from resources.progress import Progress


@dataclass(eq=False)
class JudgedLake(OfflineStore):
    """Builds tables and judges them; an ``OfflineTables``.

    Attributes:
        opened: holds the process of Great Expectations, which serves a whole run.
    """

    gated: bool = True
    opened: ExitStack = field(default_factory=ExitStack)
    _judge: ExpectationJudge | None = None

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Build, and have what judges come up meanwhile."""
        if stage.table.kind != "tiles":
            self._expectations()
        return super().build(stage, progress=progress)

    def judge(
        self,
        table: Table,
        views: Sequence[ViewPlan],
        report: BuildReport,
        *,
        publish: bool,
        progress: Progress,
    ) -> Judgement:
        """Judge what was built; see ``checks.quality.gate.judge_build``."""
        return judge_build(
            self.settings,
            _judged(table, views, report.version),
            report,
            progress,
            now_ms=to_ms(datetime.now(tz=UTC)),
            publish=publish,
            expectations=self._expectations(),
        )

    def judge_again(
        self, table: Table, views: Sequence[ViewPlan], days: Days | None
    ) -> tuple[BuildReport, Judgement]:
        """Judge what is built; see ``checks.quality.gate.judge_again``."""
        version = None
        if table.view is not None:
            # A definition that the lake never saw has built no day, whatever the table's name.
            version = deployed_version(self.settings, table.view) or "v1"
        known = _judged(table, views, version)
        judged = judge_again(self.settings, known, days, expectations=self._expectations())
        stands = table_version(self.settings, known.name)
        return BuildReport(known.name, version, stands, ()), judged

    def _expectations(self) -> ExpectationJudge:
        if self._judge is None:
            self._judge = self.opened.enter_context(expectation_judge())
        return self._judge


def _judged(table: Table, views: Sequence[ViewPlan], version: str | None) -> JudgedTable:
    if table.view is None or version is None:
        return JudgedTable.of_source(table.source, views)
    return JudgedTable.of_view(table.view, version)
