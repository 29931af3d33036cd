"""Any HTTP receiver: one JSON document per delivery, with an idempotency key, signed if wanted.

The document is ``{"key": …, "title": …, "messages": [ … ]}``; every message has a ``key`` of its
own, so a receiver can tell a repeated one whether it came alone or in a digest.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from alerts.message import Batching, Delivery
from alerts.sinks.http import post
from alerts.sinks.sink import Field, Options

FIELDS = MappingProxyType(
    {
        "url": Field("text", is_required=True),
        "headers": Field("pairs"),
        "signing_key": Field("secret"),
    }
)
KEY_HEADER = "Idempotency-Key"
SIGNATURE_HEADER = "X-Millrace-Signature"


@dataclass(frozen=True)
class Webhook:
    """One receiver.

    Attributes:
        signing_key: if there is one, the body's HMAC-SHA256 stands in ``X-Millrace-Signature``.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    signing_key: str = ""
    batching: Batching = "digest"

    def send(self, delivery: Delivery) -> None:
        """Post a delivery; see ``Sink``."""
        document = {
            "key": delivery.key,
            "title": delivery.title,
            "messages": [message.to_json() for message in delivery.messages],
        }
        body = json.dumps(document, ensure_ascii=False).encode()
        headers = {**self.headers, KEY_HEADER: delivery.key}
        if self.signing_key:
            headers[SIGNATURE_HEADER] = f"sha256={signature(self.signing_key, body)}"
        post(self.url, body, headers)


def signature(signing_key: str, body: bytes) -> str:
    """Return the hexadecimal HMAC-SHA256 of a body, as a receiver computes it."""
    return hmac.new(signing_key.encode(), body, hashlib.sha256).hexdigest()


def build(options: Options) -> Webhook:
    """Make it from its configuration."""
    return Webhook(options["url"], options.get("headers", {}), options.get("signing_key", ""))
