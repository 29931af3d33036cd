"""Derived features of the golden view, worked out by hand: offline, and online with their statuses."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa

from feature_assets import descriptions
from millrace.durations import DAY_MS, HOUR_MS
from millrace.expressions import parse_expression
from millrace.kernel.arrow import KernelView, join_features
from millrace.online.view import OnlineView
from millrace.plan import DerivedPlan, ViewPlan
from millrace.types import INT64
from millrace.windows import Lifetime, Sliding
from tests import reference
from tests.golden.rewrite import golden_plan
from tests.support.online_cases import document_of, feature_of, packed_tiles, view_of

VIEW = golden_plan().view("derived_shares")
NOON_MS = (date(2024, 3, 1) - date(1970, 1, 1)).days * DAY_MS + 12 * HOUR_MS


def test_history_has_what_is_worked_out_by_hand() -> None:
    # Two payments of a day, one of them half an hour ago; 10.00 and 90.00, 50.00 on average.
    times = [NOON_MS - 5 * HOUR_MS, NOON_MS - HOUR_MS // 2]
    events = pa.table(
        {
            "customer_id": [7, 7],
            "_event_ms": times,
            "_ingest_ms": times,
            "_event_id": ["a", "b"],
            "m0": pa.array([Decimal("10.00"), Decimal("90.00")], pa.decimal128(12, 2)),
            "m1": pa.array([ms * 1000 for ms in times], pa.timestamp("us", "UTC")),
        }
    )
    assert [str(m.expression.text) for m in VIEW.measures] == ["amount", "paid_at"]
    asked = {"customer_id": [7, 7, 8], "_query_ms": [NOON_MS, NOON_MS + 20 * DAY_MS, NOON_MS]}
    found = join_features(KernelView.of(VIEW), events, pa.table(asked)).to_pylist()
    names = ("share_1h", "peak", "is_unusual", "last_day", "idle_days", "is_today")
    day = date(2024, 3, 1)
    assert [[row[name] for name in names] for row in found] == [
        [0.5, 1.8, False, day, 0, "yes"],
        # Of what left its windows nothing is derived but what has a default, or says so itself.
        [0.0, None, False, day, 20, "no"],
        [0.0, None, False, date(1970, 1, 1), None, "no"],
    ]


EVER, HOUR = Lifetime(DAY_MS), Sliding(HOUR_MS, 300_000)
TYPES = dict.fromkeys(("all", "newest", "older", "half", "both"), INT64)


def deriving(**texts: str) -> ViewPlan:
    view = view_of(
        [
            feature_of("newest", "sum", HOUR, INT64),
            feature_of("all", "count", EVER),
            feature_of("older", "count", Sliding(HOUR_MS, 300_000, HOUR_MS)),
        ],
        ttl_ms=2 * DAY_MS,
        freshness_ms=60_000,
    )
    derived = tuple(DerivedPlan(n, parse_expression(t, TYPES)) for n, t in texts.items())
    return replace(
        view, derived=derived, order=(*(f.name for f in derived), *(f.name for f in view.features))
    )


def answered(view: ViewPlan, ages_ms: list[int], late_ms: int = 0) -> list[tuple[Any, Any, str]]:
    online = OnlineView.from_plan(document_of(view))
    events = [reference.Event("k", NOON_MS - age, NOON_MS, 3, i) for i, age in enumerate(ages_ms)]
    row = online.merge(packed_tiles(view, events), NOON_MS)
    answers = online.answer(row, NOON_MS, NOON_MS - late_ms, range(len(view.derived)))
    return [(value, None if ts is None else NOON_MS - ts, status) for value, ts, status in answers]


def test_the_ts_of_a_derived_value_is_the_newest_of_its_inputs() -> None:
    view = deriving(half="older * 2", both="half + newest", deep="both + 1")
    both_hours = answered(view, [HOUR_MS + 1, 5])
    assert both_hours == [(2, HOUR_MS + 1, "PRESENT"), (5, 5, "PRESENT"), (6, 5, "PRESENT")]
    assert answered(view, [HOUR_MS + 1]) == [
        (2, HOUR_MS + 1, "PRESENT"), (None, HOUR_MS + 1, "NULL_VALUE"),
        (None, HOUR_MS + 1, "NULL_VALUE"),
    ]  # fmt: skip


def test_its_status_is_that_of_a_value_of_that_age() -> None:
    view = deriving(twice="all * 2", ratio="newest / all")
    assert answered(view, [5])[0] == (2, 5, "PRESENT")
    assert answered(view, [5], late_ms=60_001)[0] == (2, 5, "STALE")
    old = 2 * DAY_MS + 1
    assert answered(view, [old]) == [
        (2, old, "OUTSIDE_MAX_AGE"), (None, old, "NULL_VALUE"),
    ]  # fmt: skip


def test_what_reads_no_feature_has_no_ts() -> None:
    assert answered(deriving(one="1"), [5]) == [(1, None, "PRESENT")]
    assert answered(deriving(one="1"), [5], late_ms=60_001) == [(1, None, "STALE")]


def test_what_is_null_for_an_input_over_its_limit_says_so() -> None:
    view = view_of(
        [
            feature_of("often", "mode", EVER, INT64),  # of at most 3 different values
            feature_of("given", "mode", EVER, INT64, default=-1),
            feature_of("n", "count", EVER),
        ]
    )
    types = dict.fromkeys(("often", "given", "n", "twice"), INT64)
    texts = {"twice": "often * 2", "deep": "twice + n", "known": "COALESCE(often, 7)",
             "zero": "n / 0", "of_default": "given * 2"}  # fmt: skip
    derived = [DerivedPlan(name, parse_expression(text, types)) for name, text in texts.items()]
    derived.append(DerivedPlan("told", parse_expression("twice * 1", types), default=9))
    named = replace(
        view,
        derived=tuple(derived),
        order=(*(f.name for f in derived), *(f.name for f in view.features)),
    )
    online = OnlineView.from_plan(document_of(named))

    def statuses(values: list[int]) -> list[tuple[Any, str]]:
        events = [reference.Event("k", NOON_MS, NOON_MS, v, i) for i, v in enumerate(values)]
        row = online.merge(packed_tiles(named, events), NOON_MS + 1)
        return [(v, s) for v, _, s in online.answer(row, NOON_MS + 1, NOON_MS + 1, range(6))]

    over, null, fine = "OVER_LIMIT", "NULL_VALUE", "PRESENT"
    assert statuses([1, 2, 3, 4]) == [
        (None, over), (None, over), (7, fine), (None, null), (-2, fine), (9, over),
    ]  # fmt: skip
    assert statuses([5]) == [
        (10, fine), (11, fine), (5, fine), (None, null), (10, fine), (10, fine),
    ]  # fmt: skip


def test_dagster_is_told_of_a_derived_feature_and_of_the_columns_behind_it() -> None:
    text = descriptions.features_text(VIEW)
    assert "| `peak` | `amount_max_1d / amount_avg_7d` | derived | float64 |" in text
    columns = {c.name: c for c in descriptions.features_schema(VIEW).columns}
    assert list(columns)[2:-2] == [f.name for f in VIEW.outputs]
    assert columns["is_unusual"].description == (
        "Much in an hour. (COALESCE(peak > 3, FALSE) AND share_1h >= 0.5, derived)"
    )
    lineage = descriptions.features_lineage(VIEW).deps_by_column
    assert {d.column_name for d in lineage["is_unusual"]} == {"amount", "customer_id", "_event_ms"}
    assert {d.column_name for d in lineage["last_day"]} == {"paid_at", "customer_id", "_event_ms"}
