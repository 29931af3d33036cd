"""One committer at a time: between threads, between processes, and freed by a death."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from resources.lake.lock import TableBusy, locked
from resources.settings import CHECKOUT, Settings, settings_from_env

HOLD = """
import sys
from resources.settings import settings_from_env
from resources.lake.lock import locked
with locked(settings_from_env({"MILLRACE_HOME": sys.argv[1]}), "events/a"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_from_env({"MILLRACE_HOME": str(tmp_path)})


def test_a_second_holder_is_told_who_holds_what(settings: Settings) -> None:
    with locked(settings, "events/a"):
        with locked(settings, "events/b", wait_s=0.0):
            pass
        told = pytest.raises(TableBusy, match=r"events/a\.lock[\s\S]*backfill")
        with told as caught, locked(settings, "events/a", wait_s=0.05):
            pass
    assert caught.value.retryable
    with locked(settings, "events/a", wait_s=0.0):
        pass


def test_a_waiter_gets_the_lock_when_it_is_freed(settings: Settings) -> None:
    def wait() -> str:
        with locked(settings, "events/a"):
            return "mine"

    with ThreadPoolExecutor(1) as pool:
        with locked(settings, "events/a"):
            waiting = pool.submit(wait)
        assert waiting.result(10) == "mine"


def test_a_process_that_dies_holds_nothing(settings: Settings) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(settings.home)],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(TableBusy), locked(settings, "events/a", wait_s=0.0):
        pass
    holder.kill()
    holder.wait()
    with locked(settings, "events/a", wait_s=5.0):
        pass


def test_a_lake_in_an_object_store_needs_no_lock(settings: Settings) -> None:
    far = replace(settings, lake="s3a://bucket/lake")
    with locked(far, "events/a"), locked(far, "events/a"):
        pass
    assert not (settings.home / "lake").exists()
