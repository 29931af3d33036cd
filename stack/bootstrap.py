"""From a checkout and Python to an installed platform; needs nothing but the standard library.

    python3 stack/bootstrap.py

Installs a pinned uv into the cache, lets it build ``.venv`` from ``uv.lock`` and unpack Flink, and
fetches the engines' jars. Run again it looks for a moment and does nothing; interrupted, it goes on. It writes
to the checkout's ``.venv`` and to ``MILLRACE_CACHE`` alone.

This file is read by whatever ``python3`` a machine has, before its version is known: it keeps to
what Python 3.7 can parse.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UV_VERSION = "0.13.8"
FLINK_VERSION = "2.2.1"
OLDEST, NEWEST = (3, 11), (3, 14)

# Measured from an empty cache on Linux x86-64; other platforms differ by a tenth.
DOWNLOAD_MB = 1180
DISK_MB = 3500

_FLINK_LOCK = "stack/flink-requirements.txt"
_LOCKS = (
    "uv.lock",
    "pyproject.toml",
    "sdk/python/pyproject.toml",
    "stack/jars.lock",
    _FLINK_LOCK,
)


class Trouble(Exception):
    """What is wrong and how to mend it, in words for the terminal."""


def main() -> int:
    """Install what is missing; exit code 1 with a message if that is impossible."""
    try:
        use_fit_python()
        set_up(ROOT, cache_folder())
    except Trouble as trouble:
        sys.stderr.write(f"setup: {trouble}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nsetup: interrupted; the same command goes on from here\n")
        return 130
    return 0


def set_up(root: Path, cache: Path) -> None:
    """Bring the checkout at ``root`` up to its locks; at once done if nothing is missing."""
    stamp = root / ".venv" / ".millrace-setup"
    expected = fingerprint(root, cache)
    if _is_done(stamp, expected, root, cache):
        return
    _announce(root, cache)
    uv = install_uv(cache)
    _sync(uv, root, cache)
    install_flink(uv, root, cache)
    fetch = [str(_venv_python(root)), "-m", "stack.jars", "fetch"]
    _run(fetch, root, {"MILLRACE_CACHE": str(cache)})
    stamp.write_text(expected, encoding="utf-8")
    _say("ready: .venv/bin/millrace --help")


def use_fit_python() -> None:
    """Go on in another Python of this machine if this one is too old or too new."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and subprocess.call([found, "-c", ""], stderr=subprocess.DEVNULL) == 0:
            os.execv(found, [found, str(Path(__file__).resolve()), *sys.argv[1:]])  # noqa: S606
    raise Trouble(
        f"{sys.executable} is Python {_dotted(sys.version_info[:2])}; {_dotted(OLDEST)} to "
        f"{_dotted(NEWEST)} is needed, and none is on the PATH\n"
        "  fix: install one (Debian: apt-get install python3.11 python3.11-venv), or name it: "
        "make setup PYTHON=/path/to/python3.11"
    )


def _dotted(version: tuple[int, ...]) -> str:
    return f"{version[0]}.{version[1]}"


def cache_folder() -> Path:
    """Return the setting ``cache``, or its default below the user's cache folder; made if absent."""
    chosen = os.environ.get("MILLRACE_CACHE") or _cache_of_the_file()
    if chosen:
        cache = Path(chosen).absolute()
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        cache = Path(base) / "millrace"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if not os.access(str(cache), os.W_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        raise Trouble(
            f"the cache {cache} cannot be used: {error.strerror}\n"
            "  fix: export MILLRACE_CACHE=/a/folder/you/can/write/to"
        ) from error
    return cache


def _cache_of_the_file() -> str | None:
    """Return the cache that ``millrace.toml`` names, or its profile; None if neither does."""
    sys.path.insert(0, str(ROOT))
    from resources.configuration.toml_file import PROFILE, UnreadableFile, locate, read

    path = locate(os.environ, Path.cwd())
    if path is None:
        return None
    try:
        file = read(path)
    except UnreadableFile as error:
        raise Trouble(f"{error}\n  fix: mend it, or export MILLRACE_CONFIG= for none") from error
    of_profile = file.profiles.get(os.environ.get(PROFILE, ""), {})
    named = of_profile.get("cache", file.base.get("cache"))
    return str(path.parent / named) if isinstance(named, str) else None


def fingerprint(root: Path, cache: Path) -> str:
    """Return a hash of all that the installation is made from."""
    digest = hashlib.sha256()
    for name in _LOCKS:
        digest.update((root / name).read_bytes())
    for word in (UV_VERSION, str(cache), str(root), sys.version, sysconfig.get_platform()):
        digest.update(word.encode() + b"\0")
    return digest.hexdigest()


def _is_done(stamp: Path, expected: str, root: Path, cache: Path) -> bool:
    try:
        if stamp.read_text(encoding="utf-8") != expected:
            return False
        lock = json.loads((root / "stack" / "jars.lock").read_text(encoding="utf-8"))
        return (
            os.access(str(_venv_python(root)), os.X_OK)
            and _flink_proof(cache).exists()
            and all(_has(cache, jar) for jar in lock["jars"])
        )
    except (OSError, ValueError, KeyError):
        return False


def _has(cache: Path, jar: dict[str, Any]) -> bool:
    _, artifact, version = jar["coordinate"].split(":")
    path = cache / "jars" / str(jar["sha256"]) / f"{artifact}-{version}.jar"
    size_bytes: int = jar["size_bytes"]
    return path.stat().st_size == size_bytes


def _announce(root: Path, cache: Path) -> None:
    free_mb = shutil.disk_usage(str(cache)).free // 1_000_000
    if (cache / "uv-cache").exists():
        _say(f"bringing .venv up to date; what is new is downloaded into {cache}")
        return
    _say(f"first setup, with Python {sys.version.split()[0]}")
    _say(f"  downloads   about {DOWNLOAD_MB} MB: uv, 175 Python packages (Spark alone 450 MB,")
    _say("              a Java runtime 34 MB), Flink (313 MB), 50 jars (69 MB: Kafka, Delta Lake)")
    _say(f"  disk        about {DISK_MB / 1000:.1f} GB of {free_mb / 1000:.1f} GB free")
    _say(f"  written to  {root / '.venv'} and {cache}, nowhere else")
    if free_mb < DISK_MB:
        raise Trouble(
            f"too little space: {free_mb} MB free at {cache}, {DISK_MB} MB needed\n"
            "  fix: free some, or set MILLRACE_CACHE to a larger disk"
        )


def install_uv(cache: Path) -> Path:
    """Return the pinned uv, installing it into the cache if it is not there.

    It comes from the machine's own package index, by whichever of three ways the machine has: a
    virtual environment of its own, pip itself, or a uv already on the PATH.
    """
    folder = cache / "uv" / UV_VERSION
    uv = folder / "bin" / "uv"
    if uv.exists():
        return uv
    scratch = cache / "uv" / f".new-{os.getpid()}"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    _say(f"installing uv {UV_VERSION} (25 MB)")
    pip = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    package = f"uv=={UV_VERSION}"
    tried: list[str] = []
    if _attempt([sys.executable, "-m", "venv", str(scratch)], tried):
        _attempt_to_fetch([str(scratch / "bin" / "python"), *pip, package], tried)
    if not (scratch / "bin" / "uv").exists():
        shutil.rmtree(str(scratch), ignore_errors=True)
        _attempt_to_fetch([sys.executable, *pip, "--target", str(scratch), package], tried)
    if (scratch / "bin" / "uv").exists():
        _put_in_place(scratch, folder, uv)
        return uv
    shutil.rmtree(str(scratch), ignore_errors=True)
    own = shutil.which("uv")
    if own:
        _say(f"  that failed; using the uv on the PATH, {own}")
        return Path(own)
    reasons = "\n".join(f"  {line}" for line in tried)
    trust = _trust()
    if trust.is_untrusted(reasons):
        raise Trouble(f"uv cannot be installed:\n{reasons}\n  fix: {trust.MEND}")
    raise Trouble(
        f"uv cannot be installed:\n{reasons}\n"
        "  fix: if venv or pip is missing, `apt-get install python3-venv` (Debian, Ubuntu); if the "
        f"network is, see PIP_INDEX_URL and HTTPS_PROXY; or put a uv {UV_VERSION} on the PATH"
    )


def install_flink(uv: Path, root: Path, cache: Path) -> None:
    """Unpack Flink's wheel into the cache if it is not there, whatever Python runs.

    The wheel holds Java alone. It is not a dependency of the platform: PyFlink's pins would hold
    back a dozen of its packages.
    """
    proof = _flink_proof(cache)
    if proof.exists():
        return
    folder = cache / "flink" / FLINK_VERSION
    scratch = cache / "flink" / f".new-{os.getpid()}"
    _say(f"installing Flink {FLINK_VERSION} (313 MB)")
    options = ["--no-deps", "--require-hashes", "--no-build", "--target", str(scratch)]
    python = ["--python", str(_venv_python(root))]
    command = [str(uv), "pip", "install", "--quiet", *options, *python, "-r", _FLINK_LOCK]
    try:
        _run(command, root, _uv_settings(root, cache))
        _put_in_place(scratch, folder, proof)
    finally:
        shutil.rmtree(str(scratch), ignore_errors=True)


def _flink_proof(cache: Path) -> Path:
    libraries = cache / "flink" / FLINK_VERSION / "pyflink" / "lib"
    return libraries / f"flink-dist-{FLINK_VERSION}.jar"


def _put_in_place(scratch: Path, folder: Path, proof: Path) -> None:
    try:
        scratch.rename(folder)
    except OSError:
        # Another setup was faster, or an earlier one left half a folder.
        if not proof.exists():
            shutil.rmtree(str(folder), ignore_errors=True)
            scratch.rename(folder)
        shutil.rmtree(str(scratch), ignore_errors=True)


def _attempt_to_fetch(command: list[str], tried: list[str]) -> None:
    """Run pip; a pip that knows no certificate store is told of the machine's when it needs it."""
    trust = _trust()
    environ = {**os.environ, **trust.environment_of_tools(os.environ)}
    if _attempt(command, tried, environ) or "PIP_CERT" in environ:
        return
    bundle = trust.machines_bundle()
    if bundle and trust.is_untrusted(tried[-1]):
        _attempt(command, tried, {**environ, "PIP_CERT": bundle})


def _trust() -> Any:
    sys.path.insert(0, str(ROOT))
    from stack import trust

    return trust


def _attempt(command: list[str], tried: list[str], environ: dict[str, str] | None = None) -> bool:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env=environ
    )
    if done.returncode != 0:
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        # pip ends with "no matching distribution", whatever it was.
        emitting = next((line for line in lines if _trust().is_untrusted(line)), lines[-1])
        tried.append(f"{' '.join(command[:3])}: {emitting}")
    return done.returncode == 0


def _sync(uv: Path, root: Path, cache: Path) -> None:
    # Where Python may not write beside its sources (PYTHONDONTWRITEBYTECODE) every process would
    # compile them anew: the demo then took 331 s instead of 289.
    _run([str(uv), "sync", "--locked", "--compile-bytecode"], root, _uv_settings(root, cache))


def _uv_settings(root: Path, cache: Path) -> dict[str, str]:
    return {
        "UV_CACHE_DIR": str(cache / "uv-cache"),
        "UV_PYTHON": sys.executable,
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_PYTHON_INSTALL_DIR": str(cache / "uv-python"),
        "UV_PROJECT_ENVIRONMENT": str(root / ".venv"),
        # One stalled connection should not end a setup of minutes.
        "UV_HTTP_TIMEOUT": os.environ.get("UV_HTTP_TIMEOUT", "120"),
    }


def _run(command: list[str], root: Path, settings: dict[str, str]) -> None:
    environ = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONHOME"}}
    environ.update(_trust().environment_of_tools(os.environ))
    environ.update(settings)
    code = subprocess.call(command, cwd=str(root), env=environ)
    if code != 0:
        shown = " ".join([Path(command[0]).name, *command[1:]])
        raise Trouble(
            f"`{shown}` failed (exit {code}), see above\n"
            "  fix: mend it and run the same command again; it goes on from here\n"
            f"  if a certificate is not trusted: {_trust().MEND}"
        )


def _venv_python(root: Path) -> Path:
    return root / ".venv" / "bin" / "python"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
