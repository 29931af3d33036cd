"""A jar made from Java sources of this repository, alike everywhere.

Compiled by Eclipse's compiler, one jar that runs on any Java, so a bare machine needs no JDK. The
same sources give the same bytes, wherever and whenever they are built.
"""

import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from millrace.errors import SetupError

_RELEASE = "17"
_TIMEOUT_S = 120
_STORED_AT = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip archive can hold, given to every entry."""
_MANIFEST = "META-INF/MANIFEST.MF"


@dataclass(frozen=True)
class JavaSources:
    """What a jar is made of.

    Attributes:
        folder: the ``.java`` files in the folders of their packages, and ``META-INF/services``
            where there are any.
        jar_name: the jar's file name.
        entry_class: the class that ``java -jar`` starts; None if it is only a library.
    """

    folder: Path
    jar_name: str
    entry_class: str | None = None

    @property
    def files(self) -> list[Path]:
        """The sources, in order."""
        return sorted(self.folder.rglob("*.java"))

    @property
    def services(self) -> list[Path]:
        """The files by which an engine finds what the jar brings to it."""
        return sorted((self.folder / "META-INF" / "services").glob("*"))

    @property
    def manifest(self) -> str:
        """The text of the jar's manifest."""
        entry = f"Main-Class: {self.entry_class}\r\n" if self.entry_class else ""
        return f"Manifest-Version: 1.0\r\n{entry}\r\n"


def java_jar(
    sources: JavaSources, cache: Path, libraries: Sequence[Path], ecj: Path, java: Path
) -> Path:
    """Build the jar, or find it built: ``<cache>/built/<hash of all that enters it>/<jar_name>``.

    Safe to call from several processes at once.

    Args:
        sources: what it is made of.
        cache: where it is kept.
        libraries: the jars to compile against.
        ecj: the compiler's jar.
        java: the command that runs it.

    Raises:
        SetupError: the sources do not compile, or the cache cannot be written.
    """
    target = cache / "built" / _identity(sources, libraries, ecj) / sources.jar_name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            classes = Path(folder) / "classes"
            _compile(sources, classes, libraries, ecj, java)
            _pack(sources, classes, Path(folder) / sources.jar_name)
            (Path(folder) / sources.jar_name).replace(target)
    except OSError as error:
        raise SetupError(
            f"{sources.jar_name} cannot be written: {error.strerror}",
            where=str(target.parent),
            fix="set MILLRACE_CACHE to a folder you can write to",
        ) from error
    return target


def _identity(sources: JavaSources, libraries: Sequence[Path], ecj: Path) -> str:
    digest = hashlib.sha256()
    for name in (_RELEASE, ecj.name, *(library.name for library in libraries), sources.manifest):
        digest.update(f"{name}\n".encode())
    for path in (*sources.files, *sources.services):
        digest.update(f"{path.relative_to(sources.folder).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(
    sources: JavaSources, classes: Path, libraries: Sequence[Path], ecj: Path, java: Path
) -> None:
    command = [
        str(java),
        "-Xmx512m",
        "-jar",
        str(ecj),
        f"-{_RELEASE}",
        "-nowarn",
        "-g:lines,source",
        "-encoding",
        "UTF-8",
        "-d",
        str(classes),
        "-classpath",
        os.pathsep.join(map(str, libraries)),
        *map(str, sources.files),
    ]
    try:
        run = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(
            f"the Java compiler does not run: {error}", where=str(ecj), fix="make setup"
        ) from error
    if run.returncode != 0:
        raise SetupError(
            f"the sources of {sources.jar_name} do not compile:\n"
            f"{(run.stdout + run.stderr)[-2000:]}",
            where=str(sources.folder),
            fix="restore the sources, or make setup if a library or the compiler is another version",
        )


def _pack(sources: JavaSources, classes: Path, target: Path) -> None:
    """Write the archive with its entries in order and without times, so that bytes repeat."""
    with zipfile.ZipFile(target, "w") as jar:
        _store(jar, _MANIFEST, sources.manifest.encode())
        for path in sources.services:
            _store(jar, path.relative_to(sources.folder).as_posix(), path.read_bytes())
        for path in sorted(classes.rglob("*.class"), key=lambda p: p.relative_to(classes).parts):
            _store(jar, path.relative_to(classes).as_posix(), path.read_bytes())


def _store(jar: zipfile.ZipFile, name: str, content: bytes) -> None:
    # Not deflated: the bytes of that depend on the zlib at hand.
    entry = zipfile.ZipInfo(name, _STORED_AT)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    jar.writestr(entry, content)
