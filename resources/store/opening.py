"""The online store of a URL, opened."""

from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from resources.store.apply import ServerTiles
from resources.store.claim import ServerClaims
from resources.store.client import open_store, store_errors
from resources.store.drop import ServerVersions
from resources.store.online import OnlineStore
from resources.store.publications import ServerProgress, ServerPublications
from resources.store.upload import ServerUploads


def open_online_store(url: str) -> OnlineStore:
    """Return the store at a URL; it is connected to at the first call.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; may hold a password, which no error shows.

    Raises:
        SetupError: the URL is of another kind.
    """
    client = open_store(url)
    tiles = ServerTiles(client)

    def close() -> None:
        tiles.hang_up()
        client.close()

    return OnlineStore(
        ServerPublications(client),
        ServerProgress(client),
        ServerClaims(client),
        tiles,
        ServerUploads(client),
        ServerVersions(client),
        close,
    )


def server_name(url: str) -> str:
    """Return which server answers at a URL, and its version.

    Raises:
        StoreUnavailable: none does.
    """
    with store_errors(), closing(open_store(url)) as client:
        told: dict[str, Any] = client.info("server")
    return f"{told.get('server_name', 'redis')} {told.get('valkey_version', told['redis_version'])}"


def shown_url(url: str) -> str:
    """Return a store's URL without user, password and options, for messages.

    >>> shown_url("redis://me:secret@store:6379/0?timeout=1")
    'redis://store:6379/0'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
