"""The column types of the language."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "int32", "int64", "float64", "decimal", "bool", "string", "timestamp", "date", "bytes"
]

KINDS: tuple[str, ...] = get_args(Kind)
MAX_DECIMAL_PRECISION = 38

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")


@dataclass(frozen=True)
class DataType:
    """A type; ``precision`` and ``scale`` are 0 except for decimals.

    Timestamps are instants with millisecond meaning (finer digits are floored), dates are UTC
    days, decimals are exact with at most 38 digits.
    """

    kind: Kind
    precision: int = 0
    scale: int = 0

    def __str__(self) -> str:
        if self.kind == "decimal":
            return f"decimal({self.precision},{self.scale})"
        return self.kind

    @property
    def is_integer(self) -> bool:
        """True for int32 and int64."""
        return self.kind in {"int32", "int64"}

    @property
    def is_numeric(self) -> bool:
        """True for what can be added: integers, doubles and decimals."""
        return self.is_integer or self.kind in {"float64", "decimal"}


INT32 = DataType("int32")
INT64 = DataType("int64")
FLOAT64 = DataType("float64")
BOOL = DataType("bool")
STRING = DataType("string")
TIMESTAMP = DataType("timestamp")
DATE = DataType("date")
BYTES = DataType("bytes")


def decimal(precision: int, scale: int) -> DataType:
    """Return a decimal type.

    Raises:
        ValueError: precision outside 1 to 38, or scale outside 0 to precision.
    """
    if not 1 <= precision <= MAX_DECIMAL_PRECISION or not 0 <= scale <= precision:
        raise ValueError(
            f"decimal({precision},{scale}): precision goes from 1 to {MAX_DECIMAL_PRECISION}, "
            "scale from 0 to the precision"
        )
    return DataType("decimal", precision, scale)


def parse_type(text: str) -> DataType:
    """Return the type written as ``int64``, ``decimal(12,2)`` and so on.

    Raises:
        ValueError: the text names no type.
    """
    for kind in get_args(Kind):
        if text == kind and kind != "decimal":
            return DataType(kind)
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a type; types are {', '.join(KINDS[:3])}, "
            f"decimal(p,s), {', '.join(KINDS[4:])}"
        )
    return decimal(int(match[1]), int(match[2]))
