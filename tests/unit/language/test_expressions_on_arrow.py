"""Arrow evaluation at its edges; that it equals the reference is a property test."""

import subprocess
import sys
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.expressions import evaluate, parse_expression
from millrace.expressions.arrow import evaluate_column
from millrace.kernel.arrow import arrow_type
from millrace.types import FLOAT64, INT32, INT64, STRING, TIMESTAMP, DataType, decimal


def column(text: str, values: pa.Array, kind: DataType) -> pa.Array:
    return evaluate_column(parse_expression(text, {"c": kind}), pa.table({"c": values}))


def test_a_constant_fills_the_column() -> None:
    found = column("TIMESTAMP '1970-01-01 00:00:01'", pa.array([1, 2]), INT64)
    assert found.type == arrow_type(TIMESTAMP)
    assert found.cast(pa.int64()).to_pylist() == [1_000_000, 1_000_000]


def test_no_rows_give_no_rows_of_the_right_type() -> None:
    for text, kind in [("c + 1", INT64), ("c / 2", FLOAT64), ("CAST(c AS string)", STRING)]:
        found = column(text, pa.array([], pa.int64()), INT64)
        assert len(found) == 0
        assert found.type == arrow_type(kind)
    assert len(column("c / 2", pa.array([], pa.decimal128(9, 2)), decimal(9, 2))) == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_instants_of_any_unit_are_floored_to_milliseconds(unit: str) -> None:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = pa.array([-per_second, None, per_second - 1], pa.timestamp(unit))
    found = column("c", values, TIMESTAMP).cast(pa.int64()).to_pylist()
    last = (per_second - 1) * 1000 // per_second * 1000
    assert found == [-1_000_000, None, last]


def test_columns_are_taken_as_the_declared_type() -> None:
    text = pa.array(["a", None, "b"]).dictionary_encode()
    assert column("CONCAT(c, '!')", text, STRING).to_pylist() == ["a!", None, "b!"]
    assert column("c", pa.array([1, None], pa.int64()), INT32).type == pa.int32()


def test_chunks_and_slices_read_the_right_rows() -> None:
    kind = decimal(9, 2)
    values = pa.array([Decimal(n) / 4 for n in range(10)], pa.decimal128(9, 2))
    chunked = pa.chunked_array([values.slice(2, 3), values.slice(7)])
    expression = parse_expression("CAST(c AS float64)", {"c": kind})
    found = evaluate_column(expression, pa.table({"c": chunked})).to_pylist()
    assert found == [0.5, 0.75, 1.0, 1.75, 2.0, 2.25]


@pytest.mark.parametrize("a", [2**31, 3_037_000_499, 3_037_000_500, -(2**32), 2**62, -(2**63)])
@pytest.mark.parametrize("b", [2**31, 3_037_000_499, -3_037_000_500, 2, -1, 2**31 - 1])
def test_a_product_is_null_exactly_where_it_leaves_int64(a: int, b: int) -> None:
    expression = parse_expression("c * d", {"c": INT64, "d": INT64})
    found = evaluate_column(expression, pa.table({"c": [a, 1], "d": [b, 1]})).to_pylist()
    assert found == [evaluate(expression, {"c": a, "d": b}), 1]


@pytest.mark.parametrize("target", ["decimal(12,2)", "decimal(5,5)", "decimal(38,20)"])
def test_doubles_become_decimals_by_their_text(target: str) -> None:
    expression = parse_expression(f"CAST(c AS {target})", {"c": FLOAT64})
    values = [0.005, 1.005, 2.675, -0.125, 1e15, 0.999995, None, 0.1, 12345.675]
    for part in (values, [*values, 1e37, 1e300]):
        table = pa.table({"c": pa.array(part, pa.float64())})
        wanted = [evaluate(expression, {"c": v}) for v in part]
        assert evaluate_column(expression, table).to_pylist() == wanted


def test_the_language_loads_without_arrow_or_engines() -> None:
    code = (
        "import sys, millrace.expressions, millrace.compile.expressions;"
        "sys.exit(bool({'pyarrow', 'pandas', 'pyspark'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
