"""Engine jars without Maven or Java: a committed lock, a content-addressed cache, a fetcher.

``jars.lock`` names each jar by Maven coordinate, size and sha256. A jar lies in the cache at
``<cache>/jars/<sha256>/<name>.jar``: stacks and checkouts share it, and an upgrade never
overwrites what another checkout still uses.

    python -m stack.jars fetch     # whatever is missing or broken
    python -m stack.jars lock      # rewrite jars.lock from ARTIFACTS
"""

import argparse
import fcntl
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

from millrace.errors import PlatformError, SetupError
from resources.settings import settings_from_env

LOCK_FILE = Path(__file__).with_name("jars.lock")

ARTIFACTS = (
    "io.delta:delta-spark_4.2_2.13:4.4.0",
    "io.delta:delta-storage:4.4.0",
)
"""What ``lock`` writes down: the two Delta jars; all they depend on is in pyspark already."""

_FORMAT = 1
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 60
_ATTEMPTS = 3
_NETWORK_ERRORS = (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError)

Progress = Callable[[str, int, int], None]
"""Called with a jar's name, the bytes that have arrived and the bytes expected."""


@dataclass(frozen=True)
class Jar:
    """One locked jar.

    Attributes:
        coordinate: ``group:artifact:version`` as Maven names it.
        sha256: of the whole file, lower-case hex.
        size_bytes: of the whole file.
    """

    coordinate: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """The file's name in every Maven repository, ``artifact-version.jar``."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    def path_in(self, cache: Path) -> Path:
        """Where the jar lies under the cache, whether or not it is there."""
        return cache / "jars" / self.sha256 / self.name

    def is_intact(self, cache: Path) -> bool:
        """Whether the cached file is there, whole and unaltered (it is hashed each time)."""
        path = self.path_in(cache)
        try:
            return path.stat().st_size == self.size_bytes and _sha256(path) == self.sha256
        except OSError:
            return False


def read_lock(path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Read the locked jars.

    Raises:
        SetupError: the file is absent or is not a lock of this format.
    """
    fix = "restore the committed file, or write it anew: python -m stack.jars lock"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise SetupError(
                f"the lock has format {document['format']!r}, not {_FORMAT}",
                where=str(path),
                fix=fix,
            )
        jars = tuple(Jar(**entry) for entry in document["jars"])
        for jar in jars:
            _path_in_repository(jar.coordinate)
    except OSError as error:
        raise SetupError(f"cannot read it: {error.strerror}", where=str(path), fix=fix) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"not a jar lock: {error}", where=str(path), fix=fix) from error
    return jars


def fetch(
    cache: Path,
    jars: Sequence[Jar],
    *,
    repository: str | None = None,
    progress: Progress | None = None,
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
    for jar in jars:
        if jar.is_intact(cache):
            continue
        folder = jar.path_in(cache).parent
        with _writable(folder), _locked(folder / ".lock"):
            if not jar.is_intact(cache):
                _download(jar, jar.path_in(cache), repository, progress)
    return tuple(jar.path_in(cache) for jar in jars)


def _download(jar: Jar, target: Path, repository: str, progress: Progress | None) -> None:
    url = f"{repository}/{_path_in_repository(jar.coordinate)}"
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
    return SetupError(
        f"cannot download {jar.name}: {getattr(error, 'reason', None) or error}",
        where=url,
        fix="check the network (HTTPS_PROXY and SSL_CERT_FILE are honoured) and run the same "
        f"command again{otherwise}",
    )


def _receive(url: str, partial: Path, jar: Jar, progress: Progress | None) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    request = urllib.request.Request(url, headers={"User-Agent": "millrace"})  # noqa: S310
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer,  # noqa: S310
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
    """Whether asking again cannot help: a 4xx answer."""
    return isinstance(error, urllib.error.HTTPError) and error.code < 500  # noqa: PLR2004


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _public_repository() -> str:
    from jgo.constants import MAVEN_CENTRAL_URL

    return str(MAVEN_CENTRAL_URL)


def _path_in_repository(coordinate: str) -> str:
    group, artifact, version = coordinate.split(":")
    return f"{group.replace('.', '/')}/{artifact}/{version}/{artifact}-{version}.jar"


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


def write_lock(cache: Path, path: Path = LOCK_FILE, *, repository: str | None = None) -> None:
    """Download every artifact of ``ARTIFACTS`` once and write down what came.

    The first download is trusted; from then on the lock is what is believed.

    Raises:
        SetupError: one cannot be had.
    """
    repository = repository or _public_repository()
    jars = []
    for coordinate in ARTIFACTS:
        scratch = cache / "jars" / coordinate.replace(":", "_")
        scratch.parent.mkdir(parents=True, exist_ok=True)
        url = f"{repository}/{_path_in_repository(coordinate)}"
        unknown = Jar(coordinate, "", 0)
        try:
            digest, size = _receive(url, scratch, unknown, None)
        except _NETWORK_ERRORS as error:
            raise _cannot_download(unknown, url, error) from error
        jar = Jar(coordinate, digest, size)
        jar.path_in(cache).parent.mkdir(parents=True, exist_ok=True)
        scratch.replace(jar.path_in(cache))
        jars.append(asdict(jar))
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"format": _FORMAT, "jars": jars}, indent=2) + "\n", "utf-8")
    fresh.replace(path)


def _show_progress() -> tuple[Progress, Callable[[], None]]:
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
    tasks = {}

    def progress(name: str, done_bytes: int, total_bytes: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total_bytes)
        bars.update(tasks[name], completed=done_bytes)

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
            megabytes = sum(jar.size_bytes for jar in missing) / 1e6
            sys.stderr.write(f"fetching {len(missing)} jars ({megabytes:.1f} MB) into {cache}\n")
            progress, stop = _show_progress()
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
