"""uvicorn, stopped without losing a request.

On SIGTERM or SIGINT: new connections are refused, ``/v1/ready`` says no, what is being answered is
answered, and each kept-alive connection is closed by the answer to its next request (``Connection:
close``) and not under the hands of its client. One that stays silent is closed after a while.
"""

import asyncio
import os
import socket
import time
from contextlib import suppress

import uvicorn

from serving.gate import GateState

SILENCE_S = 1.0
"""How long a kept-alive connection may stay silent before it is closed."""

_LOOK_EVERY_S = 0.02
_KEEP_ALIVE_S = 75
_MOST_DRAIN_S = 20


class DrainingServer(uvicorn.Server):
    """A uvicorn server whose stop waits for its clients."""

    def __init__(self, config: uvicorn.Config, gate: GateState) -> None:
        super().__init__(config)
        self._gate = gate

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then stop as uvicorn does."""
        accepted = self._close_listeners()
        # Only now: a client told to close connects again at once, which must be refused by then.
        self._gate.is_draining = True
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        deadline = time.monotonic() + SILENCE_S
        while time.monotonic() < deadline and self.server_state.connections:
            await asyncio.sleep(_LOOK_EVERY_S)
        await super().shutdown(sockets)

    def _close_listeners(self) -> list[socket.socket]:
        """Stop listening; return the connections that clients had made and nobody accepted yet.

        Closing a listener resets those, and a request that one of them brought would be lost. With
        a backlog of 0 the kernel completes no more of them meanwhile: a client's attempt is
        repeated, and refused.
        """
        accepted = []
        for server in self.servers:
            for listener in server.sockets:
                with socket.socket(fileno=os.dup(listener.fileno())) as twin:
                    twin.settimeout(0)
                    twin.listen(0)
                    with suppress(BlockingIOError):
                        while True:
                            accepted.append(twin.accept()[0])
            server.close()
        for connection in accepted:
            connection.settimeout(0)
        return accepted

    def _protocol(self) -> asyncio.Protocol:
        protocol: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def configuration(app: object, host: str, port: int) -> uvicorn.Config:
    """Return how uvicorn runs the application."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_MOST_DRAIN_S,
        log_level="info",
    )
