"""Bytes that are exactly one JSON object, or the reason why they are not."""

import json
import re
import sys
from typing import NoReturn

from millrace.values.scalars import Number

DEEPEST = 1000
"""JSON nested deeper than this is malformed."""
# The parser must go as deep as is allowed, wherever in the stack it is called.
sys.setrecursionlimit(max(sys.getrecursionlimit(), 4 * DEEPEST))

_OPENING, _CLOSING = ("[", "{"), ("]", "}")
_HIGH_SURROGATES = range(0xD800, 0xDC00)
_LOW_SURROGATES = range(0xDC00, 0xE000)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


class MalformedError(ValueError):
    """The bytes are not what their format makes a row of: one JSON object, a line of CSV."""


def parse_object(value: bytes | None) -> dict[str, object]:
    """Return the one JSON object that the bytes are; numbers as ``Number``, the last of equal names.

    Raises:
        MalformedError: they are anything else.
    """
    if value is None:
        raise MalformedError("no value (a tombstone)")
    if not value:
        raise MalformedError("empty")
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8") from None
    _check_depth(text)
    try:
        found = json.loads(
            text, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        raise MalformedError(f"{error.msg} at character {error.pos}") from None
    if not isinstance(found, dict):
        raise MalformedError("JSON, but not an object")
    _check_surrogates(text)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    depth = 0
    for match in _BRACKETS.finditer(text):
        depth += (match[0] in _OPENING) - (match[0] in _CLOSING)
        if depth > DEEPEST:
            raise MalformedError(f"nested deeper than {DEEPEST} levels")


def _check_surrogates(text: str) -> None:
    """Refuse an escaped surrogate without its other half; JSON's grammar lets it pass."""
    if "\\u" not in text:
        return
    open_until = -1
    for match in _ESCAPE.finditer(text):
        code = int(match[1], 16) if match[1] else 0
        is_low = code in _LOW_SURROGATES
        if (open_until >= 0) != is_low or (is_low and match.start() != open_until):
            raise MalformedError("a lone surrogate escape")
        open_until = match.end() if code in _HIGH_SURROGATES else -1
    if open_until >= 0:
        raise MalformedError("a lone surrogate escape")
