"""PagerDuty, through its Events API v2: an incident is triggered once and resolved once.

The ``dedup_key`` is the incident's: a trigger that is sent twice is one alert there. Incidents that
open in a storm are one alert together, which is resolved when the last of them is.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from alerts.message import Batching, Delivery, Message
from alerts.sinks.http import post_json
from alerts.sinks.sink import Field, Options

URL = "https://events.pagerduty.com/v2/enqueue"
FIELDS = MappingProxyType({"routing_key": Field("secret", is_required=True), "url": Field("text")})
_SUMMARY_LENGTH = 1_000
"""PagerDuty cuts a summary at 1,024 characters."""
_DETAIL_LENGTH = 500
_MOST_OWNERS = 10


@dataclass(frozen=True)
class PagerDuty:
    """One service's integration; ``url`` is another than PagerDuty's own only for a relay."""

    routing_key: str
    url: str = URL
    batching: Batching = "page"

    def send(self, delivery: Delivery) -> None:
        """Send one event; see ``Sink``."""
        post_json(self.url, _event(delivery, self.routing_key))


def build(options: Options) -> PagerDuty:
    """Make it from its configuration."""
    return PagerDuty(options["routing_key"], options.get("url", URL))


def _event(delivery: Delivery, routing_key: str) -> dict[str, Any]:
    first = delivery.messages[0]
    is_over = first.status == "resolved" and not delivery.is_digest
    single = delivery.page or first.incident
    event: dict[str, Any] = {
        "routing_key": routing_key,
        "event_action": "resolve" if is_over else "trigger",
        "dedup_key": delivery.key if delivery.is_digest else single,
        "client": "Millrace",
    }
    if is_over:
        return event
    links = [] if delivery.is_digest else first.links.items()
    return event | {
        "payload": _payload(delivery),
        "links": [{"href": url, "text": text} for text, url in links],
    }


def _payload(delivery: Delivery) -> dict[str, Any]:
    messages = delivery.messages
    first = messages[0]
    told = first.title
    if delivery.is_digest:
        told = f"{delivery.title}; the first: {told}"
    elif first.summary:
        told = f"{told}: {first.summary}"
    owners = sorted({owner for message in messages for owner in message.owners})
    return {
        "summary": told[:_SUMMARY_LENGTH],
        "source": first.name,
        "severity": _severity(messages),
        "timestamp": first.at,
        "component": first.name,
        "class": first.kind,
        "group": ", ".join(owners[:_MOST_OWNERS]) or "millrace",
        "custom_details": _details(delivery),
    }


def _severity(messages: tuple[Message, ...]) -> str:
    if all(message.status in {"heartbeat", "test"} for message in messages):
        return "info"
    return "critical" if any(one.severity == "error" for one in messages) else "warning"


def _details(delivery: Delivery) -> dict[str, str]:
    if delivery.is_digest:
        return {
            one.key: f"{one.title}: {one.summary}"[:_DETAIL_LENGTH] for one in delivery.messages
        }
    return {**delivery.messages[0].details, "transition": delivery.key}
