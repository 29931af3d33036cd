"""Looks keys up: rows where they hold, merged tiles where they do not, one instant for all.

Knows requests as compiled plans and key values, and gives back rows ready to be rendered; it knows
nothing of HTTP. A faster front end may stand on it as FastAPI does.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from millrace.codec import TAGS, Packed, entity_bytes, hash_tag, key_head
from millrace.errors import DataError, StoreError
from millrace.online.view import OnlineView
from resources.store.errors import StoreUnavailable
from resources.store.keep import MergedRow
from resources.store.keys import CHANGES_FIELD
from serving.catalog import LookupPlan, ServedVersion
from serving.errors import BadRequest
from serving.keys import as_bad_request, key_values
from serving.metrics import ServerMetrics
from serving.store import Rows, ServingStore

logger = logging.getLogger(__name__)

HEADS = tuple(key_head(tag) for tag in range(TAGS))
"""How the keys of entities begin, by their tags."""

_MOST_HELD_S = 0.005
"""How long a large lookup may merge before other requests get their turn."""


class TilesRead:
    """The tiles of one entity as read once; merged at most once per instant that needs it."""

    def __init__(self, online: OnlineView, tiles: Mapping[bytes, bytes]) -> None:
        self.tiles = tiles
        self.newest_ms = online.newest_ms(tiles)
        self._online = online
        self._row: Packed | None = None
        self.is_kept = False

    def row(self, as_of_ms: int) -> Packed | None:
        """Return the row at an instant; None for an entity without a tile."""
        if self.newest_ms is None:
            return None
        if self._row is None or not self._online.holds(self._row, as_of_ms):
            self._row = self._online.merge(self.tiles, as_of_ms)
        return self._row


@dataclass
class Cell:
    """One entity in one version of a view, on its way to an answer.

    Attributes:
        row: what is known; None while nothing is, and in the end for an entity never seen.
        read: its tiles, if they had to be read.
    """

    served: ServedVersion
    head: bytes
    entity: bytes
    row: Packed | None = None
    read: TilesRead | None = None

    @property
    def row_key(self) -> bytes:
        """Key of its row."""
        return self.head + self.served.row_tail + self.entity

    @property
    def tiles_key(self) -> bytes:
        """Key of the hash of its tiles."""
        return self.head + self.served.tiles_tail + self.entity

    def least_as_of_ms(self) -> int:
        """The first instant that what was read can answer for."""
        if self.read is not None:
            newest_ms, earliest_ms = self.read.newest_ms, 0
        elif self.row is not None:
            newest_ms = self.row.event_ms
            earliest_ms = self.served.online.earliest_ms(self.row)
        else:
            return 0
        return earliest_ms if newest_ms is None else max(earliest_ms, newest_ms + 1)


@dataclass(frozen=True)
class LookupResult:
    """What was found.

    Attributes:
        keys: as asked, in order.
        cells: for each read of the plan, one per key, in order; None for a key that is none.
        progress_ms: for each read, up to when its pipeline has worked.
        invalid: what is wrong with keys that are none, by their place.
    """

    plan: LookupPlan
    keys: Sequence[Any]
    as_of_ms: int
    cells: Sequence[Sequence[Cell | None]]
    progress_ms: Sequence[int | None]
    invalid: Mapping[int, BadRequest] = field(default_factory=dict)


_Entity = tuple[bytes, bytes]
"""The head of an entity's keys in the store, and the entity."""


def _cells(
    plan: LookupPlan, keys: Sequence[Any], field_: str, *, is_strict: bool
) -> tuple[list[list[Cell | None]], dict[int, BadRequest]]:
    """Return a cell for each read and key; of a key that is none, what is wrong with it instead."""
    encoded: list[list[_Entity] | None] = []
    invalid: dict[int, BadRequest] = {}
    for place, key in enumerate(keys):
        where = f"{field_}[{place}]" if field_ != "entity_id" else field_
        try:
            encoded.append(_entities(plan, key, where))
        except BadRequest as error:
            if is_strict:
                raise
            encoded.append(None)
            invalid[place] = error
    return [
        [None if some is None else Cell(read.served, *some[read.join_keys]) for some in encoded]
        for read in plan.reads
    ], invalid


def _entities(plan: LookupPlan, key: Any, where: str) -> list[_Entity]:
    """Return the entity that a key names for each of the plan's sets of join keys."""
    values = key_values(plan.join_keys, key, where)
    found = []
    for join_keys in plan.key_sets:
        try:
            entity = entity_bytes(join_keys, values)
        except DataError as error:
            raise as_bad_request(error, where) from error
        found.append((HEADS[hash_tag(entity)], entity))
    return found


@dataclass
class LookupEngine:
    """Answers lookups from the store.

    Attributes:
        now_ms: the clock, epoch milliseconds.
    """

    store: ServingStore
    metrics: ServerMetrics
    now_ms: Callable[[], int]
    _flights: dict[bytes, asyncio.Future[TilesRead]] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def lookup(
        self,
        plan: LookupPlan,
        keys: Sequence[Any],
        progress_ms: Mapping[bytes, int],
        keys_field: str = "keys",
        *,
        is_strict: bool = False,
        rows: Rows | None = None,
    ) -> LookupResult:
        """Answer a compiled lookup for keys, as of one instant taken after the store was read.

        Requests that need the same tiles at the same time share one read: it may have begun up to
        a round trip before the later of them.

        Args:
            plan: from ``Catalog.lookup_plan``.
            keys: JSON values in the order asked; duplicates are fine.
            progress_ms: of the pipelines, by progress field.
            keys_field: the request's name of the keys, for errors.
            is_strict: one key that is not of its type fails all; else it fails alone.
            rows: what was read already, of a plan with one read and keys that are all fine.

        Raises:
            BadRequest: a key is not of its type, and ``is_strict``.
            StoreUnavailable: the store is away.
            StoreError: a tile is broken.
        """
        cells, invalid = _cells(plan, keys, keys_field, is_strict=is_strict)
        every = [cell for read in cells for cell in read if cell is not None]
        self.metrics.keys.inc(len(keys))
        await self._read_rows(every, rows)
        as_of_ms = await self._settle(every)
        await _merge([cell for cell in every if cell.read is not None], as_of_ms)
        self._keep(every, as_of_ms)
        progress = [read.served.progress_ms(progress_ms) for read in plan.reads]
        return LookupResult(plan, keys, as_of_ms, cells, progress, invalid)

    async def finish(self) -> None:
        """Wait for what runs in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _read_rows(self, cells: Sequence[Cell], found: Rows | None) -> None:
        if not cells:
            return
        if found is None:
            found = await self.store.rows([cell.row_key for cell in cells])
        for cell, data in zip(cells, found, strict=True):
            if data is not None:
                try:
                    cell.row = cell.served.online.rows.decode(data)
                except StoreError as error:
                    logger.warning("a stored row is passed over, its tiles are merged: %s", error)

    async def _settle(self, cells: Sequence[Cell]) -> int:
        """Read the tiles of every cell whose row does not hold; return the instant for all.

        Each read takes time, in which a row may end that held before; then that one is read too.
        """
        misses = 0
        while True:
            as_of_ms = max([self.now_ms() + 1, *(cell.least_as_of_ms() for cell in cells)])
            ended = [
                cell
                for cell in cells
                if cell.read is None
                and (cell.row is None or not cell.served.online.holds(cell.row, as_of_ms))
            ]
            if not ended:
                self.metrics.row_misses.inc(misses)
                self.metrics.row_hits.inc(len(cells) - misses)
                return as_of_ms
            misses += len(ended)
            await self._read_tiles(ended)

    async def _read_tiles(self, cells: Sequence[Cell]) -> None:
        new: dict[bytes, Cell] = {}
        for cell in cells:
            key = cell.tiles_key
            if key not in self._flights:
                self._flights[key] = asyncio.get_running_loop().create_future()
                new[key] = cell
        flights = [self._flights[cell.tiles_key] for cell in cells]
        if new:
            self._start(self._fly(new))
        # Not gathered: who gives up waiting must not cancel what others wait for.
        await asyncio.wait(flights)
        for cell, flight in zip(cells, flights, strict=True):
            cell.read = flight.result()

    async def _fly(self, new: Mapping[bytes, Cell]) -> None:
        flights = {key: self._flights[key] for key in new}
        try:
            found = await self.store.tiles(list(new))
            for (key, cell), tiles in zip(new.items(), found, strict=True):
                try:
                    flights[key].set_result(TilesRead(cell.served.online, tiles))
                except StoreError as error:
                    _fail([flights[key]], error)
        except StoreError as error:
            _fail(flights.values(), error)
        finally:
            given_up = StoreUnavailable("the read of tiles was given up", where="online store")
            _fail(flights.values(), given_up)  # whatever happened, nobody waits for ever
            for key in new:
                del self._flights[key]

    def _keep(self, cells: Sequence[Cell], as_of_ms: int) -> None:
        rows = []
        for cell in cells:
            if cell.read is None or cell.row is None or cell.read.is_kept:
                continue
            cell.read.is_kept = True
            online, tiles = cell.served.online, cell.read.tiles
            rows.append(
                MergedRow(
                    cell.row_key,
                    cell.tiles_key,
                    tiles.get(CHANGES_FIELD, b""),
                    online.rows.encode(cell.row),
                    online.out_of_reach(tiles, as_of_ms),
                )
            )
        if rows:
            self._start(self._store_rows(rows))

    async def _store_rows(self, rows: Sequence[MergedRow]) -> None:
        try:
            kept = await self.store.keep(rows)
        except StoreUnavailable as error:
            logger.debug("merged rows are not kept: %s", error)
        except StoreError:
            logger.exception("merged rows are not kept, so each lookup merges their tiles again")
        else:
            self.metrics.rows_kept.inc(kept)
            self.metrics.rows_outrun.inc(len(rows) - kept)

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _merge(cells: Sequence[Cell], as_of_ms: int) -> None:
    began = time.perf_counter()
    for cell in cells:
        cell.row = None if cell.read is None else cell.read.row(as_of_ms)
        if time.perf_counter() - began > _MOST_HELD_S:
            await asyncio.sleep(0)
            began = time.perf_counter()


def _fail(flights: Iterable[asyncio.Future[TilesRead]], error: StoreError) -> None:
    for flight in flights:
        if not flight.done():
            flight.set_exception(error)
            flight.exception()  # seen, also where every waiter gave up
