"""The expression language: SQL with one meaning in Spark, Flink, Python and Arrow.

The parser is loaded at first use: Spark's workers read plans and have no SQL parser.
"""

from typing import TYPE_CHECKING, Any

from millrace.expressions.errors import ExpressionError
from millrace.expressions.expression import Expression, column_expression
from millrace.expressions.meaning import compiled, evaluate
from millrace.expressions.nodes import AS_OF

if TYPE_CHECKING:
    from millrace.expressions.parse import names_in, parse_expression

__all__ = [
    "AS_OF",
    "Expression",
    "ExpressionError",
    "column_expression",
    "compiled",
    "evaluate",
    "names_in",
    "parse_expression",
]


def __getattr__(name: str) -> Any:
    if name not in {"names_in", "parse_expression"}:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from millrace.expressions import parse

    return getattr(parse, name)
