"""What other systems call the aggregates of the language."""

from collections.abc import Mapping
from types import MappingProxyType

_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "average": "avg", "mean": "avg", "total": "sum", "minimum": "min", "maximum": "max",
        "std": "stddev", "stdev": "stddev", "stddev_samp": "stddev", "var": "variance",
        "var_samp": "variance", "size": "count", "n": "count", "earliest": "first", "oldest": "first",
        "latest": "last", "newest": "last", "most_recent": "last", "nunique": "distinct",
        "count_distinct": "distinct", "unique_count": "distinct", "hll": "approx_distinct",
        "approx_count_distinct": "approx_distinct", "quantile": "percentile", "last_n": "last_k",
        "first_n": "first_k", "last_distinct_n": "last_k", "recency": "time_since_last",
        "age": "time_since_first", "seconds_since_last": "time_since_last",
    }
)  # fmt: skip
"""Names of aggregates elsewhere."""


def nearest_aggregate(name: str) -> str:
    """Say what comes closest in meaning to an aggregate of another name, for the ``fix`` of an error.

    Returns:
        empty where the name is nobody's word for an aggregate.

    >>> nearest_aggregate("mean"), nearest_aggregate("p95")
    ("did you mean 'avg'?", '')
    """
    meant = _ELSEWHERE.get(name.lower())
    return "" if meant is None else f"did you mean {meant!r}?"
