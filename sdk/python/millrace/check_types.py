"""The types of checks that a declaration may name, and the arguments each takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from millrace.durations import parse_duration
from millrace.types import KINDS

ArgumentKind = Literal["number", "share", "count", "duration", "text", "list", "period", "mapping"]
Of = Literal["table", "column", "either"]

METRICS = ("psi", "js", "mean", "variance")
SEVERITIES = ("error", "warn")
MODES = ("profile", "rows")

COMMON: Mapping[str, ArgumentKind] = MappingProxyType(
    {
        "feature": "text",
        "column": "text",
        "severity": "text",
        "owner": "text",
        "runbook": "text",
    }
)
"""Arguments of every check; all but these are limits."""


@dataclass(frozen=True)
class CheckType:
    """One type of check.

    Attributes:
        meaning: what is measured, for messages and documents.
        of: what it judges: the table, a column, or either.
        arguments: its arguments beside ``COMMON``, each with what may stand there.
        required: one of these must be given; empty if none need be.
        kinds: kinds of values a column may have; empty for any.
    """

    meaning: str
    of: Of
    arguments: Mapping[str, ArgumentKind]
    required: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()


_SCALARS = frozenset(KINDS)
_NUMBERS = frozenset({"int32", "int64", "float64", "decimal"})
_BASELINE: Mapping[str, ArgumentKind] = {"baseline": "period", "spreads": "number"}

CHECK_TYPES: Mapping[str, CheckType] = MappingProxyType(
    {
        "rows": CheckType(
            "rows of the day", "table", {"min": "count", "max": "count"}, ("min", "max")
        ),
        "volume": CheckType(
            "rows against those of the same weekday",
            "table",
            {"tolerance": "number", **_BASELINE},
        ),
        "completeness": CheckType(
            "hours without rows that usually have them", "table", {"max": "count", **_BASELINE}
        ),
        "freshness": CheckType(
            "how long before the day's end its newest event lies",
            "table",
            {"max_age": "duration", "tolerance": "duration", **_BASELINE},
        ),
        "null_keys": CheckType(
            "events that belong to nobody, a join key being null",
            "table",
            {"max": "count", "tolerance": "share", **_BASELINE},
        ),
        "dead_letters": CheckType(
            "events that were refused",
            "table",
            {"max": "count", "tolerance": "share", **_BASELINE},
        ),
        "uniqueness": CheckType(
            "share of rows that another row repeats",
            "table",
            {"max": "share", "tolerance": "share", **_BASELINE},
        ),
        "null_rate": CheckType(
            "share of nulls",
            "column",
            {"max": "share", "tolerance": "share", **_BASELINE},
        ),
        "range": CheckType(
            "values outside a range: the given, or the usual one",
            "column",
            {"min": "number", "max": "number", "tolerance": "share", **_BASELINE},
            kinds=_NUMBERS,
        ),
        "cardinality": CheckType(
            "number of different values",
            "column",
            {"min": "count", "max": "count", "tolerance": "number", **_BASELINE},
            kinds=_SCALARS,
        ),
        "unseen": CheckType(
            "share of values that were never seen before, or are not among the given",
            "column",
            {"values": "list", "max": "share", "tolerance": "share", **_BASELINE},
            kinds=frozenset({"string", "bool", "int32", "int64"}),
        ),
        "frozen": CheckType(
            "share of the most frequent value",
            "column",
            {"max": "share", "tolerance": "share", **_BASELINE},
            kinds=_SCALARS,
        ),
        "drift": CheckType(
            "how far the distribution lies from the baseline's",
            "column",
            {
                "metric": "text",
                "max": "number",
                "tolerance": "number",
                "error_times": "number",
                **_BASELINE,
            },
            kinds=_NUMBERS | {"string", "bool"},
        ),
        "expectation": CheckType(
            "an expectation of Great Expectations",
            "either",
            {"expect": "text", "arguments": "mapping", "mode": "text"},
            ("expect",),
        ),
    }
)
"""By name."""


def absolute(limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits with durations as milliseconds: ``max_age: 1h`` is ``max_age_ms: 3600000``."""
    plain: dict[str, Any] = {}
    for name, value in limits.items():
        if isinstance(value, str) and name in {"max_age", "tolerance"}:
            plain[f"{name}_ms"] = parse_duration(value)
        else:
            plain[name] = value
    return plain
