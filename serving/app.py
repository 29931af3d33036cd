"""The application: its parts put together, and its errors as HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from millrace.errors import PlatformError
from serving import openapi
from serving.access import Access, open_to_all
from serving.engine import LookupEngine
from serving.errors import answer_to, error_body, headers_of
from serving.fastpath import FastPath
from serving.feast_routes import FeastRoutes
from serving.gate import Gate, GateState
from serving.lookups import Lookups
from serving.metrics import ServerMetrics
from serving.plans import PublishedPlans
from serving.routes import Routes
from serving.store import ServingStore, open_client

MOST_IN_FLIGHT = 512


def create_app(
    store_url: str | Callable[[], str],
    *,
    now_ms: Callable[[], int] | None = None,
    most_in_flight: int = MOST_IN_FLIGHT,
    access: Access = open_to_all,
) -> FastAPI:
    """Return the server's application; it connects to the store when it is started.

    Args:
        store_url: URL of the store, or what gives it at each attempt to connect.
        now_ms: the clock, epoch milliseconds; the system's if None.
        most_in_flight: requests answered at a time; one more is a 429.
        access: decides what a caller may see.

    Raises:
        SetupError: the URL is of no known kind.
    """
    if isinstance(store_url, str):
        open_client(store_url)  # refused here, not at the first request
        address: str = store_url
        url: Callable[[], str] = lambda: address  # noqa: E731
    else:
        url = store_url
    clock = _system_now_ms if now_ms is None else now_ms
    metrics = ServerMetrics()
    store = ServingStore(url, metrics.store_errors.inc)
    plans = PublishedPlans(store, metrics, clock)
    gate = GateState(most_in_flight)
    lookups = Lookups(LookupEngine(store, metrics, clock), plans, access)
    # Its pages of /docs and /redoc load nothing from other hosts.
    app = FastAPIOffline(
        title="Millrace online features",
        version=version("millrace"),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # the gate counts
        swagger_ui_parameters={"validatorUrl": None},
        lifespan=partial(_lifespan, store=store, plans=plans, lookups=lookups),
    )
    app.state.gate = gate
    app.state.fast_path = FastPath(lookups, gate, metrics)
    Routes(lookups, plans, metrics, gate).add_to(app)
    FeastRoutes(lookups).add_to(app)
    app.add_middleware(Gate, state=gate, metrics=metrics)
    app.add_exception_handler(PlatformError, _failed)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _failed)
    app.openapi = partial(openapi.document, app)  # type: ignore[method-assign]
    return app


@asynccontextmanager
async def _lifespan(
    _: FastAPI, store: ServingStore, plans: PublishedPlans, lookups: Lookups
) -> AsyncIterator[None]:
    with suppress(PlatformError):  # the store may come later; requests say so until then
        await plans.load()
    stop = asyncio.Event()
    refresh = asyncio.get_running_loop().create_task(plans.keep_fresh(stop))
    try:
        yield
    finally:
        stop.set()
        await refresh
        await lookups.finish()
        await store.close()


def _system_now_ms() -> int:
    return time.time_ns() // 1_000_000


async def _failed(request: Request, error: Exception) -> Response:
    status, body = answer_to(error, request.state.request_id)
    return _json(status, body)


async def _http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path, status = request.url.path, HTTPStatus(error.status_code)
    told = {
        HTTPStatus.NOT_FOUND: f"there is no {path}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{path} does not take {request.method}",
    }.get(status, str(error.detail))
    code = status.phrase.lower().replace(" ", "_")
    return _json(status, error_body(code, told, path, "see /docs", request.state.request_id))


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, headers_of(status), media_type="application/json")
