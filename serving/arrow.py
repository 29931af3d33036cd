"""Answers as a stream of Arrow: one batch, a row per key, typed as the lake is.

pyarrow is loaded by the first answer that needs it, beside the loop that serves.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millrace.types import DataType
from millrace.values.arrow import arrow_type
from serving.columns import Columns, faults_of, statuses_of, statuses_of_keys, written
from serving.instants import instant_text
from serving.keys import key_values
from serving.rendering import ENCODER, KeyRenderer

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_body(
    asked: KeyRenderer, entity_name: str, as_of_ms: int, columns: Columns, *, has_ts: bool
) -> bytes:
    """Return the stream of an answer.

    Its columns: the join keys, null where the key is none of the entity; ``key.status``; of each
    feature ``label``, ``label.ts`` and ``label.status``, the version in the metadata of the first. The
    schema's metadata have ``entity_name``, ``as_of``, and ``errors`` if there are some.
    """
    import pyarrow as pa

    keys: list[dict[str, Any]] = [
        {} if place in columns.faults else key_values(asked.plan.join_keys, key, "keys")
        for place, key in enumerate(columns.keys)
    ]
    fields: list[tuple[pa.Field, pa.Array]] = []

    def add(name: str, array: "pa.Array", version: str | None = None) -> None:
        told = None if version is None else {"version": version}
        fields.append((pa.field(name, array.type, metadata=told), array))

    for name, type_ in asked.plan.join_keys:
        add(name, pa.array([key.get(name) for key in keys], _type(type_)))
    add("key.status", _named(statuses_of_keys(columns)))
    for i, label in enumerate(asked.labels):
        mask, type_ = asked.shown[i]
        values = columns.values[i]
        array = (
            pa.array(values, _type(type_))
            if mask is None
            else pa.array([None if v is None else str(v) for v in written(values, mask)])
        )
        add(label, array, asked.versions[i])
        if has_ts:
            add(f"{label}.ts", pa.array(columns.ts_ms[i], pa.timestamp("ms", "UTC")))
        add(f"{label}.status", _named(statuses_of(columns, i)))
    metadata = {"entity_name": entity_name, "as_of": str(instant_text(as_of_ms))}
    if columns.faults:
        metadata["errors"] = ENCODER.encode(faults_of(columns)).decode()
    schema = pa.schema([field for field, _ in fields], metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        stream.write_batch(pa.record_batch([array for _, array in fields], schema=schema))
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _type(type_: DataType) -> "pa.DataType":
    """Return the lake's type, but for instants: these are milliseconds, as every value of one is."""
    import pyarrow as pa

    if type_.kind == "list":
        return pa.list_(_type(type_.values))
    return pa.timestamp("ms", "UTC") if type_.kind == "timestamp" else arrow_type(type_)


def _named(statuses: Sequence[str]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(statuses, pa.string()).dictionary_encode()
