"""Exports: what is written, for people to read."""

import pytest

from millrace.errors import NotDeclared
from millrace.export import of_view, to_python, to_yaml
from millrace.load.python import read_python
from millrace.spec import (
    BatchSource,
    Check,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Source,
    Specs,
    StreamSource,
    Tumbling,
)

SPECS = Specs(
    sources=(
        Source(
            "cards",
            {"id": "int64", "ts": "timestamp", "k": "int64", "amount": "decimal(12,2)"},
            "ts",
            event_id="id",
            batch=BatchSource("parquet", "${MILLRACE_DATA}/cards.parquet"),
            stream=StreamSource("cards"),
        ),
    ),
    entities=(Entity("customer", "k", "int64", "A card holder."),),
    views=(
        FeatureView(
            "spend",
            ("customer",),
            "cards",
            "2018-04-01",
            (
                Feature("tx_1h", "count", "1h"),
                Feature("big_1d", "sum", "1d", expr="amount * 2", hop="1h", offset="7d"),
            ),
            tags={"pii": "no"},
            checks=(Check("null_rate", {"feature": "big_1d", "max": 0.3}),),
        ),
    ),
)

YAML = """\
version: millrace/v1
sources:
- name: cards
  columns:
    id: int64
    ts: timestamp
    k: int64
    amount: decimal(12,2)
  event_time: ts
  event_id: id
  batch: {format: parquet, path: '${MILLRACE_DATA}/cards.parquet'}
  stream: {topic: cards}
entities:
- {name: customer, join_key: k, type: int64, description: A card holder.}
feature_views:
- name: spend
  entity: customer
  source: cards
  start: '2018-04-01'
  tags: {pii: 'no'}
  features:
  - {name: tx_1h, aggregate: count, window: 1h}
  - {name: big_1d, aggregate: sum, expr: amount * 2, window: 1d, hop: 1h, offset: 7d}
  checks:
  - {type: null_rate, feature: big_1d, max: 0.3}
"""

PYTHON = """\
from millrace import (
    BatchSource,
    Check,
    Entity,
    FeatureView,
    Source,
    StreamSource,
    count,
    sum,
)

cards = Source(
    "cards",
    columns={
        "id": "int64",
        "ts": "timestamp",
        "k": "int64",
        "amount": "decimal(12,2)",
    },
    event_time="ts",
    event_id="id",
    batch=BatchSource("parquet", "${MILLRACE_DATA}/cards.parquet"),
    stream=StreamSource("cards", "json"),
)

customer = Entity(
    "customer",
    "k",
    "int64",
    description="A card holder.",
)

spend = FeatureView(
    "spend",
    entity="customer",
    source="cards",
    start="2018-04-01",
    tags={"pii": "no"},
    features=[
        count().over("1h").named("tx_1h"),
        sum(expr="amount * 2").over("1d").named("big_1d").hop("1h").offset("7d"),
    ],
    checks=[
        Check("null_rate", feature="big_1d", max=0.3),
    ],
)
"""


def test_yaml_leaves_defaults_out_and_puts_a_feature_in_a_line() -> None:
    assert to_yaml(SPECS) == YAML


def test_python_reads_as_one_would_write_it() -> None:
    assert to_python(SPECS) == PYTHON


def test_variables_do_not_hide_one_another_or_an_import() -> None:
    specs = Specs(
        entities=(Entity("class", "k", "int64"), Entity("count", "k", "int64")),
        views=(
            FeatureView("count", ("class",), "s", "2020-01-01", (Feature("a", "count", "1h"),)),
        ),
    )
    text = to_python(specs)
    assert "\nentity_1 = Entity(" in text
    assert "\ncount_entity = Entity(" in text
    assert "\ncount_featureview = FeatureView(" in text
    assert read_python(text, "export.py") == (specs, [])


def test_numbers_without_a_literal_are_spelt_out() -> None:
    check = Check("range", {"max": float("inf"), "among": [1, {"a": float("-inf")}], "or-so": 1})
    view = FeatureView(
        "v", ("e",), "s", "2020-01-01", (Feature("a", "count", "1h"),), checks=(check,)
    )
    text = to_python(Specs(views=(view,)))
    assert '"max": float("inf")' in text
    assert read_python(text, "export.py") == (Specs(views=(view,)), [])


def test_whole_numbers_are_written_as_such() -> None:
    told = {"k": 3.0, "limit": 1000.0}
    before = Tumbling("1d", "Europe/London", 1.0)
    features = (
        Feature("a", "top_k", before, column="k", parameters=told, default=1.0),
        Feature("b", "percentile", "1h", column="k", parameters={"p": 99.9}),
    )
    specs = Specs(views=(FeatureView("v", ("e",), "s", "2020-01-01", features),))
    yaml, python = to_yaml(specs), to_python(specs)
    assert "k: 3, limit: 1000" in yaml
    assert "previous: 1}" in yaml
    assert 'top_k("k", k=3, limit=1000).over(tumbling("1d", timezone="Europe/London", previous=1))' in python  # fmt: skip
    for text in (yaml, python):
        assert "99.9" in text
        assert "1.0" in text  # a default is a value of the feature's type, and stays as it is
    assert read_python(python, "export.py") == (specs, [])


def test_a_view_is_exported_with_what_it_names_and_nothing_else() -> None:
    other = Entity("terminal", "t", "string")
    again = Entity("customer", "k", "int64", "Said again.")
    services = (FeatureService("s", ("spend:*",)),)
    specs = SPECS + Specs(entities=(other, again), services=services)
    assert of_view(specs, "spend") == SPECS


def test_an_unknown_view_is_refused_with_the_nearest() -> None:
    with pytest.raises(NotDeclared, match="no feature view 'spent'") as caught:
        of_view(SPECS, "spent")
    assert caught.value.fix == "did you mean 'spend'?"
