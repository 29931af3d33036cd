"""Batch tiles from the lake, entity by entity, coarsened and packed, in bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from millrace.aggregates import Edge
from millrace.coarsen import Coarsening, TileMerger
from millrace.codec import tile_field
from millrace.compile.serving import codec_of, serving_plan
from millrace.packing import EntityKeys, TilePacker
from millrace.plan import ViewPlan
from millrace.tiles import TILE_START, TileColumn, tile_columns
from resources.lake.delta import open_dataset, open_table
from resources.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.dataset import Dataset, Expression

SHARD_ROWS = 1_000_000
"""Rows that are sorted at a time; more are read in ranges of the first join key."""

_SLICE_ROWS = 20_000
_SAMPLE_STEP = 97


@dataclass(frozen=True)
class EntityTiles:
    """What is stored of one entity.

    Attributes:
        tag: its hash tag.
        key: of its tiles hash.
        tiles: field, end of the range as a field (empty: a tile of one hop), packed tile;
            ascending.
        rows: rows of the table they were made of.
    """

    tag: int
    key: bytes
    tiles: tuple[tuple[bytes, bytes, bytes], ...]
    rows: int


@dataclass(frozen=True)
class BatchTiles:
    """The tiles of a view's table that an upload takes.

    Attributes:
        table: name under the lake.
        days: which partitions.
        coarsening: how the older ones merge.
    """

    view: ViewPlan
    table: str
    days: tuple[date, ...]
    coarsening: Coarsening

    def entities(self, settings: Settings) -> Iterator[EntityTiles]:
        """Yield every entity that has a tile in reach, once.

        Raises:
            DataError: a value in the table does not fit the view's types.
        """
        opened = open_table(settings, self.table)
        if opened is None or not self.days:
            return
        dataset = open_dataset(opened)
        pack = _Packing(self.view, self.coarsening)
        for shard in self._shards(dataset):
            table = dataset.to_table(columns=pack.names, filter=shard)
            order = [(name, "ascending") for name in (*self.view.join_keys, TILE_START)]
            yield from pack.entities(table.sort_by(order))

    def _shards(self, dataset: "Dataset") -> list["Expression"]:
        from pyarrow.dataset import field

        reached = field(TILE_START) >= self.coarsening.reach_from_ms
        wanted = field("event_date").isin(list(self.days)) & reached
        key, rows = self.view.join_keys[0], dataset.count_rows(filter=wanted)
        if rows <= SHARD_ROWS:
            return [wanted]
        cuts = _quantiles(dataset, key, wanted, rows // SHARD_ROWS)
        edges = [None, *cuts, None]
        return [_within(wanted, key, low, high) for low, high in pairwise(edges)]


def _quantiles(dataset: "Dataset", key: str, wanted: "Expression", count: int) -> list[Any]:
    """Return values of a column that part its rows into about equal ranges."""
    sample: list[Any] = []
    for batch in dataset.to_batches(columns=[key], filter=wanted):
        sample += batch.column(0)[::_SAMPLE_STEP].to_pylist()
    sample.sort()
    return sorted({sample[len(sample) * i // (count + 1)] for i in range(1, count + 1)})


def _within(wanted: "Expression", key: str, low: Any, high: Any) -> "Expression":
    from pyarrow.dataset import field

    if low is not None:
        wanted &= field(key) >= low
    return wanted if high is None else wanted & (field(key) < high)


class _Packing:
    """Turns sorted rows of a tiles table into entities."""

    def __init__(self, view: ViewPlan, coarsening: Coarsening) -> None:
        self._view = view
        self._keys_of = EntityKeys(
            view.name, view.fingerprint, [(e.join_key, e.type) for e in view.entities]
        )
        self._packer = TilePacker(codec_of(serving_plan(view), "tile"))
        self._merger = TileMerger(view)
        self._coarsening = coarsening
        self._columns = tile_columns(view)
        self.names = [*view.join_keys, TILE_START, *(column.name for column in self._columns)]

    def entities(self, table: "pa.Table") -> Iterator[EntityTiles]:
        for values, rows in groupby(self._rows(table), key=itemgetter(0)):
            yield self._entity(values, list(rows))

    def _rows(self, table: "pa.Table") -> Iterator[tuple[Any, ...]]:
        """Yield (join keys, tile start, begin and end of its range, columns)."""
        key_count = len(self._view.entities)
        for batch in table.to_batches(max_chunksize=_SLICE_ROWS):
            keys = [_values(batch.column(i)) for i in range(key_count)]
            ranges = self._ranges(batch.column(key_count))
            columns = [
                _column_values(batch.column(key_count + 1 + i), column)
                for i, column in enumerate(self._columns)
            ]
            yield from zip(
                zip(*keys, strict=True), *ranges, zip(*columns, strict=True), strict=True
            )

    def _ranges(self, starts: "pa.Array") -> tuple[list[int], list[int], list[int | None]]:
        import numpy as np

        fine = starts.to_numpy(zero_copy_only=False).astype(np.int64)
        is_sealed = fine < self._coarsening.sealed_before_ms
        begins, ends = self._coarsening.ranges(fine)
        last = [
            end if sealed else None for end, sealed in zip(ends.tolist(), is_sealed, strict=True)
        ]
        return fine.tolist(), np.where(is_sealed, begins, fine).tolist(), last

    def _entity(self, values: tuple[Any, ...], rows: Sequence[tuple[Any, ...]]) -> EntityTiles:
        tag, key = self._keys_of.find(values)
        tiles = []
        for begin, group in groupby(rows, key=itemgetter(2)):
            members = list(group)
            end = members[0][3]
            tiles.append(
                (tile_field(begin), b"" if end is None else tile_field(end), self._packed(members))
            )
        return EntityTiles(tag, key, tuple(tiles), len(rows))

    def _packed(self, members: Sequence[tuple[Any, ...]]) -> bytes:
        tile = self._merger.merge([member[4] for member in members])
        return self._packer.pack(tile[:-1], tile[-1])


def _column_values(array: "pa.Array", column: TileColumn) -> list[Any]:
    if not column.partial.holds_edge:
        return _values(array)
    fields = {array.type.field(i).name: child for i, child in enumerate(array.flatten())}
    ids = _values(fields["event_id"]) if "event_id" in fields else [None] * len(array)
    places = zip(
        array.is_valid().to_pylist(),
        fields["event_ms"].to_pylist(),
        fields["ingest_ms"].to_pylist(),
        ids,
        _values(fields["value"]),
        strict=True,
    )
    return [Edge(*edge) if there else None for there, *edge in places]


def _values(array: "pa.Array") -> list[Any]:
    """Values as the language has them: instants are epoch milliseconds."""
    import pyarrow as pa

    if pa.types.is_timestamp(array.type):
        micros = array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64())
        return [None if us is None else us // 1000 for us in micros.to_pylist()]
    values: list[Any] = array.to_pylist()
    return values
