"""The common type of several values."""

from collections.abc import Sequence

from millrace.expressions.errors import ExpressionError
from millrace.expressions.nodes import Literal, Node
from millrace.types import FLOAT64, INT32, INT64, MAX_DECIMAL_PRECISION, DataType, decimal

INTEGER_DIGITS = {"int32": 10, "int64": 19}


def as_decimal(node: Node) -> DataType:
    """Return the decimal type that holds every value of an integer or decimal node."""
    if not node.type.is_integer:
        return node.type
    if isinstance(node, Literal) and isinstance(node.value, int):
        return decimal(len(str(abs(node.value))), 0)
    return decimal(INTEGER_DIGITS[node.type.kind], 0)


def decimal_type(precision: int, scale: int, text: str) -> DataType:
    """Return a decimal type, refusing what could not be exact.

    Raises:
        ExpressionError: more than 38 digits; ``text`` says where.
    """
    if precision > MAX_DECIMAL_PRECISION:
        raise ExpressionError(
            f"{text} needs a decimal of {precision} digits, and {MAX_DECIMAL_PRECISION} is the most",
            fix="CAST an operand to a smaller decimal, or to float64",
        )
    return decimal(precision, scale)


def unify(nodes: Sequence[Node], text: str) -> DataType:
    """Return the type that all nodes can be taken as, without loss but for float64.

    Args:
        nodes: at least one.
        text: where they stand, for the message.

    Raises:
        ExpressionError: the types have nothing in common, or no decimal holds them all.
    """
    kinds = [n.type for n in nodes]
    if all(k == kinds[0] for k in kinds):
        return kinds[0]
    if not all(k.is_numeric for k in kinds):
        other = next(k for k in kinds if k != kinds[0])
        raise ExpressionError(
            f"{kinds[0]} and {other} do not go together in {text}", fix=_bridge(kinds[0], other)
        )
    if FLOAT64 in kinds:
        return FLOAT64
    if all(k.is_integer for k in kinds):
        return INT32 if set(kinds) == {INT32} else INT64
    wide = [as_decimal(n) for n in nodes]
    scale = max(w.scale for w in wide)
    return decimal_type(max(w.precision - w.scale for w in wide) + scale, scale, text)


def _bridge(one: DataType, other: DataType) -> str:
    kinds = {one.kind, other.kind}
    if kinds == {"timestamp", "date"}:
        return "CAST(x AS date) or CAST(x AS timestamp)"
    if kinds == {"timestamp", "string"}:
        return "write the instant as TIMESTAMP '2024-01-31 23:59:59'"
    if kinds == {"date", "string"}:
        return "write the day as DATE '2024-01-31'"
    if "bool" in kinds:
        return "write CASE WHEN condition THEN 1 ELSE 0 END"
    return f"give both sides one type, for example CAST(x AS {one})"
