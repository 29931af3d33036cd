"""What an expression means: evaluation in plain Python, the reference for every engine.

Every operation is null if an argument is null, but for AND, OR, IS NULL, BETWEEN, COALESCE,
NULLIF and CASE. Nothing raises: a result that does not exist or leaves its type is null. Doubles that are
not finite count as null wherever they appear. The sign of a zero has no meaning.
"""

import math
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from functools import cache
from operator import itemgetter
from typing import Any

from millrace.calendar import civil, day_number, day_of_week, to_date
from millrace.durations import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from millrace.expressions.constants import INT64_MAX, INT64_MIN
from millrace.expressions.expression import Expression
from millrace.expressions.nodes import Call, Case, Column, Literal, Node
from millrace.types import FLOAT64, DataType

# Wide enough for every double beside every decimal scale, so that only the last step rounds.
_EXACT = Context(prec=400)

Row = Mapping[str, Any]
Evaluator = Callable[[Row], Any]
"""Calculates one value of a row."""


def evaluate(expression: Expression, row: Row) -> object:
    """Return the value of an expression for one event.

    Args:
        expression: what to calculate.
        row: a value for each column it reads: int, float, ``Decimal``, bool, str, bytes, None;
            timestamps as epoch milliseconds, dates as ``datetime.date``.

    Returns:
        A value of ``expression.type`` in the same forms; decimals have the scale of the type.

    >>> from millrace.expressions import parse_expression
    >>> from millrace.types import INT32
    >>> evaluate(parse_expression("seats / 0", {"seats": INT32}), {"seats": 4}) is None
    True
    """
    return compiled(expression)(row)


def compiled(expression: Expression) -> Evaluator:
    """Return what ``evaluate`` does of an expression, for many rows.

    All that the expression alone decides is looked at once; a row then costs a call per node.
    """
    return _compiled(expression.root)


def _compiled(node: Node) -> Evaluator:
    if isinstance(node, Literal):
        value = node.value
        return lambda _: value
    if isinstance(node, Column):
        return _column(node.name, node.type)
    return _case(node) if isinstance(node, Case) else _call(node)


def _column(name: str, kind: DataType) -> Evaluator:
    if kind == FLOAT64:
        return lambda row: None if (value := row[name]) is None else finite(float(value))
    if kind.kind == "decimal":
        return _unless_null(itemgetter(name), lambda value: exact(value, kind))
    return itemgetter(name)


def _unless_null(argument: Evaluator, operation: Callable[[Any], Any]) -> Evaluator:
    def calculate(row: Row) -> Any:
        value = argument(row)
        return None if value is None else operation(value)

    return calculate


def _case(node: Case) -> Evaluator:
    branches = [(_compiled(when), _converted(then, node.type)) for when, then in node.branches]
    default = None if node.default is None else _converted(node.default, node.type)

    def choose(row: Row) -> Any:
        for when, then in branches:
            if when(row) is True:
                return then(row)
        return None if default is None else default(row)

    return choose


def _call(node: Call) -> Evaluator:
    arguments = [_converted(a, t) for a, t in zip(node.args, node.takes, strict=True)]
    lenient = _LENIENT.get(node.op)
    if lenient is not None:
        return lambda row: lenient([argument(row) for argument in arguments])
    operation = _OPERATIONS[node.op]
    if len(arguments) == 2:  # noqa: PLR2004 - most operations; the others go through a list
        left, right = arguments
        return lambda row: (
            None if (a := left(row)) is None or (b := right(row)) is None else operation(node, a, b)
        )

    def calculate(row: Row) -> Any:
        values = [argument(row) for argument in arguments]
        return None if None in values else operation(node, *values)

    return calculate


def _converted(node: Node, kind: DataType) -> Evaluator:
    """Return the node's value as another kind that can hold it."""
    if node.type == kind:
        return _compiled(node)
    return _unless_null(_compiled(node), lambda value: widened(value, kind))


def widened(value: Any, kind: DataType) -> Any:
    """Return a number as another kind that can hold it (float64: the nearest)."""
    if kind == FLOAT64:
        return float(value)
    return exact(value, kind) if kind.kind == "decimal" else value


def exact(value: int | Decimal, kind: DataType) -> Decimal:
    """Return a number with exactly the digits after the point that a decimal type has."""
    return round_half_up(Decimal(value), kind.scale)


def round_half_up(value: Decimal, scale: int) -> Decimal:
    """Round a decimal of any size to digits after the point, half away from zero."""
    return _rounded(value, scale, ROUND_HALF_UP)


def _rounded(value: Decimal, scale: int, rounding: str) -> Decimal:
    rounded = value.quantize(_unit(scale), rounding, _EXACT)
    # Only Python knows a decimal -0, and it would show as text.
    return rounded if rounded else rounded.copy_abs()


@cache
def _unit(scale: int) -> Decimal:
    return Decimal(1).scaleb(-scale)


def finite(value: float) -> float | None:
    """Return a double, or None where it is no number."""
    return value if math.isfinite(value) else None


def in_int64(value: int) -> int | None:
    """Return an integer, or None where int64 cannot hold it."""
    return value if INT64_MIN <= value <= INT64_MAX else None


def _calculate(node: Call, left: Any, right: Any) -> Any:
    if node.type.kind == "decimal":
        return exact(getattr(_EXACT, _DECIMAL_METHODS[node.op])(left, right), node.type)
    result = _PLAIN[node.op](left, right)
    return finite(result) if node.type == FLOAT64 else in_int64(result)


_DECIMAL_METHODS = {"+": "add", "-": "subtract", "*": "multiply"}
_PLAIN: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _divide(_: Call, left: float, right: float) -> float | None:
    return None if right == 0 else finite(left / right)


def _remainder(node: Call, left: Any, right: Any) -> Any:
    if right == 0:
        return None
    if isinstance(left, Decimal):
        return exact(_EXACT.remainder(left, right), node.type)
    size = abs(left) % abs(right)
    return -size if left < 0 else size


def _negative(node: Call, value: Any) -> Any:
    return in_int64(-value) if node.type.is_integer else _exactly(node, value, -1)


def _absolute(node: Call, value: Any) -> Any:
    return in_int64(abs(value)) if node.type.is_integer else _exactly(node, value, 0)


def _exactly(node: Call, value: Any, sign: int) -> Any:
    # Python's own minus and abs() round decimals to the 28 digits of the thread's context.
    if node.type.kind == "decimal":
        return value.copy_negate() if sign and value else value.copy_abs()
    return -value if sign else abs(value)


def _whole(rounding: str, doubles: Callable[[float], int]) -> Callable[[Call, Any], Any]:
    def operation(node: Call, value: Any) -> Any:
        if isinstance(value, float):
            return in_int64(doubles(value))
        if isinstance(value, Decimal):
            return _rounded(value, 0, rounding)
        return value

    return operation


def _round(node: Call, value: Any, digits: int = 0) -> Any:
    if isinstance(value, float):
        # The decimal text of the double is rounded, as the JVM engines do: 2.675 gives 2.68.
        return float(round_half_up(Decimal(repr(value)), digits))
    if isinstance(value, Decimal):
        return round_half_up(value, node.type.scale)
    return value


def _total(operation: Callable[..., float]) -> Callable[..., float | None]:
    """Make null of what a function of doubles cannot calculate."""

    def guarded(_: Call, *values: float) -> float | None:
        try:
            return finite(operation(*values))
        except (ValueError, OverflowError):
            return None

    return guarded


def _substring(_: Call, text: str, start: int, length: int | None = None) -> str:
    end = None if length is None else start - 1 + length
    return text[start - 1 : end]


def _like(_: Call, text: str, pattern: str) -> bool:
    return like_pattern(pattern).fullmatch(text) is not None


@cache
def like_pattern(pattern: str) -> re.Pattern[str]:
    """Return the regular expression of a LIKE pattern, for ``fullmatch``."""
    words = {"%": ".*", "_": "."}
    return re.compile("".join(words.get(c) or re.escape(c) for c in pattern), re.DOTALL)


def _time_part(unit_ms: int, modulus: int) -> Callable[[Call, int], int]:
    return lambda _, instant: instant // unit_ms % modulus


def _day_part(part: Callable[[int], int]) -> Callable[[Call, Any], int]:
    def operation(_: Call, value: int | date) -> int:
        return part(day_number(value) if isinstance(value, date) else value // DAY_MS)

    return operation


def _cast(node: Call, value: Any) -> Any:
    to = node.type
    if to.kind == "string":
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    if to.kind == "date":
        return to_date(value // DAY_MS)
    if to.kind == "timestamp":
        return day_number(value) * DAY_MS
    return to_number(value, to)


def to_number(value: Any, to: DataType) -> Any:
    """Return a number or a bool as another numeric type, None where it does not fit.

    Integers cut a fraction off; decimals round half away from zero.
    """
    if to == FLOAT64:
        return float(value)
    if to.kind == "decimal":
        number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        rounded = round_half_up(number, to.scale)
        return rounded if len(rounded.as_tuple().digits) <= to.precision else None
    whole = int(value)
    limit = 2 ** (31 if to.kind == "int32" else 63)
    return whole if -limit <= whole < limit else None


def _and(values: list[Any]) -> bool | None:
    return False if False in values else None if None in values else True


def _or(values: list[Any]) -> bool | None:
    return True if True in values else None if None in values else False


def _between(values: list[Any]) -> bool | None:
    """Return ``low <= value AND value <= high``: false where one null bound cannot matter."""
    value, low, high = values
    if value is None:
        return None
    return _and([None if low is None else low <= value, None if high is None else value <= high])


def _null_if(values: list[Any]) -> Any:
    return None if values[0] == values[1] else values[0]


_LENIENT: Mapping[str, Callable[[list[Any]], Any]] = {
    "AND": _and,
    "OR": _or,
    "IS NULL": lambda values: values[0] is None,
    "BETWEEN": _between,
    "COALESCE": lambda values: next((v for v in values if v is not None), None),
    "NULLIF": _null_if,
}

_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(["+", "-", "*"], _calculate),
    "/": _divide,
    "%": _remainder,
    "NEG": _negative,
    "=": lambda _, a, b: a == b,
    "<>": lambda _, a, b: a != b,
    "<": lambda _, a, b: a < b,
    "<=": lambda _, a, b: a <= b,
    ">": lambda _, a, b: a > b,
    ">=": lambda _, a, b: a >= b,
    "IN": lambda _, value, *choices: value in choices,
    "NOT": lambda _, value: not value,
    "LIKE": _like,
    "CAST": _cast,
    "ABS": _absolute,
    "FLOOR": _whole(ROUND_FLOOR, math.floor),
    "CEIL": _whole(ROUND_CEILING, math.ceil),
    "ROUND": _round,
    "LN": _total(math.log),
    "EXP": _total(math.exp),
    "SQRT": _total(math.sqrt),
    "POWER": _total(math.pow),
    "LOWER": lambda _, text: text.lower(),
    "UPPER": lambda _, text: text.upper(),
    "LENGTH": lambda _, text: len(text),
    "CONCAT": lambda _, *texts: "".join(texts),
    "SUBSTRING": _substring,
    "HOUR": _time_part(HOUR_MS, 24),
    "MINUTE": _time_part(MINUTE_MS, 60),
    "SECOND": _time_part(SECOND_MS, 60),
    "YEAR": _day_part(lambda day: civil(day)[0]),
    "MONTH": _day_part(lambda day: civil(day)[1]),
    "DAY": _day_part(lambda day: civil(day)[2]),
    "DAYOFWEEK": _day_part(day_of_week),
}
