"""The publication of a view that an upload alone feeds: once its tiles are stored, in one step."""

from dataclasses import replace
from pathlib import Path

from millrace.names import tile_topic
from millrace.plan import ViewPlan
from millrace.published import PublishedVersion, PublishedView
from resources.store.online import OnlineStore
from streaming.publications import publishing
from streaming.publications.publishing import serving_of
from streaming.publications.records import RecordFiles, Retired, retired_of
from streaming.publications.uploaded_views import UploadedFiles, UploadedView
from streaming.upload.plan import UploadPlan


def publish_upload(
    store: OnlineStore, home: Path, folders: tuple[str, ...], what: UploadPlan, now_ms: int
) -> UploadedView:
    """Publish a version whose batch tiles are stored; the one that served before is retired.

    Args:
        store: the store.
        home: where the record is kept.
        folders: the folders of declarations the view was read from.
        what: the upload.
        now_ms: the present instant.

    Raises:
        StoreError: the store failed.
    """
    view, files, streams = what.view, UploadedFiles.of(home), RecordFiles.of(home)
    before, streamed = files.read(view.name), streams.read(view.name)
    retired: tuple[Retired, ...] = ()
    if before is not None:
        gone = Retired(before.version, before.fingerprint, before.tile_topic, (), now_ms)
        retired = (*before.retired, gone)
    if streamed is not None:
        # Its source lost its stream: what that left behind is dropped like any former version.
        retired = (*retired, *streamed.retired, retired_of(streamed, now_ms))
    record = UploadedView(
        view=view.name,
        version=what.version,
        fingerprint=view.fingerprint,
        serving=serving_of(view),
        tile_topic=tile_topic(view),
        folders=folders,
        cut_over_ms=what.cut_over_ms,
        sealed_before_ms=what.sealed_before_ms,
        # A meaning that comes back is not to be dropped any more.
        retired=tuple(old for old in retired if old.fingerprint != view.fingerprint),
    )
    files.write(record)
    with streams.changing(view.name):
        streams.remove(view.name)
    store.publications.amend(view.name, lambda found: _published(record, found, view, now_ms))
    return record


def _published(
    record: UploadedView, found: PublishedView | None, view: ViewPlan, now_ms: int
) -> PublishedView:
    known = () if found is None else found.versions
    waiting = {old.fingerprint for old in record.retired}
    kept = [replace(v, state="retired") for v in known if v.fingerprint in waiting]
    earlier = publishing.published_version(found, record.fingerprint)
    version = PublishedVersion(
        version=record.version,
        fingerprint=record.fingerprint,
        plan=record.serving,
        tile_topic=record.tile_topic,
        source_topic=None,
        flink_group="",
        state="live",
        cut_over_ms=record.cut_over_ms,
        sealed_before_ms=record.sealed_before_ms,
        published_at_ms=now_ms if earlier is None else earlier.published_at_ms,
    )
    names = tuple(entity.name for entity in view.entities)
    return PublishedView(view.name, names, record.version, (*kept, version))
