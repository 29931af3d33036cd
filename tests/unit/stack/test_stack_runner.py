"""One part and its programs: ready, dead, given up, stopped."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import pytest

from millrace.errors import SetupError
from stack.files import Order, Record, StackFiles
from stack.parts import Context, Launch, Part, Readiness
from stack.processes import Identity
from stack.runner import RestartPolicy, Runner
from tests.support.stack_fakes import log_text, part

_LIVES = "import time; time.sleep(600)"
_FAST = RestartPolicy(first_wait_s=0.01, longest_wait_s=0.05, most_deaths=3, early_s=60)


@dataclass
class Driven:
    """A runner and every record it published."""

    runner: Runner
    records: list[Record] = field(default_factory=list)

    def until(self, condition: Callable[[Record], bool]) -> Record:
        deadline = time.monotonic() + 20
        while not condition(self.runner.record):
            assert time.monotonic() < deadline, self.runner.record
            self.runner.tick()
        return self.runner.record


@pytest.fixture
def drive(tmp_path: Path) -> Iterator["Drive"]:
    started: list[Driven] = []

    def start(one: Part, policy: RestartPolicy = _FAST) -> Driven:
        driven: list[Record] = []
        runner = Runner(
            one, StackFiles(tmp_path), Record(), lambda _, record: driven.append(record), policy
        )
        runner.wanted = Order({"MILLRACE_HOME": str(tmp_path)})
        started.append(Driven(runner, driven))
        return started[-1]

    yield start
    for driven in started:
        driven.runner.wanted = None
        driven.until(lambda record: not record.programs)


class Drive(Protocol):
    """Starts to drive a part; it is stopped when the test ends."""

    def __call__(self, one: Part, policy: RestartPolicy = ...) -> Driven: ...


def _kill(driven: Driven) -> None:
    os.kill(driven.runner.record.programs["only"].pid, signal.SIGKILL)
    deaths = driven.runner.record.restarts
    driven.until(lambda record: record.restarts > deaths)


def test_a_part_starts_and_runs(drive: Drive) -> None:
    driven = drive(part(_LIVES))
    record = driven.until(lambda record: record.state == "running")
    assert list(record.programs) == ["only"]
    assert record.programs["only"].is_alive
    assert {r.state for r in driven.records[:-1]} == {"starting"}


def test_every_program_is_written_down_before_the_next_step(drive: Drive) -> None:
    driven = drive(part(_LIVES))
    driven.until(lambda record: bool(record.programs))
    assert driven.records[-1].programs == driven.runner.record.programs


def test_a_program_that_dies_is_started_again(drive: Drive) -> None:
    driven = drive(part(_LIVES))
    first = driven.until(lambda record: record.state == "running").programs["only"]
    os.kill(first.pid, signal.SIGKILL)
    record = driven.until(lambda r: r.state == "running" and r.programs["only"] != first)
    assert record.restarts == 1


def test_a_part_whose_program_keeps_dying_has_failed(drive: Drive, tmp_path: Path) -> None:
    driven = drive(part("print('no such table'); raise SystemExit(3)"))
    record = driven.until(lambda record: record.state == "failed")
    assert record.detail == "only died 3 times within 60 s of its start; given up"
    assert log_text(tmp_path, "one-only").splitlines() == ["no such table"] * 3
    driven.runner.tick()
    assert driven.runner.record == record


def test_a_program_that_is_killed_after_it_was_healthy_is_always_started_again(
    drive: Drive,
) -> None:
    driven = drive(part(_LIVES), replace(_FAST, early_s=0))
    for _ in range(2 * _FAST.most_deaths):
        driven.until(lambda record: record.state == "running")
        _kill(driven)
    record = driven.until(lambda record: record.state == "running")
    assert record.restarts == 2 * _FAST.most_deaths


def test_a_new_request_tries_a_failed_part_again(drive: Drive) -> None:
    driven = drive(part("raise SystemExit(3)"))
    driven.until(lambda record: record.state == "failed")
    assert driven.runner.wanted is not None
    driven.runner.wanted = replace(driven.runner.wanted, request=1)
    driven.until(lambda record: record.state == "starting")
    driven.until(lambda record: record.state == "failed")


def test_a_part_that_cannot_be_described_says_why(drive: Drive) -> None:
    def describe(_: Context) -> Launch:
        raise SetupError("no Java", where="JAVA_HOME", fix="make setup")

    record = drive(Part("one", describe)).until(lambda record: record.state == "failed")
    assert record.detail == "JAVA_HOME: no Java\n  fix: make setup"


def test_a_command_that_does_not_exist_is_named(drive: Drive) -> None:
    whole = part(_LIVES)

    def describe(context: Context) -> Launch:
        launch = whole.describe(context)
        return replace(launch, programs=(replace(launch.programs[0], argv=("/no/such",)),))

    record = drive(replace(whole, describe=describe)).until(lambda r: r.state == "failed")
    assert record.detail.startswith("cannot start /no/such: ")


def test_a_broken_part_keeps_its_programs_and_mends_itself(drive: Drive, tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    whole = part(_LIVES)

    def look() -> Readiness:
        return Readiness(mended.exists(), "code does not load", is_broken=not mended.exists())

    def describe(context: Context) -> Launch:
        return replace(whole.describe(context), probe=look)

    driven = drive(replace(whole, describe=describe))
    broken = driven.until(lambda record: record.state == "failed")
    assert broken.detail == "code does not load"
    assert broken.programs["only"].is_alive
    mended.touch()
    record = driven.until(lambda record: record.state == "running")
    assert record.programs == broken.programs


def test_what_a_program_started_is_stopped_with_it(drive: Drive, tmp_path: Path) -> None:
    driven = drive(
        part(
            "import os, signal, subprocess, sys, time\n"
            "code = 'import signal, time; signal.signal(15, signal.SIG_IGN); "
            "print(1, flush=True); time.sleep(600)'\n"
            "child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)\n"
            "child.stdout.readline()\n"
            "print(child.pid, flush=True)\n"
            "time.sleep(600)"
        )
    )
    driven.until(lambda record: record.state == "running")
    driven.until(lambda _: log_text(tmp_path, "one-only").endswith("\n"))
    child = Identity.of(int(log_text(tmp_path, "one-only")))
    assert child is not None
    driven.runner.wanted = None
    driven.until(lambda record: record.state == "stopped")
    driven.until(lambda _: not child.is_alive)


def test_a_program_waits_for_what_it_starts_after_and_says_so(drive: Drive, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    whole = part(_LIVES)

    def look() -> Readiness:
        return Readiness(gate.exists(), "waiting for the gate")

    def describe(context: Context) -> Launch:
        (first,) = whole.describe(context).programs
        second = replace(first, name="second", starts_after=look)
        return replace(whole.describe(context), programs=(first, second))

    driven = drive(replace(whole, describe=describe))
    driven.until(lambda record: record.detail == "waiting for the gate")
    assert driven.runner.record.state == "starting"
    assert "second" not in driven.runner.record.programs
    gate.touch()
    driven.until(lambda record: record.state == "running" and "second" in record.programs)


def test_a_program_that_cannot_be_prepared_says_why(drive: Drive) -> None:
    def refuse() -> None:
        raise SetupError("another cluster's folder", where="/data", fix="remove it")

    whole = part(_LIVES)

    def describe(context: Context) -> Launch:
        launch = whole.describe(context)
        return replace(launch, programs=(replace(launch.programs[0], prepare=refuse),))

    record = drive(replace(whole, describe=describe)).until(lambda r: r.state == "failed")
    assert record.detail == "/data: another cluster's folder\n  fix: remove it"


def test_a_fixed_port_never_moves(drive: Drive) -> None:
    whole = part(_LIVES)

    def describe(context: Context) -> Launch:
        context.fixed_port("broker")
        return whole.describe(context)

    driven = drive(replace(whole, describe=describe))
    port = driven.until(lambda record: record.state == "running").ports["broker"]
    with socket.create_server(("127.0.0.1", port)):
        _kill(driven)
        failed = driven.until(lambda record: record.state == "failed")
        assert f"port {port}, where clients look for it, is taken" in failed.detail
        assert f"ss -ltnp 'sport = :{port}'" in failed.detail
    assert driven.runner.wanted is not None
    driven.runner.wanted = replace(driven.runner.wanted, request=1)
    again = driven.until(lambda record: record.state == "running")
    assert again.ports["broker"] == port


def test_clients_keep_the_address_while_one_of_two_programs_comes_back(
    drive: Drive, tmp_path: Path
) -> None:
    whole = part(_LIVES)

    def describe(context: Context) -> Launch:
        (first,) = whole.describe(context).programs
        second = replace(first, name="second")
        return replace(whole.describe(context), programs=(first, second), url="http://one")

    driven = drive(replace(whole, describe=describe))
    record = driven.until(lambda record: record.state == "running")
    driven.records.clear()
    os.kill(record.programs["second"].pid, signal.SIGKILL)
    driven.until(lambda r: r.restarts == 1 and r.state == "running")
    assert all(one.was_ready for one in driven.records)
    os.kill(record.programs["only"].pid, signal.SIGKILL)
    driven.until(lambda r: r.restarts == 2 and r.state == "running")
    assert list(driven.runner.record.programs) == ["only", "second"]
    os.kill(driven.runner.record.programs["only"].pid, signal.SIGKILL)
    os.kill(driven.runner.record.programs["second"].pid, signal.SIGKILL)
    driven.until(lambda r: not r.programs)
    assert not driven.runner.record.was_ready
