"""The column types of the language, and what each kind of them is elsewhere."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal, get_args

Kind = Literal[
    "int32", "int64", "float64", "decimal", "bool", "string", "timestamp", "date", "bytes",
    "vector", "list",
]  # fmt: skip

COLUMN_KINDS: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind != "list")
"""Kinds that columns have. A list is what aggregates give."""
KINDS: tuple[str, ...] = tuple(kind for kind in COLUMN_KINDS if kind != "vector")
"""Kinds of scalars."""
MAX_DECIMAL_PRECISION = 38
MAX_VECTOR_LENGTH = 4_096

_DECIMAL = re.compile(r"decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)")
_LIST = re.compile(r"list<\s*(.+?)\s*>")
_VECTOR = re.compile(r"vector\(\s*(\d+)\s*\)")


@dataclass(frozen=True)
class KindRecord:
    """What one kind of type is in each place that stores or exchanges its values.

    Attributes:
        spark: its name in Spark's SQL; of a decimal with the places of its digits, of a list with
            that of its values.
        flink: the same in Flink's.
        arrow: its Arrow type, given the module ``pyarrow``, which is not loaded for it.
        python: class of its values; timestamps are epoch milliseconds.
        key_tag: what precedes a join key's bytes. Both integers share one: widening a key's column
            keeps its keys.
        packed: format of ``struct`` for its value in a packed row or tile; None: its length varies.
        numpy: name of the dtype of its values in the kernel; None: only ranks of them are there.
    """

    spark: str
    flink: str
    arrow: Callable[[Any, "DataType"], Any]
    python: type
    key_tag: bytes
    packed: str | None
    numpy: str | None


KIND_RECORDS: Mapping[str, KindRecord] = MappingProxyType(
    {
        "int32": KindRecord("INT", "INT", lambda pa, _: pa.int32(), int, b"i", "i", "int32"),
        "int64": KindRecord("BIGINT", "BIGINT", lambda pa, _: pa.int64(), int, b"i", "q", "int64"),
        "float64": KindRecord(
            "DOUBLE", "DOUBLE", lambda pa, _: pa.float64(), float, b"f", "d", "float64"
        ),
        "decimal": KindRecord(
            "DECIMAL({precision}, {scale})",
            "DECIMAL({precision}, {scale})",
            lambda pa, type_: pa.decimal128(type_.precision, type_.scale),
            Decimal,
            b"d",
            "16s",
            "int64",
        ),
        "bool": KindRecord(
            "BOOLEAN", "BOOLEAN", lambda pa, _: pa.bool_(), bool, b"b", "?", "uint8"
        ),
        "string": KindRecord("STRING", "STRING", lambda pa, _: pa.string(), str, b"s", None, None),
        "timestamp": KindRecord(
            "TIMESTAMP",
            "TIMESTAMP_LTZ(3)",
            lambda pa, _: pa.timestamp("us", tz="UTC"),
            int,
            b"t",
            "q",
            "int64",
        ),
        "date": KindRecord("DATE", "DATE", lambda pa, _: pa.date32(), date, b"y", "i", "int32"),
        "bytes": KindRecord("BINARY", "BYTES", lambda pa, _: pa.binary(), bytes, b"x", None, None),
        "vector": KindRecord(
            "ARRAY<FLOAT>",
            "ARRAY<FLOAT>",
            lambda pa, _: pa.list_(pa.float32()),
            list,
            b"v",
            None,
            None,
        ),
        "list": KindRecord(
            "ARRAY<{values}>",
            "ARRAY<{values}>",
            lambda pa, type_: pa.list_(type_.values.record.arrow(pa, type_.values)),
            list,
            b"l",
            None,
            None,
        ),
    }
)
"""Every kind, in the order of ``COLUMN_KINDS``, and lists."""


@dataclass(frozen=True)
class DataType:
    """A type.

    ``precision`` and ``scale`` are 0 except for decimals, ``item`` None except for lists, ``length``
    0 except for vectors.

    Timestamps are instants with millisecond meaning (finer digits are floored), dates are UTC
    days, decimals are exact with at most 38 digits. The values of a list are scalars of one type,
    none of them null; those of a vector are ``length`` finite floats of 32 bits.
    """

    kind: Kind
    precision: int = 0
    scale: int = 0
    item: "DataType | None" = None
    length: int = 0

    def __str__(self) -> str:
        if self.kind == "vector":
            return f"vector({self.length})"
        if self.kind == "decimal":
            return f"decimal({self.precision},{self.scale})"
        return self.kind if self.item is None else f"list<{self.item}>"

    @property
    def values(self) -> "DataType":
        """The type of a list's values; only of lists."""
        assert self.item is not None, self  # noqa: S101 - ``list_of`` gave it
        return self.item

    @property
    def record(self) -> KindRecord:
        """What its kind is elsewhere."""
        return KIND_RECORDS[self.kind]

    @property
    def spark(self) -> str:
        """The type in Spark's SQL."""
        values = "" if self.item is None else self.item.spark
        return self.record.spark.format(precision=self.precision, scale=self.scale, values=values)

    @property
    def flink(self) -> str:
        """The type in Flink's SQL."""
        values = "" if self.item is None else self.item.flink
        return self.record.flink.format(precision=self.precision, scale=self.scale, values=values)

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


def vector(length: int) -> DataType:
    """Return the type of vectors of so many floats.

    Raises:
        ValueError: a length outside 1 to 4096.
    """
    if not 1 <= length <= MAX_VECTOR_LENGTH:
        raise ValueError(f"vector({length}): a length goes from 1 to {MAX_VECTOR_LENGTH}")
    return DataType("vector", length=length)


def list_of(values: DataType) -> DataType:
    """Return the type of lists of scalars of one type.

    Raises:
        ValueError: of lists and vectors there are no lists.
    """
    if values.kind not in KINDS:
        raise ValueError(f"list<{values}>: the values of a list are scalars")
    return DataType("list", item=values)


def parse_type(text: str) -> DataType:
    """Return the type written as ``int64``, ``decimal(12,2)``, ``list<string>`` and so on.

    Raises:
        ValueError: the text names no type.
    """
    for kind in get_args(Kind):
        if text == kind and kind not in {"decimal", "vector", "list"}:
            return DataType(kind)
    of_length = _VECTOR.fullmatch(text)
    if of_length is not None:
        return vector(int(of_length[1]))
    of_list = _LIST.fullmatch(text)
    if of_list is not None:
        return list_of(parse_type(of_list[1]))
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a type; types are {', '.join(KINDS[:3])}, "
            f"decimal(p,s), {', '.join(KINDS[4:])}, vector(n)"
        )
    return decimal(int(match[1]), int(match[2]))
