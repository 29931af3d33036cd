"""The engines' jars as ``stack/jars.lock`` names them and as they lie in the cache.

The lock names each jar by Maven coordinate, size and sha256, and the engine it belongs to. A jar
lies at ``<cache>/jars/<sha256>/<name>.jar``: stacks and checkouts share it, and an upgrade never
overwrites what another checkout still uses. ``python -m stack.jars`` fetches them.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from millrace.errors import SetupError
from resources.settings import CHECKOUT

LOCK_FILE = CHECKOUT / "stack" / "jars.lock"
FORMAT = 2


@dataclass(frozen=True)
class Jar:
    """One locked jar.

    Attributes:
        coordinate: ``group:artifact:version`` as Maven names it.
        sha256: of the whole file, lower-case hex.
        size_bytes: of the whole file.
        engine: who loads it: ``delta``, ``kafka``, ``flink`` or ``build``.
    """

    coordinate: str
    sha256: str
    size_bytes: int
    engine: str

    def __post_init__(self) -> None:
        if self.coordinate.count(":") != 2:  # noqa: PLR2004
            raise ValueError(f"{self.coordinate!r} is not group:artifact:version")

    @property
    def name(self) -> str:
        """The file's name in every Maven repository, ``artifact-version.jar``."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"

    @property
    def path_in_repository(self) -> str:
        """Where every Maven repository has it, below the repository's URL."""
        group, artifact, version = self.coordinate.split(":")
        return f"{group.replace('.', '/')}/{artifact}/{version}/{self.name}"

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


def read_lock(engine: str | None = None, *, path: Path = LOCK_FILE) -> tuple[Jar, ...]:
    """Read the locked jars of one engine, or all, in the lock's order.

    Raises:
        SetupError: the file is absent or is not a lock of this format.
    """
    fix = "restore the committed file, or write it anew: python -m stack.jars lock"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise SetupError(
                f"the lock has format {document['format']!r}, not {FORMAT}",
                where=str(path),
                fix=fix,
            )
        jars = tuple(Jar(**entry) for entry in document["jars"])
    except OSError as error:
        raise SetupError(f"cannot read it: {error.strerror}", where=str(path), fix=fix) from error
    except (ValueError, KeyError, TypeError) as error:
        raise SetupError(f"not a jar lock: {error}", where=str(path), fix=fix) from error
    return tuple(jar for jar in jars if engine in {None, jar.engine})


def cached(cache: Path, engine: str) -> tuple[Path, ...]:
    """Return the paths of one engine's jars, in the lock's order.

    Only presence and size are looked at, for this is asked often; ``millrace doctor`` hashes.

    Raises:
        SetupError: one is not in the cache.
    """
    jars = read_lock(engine)
    for jar in jars:
        path = jar.path_in(cache)
        if not path.exists() or path.stat().st_size != jar.size_bytes:
            raise SetupError(f"{jar.name} is not in the cache", where=str(cache), fix="make setup")
    return tuple(jar.path_in(cache) for jar in jars)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
