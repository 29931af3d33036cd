"""How Flink reads a source: its topic, the judgement of each event, the first copy of each id."""

from collections.abc import Collection, Sequence

from sqlglot import exp

from millrace.compile import flink_ddl as ddl
from millrace.compile.tile_forms import EVENT_MS
from millrace.compile.trees import (
    call,
    column,
    identifier,
    integer,
    is_null,
    named,
    table,
)
from millrace.plan import Column, SourcePlan
from millrace.types import DataType

SOURCE, ACCEPTED, DEDUPLICATED = "source", "accepted", "deduplicated"

# Declared columns never start with an underscore, so these cannot meet them.
INGEST_MS = "_ingest_ms"
_VALUE, _PARTITION, _OFFSET = "_value", "_partition", "_offset"
_REASON = "_reason"


def source_table(source: SourcePlan, topic: str, group: str, bootstrap_servers: str) -> exp.Create:
    """Return the table over a topic: bytes, and where and when they arrived.

    Where events have ids, its readers say how far they are, for the first copy to arrive is the one
    that counts, whoever reads it.
    """
    columns = [
        ddl.table_column(_VALUE, "BYTES"),
        ddl.table_column(INGEST_MS, "BIGINT"),
        ddl.table_column(_PARTITION, "INT"),
        ddl.table_column(_OFFSET, "BIGINT"),
    ]
    options = {
        "connector": "event-topic",
        "topic": topic,
        "ordered": "false" if source.event_id is None else "true",
        "properties.bootstrap.servers": bootstrap_servers,
        "properties.group.id": group,
        "properties.fetch.max.wait.ms": "20",
    }
    return ddl.create_table(SOURCE, columns, options)


def accepted_view(source: SourcePlan, wanted: Collection[str]) -> exp.Create:
    """Return the view of the events that fit their types, in time; each judged by itself.

    Args:
        source: all its columns are judged.
        wanted: the columns that the view has, in the source's order; among them the event time.
    """
    columns = [column for column in source.columns if column.name in wanted]
    names = [column.name for column in columns]
    parsed = exp.Lateral(
        this=exp.TableFromRows(this=_parsed(source, names)),
        alias=exp.TableAlias(
            this=identifier("parsed"),
            columns=[identifier(name) for name in (*names, _REASON)],
        ),
    )
    event_ms = _event_ms(source)
    ingest_ms = column(INGEST_MS)
    query = exp.select(
        *(_typed(c.name, c.type) for c in columns),
        named(call("LEAST", event_ms, ingest_ms), EVENT_MS),
        *(column(name) for name in (INGEST_MS, _PARTITION, _OFFSET)),
    )
    query = query.from_(table(SOURCE)).join(exp.Join(this=parsed, kind="CROSS"))
    # Not from the future, then not too late; both bounds are in. The event time may be any
    # number, so nothing is added to it.
    latest = exp.Add(this=ingest_ms.copy(), expression=bigint(source.clock_skew_ms))
    earliest = exp.Sub(this=ingest_ms.copy(), expression=bigint(source.allowed_lateness_ms))
    query = query.where(
        is_null(column(_REASON)),
        exp.LTE(this=event_ms.copy(), expression=latest),
        exp.GTE(this=event_ms.copy(), expression=earliest),
    )
    return ddl.create_view(ACCEPTED, query)


def _parsed(source: SourcePlan, wanted: Sequence[str]) -> exp.Expression:
    row_type = ", ".join(_field(c, is_required=c.name == source.event_time) for c in source.columns)
    literals = [row_type] if len(wanted) == len(source.columns) else [row_type, ", ".join(wanted)]
    return call("PARSE_JSON_ROW", column(_VALUE), *map(exp.Literal.string, literals))


def _field(declared: Column, *, is_required: bool) -> str:
    """Return a field of a row type; its comment is what records call it, where that differs."""
    constraint = " NOT NULL" if is_required else ""
    origin = declared.renamed_from
    comment = "" if origin is None else " '" + origin.replace("'", "''") + "'"
    return f"`{declared.name}` {_judged_type(declared.type)}{constraint}{comment}"


def _judged_type(type_: DataType) -> str:
    """Return the type that tells the parser how long a vector is: one of as many bytes."""
    return f"BINARY({4 * type_.length})" if type_.kind == "vector" else type_.flink


def _event_ms(source: SourcePlan) -> exp.Expression:
    event_time = source.column(source.event_time)
    is_day = event_time.type.kind == "date"
    return call("EPOCH_MS", column(event_time.name)) if is_day else column(event_time.name)


def first_copies_table(source: SourcePlan, kept_ms: int) -> exp.Create:
    """Return the table of the accepted events that are no copies; one without an id is nobody's.

    Args:
        source: its event id names the copies.
        kept_ms: how long an id is remembered after its last copy.
    """
    options = {
        "connector": "first-copies",
        "table": ACCEPTED,
        "id": source.event_id or "",
        "ingest-ms": INGEST_MS,
        "partition": _PARTITION,
        "offset": _OFFSET,
        "horizon": f"{source.dedup_horizon_ms} ms",
        "kept": f"{kept_ms} ms",
    }
    return ddl.create_table(DEDUPLICATED, [], options)


def _typed(name: str, type_: DataType) -> exp.Expression:
    if type_.kind != "timestamp":
        return column(name)
    return named(call("TO_TIMESTAMP_LTZ", column(name), exp.Literal.number(3)), name)


def bigint(value: int) -> exp.Expression:
    """Return a BIGINT literal, whatever the size of the number."""
    return exp.Cast(this=integer(value), to=ddl.built_type("BIGINT"))
