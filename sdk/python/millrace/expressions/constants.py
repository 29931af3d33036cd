"""Literals: text to value and type."""

import math
import re
from datetime import UTC, date, datetime
from decimal import Decimal

from millrace.calendar import to_ms
from millrace.expressions.errors import ExpressionError
from millrace.expressions.nodes import Literal
from millrace.types import (
    DATE,
    FLOAT64,
    INT64,
    MAX_DECIMAL_PRECISION,
    TIMESTAMP,
    decimal,
)

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}:\d{2}(\.\d{1,3})?)?Z?")


def number(text: str) -> Literal:
    """Return the literal of a number: an exponent makes it a double, a point a decimal.

    Raises:
        ExpressionError: it does not fit its type.
    """
    if "e" in text.lower():
        value = float(text)
        if not math.isfinite(value):
            raise ExpressionError(f"{text} is beyond float64", fix="1.797e308 is the largest")
        # Zero has no sign, so that equal literals have equal text.
        return Literal(value + 0.0, FLOAT64)
    if "." in text:
        return _decimal(text)
    whole = int(text)
    if not INT64_MIN <= whole <= INT64_MAX:
        raise ExpressionError(f"{text} is beyond int64", fix=f"write a decimal, {text}.0")
    return Literal(whole, INT64)


def _decimal(text: str) -> Literal:
    whole, _, fraction = text.lstrip("-").partition(".")
    if not fraction:
        raise ExpressionError(f"{text} ends in a point", fix=f"write {text}0 or {text[:-1]}")
    digits = len(whole.lstrip("0")) + len(fraction)
    if digits > MAX_DECIMAL_PRECISION:
        raise ExpressionError(
            f"{text} has {digits} digits", fix=f"a decimal has {MAX_DECIMAL_PRECISION} at most"
        )
    value = Decimal(text)
    return Literal(value if value else abs(value), decimal(digits, len(fraction)))


def date_literal(text: str) -> Literal:
    """Return the literal ``DATE 'YYYY-MM-DD'``.

    Raises:
        ExpressionError: the text is no day.
    """
    if _DAY.fullmatch(text):
        try:
            return Literal(date.fromisoformat(text), DATE)
        except ValueError:
            pass
    raise ExpressionError(f"{text!r} is no day", fix="write DATE '2024-01-31'")


def timestamp_literal(text: str) -> Literal:
    """Return the literal ``TIMESTAMP 'YYYY-MM-DD HH:MM:SS[.mmm]'``, read as UTC.

    Raises:
        ExpressionError: the text is no instant, or names another time zone.
    """
    if _INSTANT.fullmatch(text):
        try:
            instant = datetime.fromisoformat(text.rstrip("Z")).replace(tzinfo=UTC)
        except ValueError:
            pass
        else:
            return Literal(to_ms(instant), TIMESTAMP)
    raise ExpressionError(
        f"{text!r} is no instant", fix="write TIMESTAMP '2024-01-31 23:59:59', in UTC"
    )
