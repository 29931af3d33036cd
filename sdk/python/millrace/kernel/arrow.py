"""The kernel's door: Arrow tables in, feature columns out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from millrace.errors import DataError, nearest
from millrace.kernel.axis import Int64s, Positions, Stamped, clamp_instants
from millrace.kernel.chunk import Measure, build_chunk
from millrace.kernel.columns import (
    Output,
    empty_output,
    id_ranks,
    int64_values,
    read_measure,
)
from millrace.kernel.derived import derive, with_default
from millrace.kernel.forms import chunk_results, gives_ranks, reads_ranks
from millrace.kernel.keys import key_codes
from millrace.kernel.view import KernelFeature, KernelView
from millrace.values.arrow import arrow_type
from millrace.window import Window

__all__ = ["KernelFeature", "KernelView", "arrow_type", "join_features"]

MAX_ROWS_PER_CHUNK = 1 << 18


def join_features(
    view: KernelView,
    events: pa.Table,
    spine: pa.Table,
    *,
    hindsight: bool = False,
    threads: int = 1,
    max_rows_per_chunk: int = MAX_ROWS_PER_CHUNK,
) -> pa.Table:
    """Return the features of each spine row as of its instant.

    Keys are worked off in chunks that fit the processor's cache. Beside its arguments and its
    result this takes about 30 bytes per event and query, and about 300 bytes per row of the chunks
    being worked on; a key with more rows than a chunk is one chunk of its own.

    Args:
        view: names and types of what goes in and comes out.
        events: join-key columns, ``_event_ms`` and ``_ingest_ms`` (int64, no nulls), ``_event_id``
            if the view has event ids, and the measure columns; any order, judged, filtered and cut
            at the view's start. Rows with a null in a key belong to nobody.
        spine: join-key columns (nulls allowed) and ``_query_ms`` (int64, no nulls); any order,
            repeated rows allowed.
        hindsight: see events also before they arrived.
        threads: chunks worked on at once.
        max_rows_per_chunk: events and queries of a chunk of several keys.

    Returns:
        exactly ``view.columns``, one row per spine row in spine order. An unknown or null key has
        counts of 0, empty lists and nulls, or what a feature has by default, and what is derived
        of these.

    Raises:
        DataError: a column is missing.
    """
    _require(events, _event_columns(view), "events")
    _require(spine, (*view.join_keys, "_query_ms"), "spine")
    measures, outputs = {}, []
    dictionaries: dict[str, pa.Array | None] = {}
    for name, data_type in view.measures:
        compared = any(reads_ranks(f) for f in view.features if f.measure == name)
        measures[name], dictionaries[name] = read_measure(
            events.column(name), data_type, ordered=compared
        )
    for f in view.features:
        dictionary = dictionaries[f.measure] if f.measure and gives_ranks(f) else None
        outputs.append(
            empty_output(
                f.type,
                len(spine),
                is_null=not f.aggregate.entry.is_never_null,
                dictionary=dictionary,
            )
        )
    _Join(view, events, spine, measures, outputs, hindsight=hindsight).run(
        threads, max_rows_per_chunk
    )
    features = {
        feature.name: with_default(output.to_arrow(), feature.default)
        for feature, output in zip(view.features, outputs, strict=True)
    }
    if not view.derived:
        return pa.table(features)
    values = derive(view.derived, pa.table(features), spine.column("_query_ms"))
    return values.select([name for name, _ in view.columns])


def _event_columns(view: KernelView) -> tuple[str, ...]:
    ids = ("_event_id",) if view.has_event_id else ()
    return (*view.join_keys, "_event_ms", "_ingest_ms", *ids, *(name for name, _ in view.measures))


def _require(table: pa.Table, names: Sequence[str], where: str) -> None:
    for name in names:
        if name not in table.column_names:
            raise DataError(
                f"no column {name!r}", where=where, fix=nearest(name, table.column_names)
            )


class _Join:
    def __init__(
        self,
        view: KernelView,
        events: pa.Table,
        spine: pa.Table,
        measures: dict[str, Measure],
        outputs: Sequence[Output],
        *,
        hindsight: bool,
    ) -> None:
        self._view, self._measures, self._outputs = view, measures, outputs
        self._hindsight = hindsight
        self._ordered = any(f.aggregate.entry.is_ordered for f in view.features)
        self._windows: list[Window] = list(dict.fromkeys(f.window for f in view.features))
        self._ids = events.column("_event_id") if view.has_event_id and self._ordered else None
        self._ingest_ms = int64_values(events.column("_ingest_ms"))
        event_codes, query_codes, self._keys = key_codes(
            [events.column(k) for k in view.join_keys], [spine.column(k) for k in view.join_keys]
        )
        self._events = Stamped(event_codes, int64_values(events.column("_event_ms")))
        self._queries = Stamped(query_codes, int64_values(spine.column("_query_ms")))

    def run(self, threads: int, max_rows: int) -> None:
        parts = _partition(self._events.codes, self._queries.codes, self._keys, max_rows)
        if threads == 1:
            for part in parts:
                self._work(part)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(self._work, parts))

    def _work(self, part: "_Part") -> None:
        events = _local(self._events, part.events, part.first_code)
        ingest_ms = clamp_instants(self._ingest_ms[part.events])
        chunk = build_chunk(
            events,
            None if np.array_equal(events.instants_ms, ingest_ms) else ingest_ms,
            _local(self._queries, part.queries, part.first_code),
            self._windows,
            keys=part.keys,
            hindsight=self._hindsight,
            ordered=self._ordered,
        )
        chunk = chunk.of_rows(part.events, part.queries)
        ranks = None if self._ids is None else partial(id_ranks, self._ids)
        for i, result in chunk_results(chunk, self._view.features, self._measures, ranks):
            self._outputs[i].put(chunk.query_order, result)


def _local(rows: Stamped, some: Positions, first_code: int) -> Stamped:
    taken = rows.take(some)
    return Stamped(taken.codes - first_code, clamp_instants(taken.instants_ms))


@dataclass(frozen=True)
class _Part:
    """The rows of the keys with codes ``[first_code, first_code + keys)``."""

    events: Positions
    queries: Positions
    first_code: int
    keys: int


def _partition(event_codes: Int64s, query_codes: Int64s, keys: int, max_rows: int) -> list[_Part]:
    """Cut the rows by key into parts; keys without events or without queries are left out."""
    events = np.bincount(event_codes[event_codes >= 0], minlength=keys)
    queries = np.bincount(query_codes[query_codes >= 0], minlength=keys)
    rows = np.where((events > 0) & (queries > 0), events + queries, 0)
    if not rows.any():
        return []
    # A part begins with the key at which the rows before it pass a multiple of the limit.
    bucket = (np.cumsum(rows) - rows) // max_rows
    number = np.cumsum(np.diff(bucket, prepend=bucket[:1]) > 0)
    parts = int(number[-1]) + 1
    # Left-out keys, and code -1 by wrapping around, belong to a part behind the last.
    part_of = np.append(np.where(rows > 0, number, parts), parts)
    part_of = part_of.astype(np.min_scalar_type(parts))
    event_order, event_cuts = _grouped(part_of[event_codes], parts)
    query_order, query_cuts = _grouped(part_of[query_codes], parts)
    first = np.searchsorted(number, np.arange(parts + 1))
    return [
        _Part(
            event_order[event_cuts[i] : event_cuts[i + 1]],
            query_order[query_cuts[i] : query_cuts[i + 1]],
            int(first[i]),
            int(first[i + 1] - first[i]),
        )
        for i in range(parts)
        if event_cuts[i] < event_cuts[i + 1]
    ]


def _grouped(numbers: Positions, parts: int) -> tuple[Positions, Positions]:
    """Order rows by part; a radix sort where the numbers have at most 16 bits."""
    cuts = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=parts))])
    return np.argsort(numbers, kind="stable"), cuts
