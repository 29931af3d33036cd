"""A typed expression: its nodes, what they read, and the one way they are written."""

from dataclasses import dataclass
from functools import cached_property

from millrace.expressions.nodes import Column, Node, walk
from millrace.expressions.text import render
from millrace.types import DataType


@dataclass(frozen=True)
class Expression:
    """A typed expression over the columns of one source, or over the features of one view.

    Equal expressions have equal meaning, types and text; the text is part of fingerprints.
    """

    root: Node

    @property
    def type(self) -> DataType:
        """The type of the value; every expression may also be null."""
        return self.root.type

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns read, each once, in order of first use."""
        return tuple(dict.fromkeys(n.name for n in walk(self.root) if isinstance(n, Column)))

    @cached_property
    def text(self) -> str:
        """Canonical SQL: parses to an equal expression, whatever way this one was written."""
        return render(self.root)


def column_expression(name: str, type: DataType) -> Expression:
    """Return the expression that reads one column."""
    return Expression(Column(name, type))
