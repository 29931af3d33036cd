"""A second opinion on what an event's bytes mean: the stdlib's JSON, and the table of types.

Written from docs/stream-events.md and docs/values.md alone; shares nothing with the archive's judge, nor with the
function in the Flink job.
"""

import base64
import binascii
import json
import math
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation, localcontext
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


class NotAnEvent(Exception):
    """The bytes are refused; the argument is the reason: ``malformed`` or ``schema``."""


def read_row(value: bytes | None, types: Mapping[str, str]) -> dict[str, Any]:
    """Return the declared columns of an event; absent ones are None.

    Instants come out as epoch milliseconds, decimals as ``Decimal``.

    Raises:
        NotAnEvent: the bytes are no JSON object, or a value does not fit its type.
    """
    found = _one_object(value)
    try:
        return {
            name: None if found.get(name) is None else _typed(found[name], type_)
            for name, type_ in types.items()
        }
    except (ValueError, InvalidOperation, OverflowError, binascii.Error) as error:
        raise NotAnEvent("schema") from error


class _Number(str):
    """A JSON number with a fraction or an exponent, as it was written."""

    __slots__ = ()


def _one_object(value: bytes | None) -> dict[str, Any]:
    try:
        text = (value or b"").decode("utf-8")
        found = json.loads(text, parse_float=_Number, parse_constant=_refuse)
        _refuse_surrogates(found)
    except ValueError as error:
        raise NotAnEvent("malformed") from error
    if not isinstance(found, dict):
        raise NotAnEvent("malformed")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _refuse_surrogates(value: object) -> None:
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, dict):
        for name, inner in value.items():
            name.encode("utf-8")
            _refuse_surrogates(inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_surrogates(inner)


def _typed(value: object, type_: str) -> Any:
    if type_.startswith("decimal"):
        return _decimal(value, type_)
    if type_.startswith("vector"):
        return _vector(value, int(type_[len("vector(") : -1]))
    return _READERS[type_](value)


def _integer(value: object, bits: int) -> int:
    limit = 2 ** (bits - 1)
    return int(_need(value, type(value) is int and -limit <= value < limit))


def _double(value: object) -> float:
    double = float(str(_need(value, type(value) in {int, _Number})))
    return float(_need(double, math.isfinite(double)))


def _vector(value: object, length: int) -> list[float]:
    elements = list(_need(value, isinstance(value, list)))
    _need(elements, len(elements) == length)
    return list(struct.unpack(f"{length}f", struct.pack(f"{length}f", *map(_double, elements))))


def _text(value: object) -> str:
    return str(_need(value, type(value) is str))


def _instant(value: object) -> int:
    ms = _integer(value, 64) if type(value) is int else _instant_ms(_text(value))
    return int(_need(ms, _FIRST_MS <= ms <= _LAST_MS))


def _day(value: object) -> date:
    text = _text(value)
    _need(text, _DAY.fullmatch(text) is not None)
    return date.fromisoformat(text)


_READERS: Mapping[str, Callable[[object], Any]] = {
    "int32": lambda value: _integer(value, 32),
    "int64": lambda value: _integer(value, 64),
    "float64": _double,
    "bool": lambda value: _need(value, isinstance(value, bool)),
    "string": _text,
    "timestamp": _instant,
    "date": _day,
    "bytes": lambda value: base64.b64decode(_text(value), validate=True),
}


def _need(value: Any, condition: bool) -> Any:  # noqa: FBT001
    if not condition:
        raise ValueError(value)
    return value


def _decimal(value: object, type_: str) -> Decimal:
    precision, scale = map(int, type_[len("decimal(") : -1].split(","))
    text = str(_need(value, type(value) in {int, str, _Number}))
    _need(text, _NUMBER.fullmatch(text) is not None)
    with localcontext(prec=2_000):
        exact = Decimal(text)
        shown = exact.quantize(Decimal(1).scaleb(-scale))
        _need(text, shown == exact and abs(shown) < Decimal(10) ** (precision - scale))
        return shown


def _instant_ms(text: str) -> int:
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    *fields, fraction, zone = match.groups()
    year, month, day, hour, minute, second = (int(f or 0) for f in fields)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=_zone(zone))
    whole_s = (moment - EPOCH) // timedelta(seconds=1)
    return whole_s * 1000 + int((fraction or "0").ljust(3, "0")[:3])


def _zone(text: str | None) -> timezone:
    if text in {None, "Z"}:
        return UTC
    assert text is not None
    hours, minutes = int(text[1:3]), int(text[-2:])
    _need(minutes, minutes < 60)
    span = timedelta(hours=hours, minutes=minutes)
    return timezone(-span if text[0] == "-" else span)
