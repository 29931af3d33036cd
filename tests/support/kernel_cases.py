"""Reference events told to the kernel."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pyarrow as pa

from millrace.aggregates import AGGREGATES, Aggregate
from millrace.kernel.arrow import KernelFeature, KernelView, arrow_type, join_features
from millrace.types import STRING, DataType, parse_type
from tests import reference
from tests.support.oracle import bound_to, told
from tests.support.window_cases import window_of

KEY = "k"


@dataclass(frozen=True)
class Query:
    """One spine row."""

    key: object
    q_ms: int


EVERY = tuple(
    name
    for entry in AGGREGATES.values()
    for name in ([entry.name] if entry.needs_input else [f"{entry.name}_rows", entry.name])
)
"""Every aggregate as the reference names it: of values, and of events as such."""


def bound(aggregate: str, measure: DataType) -> Aggregate:
    """Return an aggregate that the reference names so, of a measure of a type."""
    name = aggregate.removesuffix("_rows")
    return bound_to(name, measure if name == aggregate else None)


def feature(
    aggregate: str, length_ms: int | None, hop_ms: int, offset_ms: int = 0, type_: str = "int64"
) -> reference.Feature:
    """Return a feature with the parameters that tests tell its aggregate."""
    parameters = told(aggregate.removesuffix("_rows"))
    return reference.Feature(aggregate, length_ms, hop_ms, offset_ms, type_, parameters=parameters)


def accepting(aggregates: Iterable[str], type_: str) -> list[str]:
    """Return those of some aggregates that take a type."""
    wanted = parse_type(type_)
    return [a for a in aggregates if AGGREGATES[a.removesuffix("_rows")].accepts(wanted)]


def default_of(aggregate: str, measure: DataType) -> object:
    """Return a default for a feature; None if it is never null, or none can be written of its type."""
    of_type = bound(aggregate, measure)
    if of_type.entry.is_never_null:
        return None
    type_ = of_type.type
    if type_.kind == "decimal":
        return Decimal(-7).scaleb(-type_.scale)
    by_kind: dict[str, object] = {
        "int32": -7, "int64": -7, "float64": -1.5, "string": "none", "bool": True,
        "date": date(2024, 2, 29),
    }  # fmt: skip
    return by_kind.get(type_.kind)


def kernel_view(
    features: Sequence[reference.Feature], *, has_event_id: bool, key_types: Sequence[DataType]
) -> KernelView:
    """Return a view over reference features; all of them read one measure, of one type."""
    measure = parse_type(features[0].type)
    return KernelView(
        join_keys=tuple(f"{KEY}{i}" for i in range(len(key_types))),
        measures=(("m0", measure),),
        has_event_id=has_event_id,
        features=tuple(
            KernelFeature(
                f"f{i}",
                bound(f.aggregate, measure),
                "m0" if f.aggregate == f.aggregate.removesuffix("_rows") else None,
                window_of(f),
                f.default,
            )
            for i, f in enumerate(features)
        ),
    )


def key_columns(keys: Sequence[object], key_types: Sequence[DataType]) -> Mapping[str, pa.Array]:
    rows = [key if isinstance(key, tuple) else (key,) * len(key_types) for key in keys]
    return {
        f"{KEY}{i}": pa.array([row[i] for row in rows], arrow_type(t))
        for i, t in enumerate(key_types)
    }


def events_table(
    events: Sequence[reference.Event],
    measure: DataType,
    *,
    has_event_id: bool,
    key_types: Sequence[DataType],
) -> pa.Table:
    columns = {
        **key_columns([e.key for e in events], key_types),
        "_event_ms": pa.array([e.event_ms for e in events], pa.int64()),
        "_ingest_ms": pa.array([e.ingest_ms for e in events], pa.int64()),
        "m0": pa.array([e.value for e in events], arrow_type(measure)),
    }
    if has_event_id:
        columns["_event_id"] = pa.array([e.event_id for e in events], pa.string())
    return pa.table(columns)


def kernel_values(
    events: Sequence[reference.Event],
    features: Sequence[reference.Feature],
    queries: Sequence[Query],
    *,
    hindsight: bool = False,
    has_event_id: bool = True,
    key_types: Sequence[DataType] = (STRING,),
    max_rows_per_chunk: int = 1 << 18,
    threads: int = 1,
) -> list[list[object]]:
    """Return the features of each query, as Python values, from the kernel."""
    view = kernel_view(features, has_event_id=has_event_id, key_types=key_types)
    spine = pa.table(
        {
            **key_columns([q.key for q in queries], key_types),
            "_query_ms": pa.array([q.q_ms for q in queries], pa.int64()),
        }
    )
    table = events_table(
        events, view.measures[0][1], has_event_id=has_event_id, key_types=key_types
    )
    out = join_features(
        view,
        table,
        spine,
        hindsight=hindsight,
        max_rows_per_chunk=max_rows_per_chunk,
        threads=threads,
    )
    assert out.column_names == [f.name for f in view.features]
    assert [c.type for c in out.columns] == [arrow_type(f.type) for f in view.features]
    out.validate(full=True)
    columns = [column.to_pylist() for column in out.columns]
    return [list(row) for row in zip(*columns, strict=True)] if columns[0] else []
