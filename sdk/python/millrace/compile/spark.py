"""What Spark is told: measures of events, and tiles.

Both queries read one placeholder table, which the caller registers as a temporary view: columns of
``events/<source>``, that is the declared columns and ``_event_ms``, ``_ingest_ms``. They hold
under ANSI mode: nothing in them can overflow or divide by zero with an error.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from sqlglot import exp

from millrace.aggregates import Encoded, Partial, check_forms, partials
from millrace.compile.dialects import SPARK
from millrace.compile.expressions import to_spark
from millrace.compile.tile_forms import ENCODED, EVENT_MS, PLAIN, measured
from millrace.compile.trees import call, column, identifier, integer, is_not_null, named, table
from millrace.durations import DAY_MS
from millrace.plan import ViewPlan
from millrace.tiles import TILE_START, TileColumn, tile_columns

INGEST_MS = "_ingest_ms"
EVENT_ID = "_event_id"
EVENT_DATE = "event_date"
ENCODE = "MILLRACE_ENCODE"
"""The function of a suffix in ``ENCODINGS``, a type, what was collected, and the parameters."""


def measure_query(view: ViewPlan, events: str | exp.Table) -> str:
    """Return the query of a view's events with its measures computed.

    Rows are the events that count for the view: filter true, no null join key, not before its
    start; unordered. Columns are the join keys, ``_event_ms``, ``_ingest_ms``, ``_event_id`` where
    the source names one, then ``m0`` and so on.

    Args:
        view: the view.
        events: name of the temporary view (or a table) that holds the source's events.
    """
    return _printed(_measures(view, events))


def tile_query(view: ViewPlan, events: str | exp.Table) -> str:
    """Return the query of a view's tiles.

    One row per (join keys, ``tile_start_ms``) with at least one event; unordered. Columns are those,
    the columns of ``millrace.tiles.tile_columns``, and ``event_date``, the day of the tile's start.
    A tile's start is integer arithmetic on epoch milliseconds, the same as in the Flink twin.

    Columns of bytes are made by ``MILLRACE_ENCODE``, a function that our sessions have
    (``resources.spark.tile_bytes``), of what Spark collects for a tile.
    """
    start = exp.Sub(
        this=column(EVENT_MS),
        expression=call("PMOD", column(EVENT_MS), exp.Literal.number(view.tile_hop_ms)),
    )
    inner = _measures(view, events, named(start, TILE_START))
    keys = [column(name) for name in (*view.join_keys, TILE_START)]
    kept = {_aggregated_name(c): FORMS[type(c.partial)](view, c) for c in tile_columns(view)}
    aggregated = [named(value, name) for name, value in kept.items()]
    day = named(_day_of(column(TILE_START)), EVENT_DATE)
    measured = inner.subquery(identifier("measured"))
    query = exp.select(*keys, *aggregated, day).from_(measured)
    query = query.group_by(*(key.copy() for key in keys))
    if any(isinstance(c.partial, Encoded) for c in tile_columns(view)):
        finished = [named(_finished(c), c.name) for c in tile_columns(view)]
        collected = query.subquery(identifier("collected"))
        query = exp.select(*keys, *finished, column(EVENT_DATE)).from_(collected)
    return _printed(query)


def _aggregated_name(kept: TileColumn) -> str:
    """What an aggregate over a tile's events is called; encodings of one measure share theirs."""
    if not isinstance(kept.partial, Encoded):
        return kept.name
    return f"{kept.of.name}_{'events' if kept.partial.is_ordered else 'values'}"


def _finished(kept: TileColumn) -> exp.Expression:
    if not isinstance(kept.partial, Encoded):
        return column(kept.name)
    return call(
        ENCODE,
        exp.Literal.string(kept.partial.suffix),
        exp.Literal.string(str(kept.of.type)),
        column(_aggregated_name(kept)),
        *(exp.Literal.number(f"{value:g}") for _, value in kept.partial.parameters),
    )


def _measures(view: ViewPlan, events: str | exp.Table, *extra: exp.Expression) -> exp.Select:
    columns: list[exp.Expression] = [column(name) for name in view.join_keys]
    columns += [column(EVENT_MS), column(INGEST_MS)]
    if view.source.event_id is not None:
        columns.append(named(column(view.source.event_id), EVENT_ID))
    columns += extra
    columns += [named(to_spark(m.expression), m.name) for m in view.measures]
    query = exp.select(*columns).from_(table(events) if isinstance(events, str) else events)
    return query.where(*_conditions(view))


def _conditions(view: ViewPlan) -> list[exp.Expression]:
    earliest = exp.GTE(this=column(EVENT_MS), expression=integer(view.start_ms))
    present = [is_not_null(column(name)) for name in view.join_keys]
    filtered = [] if view.filter is None else [to_spark(view.filter)]
    return [earliest, *present, *filtered]


def _sum(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    value, type_ = measured(kept), kept.of.type
    if type_.kind == "float64":
        return _finite(exp.Sum(this=value))
    # TRY_SUM gives null, not an error, where a tile's sum needs more than 38 digits. Integers go
    # in with 28 digits, from which Spark makes a buffer of 38.
    if type_.is_integer:
        value = _cast(value, "DECIMAL(28, 0)")
    return _cast(call("TRY_SUM", value), kept.type.spark)


def _vector_sums(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    # Spark has no sum of arrays; null over none.
    added = exp.Lambda(
        this=exp.Add(this=column("a"), expression=column("b")),
        expressions=[identifier("a"), identifier("b")],
    )
    doubles = _cast(column("vector"), "ARRAY<DOUBLE>")
    merged = exp.Lambda(
        this=call("COALESCE", call("ZIP_WITH", column("sums"), doubles, added), doubles.copy()),
        expressions=[identifier("sums"), identifier("vector")],
    )
    nothing = _cast(exp.Null(), "ARRAY<DOUBLE>")
    return call("AGGREGATE", call("COLLECT_LIST", measured(kept)), nothing, merged)


def _double(kept: TileColumn) -> exp.Expression:
    value = measured(kept)
    return value if kept.of.type.kind == "float64" else _cast(value, "DOUBLE")


def _mean(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return _finite(exp.Avg(this=_double(kept)))


def _m2(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    # VAR_POP merges (n, mean, m2) by Chan's formula inside Spark; times n it gives m2 back.
    value = _double(kept)
    return _finite(
        exp.Mul(this=exp.VariancePop(this=value), expression=exp.Count(this=value.copy()))
    )


def _collected(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    is_ordered = isinstance(kept.partial, Encoded) and kept.partial.is_ordered
    value = _edge(view, measured(kept)) if is_ordered else measured(kept)
    return call("COLLECT_LIST", value)  # passes over nulls


def _first(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Min(this=_edge(view, measured(kept)))


def _last(view: ViewPlan, kept: TileColumn) -> exp.Expression:
    return exp.Max(this=_edge(view, measured(kept)))


def _edge(view: ViewPlan, value: exp.Expression) -> exp.Expression:
    """A struct that compares as ``millrace.aggregates.Edge.rank`` does; null without a value.

    Spark orders structs field by field with nulls first, and MIN and MAX pass over nulls.
    """
    fields: list[tuple[str, exp.Expression]] = [
        ("event_ms", column(EVENT_MS)),
        ("ingest_ms", column(INGEST_MS)),
    ]
    if view.source.event_id is not None:
        fields.append(("event_id", column(EVENT_ID)))
    fields.append(("value", value))
    struct = exp.Struct(
        expressions=[
            exp.PropertyEQ(this=identifier(name), expression=content) for name, content in fields
        ]
    )
    return exp.Case().when(is_not_null(value.copy()), struct)


def _finite(value: exp.Expression) -> exp.Expression:
    # Spark holds NaN for greater than infinity, so one comparison refuses both.
    infinity = _cast(exp.Literal.string("Infinity"), "DOUBLE")
    bounded = exp.LT(this=exp.Abs(this=value.copy()), expression=infinity)
    return exp.Case().when(bounded, value)


def _day_of(instant_ms: exp.Expression) -> exp.Expression:
    day_ms = exp.Literal.number(DAY_MS)
    midnight = exp.Sub(this=instant_ms, expression=call("PMOD", instant_ms.copy(), day_ms))
    days = exp.IntDiv(this=exp.Paren(this=midnight), expression=day_ms.copy())
    return exp.DateFromUnixDate(this=_cast(days, "INT"))


def _cast(value: exp.Expression, type_: str) -> exp.Expression:
    return exp.Cast(this=value, to=exp.DataType.build(type_, dialect=SPARK))


def _printed(query: exp.Select) -> str:
    return query.sql(SPARK, pretty=True) + "\n"


FORMS: Mapping[type[Partial], Callable[[ViewPlan, TileColumn], exp.Expression]] = MappingProxyType(
    {
        **PLAIN,
        partials.Sum: _sum,
        partials.VectorSums: _vector_sums,
        partials.Mean: _mean,
        partials.M2: _m2,
        partials.First: _first,
        partials.Last: _last,
        **dict.fromkeys(ENCODED, _collected),
    }
)
"""What Spark is told of each partial: an aggregate over the events of a tile."""

check_forms("Spark", partials.PARTIALS, FORMS)
