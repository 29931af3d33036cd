"""Which conversions can be asked for, and how the others are said."""

from collections.abc import Mapping

from millrace.expressions.errors import ExpressionError
from millrace.expressions.nodes import Node
from millrace.expressions.signature import Signature
from millrace.expressions.text import render
from millrace.types import DataType

_NUMBERS = frozenset({"int32", "int64", "float64", "decimal"})

# Conversions with one meaning in every engine. Those left out print or read text in ways that
# differ (doubles, booleans and instants as text, text as numbers).
CASTS: Mapping[str, frozenset[str]] = {
    "int32": _NUMBERS | {"string"},
    "int64": _NUMBERS | {"string"},
    "float64": _NUMBERS,
    "decimal": _NUMBERS | {"string"},
    "bool": frozenset({"int32", "int64"}),
    "timestamp": frozenset({"date"}),
    "date": frozenset({"timestamp", "string"}),
    "string": frozenset(),
    "bytes": frozenset(),
}

_INSTEAD: Mapping[tuple[str, str], str] = {
    **{(kind, "bool"): "write x <> 0" for kind in _NUMBERS},
    ("bool", "string"): "write CASE WHEN x THEN 'yes' WHEN NOT x THEN 'no' END",
    ("bool", "float64"): "write CASE WHEN x THEN 1e0 ELSE 0e0 END",
    ("bool", "decimal"): "write CASE WHEN x THEN 1.0 ELSE 0.0 END",
    ("float64", "string"): "CAST it to a decimal first",
    ("timestamp", "string"): "CAST it to date first",
    ("timestamp", "int64"): "take a part of it, for example HOUR(x)",
}


def cast_signature(arg: Node, to: DataType) -> Signature:
    """Return the signature of an explicit conversion to another type.

    Raises:
        ExpressionError: the conversion has no single meaning; the fix says it another way.
    """
    kind = arg.type.kind
    if to.kind not in CASTS[kind]:
        known = ", ".join(sorted(CASTS[kind]))
        fix = _INSTEAD.get((kind, to.kind), "")
        if not fix and kind == "string":
            fix = f"declare the column as {to} in its source"
        if not fix:
            fix = f"{kind} converts to {known}" if known else f"{kind} converts to nothing else"
        raise ExpressionError(f"no conversion of {arg.type} to {to}: {render(arg)}", fix=fix)
    return Signature((arg.type,), to)
