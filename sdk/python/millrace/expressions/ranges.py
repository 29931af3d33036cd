"""Which integers an expression can be: where int64 cannot overflow, no engine needs to check."""

from collections.abc import Mapping

from millrace.expressions.constants import INT64_MAX, INT64_MIN
from millrace.expressions.nodes import Call, Literal, Node

Range = tuple[int, int]

_INT64: Range = (INT64_MIN, INT64_MAX)
_INT32: Range = (-(2**31), 2**31 - 1)

_FUNCTIONS: Mapping[str, Range] = {
    "MONTH": (1, 12),
    "DAY": (1, 31),
    "HOUR": (0, 23),
    "MINUTE": (0, 59),
    "SECOND": (0, 59),
    "DAYOFWEEK": (1, 7),
    "LENGTH": (0, 2**31 - 1),
}


def exact_range(node: Node) -> Range:
    """Return the least and greatest value of an integer node if nothing overflowed on the way.

    Wider than int64 means that the node itself can overflow. Its arguments are int64 by then.
    """
    if isinstance(node, Literal) and isinstance(node.value, int):
        return node.value, node.value
    if isinstance(node, Call):
        if node.op in _FUNCTIONS:
            return _FUNCTIONS[node.op]
        if node.op in {"+", "-", "*", "NEG", "ABS"}:
            return _arithmetic(node.op, [_held(exact_range(a)) for a in node.args])
    return _INT32 if node.type.kind == "int32" else _INT64


def can_overflow(node: Node) -> bool:
    """Tell whether an integer operation can leave int64."""
    low, high = exact_range(node)
    return low < INT64_MIN or high > INT64_MAX


def _held(found: Range) -> Range:
    """Cut a range to int64: what lies outside is null and takes no part in what follows."""
    return max(found[0], INT64_MIN), min(found[1], INT64_MAX)


def _arithmetic(op: str, of: list[Range]) -> Range:
    (a, b) = of[0]
    if op == "NEG":
        return -b, -a
    if op == "ABS":
        return 0, max(abs(a), abs(b))
    (c, d) = of[1]
    if op == "+":
        return a + c, b + d
    if op == "-":
        return a - d, b - c
    corners = [x * y for x in (a, b) for y in (c, d)]
    return min(corners), max(corners)
