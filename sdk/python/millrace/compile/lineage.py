"""Where a view's values come from, read off the declaration.

The kernel that computes features is opaque to an engine's own lineage, so this is the truth of it.
Datasets are named relative to the lake (``events/<source>``); an emitter adds namespaces. The
column lineage has the shape and the transformation types of OpenLineage's facet 1-2-0.
"""

from typing import Any

from millrace.durations import format_duration
from millrace.plan import FeaturePlan, ViewPlan
from millrace.types import STRING, TIMESTAMP, DataType
from millrace.windows import Window

DOCUMENT = "millrace/lineage/v1"


def lineage(view: ViewPlan) -> dict[str, Any]:
    """Return the lineage of a view: a JSON document, the same for the same plan.

    ``datasets`` are in the order of the flow, each with its inputs. ``column_lineage`` is that of
    ``features/<view>``: per column the source columns its values are made of (DIRECT), and for
    the whole dataset the columns that decide which events count (INDIRECT). A count of rows is
    made of no column.
    """
    events = f"events/{view.source.name}"
    keys = {
        e.join_key: {"inputFields": [_field(events, e.join_key, "DIRECT", "IDENTITY")]}
        for e in view.entities
    }
    time = _field(events, view.source.event_time, "DIRECT", "TRANSFORMATION")
    return {
        "document": DOCUMENT,
        "view": view.name,
        "fingerprint": view.fingerprint,
        "datasets": _datasets(view, events),
        "column_lineage": {
            "fields": {
                **keys,
                "event_time": {"inputFields": [time]},
                **{f.name: {"inputFields": _inputs(f, events)} for f in view.features},
            },
            "dataset": _deciding(view, events),
        },
    }


def _datasets(view: ViewPlan, events: str) -> list[dict[str, Any]]:
    source, tiles = view.source, f"tiles/{view.name}"
    raw: list[dict[str, Any]] = []
    if source.batch is not None:
        raw.append({"name": source.batch.path, "kind": source.batch.format, "inputs": []})
    if source.stream is not None:
        raw.append({"name": source.stream.topic, "kind": "kafka", "inputs": []})
    columns = [(c.name, c.type) for c in source.columns]
    features = [(e.join_key, e.type) for e in view.entities]
    features += [("event_time", TIMESTAMP), *((f.name, f.type) for f in view.features)]
    return [
        *raw,
        _dataset(events, "delta", [dataset["name"] for dataset in raw], columns),
        {"name": tiles, "kind": "delta", "inputs": [events]},
        _dataset(
            f"features/{view.name}", "delta", [events], [*features, ("feature_version", STRING)]
        ),
        {"name": f"online/{view.name}", "kind": "redis", "inputs": [tiles]},
    ]


def _dataset(
    name: str, kind: str, inputs: list[str], columns: list[tuple[str, DataType]]
) -> dict[str, Any]:
    fields = [{"name": column, "type": str(type_)} for column, type_ in columns]
    return {"name": name, "kind": kind, "inputs": inputs, "fields": fields}


def _inputs(feature: FeaturePlan, events: str) -> list[dict[str, Any]]:
    if feature.measure is None:
        return []
    expression = feature.measure.expression
    said = f"{feature.aggregate}({expression.text}) {_window_text(feature.window)}"
    # A count tells how many values there were and none of them.
    masking = feature.aggregate == "count"
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
    transformation: dict[str, Any] = {"type": kind, "subtype": subtype, "masking": masking}
    if description:
        transformation["description"] = description
    return {"name": dataset, "field": column, "transformations": [transformation]}


def _window_text(window: Window) -> str:
    length = "a lifetime" if window.length_ms is None else format_duration(window.length_ms)
    ago = f", {format_duration(window.offset_ms)} ago" if window.offset_ms else ""
    return f"over {length} by {format_duration(window.hop_ms)}{ago}"
