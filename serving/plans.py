"""Keeps the catalog: what is published is read again each second, what was known last is kept."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from millrace.errors import PlatformError, StoreError
from millrace.published import PublishedView
from resources.store.keys import SERVICES_FIELD, view_of
from serving.catalog import Catalog, ServedView, served_view
from serving.metrics import ServerMetrics
from serving.store import ServingStore

logger = logging.getLogger(__name__)

REFRESH_S = 1.0


class PublishedPlans:
    """The newest known catalog and progress.

    Attributes:
        catalog: replaced as a whole, never changed.
        progress_ms: by ``<view>/<fingerprint>``: up to when the pipeline has worked.
    """

    def __init__(
        self, store: ServingStore, metrics: ServerMetrics, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._now_ms = now_ms
        self._raw: Mapping[bytes, bytes] | None = None
        self._loaded_s: float | None = None
        self.catalog = Catalog()
        self.progress_ms: Mapping[bytes, int] = {}

    @property
    def age_s(self) -> float | None:
        """Seconds since publications were last read; None: never."""
        return None if self._loaded_s is None else time.monotonic() - self._loaded_s

    async def keep_fresh(self, stop: asyncio.Event) -> None:
        """Read again and again, until told to stop.

        Not by cancelling: Python 3.11 loses a cancellation that meets the end of a ``wait_for``, of
        which the store's client is full.
        """
        while not stop.is_set():
            try:
                await self.load()
            except PlatformError as error:
                logger.debug("publications could not be read, the last known are kept: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await stop.wait()

    async def load(self) -> None:
        """Read publications and progress once.

        Raises:
            StoreUnavailable: the store is away; everything stays as it was.
        """
        plans, progress = await self._store.published()
        if plans != self._raw:
            self.catalog = self._read(plans)
            self._raw = plans
        self.progress_ms = _progress(progress)
        self._loaded_s = time.monotonic()
        self._metrics.set_lags(self._lags_s())

    def _read(self, raw: Mapping[bytes, bytes]) -> Catalog:
        views: dict[str, ServedView] = {}
        faults: dict[str, str] = {}
        for key, data in sorted(raw.items()):
            name = view_of(key)
            if name is None:
                continue
            try:
                views[name] = served_view(PublishedView.from_json(data))
            except StoreError as error:
                # The others go on; this one keeps what was last known of it.
                logger.exception("the publication of %s cannot be read", name)
                faults[name] = str(error)
                if name in self.catalog.views:
                    views[name] = self.catalog.views[name]
        return Catalog(views, self._services(raw.get(SERVICES_FIELD)), faults)

    def _services(self, data: bytes | None) -> Mapping[str, Sequence[tuple[str, str]]]:
        if data is None:
            return {}
        try:
            return {
                name: [(view, feature) for view, feature in entries]
                for name, entries in json.loads(data).items()
            }
        except (ValueError, TypeError, AttributeError):
            logger.exception("the published services cannot be read, the last known are kept")
            return self.catalog.services

    def _lags_s(self) -> dict[tuple[str, str], float]:
        now_ms = self._now_ms()
        return {
            (view.name, served.version): (now_ms - progress_ms) / 1000
            for view in self.catalog.views.values()
            for served in view.versions.values()
            if (progress_ms := served.progress_ms(self.progress_ms)) is not None
        }


def _progress(raw: Mapping[bytes, bytes]) -> dict[bytes, int]:
    progress = {}
    for key, data in raw.items():
        try:
            progress_ms = json.loads(data)["progress_ms"]
        except (ValueError, KeyError, TypeError):
            logger.warning("the progress of %s cannot be read", key)
        else:
            if isinstance(progress_ms, int):
                progress[key] = progress_ms
    return progress
