"""The live tests' own tools, tested without a server: the producer, the second judge, the oracle."""

import json
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from millrace.aggregates import AGGREGATES
from millrace.plan import Plan
from millrace.windows import KINDS
from resources.declarations import plan_of
from tests import reference
from tests.support.live import views
from tests.support.live.foreign_producer import BROKEN, Message, Mixture
from tests.support.live.oracle import OracleView, TopicOracle
from tests.support.live.strict_rows import NotAnEvent, read_row
from tests.support.live.topic_records import Record
from tests.support.window_cases import window_of

NOW_MS = 1_800_000_000_000
TYPES = views.PAYMENT_RULES.types


def mixture() -> Mixture:
    return Mixture(7, partitions=4, lateness_ms=views.LATENESS_MS, skew_ms=5_000)


@cache
def topic(count: int) -> tuple[list[Message], list[Record]]:
    mixed, offsets = mixture(), Counter[int]()
    messages, records = [], []
    for i in range(count):
        message = mixed.next(NOW_MS + i // 2)
        messages.append(message)
        records.append(
            Record(
                message.partition,
                offsets[message.partition],
                NOW_MS + i // 2 + 3,
                message.key,
                message.value,
            )
        )
        offsets[message.partition] += 1
    records.sort(key=lambda r: (r.partition, r.offset))
    return messages, records


def test_producer_sends_every_kind_of_mess() -> None:
    kinds = Counter(message.kind for message in topic(20_000)[0])
    assert set(BROKEN) < set(kinds)
    wanted = {"copy", "tie", "out_of_order", "late_inside", "late_beyond", "ahead_inside"}
    assert wanted | {"ahead_beyond", "null_customer", "null_shop"} < set(kinds)
    assert 0.02 < kinds["copy"] / 20_000 < 0.04
    assert 0.005 < sum(kinds[kind] for kind in BROKEN) / 20_000 < 0.02


def test_oracle_judges_each_kind_as_it_was_meant() -> None:
    messages, records = topic(20_000)
    books = TopicOracle(views.PAYMENT_RULES, records).books
    kinds = Counter(message.kind for message in messages)
    schema = sum(kinds[kind] for kind in ("wrong_type", "fractional_time", "short_vector"))
    broken = sum(kinds[kind] for kind in BROKEN)
    assert books.dead_letters["schema"] == schema
    assert books.dead_letters["malformed"] == broken - schema
    assert books.dead_letters["late"] >= kinds["late_beyond"] * 0.9
    assert books.dead_letters["future"] >= kinds["ahead_beyond"] * 0.9
    assert books.events + books.duplicates + sum(books.dead_letters.values()) == len(records)
    assert len(books.dead) == sum(books.dead_letters.values())


def test_oracle_equals_the_reference_without_its_index() -> None:
    _, records = topic(3_000)
    oracle = TopicOracle(views.PAYMENT_RULES, records)
    events = []
    for record in records:
        try:
            row = read_row(record.value, TYPES)
        except NotAnEvent:
            continue
        events.append(reference.Event(None, row["at"], record.timestamp_ms, row, row["id"]))
    counted = reference.accepted(
        reference.judge(events, allowed_lateness_ms=views.LATENESS_MS, clock_skew_ms=5_000)
    )
    q_ms = NOW_MS + 2_000
    for view in (views.SPEND, views.TILL):
        keys = oracle.keys(view)[:4]
        mine = [e for e in counted if view.where(e.value) is True and entity(view, e) in keys]  # type: ignore[arg-type]
        found = {key: oracle.expected(view, key, q_ms) for key in keys}
        for name, feature in view.features.items():
            read = feature.input or (lambda _: None)
            events = [replace(e, key=entity(view, e), value=read(e.value)) for e in mine]  # type: ignore[arg-type]
            for key in keys:
                whole = reference.value(
                    events, feature.reference, key, q_ms, start_ms=view.start_ms
                )
                assert found[key][name].value == whole, (name, key)


def entity(view: OracleView, event: reference.Event) -> object:
    return event.value[view.keys[0]]  # type: ignore[index]


def test_oracle_tells_what_is_null_and_what_is_over_its_limit() -> None:
    _, records = topic(3_000)
    oracle = TopicOracle(views.PAYMENT_RULES, records)
    told = oracle.expected(views.SPEND, oracle.keys(views.SPEND)[0], NOW_MS + 2_000)
    assert (told["c_mode_sliding"].value, told["c_mode_sliding"].status) == (None, "OVER_LIMIT")
    assert (told["c_is_usual"].value, told["c_is_usual"].status) == (True, "OVER_LIMIT")
    assert told["c_count_2m"].status == told["c_burst"].status == "PRESENT"
    # Asked again, of the same events the same; later, of fewer.
    assert oracle.expected(views.SPEND, oracle.keys(views.SPEND)[0], NOW_MS + 2_000) == told
    later = oracle.expected(views.SPEND, oracle.keys(views.SPEND)[0], NOW_MS + 200_000)
    assert (later["c_avg_sliding"].value, later["c_avg_sliding"].status) == (None, "NULL_VALUE")
    assert (later["c_share_2m"].value, later["c_share_2m"].status) == (0, "PRESENT")


def planned(folder: Path) -> Plan:
    for name, text in (("payments", views.PAYMENTS), ("pulses", views.PULSES)):
        (folder / f"{name}.yaml").write_text(text)
    return plan_of([folder])


def test_declarations_and_oracle_name_the_same_features_and_windows(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    for name, (entity_name, oracle) in views.VIEWS.items():
        view = plan.view(name)
        assert [e.name for e in view.entities] == [entity_name]
        assert view.start_ms == oracle.start_ms
        assert [f.name for f in view.features] == list(oracle.features)
        assert {f.name for f in view.derived} == set(oracle.derived)
        for feature in view.features:
            said = oracle.features[feature.name].reference
            assert window_of(said) == feature.window, feature.name
            assert said.default == feature.default, feature.name
            assert dict(said.parameters) == dict(feature.aggregate.parameters), feature.name
        for derived in view.derived:
            told = oracle.derived[derived.name]
            assert set(told.inputs) == set(derived.inputs), derived.name
            assert told.default == derived.default, derived.name


def test_every_aggregate_streams_in_both_views_and_in_every_kind_of_window(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    tried = set()
    for name in ("live_spend", "live_till"):
        features = plan.view(name).features
        assert {f.aggregate.name for f in features} == set(AGGREGATES)
        tried |= {(f.aggregate.name, type(f.window)) for f in features}
    assert tried == set(product(AGGREGATES, KINDS))
    defaults = [f for v in plan.views.values() for f in v.outputs if f.default is not None]
    assert len(defaults) > 10


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b'{"items": 1} x', "malformed"),
        (b'{"weight": NaN}', "malformed"),
        (b'{"shop": "\\ud800"}', "malformed"),
        (b'{"deep": ["\\ud800"]}', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"shop": "\xff"}', "malformed"),
        (b'{"items": 1.0}', "schema"),
        (b'{"items": "1"}', "schema"),
        (b'{"items": true}', "schema"),
        (b'{"items": 2147483648}', "schema"),
        (b'{"weight": 1e400}', "schema"),
        (b'{"weight": "1"}', "schema"),
        (b'{"amount": 1.001}', "schema"),
        (b'{"amount": "NaN"}', "schema"),
        (b'{"at": "2024-02-30T00:00"}', "schema"),
        (b'{"at": "yesterday"}', "schema"),
    ],
)
def test_second_judge_refuses_what_is_no_event(value: bytes | None, reason: str) -> None:
    with pytest.raises(NotAnEvent, match=reason):
        read_row(value, TYPES)


def test_second_judge_reads_what_is_one() -> None:
    text = {"at": "2024-02-29 12:00:00.1239+0130", "amount": "1.5e1", "items": 7, "shop": "1"}
    row = read_row(b' {"shop": "0", ' + json.dumps(text).encode()[1:] + b"\n", TYPES)
    assert row["at"] == 1_709_202_600_123
    assert (row["amount"], row["items"], row["shop"]) == (Decimal("15.00"), 7, "1")
    assert row["weight"] is None
