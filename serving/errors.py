"""What a request can meet, and the HTTP status of each error.

The one place that maps the platform's errors to HTTP. The body is always
``{"error": {"code", "message", "where", "fix", "request_id"}}``.
"""

import logging
from http import HTTPStatus

import msgspec

from millrace.errors import (
    EngineUnavailable,
    NotDeclared,
    PlatformError,
    ServingError,
    StoreError,
)
from resources.store.errors import StoreUnavailable

logger = logging.getLogger(__name__)


class BadRequest(ServingError):
    """The request is malformed, or asks for what does not go together."""

    code = "bad_request"


class NotAcceptable(ServingError):
    """No form of an answer is among those that the request accepts."""

    code = "not_acceptable"


class TooLarge(ServingError):
    """The body, or the number of keys, is beyond what one request may hold."""

    code = "too_large"


class Overloaded(ServingError):
    """Too many requests are being answered; the same one may succeed later."""

    code = "overloaded"
    retryable = True


class NotReady(ServingError):
    """Nothing is published yet, or the server is stopping."""

    code = "not_ready"
    retryable = True


class DeadlineExceeded(ServingError):
    """The answer took longer than the request allowed."""

    code = "deadline_exceeded"
    retryable = True


class NotOffered(ServingError):
    """What another server does at this place is done elsewhere here."""

    code = "not_offered"


_STATUSES: tuple[tuple[type[PlatformError], HTTPStatus], ...] = (
    (BadRequest, HTTPStatus.BAD_REQUEST),
    (NotDeclared, HTTPStatus.NOT_FOUND),
    (NotAcceptable, HTTPStatus.NOT_ACCEPTABLE),
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Overloaded, HTTPStatus.TOO_MANY_REQUESTS),
    (NotReady, HTTPStatus.SERVICE_UNAVAILABLE),
    (StoreUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (EngineUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (DeadlineExceeded, HTTPStatus.GATEWAY_TIMEOUT),
    (NotOffered, HTTPStatus.NOT_IMPLEMENTED),
    (StoreError, HTTPStatus.INTERNAL_SERVER_ERROR),
)
"""The first that fits counts: a subclass stands before its base."""

RETRY_AFTER_S = 1
"""What ``Retry-After`` says beside 429 and 503."""


VARY = "accept"
"""What ``Vary`` says: the headers of a request that choose between forms of an answer."""


class ErrorDetail(msgspec.Struct, frozen=True):
    """What is wrong, where, and how to mend it."""

    code: str
    message: str
    where: str
    fix: str
    request_id: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail


def status_of(error: PlatformError) -> int:
    """Return the HTTP status of an error; 500 for one that no request can cause."""
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return int(status)
    return int(HTTPStatus.INTERNAL_SERVER_ERROR)


def error_body(code: str, message: str, where: str, fix: str, request_id: str) -> bytes:
    """Return the body of an error as JSON."""
    return msgspec.json.encode(ErrorBody(ErrorDetail(code, message, where, fix, request_id)))


def answer_to(error: Exception, request_id: str) -> tuple[int, bytes]:
    """Return status and body of what went wrong; the log has what is the server's own fault."""
    if not isinstance(error, PlatformError):
        logger.error("request %s failed", request_id, exc_info=error)
        # Nothing of the fault is told; the log has it, by the request's id.
        told = ("internal", "the server met a fault of its own", "server", "report the request_id")
        return int(HTTPStatus.INTERNAL_SERVER_ERROR), error_body(*told, request_id)
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request %s failed", request_id, exc_info=error)
    return status, error_body(error.code, error.what, error.where, error.fix, request_id)


def headers_of(status: int) -> dict[str, str]:
    """Return the headers that go with the status of an error."""
    if status == HTTPStatus.NOT_ACCEPTABLE:
        return {"vary": VARY}
    is_for_later = status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return {"retry-after": str(RETRY_AFTER_S)} if is_for_later else {}
