"""YAML declarations into specs.

Here only the shape is checked: keys, lists, values that are there. What the values mean is checked
by ``millrace.resolve``, for YAML and Python alike; where a value could not be read, the spec holds
``UNREADABLE`` in its place, so that it is reported once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from millrace.check_types import ArgumentKind
from millrace.errors import Fault
from millrace.faults import UNREADABLE, FaultList, is_read
from millrace.load import keys
from millrace.load.features import UNREADABLE_FEATURE, FeatureReader
from millrace.load.keys import Keys
from millrace.load.nodes import NodeReader, Record
from millrace.spec import (
    BatchSource,
    Check,
    Column,
    DerivedFeature,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Location,
    Schedule,
    Source,
    Specs,
    StreamSource,
)


def read_yaml(text: str, file: str) -> tuple[Specs, list[Fault]]:
    """Read one file.

    Args:
        text: the whole file; an empty one declares nothing.
        file: its name, for ``file:line`` in faults.

    Returns:
        What could be read, in the order written, and every fault of shape. If the file is no
        YAML at all, no spec and one fault.
    """
    faults = FaultList()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        faults.add(*_syntax_fault(error, text, file))
        return Specs(), list(faults)
    except RecursionError:
        faults.add(Location(file, 1), "the file is nested too deeply", "write it flatter")
        return Specs(), list(faults)
    if root is None:
        return Specs(), []
    specs = _Declarations(NodeReader(file, faults)).file(root)
    return specs, list(faults)


def _syntax_fault(error: yaml.YAMLError, text: str, file: str) -> tuple[Location, str, str]:
    fix = "indent with spaces; quote text that holds any of { } [ ] , & * # : % @ `"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = ", ".join(part for part in (error.context, error.problem) if part)
        return Location(file, line), f"this is no YAML: {what}", fix
    position = getattr(error, "position", 0)
    line = text.count("\n", 0, position) + 1
    reason = getattr(error, "reason", str(error))
    return Location(file, line), f"this is no YAML: {reason}", "remove the character"


class _Declarations:
    """The records of one file."""

    def __init__(self, reader: NodeReader) -> None:
        self._reader = reader
        self._features = FeatureReader(reader)

    def file(self, root: Node) -> Specs:
        record = self._reader.record(root, keys.FILE)
        if record is None:
            return Specs()
        version = record.optional_text("version")
        if version is not None and is_read(version) and version != keys.VERSION:
            self._reader.faults.add(
                record.where.at("version"),
                f"the version {version!r} is not known",
                f"write version: {keys.VERSION}",
            )
        return Specs(
            tuple(self._source(r) for r in self._records(record, "sources", keys.SOURCE)),
            tuple(_entity(r) for r in self._records(record, "entities", keys.ENTITY)),
            tuple(self._view(r) for r in self._records(record, "feature_views", keys.VIEW)),
            tuple(_service(r) for r in self._records(record, "feature_services", keys.SERVICE)),
        )

    def _records(self, file: Record, name: str, of: Keys) -> list[Record]:
        node = file.node(name)
        if isinstance(node, ScalarNode) and node.value == "":
            return []  # a heading with nothing, or only comments, under it
        records = (self._reader.record(item, of) for item in file.items(name))
        return [record for record in records if record is not None]

    def _source(self, record: Record) -> Source:
        batch = self._reader_record(record, "batch", keys.BATCH)
        stream = self._reader_record(record, "stream", keys.STREAM)
        schedule = self._reader_record(record, "schedule", keys.SCHEDULE)
        defaults = {
            name: value
            for name in ("allowed_lateness", "clock_skew", "dedup_horizon", "description")
            if (value := record.optional_text(name)) is not None
        }
        return Source(
            name=record.text("name"),
            columns=self._columns(record),
            event_time=record.text("event_time"),
            event_id=record.optional_text("event_id"),
            ingest_time=record.optional_text("ingest_time"),
            batch=None if batch is None else _batch(batch),
            stream=None if stream is None else _stream(stream),
            schedule=None if schedule is None else _schedule(schedule),
            end=record.optional_text("end"),
            empty_days=record.texts("empty_days"),
            late_after=record.optional_text("late_after"),
            where=record.where,
            **defaults,
        )

    def _reader_record(self, record: Record, name: str, of: Keys) -> Record | None:
        node = record.node(name)
        if node is None:
            return None
        found = self._reader.record(node, of)
        return found or Record(self._reader.where(node), {}, self._reader)

    def _columns(self, record: Record) -> Mapping[str, str | Column]:
        node = record.node("columns")
        if not isinstance(node, MappingNode):
            if node is not None:
                self._reader.fault(
                    node, "columns is no mapping", "write one name: type pair a line"
                )
            return {UNREADABLE: UNREADABLE}
        columns: dict[str, str | Column] = {}
        lines = list(record.where.lines)
        for name, key_node, value in self._reader.pairs(node, "columns"):
            if name.endswith(")") and _is_cut_decimal(columns):
                continue  # the other half of an unquoted decimal(p,s) inside braces
            columns[name] = self._column(value, name)
            lines.append((f"columns.{name}", key_node.start_mark.line + 1))
        record.where = replace(record.where, lines=tuple(lines))
        return columns

    def _column(self, node: Node, name: str) -> str | Column:
        if not isinstance(node, MappingNode):
            return self._column_type(node, name)
        record = self._reader.record(node, keys.COLUMN)
        if record is None or (type_node := record.node("type")) is None:
            return UNREADABLE
        return Column(
            self._column_type(type_node, name),
            record.optional_text("from"),
            record.optional_text("description") or "",
            record.where,
        )

    def _column_type(self, node: Node, name: str) -> str:
        text = self._reader.text(node, f"the type of column {name}")
        if text.startswith("decimal(") and ")" not in text:
            self._reader.fault(
                node, f"the comma cuts the type of column {name} in two", 'quote it: "decimal(p,s)"'
            )
            return UNREADABLE
        return text

    def _view(self, record: Record) -> FeatureView:
        features = tuple(
            feature for node in record.items("features") for feature in self._features.read(node)
        )
        checks = tuple(c for node in record.items("checks") if (c := self._check(node)) is not None)
        return FeatureView(
            name=record.text("name"),
            entities=self._entities(record),
            source=record.text("source"),
            start=record.text("start"),
            features=features or self._no_features(record),
            filter=record.optional_text("filter"),
            ttl=record.optional_text("ttl"),
            freshness=record.optional_text("freshness"),
            owner=record.optional_text("owner"),
            tags=self._tags(record),
            checks=checks,
            online=record.flag("online", default=True),
            description=record.optional_text("description") or "",
            where=record.where,
        )

    def _no_features(self, record: Record) -> tuple[Feature | DerivedFeature, ...]:
        node = record.node("features")
        is_empty_list = isinstance(node, SequenceNode) and not node.value
        return () if is_empty_list else (UNREADABLE_FEATURE,)

    def _entities(self, record: Record) -> tuple[str, ...]:
        if "entity" in record and "entities" in record:
            self._reader.faults.add(
                record.where.at("entities"),
                "the feature view has entity and entities",
                "keep entities for a composite key, else entity",
            )
        elif "entity" in record:
            return (record.text("entity"),)
        elif "entities" not in record:
            self._reader.faults.add(
                record.where, "a feature view has no entity", "add entity: … or entities: [ … ]"
            )
        else:
            return record.texts("entities")
        return (UNREADABLE,)

    def _tags(self, record: Record) -> Mapping[str, str]:
        node = record.node("tags")
        if node is None:
            return {}
        pairs = self._reader.pairs(node, "tags")
        return {name: self._reader.text(value, f"tag {name}") for name, _, value in pairs}

    def _check(self, node: Node) -> Check | None:
        nodes: dict[str, Node] = {}
        lines: list[tuple[str, int]] = []
        for name, key_node, value in self._reader.pairs(node, "a check"):
            nodes[name] = value
            lines.append((name, key_node.start_mark.line + 1))
        if not isinstance(node, MappingNode):
            return None
        where = replace(self._reader.where(node), lines=tuple(lines))
        if "type" not in nodes:
            self._reader.faults.add(where, "a check has no type", "add type: null_rate, for one")
            return None
        kind = self._reader.text(nodes.pop("type"), "the type of a check")
        takes = keys.check_arguments(kind)
        return Check(
            kind,
            {
                name: self._argument(value, f"{name} of the check {kind!r}", takes.get(name))
                for name, value in nodes.items()
            },
            where,
        )

    def _argument(self, node: Node, name: str, kind: ArgumentKind | None) -> Any:
        """Return an argument of a check by what it is declared to be."""
        if kind in {"number", "share", "count"}:
            found = self._reader.number(node, name)
            return UNREADABLE if found is None else found
        if kind in {"text", "duration"}:
            return self._reader.text(node, name)
        # The column that a list of values belongs to says of which type they are.
        return self._reader.plain(node, name, is_typed=kind != "mapping")


def _is_cut_decimal(columns: Mapping[str, str | Column]) -> bool:
    last = next(reversed(list(columns.values())), None)
    return isinstance(last, str) and not is_read(last)


def _batch(record: Record) -> BatchSource:
    return BatchSource(record.text("format"), record.text("path"), record.where)


def _stream(record: Record) -> StreamSource:
    return StreamSource(
        record.text("topic"), record.optional_text("format") or "json", record.where
    )


def _schedule(record: Record) -> Schedule:
    refresh = record.optional_text("refresh")
    return Schedule(
        "daily" if refresh is None else refresh,
        record.optional_text("at"),
        record.optional_text("timezone"),
        record.where,
    )


def _entity(record: Record) -> Entity:
    return Entity(
        record.text("name"),
        record.text("join_key"),
        record.text("type"),
        record.optional_text("description") or "",
        record.where,
    )


def _service(record: Record) -> FeatureService:
    node = record.node("features")
    is_list = isinstance(node, SequenceNode)
    return FeatureService(
        record.text("name"),
        record.texts("features") if is_list else (*record.texts("features"), UNREADABLE),
        record.optional_text("description") or "",
        record.where,
    )
