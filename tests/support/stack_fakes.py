"""Small parts for tests of the stack: they start in a moment and hold a port or nothing."""

import json
import os
import sys
from pathlib import Path

from resources.endpoints import FILE_NAME, start_mark
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.ports import is_answering

CATALOGUE = "tests.support.stack_fakes:parts"

_SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("serving", flush=True)
while True:
    server.accept()[0].close()
"""
_SLEEP = "import time; print('sleeping', flush=True); time.sleep(600)"


def python(name: str, code: str, *arguments: str, context: Context) -> Program:
    """Return a program that runs a line of Python."""
    argv = (sys.executable, "-c", code, *arguments)
    return Program(name, argv, context.environ, context.settings.home / "work")


def _web(context: Context) -> Launch:
    port = context.port("web")
    return Launch(
        programs=(python("server", _SERVE, str(port), context=context),),
        url=f"http://127.0.0.1:{port}",
        endpoint=f"http://:{context.token}@127.0.0.1:{port}",
        probe=lambda: READY if is_answering(port) else Readiness(False, "waiting"),  # noqa: FBT003
    )


def _pair(context: Context) -> Launch:
    programs = tuple(python(name, _SLEEP, context=context) for name in ("left", "right"))
    return Launch(programs=programs, url="", probe=lambda: READY)


def _stuck(context: Context) -> Launch:
    code = "print('cannot find the thing', flush=True)\n" + _SLEEP
    waiting = Readiness(is_ready=False, detail="waiting for the thing")
    return Launch((python("only", code, context=context),), "", lambda: waiting)


def parts() -> tuple[Part, ...]:
    """List the parts; ``web`` is restarted for another lake, ``pair`` for nothing."""
    return (
        Part("web", _web, ("MILLRACE_LAKE",), start_timeout_s=30, stop_timeout_s=5),
        Part("pair", _pair, start_timeout_s=30, stop_timeout_s=5),
    )


def parts_with_a_stuck_one() -> tuple[Part, ...]:
    """List a part that lives and never gets ready."""
    return (Part("stuck", _stuck, start_timeout_s=1, stop_timeout_s=5),)


def parts_of_which_one_needs_another() -> tuple[Part, ...]:
    """List a part and one that needs it and takes a moment to stop; a third is alone."""
    slow = (
        "import signal, sys, time\n"
        "def leave(*_):\n"
        "    time.sleep(0.3)\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('ready', flush=True)\n" + _SLEEP
    )

    def user(context: Context) -> Launch:
        log = context.settings.home / "logs" / "user-only.log"
        program = python("only", slow, context=context)
        is_ready = lambda: Readiness(log.exists() and log.stat().st_size > 0)  # noqa: E731
        return Launch((program,), "", is_ready)

    return (Part("base", _pair), Part("user", user, needs=("base",)), Part("alone", _pair))


def parts_that_read_declarations() -> tuple[Part, ...]:
    """List a part that is restarted for other folders of declarations."""
    return (Part("reader", _pair, ("MILLRACE_VIEWS",), stop_timeout_s=5),)


def parts_with_a_flink() -> tuple[Part, ...]:
    """List a part of Flink's name, restarted for other folders of declarations."""
    return (Part("flink", _pair, ("MILLRACE_VIEWS",), stop_timeout_s=5),)


def part(describe_code: str, *, probe: Readiness = READY) -> Part:
    """Return a part with one program that runs the code."""

    def describe(context: Context) -> Launch:
        program = python("only", describe_code, context=context)
        return Launch(programs=(program,), url="", probe=lambda: probe)

    return Part("one", describe, stop_timeout_s=5)


def pretend_running(home: Path, *names: str, **urls: str) -> None:
    """Write the endpoints of parts that run, all of them as the process of the test."""
    found = {**dict.fromkeys(names, "http://127.0.0.1:1"), **urls}
    process = {"pid": os.getpid(), "started": start_mark(os.getpid())}
    entries = {name: {"url": url, **process} for name, url in found.items()}
    home.mkdir(parents=True, exist_ok=True)
    (home / FILE_NAME).write_text(json.dumps(entries), encoding="utf-8")


def log_text(home: Path, name: str) -> str:
    """Return the whole log of a program."""
    return (home / "logs" / f"{name}.log").read_text(encoding="utf-8")
