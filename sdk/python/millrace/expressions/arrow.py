"""Expressions over Arrow tables: whole columns at a time, with the meaning of the reference."""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.calendar import FIRST_NUMBER, LAST_NUMBER
from millrace.durations import DAY_MS
from millrace.expressions import Expression, evaluate
from millrace.expressions import arrow_numbers as numbers
from millrace.expressions.arrow_numbers import Datum
from millrace.expressions.meaning import widened
from millrace.expressions.nodes import Call, Case, Column, Literal, Node, walk
from millrace.expressions.ranges import can_overflow
from millrace.types import DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType
from millrace.values.arrow import arrow_type

# Instants inside are epoch microseconds, as in the type that columns come in.
_MICROSECONDS = 1_000
_DAY_US = DAY_MS * _MICROSECONDS
_UNITS_US = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1_000), "ns": (1, 1_000_000)}
_DAYS_OF_DATES = (
    FIRST_NUMBER,
    LAST_NUMBER,
)
# Arrow writes decimals with an exponent from here on.
_PLAIN_SCALE = 6


def evaluate_column(expression: Expression, table: pa.Table) -> pa.Array:
    """Return the value of an expression for each row, in order.

    Equal to ``millrace.expressions.evaluate`` row by row. Instants finer than a millisecond are
    floored.

    Args:
        expression: what to calculate.
        table: the columns it reads; their types are cast to the declared ones.

    Returns:
        An array of the Arrow type of ``expression.type``.
    """
    value = _Columns(table).value(expression.root)
    return pa.repeat(value, table.num_rows) if isinstance(value, pa.Scalar) else value


class _Columns:
    """Evaluates nodes over one table; what reads no column becomes one scalar."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._read: dict[str, pa.Array] = {}

    def value(self, node: Node) -> Datum:
        """Return the value of a node: a column, or a scalar if it is constant."""
        if isinstance(node, Column):
            return self._column(node)
        if not any(isinstance(below, Column) for below in walk(node)):
            return _scalar(evaluate(Expression(node), {}), node.type)
        if isinstance(node, Case):
            return self._case(node)
        if isinstance(node, Call):
            return self._call(node)
        raise TypeError(node)

    def taken(self, node: Node, kind: DataType) -> Datum:
        """Return the value of a node converted to a wider type."""
        value = self.value(node)
        if node.type == kind:
            return value
        if isinstance(value, pa.Scalar):
            plain = value.as_py()
            return _scalar(None if plain is None else widened(plain, kind), kind)
        if kind == FLOAT64:
            return numbers.to_double(value)
        return pc.cast(value, arrow_type(kind))

    def _column(self, node: Column) -> pa.Array:
        if node.name not in self._read:
            column = self._table.column(node.name).combine_chunks()
            self._read[node.name] = _declared(column, node.type)
        return self._read[node.name]

    def _case(self, node: Case) -> Datum:
        default = node.default
        result = _scalar(None, node.type) if default is None else self.taken(default, node.type)
        for condition, then in reversed(node.branches):
            chosen = self._condition(condition)
            result = pc.if_else(chosen, self.taken(then, node.type), result)
        return result if isinstance(result, pa.Array) else pa.repeat(result, self._table.num_rows)

    def _condition(self, node: Node) -> Datum:
        return pc.fill_null(self.value(node), _FALSE)

    def _call(self, node: Call) -> pa.Array:
        simple = _SIMPLE.get(node.op)
        if simple is not None:
            return simple(*(self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True)))
        return _FORMS[node.op](self, node)

    # -- forms that look at types or at literals --------------------------------------------------

    def arithmetic(self, node: Call) -> pa.Array:
        """``+ - *``."""
        left, right = (self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True))
        if node.type.is_integer:
            calculate = numbers.checked if can_overflow(node) else numbers.wrapped
            return calculate(node.op, left, right)
        result = numbers.wrapped(node.op, left, right)
        return numbers.finite(result) if node.type == FLOAT64 else _as(result, node.type)

    def remainder(self, node: Call) -> pa.Array:
        """``%``."""
        left, right = (self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True))
        if node.type.is_integer:
            return numbers.integer_remainder(left, right)
        return numbers.decimal_remainder(left, right, node.type)

    def sign(self, node: Call) -> pa.Array:
        """Unary minus and ABS."""
        return numbers.signed(node.op, self.taken(node.args[0], node.type))

    def rounding(self, node: Call) -> pa.Array:
        """FLOOR, CEIL and ROUND."""
        value, source = self.value(node.args[0]), node.args[0].type
        if source.is_integer or (
            node.type == source and source.kind == "decimal" and not _cuts(node)
        ):
            return value
        if node.op == "ROUND":
            digits = _digits(node)
            if source == FLOAT64:
                return numbers.finite(numbers.round_double(value, digits))
            return numbers.rounded_decimal(value, numbers.half_up(digits), node.type)
        kernel = pc.floor if node.op == "FLOOR" else pc.ceil
        if source == FLOAT64:
            return numbers.double_to_integer(kernel(value), INT64)
        return numbers.rounded_decimal(value, kernel, node.type)

    def comparison(self, node: Call) -> pa.Array:
        """``= <> < <= > >=``."""
        left, right = self._compared(node)
        return _COMPARISONS[node.op](left, right)

    def between(self, node: Call) -> pa.Array:
        """BETWEEN."""
        value, low, high = self._compared(node)
        return pc.and_kleene(pc.greater_equal(value, low), pc.less_equal(value, high))

    def member(self, node: Call) -> pa.Array:
        """IN."""
        value, *choices = self._compared(node)
        if FLOAT64 in node.takes:
            return reduce(pc.or_kleene, (pc.equal(value, c) for c in choices))
        known = pa.array([c.as_py() for c in choices], choices[0].type)
        if pa.types.is_integer(value.type):
            value = pc.cast(value, known.type)
        found = pc.is_in(value, value_set=known)
        return numbers.null_where(pc.is_null(value), found)

    def _compared(self, node: Call) -> list[Datum]:
        """Return the arguments; decimals as one type, in which they compare by value."""
        kinds = node.takes
        if kinds[0].kind == "decimal":
            scale = max(k.scale for k in kinds)
            precision = max(k.precision - k.scale for k in kinds) + scale
            kinds = (DataType("decimal", precision, scale),) * len(kinds)
        return [self.taken(a, t) for a, t in zip(node.args, kinds, strict=True)]

    def null_if(self, node: Call) -> pa.Array:
        """NULLIF."""
        left, right = (self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True))
        equal = pc.fill_null(pc.equal(left, right), _FALSE)
        return pc.if_else(equal, pa.scalar(None, left.type), left)

    def like(self, node: Call) -> pa.Array:
        """LIKE."""
        return pc.match_like(self.value(node.args[0]), _text(node.args[1]))

    def substring(self, node: Call) -> pa.Array:
        """SUBSTRING."""
        start, *length = (int(_number(a)) for a in node.args[1:])
        stop = start - 1 + length[0] if length else None
        return pc.utf8_slice_codeunits(self.value(node.args[0]), start=start - 1, stop=stop)

    def date_part(self, node: Call) -> pa.Array:
        """YEAR to DAYOFWEEK."""
        value, kind = self.value(node.args[0]), node.args[0].type
        if kind == TIMESTAMP:
            # Without a zone, so that no time zone database is needed.
            value = value.view(pa.int64()).view(pa.timestamp("us"))
        return pc.cast(_PARTS[node.op](value), pa.int64())

    def cast(self, node: Call) -> pa.Array:  # noqa: PLR0911 - one return for each conversion
        """CAST."""
        value, source, to = self.value(node.args[0]), node.args[0].type, node.type
        if to == STRING:
            return _to_text(value, source)
        if to == DATE:
            return _to_day(value)
        if to == TIMESTAMP:
            return pc.cast(pc.cast(value, pa.timestamp("us")), arrow_type(to))
        if to == FLOAT64:
            return numbers.to_double(value)
        if to.kind == "decimal":
            if source == FLOAT64:
                return numbers.double_to_decimal(value, to)
            return numbers.to_decimal(value, to)
        if source == FLOAT64:
            return numbers.double_to_integer(pc.trunc(value), to)
        if source.kind == "decimal":
            return numbers.decimal_to_integer(value, to)
        return numbers.narrowed(value, to)


_FALSE = pa.scalar(False)  # noqa: FBT003


def _scalar(value: Any, kind: DataType) -> pa.Scalar:
    if kind == TIMESTAMP and value is not None:
        value *= _MICROSECONDS
    return pa.scalar(value, arrow_type(kind))


def _declared(column: pa.Array, kind: DataType) -> pa.Array:
    """Return a column as its declared type, without what the language has no place for."""
    if kind == TIMESTAMP:
        return _milliseconds(column)
    column = _as(column, kind)
    return numbers.finite(column) if kind == FLOAT64 else column


def _milliseconds(column: pa.Array) -> pa.Array:
    if not pa.types.is_timestamp(column.type):
        column = pc.cast(column, arrow_type(TIMESTAMP))
    times, per_ms = _UNITS_US[column.type.unit]
    counts = column.view(pa.int64())
    if per_ms > 1:
        values = counts.fill_null(0).to_numpy() // per_ms * _MICROSECONDS
    else:
        values = counts.fill_null(0).to_numpy() * times
    nulls = column.is_null().to_numpy(zero_copy_only=False)
    return pa.array(values, pa.int64(), mask=nulls).view(arrow_type(TIMESTAMP))


def _as(column: pa.Array, kind: DataType) -> pa.Array:
    wanted = arrow_type(kind)
    return column if column.type == wanted else pc.cast(column, wanted)


def _digits(node: Call) -> int:
    return int(_number(node.args[1])) if len(node.args) > 1 else 0


def _cuts(node: Call) -> bool:
    return node.op != "ROUND" or _digits(node) < node.args[0].type.scale


def _number(node: Node) -> int:
    if isinstance(node, Literal) and isinstance(node.value, int):
        return node.value
    raise TypeError(node)


def _text(node: Node) -> str:
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    raise TypeError(node)


def _case_mapped(function: Callable[[str], str], ascii_kernel: Callable[..., pa.Array]) -> Any:
    """Map case as Python and the JVM do (``ß`` to ``SS``), which Arrow's own kernels do not."""

    def mapped(column: pa.Array) -> pa.Array:
        if pc.all(pc.string_is_ascii(column), min_count=0).as_py():
            return ascii_kernel(column)
        encoded = column.dictionary_encode()
        words = [None if w is None else function(w) for w in encoded.dictionary.to_pylist()]
        return pa.array(words, pa.string()).take(encoded.indices)

    return mapped


def _to_text(column: pa.Array, source: DataType) -> pa.Array:
    if source.kind == "decimal" and source.scale > _PLAIN_SCALE:
        return numbers.per_row(lambda value: f"{value:f}", STRING, column)
    return pc.cast(column, pa.string())


def _to_day(column: pa.Array) -> pa.Array:
    days = column.view(pa.int64()).fill_null(0).to_numpy() // _DAY_US
    beyond = (days < _DAYS_OF_DATES[0]) | (days > _DAYS_OF_DATES[1])
    null = column.is_null().to_numpy(zero_copy_only=False) | beyond
    return pa.array(days.astype(np.int32), pa.int32(), mask=null).view(pa.date32())


_COMPARISONS: Mapping[str, Callable[[Datum, Datum], pa.Array]] = {
    "=": pc.equal,
    "<>": pc.not_equal,
    "<": pc.less,
    "<=": pc.less_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
}

_PARTS: Mapping[str, Callable[[pa.Array], pa.Array]] = {
    "YEAR": pc.year,
    "MONTH": pc.month,
    "DAY": pc.day,
    "HOUR": pc.hour,
    "MINUTE": pc.minute,
    "SECOND": pc.second,
    # The week begins with Sunday, its first day is 1.
    "DAYOFWEEK": partial(pc.day_of_week, count_from_zero=False, week_start=7),
}

# Null where an argument is, unless Arrow's kernel says otherwise.
_SIMPLE: Mapping[str, Callable[..., pa.Array]] = {
    "/": lambda left, right: numbers.finite(pc.divide(left, right)),
    "AND": lambda *values: reduce(pc.and_kleene, values),
    "OR": lambda *values: reduce(pc.or_kleene, values),
    "NOT": pc.invert,
    "IS NULL": pc.is_null,
    "COALESCE": pc.coalesce,
    "LN": lambda value: numbers.finite(pc.ln(value)),
    "EXP": lambda value: numbers.finite(pc.exp(value)),
    "SQRT": lambda value: numbers.finite(pc.sqrt(value)),
    "POWER": lambda base, exponent: numbers.finite(pc.power(base, exponent)),
    "LOWER": _case_mapped(str.lower, pc.ascii_lower),
    "UPPER": _case_mapped(str.upper, pc.ascii_upper),
    "LENGTH": lambda value: pc.cast(pc.utf8_length(value), pa.int64()),
    "CONCAT": lambda *texts: pc.binary_join_element_wise(*texts, "", null_handling="emit_null"),
}

_FORMS: Mapping[str, Callable[[_Columns, Call], pa.Array]] = {
    **dict.fromkeys(["+", "-", "*"], _Columns.arithmetic),
    "%": _Columns.remainder,
    **dict.fromkeys(["NEG", "ABS"], _Columns.sign),
    **dict.fromkeys(["FLOOR", "CEIL", "ROUND"], _Columns.rounding),
    **dict.fromkeys(_COMPARISONS, _Columns.comparison),
    "BETWEEN": _Columns.between,
    "IN": _Columns.member,
    "NULLIF": _Columns.null_if,
    "LIKE": _Columns.like,
    "SUBSTRING": _Columns.substring,
    "CAST": _Columns.cast,
    **dict.fromkeys(_PARTS, _Columns.date_part),
}
