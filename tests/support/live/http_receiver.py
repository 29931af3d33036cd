"""A real HTTP server that keeps what is posted to it; killed and started again at the same port."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.background_server import in_background


@dataclass
class Receiver:
    """What came in, in order.

    Attributes:
        posts: path, headers (names in lower case) and JSON body of each request.
    """

    port: int = 0
    posts: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def bodies(self, path: str) -> list[Any]:
        """Return the bodies posted to a path, in order."""
        return [body for where, _, body in tuple(self.posts) if where == path]


@contextmanager
def receiving(receiver: Receiver | None = None) -> Iterator[Receiver]:
    """Run a receiver; one that was stopped before goes on at its port with what it has."""
    kept = receiver or Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.posts.append((self.path, headers, body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", kept.port), Handler)
    kept.port = server.server_port
    with in_background(server):
        yield kept
