"""Drops what a version left behind once it serves no more: keys, markers, topic, checkpoints."""

from collections.abc import Sequence

from resources.progress import Progress
from streaming.engines import Engines
from streaming.publications.checkpoints import drop_checkpoints
from streaming.publications.records import Retired


def drop_versions(
    engines: Engines, view: str, versions: Sequence[Retired], progress: Progress
) -> None:
    """Remove every trace of retired versions; what is gone already is fine.

    The topic goes first: a writer that still read it could bring keys back otherwise.

    Raises:
        StoreError: the store failed; call it again.
        EngineUnavailable: Kafka does not answer; call it again.
    """
    for old in versions:
        engines.delete_topics([old.tile_topic])
        with engines.store() as store:
            removed = store.versions.drop((view, old.fingerprint), old.tile_topic)
        drop_checkpoints(engines, old.job_ids)
        progress(f"{view} {old.version}: topic {old.tile_topic} and {removed} keys removed")
