"""Features for a spine in this process: delta-rs reads, Arrow computes, the kernel joins. No JVM."""

from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, cast

from millrace.days import day_ranges
from millrace.plan import Measure, ViewPlan
from millrace.types import DataType
from offline.tables.history import History
from resources.lake.delta import open_dataset, open_table
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Expression as Condition

_THREADS = 2
_EVENT_ID = "_event_id"


def join_locally(
    settings: Settings,
    history: History,
    spine: "pa.Table",
    *,
    reads_event_id: bool,
    hindsight: bool,
) -> "pa.Table":
    """Return the features of each spine row, one row per row of the spine, in its order.

    Args:
        settings: where the lake is.
        history: the view and the days to read.
        spine: the join keys in their declared types (nulls allowed), and ``_query_ms`` int64.
        reads_event_id: ties of first and last are broken by event id.
        hindsight: see events before they arrived, too.
    """
    from millrace.kernel.arrow import KernelView, join_features

    view = replace(KernelView.of(history.view), has_event_id=reads_event_id)
    events = read_events(settings, history, reads_event_id=reads_event_id)
    return join_features(view, events, spine, hindsight=hindsight, threads=_THREADS)


def read_events(
    settings: Settings,
    history: History,
    *,
    reads_event_id: bool,
    only: "Condition | None" = None,
) -> "pa.Table":
    """Read the events of a history with the view's measures computed; unordered.

    Only the columns that are needed leave the files. Rows are the events that count for the view:
    its filter is true, no join key is null, none lies before its start.

    Args:
        settings: where the lake is.
        history: the view and the days to read.
        reads_event_id: whether ``_event_id`` is wanted.
        only: a further condition on the columns of the lake, such as a few keys.

    Returns:
        the join keys, ``_event_ms``, ``_ingest_ms``, ``_event_id`` if asked for, and the
        measures, with the Arrow types of their declared types.
    """
    columns_read = needed_columns(history.view, reads_event_id=reads_event_id)
    table = _read_columns(settings, history, columns_read, only)
    return measured_events(
        history.view,
        table,
        reads_event_id=reads_event_id,
        has_null_keys=history.has_null_keys,
    )


def measured_events(
    view: ViewPlan, table: "pa.Table", *, reads_event_id: bool, has_null_keys: bool = True
) -> "pa.Table":
    """Return those events that count for a view, with its measures computed.

    Args:
        view: the view.
        table: accepted events of its source, with the columns of ``needed_columns``.
        reads_event_id: whether ``_event_id`` is wanted.
        has_null_keys: False if no join key is known to be null.

    Returns:
        what ``read_events`` returns.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if view.filter is not None:
        from millrace.expressions.arrow import evaluate_column

        table = table.filter(evaluate_column(view.filter, table))
    if has_null_keys:
        for key in view.join_keys:
            table = table.filter(pc.is_valid(table.column(key)))
    columns = {e.join_key: _typed(table.column(e.join_key), e.type) for e in view.entities}
    columns |= {name: table.column(name) for name in ("_event_ms", "_ingest_ms")}
    if reads_event_id and view.source.event_id is not None:
        columns[_EVENT_ID] = table.column(view.source.event_id)
    columns |= {m.name: _measured(m, table) for m in view.measures}
    return pa.table(columns)


def needed_columns(view: ViewPlan, *, reads_event_id: bool) -> list[str]:
    """Return which columns of its source's events a view reads, each once."""
    names = [*view.join_keys, "_event_ms", "_ingest_ms"]
    if reads_event_id and view.source.event_id is not None:
        names.append(view.source.event_id)
    if view.filter is not None:
        names.extend(view.filter.columns)
    for measure in view.measures:
        names.extend(measure.expression.columns)
    return list(dict.fromkeys(names))


def _read_columns(
    settings: Settings, history: History, columns: list[str], only: "Condition | None"
) -> "pa.Table":
    opened = open_table(settings, history.table)
    if opened is None or not history.days:
        return _no_rows(history.view, columns)
    if int(opened.version()) != history.version:
        opened.load_as_version(history.version)
    dataset = open_dataset(opened)
    within = _within(history.days)
    return dataset.to_table(columns=columns, filter=within if only is None else within & only)


def _within(days: tuple[date, ...]) -> "Condition":
    from functools import reduce
    from operator import or_

    from pyarrow.dataset import field

    day = field("event_date")
    ranges = [(day >= some.start) & (day <= some.last) for some in day_ranges(days)]
    return cast("Condition", reduce(or_, ranges))


def _no_rows(view: ViewPlan, columns: list[str]) -> "pa.Table":
    import pyarrow as pa

    from millrace.kernel.arrow import arrow_type

    declared = {c.name: arrow_type(c.type) for c in view.source.columns}
    return pa.schema([(n, declared.get(n, pa.int64())) for n in columns]).empty_table()


def _measured(measure: Measure, table: "pa.Table") -> "pa.ChunkedArray":
    from millrace.expressions import column_expression

    expression = measure.expression
    name = expression.columns[0] if expression.columns else ""
    if name and expression == column_expression(name, expression.type):
        return _typed(table.column(name), measure.type)
    from millrace.expressions.arrow import evaluate_column

    return evaluate_column(expression, table)


def _typed(column: "pa.ChunkedArray", declared: DataType) -> "pa.ChunkedArray":
    """Give a column of the lake its Arrow type; readers vary in how they show text and bytes."""
    from millrace.kernel.arrow import arrow_type

    target = arrow_type(declared)
    return column if column.type == target else column.cast(target)
