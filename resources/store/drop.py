"""All that the store has of a version, removed."""

from typing import TYPE_CHECKING, Any

from millrace.published import PROGRESS_KEY
from resources.store.client import pages, store_errors
from resources.store.keys import is_mark_of, marker_keys, progress_field, version_pattern
from resources.store.online import Version

if TYPE_CHECKING:
    from redis import Redis


class ServerVersions:
    """Versions on a server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def drop(self, version: Version, topic: str) -> int:
        """See ``StoredVersions``."""
        with store_errors():
            removed = self._drop_keys(version_pattern(*version))
            self._drop_marks(topic)
            self._client.hdel(PROGRESS_KEY, progress_field(*version))
        return removed

    def _drop_keys(self, pattern: bytes) -> int:
        removed = 0
        for keys in pages(self._client, pattern):
            with self._client.pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.unlink(key)
                removed += sum(pipe.execute())
        return removed

    def _drop_marks(self, topic: str) -> None:
        for key in marker_keys():
            known: Any = self._client.hkeys(key)
            fields = [field for field in known if is_mark_of(field, topic)]
            if fields:
                self._client.hdel(key, *fields)
