"""The parts that are this repository's own programs: writer, archive and server.

Each is started once what it works on answers, and waits for that without being a failure. They
find the other parts through the endpoints of their stack, so they outlive a restart of any of them.
"""

import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from millrace.errors import EngineUnavailable, SetupError
from resources.endpoints import kafka_bootstrap, store_url
from resources.kafka.client import is_ready
from resources.settings import CHECKOUT, Settings
from stack.parts import READY, Context, Launch, Part, Program, Readiness
from stack.ports import is_answering
from stack.variables import (
    KAFKA_ACCESS,
    LAKE_ACCESS,
    LINEAGE,
    SERVER_HOST,
    SETTINGS_FILE,
    STORE_ACCESS,
)

_LOOK_TIMEOUT_S = 2.0
_DEFAULT_STORE_PORT = 6379
_DECLARED = (*SETTINGS_FILE, "MILLRACE_HOME", "MILLRACE_VIEWS", "MILLRACE_KAFKA", KAFKA_ACCESS)


def writer_part() -> Part:
    """Return the record of the writer, which carries tiles from Kafka into the store."""
    return Part(
        name="writer",
        describe=lambda context: _loop(context, "writer", _kafka_and_store),
        variables=(*_DECLARED, "MILLRACE_STORE_URL", STORE_ACCESS),
        needs=("kafka", "store"),
        stop_timeout_s=15,
    )


def archive_part() -> Part:
    """Return the record of the archive, which judges every event and keeps it in the lake."""
    return Part(
        name="archive",
        describe=lambda context: _loop(context, "archive", _kafka),
        variables=(
            *_DECLARED,
            *("MILLRACE_LAKE", LAKE_ACCESS, "MILLRACE_DATA", *LINEAGE),
        ),
        needs=("kafka",),
        # A commit to the lake that has begun is worth waiting for.
        stop_timeout_s=30,
    )


def server_part() -> Part:
    """Return the record of the server, which answers lookups over HTTP."""
    return Part(
        name="server",
        describe=_server,
        variables=(
            *SETTINGS_FILE,
            "MILLRACE_HOME",
            "MILLRACE_STORE_URL",
            STORE_ACCESS,
            SERVER_HOST,
        ),
        needs=("store",),
        stop_timeout_s=20,
    )


def _loop(context: Context, name: str, starts_after: Callable[[Settings], Readiness]) -> Launch:
    """Describe a program that says by a file that its first round is done."""
    done = context.settings.home / name / "ready"
    program = Program(
        name=name,
        argv=(sys.executable, "-m", f"streaming.{name}"),
        env=_environ(context),
        cwd=CHECKOUT,
        starts_after=lambda: starts_after(context.settings),
        prepare=lambda: done.unlink(missing_ok=True),
    )
    return Launch(programs=(program,), url="", probe=lambda: _has_looped(done))


def _has_looped(done: Path) -> Readiness:
    return READY if done.exists() else Readiness(is_ready=False, detail="in its first round")


def _server(context: Context) -> Launch:
    port = context.port("http")
    program = Program(
        name="server",
        argv=(sys.executable, "-m", "serving"),
        env={**_environ(context), "MILLRACE_SERVER_PORT": str(port)},
        cwd=CHECKOUT,
        starts_after=lambda: _store(context.settings),
    )
    url = f"http://127.0.0.1:{port}"
    return Launch(programs=(program,), url=url, probe=lambda: _is_healthy(url))


def _environ(context: Context) -> Mapping[str, str]:
    return {**context.environ, "PYTHONUNBUFFERED": "1"}


def _is_healthy(url: str) -> Readiness:
    try:
        with urllib.request.urlopen(f"{url}/v1/health", timeout=_LOOK_TIMEOUT_S):  # noqa: S310
            return READY
    except urllib.error.HTTPError as error:
        return Readiness(is_ready=False, detail=f"its health is {error.code} {error.reason}")
    except (HTTPException, OSError):
        return Readiness(is_ready=False, detail=f"waiting for {url}")


def _kafka(settings: Settings) -> Readiness:
    try:
        if is_ready(kafka_bootstrap(settings)):
            return READY
    except EngineUnavailable:
        # Not started yet, or just being started again.
        return Readiness(is_ready=False, detail="waiting for kafka")
    except SetupError as error:
        return Readiness(is_ready=False, detail=str(error))
    return Readiness(is_ready=False, detail="waiting for kafka to answer")


def _store(settings: Settings) -> Readiness:
    try:
        place = urlsplit(store_url(settings))
    except EngineUnavailable:
        return Readiness(is_ready=False, detail="waiting for store")
    except SetupError as error:
        return Readiness(is_ready=False, detail=str(error))
    if place.hostname is None or is_answering(place.port or _DEFAULT_STORE_PORT, place.hostname):
        return READY
    return Readiness(is_ready=False, detail="waiting for store to answer")


def _kafka_and_store(settings: Settings) -> Readiness:
    store = _store(settings)
    return _kafka(settings) if store.is_ready else store
