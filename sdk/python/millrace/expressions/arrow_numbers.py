"""Numbers in Arrow columns with the rules of the expression language.

Arrow's own kernels wrap or raise where the language says null, and lose digits between decimals
and doubles. Rows that whole-column arithmetic cannot settle are few and go to the reference.
"""

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from millrace.expressions.meaning import round_half_up, to_number
from millrace.types import FLOAT64, DataType
from millrace.values.arrow import arrow_type

Datum: TypeAlias = pa.Array | pa.Scalar
"""A column, or one value that stands for a column of it."""

Bools = npt.NDArray[np.bool_]

_INT64_MIN = -(2**63)
_EXACT_DOUBLE = 2**53
_MAX_PRECISION = 38
_INT64_DIGITS = 18
# 10^22 is the last power of ten that is a double.
_EXACT_POWER = 22
# A product's double estimate is off by less than 1e-15 of it; between these it is undecided.
_SURELY_FITS, _SURELY_NOT = 9.2e18, 9.3e18


def finite(column: pa.Array) -> pa.Array:
    """Make null of doubles that are not finite."""
    good = pc.is_finite(column)
    if pc.all(good, min_count=0).as_py():
        return column
    return pc.if_else(good, column, pa.scalar(None, column.type))


def null_where(mask: pa.Array, column: pa.Array) -> pa.Array:
    """Make null of the rows where the mask is true."""
    if not pc.any(mask, min_count=0).as_py():
        return column
    return pc.if_else(mask, pa.scalar(None, column.type), column)


def per_row(function: Callable[..., object], kind: DataType, *columns: Datum) -> pa.Array:
    """Apply a Python function to each row without nulls; the way of last resort."""
    size = max(len(c) for c in columns if isinstance(c, pa.Array))
    lists = [c.to_pylist() if isinstance(c, pa.Array) else [c.as_py()] * size for c in columns]
    values = [None if None in row else function(*row) for row in zip(*lists, strict=True)]
    return pa.array(values, arrow_type(kind))


def wrapped(op: str, left: Datum, right: Datum) -> pa.Array:
    """Calculate ``+ - *`` of int64 that cannot overflow."""
    return _PLAIN[op](left, right)


def checked(op: str, left: Datum, right: Datum) -> pa.Array:
    """Calculate ``+ - *`` of int64, null where the result leaves it."""
    result = _PLAIN[op](left, right)
    if op == "*":
        return _checked_product(left, right, result)
    # The sum's sign differs from that of both operands; for a difference, the signs of the
    # operands differ and the result's is not the left one's.
    first = pc.bit_wise_xor(left, result)
    second = pc.bit_wise_xor(right, result) if op == "+" else pc.bit_wise_xor(left, right)
    return null_where(pc.less(pc.bit_wise_and(first, second), 0), result)


def _checked_product(left: Datum, right: Datum, result: pa.Array) -> pa.Array:
    extremes = [_largest(left), _largest(right)]
    if extremes[0] * extremes[1] < -_INT64_MIN:
        return result
    estimate = pc.abs(pc.multiply(_as_double(left), _as_double(right)))
    result = null_where(pc.greater(estimate, _SURELY_NOT), result)
    open_rows = pc.and_(pc.greater(estimate, _SURELY_FITS), pc.is_valid(result))
    where = np.flatnonzero(pc.fill_null(open_rows, False).to_numpy(zero_copy_only=False))  # noqa: FBT003
    if not len(where):
        return result
    rows = pa.array(where)
    pairs = zip(_rows(left, rows), _rows(right, rows), strict=True)
    fits = np.array([_INT64_MIN <= a * b < -_INT64_MIN for a, b in pairs])
    beyond = np.zeros(len(result), dtype=bool)
    beyond[where[~fits]] = True
    return null_where(pa.array(beyond), result)


def _largest(column: Datum) -> int:
    if isinstance(column, pa.Scalar):
        return abs(int(column.as_py() or 0))
    bounds = pc.min_max(column).as_py()
    return max(abs(int(bounds["min"] or 0)), abs(int(bounds["max"] or 0)))


def _as_double(column: Datum) -> Datum:
    return pc.cast(column, pa.float64(), safe=False)


def _rows(column: Datum, rows: pa.Array) -> list[Any]:
    if isinstance(column, pa.Scalar):
        return [column.as_py()] * len(rows)
    values: list[Any] = column.take(rows).to_pylist()
    return values


_PLAIN: dict[str, Callable[[Datum, Datum], pa.Array]] = {
    "+": pc.add,
    "-": pc.subtract,
    "*": pc.multiply,
}


def integer_remainder(left: Datum, right: Datum) -> pa.Array:
    """Calculate ``%`` of int64 with the sign of the dividend, null for a divisor of zero."""
    size = max(len(c) for c in (left, right) if isinstance(c, pa.Array))
    dividend, valid = _numpy(left)
    divisor, also_valid = _numpy(right)
    good = valid & also_valid & (divisor != 0)
    # Of the least int64, -1 would be a trap for the processor; the remainder by 1 is 0 too.
    divisor = np.where((divisor == 0) | (divisor == -1), 1, divisor)
    values = np.broadcast_to(np.fmod(dividend, divisor), (size,))
    return pa.array(values, pa.int64(), mask=~np.broadcast_to(good, (size,)))


def _numpy(column: Datum) -> tuple[npt.NDArray[np.int64], Bools]:
    """Return values (0 for nulls) and where there are any; a scalar as one row."""
    array = pa.array([column.as_py()], column.type) if isinstance(column, pa.Scalar) else column
    filled = pc.fill_null(array, 0) if array.null_count else array
    return filled.to_numpy(zero_copy_only=False), ~array.is_null().to_numpy(zero_copy_only=False)


def signed(op: str, column: pa.Array) -> pa.Array:
    """Calculate unary minus or ABS; the least int64 becomes null."""
    result = pc.negate(column) if op == "NEG" else pc.abs(column)
    if column.type == pa.int64():
        return null_where(pc.equal(column, _INT64_MIN), result)
    return result


def to_double(column: pa.Array) -> pa.Array:
    """Return integers or decimals as the nearest doubles."""
    if not pa.types.is_decimal(column.type):
        return pc.cast(column, pa.float64(), safe=False)
    low, small = _unscaled(column)
    small &= (low <= _EXACT_DOUBLE) & (low >= -_EXACT_DOUBLE)
    null = column.is_null().to_numpy(zero_copy_only=False)
    # Both are exact doubles, so the quotient is rounded once.
    if column.type.scale <= _EXACT_POWER and bool(np.all(small | null)):
        return pa.array(low / 10.0**column.type.scale, pa.float64(), mask=null)
    return per_row(float, FLOAT64, column)


def _unscaled(column: pa.Array) -> tuple[npt.NDArray[np.int64], Bools]:
    """Return the decimals' low words as integers, and where those are the whole number."""
    if not len(column):
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    words = np.frombuffer(column.buffers()[1], dtype="<i8").reshape(-1, 2)
    words = words[column.offset : column.offset + len(column)]
    low = words[:, 0].astype(np.int64)
    return low, words[:, 1] == (low >> 63)


def round_double(column: pa.Array, digits: int) -> pa.Array:
    """Round the shortest decimal text of doubles, half away from zero."""
    values, null = _doubles(column)
    whole, unsure = _rounded_units(values, digits)
    with np.errstate(invalid="ignore"):
        rounded = np.copysign(whole / 10.0**digits, values)
    for row in np.flatnonzero(unsure & ~null):
        rounded[row] = round_half_up(Decimal(repr(float(values[row]))), digits)
    return pa.array(rounded, pa.float64(), mask=null)


def double_to_decimal(column: pa.Array, kind: DataType) -> pa.Array:
    """Return the shortest decimal text of doubles, rounded; null where it does not fit."""
    values, null = _doubles(column)
    whole, unsure = _rounded_units(values, kind.scale)
    if kind.scale > _EXACT_POWER or not np.all(whole < _EXACT_DOUBLE):
        return per_row(lambda value: to_number(value, kind), kind, column)
    units = np.copysign(whole, values).astype(np.int64)
    for row in np.flatnonzero(unsure & ~null):
        exact = round_half_up(Decimal(repr(float(values[row]))), kind.scale)
        units[row] = int(exact.scaleb(kind.scale, Context(prec=_MAX_PRECISION)))
    beyond = np.abs(units) >= 10 ** min(kind.precision, _INT64_DIGITS)
    return _from_words(pa.array(units, pa.int64(), mask=null | beyond), kind.scale, kind)


def _doubles(column: pa.Array) -> tuple[npt.NDArray[np.float64], Bools]:
    null: Bools = column.is_null().to_numpy(zero_copy_only=False)
    return column.fill_null(0.0).to_numpy(zero_copy_only=False), null


def _rounded_units(
    values: npt.NDArray[np.float64], digits: int
) -> tuple[npt.NDArray[np.float64], Bools]:
    """Return sizes in units of ``10^-digits``, rounded, and where the text has to decide.

    The product with the power of ten tells the side of the half, but for values close to it.
    """
    with np.errstate(over="ignore"):
        scaled = np.abs(values) * 10.0**digits
    large = ~(scaled < _EXACT_DOUBLE / 4)
    whole = np.floor(scaled)
    fraction = np.where(large, 0.0, scaled) - np.where(large, 0.0, whole)
    close = np.abs(fraction - 0.5) <= 1e-6 + np.where(large, 0.0, scaled) * 1e-15
    return whole + (fraction > 0.5), large | close  # noqa: PLR2004 - the half


def double_to_integer(column: pa.Array, kind: DataType) -> pa.Array:
    """Return doubles without a fraction as integers, null where they do not fit."""
    limit = 2.0 ** (31 if kind.kind == "int32" else 63)
    fits = pc.and_(pc.greater_equal(column, -limit), pc.less(column, limit))
    held = pc.if_else(fits, column, pa.scalar(None, pa.float64()))
    return pc.cast(held, arrow_type(kind), safe=False)


def rounded_decimal(
    column: pa.Array, function: Callable[[pa.Array], pa.Array], kind: DataType
) -> pa.Array:
    """Round decimals by a kernel, giving it the digit that rounding may need."""
    return pc.cast(function(_one_digit_more(column)), arrow_type(kind))


def _one_digit_more(column: pa.Array) -> pa.Array:
    precision, scale = column.type.precision, column.type.scale
    if precision < _MAX_PRECISION:
        return pc.cast(column, pa.decimal128(precision + 1, scale))
    return pc.cast(column, pa.decimal256(precision + 1, scale))


def half_up(digits: int) -> Callable[[pa.Array], pa.Array]:
    """Return the kernel that rounds half away from zero."""
    return lambda column: pc.round(column, ndigits=digits, round_mode="half_towards_infinity")


def to_decimal(column: pa.Array, kind: DataType) -> pa.Array:
    """Return integers or decimals as another decimal, null where they do not fit."""
    if pa.types.is_integer(column.type):
        column = pc.cast(pc.cast(column, pa.int64()), pa.decimal128(19, 0))
    column = _one_digit_more(column)
    if column.type.scale > kind.scale:
        column = half_up(kind.scale)(column)
    limit = Decimal(10) ** (kind.precision - kind.scale)
    return pc.cast(_held(column, -limit, limit), arrow_type(kind))


def decimal_to_integer(column: pa.Array, kind: DataType) -> pa.Array:
    """Return decimals, cut at the point, as integers, null where they do not fit."""
    limit = Decimal(2 ** (31 if kind.kind == "int32" else 63))
    whole = pc.trunc(_one_digit_more(column))
    return pc.cast(_held(whole, -limit - 1, limit), arrow_type(kind))


def _held(column: pa.Array, below: Decimal, above: Decimal) -> pa.Array:
    """Make null of decimals outside the open interval; both bounds are whole."""
    digits = len(str(int(above)))
    if column.type.precision - column.type.scale < digits:
        return column
    bound = pa.decimal256(digits, 0)
    fits = pc.and_(
        pc.greater(column, pa.scalar(below, bound)), pc.less(column, pa.scalar(above, bound))
    )
    return pc.if_else(fits, column, pa.scalar(None, column.type))


def narrowed(column: pa.Array, kind: DataType) -> pa.Array:
    """Return integers or bools as another integer type, null where they do not fit."""
    if kind.kind == "int32" and column.type == pa.int64():
        fits = pc.and_(pc.greater_equal(column, -(2**31)), pc.less(column, 2**31))
        column = pc.if_else(fits, column, pa.scalar(None, pa.int64()))
    return pc.cast(column, arrow_type(kind))


def decimal_remainder(left: Datum, right: Datum, kind: DataType) -> pa.Array:
    """Calculate ``%`` of decimals with the sign of the dividend, null for a divisor of zero."""
    scale = max(left.type.scale, right.type.scale)
    widest = max(c.type.precision - c.type.scale for c in (left, right)) + scale
    if widest > _INT64_DIGITS:
        exact = Context(prec=100)
        return per_row(lambda a, b: exact.remainder(a, b) if b else None, kind, left, right)
    words = [_scaled_words(c, scale) for c in (left, right)]
    remainders = integer_remainder(*words)
    return _from_words(remainders, scale, kind)


def _scaled_words(column: Datum, scale: int) -> pa.Array:
    array = pa.array([column.as_py()], column.type) if isinstance(column, pa.Scalar) else column
    wide = pc.cast(array, pa.decimal128(_MAX_PRECISION, scale))
    null = wide.is_null().to_numpy(zero_copy_only=False)
    words = pa.array(_unscaled(wide)[0], pa.int64(), mask=null)
    return words[0] if isinstance(column, pa.Scalar) else words


def _from_words(words: pa.Array, scale: int, kind: DataType) -> pa.Array:
    low = words.fill_null(0).to_numpy()
    pairs = np.column_stack([low, low >> 63])
    storage = pa.py_buffer(np.ascontiguousarray(pairs).tobytes())
    valid = pa.array(~words.is_null().to_numpy(zero_copy_only=False))
    result = pa.Array.from_buffers(
        pa.decimal128(_MAX_PRECISION, scale), len(words), [valid.buffers()[1], storage]
    )
    return pc.cast(result, arrow_type(kind))
