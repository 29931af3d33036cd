"""Millrace's language: feature views, what they mean, and what each engine is told of them.

    from millrace import Entity, FeatureView, Source, count, avg, last

Names are loaded at first use, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millrace.aggregations import (
        approx_distinct,
        avg,
        count,
        distinct,
        first,
        first_k,
        last,
        last_k,
        max,
        median,
        min,
        mode,
        percentile,
        session,
        stddev,
        sum,
        time_since_first,
        time_since_last,
        top_k,
        tumbling,
        variance,
    )
    from millrace.authoring import (
        BatchSource,
        Check,
        Column,
        Entity,
        FeatureService,
        FeatureView,
        Schedule,
        Source,
        StreamSource,
    )
    from millrace.derivations import derived
    from millrace.errors import Fault, PlatformError, SpecError

__all__ = [
    "BatchSource",
    "Check",
    "Column",
    "Entity",
    "Fault",
    "FeatureService",
    "FeatureView",
    "PlatformError",
    "Schedule",
    "Source",
    "SpecError",
    "StreamSource",
    "approx_distinct",
    "avg",
    "count",
    "derived",
    "distinct",
    "first",
    "first_k",
    "last",
    "last_k",
    "max",
    "median",
    "min",
    "mode",
    "percentile",
    "session",
    "stddev",
    "sum",
    "time_since_first",
    "time_since_last",
    "top_k",
    "tumbling",
    "variance",
]

_ERRORS = frozenset({"Fault", "PlatformError", "SpecError"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name in _ERRORS:
        return getattr(import_module("millrace.errors"), name)
    # Declarations are nouns and begin with a capital, aggregates and windows do not.
    home = "authoring" if name[0].isupper() else "aggregations"
    home = "derivations" if name == "derived" else home
    return getattr(import_module(f"millrace.{home}"), name)


def __dir__() -> list[str]:
    return __all__
