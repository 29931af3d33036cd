"""Names of features in a request: what each means, and what is said of those that mean nothing."""

from dataclasses import replace
from itertools import permutations

import pytest

from millrace.errors import NotDeclared, SpecError
from millrace.plan import Plan
from millrace.resolve import resolve
from millrace.spec import BatchSource, Entity, Feature, FeatureService, FeatureView, Source, Specs
from offline.training.requested_features import request_features, service_features

COLUMNS = {"id": "int64", "ts": "timestamp", "who": "int64", "shop": "string", "cents": "int64"}
RAW = BatchSource("parquet", "orders.parquet")
SOURCE = Source("orders", COLUMNS, "ts", event_id="id", batch=RAW)
ENTITIES = (Entity("buyer", "who", "int64"), Entity("shop", "shop", "string"))
COUNT = Feature("n_1h", "count", "1h")
SUM = Feature("cents_1h", "sum", "1h", column="cents")
LAST = Feature("last_cents", "last", "1d", column="cents")
BUYERS = FeatureView("buyers", ("buyer",), "orders", "2024-01-01", (COUNT, SUM, LAST))
SHOPS = FeatureView("shops", ("shop",), "orders", "2024-01-01", (COUNT,))


@pytest.fixture
def plan() -> Plan:
    service = FeatureService("fraud", ("shops:*", "cents_1h"))
    return resolve(Specs((SOURCE,), ENTITIES, (BUYERS, SHOPS), (service,)))


def faults_of(plan: Plan, *names: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        request_features(plan, names)
    return [f"{fault.where}: {fault.what} | {fault.fix}" for fault in caught.value.faults]


def test_a_unique_bare_name_is_enough(plan: Plan) -> None:
    request = request_features(plan, ["cents_1h"])
    assert request.columns == ("cents_1h",)
    assert request.join_keys == ("who",)
    (only,) = request.views
    assert only.view.name == "buyers"
    assert [m.expression.text for m in only.view.measures] == ["cents"]


def test_columns_come_in_the_order_asked_for_whatever_their_view(plan: Plan) -> None:
    request = request_features(plan, ["cents_1h", "shops:n_1h", " last_cents", "cents_1h", ""])
    assert request.columns == ("cents_1h", "n_1h", "last_cents")
    assert request.join_keys == ("who", "shop")
    assert [asked.columns for asked in request.views] == [("cents_1h", "last_cents"), ("n_1h",)]


def test_a_bare_name_shared_by_two_requested_features_gets_its_view(plan: Plan) -> None:
    request = request_features(plan, ["buyers:*", "shops:n_1h"])
    assert request.columns == ("buyers__n_1h", "cents_1h", "last_cents", "shops__n_1h")


def plan_of(*views: tuple[str, str, str]) -> Plan:
    """Return a plan of views that have one feature each: (view, entity, feature)."""
    made = (
        FeatureView(view, (entity,), "orders", "2024-01-01", (replace(COUNT, name=feature),))
        for view, entity, feature in views
    )
    return resolve(Specs((SOURCE,), ENTITIES, tuple(made), ()))


def columns_of(plan: Plan, *names: str) -> dict[str, str]:
    """Return the column of each view's one feature."""
    request = request_features(plan, [f"{name}:*" for name in names])
    return {asked.view.name: asked.columns[0] for asked in request.views}


@pytest.mark.parametrize("names", list(permutations(["a", "b", "c"])))
def test_a_name_made_up_for_a_feature_is_never_another_s(names: tuple[str, ...]) -> None:
    plan = plan_of(("a", "buyer", "n"), ("b", "buyer", "n"), ("c", "shop", "a__n"))
    assert columns_of(plan, *names) == {"a": "a__n", "b": "b__n", "c": "c__a__n"}


def test_a_feature_called_as_another_view_s_key_gets_its_view() -> None:
    plan = plan_of(("a", "buyer", "shop"), ("b", "shop", "n"))
    assert columns_of(plan, "a") == {"a": "shop"}
    assert columns_of(plan, "a", "b") == {"a": "a__shop", "b": "n"}


def test_two_features_that_no_name_tells_apart_are_refused() -> None:
    plan = plan_of(("a", "buyer", "b__c"), ("a__b", "buyer", "c"), ("x", "shop", "c"), ("y", "shop", "b__c"))  # fmt: skip
    (fault,) = faults_of(plan, "a:*", "a__b:*", "x:*", "y:*")
    assert fault == (
        "--features: a:b__c and a__b:c would be one column, 'a__b__c' | "
        "rename one of the features, or ask for them in two training sets"
    )


def test_measures_nobody_asked_for_are_not_read(plan: Plan) -> None:
    (only,) = request_features(plan, ["buyers:n_1h"]).views
    assert only.view.measures == ()


def test_event_ids_are_read_only_for_features_that_order_events(plan: Plan) -> None:
    (ordered,) = request_features(plan, ["last_cents", "cents_1h"]).views
    (added,) = request_features(plan, ["cents_1h"]).views
    assert ordered.reads_event_id
    assert not added.reads_event_id


def test_a_bare_name_of_two_views_lists_the_candidates(plan: Plan) -> None:
    (fault,) = faults_of(plan, "n_1h")
    assert fault == "--features: 2 views have a feature 'n_1h' | say buyers:n_1h or shops:n_1h"


def test_the_keys_that_a_spine_has_decide_among_views(plan: Plan) -> None:
    (only,) = request_features(plan, ["n_1h"], ["event_timestamp", "who", "label"]).views
    assert only.view.name == "buyers"
    (only,) = request_features(plan, ["n_1h"], ["shop"]).views
    assert only.view.name == "shops"
    for columns in (["who", "shop"], ["label"]):
        with pytest.raises(SpecError, match="2 views have a feature 'n_1h'"):
            request_features(plan, ["n_1h"], columns)


def test_every_wrong_name_is_told_with_the_nearest(plan: Plan) -> None:
    faults = faults_of(plan, "last_cent", "buyer:n_1h", "buyers:n1h", "shops", "cents_1h")
    assert faults == [
        "--features: no feature 'last_cent' in any view | did you mean 'last_cents'?",
        "--features: no feature view 'buyer' (in 'buyer:n_1h') | did you mean 'buyers'?",
        "--features: view buyers has no feature 'n1h' | did you mean 'n_1h'?",
        "--features: 'shops' is a view, not a feature | say shops:* for all of it",
    ]


def test_no_name_at_all_is_refused(plan: Plan) -> None:
    (fault,) = faults_of(plan, " ", "")
    assert "no feature is named" in fault
    assert "n_1h" in fault


def test_a_service_is_its_features_in_order(plan: Plan) -> None:
    assert service_features(plan, "fraud") == ("shops:n_1h", "buyers:cents_1h")


def test_an_unknown_service_names_the_nearest(plan: Plan) -> None:
    with pytest.raises(NotDeclared) as caught:
        service_features(plan, "frod")
    assert "no feature service 'frod'" in str(caught.value)
    assert "did you mean 'fraud'?" in str(caught.value)
