"""Tells OpenLineage of uploads: a view's tiles into what is served of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lineage import datasets, facets
from lineage.emitter import Emitter
from lineage.quiet import quietly
from lineage.runs import End, Work
from lineage.shipping import ship_soon
from resources.endpoints import store_url
from resources.settings import Settings

if TYPE_CHECKING:
    from streaming.upload.plan import UploadPlan


@contextmanager
def emitting_upload(settings: Settings, what: "UploadPlan") -> "Iterator[UploadLineage]":
    """Tell of an upload: START now, and its end however the block ends."""
    upload = UploadLineage(settings, what)
    upload.begin()
    try:
        yield upload
    except Exception as error:
        upload.end("FAIL", str(error))
        raise
    except BaseException:
        upload.end("ABORT", "interrupted")
        raise
    upload.end("COMPLETE")


class UploadLineage:
    """One upload, as lineage is told of it; none of its methods fails.

    Attributes:
        tiles: how many were stored; set before the block ends.
        bytes: of packed tiles.
    """

    tiles: int | None = None
    bytes: int | None = None

    def __init__(self, settings: Settings, what: "UploadPlan") -> None:
        self._settings, self._what = settings, what
        self._work: Work | None = None

    @quietly
    def begin(self) -> None:
        """Tell that the upload begins."""
        emitter, what = Emitter(self._settings), self._what
        if not emitter.is_on:
            return
        read = datasets.tiles(self._settings, what.view, what.version)
        served = datasets.online(
            store_url(self._settings), what.view, what.version, read_from=read, is_stream=False
        )
        self._work = Work.of(
            f"upload/{what.view.name}",
            datetime.now(tz=UTC),
            job_facets={"jobType": facets.job_type("UPLOAD")},
            run_facets={"nominalTime": facets.nominal_days(what.days)},
            inputs=[read.with_input_facets({"subset": facets.input_days(what.days)})],
            outputs=[served],
        )
        emitter.start(self._work)

    @quietly
    def end(self, state: End, reason: str = "") -> None:
        """Tell how the upload ended, and ship it if the receivers are at hand."""
        if self._work is None:
            return
        outputs = None
        if self.tiles is not None:
            written = facets.output_statistics(self.tiles, self.bytes)
            outputs = [
                d.with_output_facets({"outputStatistics": written}) for d in self._work.outputs
            ]
        error = {"errorMessage": facets.error(reason)} if reason else {}
        Emitter(self._settings).end(self._work, state, run_facets=error, outputs=outputs)
        ship_soon(self._settings)
