"""What a scalar of YAML says without quotes.

Versions and readers of YAML differ about ``NO``, ``010``, ``12:30:45``, ``1_000``, ``1e3`` and many
more. Here a scalar is a number, a truth value or null only where all of them agree and nothing of its
text is lost; everything else stays the text that was written, and what a field is declared to be
decides whether that text will do.
"""

import re
from typing import Any

from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = frozenset({_TAG + "str", _TAG + "timestamp"})
_WORDS = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None,
    ".inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,1000})", re.ASCII)
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)
_OTHER_WAYS = re.compile(r"[yYnN]|[-+]?0o?[0-7]+|[-+]?[0-9]+", re.ASCII)
"""Truth values of YAML 1.1 that PyYAML leaves alone, and integers with zeros before them."""


def plain_value(text: str) -> Any:
    """Return a number, truth value or null where the text is how one is written, else the text.

    >>> [plain_value(t) for t in ("10", "010", "0.5", "0.50", "1e3", "true", "NO", "12:30:45")]
    [10, '010', 0.5, '0.50', '1e3', True, 'NO', '12:30:45']
    """
    if text in _WORDS:
        return _WORDS[text]
    if (value := number(text)) is not None and repr(value) == text:
        return value
    return text


def number(text: str) -> int | float | None:
    """Return a decimal number; None for any other way to write one: ``010``, ``0x1f``, ``1_000``.

    >>> [number(t) for t in ("10", "+1", "0.50", "1e3", "010", "0x1f", "1_000", ".inf")]
    [10, 1, 0.5, 1000.0, None, None, None, None]
    """
    if _INTEGER.fullmatch(text) is not None:
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) is not None else None


def is_text_to_all(text: str) -> bool:
    """True if every reader of every version takes the text, without quotes, for that text.

    A day (``2024-01-01``) counts as one: no field means anything else by it.

    >>> [is_text_to_all(t) for t in ("web", "2024-01-01", "NO", "010", "12:30:45", "1e3", "~")]
    [True, True, False, False, False, False, False]
    """
    if text in _WORDS or number(text) is not None or _OTHER_WAYS.fullmatch(text) is not None:
        return False
    return legacy_tag(text) in _TEXT_TAGS


def is_quoted(node: ScalarNode) -> bool:
    """True for a scalar in quotes, in a block, or tagged as a text: its text is what is meant."""
    if node.style is not None:
        return True
    # A tag that is written out is told by its differing from what the text alone would have.
    return bool(node.tag == _TAG + "str" and legacy_tag(node.value) != node.tag)


def legacy_tag(text: str) -> str:
    """Return what YAML 1.1 takes a text without quotes for."""
    tag: str = Resolver().resolve(ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return tag
