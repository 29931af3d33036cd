"""``first_k`` and ``last_k``: what is listed, in which order, and what a tile keeps of it."""

from itertools import permutations
from typing import Any

import pytest

from millrace.aggregates import AGGREGATES, Place
from millrace.load.yaml import read_yaml
from millrace.plan import FeaturePlan, Plan
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.types import FLOAT64, INT64, STRING

FILE = """\
sources:
  - name: orders
    columns: {order_id: int64, at: timestamp, customer_id: int64, shop: string}
    event_time: at
    event_id: order_id
    batch: {format: csv, path: orders}
entities:
  - {name: customer, join_key: customer_id, type: int64}
feature_views:
  - name: shops
    entity: customer
    source: orders
    start: 2024-01-01
    features:
      - {name: recent, aggregate: last_k, column: shop, k: 3, window: 7d}
"""
RECENT = "{name: recent, aggregate: last_k, column: shop, k: 3, window: 7d}"


def planned(text: str = FILE) -> Plan:
    specs, faults = read_yaml(text, "orders.yaml")
    assert not faults
    return resolve(specs)


def recent(text: str = FILE) -> FeaturePlan:
    return planned(text).view("shops").feature("recent")


def said_of(old: str, new: str) -> list[str]:
    assert old in FILE
    specs, faults = read_yaml(FILE.replace(old, new), "orders.yaml")
    _, found = resolve_as_far_as_read(specs, is_complete=not faults)
    return [f"{fault.what} | {fault.fix}" for fault in [*faults, *found]]


EVENTS: list[tuple[Any, Place]] = [
    ("c", Place(5, 9, 7)),
    ("d", Place(5, 9, None)),  # a null id comes before every other
    ("e", Place(5, 8, 9)),
    ("b", Place(5, 9, 3)),
    ("a", Place(5, 9, 3)),  # after the id, the value decides
    ("z", Place(4, 20, 1)),
    (None, Place(6, 6, 1)),
]
NEWEST_FIRST = ["c", "b", "a", "d", "e", "z"]


@pytest.mark.parametrize("name", ["first_k", "last_k"])
@pytest.mark.parametrize("k", range(1, 8))
def test_values_come_in_the_order_of_places(name: str, k: int) -> None:
    wanted = NEWEST_FIRST if name == "last_k" else NEWEST_FIRST[::-1]
    aggregate = AGGREGATES[name].bind(STRING, {"k": k})
    algebra = aggregate.algebra
    packed = set()
    for events in list(permutations(EVENTS))[::97]:
        one, other = algebra.init(), algebra.init()
        for place, (value, at) in enumerate(events):
            if place % 2:
                one = algebra.update(one, value, at)
            else:
                other = algebra.update(other, value, at)
        merged = algebra.merge(one, algebra.unpack(algebra.pack(other)))
        assert aggregate.finalize(merged) == wanted[:k]
        packed.add(algebra.pack(merged))
    assert len(packed) == 1  # the same bytes, whatever the order


def test_the_bytes_of_the_newest_values() -> None:
    algebra = AGGREGATES["last_k"].bind(STRING, {"k": 2}).algebra
    state = algebra.init()
    for value, place in (("é", Place(2, 3, "x")), ("", Place(1, -1, 258)), ("y", Place(0, 0))):
        state = algebra.update(state, value, place)
    (packed,) = algebra.pack(state)
    assert packed.hex(" ") == " ".join(
        [
            "00 00 00 00 00 00 00 02 00 00 00 00 00 00 00 03 02 00 00 00 01 78",
            "00 00 00 02 c3 a9",
            "00 00 00 00 00 00 00 01 ff ff ff ff ff ff ff ff 01 00 00 00 00 00 00 01 02",
            "00 00 00 00",
        ]
    )
    assert algebra.pack(algebra.unpack((packed,))) == (packed,)
    assert algebra.pack(algebra.init()) == (None,)


def test_both_zeros_are_one() -> None:
    algebra = AGGREGATES["last_k"].bind(FLOAT64, {"k": 2}).algebra
    one, other = (algebra.update(algebra.init(), zero, Place(1, 1)) for zero in (0.0, -0.0))
    assert algebra.pack(algebra.merge(one, other)) == algebra.pack(algebra.merge(other, one))


def test_how_many_is_part_of_the_meaning() -> None:
    assert str(recent().type) == "list<string>"
    assert recent().empty == []
    three, five = planned(), planned(FILE.replace("k: 3", "k: 5"))
    assert three.view("shops").fingerprint != five.view("shops").fingerprint
    assert AGGREGATES["last_k"].bind(INT64, {"k": 3}).of("shop") == "last_k(shop, k=3)"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("k: 3, ", "", "k is missing | k: how many values, 1 to 100"),
        ("k: 3", "k: 101", "k is 101, outside 1 to 100 | k: how many values, 1 to 100"),
        ("k: 3", "k: 2.5", "k is 2.5, not a whole number"),
        ("k: 3", "k: true", "k is the text 'true', not a number | write a plain number: 5 or 0.2"),
        ("k: 3", 'k: "3"', "k is the text '3', not a number"),
        ("k: 3", "k: ", "k is empty, not a number"),
        ("k: 3", "k: .nan", "k is the text '.nan', not a number"),
        ("k: 3", "k: 3, default: x", "a last_k is never null, and has no default | remove default: a last_k of nothing is []"),
        (f"{RECENT}\n", f"{RECENT}\n    checks:\n      - {{type: range, feature: recent, min: 0}}\n", "the check 'range' cannot judge 'recent', a list<string> | it judges decimal"),
        (f"{RECENT}\n", f"{RECENT}\n    checks:\n      - {{type: unseen, feature: recent, values: [a, b]}}\n", "the check 'unseen' cannot judge 'recent', a list<string> | it judges bool"),
        (f"{RECENT}\n", f"{RECENT}\n    checks:\n      - {{type: frozen, feature: recent, max: 0.5}}\n", "the check 'frozen' cannot judge 'recent', a list<string>"),
        (f"{RECENT}\n", f"{RECENT}\n    checks:\n      - {{type: drift, feature: recent, max: 0.5}}\n", "the check 'drift' cannot judge 'recent', a list<string>"),
    ],
)  # fmt: skip
def test_each_fault_of_a_list_is_said(old: str, new: str, said: str) -> None:
    (fault,) = said_of(old, new)
    assert said in fault
