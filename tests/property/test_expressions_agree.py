"""Random expressions and rows: text, reference and Arrow say the same."""

import random

import pyarrow as pa
import sqlglot
from hypothesis import assume, given
from hypothesis import strategies as st

from millrace.compile.dialects import MillraceFlink
from millrace.compile.expressions import to_flink
from millrace.expressions import Expression, ExpressionError, evaluate, parse_expression
from millrace.expressions.arrow import evaluate_column
from millrace.kernel.arrow import arrow_type
from millrace.types import DataType
from tests.support.expression_cases import COLUMNS, Writer, random_row

SEEDS = st.integers(0, 2**48)
DEPTHS = st.integers(0, 4)


def random_expression(seed: int, depth: int) -> Expression:
    text = Writer(random.Random(seed), smooth=True).expression(depth)
    try:
        return parse_expression(text, COLUMNS)
    except ExpressionError as refused:
        # The writer knows no precisions and no ranges of literals; all else it writes is right.
        assume("digits" not in refused.what and "beyond int64" not in refused.what)
        raise


def arrow_table(rows: list[dict[str, object]]) -> pa.Table:
    def stored(value: object, kind: DataType) -> object:
        return value * 1000 if kind.kind == "timestamp" and isinstance(value, int) else value

    return pa.table(
        {
            name: pa.array([stored(row[name], kind) for row in rows], arrow_type(kind))
            for name, kind in COLUMNS.items()
        }
    )


def plain(column: pa.Array) -> list[object]:
    if pa.types.is_timestamp(column.type):
        instants = column.cast(pa.int64()).to_pylist()
        return [None if us is None else us // 1000 for us in instants]
    values: list[object] = column.to_pylist()
    return values


@given(seed=SEEDS, depth=DEPTHS)
def test_the_canonical_text_parses_to_the_same_expression(seed: int, depth: int) -> None:
    expression = random_expression(seed, depth)
    again = parse_expression(expression.text, COLUMNS)
    assert again == expression
    assert again.text == expression.text


@given(seed=SEEDS, depth=DEPTHS)
def test_arrow_equals_the_reference_on_every_row(seed: int, depth: int) -> None:
    expression = random_expression(seed, depth)
    rng = random.Random(seed + 1)
    rows = [random_row(rng) for _ in range(20)]
    found = evaluate_column(expression, arrow_table(rows))
    assert found.type == arrow_type(expression.type)
    wanted = [evaluate(expression, row) for row in rows]
    # Text tells 1 from 1.0 and 1.00 from 1.0, and nan from a number; the sign of zero is free.
    assert [str(v + 0.0 if isinstance(v, float) else v) for v in plain(found)] == [
        str(v + 0.0 if isinstance(v, float) else v) for v in wanted
    ]


@given(seed=SEEDS, depth=DEPTHS)
def test_flinks_text_of_any_expression_parses_and_prints_the_same(seed: int, depth: int) -> None:
    printed = to_flink(random_expression(seed, depth)).sql(MillraceFlink)
    assert sqlglot.parse_one(printed, dialect=MillraceFlink).sql(MillraceFlink) == printed
