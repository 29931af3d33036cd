"""Expressions as SQL trees for Spark 4.2 and Flink 2.2, with the meaning of the reference.

Nothing in the compiled SQL raises: in Spark's ANSI mode an error would stop a backfill, in Flink
a job. Assumed of the session: its time zone is UTC. Assumed of the columns: the declared types,
and timestamps (in Flink ``TIMESTAMP_LTZ(3)``) of whole milliseconds.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar

from sqlglot import exp

from millrace.compile.dialects import SPARK, MillraceFlink
from millrace.compile.folding import folded
from millrace.compile.lowering import Lowering
from millrace.compile.sql_values import binary, number, when
from millrace.compile.trees import call
from millrace.durations import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from millrace.expressions import Expression
from millrace.expressions.nodes import Call, Literal, Node
from millrace.types import (
    DATE,
    FLOAT64,
    INT64,
    MAX_DECIMAL_PRECISION,
    STRING,
    DataType,
    decimal,
)


def to_spark(expression: Expression) -> exp.Expression:
    """Return the expression for Spark; its SQL type is the declared one of ``expression.type``."""
    return _whole(_SPARK.node(expression.root, finite=True))


def to_flink(expression: Expression) -> exp.Expression:
    """Return the expression for Flink; its SQL type is the declared one of ``expression.type``.

    It may call ``epoch_ms`` and ``utc_day`` of the stream jobs' jar: see ``millrace.compile.flink``.
    """
    return _whole(_FLINK.node(folded(expression.root), finite=True))


def flink_double(tree: exp.Expression, kind: DataType) -> exp.Expression:
    """Return a number of a type as Flink's DOUBLE, the nearest one."""
    return tree if kind == FLOAT64 else _FLINK.widen(tree, kind, FLOAT64)


def _whole(tree: exp.Expression) -> exp.Expression:
    """Return a tree whose parts are all its own: a guard names one operand twice."""
    return tree.copy()


class _Spark(Lowering):
    """Spark 4.2, ANSI mode on or off."""

    dialect: ClassVar[str | type] = SPARK

    _CHECKED: ClassVar[Mapping[str, str]] = {
        "+": "TRY_ADD",
        "-": "TRY_SUBTRACT",
        "*": "TRY_MULTIPLY",
    }

    def spelled(self, kind: DataType) -> str:
        return kind.spark

    def checked(self, op: str, left: exp.Expression, right: exp.Expression) -> exp.Expression:
        return call(self._CHECKED[op], left, right)

    def at(self, epoch_ms: int) -> exp.Expression:
        return call("TIMESTAMP_MILLIS", number(str(epoch_ms)))

    def integer(self, value: int, kind: DataType) -> exp.Expression:
        return number(f"{value}L") if kind.kind == "int64" else super().integer(value, kind)


_LONG_DIGITS = 18

# How long the part takes to come round, and one unit of it.
_CLOCK_PARTS: Mapping[str, tuple[int, int]] = {
    "HOUR": (DAY_MS, HOUR_MS),
    "MINUTE": (HOUR_MS, MINUTE_MS),
    "SECOND": (MINUTE_MS, SECOND_MS),
}


class _Flink(Lowering):
    """Flink 2.2."""

    dialect: ClassVar[str | type] = MillraceFlink
    names: ClassVar[Mapping[str, str]] = {"LENGTH": "CHAR_LENGTH", "DAY": "DAYOFMONTH"}

    def spelled(self, kind: DataType) -> str:
        return kind.flink

    def checked(self, op: str, left: exp.Expression, right: exp.Expression) -> exp.Expression:
        # BIGINT wraps around silently, and so does a cast from DECIMAL; reading text does not.
        # Comparing the exact result with the bounds would name it three times, and a chain of n
        # additions 3^n times.
        wide = decimal(19, 0)
        result = binary(op, self.cast(left, wide), self.cast(right, wide))
        return self.try_cast(self.cast(result, STRING), INT64)

    def transcendental(self, node: Call) -> exp.Expression:
        if node.op != "LN":
            return super().transcendental(node)
        # Some releases raise on an argument that is not positive; others give NaN.
        tree = self.taken(node.args[0], FLOAT64)
        return call("LN", when(binary(">", tree, number("0e0")), tree))

    def like(self, node: Call) -> exp.Expression:
        pattern = node.args[1]
        if not isinstance(pattern, Literal) or "_" not in str(pattern.value):
            return super().like(node)
        # Flink's `_` stands for any character but a line break.
        words = {"%": ".*", "_": "."}
        regex = "".join(words.get(c) or re.escape(c) for c in str(pattern.value))
        text = self.node(node.args[0], finite=True)
        return call("REGEXP", text, exp.Literal.string(rf"(?s)\A{regex}\z"))

    def part(self, name: str, node: Node) -> exp.Expression:
        tree = self.node(node, finite=True)
        # Flink's own parts of an instant before 1970 are cut towards zero.
        if name in _CLOCK_PARTS:
            whole, unit = (self.integer(ms, INT64) for ms in _CLOCK_PARTS[name])
            left = call("MOD", call("EPOCH_MS", tree), whole)
            passed = call("MOD", exp.Add(this=left, expression=whole.copy()), whole.copy())
            return exp.Div(this=passed, expression=unit)
        day = tree if node.type == DATE else call("UTC_DAY", tree)
        return self.cast(call(name, day), INT64)

    def widen(self, tree: exp.Expression, source: DataType, to: DataType) -> exp.Expression:
        # DECIMAL of up to 18 digits becomes a double as long / 10^scale, which rounds twice
        # beyond 2^53. More digits are kept as a BigDecimal, which rounds once, as everywhere else.
        if to == FLOAT64 and source.kind == "decimal" and source.precision in {16, 17, 18}:
            tree = self.cast(tree, decimal(MAX_DECIMAL_PRECISION, source.scale))
        return super().widen(tree, source, to)

    def at(self, epoch_ms: int) -> exp.Expression:
        return call("TO_TIMESTAMP_LTZ", number(str(epoch_ms)), number("3"))

    def bare(self, value: object) -> exp.Expression:
        # Flink reads no literal of more digits than a long has.
        if isinstance(value, Decimal) and len(digits := value.as_tuple().digits) > _LONG_DIGITS:
            scale = -int(value.as_tuple().exponent)
            kind = decimal(max(len(digits), scale), scale)
            return self.cast(exp.Literal.string(f"{value:f}"), kind)
        return super().bare(value)

    def string(self, value: str) -> exp.Expression:
        # A literal is CHAR(n); in CASE and COALESCE it must not bring its length along.
        return self.cast(exp.Literal.string(value), STRING)


_SPARK = _Spark()
_FLINK = _Flink()
