"""Views that are served from their uploads alone, because their source has no stream.

``<home>/uploads/<view>.json`` is the platform's memory of one: which version was published and up to
where. As the record of a stream it outlives the store, which can be filled again from it and the lake.
An upload publishes a version once its tiles are stored, and retires the one before in the same step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from millrace.plan import ViewPlan
from millrace.published import PublishedVersion, PublishedView
from streaming import publishing
from streaming.deployments import retired_of
from streaming.records import RecordFiles, Retired
from streaming.retirement import drop_stored, drop_versions
from streaming.submission import serving_of, tile_topic
from streaming.view_files import ViewFiles

if TYPE_CHECKING:
    from redis import Redis

    from streaming.engines import Engines
    from streaming.upload_plan import UploadPlan

RETIRE_AFTER_MS = 600_000
"""Servers see a new publication within seconds; this is for those that were away."""


@dataclass(frozen=True)
class UploadedView:
    """What was published of a view by its uploads.

    Attributes:
        serving: the serving plan of the version.
        tile_topic: names the version's marks in the store; there is no such topic.
        cut_over_ms: the day edge before which the store holds batch tiles.
        sealed_before_ms: tiles before it were coarsened.
        retired: versions that serve no more and wait to be dropped.
    """

    view: str
    version: str
    fingerprint: str
    serving: Mapping[str, Any]
    tile_topic: str
    folders: tuple[str, ...]
    cut_over_ms: int
    sealed_before_ms: int | None
    retired: tuple[Retired, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what ``dataclasses.asdict`` wrote."""
        retired = tuple(
            Retired(**{**old, "job_ids": tuple(old["job_ids"])}) for old in document["retired"]
        )
        return cls(**{**document, "folders": tuple(document["folders"]), "retired": retired})


@dataclass(frozen=True)
class UploadedFiles(ViewFiles[UploadedView]):
    """The records of one stack, under ``<home>/uploads``; written under the upload's lock."""

    record = UploadedView
    kind = ("an uploaded view", "uploaded views")
    mend = "remove it, then `millrace upload {view}`"

    @classmethod
    def of(cls, home: Path) -> "UploadedFiles":
        """Return the records of a stack's home; nothing is made before the first write."""
        return cls(home / "uploads")


def publish_upload(
    client: "Redis", home: Path, folders: tuple[str, ...], what: "UploadPlan", now_ms: int
) -> UploadedView:
    """Publish a version whose batch tiles are stored; the one that served before is retired.

    Args:
        client: the store.
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
    publishing.amend(client, view.name, lambda found: _published(record, found, view, now_ms))
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


def drop_retired(engines: "Engines", view: str) -> int:
    """Drop the versions of an uploaded view that have served no more for long enough; how many.

    Raises:
        StoreError: the store failed; call it again.
    """
    files = UploadedFiles.of(engines.settings.home)
    with RecordFiles.of(engines.settings.home).uploading(view), engines.store() as client:
        record = files.read(view)
        due = due_versions(record, engines.now_ms())
        if record is None or not due:
            return 0
        _drop(engines, client, view, due)
        fingerprints = {old.fingerprint for old in due}
        files.write(replace(record, retired=tuple(r for r in record.retired if r not in due)))

        def without(found: PublishedView | None) -> PublishedView | None:
            if found is None:
                return None
            left = tuple(v for v in found.versions if v.fingerprint not in fingerprints)
            return replace(found, versions=left)

        publishing.amend(client, view, without)
    return len(due)


def due_versions(record: UploadedView | None, now_ms: int) -> list[Retired]:
    """Return the retired versions that no server asks for any more."""
    retired = () if record is None else record.retired
    return [old for old in retired if now_ms - old.retired_at_ms >= RETIRE_AFTER_MS]


def withdraw_upload(engines: "Engines", view: str) -> None:
    """Publish an uploaded view no more, drop what the store has of it, and forget it.

    Raises:
        StoreError: the store failed; call it again.
    """
    files = UploadedFiles.of(engines.settings.home)
    with RecordFiles.of(engines.settings.home).uploading(view), engines.store() as client:
        record = files.read(view)
        if record is None:
            return
        publishing.withdraw(client, view)
        last = Retired(record.version, record.fingerprint, record.tile_topic, (), 0)
        _drop(engines, client, view, (*record.retired, last))
        files.remove(view)


def _drop(engines: "Engines", client: "Redis", view: str, versions: Sequence[Retired]) -> None:
    for old in versions:
        if old.job_ids:
            drop_versions(engines, view, [old], lambda _: None)
        else:
            drop_stored(client, view, old)
