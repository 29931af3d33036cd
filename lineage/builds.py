"""Tells OpenLineage of the tables that a Dagster step builds, and of the run that builds them.

One run of the job ``<table>`` (``tiles/spend``) for each table and step, whatever the number of days: it
completes if every day it was asked for was built, and fails if any was not. The days that were
written all the same are the ``subset`` of its output, and those that were not are named in its
``errorMessage``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from lineage import datasets, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.quiet import quietly
from lineage.runs import Backfill, Enclosing, End, Work, python_version
from lineage.shipping import ship_soon
from millrace.days import Days, days_by_reason
from millrace.names import dead_letters_table, events_table
from millrace.plan import SourcePlan, ViewPlan
from resources.dagster.asset_keys import lake_table
from resources.lake.reports import BuildReport
from resources.settings import Settings, settings_from_env

_MOST_TAGS = 30

Context = dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OpExecutionContext


def enclosing(context: Context) -> Enclosing:
    """Return the Dagster run of a step or check, as work within it refers to it."""
    run, instance = context.run, context.instance
    record = instance.get_run_record_by_id(run.run_id)
    began = datetime.now(tz=UTC)
    if record is not None:
        began = _instant(record.start_time) or record.create_timestamp
    backfill_id = run.tags.get("dagster/backfill")
    found = instance.get_backfill(backfill_id) if backfill_id else None
    backfill = None if found is None else Backfill(found.backfill_id, _at(found.backfill_timestamp))
    attempt = context.retry_number
    return Enclosing(run.run_id, run.job_name, began, attempt, backfill, _told_tags(run.tags))


def _instant(epoch_s: float | None) -> datetime | None:
    return None if epoch_s is None else _at(epoch_s)


def _at(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(epoch_s, tz=UTC)


def _told_tags(tags: Mapping[str, str]) -> dict[str, str]:
    shown = {key: value for key, value in tags.items() if not key.startswith(".")}
    return dict(list(shown.items())[:_MOST_TAGS])


@contextmanager
def emitting(
    context: dg.AssetExecutionContext,
    source: SourcePlan,
    view: ViewPlan | None,
    key: dg.AssetKey,
    asked: Days,
    days: Sequence[date],
    attempt: int = 0,
) -> Iterator["TableBuild"]:
    """Tell of the build of one table: START now, and its end however the block ends.

    Args:
        context: of the step.
        source: whose events are built, or read.
        view: whose tiles or features are built; None for the events.
        key: asset key of the table.
        asked: the range that the run is for.
        days: its days that are to be built; at least one.
        attempt: how often the build was begun before within the step; each is a run of its own.
    """
    job, span = lake_table(key.path), asked.within(days)
    build = TableBuild(settings_from_env(), context, source, view, job, span, tuple(days), attempt)
    build.begin()
    try:
        yield build
    except Exception as error:
        build.end("FAIL", str(error))
        raise
    except BaseException:
        build.end("ABORT", "the run was interrupted")
        raise
    build.end_as_built()


@dataclass
class TableBuild:
    """The build of one table, as lineage is told of it; none of its methods fails."""

    settings: Settings
    context: dg.AssetExecutionContext
    source: SourcePlan
    view: ViewPlan | None
    job: str
    span: Days
    days: tuple[date, ...]
    attempt: int = 0
    _report: BuildReport | None = None
    _work: Work | None = None
    _emitter: Emitter | None = field(default=None, repr=False)

    @property
    def kind(self) -> str:
        """``events``, ``tiles`` or ``features``."""
        return self.job.partition("/")[0]

    def built(self, report: BuildReport) -> None:
        """Take what was built; told when the block ends."""
        self._report = report

    @quietly
    def begin(self) -> None:
        """Tell that the build begins."""
        self._emitter = Emitter(self.settings)
        if not self._emitter.is_on:
            return
        self._work = Work.of(
            self.job,
            datetime.now(tz=UTC),
            part_of=replace(enclosing(self.context), attempt=self.attempt),
            job_facets=self._job_facets(),
            run_facets=self._run_facets(),
            inputs=self._inputs({}),
            outputs=self._outputs_to_be(),
        )
        self._emitter.start(self._work)

    @quietly
    def end_as_built(self) -> None:
        """Tell how the build ended, by its report."""
        failed = [o for o in self._report.failed if o.day in self.days] if self._report else []
        reasons = days_by_reason((o.day, o.error or "") for o in failed)
        lines = [f"{days}: {reason}" for reason, days in reasons.items()]
        self.end("FAIL" if failed else "COMPLETE", "\n".join(lines))

    @quietly
    def end(self, state: End, reason: str = "") -> None:
        """Tell that the build ended, and ship it if the receivers are at hand."""
        if self._work is None or self._emitter is None:
            return
        report = self._report
        self._emitter.end(
            self._work,
            state,
            run_facets={"errorMessage": facets.error(reason)} if reason else {},
            inputs=self._inputs(report.input_versions if report else {}),
            outputs=self._outputs(report) if report else None,
        )
        ship_soon(self.settings)

    # --- what stands in every event ---------------------------------------------------------

    def _job_facets(self) -> dict[str, Any]:
        subject = self.view or self.source
        found = {"jobType": facets.job_type("ASSET")}
        if subject.where.file:
            found["sourceCodeLocation"] = facets.source_code(subject.where.file, subject.where.line)
        if subject.description:
            found["documentation"] = facets.job_text(subject.description)
        if self.view is not None and self.view.owner:
            found["ownership"] = facets.job_owner(self.view.owner)
        if self.view is not None and self.view.tags:
            found["tags"] = facets.job_tags(self.view.tags)
        if self.view is not None and self.kind == "tiles":
            from millrace.compile.spark import tile_query

            query = tile_query(self.view, f"events_{self.source.name}")
            found["sql"] = facets.sql(query, "spark")
        return found

    def _run_facets(self) -> dict[str, Any]:
        from importlib.metadata import version

        reads_files = self.source.batch is not None or self.view is not None
        engine = ("Spark", version("pyspark")) if reads_files else ("Python", python_version())
        return {
            "nominalTime": facets.nominal_range(self.span),
            "processing_engine": facets.engine(*engine),
        }

    # --- inputs and outputs -----------------------------------------------------------------

    def _inputs(self, versions: Mapping[str, int]) -> list[Dataset]:
        if self.view is None and self.source.batch is not None:
            return [datasets.files(self.settings, self.source)]
        # Without files, archived days are taken as they stand: the table itself is what is read.
        name = events_table(self.source.name)
        found = datasets.events(self.settings, self.source)
        if name in versions:
            found = found.with_facets({"version": facets.version(versions[name])})
        if self.kind != "features":
            # Features reach back as far as their windows do.
            found = found.with_input_facets({"subset": facets.input_days(self.days)})
        return [found]

    def _output(self, table: str) -> Dataset | None:
        """Return what is written by its name under the lake; None if nothing is."""
        if self.view is None:
            if self.source.batch is None:
                return None
            return datasets.events(self.settings, self.source, self._inputs({}))
        of = datasets.tiles if self.kind == "tiles" else datasets.features
        return of(self.settings, self.view, table.rpartition("/")[2])

    def _outputs_to_be(self) -> list[Dataset]:
        if self.view is None:
            found = self._output(self.job)
            return [found, self._letters()] if found else []
        from resources.lake.view_versions import deployed_version

        version = deployed_version(self.settings, self.view)
        found = self._output(f"{self.job}/{version}") if version else None
        return [found] if found else []

    def _outputs(self, report: BuildReport) -> list[Dataset]:
        built = {o.day: o for o in report.built if o.rows or o.day in self.days}
        found = self._output(report.table)
        if found is None or not built or (self.view is not None and report.version is None):
            return []
        rows, size = sum(o.rows for o in built.values()), sum(o.bytes for o in built.values())
        changed = facets.lifecycle("OVERWRITE" if report.delta_version else "CREATE")
        written = found.with_facets(
            {
                "version": facets.version(report.delta_version),
                "lifecycleStateChange": changed,
                "dataQualityMetrics": facets.metrics(rows, size, self._nulls(report.table, built)),
            }
        ).with_output_facets(
            {
                "outputStatistics": facets.output_statistics(rows, size),
                "subset": facets.output_days(built),
            }
        )
        if self.view is not None:
            return [written]
        refused = facets.output_statistics(sum(sum(o.dead_letters.values()) for o in report.built))
        return [written, self._letters().with_output_facets({"outputStatistics": refused})]

    def _letters(self) -> Dataset:
        return datasets.table(self.settings, dead_letters_table(self.source.name))

    def _nulls(self, table: str, built: Mapping[date, object]) -> dict[str, dict[str, int]]:
        """Return the nulls of each column in the days that were written, from Delta's log."""
        from resources.lake.delta import partition_stats

        nulls: dict[str, int] = {}
        for day, stats in partition_stats(self.settings, table).items():
            if day in built:
                for column, count in stats.null_counts.items():
                    nulls[column] = nulls.get(column, 0) + count
        return {column: {"nullCount": count} for column, count in nulls.items()}
