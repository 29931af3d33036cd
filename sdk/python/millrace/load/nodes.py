"""Typed access to the nodes of a YAML document; every fault is noted with its line.

Nodes and not values are read, because only nodes know their lines, and because a scalar's text is
what the author wrote: ``no``, ``1e3`` and ``2018-04-01`` stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from millrace.errors import nearest
from millrace.faults import UNREADABLE, FaultList, is_read
from millrace.load.keys import Keys
from millrace.load.scalars import is_quoted, is_text_to_all, number, plain_value
from millrace.spec import Location

_TAG = "tag:yaml.org,2002:"
_NULL = _TAG + "null"
_MERGE = _TAG + "merge"


class Record:
    """One mapping node: its fields by name, each read at most once by the caller.

    ``text`` and the other readers note a fault and return a stand-in where a field is unreadable.
    """

    def __init__(self, where: Location, fields: Mapping[str, Node], reader: "NodeReader") -> None:
        self.where = where
        self._fields = fields
        self._reader = reader

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def node(self, name: str) -> Node | None:
        """Return a field's node; None if it is not there."""
        return self._fields.get(name)

    def text(self, name: str) -> str:
        """Return a required field's text; ``UNREADABLE`` if it is missing or no text."""
        node = self._fields.get(name)
        return UNREADABLE if node is None else self._reader.text(node, name)

    def optional_text(self, name: str) -> str | None:
        """Return a field's text; None if it is not there."""
        node = self._fields.get(name)
        return None if node is None else self._reader.text(node, name)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a field that is ``true`` or ``false``; the default if it is not there."""
        node = self._fields.get(name)
        return default if node is None else self._reader.flag(node, name, default=default)

    def optional_number(self, name: str) -> float | None:
        """Return a field that is a number; None if it is not there or at fault."""
        node = self._fields.get(name)
        return None if node is None else self._reader.number(node, name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts; empty if it is not there."""
        node = self._fields.get(name)
        if node is None:
            return ()
        return tuple(self._reader.text(n, f"{name}[]") for n in self._reader.items(node, name))

    def items(self, name: str) -> Sequence[Node]:
        """Return the nodes of a field that is a list; empty if it is not there."""
        node = self._fields.get(name)
        return () if node is None else self._reader.items(node, name)


class NodeReader:
    """Reads the nodes of one file."""

    def __init__(self, file: str, faults: FaultList) -> None:
        self.file = file
        self.faults = faults

    def where(self, node: Node) -> Location:
        """Return a node's ``file:line``."""
        return Location(self.file, node.start_mark.line + 1)

    def fault(self, node: Node, what: str, fix: str = "") -> None:
        """Note a fault at a node."""
        self.faults.add(self.where(node), what, fix)

    def text(self, node: Node, name: str) -> str:
        """Return a scalar as it is written."""
        if not isinstance(node, ScalarNode):
            self.fault(node, f"{name} is {_kind(node)}", "write one value")
            return UNREADABLE
        if node.tag == _NULL and node.style is None:
            fix = f"; quote {node.value} if the text is meant" if node.value else ""
            self.fault(node, f"{name} has no value", f"write one, or remove the line{fix}")
            return UNREADABLE
        return str(node.value)

    def flag(self, node: Node, name: str, *, default: bool) -> bool:
        """Return ``true`` or ``false``; the default with a fault for anything else."""
        if isinstance(node, ScalarNode) and not is_quoted(node):
            value = plain_value(str(node.value))
            if isinstance(value, bool):
                return value
        self.fault(node, f"{name} is {_kind(node)}", f"write `{name}: true` or `{name}: false`")
        return default

    def number(self, node: Node, name: str) -> float | None:
        """Return a whole or decimal number; None with a fault for anything else."""
        if isinstance(node, ScalarNode) and not is_quoted(node):
            value = number(str(node.value))
            if value is not None:
                return value
        self.fault(node, f"{name} is {_kind(node)}, not a number", "write a plain number: 5 or 0.2")
        return None

    def plain(self, node: Node, name: str, *, is_typed: bool = True) -> Any:
        """Return a scalar, or a list or mapping of such, however deep: see ``plain_value``.

        Args:
            node: what to read.
            name: of the field, for messages.
            is_typed: something else knows which type is meant; else what readers of YAML differ
                about is ``UNREADABLE``, with a fault.
        """
        if isinstance(node, MappingNode):
            return {
                key: self.plain(value, key, is_typed=is_typed)
                for key, _, value in self.pairs(node, name)
            }
        if isinstance(node, SequenceNode):
            return [self.plain(item, name, is_typed=is_typed) for item in node.value]
        text = str(node.value)
        if not isinstance(node, ScalarNode) or is_quoted(node):
            return text
        value = plain_value(text)
        if is_typed or not isinstance(value, str) or is_text_to_all(text):
            return value
        if (meant := number(text)) is not None:
            return meant
        self.fault(
            node,
            f"{name} is {text!r}, which some take for a text and some for something else",
            f'quote it if the text is meant: "{text}"; else write a plain number, true or false',
        )
        return UNREADABLE

    def items(self, node: Node, name: str) -> Sequence[Node]:
        """Return the nodes of a list."""
        if not isinstance(node, SequenceNode):
            self.fault(node, f"{name} is {_kind(node)}, not a list", f"write {name}: [ … ]")
            return ()
        return list(node.value)

    def pairs(self, node: Node, name: str) -> Iterator[tuple[str, Node, Node]]:
        """Yield ``(key, key node, value node)`` of a mapping, a repeated key only once.

        Merge keys (``<<: *defaults``) are followed; keys of the mapping itself win over them.
        """
        if not isinstance(node, MappingNode):
            self.fault(node, f"{name} is {_kind(node)}, not key: value pairs")
            return
        seen: dict[str, int] = {}
        merged: list[tuple[Node, Node]] = []
        for key_node, value in node.value:
            if key_node.tag == _MERGE:
                merged.extend(self._merged_pairs(value))
                continue
            key = self.text(key_node, f"a key of {name}")
            if not is_read(key):
                continue
            line = key_node.start_mark.line + 1
            if key in seen:
                self.fault(
                    key_node,
                    f"the key {key!r} stands twice in {name}, first in line {seen[key]}",
                    "keep one of them",
                )
                continue
            seen[key] = line
            yield key, key_node, value
        for key_node, value in merged:
            if isinstance(key_node, ScalarNode) and key_node.value not in seen:
                seen[key_node.value] = key_node.start_mark.line + 1
                yield str(key_node.value), key_node, value

    def _merged_pairs(self, value: Node) -> Iterator[tuple[Node, Node]]:
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            if isinstance(source, MappingNode):
                yield from source.value
            else:
                self.fault(source, f"<< has nothing to merge: {_kind(source)}", "name an *anchor")

    def kind(self, node: Node, keys: Keys) -> Keys:
        """Return the keys of the kind of record that a node is; its faults are noted by ``record``."""
        if keys.other is None or not isinstance(node, MappingNode):
            return keys
        name, other = keys.other
        quiet = NodeReader(self.file, FaultList())
        return other if any(key == name for key, _, _ in quiet.pairs(node, keys.of)) else keys

    def record(self, node: Node, keys: Keys) -> Record | None:
        """Return a mapping whose keys are known; unknown and missing ones are noted.

        Returns:
            None if the node is no mapping.
        """
        if not isinstance(node, MappingNode):
            self.fault(node, f"{keys.of} is {_kind(node)}, not key: value pairs", _example(keys))
            return None
        fields: dict[str, Node] = {}
        lines: list[tuple[str, int]] = []
        meant: set[str] = set()
        for key, key_node, value in self.pairs(node, keys.of):
            if key not in keys.known:
                left = [k for k in keys.known if k not in fields]
                hint = keys.mends.get(key) or nearest(key, left)
                meant.update(k for k in keys.required if f"'{k}'" in hint)
                self.fault(key_node, f"{keys.of} has no key {key!r}", hint)
                continue
            fields[key] = value
            lines.append((key, key_node.start_mark.line + 1))
        for key in keys.required:
            # A misspelt key is reported once, as unknown; it is not missing besides.
            if key not in fields and key not in meant:
                self.fault(node, f"{keys.of} has no {key}", f"add {key}: …")
        where = Location(self.file, node.start_mark.line + 1, tuple(lines))
        return Record(where, fields, self)


def _kind(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.tag == _NULL and node.value in {"", "~", "null"}:
        return "empty"
    return f"the text {str(node.value)[:60]!r}"


def _example(keys: Keys) -> str:
    named = keys.required or keys.known[:1]
    return "write {" + ", ".join(f"{key}: …" for key in named) + "}"
