"""Where the pieces of Flink lie: the distribution, the connectors, the compiler, the runtime.

Flink comes in one wheel, ``apache-flink-libraries``, that holds nothing but Java: ``make setup``
unpacks it into the cache, apart from the platform's own environment, whose packages it would
clash with if it were installed there with PyFlink.
"""

from collections.abc import Mapping
from pathlib import Path

from millrace.errors import SetupError
from resources.jvm.jars import cached
from resources.jvm.java import find_java

FLINK_VERSION = "2.2.1"


def flink_home(cache: Path) -> Path:
    """Return the distribution's root, with ``lib``, ``opt`` and ``plugins``.

    Raises:
        SetupError: it is not installed.
    """
    home = cache / "flink" / FLINK_VERSION / "pyflink"
    if not (home / "lib" / f"flink-dist-{FLINK_VERSION}.jar").exists():
        raise SetupError(
            f"Flink {FLINK_VERSION} is not installed", where=str(home), fix="make setup"
        )
    return home


def flink_lib(cache: Path) -> Path:
    """Return the folder of Flink's own jars.

    Raises:
        SetupError: it is not installed.
    """
    return flink_home(cache) / "lib"


def connector_jars(cache: Path) -> tuple[Path, ...]:
    """Return the jars that both of Flink's processes load beside their own.

    Raises:
        SetupError: one is not in the cache.
    """
    return cached(cache, "flink")


def ecj_jar(cache: Path) -> Path:
    """Return the Java compiler, a program in one jar, for the bundled runtime has none.

    Raises:
        SetupError: it is not in the cache.
    """
    (jar,) = cached(cache, "build")
    return jar


def java_executable(environ: Mapping[str, str] | None = None) -> Path:
    """Return the ``java`` command; ``environ`` defaults to the process environment.

    Raises:
        SetupError: there is none.
    """
    return find_java(environ).executable
