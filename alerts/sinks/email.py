"""E-mail over SMTP: one plain-text mail per delivery.

The ``Message-ID`` is made from the idempotency key, so that mail systems which drop repeated ids
drop a repeated alert; mails of one incident refer to its first, so that they form a thread.
"""

import smtplib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from hashlib import sha256
from types import MappingProxyType

from alerts.message import Batching, Delivery, redact
from alerts.sinks.sink import Field, MessageRefused, Options, SinkUnavailable

FIELDS = MappingProxyType(
    {
        "host": Field("text", is_required=True),
        "from": Field("text", is_required=True),
        "to": Field("texts", is_required=True),
        "port": Field("number"),
        "security": Field("text", choices=("starttls", "tls", "none")),
        "user": Field("text"),
        "password": Field("secret"),
    }
)
_TIMEOUT_S = 10.0
_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_PERMANENT = 500


@dataclass(frozen=True)
class Email:
    """One SMTP server and whom it is to write to."""

    host: str
    sender: str
    recipients: tuple[str, ...]
    port: int
    security: str = "starttls"
    user: str = ""
    password: str = ""
    batching: Batching = "digest"

    def send(self, delivery: Delivery) -> None:
        """Send one mail; see ``Sink``. It counts as sent once one recipient was accepted."""
        mail = self._mail(delivery)
        try:
            with self._connect() as server:
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise self._judged(error, min(codes, default=_PERMANENT)) from None
        except (smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
            raise self._judged(error, error.smtp_code) from None
        except (OSError, smtplib.SMTPException) as error:
            raise SinkUnavailable(redact(str(error)), where=self._where) from None

    @property
    def _where(self) -> str:
        return f"{self.host}:{self.port}"

    def _judged(self, error: Exception, code: int) -> SinkUnavailable | MessageRefused:
        kind = MessageRefused if code >= _PERMANENT else SinkUnavailable
        return kind(redact(str(error)), where=self._where)

    def _connect(self) -> smtplib.SMTP:
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=_TIMEOUT_S)
        try:
            if self.security == "starttls":
                # Without a context of ours no certificate would be looked at.
                server.starttls(context=ssl.create_default_context())
            if self.user:
                server.login(self.user, self.password)
        except (OSError, smtplib.SMTPException):
            server.close()
            raise
        return server

    def _mail(self, delivery: Delivery) -> EmailMessage:
        first = delivery.messages[0]
        mail = EmailMessage()
        mail["Subject"] = f"[millrace] {delivery.title}"
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = format_datetime(datetime.fromtimestamp(first.at_ms / 1000, tz=UTC))
        mail["Message-ID"] = self._id(delivery.key)
        mail["X-Millrace-Key"] = delivery.key
        if not delivery.is_digest and first.status in {"still", "resolved"}:
            opened = self._id(f"{first.incident}:opened")
            mail["In-Reply-To"] = mail["References"] = opened
        mail.set_content("\n\n".join(message.paragraph for message in delivery.messages) + "\n")
        return mail

    def _id(self, key: str) -> str:
        digest = sha256(f"{key}|{','.join(self.recipients)}".encode()).hexdigest()[:32]
        domain = parseaddr(self.sender)[1].rpartition("@")[2] or "millrace.invalid"
        return f"<{digest}@{domain}>"


def build(options: Options) -> Email:
    """Make it from its configuration."""
    security = options.get("security", "starttls")
    return Email(
        host=options["host"],
        sender=options["from"],
        recipients=tuple(options["to"]),
        port=int(options.get("port", _PORTS[security])),
        security=security,
        user=options.get("user", ""),
        password=options.get("password", ""),
    )
