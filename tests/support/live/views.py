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

from millrace.aggregates import AGGREGATES
from tests.reference import DAY_MS, Derived, Feature
from tests.support.live.every_aggregate import Live, every_aggregate, yaml_of
from tests.support.live.oracle import OracleFeature, OracleView, Row, SourceRules

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_START = datetime.now(tz=UTC).date() - timedelta(days=2)  # windows of a day lie within history
START_MS = int(datetime(_START.year, _START.month, _START.day, tzinfo=UTC).timestamp() * 1000)

_MONEY, _TASTE = "decimal(12,2)", "vector(3)"
LATENESS_MS = 70 * MINUTE_MS  # so that windows of whole hours that are over are not empty

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
        "taste": "vector(3)",
    },
    event_time="at",
    event_id="id",
    allowed_lateness_ms=LATENESS_MS,
    clock_skew_ms=5 * SECOND_MS,
)

_SPEND_EVERY = every_aggregate(
    "c", PAYMENT_RULES.types, ("shop", "amount", "items", "weight", "is_gift"), place=0
)
_TILL_EVERY = every_aggregate(
    "s", PAYMENT_RULES.types, ("customer_id", "weight", "id", "amount", "at", "items"), place=1
)

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
      taste: vector(3)
    event_time: at
    event_id: id
    allowed_lateness: 70m
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
      - {{name: c_burst, derive: "c_share_2m > 0.5 AND c_time_since_last_sliding < 30000"}}
      - {{name: c_share_2m, derive: "c_count_2m / NULLIF(c_count_1h, 0)", default: 0}}
      - {{name: c_quiet_s, derive: "FLOOR(c_time_since_first_sliding / 1000)", default: -1}}
      - {{name: c_taste_count_2m, aggregate: count, column: taste, window: 2m}}
      - {{name: c_taste_avg_10m, aggregate: avg, column: taste, window: 10m}}
      - {{name: c_taste_first_2m, aggregate: first, column: taste, window: 2m}}
      - {{name: c_taste_last_1h, aggregate: last, column: taste, window: 1h}}
      - {{name: c_usual_shop_1h, aggregate: mode, column: shop, window: 1h, limit: 3}}
      - {{name: c_usual_length, derive: "LENGTH(c_usual_shop_1h)"}}
      - {{name: c_is_usual, derive: "c_usual_length < 8", default: true}}
      - {{name: c_minute, derive: "MINUTE(AS_OF())"}}
{yaml_of(_SPEND_EVERY)}  - name: live_till
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
{yaml_of(_TILL_EVERY)}"""

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
      - {{name: p_idle_ms, aggregate: time_since_last, window: 10s}}
      - {{name: p_run, aggregate: count, window: {{session: 3s, max: 12s}}}}
      - {{name: p_run_ms, aggregate: time_since_first, window: {{session: 3s, max: 12s}}, default: 0}}
      - {{name: p_lasts_10s, aggregate: last_k, column: n, k: 3, window: 10s}}
      - {{name: p_share, derive: "p_count_5s / NULLIF(p_count_10s, 0)", default: -1}}
      - {{name: p_is_idle, derive: "p_idle_ms > 2000"}}
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


def _every(features: Mapping[str, Live]) -> dict[str, OracleFeature]:
    """Return generated features for the oracle."""
    return {
        name: OracleFeature(one.reference, None if one.column is None else _reader(one.column))
        for name, one in features.items()
    }


def _gift(row: Row) -> int:
    return 1 if row["is_gift"] is True else 0


def _if_known(value: Any, of: Callable[[Any], Any]) -> Any:
    return None if value is None else of(value)


def _ratio(part: str, whole: str) -> Callable[[Row], float | None]:
    return lambda row: row[part] / row[whole] if row[whole] else None


def _minute(row: Row) -> int:
    return int(row["AS_OF()"] // MINUTE_MS % 60)


def _burst(row: Row) -> bool | None:
    is_much = row["c_share_2m"] > 0.5
    is_new = _if_known(row["c_time_since_last_sliding"], lambda ms: ms < 30_000)
    return is_new if is_much else False


def _share(row: Row) -> float | None:
    return None if row["items"] is None else row["items"] / 1000 + 1


def _is_large(row: Row) -> bool | None:
    return None if row["amount"] is None else row["amount"] > 100


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
        "c_taste_count_2m": _of("taste", "count", 2 * MINUTE_MS, 10 * SECOND_MS, _TASTE),
        "c_taste_avg_10m": _of("taste", "avg", 10 * MINUTE_MS, 10 * SECOND_MS, _TASTE),
        "c_taste_first_2m": _of("taste", "first", 2 * MINUTE_MS, 10 * SECOND_MS, _TASTE),
        "c_taste_last_1h": _of("taste", "last", HOUR_MS, 5 * MINUTE_MS, _TASTE),
        "c_usual_shop_1h": OracleFeature(
            Feature("mode", HOUR_MS, 5 * MINUTE_MS, 0, "string", parameters=(("limit", 3),)),
            _reader("shop"),
        ),
        **_every(_SPEND_EVERY),
    },
    derived={
        "c_burst": Derived(("c_share_2m", "c_time_since_last_sliding"), _burst),
        "c_share_2m": Derived(
            ("c_count_2m", "c_count_1h"),
            _ratio("c_count_2m", "c_count_1h"),
            0.0,
        ),
        "c_quiet_s": Derived(
            ("c_time_since_first_sliding",),
            lambda row: _if_known(row["c_time_since_first_sliding"], lambda ms: ms // 1000),
            -1,
        ),
        "c_usual_length": Derived(
            ("c_usual_shop_1h",),
            lambda row: _if_known(row["c_usual_shop_1h"], len),
        ),
        "c_is_usual": Derived(
            ("c_usual_length",),
            lambda row: _if_known(row["c_usual_length"], lambda length: length < 8),
            default=True,
        ),
        "c_minute": Derived((), _minute),
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
        **_every(_TILL_EVERY),
    },
)

PULSE_RULES = SourceRules(
    types={"n": "int64", "at": "timestamp", "heart": "string"},
    event_time="at",
    event_id=None,
    allowed_lateness_ms=HOUR_MS,
    clock_skew_ms=5 * SECOND_MS,
)


def _of_run(aggregate: str, default: object = None) -> Feature:
    return Feature(aggregate, 12 * SECOND_MS, SECOND_MS, default=default, session_ms=3 * SECOND_MS)


PULSE = OracleView(
    keys=("heart",),
    start_ms=START_MS,
    features={
        "p_count_5s": _count(5 * SECOND_MS, SECOND_MS),
        "p_count_10s": _count(10 * SECOND_MS, SECOND_MS),
        "p_count_12s": _count(12 * SECOND_MS, SECOND_MS),
        "p_max_10s": _of("n", "max", 10 * SECOND_MS, SECOND_MS, "int64"),
        "p_count_5s_before": _count(5 * SECOND_MS, SECOND_MS, 3 * SECOND_MS),
        "p_idle_ms": OracleFeature(Feature("time_since_last_rows", 10 * SECOND_MS, SECOND_MS)),
        "p_run": OracleFeature(_of_run("count_rows")),
        "p_run_ms": OracleFeature(_of_run("time_since_first_rows", default=0)),
        "p_lasts_10s": OracleFeature(
            Feature("last_k", 10 * SECOND_MS, SECOND_MS, parameters=(("k", 3),)), _reader("n")
        ),
    },
    derived={
        "p_share": Derived(
            ("p_count_5s", "p_count_10s"),
            _ratio("p_count_5s", "p_count_10s"),
            -1.0,
        ),
        "p_is_idle": Derived(
            ("p_idle_ms",), lambda row: _if_known(row["p_idle_ms"], lambda ms: ms > 2_000)
        ),
    },
)

_ADDED = frozenset(name for name, entry in AGGREGATES.items() if entry.is_added)

CHANGED_PULSE_15S = _count(15 * SECOND_MS, SECOND_MS)
"""What ``CHANGED_PULSES`` has in the place of ``p_count_12s``."""


def is_right(feature: OracleFeature | None, served: object, expected: object) -> bool:
    """Compare a value of the API's JSON with the oracle's; exact but where doubles are added.

    Numbers with a fraction were read from the JSON as ``Decimal``, so none of their digits is lost.
    Without a feature it is a derived one, whose doubles are those of exact inputs.
    """
    if isinstance(expected, list):
        return (
            isinstance(served, list)
            and len(served) == len(expected)
            and all(is_right(feature, *pair) for pair in zip(served, expected, strict=True))
        )
    if any(value is None or isinstance(value, bool) for value in (served, expected)):
        return served is expected
    if isinstance(expected, float):
        tolerance = _tolerance(feature)
        return math.isclose(
            float(str(served)), expected, rel_tol=tolerance, abs_tol=tolerance / 1e3
        )
    if isinstance(expected, int) and isinstance(served, str):
        return instant_ms(served) == expected
    if isinstance(expected, (int, Decimal)):
        return not isinstance(served, float) and Decimal(str(served)) == Decimal(expected)
    return served == expected


def _tolerance(feature: OracleFeature | None) -> float:
    if feature is None or feature.reference.aggregate not in _ADDED:
        return 0.0
    # The mean of vectors may be the neighbour among the floats of 32 bits.
    return 2**-23 if feature.reference.type == _TASTE else 1e-9


def instant_ms(text: str) -> int:
    """Return the API's instants as epoch milliseconds."""
    at = datetime.fromisoformat(text) - EPOCH
    return at.days * DAY_MS + at.seconds * 1000 + at.microseconds // 1000


VIEWS: Mapping[str, tuple[str, OracleView]] = {
    "live_spend": ("live_customer", SPEND),
    "live_till": ("live_shop", TILL),
    "live_pulse": ("live_heart", PULSE),
}
"""Entity and oracle of each view."""
