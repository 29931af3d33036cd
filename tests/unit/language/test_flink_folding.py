"""Folding an expression changes what is written, never what it means."""

import random

import pytest

from millrace.compile.folding import folded
from millrace.expressions import Expression, ExpressionError, evaluate, parse_expression
from millrace.expressions.nodes import Call, Case, Column, Literal, walk
from tests.support.expression_cases import COLUMNS, Writer, random_row


@pytest.mark.parametrize("seed", range(300))
def test_a_folded_expression_has_the_same_type_and_values(seed: int) -> None:
    rng = random.Random(seed)
    writer = Writer(rng, smooth=True)
    try:
        expression = parse_expression(writer.expression(4), COLUMNS)
    except ExpressionError:
        return
    root = folded(expression.root)
    assert root.type == expression.type
    for node in walk(root):
        if isinstance(node, Call | Case):
            assert any(isinstance(part, Column) for part in walk(node)), expression.text
    for _ in range(20):
        row = random_row(rng)
        assert str(evaluate(Expression(root), row)) == str(evaluate(expression, row))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("CAST(2.5e0 AS decimal(9,1))", "2.5"),
        ("COALESCE(1.5e0, x)", "1.5e0"),
        ("COALESCE(NULLIF(1, 1), n, 2, m)", "COALESCE(n, 2)"),
        ("b AND 1 = 1", "b"),
        ("b OR 1 = 1", "TRUE"),
        ("CASE WHEN 1 = 2 THEN s WHEN b THEN u WHEN TRUE THEN 'x' ELSE 'y' END",
         "CASE WHEN b THEN u ELSE 'x' END"),
    ],
)  # fmt: skip
def test_what_no_column_can_change_is_gone(text: str, written: str) -> None:
    root = folded(parse_expression(text, COLUMNS).root)
    assert Expression(root).text == parse_expression(written, COLUMNS).text
    assert not isinstance(root, Literal) or root.type == parse_expression(text, COLUMNS).type
