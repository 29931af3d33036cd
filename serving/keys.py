"""Keys as requests write them: JSON values, or the text of a path, to values of a key's type.

Nothing is guessed: a number in quotes is no int64, and 7.0 is none either.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any

import msgspec

from millrace.errors import DataError
from millrace.types import DataType
from serving.errors import BadRequest
from serving.instants import instant_ms

JoinKeys = tuple[tuple[str, DataType], ...]
"""Name and type of each join key, in order."""

_MOST_SHOWN = 60
_MOST_DIGITS = 100  # of a decimal, before and behind the point; types hold 38
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_BOUNDS = {"int32": 2**31, "int64": 2**63, "timestamp": 2**63}
_INTEGER = re.compile(r"-?\d{1,20}")
_WRITTEN_AS = {
    "int32": "a JSON integer of 32 bits",
    "int64": "a JSON integer of 64 bits",
    "float64": "a finite JSON number",
    "decimal": "a JSON number or a string holding one, exact",
    "bool": "true or false",
    "string": "a JSON string",
    "timestamp": "epoch milliseconds or an ISO-8601 string",
    "date": "a string YYYY-MM-DD",
    "bytes": "a base64 string",
}


def key_values(join_keys: JoinKeys, key: Any, where: str) -> dict[str, Any]:
    """Return the value of each join key that a request's key names.

    Args:
        join_keys: those that are needed.
        key: a scalar where there is one join key, else an object; an object is always fine.
        where: place of the key in the request, for errors.

    Raises:
        BadRequest: not of its type, null, or an object with other fields; key and type are named.
    """
    if not isinstance(key, dict):
        if len(join_keys) != 1:
            raise BadRequest(
                f"the key {_shown(key)} is a single value",
                where=where,
                fix=f"give an object with {_names(join_keys)}",
            )
        ((name, type_),) = join_keys
        return {name: _converted(name, type_, key, where)}
    if set(key) != {name for name, _ in join_keys}:
        raise BadRequest(
            f"the key {_shown(key)} does not have the fields of this entity",
            where=where,
            fix=f"give an object with {_names(join_keys)} and nothing else",
        )
    return {name: _converted(name, type_, key[name], where) for name, type_ in join_keys}


def key_of_text(join_keys: JoinKeys, text: str) -> Any:
    """Return the key that a path or a command line writes, as JSON would write it.

    One join key: its value as it is. Several: a JSON object, or ``name=value,name=value``.

    Raises:
        BadRequest: the text is no such thing.
    """
    types = dict(join_keys)
    if text.startswith("{") and (len(types) > 1 or types[next(iter(types))].kind != "string"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise BadRequest(
                f"the key {_shown(text)} is not a JSON object: {error}", where="entity_key"
            ) from error
    if len(types) == 1:
        return _json_of_text(types[next(iter(types))], text)
    parts = [part.partition("=") for part in text.split(",")]
    if any(not is_pair for _, is_pair, _ in parts) or len(parts) != len(types):
        wanted = ",".join(f"{name}=…" for name in types)
        raise BadRequest(
            f"the key {_shown(text)} does not name its parts",
            where="entity_key",
            fix=f"write {wanted}, or a JSON object",
        )
    return {
        name: _json_of_text(types[name], value) if name in types else value
        for name, _, value in parts
    }


def _json_of_text(type_: DataType, text: str) -> Any:
    if (type_.is_integer or type_.kind == "timestamp") and _INTEGER.fullmatch(text):
        return int(text)
    if type_.kind == "bool" and text in {"true", "false"}:
        return text == "true"
    if type_.kind == "float64":
        try:
            return Decimal(text)
        except InvalidOperation:
            return text
    return text


def _converted(name: str, type_: DataType, value: Any, where: str) -> Any:
    if value is None:
        raise BadRequest(
            f"the key is null, {name} is {type_}",
            where=where,
            fix="give every join key a value; a null key is served to nobody",
        )
    try:
        converted = _CONVERSIONS[type_.kind](value)
    except (ValueError, InvalidOperation, binascii.Error, OverflowError):
        converted = None
    bound = _BOUNDS.get(type_.kind)
    if converted is None or (bound is not None and not -bound <= converted < bound):
        raise misfit(name, type_, value, where)
    return converted


def misfit(name: str, type_: DataType, value: Any, where: str) -> BadRequest:
    """Return the error of a key that is not of its type."""
    return BadRequest(
        f"the key {_shown(value)} is not of the type of {name}, {type_}",
        where=where,
        fix=f"write {name} as {_WRITTEN_AS[type_.kind]}",
    )


def as_bad_request(error: DataError, where: str) -> BadRequest:
    """Return what the codec says of a key, with its place in the request."""
    return BadRequest(f"the key cannot be stored: {error.what}", where=where, fix=error.fix)


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _double(value: Any) -> float | None:
    if type(value) is not int and not isinstance(value, Decimal):
        return None
    double = float(value)
    return double if isfinite(double) else None


def _decimal(value: Any) -> Decimal | None:
    if isinstance(value, str) or type(value) is int or isinstance(value, Decimal):
        exact = Decimal(value)
        return exact if exact.is_finite() and abs(exact.adjusted()) <= _MOST_DIGITS else None
    return None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _timestamp(value: Any) -> int | None:
    return instant_ms(value) if isinstance(value, str) else _integer(value)


def _date(value: Any) -> date | None:
    is_day = isinstance(value, str) and _DAY.fullmatch(value)
    return date.fromisoformat(value) if is_day else None


def _bytes(value: Any) -> bytes | None:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else None


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "int32": _integer,
    "int64": _integer,
    "float64": _double,
    "decimal": _decimal,
    "bool": _bool,
    "string": _string,
    "timestamp": _timestamp,
    "date": _date,
    "bytes": _bytes,
}


def _shown(value: Any) -> str:
    text = _ENCODER.encode(value).decode()
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def _names(join_keys: JoinKeys) -> str:
    return " and ".join(f"{name} ({type_})" for name, type_ in join_keys)
