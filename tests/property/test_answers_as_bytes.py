"""Answers written around gaps are those of the documented structs, byte for byte."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from millrace.online.answers import Answer
from millrace.plan import ViewPlan
from millrace.published import PublishedView
from serving.catalog import Catalog, LookupPlan, served_view
from serving.errors import BadRequest
from serving.forms import FORMS, ROWS, Form
from serving.instants import instant_text
from serving.rendering import KeyRenderer, entity_body, key_status, lookup_body
from serving.responses import EntityAnswer, FeatureAnswer, KeyAnswer, LookupAnswer
from tests import reference
from tests.property.test_online_against_reference import cases
from tests.support.online_cases import packed_tiles
from tests.support.serving_harness import version_of

_, COLUMNAR, MSGPACK, ARROW = FORMS
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


@given(
    case=cases(),
    count=st.integers(0, 4),
    ttl_ms=st.sampled_from([None, 1, 5_000, 10**9]),
    data=st.data(),
)
def test_every_form_says_what_rows_say(
    case: Case, count: int, ttl_ms: int | None, data: st.DataObject
) -> None:
    view, events, as_of_ms = case
    view = replace(view, ttl_ms=ttl_ms, freshness_ms=1_000)
    names = [feature.name for feature in view.features]
    asked = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    masks = {("view", name): lambda _: "hidden" for name in asked if data.draw(st.booleans())}
    progress_ms = data.draw(st.sampled_from([as_of_ms, as_of_ms - 5_000]))
    plan = plan_of(view, asked)
    (read,) = plan.reads
    online = read.served.online
    renderer = KeyRenderer(plan, masks)
    rows = [
        # The last has every event, and those before it fewer: of the first nothing is known.
        online.merge(packed_tiles(view, events[: len(events) * place // count]), as_of_ms)
        for place in range(1, count + 1)
    ]
    keys = [f"k{place}" for place in range(count)]
    absent = online.absent(as_of_ms, read.places)
    told = [online.answer(row, as_of_ms, progress_ms, read.places) for row in rows]
    told = [absent if data.draw(st.booleans()) else answers for answers in told]
    wrong = [place for place in range(count) if data.draw(st.booleans())]

    def written(form: Form) -> bytes:
        parts = form.parts(renderer, keys, told)
        for place in wrong:
            parts[place] = form.invalid(
                renderer, keys[place], BadRequest("no", where="here", fix="so")
            )
        return form.body(renderer, "thing", as_of_ms, parts)

    same(written)
    if renderer.is_plain and rows:
        instant = renderer.instant(as_of_ms, progress_ms)
        read_rows = [online.rows.read(online.rows.encode(row)) for row in rows]
        same(lambda form: form.of_rows(renderer, "thing", keys, read_rows, instant))


def same(written: Callable[[Form], bytes]) -> None:
    """Hold that the forms say the same, to the digit."""
    digits, texts = (msgspec.json.Decoder(float_hook=hook) for hook in (Decimal, str))
    rows, columnar = (digits.decode(written(form)) for form in (ROWS, COLUMNAR))
    assert by_key(columnar) == rows
    for feature in columnar["features"].values():
        del feature["ts"]
    assert digits.decode(written(COLUMNAR.without_ts())) == columnar
    wanted = texts.decode(written(ROWS))
    assert as_texts(msgspec.msgpack.decode(written(MSGPACK))) == wanted
    assert as_texts(of_arrow(written(ARROW))) == wanted


def of_arrow(body: bytes) -> dict[str, Any]:
    """Turn a stream of Arrow into an answer of rows."""
    table = pa.ipc.open_stream(body).read_all()
    told = {name.decode(): text.decode() for name, text in table.schema.metadata.items()}
    (key, *_) = table.column_names
    names = [name for name in table.column_names[2:] if "." not in name]
    results: list[dict[str, Any]] = []
    columns = {
        name: table.column(name).cast("int64" if name.endswith(".ts") else table.field(name).type)
        for name in table.column_names
    }
    of_keys = columns["key.status"].to_pylist()
    for place, (value, status) in enumerate(zip(columns[key].to_pylist(), of_keys, strict=True)):
        features = {}
        for name in names:
            ts_ms = columns[f"{name}.ts"][place].as_py()
            features[name] = {
                "value": columns[name][place].as_py(),
                "ts": None if ts_ms is None else instant_text(ts_ms),
                "version": table.field(name).metadata[b"version"].decode(),
                "status": columns[f"{name}.status"][place].as_py(),
            }
        results.append({"key": value, "features": features, "status": status})
    for error in msgspec.json.decode(told.get("errors", "[]")):
        place = error.pop("place")
        results[place] |= {
            "key": f"k{place}",
            "error": error,
        }  # as asked, which Arrow has no type for
    return {"entity_name": told["entity_name"], "as_of": told["as_of"], "results": results}


def as_texts(value: Any) -> Any:
    """Turn doubles into texts, as JSON writes them: decimals are texts in MessagePack."""
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return {name: as_texts(part) for name, part in value.items()}
    if isinstance(value, list):
        return [as_texts(part) for part in value]
    return msgspec.json.encode(value).decode() if isinstance(value, float) else value


def by_key(columnar: dict[str, Any]) -> dict[str, Any]:
    """Turn a columnar answer into one of rows."""
    results: list[dict[str, Any]] = [
        {"key": key, "features": {}, "status": "OK"} for key in columnar["keys"]
    ]
    for label, column in columnar["features"].items():
        usual = ["NULL_VALUE" if value is None else "PRESENT" for value in column["values"]]
        told = spelled(column, usual)
        for result, value, ts, status in zip(
            results, column["values"], column["ts"], told, strict=True
        ):
            version = column["version"]
            one = {"value": value, "ts": ts, "version": version, "status": status}
            result["features"][label] = one
            if value is None:
                result["status"] = "PARTIAL"
    for result, status in zip(
        results, spelled(columnar, [result["status"] for result in results]), strict=True
    ):
        result["status"] = status
    for error in columnar.get("errors", []):
        fault = {name: text for name, text in error.items() if name != "place"}
        results[error["place"]]["error"] = fault
    return {"entity_name": columnar["entity_name"], "as_of": columnar["as_of"], "results": results}


def spelled(told: dict[str, Any], usual: list[str]) -> list[str]:
    if "statuses" not in told:
        return usual
    return [status for status, length in told["statuses"] for _ in range(length)]


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
