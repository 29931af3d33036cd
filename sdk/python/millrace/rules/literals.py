"""Values that a declaration spells out, held against the type of what they stand for."""

import math
import re
from datetime import date
from decimal import Context, Decimal
from typing import Any

from millrace.rules.values import parse_day
from millrace.types import DataType

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)
_DOUBLE = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_EXACT = Context(prec=1_000)


class LiteralFault(ValueError):
    """A value that is none of the type.

    Attributes:
        what: the value and the type, to follow the name of the field.
        fix: what to write.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix


def literal(value: Any, type_: DataType) -> Any:
    """Return a written value as one of a type, without loss.

    Numbers are a text where a text is meant (``[10, 20]`` for a column of codes), and the text of a
    number is a decimal or a double; anything else of another type is a fault.

    Returns:
        ``int``, ``float``, ``decimal.Decimal`` of the type's scale, ``bool``, ``str`` or
        ``datetime.date``.

    Raises:
        LiteralFault: no value of the type, out of its range, or of a type that cannot be written.
    """
    kind = type_.kind
    if kind == "string":
        return _text(value)
    if kind == "bool":
        return _truth(value)
    if type_.is_integer:
        return _integer(value, type_)
    if kind == "float64":
        return _double(value)
    if kind == "decimal":
        return _exact(value, type_)
    if kind == "date":
        return _day(value)
    raise LiteralFault(f"is {value!r}, and {kind} values cannot be written out", "leave it out")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if _is_number(value) and math.isfinite(value):
        return repr(value)
    raise LiteralFault(f"is {_named(value)}, where a text is meant", "quote it")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise LiteralFault(f"is {_named(value)}, which is no bool", "write true or false")


def _integer(value: Any, type_: DataType) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        bits = 31 if type_.kind == "int32" else 63
        if -(1 << bits) <= value < 1 << bits:
            return value
        raise LiteralFault(f"is {value}, beyond {type_}", f"{type_} ends at {(1 << bits) - 1}")
    raise LiteralFault(f"is {_named(value)}, which is no {type_}", "write a whole number: 10")


def _double(value: Any) -> float:
    if isinstance(value, str) and _DOUBLE.fullmatch(value) is not None:
        value = float(value)
    if _is_number(value) and math.isfinite(float(value)):
        return float(value)
    raise LiteralFault(f"is {_named(value)}, which is no float64", "write a number: 0.5")


def _exact(value: Any, type_: DataType) -> Decimal:
    found = None
    if isinstance(value, Decimal) or (isinstance(value, str) and _DECIMAL.fullmatch(value)):
        found = Decimal(value)
    elif _is_number(value):
        # A double's shortest text is what was written.
        found = Decimal(repr(value))
    if found is None or not found.is_finite():
        raise LiteralFault(f"is {_named(value)}, which is no {type_}", "write a number: 0.50")
    _, digits, exponent = found.normalize(_EXACT).as_tuple()
    whole = len(digits) + int(exponent)
    if -int(exponent) > type_.scale or (found and whole > type_.precision - type_.scale):
        raise LiteralFault(
            f"is {value}, which does not fit {type_}",
            f"{type_.precision - type_.scale} digits stand before the point, {type_.scale} behind",
        )
    return found.quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)


def _day(value: Any) -> date:
    day = parse_day(value)
    if day is not None:
        return day
    raise LiteralFault(f"is {_named(value)}, which is no day", "write YYYY-MM-DD: 2018-04-01")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "the truth value " + str(value).lower()
    return f"{value!r}"[:80]
