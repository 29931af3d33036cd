"""Run a socket server of a test beside it."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_POLL_S = 0.01
"""How soon a server hears that it is to stop."""


@contextmanager
def in_background(server: socketserver.BaseServer) -> Iterator[None]:
    """Serve in a thread while the block runs, then close the server."""
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
