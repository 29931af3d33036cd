"""How Flink reads a source: its topic, the judgement of each event, the first copy of each id."""

from sqlglot import exp

from millrace.compile import flink_ddl as ddl
from millrace.compile.trees import (
    call,
    column,
    identifier,
    integer,
    is_not_null,
    is_null,
    named,
    table,
)
from millrace.plan import SourcePlan
from millrace.types import DataType

SOURCE, ACCEPTED, DEDUPLICATED = "source", "accepted", "deduplicated"

# Declared columns never start with an underscore, so these cannot meet them.
EVENT_MS, INGEST_MS = "_event_ms", "_ingest_ms"
_VALUE, _APPEND_TS, _PARTITION, _OFFSET = "_value", "_append_ts", "_partition", "_offset"
_ARRIVAL, _COPY, _REASON = "_arrival", "_copy", "_reason"


def source_table(
    topic: str, group: str, bootstrap_servers: str, read_from_ms: int | None
) -> exp.Create:
    """Return the table over a topic: bytes, and the record's envelope."""
    columns = [
        ddl.table_column(_VALUE, "BYTES"),
        ddl.metadata_column(_APPEND_TS, "TIMESTAMP_LTZ(3)", "timestamp"),
        ddl.metadata_column(_PARTITION, "INT", "partition"),
        ddl.metadata_column(_OFFSET, "BIGINT", "offset"),
        ddl.computed_column(_ARRIVAL, call("PROCTIME")),
    ]
    options = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": bootstrap_servers,
        "properties.group.id": group,
        "properties.fetch.max.wait.ms": "20",
        "scan.startup.mode": "earliest-offset",
        "format": "raw",
    }
    if read_from_ms is not None:
        options["scan.startup.mode"] = "timestamp"
        options["scan.startup.timestamp-millis"] = str(read_from_ms)
    return ddl.create_table(SOURCE, columns, options)


def accepted_view(source: SourcePlan) -> exp.Create:
    """Return the view of the events that fit their types, in time; each judged by itself."""
    names = [column.name for column in source.columns]
    row_type = ", ".join(f"`{c.name}` {ddl.sql_type(c.type)}" for c in source.columns)
    parsed = exp.Lateral(
        this=exp.TableFromRows(
            this=call("PARSE_JSON_ROW", column(_VALUE), exp.Literal.string(row_type))
        ),
        alias=exp.TableAlias(
            this=identifier("parsed"),
            columns=[identifier(name) for name in (*names, _REASON)],
        ),
    )
    event_ms, ingest_ms = column(source.event_time), call("EPOCH_MS", column(_APPEND_TS))
    query = exp.select(
        *(_typed(c.name, c.type) for c in source.columns),
        named(call("LEAST", event_ms, ingest_ms), EVENT_MS),
        named(ingest_ms.copy(), INGEST_MS),
        *(column(name) for name in (_PARTITION, _OFFSET, _ARRIVAL)),
    )
    query = query.from_(table(SOURCE)).join(exp.Join(this=parsed, kind="CROSS"))
    query = query.where(
        is_null(column(_REASON)),
        is_not_null(event_ms.copy()),
        # Not from the future, then not too late; both bounds are in.
        exp.GTE(
            this=column(_APPEND_TS),
            expression=_instant(exp.Sub, event_ms, source.clock_skew_ms),
        ),
        exp.LTE(
            this=column(_APPEND_TS),
            expression=_instant(exp.Add, event_ms, source.allowed_lateness_ms),
        ),
    )
    return ddl.create_view(ACCEPTED, query)


def deduplicated_view(source: SourcePlan) -> exp.Create:
    """Return the view of the first copies to arrive; an event without an id is nobody's copy.

    It stays append-only, because the arrival is Flink's processing time.
    """
    event_id = source.event_id or ""
    is_nameless = is_null(column(event_id))
    itself = [exp.Case().when(is_nameless, column(name)) for name in (_PARTITION, _OFFSET)]
    copies = exp.Window(
        this=exp.RowNumber(),
        partition_by=[column(event_id), *itself],
        order=exp.Order(
            # Flink's own default, which then needs no saying.
            expressions=[exp.Ordered(this=column(_ARRIVAL), desc=False, nulls_first=True)]
        ),
    )
    columns = [*(c.name for c in source.columns), EVENT_MS, INGEST_MS]
    inner = exp.select(*(column(name) for name in columns), named(copies, _COPY))
    numbered = inner.from_(table(ACCEPTED)).subquery(identifier("numbered"))
    first = exp.EQ(this=column(_COPY), expression=exp.Literal.number(1))
    query = exp.select(*(column(name) for name in columns)).from_(numbered).where(first)
    return ddl.create_view(DEDUPLICATED, query)


def _typed(name: str, type_: DataType) -> exp.Expression:
    if type_.kind != "timestamp":
        return column(name)
    return named(call("TO_TIMESTAMP_LTZ", column(name), exp.Literal.number(3)), name)


def _instant(
    operator: type[exp.Add | exp.Sub], event_ms: exp.Expression, shift_ms: int
) -> exp.Expression:
    shifted = operator(this=event_ms.copy(), expression=bigint(shift_ms))
    return call("TO_TIMESTAMP_LTZ", shifted, exp.Literal.number(3))


def bigint(value: int) -> exp.Expression:
    """Return a BIGINT literal, whatever the size of the number."""
    return exp.Cast(this=integer(value), to=ddl.built_type("BIGINT"))
