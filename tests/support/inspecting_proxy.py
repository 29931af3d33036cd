"""A proxy that inspects TLS, as companies have them: it answers in place of every host."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.background_server import in_background

AUTHORITY = Path(__file__).parents[1] / "certificates" / "authority.pem"
"""Who signs in place of every host."""

HASHED_NAME = "774b5dcc.0"
"""The name of the authority in a folder of certificates: `openssl x509 -hash`."""

_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE")


@dataclass
class InspectingProxy:
    """A running proxy.

    Attributes:
        url: for HTTPS_PROXY.
        host: the host of which downloads are asked; nobody listens there.
        files: what it answers, by path.
        asked: the paths that were asked for, in order.
    """

    url: str
    host: str = "https://127.0.0.1:9"
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def stand_before(self, monkeypatch: pytest.MonkeyPatch, **trust: str) -> None:
        """Put this process behind the proxy, trusting what is named and nothing else by a variable."""
        for name in (*_TRUST, "NO_PROXY", "no_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"HTTPS_PROXY": self.url, **trust}.items():
            monkeypatch.setenv(name, value)


@contextmanager
def inspecting_proxy(files: Mapping[str, bytes]) -> Iterator[InspectingProxy]:
    """Run a proxy that answers with some files, under a certificate that nobody knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(AUTHORITY.with_name("proxy.pem"))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.connection = context.wrap_socket(self.connection, server_side=True)
            self.rfile = self.connection.makefile("rb")
            self.wfile = self.connection.makefile("wb", buffering=0)
            self.close_connection = False

        def do_GET(self) -> None:
            proxy.asked.append(self.path)
            content = proxy.files.get(self.path)
            self.send_response(404 if content is None else 200)
            kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_HEAD(self) -> None:
            self.send_response(405)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Take a client that does not trust us for what it is."""

    server = Server(("127.0.0.1", 0), Handler)
    proxy = InspectingProxy(f"http://127.0.0.1:{server.server_port}", files=dict(files))
    with in_background(server):
        yield proxy
