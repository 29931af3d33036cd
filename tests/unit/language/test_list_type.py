"""Lists: what they are wherever values are stored, told and judged."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from checks.parity.recomputing import plain_values
from millrace.check_types import CHECK_TYPES
from millrace.codec import Codec, Packed
from millrace.errors import DataError, SpecError, StoreError
from millrace.kernel.arrow import arrow_type
from millrace.kernel.chunk import Result
from millrace.kernel.columns import empty_output
from millrace.layouts import Slot
from millrace.load.yaml import read_yaml
from millrace.plan import Column
from millrace.quality.partial import Partials, TableShape
from millrace.resolve import resolve
from millrace.types import (
    BOOL,
    BYTES,
    DATE,
    FLOAT64,
    INT64,
    KINDS,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
    list_of,
    parse_type,
)
from offline.training.dataset_file import write_table_file
from resources.online_api import value_from_json, value_to_json
from serving import rendering

AT_MS = 1_577_934_245_006
AT = datetime(2020, 1, 2, 3, 4, 5, 6000, UTC)
EXAMPLES: dict[DataType, tuple[list[Any], str]] = {
    INT64: ([3, -(2**63)], "[3,-9223372036854775808]"),
    FLOAT64: ([1.5], "[1.5]"),
    decimal(12, 2): ([Decimal("1.50"), Decimal("-0.01")], "[1.50,-0.01]"),
    BOOL: ([True, False], "[true,false]"),
    STRING: (["a", 'q"'], '["a","q\\""]'),
    TIMESTAMP: ([AT_MS], '["2020-01-02T03:04:05.006Z"]'),
    DATE: ([date(2020, 2, 29)], '["2020-02-29"]'),
    BYTES: ([b"A"], '["QQ=="]'),
}
EACH = pytest.mark.parametrize("type_", EXAMPLES, ids=str)


def test_a_list_is_written_and_read_as_it_is_named() -> None:
    for scalar in EXAMPLES:
        assert parse_type(f"list<{scalar}>") == list_of(scalar)
        assert str(list_of(scalar)) == f"list<{scalar}>"
    assert list_of(decimal(12, 2)).spark == "ARRAY<DECIMAL(12, 2)>"
    assert list_of(TIMESTAMP).flink == "ARRAY<TIMESTAMP_LTZ(3)>"
    assert arrow_type(list_of(DATE)) == pa.list_(pa.date32())
    assert not list_of(INT64).is_numeric


@pytest.mark.parametrize("text", ["list", "list<>", "list<list<int64>>", "list<number>"])
def test_only_lists_of_scalars_are_types(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a type|are scalars"):
        parse_type(text)


def test_columns_are_no_lists() -> None:
    file = """\
sources:
  - name: orders
    columns: {at: timestamp, tags: list<string>}
    event_time: at
    batch: {format: parquet, path: orders}
"""
    specs, faults = read_yaml(file, "orders.yaml")
    assert not faults
    with pytest.raises(SpecError) as refused:
        resolve(specs)
    (fault,) = refused.value.faults
    assert fault.what == "column 'tags' is a list<string>, and columns are scalars or vectors"
    assert fault.fix == "write type: string; lists are what aggregates give"


@EACH
def test_answers_are_arrays_and_come_back(type_: DataType) -> None:
    values, text = EXAMPLES[type_]
    write = rendering.writer_of(list_of(type_))
    body = rendering.ENCODER.encode(values if write is None else write(values)).decode()
    assert body == text
    read = msgspec.json.decode(body, type=list[Decimal] if type_.is_numeric else Any)
    assert value_from_json(read, list_of(type_)) == values


def test_parity_tells_lists_as_plain_json() -> None:
    assert value_to_json([Decimal("1.50")], list_of(decimal(12, 2))) == ["1.50"]
    assert value_to_json([], list_of(DATE)) == []


@EACH
def test_the_values_of_a_list_must_fit(type_: DataType) -> None:
    codec = Codec("row", "0" * 16, [Slot("f", list_of(type_))])
    values, _ = EXAMPLES[type_]
    assert codec.decode(codec.encode(Packed((tuple(values),)))) == Packed((values,))
    for wrong in ([None], [object()], values[0]):
        with pytest.raises(DataError, match="does not fit"):
            codec.encode(Packed((wrong,)))


def test_a_list_that_is_cut_off_is_broken() -> None:
    codec = Codec("row", "0" * 16, [Slot("f", list_of(INT64))])
    whole = codec.encode(Packed(([1, 2],)))
    length_at = len(whole) - 2 * 8 - 4
    for broken in (
        whole[:-1],
        whole + b"\0",
        whole[:length_at] + b"\xff" * 4 + whole[length_at + 4 :],
    ):
        with pytest.raises(StoreError, match="broken"):
            codec.decode(broken)


@pytest.mark.parametrize("is_null", [False, True])
def test_the_kernel_puts_lists_together_in_the_order_of_the_spine(*, is_null: bool) -> None:
    output = empty_output(list_of(decimal(12, 2)), 5, is_null=is_null, dictionary=None)
    output.put(np.array([4, 1]), Result(np.array([1, 2, 3]), None, lengths=np.array([2, 1])))
    output.put(
        np.array([0, 2]),
        Result(np.array([4, 5]), np.array([False, True]), lengths=np.array([0, 2])),
    )
    found = output.to_arrow()
    found.validate(full=True)
    one = [Decimal(n).scaleb(-2) for n in range(6)]
    null: Any = None if is_null else []
    assert found.to_pylist() == [null, [one[3]], [one[4], one[5]], [], [one[1], one[2]]]
    none = empty_output(list_of(BOOL), 0, is_null=is_null, dictionary=None).to_arrow()
    assert (none.type, len(none)) == (arrow_type(list_of(BOOL)), 0)


def test_the_kernels_lists_of_ranks_are_lists_of_what_is_ranked() -> None:
    words = pa.array(["a", "b", "c"])
    output = empty_output(list_of(STRING), 2, is_null=False, dictionary=words)
    output.put(np.array([1, 0]), Result(np.array([2, 0, 1]), None, lengths=np.array([1, 2])))
    assert output.to_arrow().to_pylist() == [["a", "b"], ["c"]]


def test_recomputed_lists_of_instants_are_milliseconds() -> None:
    column = pa.chunked_array([pa.array([[AT], [], None], arrow_type(list_of(TIMESTAMP)))])
    assert plain_values(column) == [[AT_MS], [], None]


def test_a_csv_has_lists_as_json(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    columns: dict[str, Any] = {
        "days": ([[date(2020, 2, 29)], []], DATE),
        "texts": ([["a", 'q"'], None], STRING),
        "sums": ([[Decimal("1.50")], []], decimal(12, 2)),
        "at": ([[AT], []], TIMESTAMP),
    }
    table = pa.table(
        {
            name: pa.array(rows, arrow_type(list_of(type_)))
            for name, (rows, type_) in columns.items()
        }
    )
    write_table_file(table, path)
    assert path.read_text().splitlines()[1:] == [
        '"[""2020-02-29""]","[""a"", ""q\\""""]","[""1.50""]","[""2020-01-02T03:04:05.006Z""]"',
        '"[]",,"[]","[]"',
    ]


def test_rows_that_differ_in_a_list_alone_are_no_duplicates() -> None:
    columns = (Column("at", TIMESTAMP), Column("f", list_of(INT64)))
    shape = TableShape("features/v", columns, "at", ("at", "f"))
    lists = [[1, 2], [2, 1], [1], [1, 2], [], None, None, []]
    partials = Partials(shape)
    partials.add(
        pa.table(
            {
                "at": pa.array([AT] * len(lists), arrow_type(TIMESTAMP)),
                "f": pa.array([[9], *lists], arrow_type(list_of(INT64)))[1:],
            }
        )
    )
    (day,) = partials.profiles()
    assert day.duplicates == 3
    column = day.columns["f"]
    assert (column.kind, column.nulls, round(column.distinct)) == ("other", 2, 4)


def test_checks_of_numbers_and_of_frequent_values_judge_no_list() -> None:
    judge_lists = {name for name, check in CHECK_TYPES.items() if check.of == "column"}
    judge_lists -= {name for name, check in CHECK_TYPES.items() if check.kinds}
    assert judge_lists == {"null_rate"}
    assert "list" not in KINDS
