"""``derive:`` of a feature: what it may read, in which order, and every fault of it."""

from dataclasses import replace
from decimal import Decimal

import pytest

from millrace import FeatureView, Source, count, derived, spec, sum
from millrace.errors import Fault
from millrace.export import to_python, to_yaml
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.plan import ViewPlan
from millrace.resolve import resolve, resolve_as_far_as_read
from offline.training.requested_features import request_features

HEAD = """\
sources:
  - name: orders
    columns: {at: timestamp, who: int64, cents: int64, price: "decimal(12,2)", shop: string}
    event_time: at
    batch: {format: csv, path: orders}
entities:
  - {name: customer, join_key: who, type: int64}
feature_views:
  - name: spend
    entity: customer
    source: orders
    start: 2024-01-01
    features:
"""
AGGREGATES = """\
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: n_1d, aggregate: count, window: 1d}
      - {name: price_1d, aggregate: sum, column: price, window: 1d}
      - {name: shop, aggregate: last, column: shop, window: 7d}
"""
FIRST = HEAD.count("\n") + AGGREGATES.count("\n") + 1
"""The line of the first feature behind the aggregates."""


def text_of(*features: str, aggregates: str = AGGREGATES) -> str:
    return HEAD + aggregates + "".join(f"      - {feature}\n" for feature in features)


def read(*features: str, aggregates: str = AGGREGATES) -> tuple[ViewPlan | None, list[Fault]]:
    specs, faults = read_yaml(text_of(*features, aggregates=aggregates), "orders.yaml")
    plan, more = resolve_as_far_as_read(specs)
    return (None if plan is None else plan.view("spend")), [*faults, *more]


def view_of(*features: str) -> ViewPlan:
    view, faults = read(*features)
    assert not faults
    assert view is not None
    return view


def derived_of(derive: str, name: str = "d", rest: str = "") -> str:
    return f'{{name: {name}, derive: "{derive}"{rest}}}'


def test_the_type_is_that_of_the_expression() -> None:
    view = view_of(
        derived_of("n_1h / NULLIF(n_1d, 0)", "share"),
        derived_of("price_1d * 2", "twice"),
        derived_of("UPPER(shop)", "loud"),
        derived_of("HOUR(AS_OF())", "hour"),
        derived_of("as_of() > TIMESTAMP '2024-01-02'", "is_later"),
    )
    assert {f.name: str(f.type) for f in view.derived} == {
        "share": "float64",
        "twice": "decimal(24,2)",
        "loud": "string",
        "hour": "int64",
        "is_later": "bool",
    }
    assert [f.name for f in view.features] == ["n_1h", "n_1d", "price_1d", "shop"]


def test_the_order_declared_stays_and_inputs_are_calculated_first() -> None:
    view, faults = read(
        *AGGREGATES.replace("      - ", "").splitlines(),
        derived_of("a + c", "e"),
        aggregates="".join(
            f"      - {f}\n"
            for f in (derived_of("b + c", "a"), derived_of("c * 2", "b"), derived_of("n_1h", "c"))
        ),
    )
    assert not faults
    assert view is not None
    assert [f.name for f in view.outputs] == [
        "a", "b", "c", "n_1h", "n_1d", "price_1d", "shop", "e",
    ]  # fmt: skip
    assert [f.name for f in view.derived] == ["c", "b", "a", "e"]
    assert [f.name for f in view.aggregates_of(view.output("e"))] == ["n_1h"]


@pytest.mark.parametrize(
    ("derive", "said", "fix"),
    [
        ("n_1hh / 2", "view 'spend' has no feature 'n_1hh'", "did you mean 'n_1h'"),
        ("cents + 1", "no feature 'cents'; 'orders' has a column of that name", "column: cents"),
        ("d + 1", "'d' is derived of itself: d -> d", "aggregates alone"),
        ("n_1h +", "not SQL", "write one SQL expression"),
        ("shop + 1", "+ takes numbers, and shop is string", ""),
        ("NULL", "NULL has no type", "CAST(NULL AS type)"),
        ("AS_OF(1)", "AS_OF got 1 arguments", "write AS_OF()"),
        ("SUM(n_1h)", "unknown function SUM", ""),
    ],
)
def test_a_fault_says_where_and_what_is_right(derive: str, said: str, fix: str) -> None:
    _, (fault,) = read(derived_of(derive))
    assert fault.where == f"orders.yaml:{FIRST}"
    assert said in fault.what
    assert "feature 'd'" in fault.what
    assert fix in fault.fix


def test_every_fault_of_every_derived_feature_is_told() -> None:
    _, faults = read(
        derived_of("b + 1", "a"),
        derived_of("c + 1", "b"),
        derived_of("a + n_1h", "c"),
        derived_of("nope + niente", "d"),
        derived_of("shop + 1", "e"),
        derived_of("e + 1", "f"),
        derived_of("n_1d", "who"),
        derived_of("n_1d", "n_1h"),
    )
    assert [(f.where.rpartition(":")[2], f.what.split(":")[0]) for f in faults] == [
        (str(FIRST + 6), "'who' cannot name a feature"),
        (str(FIRST + 7), "view 'spend' has a feature 'n_1h' already, at orders.yaml"),
        (str(FIRST + 3), "feature 'd'"),
        (str(FIRST + 3), "feature 'd'"),
        (str(FIRST), "feature 'a' is derived of itself"),
        (str(FIRST + 4), "feature 'e'"),
    ]
    assert "a -> b -> c -> a" in faults[4].what


def test_a_derived_feature_of_a_faulty_one_is_not_blamed() -> None:
    _, faults = read(
        derived_of("f + n_1h"),
        aggregates=AGGREGATES + "      - {name: f, aggregate: sum, column: cent, window: 1d}\n",
    )
    assert ["no column 'cent'" in f.what for f in faults] == [True]


def test_a_list_is_nothing_to_derive_of() -> None:
    last = "      - {name: shops, aggregate: last_k, k: 3, column: shop, window: 1d}\n"
    _, faults = read(derived_of("shops IS NULL"), aggregates=AGGREGATES + last)
    assert ["'shops' is a list<string>, and expressions" in f.what for f in faults] == [True]


def test_a_view_of_derived_features_alone_is_a_fault() -> None:
    _, faults = read(derived_of("HOUR(AS_OF())"), aggregates="")
    (fault,) = faults
    assert fault.what == "view 'spend' has derived features alone"
    assert "{aggregate: count, window: 1d}" in fault.fix


@pytest.mark.parametrize("key", ["aggregate: count", "window: 1h", "column: cents", "hop: 1m"])
def test_what_aggregates_have_a_derived_feature_has_not(key: str) -> None:
    _, faults = read(derived_of("n_1h", rest=f", {key}"))
    name = key.partition(":")[0]
    assert [f"a derived feature has no key {name!r}" in f.what for f in faults] == [True]
    assert faults[0].fix.endswith("window") or f"remove {name}" in faults[0].fix


def test_an_expression_of_events_has_no_instant_of_a_query() -> None:
    _, faults = read('{name: f, aggregate: count, expr: "HOUR(AS_OF())", window: 1h}')
    assert ["an event has none" in f.what for f in faults] == [True]
    assert "derive: …" in faults[0].fix


def test_a_default_is_of_the_type_of_the_expression() -> None:
    (found,) = view_of(derived_of("price_1d - 1", rest=", default: 0.5")).derived
    assert found.default == Decimal("0.50")
    _, faults = read(derived_of("n_1h / n_1d", rest=", default: none"))
    assert ["feature 'd': default is 'none'" in f.what for f in faults] == [True]
    assert "the expression gives a float64 here" in faults[0].fix


def test_checks_judge_a_derived_feature_by_its_type() -> None:
    checks = "    checks:\n      - {type: range, feature: d, min: 0}\n"
    specs, _ = read_yaml(text_of(derived_of("UPPER(shop)")) + checks, "orders.yaml")
    _, faults = resolve_as_far_as_read(specs)
    assert ["cannot judge 'd', a string" in f.what for f in faults] == [True]
    specs, _ = read_yaml(text_of(derived_of("n_1h + 1")) + checks, "orders.yaml")
    assert not resolve_as_far_as_read(specs)[1]


def test_its_meaning_enters_the_fingerprint_and_its_layout_does_not() -> None:
    plain = view_of()
    share = view_of(derived_of("n_1h / n_1d"))
    assert share.fingerprint != plain.fingerprint
    assert view_of(derived_of("(n_1h) /  n_1d")).fingerprint == share.fingerprint
    assert view_of(derived_of("n_1d / n_1h")).fingerprint != share.fingerprint
    assert view_of(derived_of("n_1h / n_1d", "e")).fingerprint != share.fingerprint
    assert view_of(derived_of("n_1h / n_1d", rest=", default: 0")).fingerprint != share.fingerprint
    described = view_of(derived_of("n_1h / n_1d", rest=", description: of a day"))
    assert described.fingerprint == share.fingerprint


def test_python_says_the_same() -> None:
    orders = Source(
        "orders",
        columns={"at": "timestamp", "who": "int64", "cents": "int64"},
        event_time="at",
        batch={"format": "csv", "path": "orders"},
    )
    view = FeatureView(
        "spend",
        entity="customer",
        source=orders,
        start="2024-01-01",
        features=[
            derived("n / NULLIF(cents_sum_1d, 0)").named("share").default(0).described("Of it."),
            count().over("1h").named("n"),
            *sum("cents").over("1d"),
        ],
    )
    share, *_ = view.features
    assert isinstance(share, spec.DerivedFeature)
    assert share.where.line > 0
    assert replace(share, where=spec.NOWHERE) == spec.DerivedFeature(
        "share", "n / NULLIF(cents_sum_1d, 0)", 0, "Of it."
    )


def test_without_a_name_python_says_how_to_name_it() -> None:
    source = 'from millrace import derived\nlost = list(derived("a / b"))\n'
    _, faults = read_python(source, "views.py")
    assert [(f.where, f.what, f.fix) for f in faults] == [
        ("views.py:2", "a derived feature has no name", 'add .named("…")')
    ]


def test_an_export_is_read_back_as_it_was() -> None:
    text = text_of(derived_of("n_1h / n_1d", rest=", default: 0.5, description: Of a day."))
    specs, _ = read_yaml(text, "orders.yaml")
    for exported, faults in (
        read_yaml(to_yaml(specs), "x.yaml"),
        read_python(to_python(specs), "x.py"),
    ):
        assert not faults
        assert exported == specs


def test_a_training_set_of_a_derived_feature_joins_what_it_is_made_of() -> None:
    specs, _ = read_yaml(
        text_of(
            derived_of("s * 2", "t"), derived_of("n_1h / n_1d", "s"), derived_of("DAY(AS_OF())")
        ),
        "orders.yaml",
    )
    services = """feature_services: [{name: model, features: ["spend:t", s]}, {name: all, features: ["spend:*"]}]\n"""
    more, _ = read_yaml(services, "services.yaml")
    plan = resolve(specs + more)
    assert plan.services["model"].features == (("spend", "t"), ("spend", "s"))
    assert [name for _, name in plan.services["all"].features][-3:] == ["t", "s", "d"]
    (asked,) = request_features(plan, ["t", "shop", "n_1d"]).views
    assert asked.columns == ("t", "shop", "n_1d")
    assert [f.name for f in asked.view.outputs] == ["t", "shop", "n_1d"]
    assert {f.name for f in asked.view.features} == {"shop", "n_1d", "n_1h"}
    assert [f.name for f in asked.view.derived] == ["s", "t"]
    assert len(asked.view.measures) == 1
    (alone,) = request_features(plan, ["d"]).views
    assert [f.name for f in alone.view.outputs] == ["d"]
    assert len(alone.view.features) == 1
    (everything,) = request_features(plan, ["spend:*"]).views
    assert [f.name for f in everything.view.outputs] == [f.name for f in plan.view("spend").outputs]
