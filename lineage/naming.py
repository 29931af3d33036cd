"""Names of jobs and datasets as OpenLineage wants them: physical, one writer and reader alike.

A dataset has the name under which any other tool would report it, so that graphs join: a Kafka
topic is ``kafka://host:port`` and the topic, a local table ``file`` and its path, a table in S3
``s3://bucket`` and its key. OpenLineage names no Redis datasets; ours are ``redis://host:port`` and
``millrace:<view>``. See ``docs/lineage.md``.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from resources.lake.delta import rs_path
from resources.settings import Settings

JOB_NAMESPACE = "millrace"
"""The namespace of all jobs, and of the logical names (asset keys) of datasets.

The emitter puts ``lineage.namespace`` of the settings in its place.
"""

_GLOB = frozenset("*?[")
_REDIS_PORT = 6379
_KAFKA_PORT = 9092


@dataclass(frozen=True, order=True)
class DatasetName:
    """The identity of a dataset: neither partition nor version is part of it."""

    namespace: str
    name: str


def table_name(settings: Settings, table: str) -> DatasetName:
    """Name a Delta table by its name under the lake, such as ``events/card_transactions``."""
    return location_name(rs_path(settings, table))


def location_name(location: str) -> DatasetName:
    """Name files, a folder or a table by path or URL.

    A pattern stands for the folder it searches. Hadoop's ``s3a`` is ``s3``.

    >>> location_name("/lake/events/payments")
    DatasetName(namespace='file', name='/lake/events/payments')
    >>> location_name("s3a://bucket/lake/events/*.parquet")
    DatasetName(namespace='s3://bucket', name='lake/events')
    """
    if "://" not in location:
        return DatasetName("file", _folder(location) or "/")
    scheme, _, rest = location.partition("://")
    scheme = {"s3a": "s3", "s3n": "s3"}.get(scheme, scheme)
    bucket, _, key = rest.partition("/")
    if scheme == "file":
        return DatasetName("file", _folder(f"/{key}"))
    return DatasetName(f"{scheme}://{bucket}", _folder(key) or "/")


def _folder(path: str) -> str:
    """Return the path up to its first part with a wildcard."""
    parts = PurePosixPath(path).parts
    fixed = next((i for i, part in enumerate(parts) if _GLOB & set(part)), len(parts))
    return str(PurePosixPath(*parts[:fixed])) if fixed else ""


def topic_name(bootstrap: str, topic: str) -> DatasetName:
    """Name a topic; of several brokers the first stands for the cluster, as the spec says.

    >>> topic_name("b1:9092,b2:9092", "payments")
    DatasetName(namespace='kafka://b1:9092', name='payments')
    """
    first = bootstrap.split(",", maxsplit=1)[0].strip()
    host, _, port = first.partition(":")
    return DatasetName(f"kafka://{host}:{port or _KAFKA_PORT}", topic)


def online_name(store_url: str, view: str) -> DatasetName:
    """Name what the online store serves of a view; user, password and database are left out.

    >>> online_name("rediss://:secret@store:6380/0", "spend")
    DatasetName(namespace='redis://store:6380', name='millrace:spend')
    >>> online_name("unix:///run/store.sock", "spend")
    DatasetName(namespace='redis:///run/store.sock', name='millrace:spend')
    """
    parts = urlsplit(store_url)
    place = (
        parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or _REDIS_PORT}"
    )
    return DatasetName(f"redis://{place}", f"millrace:{view}")
