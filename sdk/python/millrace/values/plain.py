"""Values in published documents: JSON has neither decimals nor days, so those are their text."""

from datetime import date
from decimal import Decimal
from typing import Any

from millrace.types import DataType


def to_plain(value: Any) -> Any:
    """Return a value as JSON has it: decimals and days as their text."""
    if isinstance(value, list):
        return [to_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def from_plain(value: Any, type_: DataType) -> Any:
    """Return a value of a type as ``to_plain`` gave it."""
    if value is None:
        return None
    if isinstance(value, list):
        return [from_plain(one, type_.values) for one in value]
    if type_.kind == "decimal":
        return Decimal(value)
    if type_.kind == "float64":
        return float(value)
    return date.fromisoformat(value) if type_.kind == "date" else value
