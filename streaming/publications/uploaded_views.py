"""Views that are served from their uploads alone, because their source has no stream.

``<home>/uploads/<view>.json`` is the platform's memory of one: which version was published and up to
where. As the record of a stream it outlives the store, which can be filled again from it and the lake.
An upload publishes a version once its tiles are stored, and retires the one before in the same step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from millrace.published import PublishedView
from streaming.publications.records import RecordFiles, Retired
from streaming.publications.retirement import drop_versions
from streaming.publications.view_files import ViewFiles

if TYPE_CHECKING:
    from resources.store.online import OnlineStore
    from streaming.engines import Engines

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


def drop_retired(engines: "Engines", view: str) -> int:
    """Drop the versions of an uploaded view that have served no more for long enough; how many.

    Raises:
        StoreError: the store failed; call it again.
    """
    files = UploadedFiles.of(engines.settings.home)
    with RecordFiles.of(engines.settings.home).uploading(view), engines.store() as store:
        record = files.read(view)
        due = due_versions(record, engines.now_ms())
        if record is None or not due:
            return 0
        _drop(engines, store, view, due)
        fingerprints = {old.fingerprint for old in due}
        files.write(replace(record, retired=tuple(r for r in record.retired if r not in due)))

        def without(found: PublishedView | None) -> PublishedView | None:
            if found is None:
                return None
            left = tuple(v for v in found.versions if v.fingerprint not in fingerprints)
            return replace(found, versions=left)

        store.publications.amend(view, without)
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
    with RecordFiles.of(engines.settings.home).uploading(view), engines.store() as store:
        record = files.read(view)
        if record is None:
            return
        store.publications.amend(view, lambda _: None)
        last = Retired(record.version, record.fingerprint, record.tile_topic, (), 0)
        _drop(engines, store, view, (*record.retired, last))
        files.remove(view)


def _drop(engines: "Engines", store: "OnlineStore", view: str, versions: Sequence[Retired]) -> None:
    for old in versions:
        if old.job_ids:
            drop_versions(engines, view, [old], lambda _: None)
        else:
            store.versions.drop((view, old.fingerprint), old.tile_topic)
