"""The declarations of the live tests, and the same said once more for the oracle.

``PAYMENTS`` has three views on one topic, ``PULSES`` one view of short windows on another. The
YAML and the oracle's features are written apart on purpose: each is a reading of the contract.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from tests.live.oracle import OracleFeature, OracleView, Row, SourceRules
from tests.reference import DAY_MS, Feature

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000

_START = datetime.now(tz=UTC).date() - timedelta(days=2)  # windows of a day lie within history
START_MS = int(datetime(_START.year, _START.month, _START.day, tzinfo=UTC).timestamp() * 1000)

PAYMENTS = f"""
version: millrace/v1
sources:
  - name: live_payments
    columns:
      id: string
      at: timestamp
      customer_id: int64
      shop: string
      amount: decimal(12,2)
      weight: float64
      items: int32
      is_gift: bool
    event_time: at
    event_id: id
    allowed_lateness: 10m
    clock_skew: 5s
    stream: {{topic: live_payments, format: json}}
entities:
  - {{name: live_customer, join_key: customer_id, type: int64}}
  - {{name: live_shop, join_key: shop, type: string}}
feature_views:
  - name: live_spend
    entity: live_customer
    source: live_payments
    start: {_START}
    features:
      - {{name: "c_count_{{window}}", aggregate: count, windows: [2m, 10m, 1h, 1d]}}
      - {{name: "c_amount_sum_{{window}}", aggregate: sum, column: amount, windows: [2m, 1h, 1d]}}
      - {{name: c_amount_avg_10m, aggregate: avg, column: amount, window: 10m}}
      - {{name: c_amount_min_1h, aggregate: min, column: amount, window: 1h}}
      - {{name: c_amount_max_2m, aggregate: max, column: amount, window: 2m}}
      - {{name: c_weight_sum_10m, aggregate: sum, column: weight, window: 10m}}
      - {{name: c_weight_stddev_1h, aggregate: stddev, column: weight, window: 1h}}
      - {{name: c_items_sum_1d, aggregate: sum, column: items, window: 1d}}
      - {{name: c_weight_count_2m, aggregate: count, column: weight, window: 2m}}
      - {{name: c_last_shop_1h, aggregate: last, column: shop, window: 1h}}
      - {{name: c_first_amount_2m, aggregate: first, column: amount, window: 2m}}
      - {{name: c_count_2m_before, aggregate: count, window: 2m, offset: 1m}}
      - {{name: c_gifts_2m, aggregate: sum, expr: "CASE WHEN is_gift THEN 1 ELSE 0 END", window: 2m}}
  - name: live_till
    entity: live_shop
    source: live_payments
    start: {_START}
    filter: "amount > 100"
    features:
      - {{name: "s_count_{{window}}", aggregate: count, windows: [2m, 6m, 1d]}}
      - {{name: s_amount_sum_2m, aggregate: sum, column: amount, window: 2m}}
      - {{name: s_amount_max_1d, aggregate: max, column: amount, window: 1d}}
      - {{name: s_weight_avg_1h, aggregate: avg, column: weight, window: 1h}}
      - {{name: s_weight_min_1d, aggregate: min, column: weight, window: 1d}}
      - {{name: s_items_last_6m, aggregate: last, column: items, window: 6m}}
      - {{name: s_share_1h, aggregate: avg, expr: "items / 1000 + 1", window: 1h}}
      - {{name: s_amount_lifetime, aggregate: sum, column: amount, window: lifetime}}
"""

PULSES = f"""
version: millrace/v1
sources:
  - name: live_pulses
    columns: {{n: int64, at: timestamp, heart: string}}
    event_time: at
    stream: {{topic: live_pulses, format: json}}
entities:
  - {{name: live_heart, join_key: heart, type: string}}
feature_views:
  - name: live_pulse
    entity: live_heart
    source: live_pulses
    start: {_START}
    features:
      - {{name: "p_count_{{window}}", aggregate: count, windows: [5s, 10s, 12s]}}
      - {{name: p_max_10s, aggregate: max, column: n, window: 10s}}
      - {{name: p_count_5s_before, aggregate: count, window: 5s, offset: 3s}}
"""

CHANGED_PULSES = PULSES.replace("windows: [5s, 10s, 12s]", "windows: [5s, 10s, 15s]")
"""The same view with another meaning: a new version."""


def _count(length_ms: int, hop_ms: int, offset_ms: int = 0) -> OracleFeature:
    return OracleFeature(Feature("count_rows", length_ms, hop_ms, offset_ms))


def _of(
    column: str, aggregate: str, length_ms: int | None, hop_ms: int, type_: str
) -> OracleFeature:
    return OracleFeature(Feature(aggregate, length_ms, hop_ms, 0, type_), _reader(column))


@cache
def _reader(column: str) -> Callable[[Row], Any]:
    return lambda row: row[column]


def _gift(row: Row) -> int:
    return 1 if row["is_gift"] is True else 0


def _share(row: Row) -> float | None:
    return None if row["items"] is None else row["items"] / 1000 + 1


def _is_large(row: Row) -> bool | None:
    return None if row["amount"] is None else row["amount"] > 100


_MONEY = "decimal(12,2)"

PAYMENT_RULES = SourceRules(
    types={
        "id": "string",
        "at": "timestamp",
        "customer_id": "int64",
        "shop": "string",
        "amount": _MONEY,
        "weight": "float64",
        "items": "int32",
        "is_gift": "bool",
    },
    event_time="at",
    event_id="id",
    allowed_lateness_ms=10 * MINUTE_MS,
    clock_skew_ms=5 * SECOND_MS,
)

SPEND = OracleView(
    keys=("customer_id",),
    start_ms=START_MS,
    features={
        "c_count_2m": _count(2 * MINUTE_MS, 10 * SECOND_MS),
        "c_count_10m": _count(10 * MINUTE_MS, 10 * SECOND_MS),
        "c_count_1h": _count(HOUR_MS, 5 * MINUTE_MS),
        "c_count_1d": _count(DAY_MS, HOUR_MS),
        "c_amount_sum_2m": _of("amount", "sum", 2 * MINUTE_MS, 10 * SECOND_MS, _MONEY),
        "c_amount_sum_1h": _of("amount", "sum", HOUR_MS, 5 * MINUTE_MS, _MONEY),
        "c_amount_sum_1d": _of("amount", "sum", DAY_MS, HOUR_MS, _MONEY),
        "c_amount_avg_10m": _of("amount", "avg", 10 * MINUTE_MS, 10 * SECOND_MS, _MONEY),
        "c_amount_min_1h": _of("amount", "min", HOUR_MS, 5 * MINUTE_MS, _MONEY),
        "c_amount_max_2m": _of("amount", "max", 2 * MINUTE_MS, 10 * SECOND_MS, _MONEY),
        "c_weight_sum_10m": _of("weight", "sum", 10 * MINUTE_MS, 10 * SECOND_MS, "float64"),
        "c_weight_stddev_1h": _of("weight", "stddev", HOUR_MS, 5 * MINUTE_MS, "float64"),
        "c_items_sum_1d": _of("items", "sum", DAY_MS, HOUR_MS, "int32"),
        "c_weight_count_2m": _of("weight", "count", 2 * MINUTE_MS, 10 * SECOND_MS, "float64"),
        "c_last_shop_1h": _of("shop", "last", HOUR_MS, 5 * MINUTE_MS, "string"),
        "c_first_amount_2m": _of("amount", "first", 2 * MINUTE_MS, 10 * SECOND_MS, _MONEY),
        "c_count_2m_before": _count(2 * MINUTE_MS, 10 * SECOND_MS, MINUTE_MS),
        "c_gifts_2m": OracleFeature(Feature("sum", 2 * MINUTE_MS, 10 * SECOND_MS), _gift),
    },
)

TILL = OracleView(
    keys=("shop",),
    start_ms=START_MS,
    where=_is_large,
    features={
        "s_count_2m": _count(2 * MINUTE_MS, 10 * SECOND_MS),
        "s_count_6m": _count(6 * MINUTE_MS, 10 * SECOND_MS),
        "s_count_1d": _count(DAY_MS, HOUR_MS),
        "s_amount_sum_2m": _of("amount", "sum", 2 * MINUTE_MS, 10 * SECOND_MS, _MONEY),
        "s_amount_max_1d": _of("amount", "max", DAY_MS, HOUR_MS, _MONEY),
        "s_weight_avg_1h": _of("weight", "avg", HOUR_MS, 5 * MINUTE_MS, "float64"),
        "s_weight_min_1d": _of("weight", "min", DAY_MS, HOUR_MS, "float64"),
        "s_items_last_6m": _of("items", "last", 6 * MINUTE_MS, 10 * SECOND_MS, "int32"),
        "s_share_1h": OracleFeature(Feature("avg", HOUR_MS, 5 * MINUTE_MS, 0, "float64"), _share),
        "s_amount_lifetime": _of("amount", "sum", None, DAY_MS, _MONEY),
    },
)

PULSE_RULES = SourceRules(
    types={"n": "int64", "at": "timestamp", "heart": "string"},
    event_time="at",
    event_id=None,
    allowed_lateness_ms=HOUR_MS,
    clock_skew_ms=5 * SECOND_MS,
)

PULSE = OracleView(
    keys=("heart",),
    start_ms=START_MS,
    features={
        "p_count_5s": _count(5 * SECOND_MS, SECOND_MS),
        "p_count_10s": _count(10 * SECOND_MS, SECOND_MS),
        "p_count_12s": _count(12 * SECOND_MS, SECOND_MS),
        "p_max_10s": _of("n", "max", 10 * SECOND_MS, SECOND_MS, "int64"),
        "p_count_5s_before": _count(5 * SECOND_MS, SECOND_MS, 3 * SECOND_MS),
    },
)

CHANGED_PULSE_15S = _count(15 * SECOND_MS, SECOND_MS)
"""What ``CHANGED_PULSES`` has in the place of ``p_count_12s``."""

_ADDED = frozenset({"sum", "avg", "variance", "stddev"})


def is_right(feature: OracleFeature, served: object, expected: object) -> bool:
    """Compare a value of the API's JSON with the oracle's; exact but where doubles are added.

    Numbers with a fraction were read from the JSON as ``Decimal``, so none of their digits is lost.
    """
    if served is None or expected is None:
        return served is expected
    if isinstance(expected, bool) or isinstance(served, bool):
        return served is expected
    if isinstance(expected, float):
        tolerance = 1e-9 if feature.reference.aggregate in _ADDED else 0.0
        return math.isclose(
            float(str(served)), expected, rel_tol=tolerance, abs_tol=tolerance / 1e3
        )
    if isinstance(expected, (int, Decimal)):
        return not isinstance(served, float) and Decimal(str(served)) == Decimal(expected)
    return served == expected


VIEWS: Mapping[str, tuple[str, OracleView]] = {
    "live_spend": ("live_customer", SPEND),
    "live_till": ("live_shop", TILL),
    "live_pulse": ("live_heart", PULSE),
}
"""Entity and oracle of each view."""
