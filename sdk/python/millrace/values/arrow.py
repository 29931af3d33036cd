"""Values of the language as Arrow columns, as the lake has them; see docs/formats.md §1."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millrace.errors import DataError
from millrace.types import DataType

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

MOST_IN_LISTS = 2**31 - 1
"""Values that the lists of one Arrow array can hold."""


def arrow_type(type_: DataType) -> "pa.DataType":
    """Return the Arrow type of a type of the language."""
    import pyarrow as pa

    return type_.record.arrow(pa, type_)


def vector_array(vectors: "npt.NDArray[np.float32]", valid: "npt.NDArray[np.bool_]") -> "pa.Array":
    """Return rows of a matrix as vectors.

    Args:
        vectors: those of the rows that are valid, in their order.
        valid: which rows have one; the others are null.

    Raises:
        DataError: they are more values than Arrow has places for.
    """
    import numpy as np
    import pyarrow as pa

    if vectors.size > MOST_IN_LISTS:
        raise too_many_values(vectors.size)
    ends = np.cumsum(valid, dtype=np.int32) * np.int32(vectors.shape[1])
    offsets = np.concatenate([np.zeros(1, np.int32), ends])
    present = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    flat = pa.array(vectors.reshape(-1))
    type_ = pa.list_(pa.float32())
    return pa.Array.from_buffers(
        type_, len(valid), [present, pa.py_buffer(offsets)], children=[flat]
    )


def vector_rows(
    array: "pa.Array", length: int
) -> "tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]":
    """Return the vectors of an array that holds no others as a matrix; and which rows have one."""
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    flat = (array.drop_null() if array.null_count else array).flatten()
    return flat.to_numpy(zero_copy_only=False).reshape(-1, length), valid


def too_many_values(count: int) -> DataError:
    """Return the error of an Arrow array of lists that would hold so many values."""
    return DataError(
        f"the lists of one feature hold {count:,} values, of which Arrow takes 2^31",
        fix="ask for fewer rows at a time, or a smaller k",
    )


def array_of(values: Sequence[Any], type_: DataType) -> "pa.Array":
    """Return a reader's values of one column as an array; timestamps are epoch milliseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if type_.kind != "timestamp":
        return pa.array(values, arrow_type(type_))
    return pc.multiply(pa.array(values, pa.int64()), 1000).cast(arrow_type(type_))
