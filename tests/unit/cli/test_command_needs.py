"""Commands that need parts of the local stack: started and told, or named with ``--no-start``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import build_app
from cli.needs import start_missing, start_needed
from millrace.errors import EngineUnavailable
from resources.endpoints import is_running
from resources.settings import settings_from_env
from stack.control import Stack
from tests.support.stack_fakes import pretend_running

STARTS_PARTS = {
    "backfill",
    "upload",
    "produce",
    "training-set",
    "lookup",
    "parity",
    "stream deploy",
    "stream restart",
}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack of small parts, of which ``user`` needs ``base``."""
    env = {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_CACHE": str(tmp_path / "cache")}
    catalogue = "tests.support.stack_fakes:parts_of_which_one_needs_another"
    stack = Stack(settings_from_env(env), catalogue=catalogue)
    yield stack
    stack.down()


def test_what_is_missing_is_started_with_what_it_needs_and_told(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    start_missing(stack, ["user"])
    told = capsys.readouterr()
    assert told.out == "", "stdout is the command's own"
    assert "base, user of the local stack do not run: starting" in told.err
    assert "user: running" in told.err
    assert [part for part in ("base", "user", "alone") if is_running(stack.settings, part)] == [
        "base",
        "user",
    ]
    pids = {one.name: dict(one.pids) for one in stack.status()}

    start_missing(stack, ["user"])
    assert capsys.readouterr().err == "", "what runs is left alone without a word"
    start_missing(stack, ["user", "alone"])
    assert "alone of the local stack does not run: starting" in capsys.readouterr().err
    assert {one.name: dict(one.pids) for one in stack.status()}["user"] == pids["user"]


def test_a_part_that_lacks_a_folder_of_declarations_is_restarted_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"

    def stack_of(*folders: Path) -> Stack:
        settings = settings_from_env({"MILLRACE_HOME": str(tmp_path / "home")})
        settings = replace(settings, views=(settings.views[0], *folders))
        return Stack(settings, catalogue="tests.support.stack_fakes:parts_that_read_declarations")

    try:
        start_missing(stack_of(one, two), ["reader"])
        capsys.readouterr()
        start_missing(stack_of(one), ["reader"])
        assert capsys.readouterr().err == "", "it reads more than this shell names"
        start_missing(stack_of(one, tmp_path / "three"), ["reader"])
        assert "reader: restarted, for MILLRACE_VIEWS differs" in capsys.readouterr().err
    finally:
        stack_of().down()


def test_with_no_start_what_is_missing_is_named_and_nothing_starts(stack: Stack) -> None:
    with pytest.raises(EngineUnavailable) as caught:
        start_missing(stack, ["user", "alone"], no_start=True)
    assert "base, user, alone of the local stack do not run" in caught.value.what
    assert caught.value.fix == "millrace up base user alone, or leave --no-start away"
    assert not stack.settings.home.exists()


def test_a_part_whose_process_died_counts_as_missing(stack: Stack) -> None:
    pretend_running(stack.settings.home, "alone")
    assert is_running(stack.settings, "alone")
    start_missing(stack, ["alone"], no_start=True)
    endpoints = stack.settings.home / "endpoints.json"
    endpoints.write_text(endpoints.read_text().replace('"started": "', '"started": "earlier '))
    with pytest.raises(EngineUnavailable):
        start_missing(stack, ["alone"], no_start=True)


def test_services_of_ones_own_are_there(tmp_path: Path) -> None:
    own = {
        "MILLRACE_KAFKA": "broker:9092",
        "MILLRACE_FLINK_URL": "http://flink:8081",
        "MILLRACE_STORE_URL": "redis://store:6379",
        "MILLRACE_SPARK_REMOTE": "sc://spark:15002",
    }
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path), **own})
    start_needed(settings, "kafka", "flink", "store", "spark", no_start=True)
    with pytest.raises(EngineUnavailable, match="writer of the local stack does not run"):
        start_needed(settings, "writer", "kafka", no_start=True)


def test_commands_that_read_or_stop_start_nothing() -> None:
    starting = {
        name
        for name, command in _commands(typer.main.get_command(build_app()))
        if any(option.name == "no_start" for option in command.params)
    }
    assert starting == STARTS_PARTS


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    inner_commands = getattr(command, "commands", None)
    if inner_commands is not None:
        for name, inner in inner_commands.items():
            yield from _commands(inner, (*path, name))
    else:
        yield " ".join(path), command
