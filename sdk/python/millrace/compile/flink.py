"""What Flink is told: the companion job of a view, which keeps its tiles fresh.

One script reads the source's topic, judges each event by itself (never by watermark, so a replay
gives the same verdicts), keeps the first copy of each event id to arrive, and upserts
one row per (join keys, tile) on every change. Dead letters are the archive's business: here bad
events only stay out.

The job's jar brings two connectors and the functions that SQL lacks. ``event-topic`` reads a topic
in any number of tasks, which say how far their partitions have come by the records' time.
``first-copies`` has the rows of a table that are no copies: each waits until all readers are past
its arrival, so that the verdict is one at any parallelism. The functions:

- ``parse_json_row(BYTES, row type[, wanted columns])``: table function; the wanted columns, then
  ``reason``, null where all columns of the row type fit. An instant may be ISO-8601 or epoch
  milliseconds in the JSON, and comes out as epoch milliseconds.
- ``epoch_ms``: milliseconds of an instant, or of a day's midnight; no built-in function has them.
- ``utc_day``: the date of an instant; by Flink's own cast it is cut towards 1970.
- ``moments(DOUBLE)``: ``ROW<mean DOUBLE, m2 DOUBLE>`` over non-null values by Welford's method,
  null for none and where one of the two is not finite. Flink rewrites VAR_POP into sums of squares, which loses the variance of large
  numbers; Spark's VAR_POP does not, and tiles of both must merge to the same.
- ``first_edge`` and ``last_edge(event_ms, ingest_ms[, event_id], value)``: a row of the
  arguments, of the least or greatest event by ``millrace.aggregates.Edge.rank``; null values are
  passed over.
- ``vector_sums(ARRAY<FLOAT>)``: the sum of vectors as ``ARRAY<DOUBLE>``, null over none.
- ``distinct_values(value, limit)`` and the like: the bytes of an ``Encoding`` of
  ``millrace.aggregates`` over the values that are not null; null over none.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from sqlglot import exp

from millrace.compile import flink_ddl as ddl
from millrace.compile import flink_tiles
from millrace.compile.expressions import to_flink
from millrace.compile.flink_events import (
    ACCEPTED,
    DEDUPLICATED,
    INGEST_MS,
    accepted_view,
    bigint,
    first_copies_table,
    source_table,
)
from millrace.compile.flink_tiles import (
    EVENT_ID,
    gap_of,
    kept_type,
    on_wire,
    tile_functions,
    tile_query,
    tile_start,
    wire_type,
)
from millrace.compile.tile_forms import EVENT_MS
from millrace.compile.trees import column, is_not_null, named, table
from millrace.durations import DAY_MS
from millrace.errors import UnsupportedByEngine
from millrace.expressions import Expression
from millrace.names import flink_group
from millrace.plan import StreamPlan, ViewPlan
from millrace.tiles import TILE_START, tile_columns

FUNCTIONS: Mapping[str, str] = MappingProxyType(
    {
        "parse_json_row": "millrace.flink.ParseJsonRow",
        "epoch_ms": "millrace.flink.EpochMs",
        "utc_day": "millrace.flink.UtcDay",
        **flink_tiles.FUNCTIONS,
    }
)
"""The functions of the job's jar and the classes that hold them."""

BATCH_MS = 20
"""How long changes of tiles are gathered."""

_STATE: Mapping[str, str] = MappingProxyType(
    {
        # A day of ids and tiles does not fit a heap. On disk, most ids are new, which the filter
        # tells without a read.
        "state.backend.type": "rocksdb",
        "state.backend.rocksdb.use-bloom-filter": "true",
        "state.backend.rocksdb.memory.partitioned-index-filters": "true",
        "state.backend.rocksdb.memory.fixed-per-slot": "128mb",
        "execution.checkpointing.incremental": "true",
    }
)

STATEMENT_END = "\n;\n"
"""Statements of a script are parted by a line that holds only a semicolon."""


@dataclass(frozen=True)
class FlinkEndpoints:
    """Where a job reads and writes. The defaults are placeholders, for printing.

    Attributes:
        bootstrap_servers: Kafka.
        tile_topic: topic of the tiles; None: ``millrace.tiles.<view>.<fingerprint>``.
        outage_ms: how long a tile's state outlives its last possible event. State's time to live
            runs on during an outage, and a tile restored after it would begin again at nothing.
        checkpoint_s: seconds between checkpoints.
    """

    bootstrap_servers: str = "localhost:9092"
    tile_topic: str | None = None
    outage_ms: int = DAY_MS
    checkpoint_s: int = 10


@dataclass(frozen=True)
class StreamJob:
    """A job: its SQL and the configuration it is submitted with.

    Attributes:
        name: ``<view>-<fingerprint>``.
        statements: SQL, in order; the last is the only INSERT.
        configuration: settings of the job, over those of the cluster.
    """

    name: str
    statements: tuple[str, ...]
    configuration: Mapping[str, str]

    @property
    def script(self) -> str:
        """The statements as the SQL runner takes them."""
        return STATEMENT_END.join(self.statements) + STATEMENT_END

    @property
    def text(self) -> str:
        """The settings as SET statements, then the script, as Flink's SQL client takes them."""
        settings = [
            f"SET {exp.Literal.string(key).sql()} = {exp.Literal.string(value).sql()}"
            for key, value in self.configuration.items()
        ]
        return STATEMENT_END.join([*settings, *self.statements]) + STATEMENT_END


class NamedMeaning(Protocol):
    """A view, or what is remembered of one: a name and a fingerprint."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def job_id(view: NamedMeaning, version: str, generation: int) -> str:
    """Return the 32 hex digits under which a job is submitted.

    Flink refuses a second job of the same id, so a retried submission never starts a twin.

    Args:
        view: the view; also one that is declared no more.
        version: its version in this lake, ``v1``.
        generation: grows by one with each intended restart.
    """
    identity = "|".join((view.name, version, view.fingerprint, str(generation)))
    return hashlib.sha256(f"millrace|{identity}".encode()).hexdigest()[:32]


def stream_job(view: ViewPlan, endpoints: FlinkEndpoints | None = None) -> StreamJob:
    """Return the job of a view.

    Raises:
        UnsupportedByEngine: the source has no stream or one that is not JSON, or a feature's
            aggregate does not exist in Flink for its type.
    """
    endpoints = endpoints or FlinkEndpoints()
    stream = _checked_stream(view)
    counted = ACCEPTED if view.source.event_id is None else DEDUPLICATED
    wanted = _wanted(view)
    statements: list[exp.Create | exp.Insert] = [
        *(ddl.create_function(name, FUNCTIONS[name]) for name in _functions(view)),
        source_table(
            view.source,
            stream.topic,
            flink_group(view),
            endpoints.bootstrap_servers,
        ),
        _tile_table(view, endpoints),
        accepted_view(view.source, wanted),
        *([] if view.source.event_id is None else [_first_copies(view, endpoints)]),
        ddl.create_view("measured", _measured(view, counted)),
        exp.Insert(this=table("tiles"), expression=tile_query(view, _tile_ttl_ms(view, endpoints))),
    ]
    return StreamJob(
        name=f"{view.name}-{view.fingerprint}",
        statements=tuple(ddl.printed(statement) for statement in statements),
        configuration=MappingProxyType(_configuration(view, endpoints)),
    )


def _checked_stream(view: ViewPlan) -> StreamPlan:
    stream, where = view.source.stream, f"view {view.name}"
    if stream is None:
        raise UnsupportedByEngine(
            f"the source {view.source.name!r} names no stream, so no Flink job can follow it",
            where=where,
            fix="give the source a stream: {topic: …, format: json}",
        )
    for feature in view.features:
        gap = gap_of(feature)
        if gap is not None:
            raise UnsupportedByEngine(
                f"Flink has no {feature.aggregate} of {feature.aggregate.input}: {gap.reason}",
                where=f"{where}, feature {feature.name}",
                fix=gap.fix,
            )
    return stream


def _wanted(view: ViewPlan) -> frozenset[str]:
    """Return the columns that the view reads; the others are judged and left behind."""
    read = {name for expression in _expressions(view) for name in expression.columns}
    event_id = view.source.event_id
    identity = set() if event_id is None else {event_id}
    return frozenset(read | identity | {view.source.event_time, *view.join_keys})


def _expressions(view: ViewPlan) -> list[Expression]:
    measures = [measure.expression for measure in view.measures]
    return measures if view.filter is None else [*measures, view.filter]


def _functions(view: ViewPlan) -> list[str]:
    needed = {"parse_json_row", "epoch_ms", *tile_functions(view)}
    called = (call.name for e in _expressions(view) for call in to_flink(e).find_all(exp.Anonymous))
    needed |= {"utc_day"} & {name.lower() for name in called}
    return [name for name in FUNCTIONS if name in needed]


def _configuration(view: ViewPlan, endpoints: FlinkEndpoints) -> dict[str, str]:
    return {
        "pipeline.name": f"{view.name}-{view.fingerprint}",
        "pipeline.max-parallelism": "128",
        # Rows are handed on between operators, never changed.
        "pipeline.object-reuse": "true",
        "table.local-time-zone": "UTC",
        "table.exec.state.ttl": f"{_tile_ttl_ms(view, endpoints)} ms",
        # A tile that changes twice within this time is written once: hot keys cost the sink, the
        # writer and the store less.
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": f"{BATCH_MS} ms",
        "table.exec.mini-batch.size": "5000",
        **_STATE,
        "execution.buffer-timeout.interval": "5 ms",
        "execution.checkpointing.interval": f"{endpoints.checkpoint_s} s",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.timeout": "2 min",
        # A full disk stops checkpoints, not the job; their age tells.
        "execution.checkpointing.tolerable-failed-checkpoints": "1000",
    }


def _first_copies(view: ViewPlan, endpoints: FlinkEndpoints) -> exp.Create:
    # State's time to live runs on during an outage.
    return first_copies_table(view.source, view.source.dedup_horizon_ms + endpoints.outage_ms)


def _tile_ttl_ms(view: ViewPlan, endpoints: FlinkEndpoints) -> int:
    source = view.source
    open_ms = view.tile_hop_ms + source.allowed_lateness_ms + source.clock_skew_ms
    return open_ms + endpoints.outage_ms


def _tile_table(view: ViewPlan, endpoints: FlinkEndpoints) -> exp.Create:
    keys = [ddl.table_column(e.join_key, wire_type(e.type)) for e in view.entities]
    kept = [ddl.table_column(c.name, kept_type(view, c)) for c in tile_columns(view)]
    key = (*view.join_keys, TILE_START)
    topic = endpoints.tile_topic or f"millrace.tiles.{view.name}.{view.fingerprint}"
    options = {
        "connector": "upsert-kafka",
        "topic": topic,
        "properties.bootstrap.servers": endpoints.bootstrap_servers,
        "properties.linger.ms": "5",
        "properties.batch.size": "131072",
        "properties.compression.type": "lz4",
        "key.format": "json",
        "key.json.encode.decimal-as-plain-number": "true",
        "value.format": "json",
        "value.json.encode.decimal-as-plain-number": "true",
    }
    columns = [*keys, ddl.table_column(TILE_START, "BIGINT"), *kept, ddl.primary_key(key)]
    return ddl.create_table("tiles", columns, options)


def _measured(view: ViewPlan, counted: str) -> exp.Select:
    columns: list[exp.Expression] = [
        named(on_wire(column(e.join_key), e.type), e.join_key) for e in view.entities
    ]
    columns.append(named(tile_start(view), TILE_START))
    columns += [column(EVENT_MS), column(INGEST_MS)]
    if view.source.event_id is not None:
        event_id = view.source.column(view.source.event_id)
        columns.append(named(on_wire(column(event_id.name), event_id.type), EVENT_ID))
    columns += [named(on_wire(to_flink(m.expression), m.type), m.name) for m in view.measures]
    earliest = exp.GTE(this=column(EVENT_MS), expression=bigint(view.start_ms))
    present = [is_not_null(column(name)) for name in view.join_keys]
    filtered = [] if view.filter is None else [to_flink(view.filter)]
    query = exp.select(*columns).from_(table(counted))
    return query.where(earliest, *present, *filtered)
