"""A real server that takes alerts as mails, in the clear or encrypted."""

import email
import email.policy
import socketserver
import ssl
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from tests.support.background_server import in_background

CERTIFICATE = Path(__file__).parents[1] / "certificates" / "localhost.pem"
"""Of 127.0.0.1, signed by itself."""


@dataclass
class SmtpReceiver:
    """An SMTP server.

    Attributes:
        mails: what it took, in order.
        refusals: answers to the next ``RCPT TO``, such as ``550 no such user``.
        password: if set, it wants ``AUTH PLAIN`` of the user ``alerts`` first.
        security: ``starttls``: nothing is taken before it; ``tls``: from the first byte; ``none``.
    """

    mails: list[EmailMessage] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    password: str = ""
    security: str = "none"
    port: int = 0


@contextmanager
def serving_smtp(receiver: SmtpReceiver) -> Iterator[SmtpReceiver]:
    """Run an SMTP server while the block runs."""

    class Handler(_Talk):
        server_is = receiver

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Say nothing: a client that trusts no such certificate breaks off."""

    server = Server(("127.0.0.1", receiver.port), Handler)
    receiver.port = server.server_address[1]
    with in_background(server):
        yield receiver


class _Talk(socketserver.StreamRequestHandler):
    """One connection."""

    server_is: SmtpReceiver

    def setup(self) -> None:
        # Here and not where connections are accepted, which must not wait for a handshake.
        if self.server_is.security == "tls":
            self._encrypt()
        super().setup()

    def _encrypt(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        self.request = context.wrap_socket(self.request, server_side=True)

    def handle(self) -> None:
        self.is_known = not self.server_is.password
        self.is_private = self.server_is.security != "starttls"
        self._say("220 receiver ESMTP")
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.split(" ")[0].upper()
            if verb == "QUIT":
                self._say("221 bye")
                return
            if self.is_private or verb in {"EHLO", "STARTTLS"}:
                getattr(self, f"_{verb.lower()}", self._other)(line)
            else:
                self._say("530 5.7.0 issue STARTTLS first")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _ehlo(self, _: str) -> None:
        self._say("250-receiver")
        self._say("250 AUTH PLAIN" if self.is_private else "250 STARTTLS")

    def _starttls(self, _: str) -> None:
        self._say("220 go ahead")
        self._encrypt()
        super().setup()
        self.is_private = True

    def _auth(self, line: str) -> None:
        given = b64decode(line.split(" ")[2]).decode().split("\0")
        self.is_known = given[1:] == ["alerts", self.server_is.password]
        self._say("235 welcome" if self.is_known else "535 5.7.8 wrong credentials")

    def _rcpt(self, line: str) -> None:
        if not self.is_known:
            self._say("530 5.7.0 authentication required")
        elif self.server_is.refusals:
            self._say(self.server_is.refusals.pop(0))
        else:
            self._other(line)

    def _data(self, _: str) -> None:
        self._say("354 go on")
        lines = []
        while (part := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(part)
        self.server_is.mails.append(
            email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        )
        self._say("250 taken")

    def _other(self, _: str) -> None:
        self._say("250 fine")
