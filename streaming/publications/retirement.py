"""Drops what a version left behind once it serves no more: keys, markers, topic, checkpoints."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from millrace.codec import KEY_PREFIX, TAGS
from millrace.published import PROGRESS_KEY
from resources.progress import Progress
from resources.store.client import store_errors
from streaming.engines import Engines
from streaming.publications.checkpoints import drop_checkpoints
from streaming.publications.records import Retired

if TYPE_CHECKING:
    from redis import Redis

_BATCH = 1_000
_GLOB = b"*?[]\\"


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
        with engines.store() as client:
            removed = drop_stored(client, view, old)
        drop_checkpoints(engines, old.job_ids)
        progress(f"{view} {old.version}: topic {old.tile_topic} and {removed} keys removed")


def drop_stored(client: "Redis", view: str, old: Retired) -> int:
    """Remove what the store has of a version, markers too; return how many keys that were.

    Raises:
        StoreError: the store failed; call it again.
    """
    with store_errors():
        removed = _drop_keys(client, key_pattern(view, old.fingerprint))
        _drop_markers(client, view, old)
    return removed


def key_pattern(view: str, fingerprint: str) -> bytes:
    """Return the SCAN pattern of all rows and tiles of a version; see ``docs/formats.md`` §3."""
    name = view.encode()
    exact = bytes.fromhex(fingerprint) + len(name).to_bytes(4, "big") + name
    escaped = b"".join((b"\\" if byte in _GLOB else b"") + bytes([byte]) for byte in exact)
    return KEY_PREFIX + b"{??}[RT]" + escaped + b"*"


def _drop_keys(client: "Redis", pattern: bytes) -> int:
    removed = 0
    keys = client.scan_iter(match=pattern, count=_BATCH)
    for batch in _batches(keys):
        with client.pipeline(transaction=False) as pipe:
            for key in batch:
                pipe.unlink(key)
            removed += sum(pipe.execute())
    return removed


def _drop_markers(client: "Redis", view: str, old: Retired) -> None:
    topic = old.tile_topic.encode()
    prefixes = (topic + b"/", b"epoch/" + topic + b"/", b"sealed/" + topic)
    for tag in range(TAGS):
        key = KEY_PREFIX + b"{%02x}M" % tag
        known: Any = client.hkeys(key)
        fields = [field for field in known if field.startswith(prefixes)]
        if fields:
            client.hdel(key, *fields)
    client.hdel(PROGRESS_KEY, f"{view}/{old.fingerprint}")


def _batches(keys: Iterable[Any]) -> Iterator[list[Any]]:
    remaining = iter(keys)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
