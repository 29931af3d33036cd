"""What requests mean by an entity and features, against a catalog; no store."""

from dataclasses import replace
from typing import Any

import pytest

from millrace.durations import HOUR_MS
from millrace.errors import NotDeclared, StoreError
from millrace.plan import EntityPlan
from millrace.published import PublishedVersion, PublishedView
from millrace.types import INT64, STRING
from millrace.windows import Sliding
from serving.catalog import Catalog, LookupPlan, served_view
from serving.errors import BadRequest, NotReady
from serving.instants import instant_ms, instant_text
from serving.keys import key_values
from tests.support.online_cases import document_of, feature_of, view_of

CUSTOMER = EntityPlan("customer", "customer_id", INT64)
TERMINAL = EntityPlan("terminal", "terminal_id", STRING)
HOUR = Sliding(HOUR_MS, 300_000)


def published(
    name: str, entities: tuple[EntityPlan, ...], *features: str, number: int
) -> PublishedView:
    view = view_of(
        [feature_of(feature, "count", HOUR) for feature in features],
        name=name,
        entities=entities,
        fingerprint=f"{number:016x}",
    )
    version = PublishedVersion(
        "v1", view.fingerprint, document_of(view), "t", "s", "g", "live", None, None, 0
    )
    return PublishedView(name, tuple(e.name for e in entities), "v1", (version,))


CATALOG = Catalog(
    {
        view.name: served_view(view)
        for view in (
            published("spend", (CUSTOMER,), "n", "same", number=1),
            published("risk", (CUSTOMER,), "r", "same", number=2),
            published("pair", (CUSTOMER, TERMINAL), "p", "n", number=3),
            published("place", (TERMINAL,), "q", "same", number=4),
        )
    },
    {"both": [("spend", "n"), ("risk", "same"), ("place", "same")]},
)


def plan(entity: str | None, *features: str) -> LookupPlan:
    return CATALOG.lookup_plan(entity, tuple((f, None) for f in features))


def labels(found: LookupPlan) -> list[str]:
    return [label for label, _, _ in found.fields]


def test_features_of_one_view_are_one_read() -> None:
    found = plan("customer", "spend:same", "r", "n")
    assert [(r.served.online.name, r.places) for r in found.reads] == [
        ("spend", (1, 0)),
        ("risk", (0,)),
    ]
    assert found.fields == (("spend:same", 0, 0), ("r", 1, 0), ("n", 0, 1))
    assert len(found.key_sets) == 1


def test_a_meaning_is_compiled_once() -> None:
    assert plan("customer", "n") is plan("customer", "n")


def test_the_named_entity_decides_among_views() -> None:
    assert plan("customer", "n").reads[0].served.online.name == "spend"
    assert plan("customer,terminal", "pair:n").join_keys == (
        ("customer_id", INT64),
        ("terminal_id", STRING),
    )
    assert plan("terminal", "p").entity_name == "terminal,customer"


def test_without_an_entity_the_features_decide() -> None:
    assert plan(None, "q").entity_name == "terminal"
    assert plan(None, "p").entity_name == "customer,terminal"
    with pytest.raises(BadRequest, match="'n' is in 2 views"):
        plan(None, "n")
    with pytest.raises(BadRequest, match="several entities: customer, terminal"):
        plan(None, "r", "q")


def test_a_service_is_answered_whole_or_not_at_all() -> None:
    with pytest.raises(BadRequest, match="'both' has features of terminal too") as refused:
        plan("customer", "service:both")
    assert "'customer,terminal'" in refused.value.fix
    assert "customer_id and terminal_id" in refused.value.fix
    both = plan("customer,terminal", "service:both")
    assert labels(both) == ["n", "risk:same", "place:same"]
    assert len(both.key_sets) == 2


def test_views_of_other_entities_neither_hide_nor_rename_a_feature() -> None:
    """What was clear before somebody published a view of other entities stays so."""
    composite = plan("customer,terminal", "n")
    assert composite.reads[0].served.online.name == "pair"
    assert labels(composite) == ["n"]
    assert labels(plan("customer,terminal", "spend:*")) == ["n", "spend:same"]
    # Asked for together they are told apart.
    assert labels(plan("customer,terminal", "spend:*", "pair:*")) == [
        "spend:n",
        "spend:same",
        "p",
        "pair:n",
    ]


def test_a_view_that_a_service_names_and_nobody_deployed_is_said_to_be_so() -> None:
    catalog = replace(CATALOG, services={"early": [("spent", "n")]})
    with pytest.raises(NotDeclared, match="'spent' is declared, and not deployed") as refused:
        catalog.lookup_plan("customer", (("service:early", None),))
    assert "millrace stream deploy spent" in refused.value.fix
    assert "millrace upload spent" in refused.value.fix


def test_a_star_is_the_whole_view() -> None:
    assert labels(plan("customer", "spend:*")) == ["n", "spend:same"]


@pytest.mark.parametrize(
    ("entity", "feature", "fix"),
    [
        ("customer", "xyz", "known: n, r, same"),
        ("custommer", "n", "did you mean 'customer'?"),
        ("customer", "spent:n", "did you mean 'spend'?"),
        ("customer", "service:bot", "did you mean 'both'?"),
    ],
)
def test_unknown_names_name_the_nearest(entity: str, feature: str, fix: str) -> None:
    with pytest.raises(NotDeclared) as caught:
        plan(entity, feature)
    assert fix in caught.value.fix


def test_an_empty_catalog_is_not_ready() -> None:
    with pytest.raises(NotReady, match="no feature view is published"):
        Catalog().lookup_plan("customer", (("n", None),))


@pytest.mark.parametrize("change", [{"codec": 2}, {"features": None}, {"slots": {}}])
def test_a_plan_that_cannot_be_read_is_refused(change: dict[str, Any]) -> None:
    view = published("spend", (CUSTOMER,), "n", number=1)
    document = {**view.versions[0].plan, **change}
    version = PublishedVersion(
        "v1", view.versions[0].fingerprint, document, "t", "s", "g", "live", None, None, 0
    )
    with pytest.raises(StoreError, match="serving plan of spend"):
        served_view(PublishedView("spend", ("customer",), "v1", (version,)))


def test_an_object_is_always_a_key() -> None:
    join_keys = (("customer_id", INT64),)
    assert key_values(join_keys, {"customer_id": 5}, "keys[0]") == {"customer_id": 5}
    assert key_values(join_keys, 5, "keys[0]") == {"customer_id": 5}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_764_072_003_120, "2025-11-25T12:00:03.120Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, 253_402_300_800_000),
        (-(2**63), -(2**63)),
    ],
)
def test_instants_are_iso_with_milliseconds(ms: int, text: str | int) -> None:
    assert instant_text(ms) == text
    if isinstance(text, str):
        assert instant_ms(text) == ms
