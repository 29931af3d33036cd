"""``up``, ``down`` and ``status`` with a real supervisor and small parts, also when interrupted."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millrace.errors import EngineUnavailable, SetupError
from resources.endpoints import _endpoint
from resources.settings import settings_from_env
from stack.control import Change, PartStatus, Stack
from stack.files import Order, Record, StackFiles
from stack.processes import Identity
from stack.supervisor import Supervisor
from tests.support.stack_fakes import CATALOGUE, parts

Starter = Callable[..., Stack]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Starter]:
    made: list[Stack] = []

    def make(home: str = "home", catalogue: str = CATALOGUE, **environ: str) -> Stack:
        own = {"MILLRACE_HOME": str(tmp_path / home), "MILLRACE_CACHE": str(tmp_path / "cache")}
        whole = {**os.environ, **own, **environ}
        one = Stack(settings_from_env(whole), whole, catalogue)
        made.append(one)
        return one

    yield make
    for one in made:
        one.down()


def _up(stack: Stack, *names: str) -> tuple[Change, ...]:
    changes = stack.order(names)
    stack.wait(names)
    return changes


def _pids(stack: Stack) -> dict[str, dict[str, int]]:
    return {one.name: dict(one.pids) for one in stack.status()}


def _status(stack: Stack, name: str) -> PartStatus:
    return next(one for one in stack.status() if one.name == name)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _kill(pid: int) -> None:
    process = Identity.of(pid)
    assert process is not None
    os.kill(pid, signal.SIGKILL)
    _until(lambda: not process.is_alive)


def _kill_supervisor(stack: Stack) -> None:
    supervisor = stack.files.supervisor()
    assert supervisor is not None
    _kill(supervisor.pid)


def test_up_returns_when_all_parts_run_and_status_shows_them(stack: Starter) -> None:
    one = stack()
    told: list[PartStatus] = []
    one.order()
    one.wait(watch=told.append)
    web, pair = one.status()
    assert (web.state, pair.state) == ("running", "running")
    assert web.as_json() == {"state": "running", "pid": web.pids["server"], "url": web.url}
    assert pair.as_json() == {"state": "running", "pids": dict(pair.pids)}
    assert list(pair.pids) == ["left", "right"]
    assert 20_000 <= int(web.url.rpartition(":")[2]) < 55_536
    assert {(status.name, status.state) for status in told} >= {
        ("web", "running"),
        ("pair", "running"),
    }


def test_a_second_up_changes_nothing(stack: Starter) -> None:
    one = stack()
    _up(one)
    before = _pids(one)
    assert _up(one) == (Change("web", "kept"), Change("pair", "kept"))
    assert _pids(one) == before


def test_one_part_can_be_asked_for_and_the_other_later(stack: Starter) -> None:
    one = stack()
    _up(one, "pair")
    assert _status(one, "web").as_json() == {"state": "stopped"}
    pair = _pids(one)["pair"]
    _up(one, "web")
    assert _pids(one)["pair"] == pair


def test_an_unknown_part_is_refused_with_the_nearest_name(stack: Starter) -> None:
    with pytest.raises(SetupError, match="no part 'wep'") as caught:
        stack().order(["wep"])
    assert caught.value.fix == "did you mean 'web'?"


def test_other_settings_restart_only_the_part_they_matter_to(
    stack: Starter, tmp_path: Path
) -> None:
    one = stack()
    _up(one)
    before, url = _pids(one), _status(one, "web").url
    other = stack(MILLRACE_LAKE=str(tmp_path / "other"))
    assert _up(other) == (
        Change("web", "restarted", ("MILLRACE_LAKE",)),
        Change("pair", "kept"),
    )
    assert _pids(other)["pair"] == before["pair"]
    assert _pids(other)["web"] != before["web"]
    assert _status(other, "web").url == url
    assert {change.kind for change in _up(other)} == {"kept"}


def test_a_part_that_is_killed_comes_back_where_it_was(stack: Starter) -> None:
    one = stack()
    _up(one)
    before = _status(one, "web")
    os.kill(before.pids["server"], signal.SIGKILL)
    _until(lambda: _status(one, "web").restarts == 1 and _status(one, "web").state == "running")
    after = _status(one, "web")
    assert after.url == before.url
    assert after.pids != before.pids


def test_a_killed_supervisor_is_replaced_and_what_runs_is_kept(stack: Starter) -> None:
    one = stack()
    _up(one)
    before = _pids(one)
    _kill_supervisor(one)
    assert _status(one, "pair").detail == "the supervisor is gone; `millrace up` takes over"
    _kill(before["web"]["server"])
    assert _up(one) == (Change("web", "started"), Change("pair", "kept"))
    after = _pids(one)
    assert after["pair"] == before["pair"]
    assert after["web"]["server"] != before["web"]["server"]


def test_down_stops_everything_and_may_be_repeated(stack: Starter) -> None:
    one = stack()
    _up(one)
    programs = [Identity.of(pid) for pids in _pids(one).values() for pid in pids.values()]
    supervisor = one.files.supervisor()
    assert one.down() == ("web", "pair")
    assert not any(program is None or program.is_alive for program in (*programs, supervisor))
    assert [status.as_json() for status in one.status()] == [{"state": "stopped"}] * 2
    assert one.down() == ()


def test_down_stops_what_a_killed_supervisor_left(stack: Starter) -> None:
    one = stack()
    _up(one)
    programs = [Identity.of(pid) for pids in _pids(one).values() for pid in pids.values()]
    _kill_supervisor(one)
    assert one.down() == ("web", "pair")
    assert not any(program is None or program.is_alive for program in programs)


def test_an_up_that_was_interrupted_is_gone_on_with(stack: Starter) -> None:
    one = stack()
    one.order()
    assert _up(one)[0].kind in {"started", "kept"}
    assert {status.state for status in one.status()} == {"running"}


def test_down_ends_an_up_that_still_waits(stack: Starter) -> None:
    one = stack(catalogue="tests.support.stack_fakes:parts_with_a_stuck_one")
    one.order()
    one.down()
    with pytest.raises(EngineUnavailable, match="`millrace down` was called meanwhile"):
        one.wait()


def test_a_part_that_does_not_get_ready_is_reported_with_its_log(stack: Starter) -> None:
    one = stack(catalogue="tests.support.stack_fakes:parts_with_a_stuck_one")
    one.order()
    with pytest.raises(EngineUnavailable) as caught:
        one.wait()
    assert "stuck is not ready after 1 s: waiting for the thing" in caught.value.what
    assert "stuck-only.log\ncannot find the thing" in caught.value.what
    assert "millrace up stuck" in caught.value.fix


def test_a_supervisor_that_cannot_start_is_reported_with_its_log(
    stack: Starter, tmp_path: Path
) -> None:
    # The command finds the module, the supervisor's broken environment does not let it start.
    one = stack(PYTHONHOME=str(tmp_path))
    with pytest.raises(SetupError, match="the supervisor did not start") as caught:
        one.order()
    assert caught.value.where.endswith("supervisor.log")


def test_two_homes_do_not_see_each_other(stack: Starter) -> None:
    one, two = stack("one"), stack("two")
    _up(one)
    _up(two)
    assert _status(one, "web").url != _status(two, "web").url
    before = _pids(two)
    one.down()
    assert _pids(two) == before
    assert {status.state for status in two.status()} == {"running"}


def test_the_stack_outlives_the_session_of_the_command(stack: Starter) -> None:
    one = stack()
    code = (
        "import os, signal, sys\n"
        "from resources.settings import settings_from_env\n"
        "from stack.control import Stack\n"
        "Stack(settings_from_env(), catalogue=sys.argv[1]).order()\n"
        # Under nohup it is ignored, and that is inherited.
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "os.killpg(0, signal.SIGHUP)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, CATALOGUE],
        env=one.environ,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
        check=False,
    )
    assert done.returncode == -signal.SIGHUP
    one.wait()
    assert {status.state for status in one.status()} == {"running"}


def test_the_endpoints_are_there_before_the_state_that_names_their_parts(
    stack: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, written = stack(), []
    replace_file = StackFiles._write

    def noted(files: StackFiles, name: str, content: Mapping[str, Any]) -> None:
        written.append(name)
        replace_file(files, name, content)

    monkeypatch.setattr(StackFiles, "_write", noted)
    one.files.write_records({})
    assert written == ["endpoints.json", "state.json"]


def test_a_program_that_was_never_written_down_is_found_and_stopped(stack: Starter) -> None:
    one = stack()
    _up(one)
    left = Identity.of(_pids(one)["pair"]["left"])
    assert left is not None
    _kill_supervisor(one)
    record = one.files.read_records()["pair"]
    only_right = {"right": record.programs["right"]}
    one.files.write_records({"pair": replace(record, programs=only_right)})
    _up(one, "pair")
    assert not left.is_alive
    _until(lambda: list(_pids(one)["pair"]) == ["left", "right"])
    assert _pids(one)["pair"]["right"] == record.programs["right"].pid


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone(stack: Starter) -> None:
    one = stack()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        stale = {"server": Identity(other.pid, "of another life")}
        one.files.write_records({"web": Record(state="running", order=Order({}), programs=stale)})
        assert _status(one, "web").state == "stopped"
        one.down()
        assert other.poll() is None
        other.communicate(b"\n", timeout=20)


def test_a_stack_whose_home_is_deleted_ends(stack: Starter) -> None:
    one = stack()
    _up(one)
    programs = [Identity.of(pid) for pids in _pids(one).values() for pid in pids.values()]
    supervisor = one.files.supervisor()
    assert supervisor is not None
    # Moved first: the supervisor may write a file while the folder is being emptied.
    doomed = one.settings.home.rename(one.settings.home.with_name("doomed"))
    shutil.rmtree(doomed)
    _until(lambda: not supervisor.is_alive)
    assert not any(program is None or program.is_alive for program in programs)
    assert not one.settings.home.exists()


def test_endpoints_are_there_while_a_part_runs_and_for_the_owner_alone(stack: Starter) -> None:
    one = stack()
    _up(one, "web")
    file = one.settings.home / "endpoints.json"
    token = one.files.read_records()["web"].token
    assert _endpoint(one.settings, "web") == _status(one, "web").url.replace("//", f"//:{token}@")
    assert file.stat().st_mode & 0o077 == 0
    assert token not in json.dumps([status.as_json() for status in one.status()])
    one.down()
    with pytest.raises(EngineUnavailable) as caught:
        _endpoint(one.settings, "web")
    assert caught.value.fix == "millrace up web"


def test_what_a_part_needs_is_asked_for_with_it_and_stopped_after_it(stack: Starter) -> None:
    one = stack(catalogue="tests.support.stack_fakes:parts_of_which_one_needs_another")
    assert [(c.part, c.kind) for c in _up(one, "user")] == [
        ("base", "started"),
        ("user", "started"),
    ]
    assert _status(one, "alone").state == "stopped"
    one.down()
    log = one.files.supervisor_log.read_text(encoding="utf-8")
    assert log.index("user: stopped") < log.index("base: stopped")


def test_a_full_disk_is_said_by_the_command(
    stack: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stack()

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(SetupError) as caught:
            one.files.write_desired({})
    assert caught.value.what == "the stack's home cannot be written: No space left on device"
    assert caught.value.where == str(one.settings.home)
    assert "MILLRACE_HOME" in caught.value.fix


def test_a_record_that_cannot_be_written_ends_no_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, (web, _) = StackFiles(tmp_path), parts()
    supervisor = Supervisor(files, (web,))
    refusals = [SetupError("full")]
    write = StackFiles.write_records

    def refuse_once(*arguments: object) -> None:
        if refusals:
            raise refusals.pop()
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(StackFiles, "write_records", refuse_once)
    supervisor._publish("web", Record(state="starting"))
    assert files.read_records() == {}
    supervisor._publish("web", Record(state="failed", detail="later"))
    assert files.read_records()["web"].detail == "later"
