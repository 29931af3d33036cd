"""The upload: a view's batch tiles into the online store, beside those of its stream.

Idempotent, and safe beside the writer: a tile gives way only to one of at least as many rows, and
what is sealed changes hands within one script. When it ends, the store has the tiles on disk and
the publication says up to where they go.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

from millrace.calendar import day_of
from millrace.codec import TAGS
from millrace.errors import NotDeclared, PlanError
from millrace.names import tile_topic
from millrace.packing import rows_place
from millrace.plan import Plan, ViewPlan
from millrace.published import PublishedView
from millrace.tiles import tile_columns
from resources.endpoints import store_url
from resources.progress import Progress
from resources.settings import Settings
from resources.store import online
from resources.store.online import OnlineStore, RangedTile
from resources.store.opening import open_online_store
from resources.store.tile_rules import TileRules
from streaming.publications import publishing
from streaming.publications.publishing import require_online
from streaming.publications.records import RecordFiles
from streaming.publications.service_lineage import services_published
from streaming.upload.batch_tiles import BatchTiles, EntityTiles
from streaming.upload.lineage import emitting_upload
from streaming.upload.plan import Held, UploadPlan, plan_upload
from streaming.upload.publishing import publish_upload

Advance = Callable[[int], None]

_BATCH_TILES = 5_000
_TILES_PER_CALL = 1_000


@dataclass(frozen=True)
class UploadReport:
    """What an upload did, or with ``is_dry_run`` would have done.

    Attributes:
        days: days with a partition in reach of some window.
        rows: rows of the tiles table that were read.
        tiles: stored after coarsening.
        kept: tiles for which the store held as many rows or more already, from the stream.
        bytes: of packed tiles.
        missing_days: days in reach that were never built.
        cut_over_ms: the day edge before which the store holds batch tiles.
        sealed_before_ms: tiles before it are coarse and take no more of the stream; None: none.
    """

    view: str
    version: str
    days: int
    rows: int
    entities: int
    tiles: int
    kept: int
    bytes: int
    missing_days: tuple[date, ...]
    outdated_days: tuple[date, ...]
    cut_over_ms: int
    sealed_before_ms: int | None
    seconds: float
    is_dry_run: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            **asdict(self),
            "missing_days": [day.isoformat() for day in self.missing_days],
            "outdated_days": [day.isoformat() for day in self.outdated_days],
            "seconds": round(self.seconds, 3),
        }


def upload(
    settings: Settings,
    plan: Plan,
    view_name: str,
    progress: Progress,
    *,
    until: date | None = None,
    is_replacing: bool = False,
    is_dry_run: bool = False,
    advance: Advance = lambda _: None,
    now_ms: int | None = None,
) -> UploadReport:
    """Upload a view's batch tiles and publish up to where they go.

    A view of a source without a stream is published by it: what was uploaded is served as soon as all
    of it is stored, in place of the version before.

    Args:
        settings: names the lake and the store.
        plan: the declarations.
        view_name: name of the view.
        progress: told in words what is done.
        until: the day after the last to upload; None: all days that are built.
        is_replacing: delete the version's tiles before the cut-over first, for a lake that was
            restated with fewer events. Looked up meanwhile, an entity may lack them.
        is_dry_run: read and count, store nothing; needs no publication.
        advance: told how many more rows were read.
        now_ms: the present instant; None: the clock's.

    Raises:
        NotDeclared: no such view, or it has a stream and is not published.
        PlanError: the view is kept offline.
        DataError: no day is built, or ``until`` lies before what is coarse already.
        StoreError: the store failed; upload again.
    """
    began = time.monotonic()
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    view = plan.view(view_name)
    store = open_online_store(store_url(settings))
    with ExitStack() as held_open:
        held_open.callback(store.close)
        if not is_dry_run:
            # A second upload at the same time would only do the same work again.
            held_open.enter_context(RecordFiles.of(settings.home).uploading(view.name))
        is_alone = _is_uploaded_alone(settings, view)
        held = _held(store, view, is_needed=not (is_dry_run or is_alone))
        what = plan_upload(settings, view, held, now_ms, until=until)
        _tell(progress, what)
        target = _Target(store, what, now_ms, is_dry_run=is_dry_run)
        if is_dry_run:
            target.read(settings, advance)
        else:
            with emitting_upload(settings, what) as told:
                _store(settings, target, progress, advance, is_replacing=is_replacing)
                if is_alone:
                    folders = tuple(str(folder) for folder in settings.views)
                    publish_upload(store, settings.home, folders, what, now_ms)
                    publishing.publish_services(store, plan)
                    services_published(settings, plan)
                else:
                    _publish(store, what)
                    RecordFiles.of(settings.home).note_upload(
                        view.name, view.fingerprint, what.cut_over_ms, what.sealed_before_ms
                    )
                told.tiles, told.bytes = target.stored
        return target.report(time.monotonic() - began)


def _store(
    settings: Settings,
    target: "_Target",
    progress: Progress,
    advance: Advance,
    *,
    is_replacing: bool,
) -> None:
    if is_replacing:
        progress(f"{target.clear()} tiles deleted")
    target.read(settings, advance)
    target.finish()


def _is_uploaded_alone(settings: Settings, view: ViewPlan) -> bool:
    """Tell whether the view's uploads are all that is served of it.

    Raises:
        PlanError: the view is not to be served, or its stream of before is to run.
    """
    require_online(view)
    if view.source.stream is not None:
        return False
    deployed = RecordFiles.of(settings.home).read(view.name)
    if deployed is not None and deployed.desired == "running":
        raise PlanError(
            f"source {view.source.name!r} has no stream any more, and that of the view "
            f"{view.name!r} still runs",
            where=str(view.where),
            fix=f"millrace stream stop {view.name}, then millrace upload {view.name}",
        )
    return True


def _held(store: OnlineStore, view: ViewPlan, *, is_needed: bool) -> Held:
    """Return what the store has of the view's batch tiles."""
    published = store.publications.read_view(view.name)
    version = publishing.published_version(published, view.fingerprint)
    if version is None and is_needed:
        raise NotDeclared(
            f"the view {view.name!r} of this meaning is not published, so nobody would read it",
            where=f"view {view.name}, {view.fingerprint}",
            fix=f"millrace stream deploy {view.name}; it uploads as well",
        )
    sealed_ms = store.uploads.sealed_before_ms(tile_topic(view))
    if version is None:
        return Held(None, sealed_ms)
    seals = [ms for ms in (sealed_ms, version.sealed_before_ms) if ms is not None]
    return Held(version.cut_over_ms, max(seals, default=None))


def _tell(progress: Progress, what: UploadPlan) -> None:
    progress(
        f"{what.table}: {len(what.days)} day(s) before {day_of(what.cut_over_ms)}, "
        + (
            "none of them coarsened"
            if what.sealed_before_ms is None
            else f"coarsened before {day_of(what.sealed_before_ms)}"
        )
    )
    for days, state in (
        (what.missing_days, "in reach were never built: values lack them"),
        (what.outdated_days, "have events that are newer than their tiles: build them again"),
    ):
        if days:
            progress(f"warning: {len(days)} day(s) from {days[0]} to {days[-1]} {state}")


def _publish(store: OnlineStore, what: UploadPlan) -> None:
    def with_edges(found: PublishedView | None) -> PublishedView | None:
        if found is None:
            return None
        versions = tuple(
            replace(v, cut_over_ms=what.cut_over_ms, sealed_before_ms=what.sealed_before_ms)
            if v.fingerprint == what.view.fingerprint
            else v
            for v in found.versions
        )
        return replace(found, versions=versions)

    store.publications.amend(what.view.name, with_edges)


@dataclass
class _Target:
    """The store, or with ``is_dry_run`` only the count of what it would get."""

    store: OnlineStore
    what: UploadPlan
    now_ms: int
    is_dry_run: bool
    _waiting: dict[int, list[tuple[bytes, Sequence[RangedTile]]]] = field(default_factory=dict)
    _waiting_tiles: int = 0
    _rows: int = 0
    _entities: int = 0
    _tiles: int = 0
    _kept: int = 0
    _bytes: int = 0

    def clear(self) -> int:
        """Delete the version's tiles before the cut-over; returns how many there were."""
        view = self.what.view
        return self.store.uploads.clear((view.name, view.fingerprint), self.what.cut_over_ms)

    def read(self, settings: Settings, advance: Advance) -> None:
        """Read the tiles of all days, and store them some time before ``finish`` ends."""
        what = self.what
        batch = BatchTiles(what.view, what.table, what.days, what.coarsening)
        for entity in batch.entities(settings):
            self.add(entity)
            advance(entity.rows)

    @property
    def stored(self) -> tuple[int, int]:
        """How many tiles were stored, and their bytes."""
        return self._tiles, self._bytes

    def add(self, entity: EntityTiles) -> None:
        """Store an entity's tiles, some time before ``finish`` ends."""
        self._rows += entity.rows
        self._entities += 1
        for first in range(0, len(entity.tiles), _TILES_PER_CALL):
            tiles = entity.tiles[first : first + _TILES_PER_CALL]
            self._bytes += sum(len(packed) for _, _, packed in tiles)
            if self.is_dry_run:
                self._tiles += len(tiles)
                continue
            self._waiting.setdefault(entity.tag, []).append((entity.key, tiles))
            self._waiting_tiles += len(tiles)
            if self._waiting_tiles >= _BATCH_TILES:
                self._flush()

    def finish(self) -> None:
        """Store what is left, seal every hash tag, and wait until all of it is on disk."""
        for tag in range(TAGS):
            self._waiting.setdefault(tag, [])
        self._flush()
        self.store.uploads.settle()

    def _flush(self) -> None:
        what, view = self.what, self.what.view
        rules = TileRules(rows_place(len(tile_columns(view)) - 1), view.reach_ms)
        batch = online.BatchTiles(tile_topic(view), what.sealed_before_ms, rules, self.now_ms)
        written, kept = self.store.uploads.upload(batch, self._waiting)
        self._tiles += written
        self._kept += kept
        self._waiting, self._waiting_tiles = {}, 0

    def report(self, seconds: float) -> UploadReport:
        """Return what was stored."""
        what = self.what
        return UploadReport(
            view=what.view.name,
            version=what.version,
            days=len(what.days),
            rows=self._rows,
            entities=self._entities,
            tiles=self._tiles,
            kept=self._kept,
            bytes=self._bytes,
            missing_days=what.missing_days,
            outdated_days=what.outdated_days,
            cut_over_ms=what.cut_over_ms,
            sealed_before_ms=what.sealed_before_ms,
            seconds=seconds,
            is_dry_run=self.is_dry_run,
        )
