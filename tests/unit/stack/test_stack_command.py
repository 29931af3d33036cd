"""``millrace up``, ``down``, ``status`` and ``logs`` as commands; nothing real is started."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from cli import stack as commands
from lineage.outbox import Outbox, Receiver
from millrace.errors import SetupError
from resources.settings import settings_from_env
from stack.control import Stack
from tests.support.stack_fakes import CATALOGUE


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[typer.Typer]:
    """The commands, over a stack of small parts."""
    env = {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_CACHE": str(tmp_path / "cache")}
    stack = Stack(settings_from_env(env), catalogue=CATALOGUE)
    monkeypatch.setattr(commands, "_stack", lambda: stack)
    app = typer.Typer()
    commands.register(app)
    yield app
    stack.down()


def _run(app: typer.Typer, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_up_status_logs_and_down_tell_what_happens(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_LAEK", "/lake")
    started = _run(app, "up")
    assert started.exit_code == 0
    assert "MILLRACE_LAEK is set, and nothing reads it" in started.stderr
    assert "fix: did you mean MILLRACE_LAKE?" in started.stderr
    assert "web: running" in started.stderr
    assert "http://127.0.0.1:" in started.stdout

    again = _run(app, "up", "web")
    assert "web: runs already" in again.stderr
    assert again.stderr.endswith("nothing to do\n")

    shown = json.loads(_run(app, "status", "--json").stdout)
    assert shown["home"] == str(tmp_path / "home")
    assert set(shown["parts"]["web"]) == {"state", "pid", "url"}
    assert set(shown["parts"]["pair"]["pids"]) == {"left", "right"}

    assert "sleeping" in _run(app, "logs", "pair").stdout
    assert "supervising" in _run(app, "logs", "supervisor", "-n", "100").stdout
    assert _run(app, "down").stderr.endswith("stopped: web, pair\n")
    assert _run(app, "down").stderr.endswith("nothing was running\n")


def test_status_before_the_first_up_shows_every_part_stopped(app: typer.Typer) -> None:
    shown = json.loads(_run(app, "status", "--json").stdout)
    assert shown["parts"] == {"web": {"state": "stopped"}, "pair": {"state": "stopped"}}


def test_an_unknown_part_is_refused_by_up_and_logs(app: typer.Typer) -> None:
    for command in ("up", "logs"):
        refused = _run(app, command, "pear")
        assert isinstance(refused.exception, SetupError)
        assert "'pair'" in refused.exception.fix


def test_logs_of_a_part_never_started_say_so(app: typer.Typer) -> None:
    assert "web has no log yet" in _run(app, "logs", "web").stderr


def test_a_flink_that_is_stopped_on_purpose_fails_no_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"MILLRACE_HOME": str(tmp_path / "home"), "MILLRACE_CACHE": str(tmp_path / "cache")}
    other = {**env, "MILLRACE_VIEWS": str(tmp_path / "views")}
    stacks = [
        Stack(settings_from_env(one), catalogue="tests.support.stack_fakes:parts_with_a_flink")
        for one in (env, other)
    ]
    outbox = Outbox.of(stacks[0].settings)
    monkeypatch.setattr(commands, "_stack", lambda: stacks[0])
    app = typer.Typer()
    commands.register(app)

    def open_streams(job: str) -> list[str]:
        outbox.start(job, f"stream:spend:{job}", {"run": {"runId": job, "facets": {}}})
        return [run.run_id for run in outbox.open_runs()]

    try:
        _run(app, "up")
        assert open_streams("a") == ["a"]
        stacks.reverse()
        assert "restarted" in _run(app, "up").stderr
        assert open_streams("b") == ["b"]
    finally:
        _run(app, "down")
    assert outbox.open_runs() == []
    states = [json.loads(one.body).get("eventType") for one in outbox.waiting(Receiver("x"), 9)]
    assert states == [None, "ABORT", None, "ABORT"]
