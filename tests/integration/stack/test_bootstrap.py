"""``stack/bootstrap.py``: what it does on machines that lack this or that, without the network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resources.flink.distribution import FLINK_VERSION, flink_home
from resources.jvm.jars import read_lock
from resources.settings import CHECKOUT
from stack import bootstrap

_NAMES = (
    "uv.lock",
    "pyproject.toml",
    "sdk/python/pyproject.toml",
    "stack/jars.lock",
    "stack/flink-requirements.txt",
)
_OWN = (
    "Makefile",
    "resources/__init__.py",
    "resources/configuration/__init__.py",
    "resources/configuration/toml_file.py",
    "stack/__init__.py",
    "stack/bootstrap.py",
    "stack/trust.py",
)
_FLINK_JAR = f"flink-dist-{FLINK_VERSION}.jar"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the setup reads, whose environment and downloads are there."""
    root = tmp_path / "checkout"
    for name in (*_NAMES, *_OWN):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, root / name)
    return root


def _run(checkout: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", checkout / "stack" / "bootstrap.py"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _install_fakes(checkout: Path, cache: Path) -> Path:
    """Put a uv into the cache that only notes its calls; return its notes."""
    notes = cache / "notes"
    uv = cache / "uv" / bootstrap.UV_VERSION / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    python = checkout / ".venv" / "bin" / "python"
    uv.write_text(
        "#!/bin/sh\n"
        f'echo "uv $1 $2 $UV_CACHE_DIR $UV_PYTHON_DOWNLOADS" >> {notes}\n'
        'while [ $# -gt 0 ]; do if [ "$1" = --target ]; then lib="$2/pyflink/lib"; fi; shift; done\n'
        f'if [ "$lib" ]; then mkdir -p "$lib"; touch "$lib/{_FLINK_JAR}"; exit; fi\n'
        f"mkdir -p {python.parent}\n"
        f"printf '#!/bin/sh\\necho \"python $*\" >> {notes}\\n' > {python}\n"
        f"chmod +x {python}\n"
    )
    uv.chmod(0o755)
    return notes


def test_setup_syncs_from_the_lock_then_fetches_and_does_nothing_twice(
    checkout: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    notes = _install_fakes(checkout, cache)
    env = {"MILLRACE_CACHE": str(cache), "PATH": os.environ["PATH"]}
    first = _run(checkout, **env)
    assert first.returncode == 0, first.stderr
    assert f"about {bootstrap.DOWNLOAD_MB} MB" in first.stderr
    assert f"written to  {checkout / '.venv'} and {cache}, nowhere else" in first.stderr
    sync = f"uv sync --locked {cache / 'uv-cache'} never"
    flink = f"uv pip install {cache / 'uv-cache'} never"
    fetch = "python -m stack.jars fetch"
    assert notes.read_text().splitlines() == [sync, flink, fetch]
    assert flink_home(cache).is_dir()
    # The fake fetched no jar, so the stamp alone is not believed.
    assert _run(checkout, **env).returncode == 0
    assert notes.read_text().splitlines() == [sync, flink, fetch, sync, fetch]
    shutil.rmtree(cache / "flink")
    assert _run(checkout, **env).returncode == 0
    assert notes.read_text().splitlines()[-3:] == [sync, flink, fetch]


def test_setup_and_platform_speak_of_the_same_flink() -> None:
    pinned = (CHECKOUT / "stack" / "flink-requirements.txt").read_text()
    assert bootstrap.FLINK_VERSION == FLINK_VERSION
    assert f"apache-flink-libraries=={FLINK_VERSION} " in pinned


def test_setup_is_silent_and_quick_when_nothing_is_missing(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    notes = _install_fakes(checkout, cache)
    for jar in read_lock():
        path = jar.path_in(cache)
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(jar.size_bytes)
    env = {"MILLRACE_CACHE": str(cache), "PATH": os.environ["PATH"]}
    _run(checkout, **env)
    calls = notes.read_text()
    again = _run(checkout, **env)
    assert (again.returncode, again.stderr, notes.read_text()) == (0, "", calls)
    (checkout / "uv.lock").write_text("another lock")
    _run(checkout, **env)
    assert len(notes.read_text()) > len(calls)


def test_the_cache_that_the_settings_file_names_is_the_setups_too(
    checkout: Path, tmp_path: Path
) -> None:
    notes = _install_fakes(checkout, tmp_path / "there")
    config = tmp_path / "millrace.toml"
    config.write_text('cache = "elsewhere"\n[profile.here]\ncache = "there"\n')
    named = {"MILLRACE_CONFIG": str(config), "MILLRACE_PROFILE": "here"}
    done = _run(checkout, **named, HOME="/dev/null", PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr
    assert f"uv sync --locked {tmp_path}/there/uv-cache never" in notes.read_text()
    config.write_text("cache = [")
    done = _run(checkout, **named, PATH=os.environ["PATH"])
    assert done.returncode == 1
    assert f"setup: {config}:1: no TOML" in done.stderr


def test_a_home_that_cannot_be_written_is_no_matter_with_a_cache(
    checkout: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    _install_fakes(checkout, cache)
    done = _run(checkout, MILLRACE_CACHE=str(cache), HOME="/dev/null", PATH=os.environ["PATH"])
    assert done.returncode == 0, done.stderr


def test_a_cache_that_cannot_be_made_is_named_with_the_way_out(checkout: Path) -> None:
    done = _run(checkout, HOME="/dev/null", PATH=os.environ["PATH"])
    assert done.returncode == 1
    assert "setup: the cache /dev/null/.cache/millrace cannot be used" in done.stderr
    assert "fix: export MILLRACE_CACHE=" in done.stderr


def test_a_sync_that_fails_is_reported_and_gone_on_with(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    _install_fakes(checkout, cache)
    uv = cache / "uv" / bootstrap.UV_VERSION / "bin" / "uv"
    working = uv.read_text()
    uv.write_text("#!/bin/sh\nexit 2\n")
    env = {"MILLRACE_CACHE": str(cache), "PATH": os.environ["PATH"]}
    failed = _run(checkout, **env)
    assert failed.returncode == 1
    assert "`uv sync --locked --compile-bytecode` failed (exit 2)" in failed.stderr
    uv.write_text(working)
    assert _run(checkout, **env).returncode == 0


def test_without_venv_and_pip_the_message_names_the_package_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "python3"
    bare.write_text("#!/bin/sh\necho 'No module named venv' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(bootstrap.Trouble) as caught:
        bootstrap.install_uv(tmp_path / "cache")
    assert "No module named venv" in str(caught.value)
    assert "apt-get install python3-venv" in str(caught.value)


def test_a_python_too_old_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2, "final", 0))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(bootstrap.Trouble, match=r"is Python 3\.9; 3\.11 to 3\.14 is needed"):
        bootstrap.use_fit_python()


def test_make_alone_lists_the_targets() -> None:
    done = subprocess.run(
        ["make", "-s"], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=30
    )
    listed = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"demo", "test", "up", "down", "setup", "check", "golden"} <= listed
