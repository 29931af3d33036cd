"""Expressions without the parts that no column can change.

Flink's planner folds constants as well, and fails on some of them ("RexCall cannot be cast to
RexLiteral": a TRY_CAST of one, a NULLIF over a COALESCE that begins with one). So it gets none.
"""

from dataclasses import replace

from millrace.expressions import Expression, evaluate
from millrace.expressions.meaning import widened
from millrace.expressions.nodes import Call, Case, Column, Literal, Node
from millrace.types import BOOL, DataType


def folded(node: Node) -> Node:
    """Return an equal node of the same type; a part that is constant is a literal."""
    if isinstance(node, Literal | Column):
        return node
    if isinstance(node, Case):
        return _case(node)
    node = replace(node, args=tuple(map(folded, node.args)))
    if all(isinstance(arg, Literal) for arg in node.args):
        return Literal(evaluate(Expression(node), {}), node.type)  # type: ignore[arg-type]
    if node.op == "COALESCE":
        return _coalesce(node)
    return _connective(node) if node.op in {"AND", "OR"} else node


def _coalesce(node: Call) -> Node:
    left: list[tuple[Node, DataType]] = []
    for arg, takes in zip(node.args, node.takes, strict=True):
        if isinstance(arg, Literal) and arg.value is None:
            continue
        left.append((arg, takes))
        if isinstance(arg, Literal):
            break
    (first, _), *_ = left
    if isinstance(first, Literal):
        return _as_type(first, node.type)
    args, takes_left = zip(*left, strict=True)
    return replace(node, args=args, takes=takes_left)


def _connective(node: Call) -> Node:
    decides = node.op == "OR"
    values = [arg.value for arg in node.args if isinstance(arg, Literal)]
    if decides in values:
        return Literal(decides, BOOL)
    left = [arg for arg in node.args if not isinstance(arg, Literal) or arg.value is None]
    if len(left) == 1:
        return left[0]
    return replace(node, args=tuple(left), takes=node.takes[: len(left)])


def _case(node: Case) -> Node:
    default = None if node.default is None else folded(node.default)
    branches: list[tuple[Node, Node]] = []
    for condition, value in node.branches:
        met, chosen = folded(condition), folded(value)
        if isinstance(met, Literal):
            if met.value is True:
                default = chosen
                break
        else:
            branches.append((met, chosen))
    if branches:
        return Case(tuple(branches), default, node.type)
    return Literal(None, node.type) if default is None else _as_type(default, node.type)


def _as_type(node: Node, kind: DataType) -> Node:
    if node.type == kind:
        return node
    if isinstance(node, Literal):
        return Literal(None if node.value is None else widened(node.value, kind), kind)
    return Call("COALESCE", (node,), (kind,), kind)
