"""uvicorn, stopped without losing a request.

On SIGTERM or SIGINT: new connections are refused, ``/v1/ready`` says no, what is being answered is
answered, and each kept-alive connection is closed by the answer to its next request (``Connection:
close``) and not under the hands of its client. One that stays silent is closed after a while.
"""

import asyncio
import ctypes
import os
import socket
import struct
import sys
import time
from contextlib import suppress
from functools import partial

import uvicorn

from serving.fastpath import FastPath, FastProtocol
from serving.gate import GateState

SILENCE_S = 1.0
"""How long a kept-alive connection may stay silent before it is closed."""

HANDSHAKE_S = 0.2
"""How long connections that clients had begun may take to be made: a round trip, generously."""

_LOOK_EVERY_S = 0.02
_KEEP_ALIVE_S = 75
_MOST_DRAIN_S = 20

# SO_ATTACH_FILTER of Linux, which the module socket does not name, and a program of its classic
# BPF: (operation, jump if true, jump if false, operand). What it sees begins at the TCP header.
_ATTACH_FILTER = 26
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x45, 0, 1, 0x02),  # SYN? go on, else skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep whole
)


class DrainingServer(uvicorn.Server):
    """A uvicorn server whose stop waits for its clients."""

    def __init__(self, config: uvicorn.Config, gate: GateState) -> None:
        super().__init__(config)
        self._gate = gate

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop as uvicorn does."""
        listeners = [listener for server in self.servers for listener in server.sockets]
        if all(map(_ignore_new_connections, listeners)):
            await asyncio.sleep(HANDSHAKE_S)
        accepted = self._close_listeners(listeners)
        # Only now: a client told to close connects again at once, which must be refused by then.
        self._gate.is_draining = True
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        deadline = time.monotonic() + SILENCE_S
        while time.monotonic() < deadline and self.server_state.connections:
            await asyncio.sleep(_LOOK_EVERY_S)
        await super().shutdown(sockets)

    def _close_listeners(self, listeners: list[socket.socket]) -> list[socket.socket]:
        """Stop listening; return the connections that clients had made and nobody accepted yet.

        Closing a listener resets those, and a request that one of them brought would be lost.
        Where new connections cannot be ignored, a backlog of 0 lets the kernel complete at most
        one more meanwhile.
        """
        accepted = []
        for listener in listeners:
            with socket.socket(fileno=os.dup(listener.fileno())) as twin:
                twin.settimeout(0)
                twin.listen(0)
                with suppress(BlockingIOError):
                    while True:
                        accepted.append(twin.accept()[0])
        for server in self.servers:
            server.close()
        for connection in accepted:
            connection.settimeout(0)
        return accepted

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def _ignore_new_connections(listener: socket.socket) -> bool:
    """Let the kernel drop what would begin a connection; return whether it can (Linux).

    A client that is ignored tries again after a second, and is refused by then. Connections that
    were begun are still completed, so none is left half made when the listener is closed.
    """
    if sys.platform != "linux":
        return False
    steps = b"".join(struct.pack("HBBI", *step) for step in _NO_NEW_CONNECTIONS)
    held = ctypes.create_string_buffer(steps, len(steps))
    program = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(held))
    with socket.socket(fileno=os.dup(listener.fileno())) as twin:
        try:
            twin.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, program)
        except OSError:
            return False
    return True


def configuration(app: object, host: str, port: int, fast_path: FastPath | None) -> uvicorn.Config:
    """Return how uvicorn runs the application, and answers lookups beside it where it may."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=port,
        loop="uvloop",
        # uvicorn calls what it is given as it calls its own protocols.
        http="httptools" if fast_path is None else partial(FastProtocol, fast_path),  # type: ignore[arg-type]
        ws="none",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_MOST_DRAIN_S,
        log_level="info",
    )
