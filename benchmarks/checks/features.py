"""The features of the example views over a whole table, computed in this process."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.checks.days import Dataset, read_plan, read_table, split_by_day
from millrace.compile.checks import check_rules
from millrace.expressions.arrow import evaluate_column
from millrace.kernel.arrow import KernelView, arrow_type, join_features
from millrace.plan import ViewPlan
from millrace.quality.partial import view_shape


def feature_tables(data: Path, example: str) -> list[Dataset]:
    """Return ``features/<view>/v1`` of each view of an example, with the view's default rules."""
    views = read_plan(example).views.values()
    return [features_of(read_table(data, view.source), view) for view in views]


def features_of(table: pa.Table, view: ViewPlan) -> Dataset:
    """Return the features of a view over raw rows, in order of event time."""
    source = view.source
    table = table.select([c.name for c in source.columns])
    for place, column in enumerate(source.columns):
        kind = arrow_type(column.type)
        values = table[column.name]
        if pa.types.is_decimal(kind) and pa.types.is_floating(values.type):
            values = pc.round(values, kind.scale)
        values = values.cast(kind, safe=False)
        table = table.set_column(place, column.name, values)
    if view.filter is not None:
        table = table.filter(evaluate_column(view.filter, table))
    events_by_day = split_by_day(table, source.event_time)
    for key in view.join_keys:
        table = table.filter(pc.is_valid(table[key]))
    times = table[source.event_time].cast(pa.timestamp("ms")).cast(pa.int64())
    keys = {key: table[key] for key in view.join_keys}
    events = pa.table(
        {
            **keys,
            "_event_ms": times,
            "_ingest_ms": times,
            **{m.name: evaluate_column(m.expression, table) for m in view.measures},
        }
    )
    kernel = replace(KernelView.of(view), has_event_id=False)
    made = join_features(kernel, events, pa.table({**keys, "_query_ms": times}), threads=2)
    rows = pa.table({**keys, **{n: made[n] for n in made.column_names}, "event_time": times})
    named = rows.set_column(
        rows.num_columns - 1, "event_time", times.cast(pa.timestamp("ms", "UTC"))
    )
    shape = view_shape(view, "v1")
    days = split_by_day(named, "event_time")
    null_keys = {
        d: t.num_rows - (days[d].num_rows if d in days else 0) for d, t in events_by_day.items()
    }
    return Dataset(shape.table, "event_time", shape, check_rules(view), days, null_keys)
