"""Tells OpenLineage of a training set: which versions of which tables it was made of, and how."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lineage import datasets, facets
from lineage.datasets import Dataset
from lineage.emitter import Emitter
from lineage.naming import location_name
from lineage.quiet import quietly
from lineage.runs import End, Work, python_version
from lineage.shipping import ship_soon
from millrace.compile.lineage import features_columns
from millrace.names import events_table
from resources.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from offline.tables.history import History
    from offline.training.requested_features import RequestedFeatures

_SPINE = "spine"


@contextmanager
def emitting(
    settings: Settings,
    out: "Path",
    spine: tuple["Path", "pa.Table"],
    request: "RequestedFeatures",
    histories: "Sequence[History]",
    **parameters: object,
) -> Iterator[Callable[["pa.Table"], None]]:
    """Tell of a training set: START now, and its end however the block ends.

    The block is given a function to hand over the table that was written.

    Args:
        settings: whose outbox and lake.
        out: the file to write; its name without ending names the job.
        spine: the file and what was read of it.
        request: the features asked for.
        histories: the events that each view of the request is computed of.
        parameters: what else the run was told.
    """
    told = _TrainingSet(settings, out, spine, request, histories, parameters)
    written: list[pa.Table] = []
    told.begin()
    try:
        yield written.append
    except Exception as error:
        told.end("FAIL", str(error))
        raise
    except BaseException:
        told.end("ABORT", "interrupted")
        raise
    told.end("COMPLETE", table=written[0] if written else None)


@dataclass
class _TrainingSet:
    settings: Settings
    out: "Path"
    spine: tuple["Path", "pa.Table"]
    request: "RequestedFeatures"
    histories: "Sequence[History]"
    parameters: Mapping[str, object]
    _emitter: Emitter | None = field(default=None, repr=False)
    _work: Work | None = None

    @quietly
    def begin(self) -> None:
        """Tell that the set is being made."""
        self._emitter = Emitter(self.settings)
        if not self._emitter.is_on:
            return
        is_spark = self.parameters.get("engine") == "spark"
        self._work = Work.of(
            f"training_set/{self.out.stem}",
            datetime.now(tz=UTC),
            job_facets={"jobType": facets.job_type("TRAINING_SET")},
            run_facets={
                "processing_engine": _spark()
                if is_spark
                else facets.engine("Python", python_version()),
                "executionParameters": facets.parameters(
                    {**self.parameters, "features": ",".join(self.request.columns)}
                ),
            },
            inputs=self._inputs(),
            outputs=[datasets.plain_file(str(self.out.absolute()))],
        )
        self._emitter.start(self._work)

    @quietly
    def end(self, state: End, reason: str = "", *, table: "pa.Table | None" = None) -> None:
        """Tell how it ended, and ship it if the receivers are at hand."""
        if self._emitter is None or self._work is None:
            return
        outputs = None if table is None else [self._output(table)]
        error = {"errorMessage": facets.error(reason)} if reason else {}
        self._emitter.end(self._work, state, run_facets=error, outputs=outputs)
        ship_soon(self.settings)

    def _inputs(self) -> list[Dataset]:
        path, table = self.spine
        spine = datasets.plain_file(str(path.absolute()))
        schema = facets.schema((f.name, str(f.type), "") for f in table.schema)
        rows = facets.input_statistics(table.num_rows)
        about = {"schema": schema}
        tables = dict.fromkeys(h.table for h in self.histories)
        return [
            spine.with_facets(about).with_input_facets({"inputStatistics": rows}),
            *(self._events([h for h in self.histories if h.table == name]) for name in tables),
        ]

    def _events(self, histories: "Sequence[History]") -> Dataset:
        """Return the events of one source; several views may read them, each days of its own."""
        days = {day for history in histories for day in history.days}
        rows = facets.input_statistics(sum(history.rows for history in histories))
        events = datasets.events(self.settings, histories[0].view.source)
        version = {"version": facets.version(histories[0].version)}
        subset = {"subset": facets.input_days(days)} if days else {}
        return events.with_facets(version).with_input_facets({"inputStatistics": rows, **subset})

    def _output(self, table: "pa.Table") -> Dataset:
        columns = [(f.name, str(f.type)) for f in table.schema]
        nulls = {name: {"nullCount": table.column(name).null_count} for name in table.column_names}
        size = self.out.stat().st_size
        found = datasets.training_set(str(self.out.absolute()), columns, self._lineage())
        metrics = {"dataQualityMetrics": facets.metrics(table.num_rows, size, nulls)}
        statistics = {"outputStatistics": facets.output_statistics(table.num_rows, size)}
        return found.with_facets(metrics).with_output_facets(statistics)

    def _lineage(self) -> dict[str, Any]:
        path, spine = self.spine
        names = {_SPINE: location_name(str(path.absolute()))}
        fields: dict[str, Any] = {name: _copied(name) for name in spine.column_names}
        deciding: list[Any] = []
        for asked in self.request.views:
            events = events_table(asked.view.source.name)
            names[events] = datasets.events(self.settings, asked.view.source).id
            columns = features_columns(asked.view, events)
            for column, feature in zip(asked.columns, asked.view.outputs, strict=True):
                fields[column] = columns["fields"][feature.name]
            deciding += columns["dataset"]
            deciding += [_joined(key) for key in asked.view.join_keys]
        unique = {str(entry): entry for entry in deciding}
        return datasets.columns_of({"fields": fields, "dataset": list(unique.values())}, names)


def _copied(column: str) -> dict[str, Any]:
    step = {"type": "DIRECT", "subtype": "IDENTITY", "masking": False}
    return {"inputFields": [{"name": _SPINE, "field": column, "transformations": [step]}]}


def _joined(column: str) -> dict[str, Any]:
    step = {"type": "INDIRECT", "subtype": "JOIN", "masking": False}
    return {"name": _SPINE, "field": column, "transformations": [step]}


def _spark() -> facets.Facet:
    from importlib.metadata import version

    return facets.engine("Spark", version("pyspark"))
