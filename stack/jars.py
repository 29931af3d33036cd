"""Fetches the engines' jars without Maven or Java, and writes their lock.

python -m stack.jars fetch     # whatever is missing or broken
python -m stack.jars lock      # rewrite jars.lock from ROOTS
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from millrace.errors import PlatformError, SetupError
from resources.jvm.jars import FORMAT, LOCK_FILE, Jar, read_lock
from resources.settings import settings_from_env
from stack.trust import MEND, is_untrusted, trusting_context


@dataclass(frozen=True)
class Root:
    """An artifact that an engine needs; ``with_dependencies`` asks for its runtime tree as well."""

    coordinate: str
    with_dependencies: bool = False


ROOTS: Mapping[str, tuple[Root, ...]] = {
    # All that Delta depends on is in pyspark already.
    "delta": (Root("io.delta:delta-spark_4.2_2.13:4.4.0"), Root("io.delta:delta-storage:4.4.0")),
    # The binding is for slf4j 1.7, which is what Kafka's own tree holds.
    "kafka": (
        Root("org.apache.kafka:kafka_2.13:4.3.1", with_dependencies=True),
        Root("org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"),
    ),
    "flink": (Root("org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2"),),
    "build": (Root("org.eclipse.jdt:ecj:3.40.0"),),
}
"""What ``lock`` writes down, by the engine that loads it."""

_PARALLEL = 4
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 60
_ATTEMPTS = 3
_NETWORK_ERRORS = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError)

Advance = Callable[[str, int, int], None]
"""Called with a jar's name, the bytes that have arrived and the bytes expected."""


def fetch(
    cache: Path,
    jars: Sequence[Jar],
    *,
    repository: str | None = None,
    progress: Advance | None = None,
) -> tuple[Path, ...]:
    """Return the jars' paths, in order, downloading those absent or not intact.

    Idempotent, and safe for several processes at once: one downloads, the others wait for it. A
    jar appears under its name only after its size and checksum are right.

    Args:
        cache: root of the download cache.
        jars: what to fetch.
        repository: URL of a Maven repository; None for the public one.
        progress: told of every chunk.

    Raises:
        SetupError: the repository cannot be reached, answers an error, or sends other bytes than
            the lock says; or the cache cannot be written.
    """
    repository = repository or _public_repository()
    missing = [jar for jar in jars if not jar.is_intact(cache)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        futures = [pool.submit(_fetch_one, cache, jar, repository, progress) for jar in missing]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(jar.path_in(cache) for jar in jars)


def _fetch_one(cache: Path, jar: Jar, repository: str, progress: Advance | None) -> None:
    folder = jar.path_in(cache).parent
    with _writable(folder), _locked(folder / ".lock"):
        if not jar.is_intact(cache):
            _download(jar, jar.path_in(cache), repository, progress)


def _download(jar: Jar, target: Path, repository: str, progress: Advance | None) -> None:
    url = f"{repository}/{jar.path_in_repository}"
    partial = target.with_name(f"{target.name}.part")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            digest, size = _receive(url, partial, jar, progress)
        except _NETWORK_ERRORS as error:
            if attempt < _ATTEMPTS and not _is_refusal(error):
                continue
            raise _cannot_download(jar, url, error, f", or put it at {target} by hand") from error
        if (digest, size) == (jar.sha256, jar.size_bytes):
            partial.replace(target)
            return
        partial.unlink()
    raise SetupError(
        f"{jar.name} has {size} bytes and sha256 {digest}; "
        f"the lock says {jar.size_bytes} bytes and {jar.sha256}",
        where=url,
        fix="the download is damaged or not what was locked; try again on another network, and "
        "see that no proxy rewrites it",
    )


def _cannot_download(jar: Jar, url: str, error: Exception, otherwise: str = "") -> SetupError:
    network = "check the network (HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE are honoured)"
    return SetupError(
        f"cannot download {jar.name}: {getattr(error, 'reason', None) or error}",
        where=url,
        fix=f"{MEND if is_untrusted(error) else network}; then run the same command again{otherwise}",
    )


def _receive(url: str, partial: Path, jar: Jar, progress: Advance | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "millrace"})  # noqa: S310
    with (
        urllib.request.urlopen(  # noqa: S310
            request, timeout=_TIMEOUT_S, context=trusting_context()
        ) as answer,
        partial.open("wb") as file,
    ):
        for chunk in _chunks(answer):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(jar.name, size, jar.size_bytes)
    return digest.hexdigest(), size


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _is_refusal(error: Exception) -> bool:
    """Whether asking again cannot help: a 4xx answer, or a certificate that is not trusted."""
    is_answer = isinstance(error, urllib.error.HTTPError) and error.code < 500  # noqa: PLR2004
    return is_answer or is_untrusted(error)


def _public_repository() -> str:
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise SetupError(
            f"the cache cannot be written: {error.strerror}",
            where=str(folder),
            fix="free some space or set MILLRACE_CACHE to a folder you can write to",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


Resolve = Callable[[str], Sequence[str]]
"""Returns the coordinates of an artifact's runtime tree, itself first."""


def write_lock(
    cache: Path,
    path: Path = LOCK_FILE,
    *,
    repository: str | None = None,
    resolve: Resolve | None = None,
) -> None:
    """Download every artifact of ``ROOTS`` once and write down what came.

    The first download is trusted; from then on the lock is what is believed.

    Raises:
        SetupError: one cannot be had.
    """
    repository = repository or _public_repository()
    resolve = resolve or _resolve
    jars = [
        _first_download(cache, coordinate, engine, repository)
        for engine, roots in ROOTS.items()
        for root in roots
        for coordinate in (
            resolve(root.coordinate) if root.with_dependencies else [root.coordinate]
        )
    ]
    document = {"format": FORMAT, "jars": [asdict(jar) for jar in jars]}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    fresh.replace(path)


def _resolve(coordinate: str) -> list[str]:
    import jgo
    import truststore

    # It asks through requests, which would trust a bundle of its own.
    truststore.inject_into_ssl()
    found = jgo.resolve(coordinate)
    return [f"{one.groupId}:{one.artifactId}:{one.version}" for one in found]


def _first_download(cache: Path, coordinate: str, engine: str, repository: str) -> Jar:
    scratch = cache / "jars" / coordinate.replace(":", "_")
    scratch.parent.mkdir(parents=True, exist_ok=True)
    unknown = Jar(coordinate, "", 0, engine)
    url = f"{repository}/{unknown.path_in_repository}"
    try:
        digest, size = _receive(url, scratch, unknown, None)
    except _NETWORK_ERRORS as error:
        raise _cannot_download(unknown, url, error) from error
    jar = Jar(coordinate, digest, size, engine)
    jar.path_in(cache).parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(jar.path_in(cache))
    return jar


def _show_progress(total_bytes: int) -> tuple[Advance, Callable[[], None]]:
    """Start one bar for all jars; return what feeds it and what ends it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
    )
    task = bars.add_task("jars", total=total_bytes)
    arrived: dict[str, int] = {}

    def progress(name: str, done_bytes: int, _total_bytes: int) -> None:
        arrived[name] = done_bytes
        bars.update(task, completed=sum(list(arrived.values())))

    bars.start()
    return progress, bars.stop


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``fetch`` or ``lock``; the exit code is 1 when something could not be had."""
    parser = argparse.ArgumentParser(prog="python -m stack.jars", description="The engines' jars.")
    parser.add_argument("action", choices=("fetch", "lock"))
    action = parser.parse_args(arguments).action
    cache = settings_from_env().cache
    try:
        if action == "lock":
            write_lock(cache)
            return os.EX_OK
        jars = read_lock()
        missing = [jar for jar in jars if not jar.is_intact(cache)]
        if missing:
            total_bytes = sum(jar.size_bytes for jar in missing)
            what = f"{len(missing)} jars ({total_bytes / 1e6:.1f} MB)"
            sys.stderr.write(f"fetching {what} into {cache}\n")
            progress, stop = _show_progress(total_bytes)
            try:
                fetch(cache, missing, progress=progress)
            finally:
                stop()
    except PlatformError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
