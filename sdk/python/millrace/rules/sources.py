"""The rules of sources and entities."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from millrace.errors import nearest
from millrace.faults import FaultList, is_read
from millrace.fingerprint import with_source_fingerprint
from millrace.plan import BatchPlan, Column, EntityPlan, SourcePlan, StreamPlan
from millrace.rules.names import check_column_name, check_join_key, valid_name
from millrace.rules.schedules import empty_days, schedule_plan
from millrace.rules.values import data_type, day_date, duration_ms, optional_duration_ms
from millrace.spec import BatchSource, Entity, Location, Source, StreamSource
from millrace.spec import Column as DeclaredColumn
from millrace.types import COLUMN_KINDS, DataType

BATCH_FORMATS = ("parquet", "csv", "json", "delta")
STREAM_FORMATS = ("json",)
_UNREAD_FORMATS = ("avro", "protobuf", "debezium-json", "debezium-avro")
KEY_KINDS = ("int32", "int64", "string")
"""Types of join keys and event ids: equality must be plain in every engine and in a URL."""

EVENT_TIME_KINDS = ("timestamp", "date", "int64")

_DEAD_LETTERS = ".dlq"

_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass(frozen=True)
class Columns:
    """The columns of a source as far as they could be read.

    Attributes:
        types: the columns whose types are known.
        doubtful: names of columns whose type could not be read.
        is_complete: False if columns may exist that could not be read.
        declared: the columns whose types are known, with what they are read from.
    """

    types: Mapping[str, DataType]
    doubtful: frozenset[str] = frozenset()
    is_complete: bool = True
    declared: tuple[Column, ...] = ()

    def lookup(self, name: str) -> DataType | None:
        """Return a column's type; None if it is not known."""
        return self.types.get(name)

    def is_missing(self, name: str) -> bool:
        """True if there certainly is no such column."""
        return self.is_complete and name not in self.types and name not in self.doubtful

    def nearest(self, name: str) -> str:
        """Name the columns that come closest; by the name in its files, what it is called here."""
        renamed = [c.name for c in self.declared if c.renamed_from == name]
        if renamed:
            return f"it is declared as {' and '.join(map(repr, renamed))}: write that"
        return nearest(name, [*self.types, *self.doubtful])


def read_columns(source: Source, faults: FaultList) -> Columns:
    """Check the names and types of a source's columns."""
    where = source.where
    columns: dict[str, Column] = {}
    doubtful: set[str] = set()
    is_complete = True
    if not source.columns:
        faults.add(where.at("columns"), f"source {source.name!r} has no columns", "list them")
        return Columns({}, is_complete=False)
    for name, written in source.columns.items():
        place = where.at(f"columns.{name}")
        if not is_read(name):
            is_complete = False
            continue
        if not check_column_name(name, place, faults):
            # What names the column elsewhere, as it is or as it will be, is not at fault besides.
            doubtful.update((name, valid_name(name)))
            continue
        column = written if isinstance(written, DeclaredColumn) else DeclaredColumn(written)
        found = data_type(column.type, f"column {name!r}", place, faults)
        _check_origin(name, column, place, faults)
        if found is not None and found.kind not in COLUMN_KINDS:
            faults.add(
                place,
                f"column {name!r} is a {found}, and columns are scalars or vectors",
                f"write type: {found.item}; lists are what aggregates give",
            )
            found = None
        if found is None:
            doubtful.add(name)
        else:
            renamed_from = None if column.origin == name else column.origin
            columns[name] = Column(name, found, renamed_from, column.description)
    types = {column.name: column.type for column in columns.values()}
    return Columns(types, frozenset(doubtful), is_complete, tuple(columns.values()))


def _check_origin(name: str, column: DeclaredColumn, place: Location, faults: FaultList) -> None:
    origin = column.origin
    if origin is None or not is_read(origin):
        return
    if origin.strip() and not all(part.strip() for part in origin.split(".")):
        parts = [part for part in origin.split(".") if part.strip()]
        faults.add(
            place,
            f"column {name!r} is read from {origin!r}, which is no path: a part of it is empty",
            f"write from: {'.'.join(parts)}" if parts else "write names with dots between them",
        )
    if not origin.strip():
        faults.add(
            place,
            f"column {name!r} is read from {origin!r}, which is no name",
            "write what its files call it, from: CustomerID, or remove from",
        )


def source_plan(source: Source, columns: Columns, faults: FaultList) -> SourcePlan | None:
    """Resolve a source; None if a fault keeps it from having a meaning."""
    before = len(faults)
    where, label = source.where, f"source {source.name!r}"
    for role, name, kinds in (
        ("event_time", source.event_time, EVENT_TIME_KINDS),
        ("event_id", source.event_id, KEY_KINDS),
        ("ingest_time", source.ingest_time, ("timestamp",)),
    ):
        if name is not None and is_read(name):
            _check_role(role, columns.lookup(name), kinds, where.at(role), faults)
            if columns.is_missing(name):
                what = f"{role} names {name!r}, which is no column"
                faults.add(where.at(role), what, columns.nearest(name))
    lateness = duration_ms(
        source.allowed_lateness,
        "allowed_lateness",
        where.at("allowed_lateness"),
        faults,
        at_least_ms=0,
    )
    skew = duration_ms(
        source.clock_skew, "clock_skew", where.at("clock_skew"), faults, at_least_ms=0
    )
    horizon = duration_ms(source.dedup_horizon, "dedup_horizon", where.at("dedup_horizon"), faults)
    if source.batch is None and source.stream is None:
        faults.add(where, f"{label} has neither batch nor stream", "add one of them, or both")
    batch = None if source.batch is None else _batch_plan(source.batch, faults)
    stream = None if source.stream is None else _stream_plan(source.stream, faults)
    schedule = schedule_plan(source.schedule, faults)
    end = None if source.end is None else day_date(source.end, "end", where.at("end"), faults)
    empty = empty_days(source.empty_days, where.at("empty_days"), faults)
    late_after = optional_duration_ms(
        source.late_after, "late_after", where.at("late_after"), faults
    )
    if source.late_after is not None and source.batch is None and source.stream is not None:
        faults.add(
            where.at("late_after"),
            f"{label} has late_after, but no files that could be late",
            "remove it: what a stream lacks is told by `freshness` of its views",
        )
    roles_are_read = all(map(is_read, (source.event_time, source.event_id, source.ingest_time)))
    if lateness is None or skew is None or horizon is None or not roles_are_read:
        return None
    if len(faults) > before or columns.doubtful or not columns.is_complete:
        return None
    return with_source_fingerprint(
        SourcePlan(
            name=source.name,
            columns=columns.declared,
            event_time=source.event_time,
            event_id=source.event_id,
            ingest_time=source.ingest_time,
            allowed_lateness_ms=lateness,
            clock_skew_ms=skew,
            dedup_horizon_ms=horizon,
            batch=batch,
            stream=stream,
            description=source.description,
            fingerprint="",
            schedule=schedule,
            end=end,
            empty_days=empty,
            late_after_ms=late_after,
            where=where,
        )
    )


def _check_role(
    role: str, found: DataType | None, kinds: tuple[str, ...], where: Location, faults: FaultList
) -> None:
    if found is not None and found.kind not in kinds:
        meaning = " (epoch milliseconds)" if role == "event_time" else ""
        faults.add(
            where,
            f"{role} is a column of type {found}",
            f"it must be {' or '.join(kinds)}{meaning}",
        )


def _batch_plan(batch: BatchSource, faults: FaultList) -> BatchPlan:
    if is_read(batch.format) and batch.format not in BATCH_FORMATS:
        faults.add(
            batch.where.at("format"),
            f"batch has the format {batch.format!r}",
            nearest(batch.format, BATCH_FORMATS),
        )
    if is_read(batch.path) and not batch.path.strip():
        faults.add(batch.where.at("path"), "batch has an empty path", "name a file, folder or URL")
    return BatchPlan(batch.format, batch.path)


def _stream_plan(stream: StreamSource, faults: FaultList) -> StreamPlan:
    if stream.format in _UNREAD_FORMATS:
        faults.add(
            stream.where.at("format"),
            f"nothing reads streams of format {stream.format} yet: not Flink, not the archive",
            "send json; or declare no stream: files are built, and their uploads served, without one",
        )
    elif is_read(stream.format) and stream.format not in STREAM_FORMATS:
        faults.add(
            stream.where.at("format"),
            f"stream has the format {stream.format!r}",
            nearest(stream.format, STREAM_FORMATS),
        )
    if is_read(stream.topic) and (
        _TOPIC.fullmatch(stream.topic) is None or stream.topic in {".", ".."}
    ):
        faults.add(
            stream.where.at("topic"),
            f"{stream.topic[:80]!r} cannot name a topic",
            "topics are letters, digits, '.', '_' and '-', at most 249",
        )
    return StreamPlan(stream.topic, stream.format)


def check_topics(sources: Iterable[Source], faults: FaultList) -> None:
    """Note a fault where a source reads the dead letters of another: they would come back for ever."""
    by_topic = {s.stream.topic: s for s in sources if s.stream is not None}
    for topic, source in by_topic.items():
        written_by = by_topic.get(topic.removesuffix(_DEAD_LETTERS))
        if topic.endswith(_DEAD_LETTERS) and written_by is not None and source.stream is not None:
            faults.add(
                source.stream.where.at("topic"),
                f"the topic {topic!r} holds the dead letters of source {written_by.name!r}",
                "a source reads a topic that is not made by the platform",
            )


def entity_plan(entity: Entity, faults: FaultList) -> EntityPlan | None:
    """Resolve an entity; None if a fault keeps it from having a meaning."""
    where = entity.where
    is_named = check_join_key(entity.join_key, where.at("join_key"), faults)
    type_ = data_type(entity.type, f"entity {entity.name!r}", where.at("type"), faults)
    if type_ is not None and type_.kind not in KEY_KINDS:
        faults.add(
            where.at("type"),
            f"entity {entity.name!r} has a key of type {type_}",
            f"keys are {', '.join(KEY_KINDS[:-1])} or {KEY_KINDS[-1]}: a {type_} would not be "
            "equal to itself in every engine and every client",
        )
        return None
    if type_ is None or not is_named:
        return None
    return EntityPlan(entity.name, entity.join_key, type_, entity.description)
