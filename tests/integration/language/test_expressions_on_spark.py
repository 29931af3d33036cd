"""Compiled expressions, run by Spark, give what the reference gives."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from millrace.compile.dialects import SPARK
from millrace.compile.expressions import to_spark
from millrace.expressions import Expression, ExpressionError, evaluate, parse_expression
from millrace.kernel.arrow import arrow_type
from millrace.types import DataType
from tests.support.expression_cases import COLUMNS, Writer, random_row

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXPRESSIONS_A_QUERY = 50

# StrictMath and the C library may differ in the last digit.
SMOOTH = [
    "LN(x)",
    "EXP(x)",
    "SQRT(x)",
    "POWER(x, y)",
    "LN(p)",
    "EXP(q)",
    "POWER(w, 0.5)",
    "SQRT(n)",
]


def stored(value: object, kind: DataType) -> object:
    if kind.kind == "timestamp" and isinstance(value, int):
        return EPOCH + timedelta(milliseconds=value)
    return value


def answers(
    spark: "SparkSession", expressions: list[Expression], rows: list[dict[str, object]]
) -> pa.Table:
    """Run all expressions over the rows as one query."""
    table = pa.table(
        {
            name: pa.array([stored(r[name], kind) for r in rows], arrow_type(kind))
            for name, kind in COLUMNS.items()
        }
    )
    # Spark collects no ids: one column keeps the rows apart and in order.
    table = table.append_column("row", pa.array(range(len(rows))))
    spark.createDataFrame(table).createOrReplaceTempView("expression_rows")
    names = [f"{to_spark(e).sql(SPARK)} AS `e{i}`" for i, e in enumerate(expressions)]
    query = f"SELECT {', '.join(names)} FROM expression_rows ORDER BY `row`"
    return spark.sql(query).toArrow()


def plain(column: pa.ChunkedArray) -> list[object]:
    if pa.types.is_timestamp(column.type):
        instants = column.cast(pa.int64()).to_pylist()
        return [None if us is None else us // 1000 for us in instants]
    values: list[object] = column.to_pylist()
    return values


@pytest.mark.parametrize("seed", range(6))
def test_spark_equals_the_reference(spark: "SparkSession", seed: int) -> None:
    rng = random.Random(seed)
    writer = Writer(rng, smooth=False)
    rows = [random_row(rng) for _ in range(40)]
    expressions: list[Expression] = []
    while len(expressions) < EXPRESSIONS_A_QUERY:
        try:
            expressions.append(parse_expression(writer.expression(rng.randint(1, 4)), COLUMNS))
        except ExpressionError:
            continue
    found = answers(spark, expressions, rows)
    for expression, column in zip(expressions, found.columns, strict=True):
        assert column.type == arrow_type(expression.type), expression.text
        wanted = [evaluate(expression, row) for row in rows]
        for row, got, want in zip(rows, plain(column), wanted, strict=True):
            used = {name: row[name] for name in expression.columns}
            # Text tells 1 from 1.0 and 1.00 from 1.0; the sign of a double's zero is free.
            assert got == want, f"{expression.text} with {used}"
            assert str(got).lstrip("-") == str(want).lstrip("-"), expression.text


def test_spark_has_the_smooth_functions_to_the_last_digit_but_one(spark: "SparkSession") -> None:
    rng = random.Random(11)
    rows = [random_row(rng) for _ in range(200)]
    expressions = [parse_expression(text, COLUMNS) for text in SMOOTH]
    found = answers(spark, expressions, rows)
    for expression, column in zip(expressions, found.columns, strict=True):
        for row, got in zip(rows, column.to_pylist(), strict=True):
            want = evaluate(expression, row)
            if got is None or want is None:
                assert got is want, f"{expression.text} with {row}"
            else:
                assert isinstance(want, float)
                assert math.isclose(got, want, rel_tol=1e-14), f"{expression.text} with {row}"
