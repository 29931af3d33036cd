"""The table of docs/stream-events.md, and the archive's classification, row by row."""

import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from millrace.calendar import FIRST_MS, LAST_MS
from millrace.plan import Column
from millrace.types import parse_type
from millrace.values.documents import DEEPEST
from streaming.archive.classification import Classifier
from tests.support.source_plans import source_plan

NOW_MS = 1_709_287_200_000


def classifier(**columns: str) -> Classifier:
    types = {"at": "timestamp", **columns}
    return Classifier(source_plan(Column(name, parse_type(text)) for name, text in types.items()))


def value_of(type_: str, text: str) -> Any:
    """Return what a column of this type makes of a JSON text; the reason if it refuses."""
    event = f'{{"at":{NOW_MS},"v":{text}}}'.encode()
    verdict = classifier(v=type_).classify(event, NOW_MS)
    return verdict.values[1] if verdict.reason is None else verdict.reason


FITS = [
    ("int32", "7", 7),
    ("int32", "-0", 0),
    ("int32", "2147483647", 2**31 - 1),
    ("int64", "-9223372036854775808", -(2**63)),
    ("float64", "1", 1.0),
    ("float64", "1e-400", 0.0),
    ("float64", "123456789012345678901234567890", 123456789012345678901234567890.0),
    ("decimal(5,2)", "1", Decimal("1.00")),
    ("decimal(5,2)", '"1.5"', Decimal("1.50")),
    ("decimal(5,2)", "1.500", Decimal("1.50")),
    ("decimal(5,2)", "15e-1", Decimal("1.50")),
    ("decimal(5,2)", "0e99999999999999999999", Decimal("0.00")),
    ("decimal(5,2)", "999.99", Decimal("999.99")),
    ("decimal(38,0)", "9" * 38, Decimal("9" * 38)),
    ("bool", "false", False),
    ("string", '"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
    ("string", '""', ""),
    ("timestamp", "1709287200123", 1_709_287_200_123),
    ("timestamp", '"2024-03-01"', NOW_MS - 10 * 3_600_000),
    ("timestamp", '"2024-03-01T10:00"', NOW_MS),
    ("timestamp", '"2024-03-01 10:00:01Z"', NOW_MS + 1_000),
    ("timestamp", '"2024-03-01T10:00:00.1239999+01:00"', NOW_MS - 3_600_000 + 123),
    ("timestamp", '"1969-12-31T23:59:59.9999-0000"', -1),
    ("timestamp", '"2024-03-01Z"', NOW_MS - 10 * 3_600_000),
    ("date", '"2024-02-29"', date(2024, 2, 29)),
    ("bytes", '"AP8="', b"\x00\xff"),
    ("int64", "null", None),
]


@pytest.mark.parametrize(("type_", "text", "value"), FITS)
def test_a_value_that_fits_is_exactly_itself(type_: str, text: str, value: object) -> None:
    found = value_of(type_, text)
    assert found == value
    assert type(found) is type(value)
    if isinstance(found, float):
        assert math.isfinite(found)


UNFIT = {
    "int32": ["7.0", "7e0", '"7"', "true", "2147483648", "[]"],
    "float64": ["1e400", '"1"', "true"],
    "decimal(5,2)": ["1.005", "1000", '""', '" 1"', '"+1"', '"1."', '".5"', '"NaN"', "1e99999999"],
    "bool": ["0", '"true"'],
    "string": ["1", "true", "{}"],
    "timestamp": ["1.5", '"1709287200000"', '"2024-02-30"', '"2024-01-01T24:00"', '"2024"'],
    "date": ['"20240101"', '"2024-01-01T00:00"', "19723"],
    "bytes": ['"QQ"', '"_-=="', '"Q Q="', '"QQ==="'],
}


@pytest.mark.parametrize(("type_", "text"), [(t, x) for t, texts in UNFIT.items() for x in texts])
def test_a_value_that_does_not_fit_is_a_schema_fault(type_: str, text: str) -> None:
    assert value_of(type_, text) == "schema"


def test_a_schema_fault_names_column_value_and_type() -> None:
    verdict = classifier(amount="decimal(5,2)").classify(b'{"at":0,"amount":"1.005"}', 0)
    assert verdict.detail == "column 'amount': '1.005' is no decimal(5,2)"
    long = classifier(amount="int32").classify(b'{"at":0,"amount":"' + b"x" * 999 + b'"}', 0)
    assert len(long.detail) < 150
    assert classifier().classify(b"{}", 0)[:2] == ("schema", "the event time 'at' is null")


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (None, "tombstone"),
        (b"", "empty"),
        (b'{"at":1', "character 7"),
        (b"[1]", "not an object"),
        (b'{"at":NaN}', "NaN is not JSON"),
        (b'{"x":"\xff"}', "byte 6 is not UTF-8"),
        (b'{"x":"\\ud800"}', "lone surrogate"),
        (b'{"x":' + b"[" * DEEPEST + b"]" * DEEPEST + b"}", "nested deeper"),
        (b'{"x":' + b"[" * 200_000, "nested deeper"),
    ],
)
def test_what_is_no_object_is_malformed_and_says_where(value: bytes | None, detail: str) -> None:
    verdict = classifier().classify(value, 0)
    assert verdict.reason == "malformed"
    assert detail in verdict.detail


def test_nesting_up_to_the_limit_is_fine_in_a_field_that_is_ignored() -> None:
    depth = DEEPEST - 1
    value = b'{"at":0,"x":' + b"[" * depth + b"]" * depth + b"}"
    assert classifier().classify(value, 0).reason is None
    brackets = b'{"at":0,"x":"' + b"[" * 5_000 + b'"}'
    assert classifier().classify(brackets, 0).reason is None


@pytest.mark.parametrize(
    ("event_ms", "reason", "counts_at"),
    [
        (NOW_MS, None, NOW_MS),
        (NOW_MS + 5_000, None, NOW_MS),
        (NOW_MS + 5_001, "future", NOW_MS + 5_001),
        (NOW_MS - 3_600_000, None, NOW_MS - 3_600_000),
        (NOW_MS - 3_600_001, "late", NOW_MS - 3_600_001),
        (LAST_MS, "future", LAST_MS),
        (FIRST_MS, "late", FIRST_MS),
        (LAST_MS + 1, "schema", None),
        (FIRST_MS - 1, "schema", None),
    ],
)
def test_both_bounds_of_lateness_and_skew_are_in(
    event_ms: int, reason: str | None, counts_at: int | None
) -> None:
    verdict = classifier().classify(f'{{"at":{event_ms}}}'.encode(), NOW_MS)
    assert (verdict.reason, verdict.event_ms) == (reason, counts_at)


def test_only_the_last_of_a_repeated_name_is_looked_at() -> None:
    found = classifier(v="int32").classify(b'{"at":0,"v":"x","\\u0076":2,"other":[{"v":3}]}', 0)
    assert found.values == (0, 2)
    assert classifier(v="int32").classify(b'{"at":0,"v":2,"v":"x"}', 0).reason == "schema"


def test_a_null_key_and_absent_columns_are_no_faults() -> None:
    found = classifier(who="int64", name="string").classify(b'{"at":0,"who":null}', 0)
    assert found.values == (0, None, None)


@pytest.mark.parametrize(
    ("number", "reason", "told"),
    [
        (1709287200, "late", "1709287200 looks like epoch seconds, 2024-03-01T10:00:00Z"),
        (20240301, "late", "20240301 looks like a date without hyphens: write 2024-03-01"),
        (20240301100000, "future", "write 2024-03-01T10:00:00Z"),
        (1709287200000000, "schema", "looks like epoch microseconds, 2024-03-01T10:00:00Z"),
    ],
)
def test_an_event_time_of_another_unit_is_told_as_one(number: int, reason: str, told: str) -> None:
    verdict = classifier().classify(f'{{"at":{number}}}'.encode(), NOW_MS)
    assert verdict.reason == reason
    assert told in verdict.detail
    text = classifier().classify(b'{"at":"1970-01-20T18:48:07.200Z"}', NOW_MS)
    assert "looks like" not in text.detail
