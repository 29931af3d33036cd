"""The JSON Schema of declarations in YAML, made of the loader's own table of keys.

It knows shapes and words, not what names refer to: that is ``millrace validate``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from millrace.aggregates import AGGREGATES
from millrace.check_types import CHECK_TYPES, COMMON, METRICS, MODES, SEVERITIES, ArgumentKind
from millrace.expectation_types import EXPECTATIONS
from millrace.load.keys import COLUMN, FILE, WINDOWS, Form, Key, Keys, check_arguments
from millrace.rules.names import MAX_NAME_LENGTH
from millrace.types import KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_DURATION = r"^\d+(ms|s|m|h|d)$"
_TEXT: dict[str, Any] = {"type": ["string", "number", "boolean"]}
"""A text, which may look like a number or a truth value: it stays as it is written."""

_FORMS: Mapping[Form, dict[str, Any]] = {
    "text": _TEXT,
    "expression": _TEXT,
    "version": {"type": "string"},
    "name": {
        "type": "string",
        "pattern": "^[a-z][a-z0-9_]*$",
        "maxLength": MAX_NAME_LENGTH,
    },
    "type": {
        "anyOf": [
            {"enum": [kind for kind in KINDS if kind != "decimal"]},
            {"type": "string", "pattern": r"^decimal\(\s*\d+\s*,\s*\d+\s*\)$"},
            {"type": "string", "pattern": r"^vector\(\s*\d+\s*\)$"},
        ]
    },
    "duration": {"type": "string", "pattern": _DURATION},
    "day": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"},
    "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "value": {"type": ["string", "number", "boolean"]},
    "tags": {"type": "object", "additionalProperties": _TEXT},
}
_ARGUMENTS: Mapping[ArgumentKind, dict[str, Any]] = {
    "text": _TEXT,
    "number": {"type": "number"},
    "share": {"type": "number", "minimum": 0, "maximum": 1},
    "count": {"type": "integer", "minimum": 0},
    "duration": _FORMS["duration"],
    "list": {"type": "array", "minItems": 1},
    "mapping": {"type": "object"},
    "period": {
        "type": "object",
        "properties": {"start": _FORMS["day"], "end": _FORMS["day"]},
        "required": ["start", "end"],
        "additionalProperties": False,
    },
}
_WORDS = {
    "severity": SEVERITIES,
    "metric": METRICS,
    "mode": MODES,
    "expect": tuple(EXPECTATIONS),
}


def json_schema() -> dict[str, Any]:
    """Return the schema of one file of declarations, draft 2020-12; the same on every call."""
    return {
        "$schema": DIALECT,
        "title": "Declarations of Millrace",
        **_record(FILE),
        # An empty file declares nothing.
        "type": ["object", "null"],
    }


def _record(keys: Keys) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "properties": {name: _key(name, key, keys) for name, key in keys.keys.items()},
        "additionalProperties": False,
    }
    if keys.required:
        found["required"] = list(keys.required)
    rules = [
        *({"oneOf": _needed(group)} for group in keys.exactly_one),
        *({"anyOf": _needed(group)} for group in keys.at_least_one),
        *({"not": {"required": list(group)}} for group in keys.at_most_one),
    ]
    return {**found, "allOf": rules} if rules else found


def _kinds(keys: Keys) -> dict[str, Any]:
    if keys.other is None:
        return _record(keys)
    name, other = keys.other
    return {"if": {"required": [name]}, "then": _record(other), "else": _record(keys)}


def _needed(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"required": [name]} for name in names]


def _key(name: str, key: Key, of: Keys) -> dict[str, Any]:
    shape = _shape(name, key)
    if key.is_list:
        shape = {"type": "array", "items": shape}
        if of is FILE:
            # A heading with nothing, or only comments, under it.
            shape["type"] = ["array", "null"]
    default = f" Default: {key.default}." if key.default else ""
    return {"description": f"{key.meaning}.{default}", **shape}


def _shape(name: str, key: Key) -> dict[str, Any]:
    if isinstance(key.form, Keys):
        return _kinds(key.form)
    if key.choices:
        return {"enum": list(key.choices)}
    if name == "aggregate":
        return {"enum": list(AGGREGATES)}
    if key.form == "columns":
        column = {"anyOf": [_FORMS["type"], _record(COLUMN)]}
        name_rule = {"propertyNames": _FORMS["name"], "minProperties": 1}
        return {"type": "object", "additionalProperties": column, **name_rule}
    if key.form == "checks":
        return {"type": "array", "items": _check()}
    return _window() if key.form == "window" else dict(_FORMS[key.form])


def _window() -> dict[str, Any]:
    kinds = [_record(keys) for keys in WINDOWS.values()]
    return {"anyOf": [_FORMS["duration"], {"const": "lifetime"}, *kinds]}


def _check() -> dict[str, Any]:
    types = {"enum": list(CHECK_TYPES), "description": "What is measured."}
    return {
        "type": "object",
        "properties": {"type": types},
        "required": ["type"],
        "allOf": [_check_of(kind) for kind in CHECK_TYPES],
    }


def _check_of(kind: str) -> dict[str, Any]:
    known = CHECK_TYPES[kind]
    then: dict[str, Any] = {
        "description": f"{known.meaning[:1].upper()}{known.meaning[1:]}.",
        "properties": {
            "type": True,
            **{name: _argument(name, form) for name, form in check_arguments(kind).items()},
        },
        "additionalProperties": False,
    }
    if known.required:
        then["anyOf"] = _needed(known.required)
    return {"if": {"properties": {"type": {"const": kind}}}, "then": then}


def _argument(name: str, form: ArgumentKind) -> dict[str, Any]:
    meaning = {"description": _MEANINGS[name]} if name in COMMON else {}
    return {**meaning, **({"enum": list(_WORDS[name])} if name in _WORDS else _ARGUMENTS[form])}


_MEANINGS = {
    "feature": "The feature that is judged, of features/<view>.",
    "column": "The source column that is judged, of events/<source>.",
    "severity": "Whether it holds days back. Default: error.",
    "owner": "Who is told. Default: the owner of the view.",
    "runbook": "What to do, a link. Default: the page of the type.",
}
