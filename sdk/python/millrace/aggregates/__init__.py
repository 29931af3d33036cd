"""Aggregates: the registry of them, what they keep of a tile, and how kept parts merge.

To add one, see ``docs/aggregates.md``.
"""

from millrace.aggregates.algebras import Algebra, State
from millrace.aggregates.elsewhere import nearest_aggregate
from millrace.aggregates.encodings import Encoding
from millrace.aggregates.forms import Unsupported, check_forms
from millrace.aggregates.partials import PARTIALS, Encoded, LastEvent, Partial, Rows
from millrace.aggregates.places import Edge, Place
from millrace.aggregates.registry import (
    AGGREGATES,
    ENCODINGS,
    TOLERANCES,
    WITHOUT_INPUT,
    Aggregate,
    Agreement,
    Entry,
    Parameter,
    aggregate_named,
)

__all__ = [
    "AGGREGATES",
    "ENCODINGS",
    "PARTIALS",
    "TOLERANCES",
    "WITHOUT_INPUT",
    "Aggregate",
    "Agreement",
    "Algebra",
    "Edge",
    "Encoded",
    "Encoding",
    "Entry",
    "LastEvent",
    "Parameter",
    "Partial",
    "Place",
    "Rows",
    "State",
    "Unsupported",
    "aggregate_named",
    "check_forms",
    "nearest_aggregate",
]
