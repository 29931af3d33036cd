"""What ``/docs`` shows of the routes: models from the msgspec types, and examples."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving import feast
from serving.errors import ErrorBody
from serving.forms import ARROW, COLUMNAR, MSGPACK
from serving.requests import BatchBody, LookupBody, OnlineBody
from serving.responses import ColumnarAnswer, EntityAnswer, LookupAnswer

DESCRIPTION = """Feature values of entities, as of now.

A value is a number, a text, a truth value, or an array of these where a feature is a list. Every
value carries the event time of the newest event in its window (`ts`), the version of its view
and a status: `PRESENT`, `NULL_VALUE`, `OVER_LIMIT` (too many different values to tell the most
frequent), `NOT_FOUND`, `OUTSIDE_MAX_AGE` (older than the view's ttl; the
value is still given), `STALE` (the pipeline is behind its promise; the value is still given). Of a key that is none
of the entity all values are `INVALID_KEY`, and its `error` says why.
"""

_MODELS = (
    LookupBody,
    BatchBody,
    OnlineBody,
    LookupAnswer,
    ColumnarAnswer,
    EntityAnswer,
    ErrorBody,
    *feast.MODELS,
)
_REF = "#/components/schemas/{name}"

_COUNT = {
    "value": 12,
    "ts": "2026-11-25T12:00:03.000Z",
    "version": "v1",
    "status": "PRESENT",
}
_AVERAGE = {"value": None, "ts": None, "version": "v1", "status": "NULL_VALUE"}
_FEATURES = {"customer_tx_count_1h": _COUNT, "customer_amount_avg_7d": _AVERAGE}
_LOOKUP_ANSWER = {
    "entity_name": "customer",
    "as_of": "2026-11-25T12:00:03.120Z",
    "results": [{"key": 101, "features": _FEATURES, "status": "PARTIAL"}],
}
_COLUMNAR_ANSWER = {
    "entity_name": "customer",
    "as_of": "2026-11-25T12:00:03.120Z",
    "keys": [101, 102],
    "features": {
        "customer_tx_count_1h": {
            "version": "v1",
            "values": [12, 0],
            "ts": ["2026-11-25T12:00:03.000Z", None],
            "statuses": [["PRESENT", 1], ["NOT_FOUND", 1]],
        },
    },
    "statuses": [["OK", 1], ["NOT_FOUND", 1]],
}
_ENTITY_ANSWER = {
    "entity_name": "customer",
    "as_of": "2026-11-25T12:00:03.120Z",
    "key": 101,
    "features": _FEATURES,
    "status": "PARTIAL",
}
_ERROR = {
    "error": {
        "code": "not_declared",
        "message": "no feature 'customer_tx_cnt_1h'",
        "where": "customer",
        "fix": "did you mean 'customer_tx_count_1h'?",
        "request_id": "5b1c9e2a-1f",
    }
}
_STRICT = {
    "parameters": [
        {
            "name": "strict",
            "in": "query",
            "required": False,
            "description": "true: one key that is none of the entity is a 400 for all.",
            "schema": {"type": "boolean", "default": False},
        }
    ]
}
_ERRORS = {
    400: "The request is malformed; message and fix say where.",
    404: "Unknown entity, view, feature, service or version; the nearest names are given.",
    413: "The body is too large, or more than 5,000 keys.",
    429: "Too many requests at a time; see Retry-After.",
    503: "The store is away, or nothing is published.",
    504: "No answer within `timeout_ms`.",
}
_LOOKUP_EXAMPLES = {
    "features": {
        "summary": "Two features of two customers",
        "value": {
            "entity_name": "customer",
            "keys": [101, 102],
            "features": [
                {"name": "customer_tx_count_1h", "version": "v1"},
                "customer_amount_avg_7d",
            ],
            "options": {"timeout_ms": 50},
        },
    },
    "service": {
        "summary": "A feature service",
        "value": {"entity_name": "customer", "keys": [101], "features": "service:fraud_v1"},
    },
    "composite": {
        "summary": "A composite key",
        "value": {
            "entity_name": "customer,terminal",
            "keys": [{"customer_id": 1, "terminal_id": 2}],
            "features": ["pair_spend:*"],
        },
    },
}


def _body(model: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    content = {"schema": {"$ref": _REF.format(name=model)}, "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def _answers(model: str, example: Mapping[str, Any]) -> dict[int | str, Any]:
    answer = {"schema": {"$ref": _REF.format(name=model)}, "example": example}
    error = {"schema": {"$ref": _REF.format(name="ErrorBody")}, "example": _ERROR}
    answers: dict[int | str, Any] = {
        200: {"description": "One result per key", "content": {"application/json": answer}}
    }
    for status, text in _ERRORS.items():
        answers[status] = {"description": text, "content": {"application/json": error}}
    return answers


def _answers_in_forms() -> dict[int | str, Any]:
    answers = _answers("LookupAnswer", _LOOKUP_ANSWER)
    schema = {"$ref": _REF.format(name="ColumnarAnswer")}
    answers[200]["content"] |= {
        COLUMNAR: {"schema": schema, "example": _COLUMNAR_ANSWER},
        ARROW: {"schema": {"type": "string", "format": "binary"}},
        MSGPACK: {"schema": {"$ref": _REF.format(name="LookupAnswer")}},
    }
    told = {**answers[400], "description": "`Accept` excludes every form there is."}
    return answers | {406: told}


def _parameter(name: str, where: str, description: str, example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": name in {"entity_key", "features"},
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


LOOKUP: Mapping[str, dict[str, Any]] = {
    path: {
        "summary": summary,
        "operation_id": operation,
        "tags": ["features"],
        "openapi_extra": {**_body("LookupBody", _LOOKUP_EXAMPLES), **_STRICT},
        "responses": _answers_in_forms(),
    }
    for path, operation, summary in (
        ("/v1/features:lookup", "lookup", "Features of one or more keys"),
        ("/v1/features:batchLookup", "batchLookup", "Features of up to 5,000 keys"),
    )
}

BATCH: dict[str, Any] = {
    "summary": "Features of several entities, the simple form",
    "operation_id": "batch",
    "tags": ["simple forms"],
    "openapi_extra": _body(
        "BatchBody",
        {
            "ids": {
                "value": {
                    "entity_type": "customer",
                    "entity_ids": [101, 102],
                    "feature_names": ["customer_tx_count_1h"],
                }
            }
        },
    ),
    "responses": _answers("LookupAnswer", _LOOKUP_ANSWER),
}

ONLINE: dict[str, Any] = {
    "summary": "Features of one entity, the simple form",
    "operation_id": "online",
    "tags": ["simple forms"],
    "openapi_extra": _body(
        "OnlineBody",
        {
            "id": {
                "value": {
                    "entity_type": "customer",
                    "entity_id": 101,
                    "feature_names": ["customer_tx_count_1h"],
                }
            }
        },
    ),
    "responses": _answers("EntityAnswer", _ENTITY_ANSWER),
}

ENTITY: dict[str, Any] = {
    "summary": "Features of one entity",
    "operation_id": "entity",
    "tags": ["simple forms"],
    "openapi_extra": {
        "parameters": [
            _parameter(
                "entity_key",
                "path",
                "The key. A composite one as `name=value,name=value`, or as a JSON object.",
                "101",
            ),
            _parameter("features", "query", "References by comma.", "customer_tx_count_1h"),
            _parameter("entity", "query", "The entity; else the features say it.", "customer"),
            _parameter("timeout_ms", "query", "How long the answer may take.", "50"),
        ]
    },
    "responses": _answers("EntityAnswer", _ENTITY_ANSWER),
}

_FEAST = {"tags": ["Feast"]}
FEAST_ONLINE_FEATURES: dict[str, Any] = {
    **_FEAST,
    "summary": "Features, as Feast's SDK asks for them",
    "operation_id": "feastGetOnlineFeatures",
    "openapi_extra": _body(
        "OnlineFeaturesBody",
        {
            "features": {
                "value": {
                    "features": ["customer_spend:tx_count_1h"],
                    "entities": {"customer_id": [101, 102]},
                }
            }
        },
    ),
    "responses": {
        200: {
            "description": "A column per join key and feature",
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(name="OnlineFeaturesAnswer")},
                    "example": {
                        "metadata": {"feature_names": ["customer_id", "tx_count_1h"]},
                        "results": [
                            {
                                "values": [101, 102],
                                "statuses": ["PRESENT", "PRESENT"],
                                "event_timestamps": ["1970-01-01T00:00:00Z"] * 2,
                            },
                            {
                                "values": [12, 0],
                                "statuses": ["PRESENT", "NOT_FOUND"],
                                "event_timestamps": [
                                    "2026-11-25T12:00:03Z",
                                    "1970-01-01T00:00:00Z",
                                ],
                            },
                        ],
                    },
                }
            },
        },
        422: {"description": "The body is not of this form."},
        **{
            status: {
                "description": f"{text} The body is a text of JSON, as Feast's client reads it."
            }
            for status, text in _ERRORS.items()
            if status != HTTPStatus.GATEWAY_TIMEOUT
        },
    },
}
FEAST_HEALTH: dict[str, Any] = {
    **_FEAST,
    "summary": "It is known what is published; else 503",
    "operation_id": "feastHealth",
}


def feast_not_offered(path: str) -> dict[str, Any]:
    """Return what is shown of a route of Feast's server that is refused."""
    return {
        **_FEAST,
        "summary": "Refused, with the way to do it here",
        "operation_id": "feast" + path.title().replace("/", "").replace("-", ""),
        "status_code": HTTPStatus.NOT_IMPLEMENTED,
        "responses": {501: {"description": "Never done here; the message says how it is done."}},
    }


_STATE = {"tags": ["state"]}
HEALTH: dict[str, Any] = {**_STATE, "summary": "The process lives", "operation_id": "health"}
READY: dict[str, Any] = {
    **_STATE,
    "summary": "Lookups can be answered; which views and versions are served",
    "operation_id": "ready",
}
METRICS: dict[str, Any] = {
    **_STATE,
    "summary": "Metrics for Prometheus; /metrics too",
    "operation_id": "metrics",
}


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, made at the first call."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
        )
        _, models = msgspec.json.schema_components(_MODELS, ref_template=_REF)
        made.setdefault("components", {}).setdefault("schemas", {}).update(models)
        app.openapi_schema = made
    return app.openapi_schema
