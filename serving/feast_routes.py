"""The routes of Feast's feature server: HTTP in, HTTP out. What an answer is, ``serving.feast`` says.

Source: the errors are those that Feast's ``rest_error_handler.py`` and ``errors.py`` read.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from millrace.errors import PlatformError
from serving import feast, openapi
from serving.errors import NotOffered, headers_of, status_of
from serving.lookups import Lookups
from serving.routes import read_body

_JSON = "application/json"
_SEND = (
    "rows reach the online store as events: send them to the topic of the source's stream (millrace "
    "produce SOURCE --file F sends a file) and deploy the view, millrace stream deploy VIEW; of a "
    "source without a stream build the days, millrace backfill VIEW, and millrace upload VIEW"
)
_BUILD = (
    "build the view's days in Dagster or with millrace backfill VIEW; the sensor upload_new_days "
    "uploads them, millrace upload VIEW does at once, and a stream needs neither"
)
NOT_OFFERED = {
    "/push": _SEND,
    "/write-to-online-store": _SEND,
    "/materialize": _BUILD,
    "/materialize-incremental": _BUILD,
}
"""Routes of Feast's server that are refused, and what to do instead."""


@dataclass
class FeastRoutes:
    """The handlers and what they stand on."""

    lookups: Lookups

    def add_to(self, app: FastAPI) -> None:
        """Add every route to an application whose routes are ``DirectRoute``."""
        get = openapi.FEAST_ONLINE_FEATURES
        app.add_api_route("/get-online-features", self.get, methods=["POST"], **get)
        for path in NOT_OFFERED:
            told = openapi.feast_not_offered(path)
            app.add_api_route(path, self.not_offered, methods=["POST"], **told)
        app.add_api_route("/health", self.health, methods=["GET"], **openapi.FEAST_HEALTH)

    async def get(self, request: Request) -> Response:
        """Answer ``POST /get-online-features``."""
        kind = "FeastError"
        try:
            body = await read_body(request)
            try:
                asked = feast.parse_body(body)
            except ValueError as error:
                return _unprocessable(str(error))
            try:
                given = request.headers.get("authorization")
                authorization = None if given is None else given.encode("latin-1")
                answer = await feast.answered(self.lookups, asked, authorization)
            except PlatformError as error:
                kind = feast.kind_of(error, self.lookups.plans.catalog, asked)
                raise
        except PlatformError as error:
            if status_of(error) == HTTPStatus.INTERNAL_SERVER_ERROR:
                raise  # the application logs it
            return _refused(error, kind)
        return Response(answer, media_type=_JSON)

    async def not_offered(self, request: Request) -> Response:
        """Say how to do here what Feast's server does by a route."""
        path = request.url.path
        told = f"this server does not take {path}"
        return _refused(NotOffered(told, where=path, fix=NOT_OFFERED[path]), "FeastError")

    async def health(self, _: Request) -> Response:
        """Say whether it is known what is published: Feast's server tells so of its registry."""
        is_known = self.lookups.plans.age_s is not None
        return Response(status_code=HTTPStatus.OK if is_known else HTTPStatus.SERVICE_UNAVAILABLE)


def _refused(error: PlatformError, kind: str) -> Response:
    """Return an error as Feast's client reads one: JSON in a JSON string."""
    status = status_of(error)
    detail = json.dumps({"module": "feast.errors", "class": kind, "message": str(error)})
    return Response(msgspec.json.encode(detail), status, headers_of(status), media_type=_JSON)


def _unprocessable(told: str) -> Response:
    """Return what a body of another form is answered, as FastAPI does for Feast."""
    detail = {"detail": [{"type": "value_error", "loc": ["body"], "msg": told}]}
    return Response(msgspec.json.encode(detail), HTTPStatus.UNPROCESSABLE_ENTITY, media_type=_JSON)
