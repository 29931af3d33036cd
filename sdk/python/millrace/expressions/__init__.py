"""The expression language: SQL with one meaning in Spark, Flink, Python and Arrow.

The parser is loaded at first use: Spark's workers read plans and have no SQL parser.
"""

from typing import TYPE_CHECKING, Any

from millrace.expressions.errors import ExpressionError
from millrace.expressions.meaning import evaluate
from millrace.expressions.nodes import Expression, column_expression

if TYPE_CHECKING:
    from millrace.expressions.parse import parse_expression

__all__ = ["Expression", "ExpressionError", "column_expression", "evaluate", "parse_expression"]


def __getattr__(name: str) -> Any:
    if name != "parse_expression":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from millrace.expressions.parse import parse_expression

    return parse_expression
