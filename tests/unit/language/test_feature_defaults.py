"""``default:`` of a feature: what it may be, and what is answered with it."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from millrace.errors import Fault
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.online.view import OnlineView
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.types import DATE, INT64, decimal
from millrace.windows import Sliding
from tests import reference
from tests.support.online_cases import document_of, feature_of, packed_tiles, view_of

FILE = """\
sources:
  - name: orders
    columns: {{at: timestamp, who: int64, cents: int64, price: "decimal(12,2)", kg: float64, shop: string, on: bool, due: date, raw: bytes}}
    event_time: at
    batch: {{format: csv, path: orders}}
entities:
  - {{name: customer, join_key: who, type: int64}}
feature_views:
  - name: spend
    entity: customer
    source: orders
    start: 2024-01-01
    features:
      - {{name: f, aggregate: {aggregate}, column: {column}, window: 1d, default: {default}}}
"""


def read(aggregate: str, column: str, default: str) -> tuple[Any, list[Fault]]:
    """Return the feature's plan, or None with the faults."""
    text = FILE.format(aggregate=aggregate, column=column, default=default)
    specs, faults = read_yaml(text, "orders.yaml")
    plan, more = resolve_as_far_as_read(specs)
    return (None if plan is None else plan.view("spend").features[0]), [*faults, *more]


@pytest.mark.parametrize(
    ("aggregate", "column", "written", "value"),
    [
        ("sum", "cents", "0", 0),
        ("sum", "cents", "-1", -1),
        ("sum", "price", "0", Decimal("0.00")),
        ("sum", "price", "0.50", Decimal("0.50")),
        ("sum", "price", '"12345678901234567890.5"', Decimal("12345678901234567890.50")),
        ("avg", "cents", "0", 0.0),
        ("avg", "cents", "1e3", 1000.0),
        ("max", "kg", "0.50", 0.5),
        ("last", "shop", "NO", "NO"),
        ("last", "shop", "010", "010"),
        ("last", "shop", "''", ""),
        ("last", "on", "false", False),
        ("first", "due", "2024-02-29", date(2024, 2, 29)),
    ],
)
def test_a_default_is_a_value_of_the_feature_s_type(
    aggregate: str, column: str, written: str, value: object
) -> None:
    feature, faults = read(aggregate, column, written)
    assert not faults
    assert (feature.default, type(feature.default)) == (value, type(value))
    specs, _ = read_yaml(
        FILE.format(aggregate=aggregate, column=column, default=written), "orders.yaml"
    )
    for exported in (
        read_yaml(to_yaml(specs), "x.yaml")[0],
        read_python(to_python(specs), "x.py")[0],
    ):
        assert exported == specs
        assert resolve(exported).view("spend").features[0].default == value


@pytest.mark.parametrize(
    ("aggregate", "column", "written", "said"),
    [
        ("sum", "cents", "0.5", "feature 'f': default is 0.5, which is no int64"),
        ("sum", "cents", "'0'", "default is '0', which is no int64"),
        ("sum", "cents", "010", "default is '010', which is no int64"),
        ("sum", "cents", "9223372036854775808", "beyond int64"),
        ("sum", "price", "0.005", "which does not fit decimal(22,2)"),
        ("sum", "price", "none", "which is no decimal(22,2)"),
        ("avg", "cents", ".nan", "which is no float64"),
        ("avg", "cents", "'010'", "which is no float64"),
        ("last", "shop", "true", "is the truth value true, where a text is meant"),
        ("last", "shop", "[a]", "where a text is meant"),
        ("last", "on", "NO", "which is no bool"),
        ("last", "due", "20240229", "which is no day"),
        ("last", "due", "2023-02-29", "which is no day"),
        ("last", "at", "2024-01-01", "timestamp values cannot be written out"),
        ("last", "raw", "abc", "bytes values cannot be written out"),
        ("count", "cents", "0", "a count is never null, and has no default"),
        ("sum", "cents", "null", "default has no value"),
        ("sum", "cents", "", "default has no value"),
    ],
)
def test_a_default_of_another_type_is_refused_with_its_line(
    aggregate: str, column: str, written: str, said: str
) -> None:
    _, faults = read(aggregate, column, written)
    assert [fault.where for fault in faults] == ["orders.yaml:14"], faults
    assert said in faults[0].what
    assert faults[0].fix


def test_python_says_it_with_values() -> None:
    text = (
        "from decimal import Decimal\nfrom datetime import date\n"
        "from millrace import Entity, FeatureView, sum, last\n"
        "v = FeatureView('v', entity='e', source='s', start='2024-01-01', features=[\n"
        "    sum('price').over('1d').default(Decimal('0.50')).named('a'),\n"
        "    last('due').over('1d').default(date(2024, 2, 29)).named('b'),\n"
        "    sum('cents').over('1d', '7d').default(0)])\n"
    )
    specs, faults = read_python(text, "v.py")
    assert not faults
    assert [f.default for f in specs.views[0].features] == ["0.50", "2024-02-29", 0, 0]


PRICE = decimal(12, 2)
VIEW = view_of(
    [
        feature_of("total", "sum", Sliding(10_000, 1_000), PRICE, Decimal("0.00")),
        feature_of("plain", "sum", Sliding(10_000, 1_000), PRICE),
        feature_of("n", "count", Sliding(10_000, 1_000)),
    ],
    freshness_ms=60_000,
)


def test_a_default_is_answered_where_a_count_says_0() -> None:
    online = OnlineView.from_plan(document_of(VIEW))
    tiles = packed_tiles(VIEW, [reference.Event("k", 5_000, 5_000, Decimal("1.50"))])
    held = online.rows.decode(online.rows.encode(online.merge(tiles, 6_000)))
    assert online.answer(held, 6_000, 6_000)[0] == (Decimal("1.50"), 5_000, "PRESENT")
    left = online.rows.decode(online.rows.encode(online.merge(tiles, 60_000)))
    assert online.answer(left, 60_000, 60_000) == [
        (Decimal("0.00"), None, "PRESENT"), (None, None, "NULL_VALUE"), (0, None, "PRESENT")
    ]  # fmt: skip
    late = online.answer(left, 60_000, None)
    assert [status for _, _, status in late] == ["STALE", "NULL_VALUE", "STALE"]
    assert online.absent(0) == [
        (Decimal("0.00"), None, "NOT_FOUND"), (None, None, "NOT_FOUND"), (0, None, "NOT_FOUND")
    ]  # fmt: skip


def test_a_null_value_has_the_default_too() -> None:
    online = OnlineView.from_plan(document_of(VIEW))
    tiles = packed_tiles(VIEW, [reference.Event("k", 5_000, 5_000, None)])
    total, plain, n = online.answer(online.merge(tiles, 6_000), 6_000, 6_000)
    assert (total, plain, n) == (
        (Decimal("0.00"), 5_000, "PRESENT"), (None, 5_000, "NULL_VALUE"), (1, 5_000, "PRESENT")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "default"), [(INT64, -1), (PRICE, Decimal("0.10")), (DATE, date(2024, 2, 29))]
)
def test_a_default_comes_through_the_published_plan(type_: Any, default: object) -> None:
    view = view_of([feature_of("f", "max", Sliding(1_000, 1_000), type_, default)])
    online = OnlineView.from_plan(document_of(view))
    (answer,) = online.answer(online.merge({}, 0), 0, 0)
    assert (answer[0], type(answer[0])) == (default, type(default))
