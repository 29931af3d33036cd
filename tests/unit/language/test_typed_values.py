"""Cells of Parquet and Delta as declared columns: one meaning, whatever type they are stored in."""

from collections.abc import Sequence
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.plan import Column
from millrace.rows.lines import Rows
from millrace.rows.typed_rows import read_typed_rows
from millrace.types import parse_type

UINT64 = pa.decimal128(20, 0)
"""How integers of 64 bits without a sign arrive."""


def read(cells: pa.Array, type_: str, *, is_clock: bool = False) -> Rows:
    column = Column("c", parse_type(type_))
    return read_typed_rows([column], {"c"} if is_clock else (), {"c": cells}, len(cells))


@pytest.mark.parametrize(
    ("type_", "stored", "cells", "values"),
    [
        ("string", UINT64, [Decimal(2**64 - 1), None], [str(2**64 - 1), None]),
        ("bool", UINT64, [Decimal(1), Decimal(0), None], [True, False, None]),
        ("bool", UINT64, [Decimal(2), Decimal(2**64 - 1)], [None, None]),
        ("bool", pa.int8(), [1, 0, 2, -1, None], [True, False, None, None, None]),
        ("int64", pa.decimal128(38, 18), [Decimal(0), Decimal(5), Decimal("5.5")], [0, 5, None]),
        ("int32", pa.decimal256(60, 7), [Decimal(0), Decimal(2**31)], [0, None]),
    ],
)
def test_numbers_that_fit_and_that_do_not(
    type_: str, stored: pa.DataType, cells: Sequence[object], values: Sequence[object]
) -> None:
    rows = read(pa.array(cells, stored), type_)
    assert rows.columns[0].to_pylist() == values
    is_good = [cell is None or value is not None for cell, value in zip(cells, values, strict=True)]
    assert rows.reason.is_null().to_pylist() == is_good


@pytest.mark.parametrize("stored", [pa.int64(), pa.float64(), UINT64])
@pytest.mark.parametrize(
    ("number", "unit"),
    [(1_709_287_200, "seconds"), (1_709_287_200_000_000, "microseconds"), (20_240_301, "hyphens")],
)
def test_an_event_time_of_another_unit_is_told_in_any_type(
    stored: pa.DataType, number: int, unit: str
) -> None:
    good = 1_709_287_200_000
    rows = read(pa.array([number, good, None]).cast(stored), "int64", is_clock=True)
    assert rows.columns[0].to_pylist() == [None, good, None]
    assert unit in rows.detail[0].as_py()
    assert rows.detail.null_count == 2
