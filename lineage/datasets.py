"""The platform's datasets as OpenLineage has them: a physical name and what is known about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lineage import facets
from lineage.naming import (
    DatasetName,
    location_name,
    online_name,
    table_name,
    topic_name,
)
from millrace.compile import lineage as declared
from millrace.names import events_table, features_table, tiles_table
from millrace.plan import SourcePlan, ViewPlan
from millrace.types import DataType
from resources.settings import Settings

Facets = Mapping[str, Any]
Descriptions = Mapping[str, str]


@dataclass(frozen=True)
class Dataset:
    """A dataset as an input or output of a run; facets by their keys."""

    id: DatasetName
    facets: Facets = field(default_factory=dict)
    input_facets: Facets = field(default_factory=dict)
    output_facets: Facets = field(default_factory=dict)

    def with_facets(self, facets: Facets) -> "Dataset":
        """Return the dataset with more facets."""
        return replace(self, facets={**self.facets, **facets})

    def with_input_facets(self, facets: Facets) -> "Dataset":
        """Return the dataset with more facets about its being read."""
        return replace(self, input_facets={**self.input_facets, **facets})

    def with_output_facets(self, facets: Facets) -> "Dataset":
        """Return the dataset with more facets about its being written."""
        return replace(self, output_facets={**self.output_facets, **facets})

    def as_input(self) -> dict[str, Any]:
        """Return it as an entry of an event's ``inputs``."""
        return {**self._json(), "inputFacets": dict(self.input_facets)}

    def as_output(self) -> dict[str, Any]:
        """Return it as an entry of an event's ``outputs``."""
        return {**self._json(), "outputFacets": dict(self.output_facets)}

    def as_static(self) -> dict[str, Any]:
        """Return it as the subject of an event without a run."""
        return self._json()

    def _json(self) -> dict[str, Any]:
        return {"namespace": self.id.namespace, "name": self.id.name, "facets": dict(self.facets)}


def files(settings: Settings, source: SourcePlan) -> Dataset:
    """Return the raw files of a source.

    Raises:
        DataError: the source has none.
        SetupError: its path needs a variable that is not set.
    """
    batch = source.files
    name = location_name(settings.expand(batch.path, where=f"source {source.name}"))
    about = _about(name, "FILE", f"raw/{source.name}", source.description)
    return Dataset(name, {**about, "schema": _raw_schema(source)})


def topic(bootstrap: str, source: SourcePlan) -> Dataset | None:
    """Return the topic of a source; None if it has none."""
    if source.stream is None:
        return None
    name = topic_name(bootstrap, source.stream.topic)
    about = _about(name, "TOPIC", f"topic/{source.name}", source.description)
    return Dataset(name, {**about, "schema": _raw_schema(source)})


def events(settings: Settings, source: SourcePlan, read_from: Sequence[Dataset] = ()) -> Dataset:
    """Return ``events/<source>``; with what a run reads it from also its column lineage."""
    found = table(settings, events_table(source.name), description=source.description)
    found = found.with_facets({"schema": _event_schema(source)})
    if not read_from:
        return found
    names = {f"{d.id.namespace} {d.id.name}": d.id for d in read_from}
    return found.with_facets(columns_of(declared.events_columns(source, list(names)), names))


def tiles(settings: Settings, view: ViewPlan, version: str) -> Dataset:
    """Return ``tiles/<view>`` with its column lineage."""
    found = table(settings, tiles_table(view.name, version), view=view)
    events = events_table(view.source.name)
    names = {events: table_name(settings, events)}
    columns = columns_of(declared.tiles_columns(view, events), names)
    return found.with_facets({"schema": _schema(declared.tile_fields(view)), **columns})


def features(settings: Settings, view: ViewPlan, version: str) -> Dataset:
    """Return ``features/<view>`` with its column lineage."""
    found = table(settings, features_table(view.name, version), view=view)
    events = events_table(view.source.name)
    names = {events: table_name(settings, events)}
    columns = columns_of(declared.features_columns(view, events), names)
    schema = _schema(declared.feature_fields(view), _descriptions(view))
    return found.with_facets({"schema": schema, **columns})


def online(
    store_url: str, view: ViewPlan, version: str, *, read_from: Dataset, is_stream: bool
) -> Dataset:
    """Return what the store serves of a view, with its column lineage.

    Args:
        store_url: of the store; no secret of it is told.
        view: the view.
        version: ``v1``, ``v2``, …
        read_from: the table of tiles of an upload, or the topic of a stream.
        is_stream: which of them it is.
    """
    found = online_view(store_url, view.name, version)
    columns = declared.features_columns if is_stream else declared.online_columns
    names = {"read": read_from.id}
    lineage = columns(view, "read")
    served = {name for name, _ in declared.online_fields(view)}
    lineage["fields"] = {n: f for n, f in lineage["fields"].items() if n in served}
    schema = _schema(declared.online_fields(view), _descriptions(view))
    return found.with_facets({**_of_view(view), "schema": schema, **columns_of(lineage, names)})


def online_view(store_url: str, view: str, version: str) -> Dataset:
    """Return what the store serves of a view of which no more than the name is known."""
    name = online_name(store_url, view)
    about = _about(name, "KEY_VALUE", f"online/{view}", "")
    return Dataset(name, {**about, "version": facets.version(version)})


def table(
    settings: Settings,
    name: str,
    *,
    view: ViewPlan | None = None,
    description: str = "",
    delta_version: int | None = None,
) -> Dataset:
    """Return a Delta table of the lake by its name, such as ``features/customer_spend/v1``."""
    physical = table_name(settings, name)
    asset = "/".join(name.split("/")[:2])
    about = _about(physical, "TABLE", asset, description)
    found = Dataset(physical, {**about, "storage": facets.storage("delta", "parquet")})
    if view is not None:
        found = found.with_facets(_of_view(view))
    if delta_version is not None:
        found = found.with_facets({"version": facets.version(delta_version)})
    return found


def training_set(path: str, columns: Sequence[tuple[str, str]], lineage: Facets) -> Dataset:
    """Return the file of a training set; ``lineage`` are its facets about columns."""
    name = location_name(path)
    about = _about(name, "FILE", "", "")
    schema = facets.schema((column, type_, "") for column, type_ in columns)
    return Dataset(name, {**about, "schema": schema, **lineage})


def plain_file(path: str) -> Dataset:
    """Return a file of which nothing but its place is known."""
    name = location_name(path)
    return Dataset(name, _about(name, "FILE", "", ""))


def columns_of(columns: facets.Columns, names: Mapping[str, DatasetName]) -> dict[str, Any]:
    """Return column lineage in both of its facets; ``names`` are those it mentions datasets by."""
    return {
        "columnLineage": facets.column_lineage(columns, names),
        "lineage": facets.lineage(columns, names),
    }


def _about(name: DatasetName, kind: str, asset: str, description: str) -> dict[str, Any]:
    return {
        "datasetType": facets.dataset_type(kind),
        "dataSource": facets.datasource(name),
        **({"symlinks": facets.symlinks(asset)} if asset else {}),
        **({"documentation": facets.dataset_text(description)} if description else {}),
    }


def _of_view(view: ViewPlan) -> dict[str, Any]:
    return {
        **({"ownership": facets.dataset_owner(view.owner)} if view.owner else {}),
        **({"tags": facets.dataset_tags(view.tags)} if view.tags else {}),
        **({"documentation": facets.dataset_text(view.description)} if view.description else {}),
    }


def _event_schema(source: SourcePlan) -> facets.Facet:
    texts = {c.name: c.description for c in source.columns}
    return _schema(declared.event_fields(source), texts)


def _raw_schema(source: SourcePlan) -> facets.Facet:
    texts = {c.origin: c.description for c in source.columns}
    return _schema(declared.raw_fields(source), texts)


def _descriptions(view: ViewPlan) -> Descriptions:
    return {
        **{e.join_key: e.description for e in view.entities},
        **{f.name: f.description for f in view.outputs},
    }


def _schema(
    fields: Sequence[tuple[str, DataType]], texts: Descriptions | None = None
) -> facets.Facet:
    texts = texts or {}
    return facets.schema((name, str(type_), texts.get(name, "")) for name, type_ in fields)
