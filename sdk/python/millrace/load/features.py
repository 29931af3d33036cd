"""The entries of ``features`` in a feature view of YAML, into specs."""

from collections.abc import Callable, Mapping
from typing import Any

from yaml.nodes import MappingNode, Node, SequenceNode

from millrace.aggregates import check_forms
from millrace.faults import UNREADABLE, is_read
from millrace.load import keys
from millrace.load.nodes import NodeReader, Record
from millrace.spec import DerivedFeature, Feature, Session, Tumbling, WindowSpec, feature_name

UNREADABLE_FEATURE = Feature(UNREADABLE, UNREADABLE, UNREADABLE)
"""What stands in a view for an entry that could not be read."""


class FeatureReader:
    """Reads the entries of one file; what is wrong with their shape goes to the reader's faults."""

    def __init__(self, reader: NodeReader) -> None:
        self._reader = reader

    def read(self, node: Node) -> tuple[Feature | DerivedFeature, ...]:
        """Return the features of one entry: one for each of its windows and percentiles."""
        of = self._reader.kind(node, keys.FEATURE)
        record = self._reader.record(node, of)
        if record is None:
            return (UNREADABLE_FEATURE,)
        if of is keys.DERIVED:
            return (self._derived(record),)
        windows = self._windows(record)
        name = record.text("name")
        if len(windows) > 1 and is_read(name) and "{window}" not in name:
            self._reader.faults.add(
                record.where.at("name"),
                f"{len(windows)} windows would all be named {name!r}",
                f"put the window into the name: {name}_{{window}}",
            )
            name = UNREADABLE
        if not all(map(_is_known, windows)) and "{window}" in name:
            name = UNREADABLE
        parameters, ps = self._parameters(record), self._percentiles(record)
        if len(ps) > 1 and is_read(name) and "{p}" not in name:
            self._reader.faults.add(
                record.where.at("name"),
                f"{len(ps)} percentiles would all be named {name!r}",
                f"put the percentile into the name: {name}_{{p}}",
            )
            name = UNREADABLE
        if "ps" in record and not ps and "{p}" in name:
            name = UNREADABLE
        common: dict[str, Any] = {
            "aggregate": record.text("aggregate"),
            "column": record.optional_text("column"),
            "expr": record.optional_text("expr"),
            "hop": record.optional_text("hop"),
            "offset": record.optional_text("offset"),
            "default": self._default(record),
            "description": record.optional_text("description") or "",
            "where": record.where,
        }
        return tuple(
            Feature(
                name=feature_name(name, str(window), one.get("p")) if is_read(name) else name,
                window=window,
                parameters=one,
                **common,
            )
            for window in windows
            for one in ([{**parameters, "p": p} for p in ps] or [dict(parameters)])
        )

    def _percentiles(self, record: Record) -> list[float]:
        if "p" in record and "ps" in record:
            self._reader.faults.add(
                record.where.at("ps"), "a feature has p and ps", "keep one of them"
            )
            return []
        nodes = record.items("ps")
        listed = record.node("ps")
        if isinstance(listed, SequenceNode) and not nodes:
            self._reader.fault(listed, "ps is empty", "write ps: [50, 95]")
        found = [self._reader.number(node, "ps[]") for node in nodes]
        return [p for p in found if p is not None]

    def _derived(self, record: Record) -> DerivedFeature:
        return DerivedFeature(
            name=record.text("name"),
            derive=record.text("derive"),
            default=self._default(record),
            description=record.optional_text("description") or "",
            where=record.where,
        )

    def _default(self, record: Record) -> Any:
        node = record.node("default")
        value = None if node is None else self._reader.plain(node, "default")
        if node is not None and value is None:
            self._reader.fault(node, "default has no value", "write one, or remove it")
        return value

    def _window(self, node: Node) -> WindowSpec:
        if not isinstance(node, MappingNode):
            return self._reader.text(node, "window")
        written = [key for key, *_ in self._reader.pairs(node, "window")]
        kind = next((kind for kind in keys.WINDOWS if kind in written), None)
        if kind is None:
            kinds = " or ".join(f"{{{one}: …}}" for one in keys.WINDOWS)
            self._reader.fault(node, "window is a mapping of no kind of window", f"write {kinds}")
            return UNREADABLE
        record = self._reader.record(node, keys.WINDOWS[kind])
        return UNREADABLE if record is None else _WINDOWS[kind](record)

    def _windows(self, record: Record) -> tuple[WindowSpec, ...]:
        has_one, has_many = "window" in record, "windows" in record
        if has_one and has_many:
            self._reader.faults.add(
                record.where.at("windows"), "a feature has window and windows", "keep one of them"
            )
        elif has_one:
            node = record.node("window")
            return (UNREADABLE if node is None else self._window(node),)
        elif has_many:
            windows = tuple(self._window(node) for node in record.items("windows"))
            if not windows and isinstance(record.node("windows"), SequenceNode):
                self._reader.faults.add(
                    record.where.at("windows"), "windows is empty", "write windows: [1h, 1d]"
                )
            return windows or (UNREADABLE,)
        else:
            self._reader.faults.add(
                record.where,
                "a feature has no window",
                "add window: 1h, windows: [1h, 1d] or window: lifetime",
            )
        return (UNREADABLE,)

    def _parameters(self, record: Record) -> Mapping[str, float]:
        parameters: dict[str, float] = {}
        for name in keys.PARAMETERS:
            if (value := record.optional_number(name)) is not None:
                parameters[name] = value
        return parameters


def _tumbling(record: Record) -> Tumbling:
    previous = record.optional_number("previous")
    return Tumbling(
        record.text("tumbling"),
        record.optional_text("timezone"),
        0 if previous is None else previous,
        record.where,
    )


def _session(record: Record) -> Session:
    return Session(record.text("session"), record.text("max"), record.where)


_WINDOWS: Mapping[str, Callable[[Record], WindowSpec]] = {
    "tumbling": _tumbling,
    "session": _session,
}
check_forms("the reader of YAML", keys.WINDOWS, _WINDOWS)


def _is_known(window: WindowSpec) -> bool:
    return not isinstance(window, str) or is_read(window)
