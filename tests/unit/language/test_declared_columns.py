"""Columns that files and records call otherwise: ``from:`` of a column."""

import pytest

from millrace.errors import SpecError
from millrace.load.python import read_python
from millrace.load.yaml import read_yaml
from millrace.plan import Column, SourcePlan
from millrace.resolve import resolve, resolve_as_far_as_read
from millrace.spec import Specs
from millrace.types import INT64, STRING, TIMESTAMP

FILE = """\
sources:
  - name: orders
    columns:
      at: {type: timestamp, from: EventTime}
      customer_id: {type: int64, from: CustomerID}
      city: {type: string, from: address.city, description: Where it goes.}
      plain: {type: int64}
      same: {type: int64, from: same}
    event_time: at
    batch: {format: csv, path: orders}
entities:
  - {name: customer, join_key: customer_id, type: int64}
feature_views:
  - name: spend
    entity: customer
    source: orders
    start: 2024-01-01
    features:
      - {name: orders_1d, aggregate: count, window: 1d}
"""
PYTHON = """\
from millrace import BatchSource, Column, Entity, FeatureView, Source, count

orders = Source("orders", event_time="at", batch=BatchSource("csv", "orders"), columns={
    "at": Column("timestamp", "EventTime"),
    "customer_id": {"type": "int64", "from": "CustomerID"},
    "city": Column("string", "address.city", description="Where it goes."),
    "plain": Column("int64"),
    "same": Column("int64", "same"),
})
customer = Entity("customer", "customer_id", "int64")
spend = FeatureView("spend", entity=customer, source=orders, start="2024-01-01",
                    features=[count().over("1d").named("orders_1d")])
"""


def source_of(text: str = FILE) -> SourcePlan:
    """Return the plan of the one source."""
    specs, faults = read_yaml(text, "orders.yaml")
    assert not faults
    return resolve(specs).sources["orders"]


def said_of(*changes: tuple[str, str]) -> list[str]:
    """Return every fault of the file with some parts replaced, as one text each."""
    text = FILE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    specs, faults = read_yaml(text, "orders.yaml")
    _, more = resolve_as_far_as_read(specs, is_complete=not (faults and specs == Specs()))
    return [f"{fault.where}: {fault.what} | {fault.fix}" for fault in [*faults, *more]]


def test_a_column_knows_what_it_is_read_from() -> None:
    assert source_of().columns == (
        Column("at", TIMESTAMP, "EventTime"),
        Column("customer_id", INT64, "CustomerID"),
        Column("city", STRING, "address.city"),
        Column("plain", INT64),
        Column("same", INT64),
    )
    assert [c.origin for c in source_of().columns] == [
        "EventTime", "CustomerID", "address.city", "plain", "same"
    ]  # fmt: skip
    assert source_of().column("city").description == "Where it goes."


def test_python_says_the_same() -> None:
    in_python, faults = read_python(PYTHON, "orders.py")
    assert not faults
    assert in_python == read_yaml(FILE, "orders.yaml")[0]


def test_two_columns_may_be_read_from_one() -> None:
    assert not said_of(("from: EventTime", "from: CustomerID"), ("from: CustomerID", "from: X"))


def test_names_of_files_are_mended_in_one_round() -> None:
    (said,) = said_of(("customer_id: {type: int64, from: CustomerID}", "CustomerID: int64"))
    assert "'CustomerID' cannot name a column: names are small letters" in said
    assert "customer_id: {type: …, from: CustomerID}" in said


def test_a_name_of_the_files_in_place_of_the_declared_one_is_told_the_declared_one() -> None:
    (said,) = said_of(("event_time: at", "event_time: EventTime"))
    assert said.endswith("no column | it is declared as 'at': write that")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("from: CustomerID", "from: ' '"), "column 'customer_id' is read from ' ', which is no"),
        (("from: CustomerID", "from: ''"), "column 'customer_id' is read from '', which is no"),
        (("from: address.city", "from: address..city"), "part of it is empty | write from: address.city"),
        (("from: address.city", "from: city."), "'city.', which is no path"),
        (("from: CustomerID", "from: ..."), "empty | write names with dots between them"),
        (("from: CustomerID", "from:"), "from has no value"),
        (("from: CustomerID", "from: [a]"), "from is a list"),
        (("from: CustomerID", "form: CustomerID"), "a column has no key 'form' | did you mean 'from'?"),
        (("{type: int64, from: CustomerID}", "{from: CustomerID}"), "a column has no type"),
        (("{type: int64, from: CustomerID}", "{type: int, from: A}"), "'int' is not a type"),
        (("plain: {type", "event_date: {type"), "source_event_date: {type: …, from: event_date}"),
        (("plain: {type", "customer_id: {type"), "the key 'customer_id' stands twice"),
    ],
)  # fmt: skip
def test_each_fault_is_said_once_with_its_mend(changes: tuple[str, str], said: str) -> None:
    (found,) = said_of(changes)
    assert said in found


def test_a_column_of_python_that_is_neither_is_a_fault() -> None:
    _, faults = read_python(PYTHON.replace('Column("int64")', "7"), "orders.py")
    assert [fault.what for fault in faults] == ["the column 'plain' is a int: 7"]


def test_what_is_read_is_part_of_the_definition_and_a_plain_column_is_not() -> None:
    plain = source_of(FILE.replace("plain: {type: int64}", "plain: int64"))
    assert plain.fingerprint == source_of().fingerprint
    other = source_of(FILE.replace("from: address.city", "from: address.town"))
    assert other.fingerprint != plain.fingerprint


def test_descriptions_of_columns_are_no_difference_between_two_files() -> None:
    specs = read_yaml(FILE, "a.yaml")[0]
    again = read_yaml(FILE.replace("Where it goes.", "Elsewhere."), "b.yaml")[0]
    resolve(specs + Specs(sources=again.sources))
    with pytest.raises(SpecError, match="declared already"):
        resolve(specs + read_yaml(FILE.replace("address.city", "town"), "c.yaml")[0])
