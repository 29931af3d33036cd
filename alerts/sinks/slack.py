"""Slack, through an incoming webhook: one message with blocks, within Slack's limits.

Slack has no idempotency key: a message may appear twice if the process dies between Slack's answer
and the note of it.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from alerts.message import TITLE_LENGTH, Batching, Delivery, Message
from alerts.sinks.http import post_json
from alerts.sinks.sink import Field, Options

FIELDS = MappingProxyType({"url": Field("secret", is_required=True)})

_SECTION_LENGTH = 2_900
"""Slack refuses a section's text of more than 3,000 characters."""
_MOST_SECTIONS = 40
"""Slack refuses a message of more than 50 blocks."""
_MARKS = {
    "opened": ":red_circle:",
    "still": ":large_orange_circle:",
    "resolved": ":large_green_circle:",
}
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True)
class Slack:
    """One webhook, which is one channel."""

    url: str
    batching: Batching = "digest"

    def send(self, delivery: Delivery) -> None:
        """Post a message; see ``Sink``."""
        post_json(self.url, _document(delivery))


def build(options: Options) -> Slack:
    """Make it from its configuration."""
    return Slack(options["url"])


def _document(delivery: Delivery) -> dict[str, Any]:
    if delivery.is_digest:
        blocks = [_header(delivery.title), *_digest_sections(delivery.messages)]
    else:
        blocks = _blocks(delivery.messages[0])
    # The text is what a notification shows; the blocks are what the channel shows.
    return {"text": _escaped(delivery.title), "blocks": blocks}


def _blocks(message: Message) -> list[dict[str, Any]]:
    blocks = [_header(f"{_MARKS.get(message.status, '')} {message.title}".strip())]
    if message.summary:
        blocks.append(_section(_escaped(message.summary)))
    if message.details:
        told = "\n".join(f"*{_escaped(k)}*: {_escaped(v)}" for k, v in message.details.items())
        blocks.append(_section(told))
    notes = [*message.owners, message.severity, message.at]
    notes += [f"<{url}|{_escaped(text)}>" for text, url in message.links.items()]
    elements = [{"type": "mrkdwn", "text": " · ".join(notes)[:_SECTION_LENGTH]}]
    return [*blocks, {"type": "context", "elements": elements}]


def _digest_sections(messages: tuple[Message, ...]) -> list[dict[str, Any]]:
    """Fill as few sections as hold one line per message."""
    texts = [""]
    for message in messages:
        line = f"{_MARKS.get(message.status, '')} {_escaped(message.title)}"
        if run := message.links.get("run"):
            line += f" <{run}|run>"
        if len(texts[-1]) + len(line) > _SECTION_LENGTH:
            texts.append("")
        texts[-1] += f"{line}\n"
    return [_section(text) for text in texts[:_MOST_SECTIONS]]


def _header(text: str) -> dict[str, Any]:
    return {
        "type": "header",
        "text": {"type": "plain_text", "text": text[: TITLE_LENGTH + 10], "emoji": True},
    }


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text[:_SECTION_LENGTH]}}


def _escaped(text: str) -> str:
    return text.translate(_ESCAPES)
