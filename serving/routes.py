"""The routes: HTTP in, HTTP out. What an answer is, is decided in the engine."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from serving import openapi
from serving.errors import VARY, BadRequest, NotReady, TooLarge
from serving.forms import form_of
from serving.gate import GateState
from serving.lookups import Lookups
from serving.metrics import CONTENT_TYPE, ServerMetrics
from serving.plans import PublishedPlans
from serving.requests import (
    MOST_TIMEOUT_MS,
    Lookup,
    Options,
    parse_batch,
    parse_online,
    query_parameters,
    references,
)

MOST_BODY_BYTES = 4 * 2**20

_JSON = "application/json"
_STALE_PLANS_S = 10.0

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class DirectRoute(APIRoute):
    """A route whose handler takes the request as it is.

    FastAPI's own handler parses, injects and validates; these routes do that with msgspec, for a
    third of the time. Documentation is FastAPI's.
    """

    def get_route_handler(self) -> Handler:
        """Return the endpoint itself."""
        handler: Handler = self.endpoint
        return handler


@dataclass
class Routes:
    """The handlers and what they stand on."""

    lookups: Lookups
    plans: PublishedPlans
    metrics: ServerMetrics
    gate: GateState

    def add_to(self, app: FastAPI) -> None:
        """Add every route to an application."""
        app.router.route_class = DirectRoute
        framework = list(app.router.routes)
        for path in ("/v1/features:lookup", "/v1/features:batchLookup"):
            app.add_api_route(path, self.lookup, methods=["POST"], **openapi.LOOKUP[path])
        app.add_api_route("/features/batch", self.batch, methods=["POST"], **openapi.BATCH)
        app.add_api_route("/features/online", self.online, methods=["POST"], **openapi.ONLINE)
        app.add_api_route(
            "/features/{entity_key:any_text}", self.entity, methods=["GET"], **openapi.ENTITY
        )
        app.add_api_route("/v1/health", self.health, methods=["GET"], **openapi.HEALTH)
        app.add_api_route("/v1/ready", self.ready, methods=["GET"], **openapi.READY)
        app.add_api_route("/v1/metrics", self.exposition, methods=["GET"], **openapi.METRICS)
        app.add_api_route("/metrics", self.exposition, methods=["GET"], include_in_schema=False)
        # Routes are tried in order: what is asked most comes first, /docs and the like last.
        app.router.routes[:] = [r for r in app.router.routes if r not in framework] + framework

    async def lookup(self, request: Request) -> Response:
        """Answer ``POST /v1/features:lookup`` and ``:batchLookup``."""
        body, is_strict = await read_body(request), _is_strict(request)
        form = form_of(_joined(request, "accept"))
        answer = await self.lookups.answer_body(
            body, _authorization(request), is_strict=is_strict, form=form
        )
        return Response(answer, headers={"vary": VARY}, media_type=form.media_type)

    async def batch(self, request: Request) -> Response:
        """Answer ``POST /features/batch``."""
        lookup = parse_batch(await read_body(request))
        return await self._answer(request, replace(lookup, is_strict=_is_strict(request)))

    async def online(self, request: Request) -> Response:
        """Answer ``POST /features/online``."""
        lookup, is_one = parse_online(await read_body(request))
        lookup = replace(lookup, is_strict=is_one or _is_strict(request))
        return await self._answer(request, lookup, is_entity=is_one)

    async def entity(self, request: Request) -> Response:
        """Answer ``GET /features/{entity_key}``."""
        query = query_parameters(request.query_params, ("features", "entity", "timeout_ms"))
        timeout_ms = query.get("timeout_ms")
        if timeout_ms is not None and not (
            timeout_ms.isdecimal() and 1 <= int(timeout_ms) <= MOST_TIMEOUT_MS
        ):
            raise BadRequest(
                f"timeout_ms is {timeout_ms!r}",
                where="query",
                fix=f"give whole milliseconds, 1 to {MOST_TIMEOUT_MS}",
            )
        lookup = Lookup(
            query.get("entity"),
            [_path_key(request)],
            references(query.get("features", [])),
            Options(None if timeout_ms is None else int(timeout_ms)),
            keys_field="entity_key",
            is_strict=True,
        )
        return await self._answer(request, lookup, is_entity=True, is_text=True)

    async def _answer(self, request: Request, lookup: Lookup, **form: bool) -> Response:
        body = await self.lookups.answer(lookup, _authorization(request), **form)
        return Response(body, media_type=_JSON)

    async def health(self, _: Request) -> Response:
        """Say that the process lives."""
        return Response(b'{"status":"live"}', media_type=_JSON)

    async def ready(self, _: Request) -> Response:
        """Say whether lookups can be answered, and of what.

        Raises:
            NotReady: stopping, store away, or nothing published.
        """
        if self.gate.is_draining:
            raise NotReady("the server is stopping", where="server", fix="ask another one")
        age_s = self.plans.age_s
        if age_s is None or age_s > _STALE_PLANS_S or not self.lookups.engine.store.is_up:
            raise NotReady(
                "the online store does not answer", where="online store", fix="millrace status"
            )
        catalog = self.plans.catalog
        if not any(view.serving for view in catalog.views.values()):
            raise NotReady(
                "no feature view is published",
                where="catalog",
                fix="millrace upload VIEW or millrace stream deploy VIEW",
            )
        views = {
            name: {"serving": view.serving, "versions": list(view.versions)}
            for name, view in catalog.views.items()
        }
        told = {"status": "ready", "views": views, "faults": catalog.faults, "plans_age_s": age_s}
        return Response(msgspec.json.encode(told), media_type=_JSON)

    async def exposition(self, _: Request) -> Response:
        """Return the metrics."""
        metrics = self.metrics
        metrics.in_flight.set(self.gate.in_flight)
        metrics.store_up.set(self.lookups.engine.store.is_up)
        if self.plans.age_s is not None:
            metrics.plans_age.set(self.plans.age_s)
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)


class _AnyText(Convertor[str]):
    """A part of a path with any characters: Starlette's own end at a line feed."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text."""
        return value


register_url_convertor("any_text", _AnyText())


def _path_key(request: Request) -> str:
    """Return the key that a path names.

    Raises:
        BadRequest: its bytes are no text; the server would have taken others in their place.
    """
    try:
        unquote_to_bytes(request.scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            "the key in the path is not UTF-8", where="entity_key", fix="percent-encode UTF-8"
        ) from error
    return str(request.path_params["entity_key"])


def _is_strict(request: Request) -> bool:
    """Return what ``?strict=`` says.

    Raises:
        BadRequest: neither true nor false.
    """
    asked = request.query_params.get("strict", "false")
    if asked not in {"true", "false"}:
        raise BadRequest(f"strict is {asked!r}", where="query", fix="give true or false")
    return asked == "true"


def _authorization(request: Request) -> bytes | None:
    given = request.headers.get("authorization")
    return None if given is None else given.encode("latin-1")


def _joined(request: Request, name: str) -> bytes | None:
    given = request.headers.getlist(name)
    return ",".join(given).encode("latin-1") if given else None


async def read_body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        TooLarge: it is larger than ``MOST_BODY_BYTES``; it is not read to its end.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MOST_BODY_BYTES:
        raise _too_large()
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MOST_BODY_BYTES:
            raise _too_large()
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large() -> TooLarge:
    return TooLarge(
        f"the body is larger than {MOST_BODY_BYTES} bytes",
        where="body",
        fix="send fewer keys at a time",
    )
