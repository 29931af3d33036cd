"""OpenLineage facets of what the platform knows, as the JSON of ``openlineage-python``'s classes.

Every function returns one facet; the key it stands under is named in its docstring. The client is
imported inside: it must not be part of loading the code location.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from lineage.naming import JOB_NAMESPACE, DatasetName
from millrace.calendar import LAST_MS, to_datetime
from millrace.days import Days

PRODUCER = "urn:millrace:platform"
"""The URI that events and facets name as their producer, unless ``lineage.producer`` is another."""

Facet = dict[str, Any]
Columns = Mapping[str, Any]
"""The column lineage of ``millrace.compile.lineage``."""

# The client names version 1-0-1 of this facet, which adds an optional date that is not used here;
# published is 1-0-0.
_METRICS_SCHEMA = (
    "https://openlineage.io/spec/facets/1-0-0/DataQualityMetricsDatasetFacet.json"
    "#/$defs/DataQualityMetricsDatasetFacet"
)
# Facets of our own hold to the base schema, so that a consumer can validate them like any other.
_BASE_RUN_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunFacet"
_MOST_MESSAGE = 4_000
_MOST_SQL = 100_000


def instant(moment: datetime) -> str:
    """Return an aware instant as OpenLineage writes it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(facet: Any) -> Facet:
    from openlineage.client.serde import Serde

    document: Facet = Serde.to_dict(facet)
    return {**document, "_producer": PRODUCER}


def _v2() -> Any:
    from openlineage.client import facet_v2

    return facet_v2


# --- runs ---------------------------------------------------------------------------------------


def parent(
    run_id: str, job: str, root_run_id: str | None = None, root_job: str | None = None
) -> Facet:
    """Return ``parent``: the run that this one is part of, and the outermost of them."""
    of = _v2().parent_run
    root = of.Root(
        run=of.RootRun(runId=root_run_id or run_id),
        job=of.RootJob(namespace=JOB_NAMESPACE, name=root_job or job),
    )
    facet = of.ParentRunFacet(
        run=of.Run(runId=run_id), job=of.Job(namespace=JOB_NAMESPACE, name=job), root=root
    )
    return _json(facet)


def nominal_days(days: Sequence[date]) -> Facet:
    """Return ``nominalTime``: from the first of some UTC days to the end of the last."""
    return nominal_range(Days.covering(days))


def nominal_range(days: Days) -> Facet:
    """Return ``nominalTime``: a range of UTC days, or of hours."""
    # A time stamp ends with 9999, and its last range a millisecond early.
    edges = (to_datetime(min(ms, LAST_MS)) for ms in (days.start_ms, days.end_ms))
    start, end = (moment for moment in edges if moment is not None)
    return _json(_v2().nominal_time_run.NominalTimeRunFacet(instant(start), instant(end)))


def engine(name: str, version: str) -> Facet:
    """Return ``processing_engine``."""
    from importlib.metadata import version as installed

    facet = _v2().processing_engine_run.ProcessingEngineRunFacet(
        version=version, name=name, openlineageAdapterVersion=installed("millrace-platform")
    )
    return _json(facet)


def error(message: str) -> Facet:
    """Return ``errorMessage``; a long message is cut."""
    facet = _v2().error_message_run.ErrorMessageRunFacet(
        message=message[:_MOST_MESSAGE], programmingLanguage="PYTHON"
    )
    return _json(facet)


def parameters(values: Mapping[str, object]) -> Facet:
    """Return ``executionParameters``: what the run was told, as text."""
    of = _v2().execution_parameters_run
    entries = [of.ExecutionParameter(key=key, value=str(value)) for key, value in values.items()]
    return _json(of.ExecutionParametersRunFacet(parameters=entries))


def run_tags(tags: Mapping[str, str]) -> Facet:
    """Return ``tags`` of a run."""
    of = _v2().tags_run
    fields = [of.TagsRunFacetFields(key=k, value=v, source="DAGSTER") for k, v in tags.items()]
    return _json(of.TagsRunFacet(tags=fields))


def tests(found: Iterable[Mapping[str, Any]]) -> Facet:
    """Return ``test``: results of checks by the names of ``TestExecution``'s fields."""
    of = _v2().test_run
    return _json(of.TestRunFacet(tests=[of.TestExecution(**entry) for entry in found]))


def custom_run(values: Mapping[str, Any]) -> Facet:
    """Return a run facet of our own, for what no official one says; see ``docs/lineage.md``."""
    return {"_producer": PRODUCER, "_schemaURL": _BASE_RUN_SCHEMA, **values}


# --- jobs ---------------------------------------------------------------------------------------


def job_type(kind: str, *, period_s: int | None = None) -> Facet:
    """Return ``jobType``: a batch, or with a period a stream that reports every so often."""
    of = _v2().job_type_job
    pattern = of.EmissionPattern(
        eventTrigger="EVENT_BASED" if period_s is None else "PERIODIC",
        eventContentMode="ACCUMULATIVE" if period_s is None else "COMPLETE_SNAPSHOT",
        windowDuration=period_s,
    )
    facet = of.JobTypeJobFacet(
        processingType="BATCH" if period_s is None else "STREAMING",
        integration="MILLRACE",
        jobType=kind,
        emissionPattern=pattern,
    )
    return _json(facet)


def job_owner(owner: str) -> Facet:
    """Return ``ownership`` of a job."""
    of = _v2().ownership_job
    return _json(of.OwnershipJobFacet(owners=[of.Owner(name=owner, type="MAINTAINER")]))


def job_text(description: str) -> Facet:
    """Return ``documentation`` of a job."""
    return _json(_v2().documentation_job.DocumentationJobFacet(description=description))


def job_tags(tags: Mapping[str, str]) -> Facet:
    """Return ``tags`` of a job."""
    of = _v2().tags_job
    fields = [of.TagsJobFacetFields(key=k, value=v, source="DECLARATION") for k, v in tags.items()]
    return _json(of.TagsJobFacet(tags=fields))


def source_code(file: str, line: int) -> Facet:
    """Return ``sourceCodeLocation``: where the declaration stands."""
    from pathlib import Path

    url = f"{Path(file).absolute().as_uri()}#L{line}"
    facet = _v2().source_code_location_job.SourceCodeLocationJobFacet(
        type="file", url=url, path=file
    )
    return _json(facet)


def sql(query: str, dialect: str) -> Facet:
    """Return ``sql``: the text that the engine was given."""
    return _json(_v2().sql_job.SQLJobFacet(query=query[:_MOST_SQL], dialect=dialect))


# --- datasets -----------------------------------------------------------------------------------


def schema(fields: Iterable[tuple[str, str, str]]) -> Facet:
    """Return ``schema`` of (column, type, description); an empty description is left out."""
    of = _v2().schema_dataset
    entries = [
        of.SchemaDatasetFacetFields(
            name=name, type=type_, description=text or None, ordinal_position=place
        )
        for place, (name, type_, text) in enumerate(fields, 1)
    ]
    return _json(of.SchemaDatasetFacet(fields=entries))


def version(text: str | int) -> Facet:
    """Return ``version``: a table's Delta version, a topic's offsets, a view's version."""
    return _json(_v2().dataset_version_dataset.DatasetVersionDatasetFacet(str(text)))


def storage(layer: str, file_format: str | None = None) -> Facet:
    """Return ``storage``."""
    return _json(_v2().storage_dataset.StorageDatasetFacet(layer, file_format))


def dataset_type(kind: str) -> Facet:
    """Return ``datasetType``: ``TABLE``, ``TOPIC``, ``FILE`` and others."""
    return _json(_v2().dataset_type_dataset.DatasetTypeDatasetFacet(datasetType=kind))


def datasource(name: DatasetName) -> Facet:
    """Return ``dataSource``: the system that holds a dataset."""
    uri = name.namespace if "://" in name.namespace else f"{name.namespace}:///"
    return _json(_v2().datasource_dataset.DatasourceDatasetFacet(name=name.namespace, uri=uri))


def symlinks(asset: str) -> Facet:
    """Return ``symlinks``: the dataset's logical name, its stage and declaration."""
    of = _v2().symlinks_dataset
    link = of.Identifier(namespace=JOB_NAMESPACE, name=asset, type="TABLE")
    return _json(of.SymlinksDatasetFacet(identifiers=[link]))


def dataset_owner(owner: str) -> Facet:
    """Return ``ownership`` of a dataset."""
    of = _v2().ownership_dataset
    return _json(of.OwnershipDatasetFacet(owners=[of.Owner(name=owner, type="MAINTAINER")]))


def dataset_text(description: str) -> Facet:
    """Return ``documentation`` of a dataset."""
    return _json(_v2().documentation_dataset.DocumentationDatasetFacet(description=description))


def dataset_tags(tags: Mapping[str, str]) -> Facet:
    """Return ``tags`` of a dataset."""
    of = _v2().tags_dataset
    fields = [
        of.TagsDatasetFacetFields(key=k, value=v, source="DECLARATION") for k, v in tags.items()
    ]
    return _json(of.TagsDatasetFacet(tags=fields))


def lifecycle(change: str) -> Facet:
    """Return ``lifecycleStateChange``: ``CREATE``, ``OVERWRITE``, ``DROP`` or another."""
    of = _v2().lifecycle_state_change_dataset
    return _json(of.LifecycleStateChangeDatasetFacet(lifecycleStateChange=change))


def column_lineage(columns: Columns, names: Mapping[str, DatasetName]) -> Facet:
    """Return ``columnLineage``; ``names`` are the physical ones of the datasets it mentions."""
    of = _v2().column_lineage_dataset

    def read(entry: Mapping[str, Any]) -> Any:
        name = names[entry["name"]]
        steps = [of.Transformation(**step) for step in entry["transformations"]]
        return of.InputField(name.namespace, name.name, entry["field"], steps)

    facet = of.ColumnLineageDatasetFacet(
        fields={
            column: of.Fields(inputFields=[read(entry) for entry in found["inputFields"]])
            for column, found in columns["fields"].items()
        },
        dataset=[read(entry) for entry in columns["dataset"]],
    )
    return _json(facet)


def lineage(columns: Columns, names: Mapping[str, DatasetName]) -> Facet:
    """Return ``lineage``: the same in the newer facet, beside it while consumers move."""
    of = _v2().lineage

    def read(entry: Mapping[str, Any]) -> Any:
        name = names[entry["name"]]
        return of.LineageDatasetInput(
            namespace=name.namespace,
            name=name.name,
            type="DATASET",
            field=entry["field"],
            transformations=[of.LineageTransformation(**step) for step in entry["transformations"]],
        )

    facet = of.LineageDatasetFacet(
        inputs=[read(entry) for entry in columns["dataset"]],
        fields={
            column: of.LineageFieldEntry(inputs=[read(entry) for entry in found["inputFields"]])
            for column, found in columns["fields"].items()
        },
    )
    return _json(facet)


# --- what one run read and wrote ----------------------------------------------------------------


def output_statistics(rows: int, size: int | None = None) -> Facet:
    """Return ``outputStatistics`` of what this run wrote."""
    of = _v2().output_statistics_output_dataset
    return _json(of.OutputStatisticsOutputDatasetFacet(rowCount=rows, size=size))


def input_statistics(rows: int) -> Facet:
    """Return ``inputStatistics`` of what this run read."""
    return _json(
        _v2().input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=rows)
    )


def output_days(days: Iterable[date]) -> Facet:
    """Return ``subset`` of an output: the day partitions that were written."""
    of = _v2().base_subset_dataset
    return _json(of.OutputSubsetOutputDatasetFacet(outputCondition=_partitions(days)))


def input_days(days: Iterable[date]) -> Facet:
    """Return ``subset`` of an input: the day partitions that were read."""
    of = _v2().base_subset_dataset
    return _json(of.InputSubsetInputDatasetFacet(inputCondition=_partitions(days)))


def _partitions(days: Iterable[date]) -> Any:
    of = _v2().base_subset_dataset
    names = [day.isoformat() for day in sorted(days)]
    return of.PartitionSubsetCondition(
        partitions=[of.Partition(dimensions={"event_date": n}, identifier=n) for n in names]
    )


def metrics(rows: int | None, size: int | None, columns: Mapping[str, Mapping[str, Any]]) -> Facet:
    """Return ``dataQualityMetrics`` of a written dataset, by the facet's own field names."""
    of = _v2().data_quality_metrics_dataset
    found = _column_metrics(of, columns)
    facet = of.DataQualityMetricsDatasetFacet(columnMetrics=found, rowCount=rows, bytes=size)
    return {**_json(facet), "_schemaURL": _METRICS_SCHEMA}


def _column_metrics(of: Any, columns: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        name: of.ColumnMetrics(**{"quantiles": None, **{k: _finite(v) for k, v in found.items()}})
        for name, found in columns.items()
    }


def _finite(value: Any) -> Any:
    """Return a metric as JSON has it: there is no infinity and no NaN."""
    if isinstance(value, Mapping):
        return {key: v for key, v in value.items() if _finite(v) is not None}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def input_metrics(
    rows: int | None, size: int | None, columns: Mapping[str, Mapping[str, Any]]
) -> Facet:
    """Return ``dataQualityMetrics`` of a dataset that was read to be judged."""
    of = _v2().data_quality_metrics_input_dataset
    found = _column_metrics(of, columns)
    facet = of.DataQualityMetricsInputDatasetFacet(columnMetrics=found, rowCount=rows, bytes=size)
    return _json(facet)


def assertions(found: Iterable[Mapping[str, Any]]) -> Facet:
    """Return ``dataQualityAssertions`` by the names of ``Assertion``'s fields."""
    of = _v2().data_quality_assertions_dataset
    entries = [of.Assertion(**entry) for entry in found]
    return _json(of.DataQualityAssertionsDatasetFacet(assertions=entries))
