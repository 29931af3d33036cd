"""Fixtures shared by all tests: one real Spark per run, a lake of its own per test."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from resources.settings import CHECKOUT, Settings, settings_from_env
from resources.spark.session import forget_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A shared machine is slow at times; slowness is never what these tests are about. The same few
# examples each time, so that a run tells of the change before it; `make soak` looks for new ones.
hypothesis_settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    max_examples=40,
)
hypothesis_settings.register_profile(
    "thorough",
    parent=hypothesis_settings.get_profile("default"),
    derandomize=False,
    max_examples=1000,
)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Tests tell nobody what they build, but for those that are about telling.
os.environ.setdefault("MILLRACE_LINEAGE", "none")

# No engine of a test lives long enough to earn back what optimizing its code costs.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def _group(item: pytest.Function) -> str:
    """What one worker runs as a whole: the tests of one shared stack, else those of one file."""
    named = item.get_closest_marker("xdist_group")
    if named is not None:
        return str(named.args[0])
    if item.path.parent.name == "faults":
        return "faults"
    shared = ("live_stack", "spark_stack")
    return next((name for name in shared if name in item.fixturenames), item.path.name)


def _place(item: pytest.Function) -> tuple[int, bool]:
    """The longest groups first, so that no worker ends with one alone; tests of no server last.

    What is done on the stack that is struck is done in one go: it runs until the last of them.
    """
    first = ("faults", "spark_stack", "live_stack")
    group = _group(item)
    if group in first:
        return first.index(group), "struck_stack" in item.fixturenames
    return len(first) + (item.get_closest_marker("services") is None), False


def pytest_itemcollected(item: pytest.Function) -> None:
    """Name each test's group, before xdist reads it; a test may name its own."""
    if item.get_closest_marker("xdist_group") is None:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Order the tests, and leave out those over absent shared data; no other test is skipped."""
    items.sort(key=_place)
    data = settings_from_env().data
    if data is not None and (Path(data) / "card_transactions.parquet").exists():
        return
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(pytest.mark.skip(reason="MILLRACE_DATA has no card_transactions"))


def run_millrace(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; output is captured, a failure raises with it."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=env,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"millrace {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="session")
def spark_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack whose Spark runs, for all tests of the session; nothing else is started."""
    env = {**os.environ, "MILLRACE_HOME": str(tmp_path_factory.mktemp("stack"))}
    if "MILLRACE_SPARK_REMOTE" in env:
        yield settings_from_env(env)
        return
    try:
        run_millrace("up", "spark", env=env)
        yield settings_from_env(env)
    finally:
        # A session that is still open would look for its server while Python exits.
        forget_session()
        run_millrace("down", env=env)


@pytest.fixture
def settings(spark_stack: Settings, tmp_path: Path) -> Settings:
    """The running stack with a lake, raw data and declarations of this test's own."""
    return replace(
        spark_stack,
        lake=str(tmp_path / "lake"),
        data=str(tmp_path / "data"),
        views=(tmp_path / "views",),
    )


@pytest.fixture
def spark(settings: Settings) -> "SparkSession":
    """The session with the running Spark."""
    from resources.spark.session import connect

    return connect(settings)


@pytest.fixture(scope="session")
def live_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A stack whose Kafka, Flink and store run, for all tests of the session.

    Tests share its broker and its slots: name topics, groups and views of your own, and cancel
    the jobs you submit. Nothing in it may be killed; that has a stack of its own.
    """
    own = ("MILLRACE_KAFKA", "MILLRACE_FLINK_URL", "MILLRACE_STORE_URL")
    env = {name: value for name, value in os.environ.items() if name not in own}
    env["MILLRACE_HOME"] = str(tmp_path_factory.mktemp("live"))
    try:
        run_millrace("up", "kafka", "flink", "store", env=env)
        yield settings_from_env(env)
    finally:
        run_millrace("down", env=env)
