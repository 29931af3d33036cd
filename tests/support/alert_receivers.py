"""Real servers that take alerts over HTTP and check shapes as the public APIs do.

Each remembers what it took. It can be told to refuse, and it can be stopped and started again on
the same port with what it has.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.background_server import in_background

ROUTING_KEY = "0123456789abcdef0123456789abcdef"

Check = Callable[[Any], list[str]]
"""Returns what is wrong with a body."""


@dataclass
class Taken:
    """One request that a receiver took."""

    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass
class HttpReceiver:
    """An HTTP server of one API.

    Attributes:
        answers: statuses, with an optional Retry-After, for the next requests; then it takes them.
    """

    check: Check
    success: tuple[int, str] = (200, "ok")
    taken: list[Taken] = field(default_factory=list)
    refused: list[list[str]] = field(default_factory=list)
    answers: list[tuple[int, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def bodies(self) -> list[Any]:
        """What it took, in order."""
        return [one.body for one in self.taken]

    def judge(self, headers: dict[str, str], raw: bytes) -> tuple[int, str, str | None]:
        """Return status, text and Retry-After of one request, and remember it if it is fine."""
        if self.answers:
            status, retry_after = self.answers.pop(0)
            return status, "not now", retry_after
        body = json.loads(raw)
        wrong = self.check(body)
        if headers.get("content-type", "").split(";")[0] != "application/json":
            wrong.append("Content-Type is not application/json")
        if wrong:
            self.refused.append(wrong)
            return 400, json.dumps({"status": "invalid", "errors": wrong}), None
        self.taken.append(Taken(headers, body, raw))
        return *self.success, None


@contextmanager
def serving(receiver: HttpReceiver) -> Iterator[HttpReceiver]:
    """Run a receiver while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, text, retry_after = receiver.judge(headers, raw)
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            if status in {301, 302, 307}:
                self.send_header("Location", receiver.url)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(("127.0.0.1", receiver.port), Handler)
    receiver.port = server.server_port
    with in_background(server):
        yield receiver


def slack() -> HttpReceiver:
    """Return an incoming webhook: answers ``ok``, or 400 to what Slack would refuse."""
    return HttpReceiver(_wrong_for_slack)


def pagerduty() -> HttpReceiver:
    """Return the Events API v2: answers 202, or 400 with what is wrong."""
    answer = json.dumps({"status": "success", "message": "Event processed", "dedup_key": "k"})
    return HttpReceiver(_wrong_for_pagerduty, (202, answer))


def webhook() -> HttpReceiver:
    """Return a receiver of our own documents."""
    return HttpReceiver(_wrong_for_webhook)


_TEXTS = {"header": ("plain_text", 150), "section": ("mrkdwn", 3000)}


def _wrong_for_slack(body: Any) -> list[str]:
    wrong = [] if body.get("text") else ["no_text"]
    blocks = body.get("blocks", [])
    if not 0 < len(blocks) <= 50:
        wrong.append("invalid_blocks: their number")
    for block in blocks:
        if block["type"] in _TEXTS:
            kind, longest = _TEXTS[block["type"]]
            text = block["text"]
            if text["type"] != kind or not 0 < len(text["text"]) <= longest:
                wrong.append(f"invalid_blocks: {block}")
        elif block["type"] == "context":
            elements = block["elements"]
            if not 0 < len(elements) <= 10 or any(len(e["text"]) > 3000 for e in elements):
                wrong.append(f"invalid_blocks: {block}")
        else:
            wrong.append(f"invalid_blocks: type {block['type']}")
    return wrong


def _wrong_for_pagerduty(body: Any) -> list[str]:
    action = body.get("event_action")
    is_right = {
        "routing_key": body.get("routing_key") == ROUTING_KEY,
        "event_action": action in {"trigger", "acknowledge", "resolve"},
        "dedup_key": 0 < len(body.get("dedup_key", "")) <= 255,
        "links.href": all(one["href"].startswith("http") for one in body.get("links", [])),
    }
    if action == "trigger":
        payload = body.get("payload", {})
        datetime.fromisoformat(payload["timestamp"])
        severities = {"critical", "error", "warning", "info"}
        is_right |= {
            "payload.summary": 0 < len(payload.get("summary", "")) <= 1024,
            "payload.source": bool(payload.get("source")),
            "payload.severity": payload.get("severity") in severities,
            "payload.custom_details": isinstance(payload.get("custom_details"), dict),
        }
    return [name for name, is_so in is_right.items() if not is_so]


def _wrong_for_webhook(body: Any) -> list[str]:
    wrong = [name for name in ("key", "title", "messages") if not body.get(name)]
    for message in body.get("messages", []):
        wrong += [name for name in ("key", "incident", "status", "title") if not message.get(name)]
    return wrong
