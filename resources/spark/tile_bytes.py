"""``MILLRACE_ENCODE``: the function by which Spark makes the columns of tiles that are bytes.

It runs the algebra itself, on what Spark collected of each tile; see ``millrace.compile.spark``.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession


def register_encoder(session: "SparkSession") -> None:
    """Give a session the function; its workers import it from here."""
    import pyarrow as pa
    from pyspark.sql.functions import arrow_udf

    from millrace.compile.spark import ENCODE

    # Spark reads its kind off the hints.
    def encode(
        suffix: pa.Array, type_: pa.Array, tiles: pa.Array, *parameters: pa.Array
    ) -> pa.Array:
        return encoded(suffix, type_, tiles, *parameters)

    session.udf.register(ENCODE, arrow_udf(encode, "binary"))


def encoded(
    suffix: "pa.Array", type_: "pa.Array", tiles: "pa.Array", *parameters: "pa.Array"
) -> "pa.Array":
    """Return the bytes of each tile.

    Args:
        suffix: of the partial, the same in each row.
        type_: of the values, the same in each row.
        tiles: per tile a list of its values, or of structs as of an ``Edge``; none of them null.
        parameters: of the encoding, the same in each row.
    """
    import pyarrow as pa

    from millrace.aggregates import ENCODINGS, Place
    from millrace.types import parse_type

    if not len(tiles):
        return pa.array([], pa.binary())
    given = [column[0].as_py() for column in parameters]
    algebra = ENCODINGS[suffix[0].as_py()](parse_type(type_[0].as_py()), *given)
    ends = tiles.offsets.to_pylist()
    flat = tiles.values
    places: list[Place] | None = None
    if algebra.keeps.is_ordered:
        event_ms, ingest_ms = _plain(flat.field("event_ms")), _plain(flat.field("ingest_ms"))
        is_named = flat.type.get_field_index("event_id") >= 0
        ids = _plain(flat.field("event_id")) if is_named else [None] * len(flat)
        places = [Place(*place) for place in zip(event_ms, ingest_ms, ids, strict=True)]
        flat = flat.field("value")
    values = _plain(flat)
    made = [
        algebra.encode_all(values[begin:end], None if places is None else places[begin:end])
        for begin, end in pairwise(ends)
    ]
    return pa.array(made, pa.binary())


def _plain(values: "pa.Array") -> list[Any]:
    """Return values as algebras take them: instants as epoch milliseconds."""
    import pyarrow as pa

    if not pa.types.is_timestamp(values.type):
        return values.to_pylist()  # type: ignore[no-any-return]
    micros = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    return [None if one is None else one // 1000 for one in micros.to_pylist()]
