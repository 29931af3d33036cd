"""One JSON value of one column: whether it fits the declared type, and what it then is.

The table in docs/values.md, row by row. A value comes as Python's JSON types, except that a number
comes as ``Number``: its text, since ``1.0`` is no integer and a decimal must stay exact.
"""

import base64
import binascii
import math
import re
from array import array
from collections.abc import Callable, Sequence
from datetime import date
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache

from millrace.calendar import FIRST_MS, LAST_MS, day_number, numbered_day
from millrace.durations import DAY_MS
from millrace.types import DataType
from millrace.values.units import unit_hint

Convert = Callable[[object], object]


class Number(str):
    """The text of a JSON number."""

    __slots__ = ()


class Misfit(ValueError):
    """A value does not fit the type of its column; its text is empty, or says more than that."""


_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)\Z")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_ZERO = re.compile(r"-?[0.]+(?:[eE]|\Z)")
_DAY = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})\Z")
_INSTANT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.([0-9]{1,9}))?)?)?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):?([0-5][0-9]))?\Z"
)
_BASE64_GROUP = 4
_LONGEST_INT64 = len(str(-(2**63)))


def converter(type_: DataType) -> Convert:
    """Return the function from a non-null JSON value to what the column holds.

    Timestamps come out as epoch milliseconds, decimals as ``Decimal`` of the declared scale. The
    function raises ``Misfit`` where the value does not fit.
    """
    if type_.kind == "decimal":
        return decimal_converter(type_.precision, type_.scale)
    if type_.kind == "vector":
        return vector_converter(type_.length)
    return _CONVERTERS[type_.kind]


def clock_converter(type_: DataType, *, is_strict: bool) -> Convert:
    """Return the same for a column that times events, whose integers are epoch milliseconds.

    They lie within the years 1 to 9999, also where the column is an int64. With ``is_strict``
    they are milliseconds as plainly as they can be: see ``millrace.values.units``.
    """
    convert = converter(type_)
    if type_.kind not in {"int64", "timestamp"}:
        return convert

    def convert_time(value: object) -> object:
        ms = convert(value)
        if isinstance(value, Number) and isinstance(ms, int):
            check_clock(ms, is_strict=is_strict)
        return ms

    return convert_time


def check_clock(ms: int, *, is_strict: bool) -> None:
    """Raise ``Misfit`` for an integer that times no event."""
    if not FIRST_MS <= ms <= LAST_MS or (is_strict and unit_hint(ms)):
        raise Misfit(unit_hint(ms))


def _is_integer(value: object) -> bool:
    # Longer texts are out of every range, and need no counting.
    is_short = isinstance(value, Number) and len(value) <= _LONGEST_INT64
    return is_short and _INTEGER.match(str(value)) is not None


def _integer(low: int, high: int) -> Convert:
    def convert(value: object) -> int:
        if not _is_integer(value):
            raise Misfit
        number = int(str(value))
        if not low <= number <= high:
            raise Misfit
        return number

    return convert


def is_number(text: str) -> bool:
    """Whether a text is a number as JSON writes one."""
    return _DECIMAL.match(text) is not None


def _double(value: object) -> float:
    if not isinstance(value, Number):
        raise Misfit
    number = float(value)
    if not math.isfinite(number):
        raise Misfit
    return number


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise Misfit
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or isinstance(value, Number):
        raise Misfit
    return value


def is_integer(text: str) -> bool:
    """Whether a text is a JSON integer, of any size."""
    return _INTEGER.match(text) is not None


def decimal_converter(precision: int, scale: int) -> Convert:
    """Return the function to decimals of one type, from numbers and from strings that hold one."""
    # Zeros may be cut off or added, digits may not: quantize traps both losses.
    exact = Context(prec=precision, traps=[Inexact, InvalidOperation])
    step = Decimal((0, (1,), -scale))

    def convert(value: object) -> Decimal:
        if not isinstance(value, str) or not _DECIMAL.match(value):
            raise Misfit
        try:
            # The exponent of nothing says nothing, however large.
            return Decimal(0 if _ZERO.match(value) else value).quantize(step, context=exact)
        except (Inexact, InvalidOperation):
            raise Misfit from None

    return convert


def vector_converter(length: int) -> Convert:
    """Return the function to vectors, from lists of so many numbers: each as the nearest float."""

    def convert(value: object) -> list[float]:
        if not isinstance(value, list) or not all(isinstance(one, Number) for one in value):
            raise Misfit
        return nearest_vector(list(map(float, value)), length)

    return convert


def nearest_vector(doubles: Sequence[float], length: int) -> list[float]:
    """Return doubles rounded to 32 bits.

    Raises:
        Misfit: they are not so many, or one of them is not finite then.
    """
    if len(doubles) != length:
        raise Misfit(f"{len(doubles)} numbers are no vector({length})")
    rounded = array("f", doubles).tolist()
    if not all(map(math.isfinite, rounded)):
        raise Misfit
    return rounded


def _timestamp(value: object) -> int:
    if not isinstance(value, Number):
        return instant_ms(_string(value))
    if not _is_integer(value):
        raise Misfit
    ms = int(value)
    if not FIRST_MS <= ms <= LAST_MS:
        raise Misfit(unit_hint(ms))
    return ms


def instant_ms(text: str) -> int:
    """Return the epoch milliseconds of an ISO-8601 text, finer digits floored.

    Raises:
        Misfit: it is not of the form the table allows, no such day exists, or the instant lies
            outside the years 1 to 9999.
    """
    match = _INSTANT.match(text)
    if match is None:
        raise Misfit
    year, month, day, hour, minute, second, fraction, sign, ahead_hours, ahead_minutes = (
        match.groups()
    )
    ms = _day_number(year, month, day) * DAY_MS
    if hour is not None:
        ms += int(hour) * 3_600_000 + int(minute) * 60_000
    if second is not None:
        ms += int(second) * 1000
        if fraction is not None:
            ms += int(fraction[:3].ljust(3, "0"))
    if sign is not None:
        ahead_ms = int(ahead_hours) * 3_600_000 + int(ahead_minutes) * 60_000
        ms += ahead_ms if sign == "-" else -ahead_ms
        if not FIRST_MS <= ms <= LAST_MS:
            raise Misfit
    return ms


def _date(value: object) -> date:
    match = _DAY.match(_string(value))
    if match is None:
        raise Misfit
    return numbered_day(_day_number(*match.groups()))


@lru_cache(maxsize=4096)
def _day_number(year: str, month: str, day: str) -> int:
    try:
        return day_number(date(int(year), int(month), int(day)))
    except ValueError:
        raise Misfit from None


def _bytes(value: object) -> bytes:
    text = _string(value)
    # What comes after a whole group is padding to the decoder, however little of it there is.
    if len(text) % _BASE64_GROUP:
        raise Misfit
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Misfit from None


_CONVERTERS: dict[str, Convert] = {
    "int32": _integer(-(2**31), 2**31 - 1),
    "int64": _integer(-(2**63), 2**63 - 1),
    "float64": _double,
    "bool": _bool,
    "string": _string,
    "timestamp": _timestamp,
    "date": _date,
    "bytes": _bytes,
}
