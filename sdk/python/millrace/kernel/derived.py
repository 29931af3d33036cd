"""Derived features: columns calculated of the feature columns of the same rows."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from millrace.expressions import AS_OF
from millrace.expressions.arrow import evaluate_column
from millrace.plan import DerivedPlan
from millrace.types import TIMESTAMP
from millrace.values.arrow import arrow_type


def derive(
    derived: Sequence[DerivedPlan], features: pa.Table, query_ms: pa.ChunkedArray
) -> pa.Table:
    """Return the features with the derived ones behind them.

    Args:
        derived: each behind its inputs.
        features: a column for every aggregate that they read, defaults filled in.
        query_ms: the instant of each row, epoch milliseconds.
    """
    values = features
    if any(AS_OF in feature.expression.columns for feature in derived):
        instants = pc.multiply(query_ms, 1000).cast(arrow_type(TIMESTAMP))
        values = values.append_column(AS_OF, instants)
    for feature in derived:
        column = evaluate_column(feature.expression, values)
        values = values.append_column(feature.name, with_default(column, feature.default))
    return values.drop_columns([AS_OF]) if AS_OF in values.column_names else values


def with_default(column: pa.Array, default: Any) -> pa.Array:
    """Return a column with a value in place of its nulls; None: they stay."""
    return column if default is None else column.fill_null(pa.scalar(default, column.type))
