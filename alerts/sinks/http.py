"""One POST, and what its status means for a queue of messages."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from alerts.message import redact
from alerts.sinks.sink import MessageRefused, SinkUnavailable

TIMEOUT_S = 10.0
_ANSWER_LENGTH = 300
_POISON = frozenset({400, 405, 406, 411, 413, 414, 415, 422, 431})
"""Statuses that are about the message. 401, 403, 404 and 410 are about us or the address: no
message gets through, so none is to blame and all of them wait."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET, and its secret at somebody else."""

    def redirect_request(self, *_arguments: Any, **_more: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def post_json(url: str, document: object, headers: Mapping[str, str] | None = None) -> str:
    """Send a JSON document and return the answer's body.

    Raises:
        SinkUnavailable: no answer, or one that is not about this message.
        MessageRefused: the status says that the message is at fault.
    """
    return post(url, json.dumps(document, ensure_ascii=False).encode(), headers)


def post(url: str, body: bytes, headers: Mapping[str, str] | None = None) -> str:
    """Send a JSON body that is ready to be sent; see ``post_json``."""
    sent = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "millrace-alerts"}
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        request = urllib.request.Request(url, data=body, headers={**sent, **(headers or {})})  # noqa: S310
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            text: str = answer.read(_ANSWER_LENGTH).decode(errors="replace")
            return text
    except urllib.error.HTTPError as error:
        raise _judged(error, host) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise SinkUnavailable(f"no answer: {redact(str(reason))}", where=host) from None


def _judged(error: urllib.error.HTTPError, host: str) -> SinkUnavailable | MessageRefused:
    answer = redact(error.read(_ANSWER_LENGTH).decode(errors="replace")).strip()
    said = f"answered {error.code} {error.reason}" + (f": {answer}" if answer else "")
    if error.code in _POISON:
        return MessageRefused(said, where=host)
    return SinkUnavailable(
        said, where=host, retry_after_s=_retry_after_s(error.headers.get("Retry-After"))
    )


def _retry_after_s(text: str | None) -> float | None:
    """Read the header's seconds; a date is rare here and counts as not said."""
    if text is None:
        return None
    return float(text) if text.strip().isdigit() else None
