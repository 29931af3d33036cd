"""Typed expressions as JSON documents, so that one is read back without a parser of SQL."""

from collections.abc import Mapping
from typing import Any

from millrace.expressions.expression import Expression
from millrace.expressions.nodes import Call, Case, Column, Literal, Node
from millrace.types import parse_type
from millrace.values.plain import from_plain, to_plain


def to_document(expression: Expression) -> dict[str, Any]:
    """Return an expression as plain JSON values, each node with its type.

    A node is ``{"column": name}``, ``{"literal": value}``, ``{"call": op, "args": …, "takes": …}``
    or ``{"case": [[when, then], …], "else": node or null}``.
    """
    return _document(expression.root)


def from_document(document: Mapping[str, Any]) -> Expression:
    """Return the expression of a document.

    Raises:
        KeyError, ValueError, TypeError: it is none.
    """
    return Expression(_node(document))


def _document(node: Node) -> dict[str, Any]:
    type_ = str(node.type)
    if isinstance(node, Column):
        return {"column": node.name, "type": type_}
    if isinstance(node, Literal):
        return {"literal": to_plain(node.value), "type": type_}
    if isinstance(node, Case):
        branches = [[_document(when), _document(then)] for when, then in node.branches]
        default = None if node.default is None else _document(node.default)
        return {"case": branches, "else": default, "type": type_}
    args, takes = [_document(arg) for arg in node.args], [str(kind) for kind in node.takes]
    return {"call": node.op, "args": args, "takes": takes, "type": type_}


def _node(document: Mapping[str, Any]) -> Node:
    type_ = parse_type(document["type"])
    if "column" in document:
        return Column(document["column"], type_)
    if "literal" in document:
        return Literal(from_plain(document["literal"], type_), type_)
    if "case" in document:
        branches = tuple((_node(when), _node(then)) for when, then in document["case"])
        default = document["else"]
        return Case(branches, None if default is None else _node(default), type_)
    args, takes = map(_node, document["args"]), map(parse_type, document["takes"])
    return Call(document["call"], tuple(args), tuple(takes), type_)
