"""Join keys as small integers: never by gluing their text together."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from millrace.kernel.axis import Int64s
from millrace.kernel.columns import one_array

# A table of codes may have this many times as many entries as there are events.
_SPARSENESS = 4
_SMALL_TABLE = 1024


def key_codes(
    events: Sequence[pa.ChunkedArray], queries: Sequence[pa.ChunkedArray]
) -> tuple[Int64s, Int64s, int]:
    """Number the keys of the events and find those of the queries among them.

    Args:
        events: the join-key columns of the events.
        queries: those of the spine, in the same order.

    Returns:
        a code per event and per query, -1 for a key with a null in it and for one no event has,
        and the number of codes.
    """
    event_codes, query_codes, size = _column_codes(events[0], queries[0])
    for event_column, query_column in zip(events[1:], queries[1:], strict=True):
        more_events, more_queries, more = _column_codes(event_column, query_column)
        event_codes = _paired(event_codes, more_events, more)
        query_codes = _paired(query_codes, more_queries, more)
        size *= more
        if size > _SPARSENESS * len(event_codes) + _SMALL_TABLE:
            event_codes, query_codes, size = _dictionary_codes(
                pa.array(event_codes, mask=event_codes < 0),
                pa.array(query_codes, mask=query_codes < 0),
            )
    return event_codes, query_codes, size


def _paired(codes: Int64s, more: Int64s, size: int) -> Int64s:
    return np.where((codes < 0) | (more < 0), -1, codes * size + more)


def _column_codes(events: pa.ChunkedArray, queries: pa.ChunkedArray) -> tuple[Int64s, Int64s, int]:
    if queries.type != events.type:
        queries = queries.cast(events.type)
    event_array, query_array = one_array(events), one_array(queries)
    if pa.types.is_integer(event_array.type) and len(event_array) > event_array.null_count:
        ends = pc.min_max(event_array)
        lowest, highest = ends["min"].as_py(), ends["max"].as_py()
        size = highest - lowest + 1
        if size <= _SPARSENESS * len(event_array) + _SMALL_TABLE:
            return (
                _offsets(event_array, lowest, highest),
                _offsets(query_array, lowest, highest),
                size,
            )
    return _dictionary_codes(event_array, query_array)


def _offsets(array: pa.Array, lowest: int, highest: int) -> Int64s:
    values = array.fill_null(lowest).to_numpy(zero_copy_only=False)
    known = (values >= lowest) & (values <= highest)
    if array.null_count:
        known &= array.is_valid().to_numpy(zero_copy_only=False)
    if known.all():
        offsets: Int64s = (values - lowest).astype(np.int64)
        return offsets
    return np.where(known, np.where(known, values, lowest) - lowest, -1).astype(np.int64)


def _dictionary_codes(events: pa.Array, queries: pa.Array) -> tuple[Int64s, Int64s, int]:
    encoded = events.dictionary_encode()
    found = pc.index_in(queries, value_set=encoded.dictionary)
    return _codes(encoded.indices), _codes(found), len(encoded.dictionary)


def _codes(indices: pa.Array) -> Int64s:
    codes: Int64s = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes
