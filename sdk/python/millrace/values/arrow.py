"""Values of the language as Arrow columns, as the lake has them; see docs/formats.md §1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millrace.types import DataType

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_type(type_: DataType) -> "pa.DataType":
    """Return the Arrow type of a type of the language."""
    import pyarrow as pa

    return type_.record.arrow(pa, type_)


def array_of(values: Sequence[Any], type_: DataType) -> "pa.Array":
    """Return a reader's values of one column as an array; timestamps are epoch milliseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if type_.kind != "timestamp":
        return pa.array(values, arrow_type(type_))
    return pc.multiply(pa.array(values, pa.int64()), 1000).cast(arrow_type(type_))
