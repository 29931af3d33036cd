"""Publications and progress on a server: two hashes that server, writer and sensor share."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millrace.errors import StoreError
from millrace.published import PLANS_KEY, PROGRESS_KEY, PublishedView
from resources.store.client import store_errors, wait_for_disk
from resources.store.keys import SERVICES_FIELD, progress_field, version_of, view_field, view_of
from resources.store.online import Change, Published, Version

if TYPE_CHECKING:
    from redis import Redis

_DISK_TIMEOUT_MS = 2_000


class ServerPublications:
    """Publications on a server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def read(self, on_unreadable: Callable[[str, StoreError], None] | None = None) -> Published:
        """See ``Publications``."""
        with store_errors(PLANS_KEY.decode()):
            fields: Any = self._client.hgetall(PLANS_KEY)
        return read_published(fields, on_unreadable)

    def read_view(self, view: str) -> PublishedView | None:
        """See ``Publications``."""
        with store_errors(PLANS_KEY.decode()):
            text: Any = self._client.hget(PLANS_KEY, view_field(view))
        return read_view(text)

    def amend(self, view: str, change: Change) -> PublishedView | None:
        """See ``Publications``."""
        name = view_field(view)
        with store_errors(PLANS_KEY.decode()), self._client.pipeline() as opened:
            pipe: Any = opened
            while True:
                pipe.watch(PLANS_KEY)
                found = read_view(pipe.hget(PLANS_KEY, name))
                new = change(found)
                if new == found:
                    return new
                pipe.multi()
                if new is None:
                    pipe.hdel(PLANS_KEY, name)
                else:
                    pipe.hset(PLANS_KEY, name, new.to_json())
                if _committed(pipe):
                    break
        wait_for_disk(self._client, _DISK_TIMEOUT_MS)
        return new

    def replace_services(self, features: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """See ``Publications``."""
        with store_errors(PLANS_KEY.decode()):
            self._client.hset(PLANS_KEY, SERVICES_FIELD, services_text(features))


class ServerProgress:
    """Reports of progress on a server."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def read(self) -> dict[Version, Mapping[str, Any]]:
        """See ``ProgressReports``."""
        with store_errors(PROGRESS_KEY.decode()):
            fields: Any = self._client.hgetall(PROGRESS_KEY)
        return read_progress(fields)

    def report(self, progress: Mapping[Version, Mapping[str, Any]]) -> None:
        """See ``ProgressReports``."""
        fields: dict[Any, Any] = progress_fields(progress)
        if fields:
            with store_errors(PROGRESS_KEY.decode()):
                self._client.hset(PROGRESS_KEY, mapping=fields)


def _committed(pipe: Any) -> bool:
    from redis.exceptions import WatchError

    try:
        pipe.execute()
    except WatchError:
        return False
    return True


def read_published(
    fields: Mapping[bytes, bytes], on_unreadable: Callable[[str, StoreError], None] | None
) -> Published:
    """Return what the fields of ``m1:plans`` say; see ``Publications.read``."""
    views = {}
    for field, text in fields.items():
        view = view_of(field)
        if view is None:
            continue
        try:
            views[view] = PublishedView.from_json(text)
        except StoreError as error:
            if on_unreadable is None:
                raise
            on_unreadable(view, error)
    return Published(views, is_blank=not fields)


def read_view(text: bytes | None) -> PublishedView | None:
    """Return the publication that a field holds; None without one."""
    return None if text is None else PublishedView.from_json(text)


def services_text(features: Mapping[str, Sequence[Sequence[str]]]) -> str:
    """Return the field ``services`` of ``m1:plans``."""
    return json.dumps(
        {name: [list(f) for f in of] for name, of in features.items()}, sort_keys=True
    )


def read_progress(fields: Mapping[bytes, bytes]) -> dict[Version, Mapping[str, Any]]:
    """Return what the fields of ``m1:progress`` say."""
    return {version_of(field): json.loads(text) for field, text in fields.items()}


def progress_fields(progress: Mapping[Version, Mapping[str, Any]]) -> dict[bytes, bytes]:
    """Return the fields of ``m1:progress`` of some reports."""
    return {progress_field(*v): json.dumps(told).encode() for v, told in progress.items()}
