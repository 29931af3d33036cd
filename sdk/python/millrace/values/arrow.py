"""Values of the language as Arrow columns, as the lake has them; see docs/formats.md §1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millrace.types import DataType

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(type_: DataType) -> "pa.DataType":
    """Return the Arrow type of a type of the language."""
    import pyarrow as pa

    if type_.kind == "decimal":
        return pa.decimal128(type_.precision, type_.scale)
    types: dict[str, pa.DataType] = {
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "timestamp": pa.timestamp("us", tz="UTC"),
        "date": pa.date32(),
        "bytes": pa.binary(),
    }
    return types[type_.kind]


def array_of(values: Sequence[Any], type_: DataType) -> "pa.Array":
    """Return a reader's values of one column as an array; timestamps are epoch milliseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if type_.kind != "timestamp":
        return pa.array(values, arrow_type(type_))
    return pc.multiply(pa.array(values, pa.int64()), 1000).cast(arrow_type(type_))
