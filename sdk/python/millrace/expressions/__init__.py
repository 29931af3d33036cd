"""The expression language: SQL with one meaning in Spark, Flink, Python and Arrow."""

from millrace.expressions.errors import ExpressionError
from millrace.expressions.meaning import evaluate
from millrace.expressions.nodes import Expression, column_expression
from millrace.expressions.parse import parse_expression

__all__ = ["Expression", "ExpressionError", "column_expression", "evaluate", "parse_expression"]
