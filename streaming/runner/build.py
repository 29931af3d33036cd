"""The jar of the stream jobs, made from the sources beside this file.

``millrace.flink.SqlRunner`` and the functions that SQL lacks are compiled by Eclipse's compiler,
one jar that runs on any Java, so a bare machine needs no JDK. The same sources give the same
bytes, wherever and whenever they are built.
"""

import hashlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from millrace.errors import SetupError
from resources.flink_distribution import connector_jars, ecj_jar, flink_lib, java_executable
from resources.settings import Settings

SOURCES = Path(__file__).parent / "src"
JAR_NAME = "millrace-flink-runner.jar"
ENTRY_CLASS = "millrace.flink.SqlRunner"

_RELEASE = "17"
_TIMEOUT_S = 120
_STORED_AT = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip archive can hold, given to every entry."""
_MANIFEST = "META-INF/MANIFEST.MF"
_MANIFEST_TEXT = f"Manifest-Version: 1.0\r\nMain-Class: {ENTRY_CLASS}\r\n\r\n"


def ensure_runner_jar(settings: Settings) -> Path:
    """Return the jar, built now unless the cache has it.

    Raises:
        SetupError: Flink, the compiler or a Java is not installed, or the build failed.
    """
    cache = settings.cache
    libraries = [*sorted(flink_lib(cache).glob("*.jar")), *connector_jars(cache)]
    return runner_jar(cache, libraries, ecj_jar(cache), java_executable())


def runner_jar(cache: Path, libraries: Sequence[Path], ecj: Path, java: Path) -> Path:
    """Build the jar, or find it built: ``<cache>/runner/<hash of all that enters it>/…jar``.

    Safe to call from several processes at once.

    Args:
        cache: where it is kept.
        libraries: the jars to compile against, Flink's and its connectors'.
        ecj: the compiler's jar.
        java: the command that runs it.

    Raises:
        SetupError: the sources do not compile, or the cache cannot be written.
    """
    target = cache / "runner" / _identity(libraries, ecj) / JAR_NAME
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            classes = Path(folder) / "classes"
            _compile(classes, libraries, ecj, java)
            _pack(classes, Path(folder) / JAR_NAME)
            (Path(folder) / JAR_NAME).replace(target)
    except OSError as error:
        raise SetupError(
            f"the jar of the stream jobs cannot be written: {error.strerror}",
            where=str(target.parent),
            fix="set MILLRACE_CACHE to a folder you can write to",
        ) from error
    return target


def _identity(libraries: Sequence[Path], ecj: Path) -> str:
    digest = hashlib.sha256()
    for name in (_RELEASE, ecj.name, *(library.name for library in libraries), _MANIFEST_TEXT):
        digest.update(f"{name}\n".encode())
    for path in (*_sources(), *_services()):
        digest.update(f"{path.relative_to(SOURCES).as_posix()}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    return sorted(SOURCES.rglob("*.java"))


def _services() -> list[Path]:
    """Return the files by which Flink finds what the jar brings to it."""
    return sorted((SOURCES / "META-INF" / "services").iterdir())


def _compile(classes: Path, libraries: Sequence[Path], ecj: Path, java: Path) -> None:
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
        *map(str, _sources()),
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
            f"the stream jobs' functions do not compile:\n{(run.stdout + run.stderr)[-2000:]}",
            where=str(SOURCES),
            fix="restore the sources, or make setup if Flink or the compiler is another version",
        )


def _pack(classes: Path, target: Path) -> None:
    """Write the archive with its entries in order and without times, so that bytes repeat."""
    with zipfile.ZipFile(target, "w") as jar:
        _store(jar, _MANIFEST, _MANIFEST_TEXT.encode())
        for path in _services():
            _store(jar, path.relative_to(SOURCES).as_posix(), path.read_bytes())
        for path in sorted(classes.rglob("*.class"), key=lambda p: p.relative_to(classes).parts):
            _store(jar, path.relative_to(classes).as_posix(), path.read_bytes())


def _store(jar: zipfile.ZipFile, name: str, content: bytes) -> None:
    # Not deflated: the bytes of that depend on the zlib at hand.
    entry = zipfile.ZipInfo(name, _STORED_AT)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    jar.writestr(entry, content)
