"""Where a view's values come from, read off the declaration.

The kernel that computes features is opaque to an engine's own lineage, so this is the truth of it.
Datasets are named relative to the lake (``events/<source>``); an emitter adds namespaces. The
column lineage has the shape and the transformation types of OpenLineage's facet 1-2-0.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from millrace.aggregates import Partial, check_forms, partials
from millrace.compile.tile_forms import ENCODED
from millrace.durations import format_duration
from millrace.names import dead_letters_table, events_table
from millrace.plan import DerivedPlan, FeaturePlan, Output, SourcePlan, ViewPlan
from millrace.tiles import TILE_START, TileColumn, feature_columns, tile_columns
from millrace.types import DATE, INT64, STRING, TIMESTAMP, DataType
from millrace.window import Window

DOCUMENT = "millrace/lineage/v1"

ColumnLineage = dict[str, Any]
"""``fields``: column to the columns its values are made of; ``dataset``: those that decide which
rows there are."""


def lineage(view: ViewPlan) -> dict[str, Any]:
    """Return the lineage of a view: a JSON document, the same for the same plan.

    ``datasets`` are in the order of the flow, each with its inputs. ``column_lineage`` is that of
    ``features/<view>``: per column the source columns its values are made of (DIRECT), and for
    the whole dataset the columns that decide which events count (INDIRECT). A count of rows is
    made of no column. ``column_lineage_of`` is the same for each of the other tables.
    """
    return {
        "document": DOCUMENT,
        "view": view.name,
        "fingerprint": view.fingerprint,
        "datasets": _datasets(view),
        "column_lineage": features_columns(view, events_table(view.source.name)),
        "column_lineage_of": {
            events_table(view.source.name): events_columns(view.source, origins(view.source)),
            _tiles(view): tiles_columns(view, events_table(view.source.name)),
            **(
                {f"online/{view.name}": online_columns(view, _tiles(view))}
                if view.is_online
                else {}
            ),
        },
    }


def origins(source: SourcePlan) -> tuple[str, ...]:
    """Return what a source is read from: the path of its files, its topic, or both."""
    batch = () if source.batch is None else (source.batch.path,)
    return batch if source.stream is None else (*batch, source.stream.topic)


def events_columns(source: SourcePlan, read_from: Sequence[str]) -> ColumnLineage:
    """Return the column lineage of ``events/<source>`` from files, a topic, or both.

    A declared column is what the files and records call so; the system columns are made of the
    times.
    """
    made = {c.name: (c.origin, "IDENTITY") for c in source.columns}
    event_time = source.column(source.event_time).origin
    ingest_time = source.column(source.ingest_time or source.event_time).origin
    made |= dict.fromkeys(("_event_ms", "event_date"), (event_time, "TRANSFORMATION"))
    made["_ingest_ms"] = (ingest_time, "TRANSFORMATION")
    return {
        "fields": {
            name: {"inputFields": [_field(d, column, "DIRECT", how) for d in read_from]}
            for name, (column, how) in made.items()
        },
        "dataset": [field for d in read_from for field in _accepting(source, d)],
    }


def _accepting(source: SourcePlan, dataset: str) -> list[dict[str, Any]]:
    """Return the columns that decide whether an event is accepted."""
    times = [source.event_time, *([source.ingest_time] if source.ingest_time else [])]
    fields = [
        _field(dataset, source.column(c).origin, "INDIRECT", "FILTER", "late or in the future")
        for c in times
    ]
    if source.event_id is not None:
        event_id = source.column(source.event_id).origin
        fields.append(_field(dataset, event_id, "INDIRECT", "FILTER", "first copy of an id"))
    return fields


def tiles_columns(view: ViewPlan, events: str) -> ColumnLineage:
    """Return the column lineage of ``tiles/<view>``; ``events`` is the dataset it is read from."""
    time = view.source.event_time
    fields = _keys(view, events)
    for name in (TILE_START, "event_date"):
        fields[name] = {"inputFields": [_field(events, time, "DIRECT", "TRANSFORMATION")]}
    for column in tile_columns(view):
        fields[column.name] = {"inputFields": _partial(column, time, events)}
    return {"fields": fields, "dataset": _deciding(view, events)}


def _partial(column: TileColumn, time: str, events: str) -> list[dict[str, Any]]:
    text, masking = _TEXTS[type(column.partial)], not column.partial.tells_values
    if column.measure is None:
        said = text.format(of="*", time=time)
        return [_field(events, time, "DIRECT", "AGGREGATION", said)] if "{time}" in text else []
    expression = column.measure.expression
    said = text.format(of=expression.text, time=time)
    return [
        _field(events, name, "DIRECT", "AGGREGATION", said, masking=masking)
        for name in expression.columns
    ]


def features_columns(view: ViewPlan, events: str) -> ColumnLineage:
    """Return the column lineage of a view's values as read from a dataset of its events.

    That dataset is the table of events, or the topic for the values of the stream.
    """
    time = _field(events, view.source.event_time, "DIRECT", "TRANSFORMATION")
    return {
        "fields": {
            **_keys(view, events),
            "event_time": {"inputFields": [time]},
            **{
                f.name: {"inputFields": _made_of(view, f, lambda a: _inputs(a, events))}
                for f in view.outputs
            },
        },
        "dataset": _deciding(view, events),
    }


def online_columns(view: ViewPlan, tiles: str) -> ColumnLineage:
    """Return the column lineage of what is served of a view, as merged from its tiles."""
    return {
        "fields": {
            **_keys(view, tiles),
            **{
                f.name: {"inputFields": _made_of(view, f, lambda a: _merged(a, tiles))}
                for f in view.outputs
            },
        },
        "dataset": [_field(tiles, TILE_START, "INDIRECT", "WINDOW")],
    }


def _tiles(view: ViewPlan) -> str:
    return f"tiles/{view.name}"


def _keys(view: ViewPlan, dataset: str) -> dict[str, Any]:
    return {
        e.join_key: {"inputFields": [_field(dataset, e.join_key, "DIRECT", "IDENTITY")]}
        for e in view.entities
    }


def _datasets(view: ViewPlan) -> list[dict[str, Any]]:
    source, events, tiles = view.source, events_table(view.source.name), _tiles(view)
    served, raw = f"online/{view.name}", list[dict[str, Any]]()
    if source.batch is not None:
        raw.append({"name": source.batch.path, "kind": source.batch.format, "inputs": []})
    topic = []
    if source.stream is not None:
        topic = [source.stream.topic]
        raw.append({"name": source.stream.topic, "kind": "kafka", "inputs": []})
    return [
        *raw,
        _dataset(events, "delta", [dataset["name"] for dataset in raw], event_fields(source)),
        _dataset(
            dead_letters_table(source.name), "delta", [dataset["name"] for dataset in raw], []
        ),
        _dataset(tiles, "delta", [events], tile_fields(view)),
        _dataset(f"features/{view.name}", "delta", [events], feature_fields(view)),
        *(
            [_dataset(served, "redis", [tiles, *topic], online_fields(view))]
            if view.is_online
            else []
        ),
    ]


def event_fields(source: SourcePlan) -> list[tuple[str, DataType]]:
    """Return the declared columns of a source, those of ``events/<source>``."""
    return [(c.name, c.type) for c in source.columns]


def raw_fields(source: SourcePlan) -> list[tuple[str, DataType]]:
    """Return the declared columns as the source's files and records call them."""
    return list(dict.fromkeys((c.origin, c.type) for c in source.columns))


def tile_fields(view: ViewPlan) -> list[tuple[str, DataType]]:
    """Return the columns of ``tiles/<view>``; of a first or last the type of the value in it."""
    return [
        *((e.join_key, e.type) for e in view.entities),
        (TILE_START, INT64),
        *((c.name, c.type) for c in tile_columns(view)),
        ("event_date", DATE),
    ]


def feature_fields(view: ViewPlan) -> list[tuple[str, DataType]]:
    """Return the columns of ``features/<view>``."""
    keys = [(e.join_key, e.type) for e in view.entities]
    features = [(f.name, f.type) for f in view.outputs]
    return [*keys, ("event_time", TIMESTAMP), *features, ("feature_version", STRING)]


def online_fields(view: ViewPlan) -> list[tuple[str, DataType]]:
    """Return what is served of an entity: its keys and the features."""
    keys = [(e.join_key, e.type) for e in view.entities]
    return [*keys, *((f.name, f.type) for f in view.outputs)]


def _dataset(
    name: str, kind: str, inputs: list[str], columns: list[tuple[str, DataType]]
) -> dict[str, Any]:
    fields = [{"name": column, "type": str(type_)} for column, type_ in columns]
    return {"name": name, "kind": kind, "inputs": inputs, "fields": fields}


_Fields = list[dict[str, Any]]


def _made_of(view: ViewPlan, feature: Output, of: Callable[[FeaturePlan], _Fields]) -> _Fields:
    """Return the columns of an aggregate, or those of all that a value is derived of, each once.

    The transformations of one column are those of each aggregate of it, then the expression.
    """
    if not isinstance(feature, DerivedPlan):
        return of(feature)
    fields: dict[str, dict[str, Any]] = {}
    for field in (field for a in view.aggregates_of(feature) for field in of(a)):
        steps = fields.setdefault(field["field"], {**field, "transformations": []})
        steps["transformations"] += [
            step for step in field["transformations"] if step not in steps["transformations"]
        ]
    derived = _transformation("DIRECT", "TRANSFORMATION", feature.expression.text)
    return [{**f, "transformations": [*f["transformations"], derived]} for f in fields.values()]


def _merged(feature: FeaturePlan, tiles: str) -> _Fields:
    said = _window_text(feature.window)
    return [
        _field(tiles, column, "DIRECT", "AGGREGATION", said) for column in feature_columns(feature)
    ]


def _inputs(feature: FeaturePlan, events: str) -> list[dict[str, Any]]:
    if feature.measure is None:
        return []
    expression = feature.measure.expression
    said = f"{feature.aggregate.of(expression.text)} {_window_text(feature.window)}"
    # A count tells how many values there were and none of them.
    masking = not feature.aggregate.entry.shows_values
    return [
        _field(events, column, "DIRECT", "AGGREGATION", said, masking=masking)
        for column in expression.columns
    ]


def _deciding(view: ViewPlan, events: str) -> list[dict[str, Any]]:
    source = view.source
    fields = [_field(events, key, "INDIRECT", "GROUP_BY") for key in view.join_keys]
    fields.append(_field(events, source.event_time, "INDIRECT", "WINDOW"))
    if view.filter is not None:
        fields += [
            _field(events, column, "INDIRECT", "FILTER", view.filter.text)
            for column in view.filter.columns
        ]
    if source.event_id is not None:
        fields.append(_field(events, source.event_id, "INDIRECT", "FILTER", "first copy of an id"))
    return fields


def _field(
    dataset: str,
    column: str,
    kind: str,
    subtype: str,
    description: str = "",
    *,
    masking: bool = False,
) -> dict[str, Any]:
    step = _transformation(kind, subtype, description, masking=masking)
    return {"name": dataset, "field": column, "transformations": [step]}


def _transformation(
    kind: str, subtype: str, description: str, *, masking: bool = False
) -> dict[str, Any]:
    transformation: dict[str, Any] = {"type": kind, "subtype": subtype, "masking": masking}
    if description:
        transformation["description"] = description
    return transformation


def _window_text(window: Window) -> str:
    words = f"a {window.words}" if window.length_ms is None else window.words
    ago = f", {window.ago} ago" if window.ago else ""
    return f"over {words} by {format_duration(window.hop_ms)}{ago}"


_TEXTS: Mapping[type[Partial], str] = MappingProxyType(
    {
        partials.Rows: "count(*)",
        partials.Count: "count({of})",
        partials.Sum: "sum({of})",
        partials.VectorSums: "sums({of})",
        partials.Min: "min({of})",
        partials.Max: "max({of})",
        partials.Mean: "mean({of})",
        partials.M2: "m2({of})",
        partials.First: "first({of})",
        partials.Last: "last({of})",
        partials.FirstTime: "min({time})",
        partials.LastTime: "max({time})",
        partials.LastEvent: "max({time})",
        **{kind: f"{kind.suffix}({{of}})" for kind in ENCODED},
    }
)
"""What is said of each partial, of its input and the column of event time."""

check_forms("lineage", partials.PARTIALS, _TEXTS)
