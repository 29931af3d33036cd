"""Answers written around gaps are those of the documented structs, byte for byte."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from millrace.online.answers import Answer
from millrace.plan import ViewPlan
from millrace.published import PublishedView
from serving.catalog import Catalog, LookupPlan, served_view
from serving.instants import instant_text
from serving.rendering import KeyRenderer, entity_body, key_status, lookup_body
from serving.responses import EntityAnswer, FeatureAnswer, KeyAnswer, LookupAnswer
from tests import reference
from tests.property.test_online_against_reference import cases
from tests.support.online_cases import packed_tiles
from tests.support.serving_harness import version_of

Case = tuple[ViewPlan, list[reference.Event], int]
KEYS: st.SearchStrategy[Any] = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"])), st.none()
)


def plan_of(view: ViewPlan, features: Sequence[str]) -> LookupPlan:
    published = PublishedView(view.name, ("thing",), "v1", (version_of(view),))
    catalog = Catalog({view.name: served_view(published)})
    return catalog.lookup_plan("thing", tuple((name, None) for name in features))


def documented(key: Any, labels: Sequence[str], plan: LookupPlan, told: list[Answer]) -> KeyAnswer:
    (read,) = plan.reads
    features = {}
    for label, place, (value, ts_ms, status) in zip(labels, read.places, told, strict=True):
        assert read.served.online.features[place].type.kind not in {"timestamp", "bytes"}
        ts = None if ts_ms is None else instant_text(ts_ms)
        features[label] = FeatureAnswer(plain(value), ts, "v1", status)
    return KeyAnswer(key, features, key_status([status for _, _, status in told]))


def plain(value: Any) -> Any:
    """Decimals without an exponent, also in a list."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return msgspec.Raw(format(value, "f").encode()) if isinstance(value, Decimal) else value


@given(
    case=cases(),
    keys=st.lists(KEYS, min_size=1, max_size=3),
    ttl_ms=st.sampled_from([None, 1, 5_000, 10**9]),
    freshness_ms=st.sampled_from([None, 1_000]),
    data=st.data(),
)
def test_answers_of_rows_are_the_documented_ones(
    case: Case, keys: list[Any], ttl_ms: int | None, freshness_ms: int | None, data: st.DataObject
) -> None:
    view, events, as_of_ms = case
    view = replace(view, ttl_ms=ttl_ms, freshness_ms=freshness_ms)
    names = [feature.name for feature in view.features]
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    progress_ms = data.draw(st.sampled_from([None, as_of_ms, as_of_ms - 5_000]))
    plan = plan_of(view, asked)
    (read,) = plan.reads
    online = read.served.online
    # Each key has other events, so that one answer has rows of many ages.
    rows = [
        online.merge(packed_tiles(view, events[place:]), as_of_ms) for place in range(len(keys))
    ]
    packed = [online.rows.encode(row) for row in rows]
    told = [online.answer(row, as_of_ms, progress_ms, read.places) for row in rows]
    renderer = KeyRenderer(plan, {})
    answers = renderer.from_answers(keys, told)
    wanted = [documented(k, asked, plan, of_key) for k, of_key in zip(keys, told, strict=True)]
    encoder = msgspec.json.Encoder(decimal_format="number")
    assert answers == [encoder.encode(one) for one in wanted]
    if renderer.is_plain:
        instant = renderer.instant(as_of_ms, progress_ms)
        for _ in range(2):  # worked out, then known
            read_rows = [online.rows.read(data) for data in packed]
            assert renderer.from_rows(keys, read_rows, instant) == answers
    as_of = instant_text(as_of_ms)
    whole = LookupAnswer("thing", as_of, wanted)
    assert lookup_body("thing", as_of_ms, answers) == encoder.encode(whole)
    first = wanted[0]
    one = EntityAnswer("thing", as_of, first.key, first.features, first.status)
    assert entity_body("thing", as_of_ms, answers[:1]) == encoder.encode(one)


@given(case=cases())
def test_masks_stand_in_place_of_values_and_of_no_null(case: Case) -> None:
    view, events, as_of_ms = case
    names = [feature.name for feature in view.features]
    plan = plan_of(view, names)
    (read,) = plan.reads
    online = read.served.online
    row = online.merge(packed_tiles(view, events), as_of_ms)
    renderer = KeyRenderer(plan, {("view", names[0]): lambda _: "hidden"})
    written = renderer.from_answers([1], [online.answer(row, as_of_ms, None)])
    if renderer.is_plain:
        instant = renderer.instant(as_of_ms, None)
        row_read = online.rows.read(online.rows.encode(row))
        assert renderer.from_rows([1], [row_read], instant) == written
    found = msgspec.json.decode(written[0])["features"]
    bare = msgspec.json.decode(
        KeyRenderer(plan, {}).from_answers([1], [online.answer(row, as_of_ms, None)])[0]
    )["features"]
    first = bare[names[0]]
    assert found.pop(names[0])["value"] == (None if first["value"] is None else "hidden")
    bare.pop(names[0])
    assert found == bare


def test_an_empty_answer_is_one() -> None:
    assert lookup_body("thing", 0, []) == (
        b'{"entity_name":"thing","as_of":"1970-01-01T00:00:00.000Z","results":[]}'
    )
