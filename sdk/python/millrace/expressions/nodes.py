"""The tree an expression is: four kinds of immutable nodes.

A node carries its type. A call also carries the type each argument is taken as, so that the
rules of ``millrace.expressions.rules`` are applied once and no engine decides a conversion.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from millrace.types import DataType

Value = bool | int | float | Decimal | str | date | None

AS_OF = "AS_OF()"
"""The column of rows of features that holds the instant of the query; events have none."""


@dataclass(frozen=True)
class Column:
    """A column of the source."""

    name: str
    type: DataType


@dataclass(frozen=True)
class Literal:
    """A constant; ``value`` None is a typed null, timestamps are epoch milliseconds."""

    value: Value
    type: DataType


@dataclass(frozen=True)
class Call:
    """An operator or a function applied to arguments.

    Attributes:
        op: the operator as written (``+``, ``<>``, ``AND``, ``IS NULL``, ``NEG`` for unary
            minus) or the function's name in capitals.
        takes: the type each argument is converted to before ``op`` sees it.
    """

    op: str
    args: tuple["Node", ...]
    takes: tuple[DataType, ...]
    type: DataType


@dataclass(frozen=True)
class Case:
    """``CASE WHEN condition THEN value … [ELSE default] END``; every value becomes ``type``."""

    branches: tuple[tuple["Node", "Node"], ...]
    default: "Node | None"
    type: DataType


Node = Column | Literal | Call | Case


def children(node: Node) -> tuple[Node, ...]:
    """Return the nodes directly below, in the order they are written."""
    if isinstance(node, Call):
        return node.args
    if isinstance(node, Case):
        below = tuple(part for branch in node.branches for part in branch)
        return below if node.default is None else (*below, node.default)
    return ()


def walk(node: Node) -> Iterator[Node]:
    """Yield the node and all below it, in the order they are written."""
    yield node
    for child in children(node):
        yield from walk(child)
