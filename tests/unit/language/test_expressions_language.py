"""The language as an author meets it: what parses, what it is called, what is refused and how."""

import pickle

import pytest
from sqlglot.tokens import Tokenizer

from millrace.errors import SpecError
from millrace.expressions import ExpressionError, column_expression, parse_expression
from millrace.types import (
    BOOL,
    BYTES,
    DATE,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
)

COLUMNS = {
    "amount": decimal(12, 2),
    "unit_price": decimal(10, 2),
    "wide": decimal(38, 10),
    "quantity": INT32,
    "n": INT64,
    "x": FLOAT64,
    "flag": BOOL,
    "country": STRING,
    "t": TIMESTAMP,
    "d": DATE,
    "raw": BYTES,
    "order": INT32,
    'odd "name"': INT32,
}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CASE WHEN amount > 100 THEN 1 ELSE 0 END", INT64),
        ("amount > 0", BOOL),
        ("quantity * unit_price", decimal(21, 2)),
        ("quantity < 0", BOOL),
        ("x IS NOT NULL", BOOL),
        ("CASE WHEN flag THEN 1 ELSE 0 END", INT64),
        ("LOWER(country) = 'germany'", BOOL),
        ("HOUR(t) BETWEEN 0 AND 6", BOOL),
        ("quantity", INT32),
        ("quantity + quantity", INT64),
        ("-quantity", INT64),
        ("n / 2", FLOAT64),
        ("amount / 2", FLOAT64),
        ("amount + unit_price", decimal(13, 2)),
        ("amount + 1", decimal(13, 2)),
        ("amount * 2", decimal(14, 2)),
        ("amount * 1.25", decimal(16, 4)),
        ("amount - n", decimal(22, 2)),
        ("amount * x", FLOAT64),
        ("n % 3", INT64),
        ("amount % 3", decimal(3, 2)),
        ("FLOOR(x)", INT64),
        ("CEIL(amount)", decimal(11, 0)),
        ("FLOOR(quantity)", INT32),
        ("ROUND(x, 2)", FLOAT64),
        ("ROUND(amount, 1)", decimal(12, 1)),
        ("ROUND(amount, 5)", decimal(12, 2)),
        ("LN(amount)", FLOAT64),
        ("POWER(n, 2)", FLOAT64),
        ("COALESCE(n, 1.5)", decimal(20, 1)),
        ("COALESCE(quantity, 0)", INT64),
        ("COALESCE(x, n)", FLOAT64),
        ("NULLIF(amount, 0)", decimal(12, 2)),
        ("LENGTH(country)", INT64),
        ("CONCAT(country, '-', country)", STRING),
        ("SUBSTRING(country, 1, 3)", STRING),
        ("DAYOFWEEK(d)", INT64),
        ("CAST(t AS date)", DATE),
        ("CAST(amount AS int32)", INT32),
        ("CAST(NULL AS bytes)", BYTES),
        ("CASE WHEN flag THEN NULL ELSE amount END", decimal(12, 2)),
        ("CASE quantity WHEN 1 THEN 'one' END", STRING),
        ("1e3", FLOAT64),
        ("0.05", decimal(2, 2)),
        ("-1.50", decimal(3, 2)),
    ],
)
def test_an_expression_has_the_documented_type_and_round_trips(text: str, kind: DataType) -> None:
    parsed = parse_expression(text, COLUMNS)
    assert parsed.type == kind
    assert parse_expression(parsed.text, COLUMNS) == parsed


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("amount>100", "  amount\n >  100 -- a comment"),
        ("CASE WHEN flag THEN 1 ELSE 0 END", "case when flag then 1 else 0 end"),
        ("n + 1 > 2", "((n + (1)) > (2))"),
        ("n != 1", "n <> 1"),
        ("flag AND n = 1 AND x > 0", "flag AND (n = 1 AND x > 0)"),
        ("NOT country LIKE 'a%'", "country NOT LIKE 'a%'"),
        ("NOT (n IS NULL)", "n IS NOT NULL"),
        ("NOT n IN (1, 2)", "n NOT IN (1, 2)"),
        ("CASE n WHEN 1 THEN 2 END", "CASE WHEN n = 1 THEN 2 ELSE NULL END"),
        ("EXTRACT(hour FROM t)", "HOUR(t)"),
        ("-(5)", "- 5"),
        ("1e3", "1000.0e0"),
        ("TIMESTAMP '2018-04-01T00:00:00Z'", "TIMESTAMP '2018-04-01'"),
        ("CAST(n AS INT64)", "n"),
        ("CAST('2018-04-01' AS date)", "DATE '2018-04-01'"),
    ],
)
def test_layout_does_not_change_an_expression(one: str, other: str) -> None:
    left, right = parse_expression(one, COLUMNS), parse_expression(other, COLUMNS)
    assert left == right
    assert left.text == right.text
    assert hash(left) == hash(right)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("(n+1)*2-(n-1)", "(n + 1) * 2 - (n - 1)"),
        ("n-(n-n)", "n - (n - n)"),
        ("-(-n)", "-(-n)"),
        ("n - -1", "n - -1"),
        ("not (flag or flag) and flag", "NOT (flag OR flag) AND flag"),
        ("(n = 1) = flag", "(n = 1) = flag"),
        ('"order" + 1', '"order" + 1'),
        ('"odd ""name"""', '"odd ""name"""'),
        ("'it''s'", "'it''s'"),
        ("timestamp '2018-04-01 01:02:03.5'", "TIMESTAMP '2018-04-01 01:02:03.500'"),
        ("coalesce(null, n)", "COALESCE(CAST(NULL AS int64), n)"),
        ("n not between 1 and 2", "n NOT BETWEEN 1 AND 2"),
    ],
)
def test_the_canonical_text_is(text: str, canonical: str) -> None:
    assert parse_expression(text, COLUMNS).text == canonical


@pytest.mark.parametrize("word", sorted(Tokenizer.KEYWORDS))
def test_every_sql_keyword_can_name_a_column(word: str) -> None:
    expression = column_expression(word, INT64)
    assert parse_expression(expression.text, {word: INT64}) == expression


def test_columns_come_once_in_order_of_first_use() -> None:
    assert parse_expression("x + n * x + quantity", COLUMNS).columns == ("x", "n", "quantity")


def test_an_expression_pickles() -> None:
    parsed = parse_expression("CASE WHEN amount > 1.5 THEN x END", COLUMNS)
    assert pickle.loads(pickle.dumps(parsed)) == parsed  # noqa: S301


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("amuont > 0", "unknown column 'amuont' at character 1", "did you mean 'amount'"),
        ("n +\n foo", "unknown column 'foo' at character 2 of line 2", "known: "),
        ("n + LOWR(country)", "unknown function LOWR at character 5", "'LOWER'"),
        ("SUM(n)", "unknown function SUM", "name the aggregate"),
        ("IFNULL(n, 0)", "unknown function IFNULL", "COALESCE"),
        ("NOW()", "unknown function NOW", "event's columns only"),
        ("LN(n, 2)", "LN got 2 arguments", "write LN(x)"),
        ("country || 'x'", "not part of the language", "CONCAT(a, b)"),
        ("n IS TRUE", "not part of the language", "condition itself"),
        ("country ILIKE 'a'", "not part of the language", "LOWER(x) LIKE"),
        ("country LIKE 'a' ESCAPE '!'", "not part of the language", "without ESCAPE"),
        ("country LIKE 'a\\%'", "backslash", "use _ for one"),
        ("country LIKE country", "the pattern is country", "string literal"),
        ("n IN (SELECT 1)", "not part of the language", "list of literals"),
        ("n IN (quantity)", "IN takes literals", "n = quantity"),
        ("n IN (1, NULL)", "NULL has no type here", "IS NULL"),
        ("(SELECT 1)", "not part of the language", "one event"),
        ("SUM(n) OVER ()", "not part of the language", "one event"),
        ("t.n", "t.n is not part", "column's name alone"),
        ("n DIV 2", "not part of the language", "FLOOR(a / b)"),
        ("n & 1", "not part of the language", "no bit arithmetic"),
        ("n <=> 1", "not part of the language", "a IS NULL AND b IS NULL"),
        ("INTERVAL '1 day'", "not part of the language", "date parts"),
        ("(n, 1)", "not part of the language", "one value"),
        ("n[1]", "not part of the language", "plain values"),
        ("n::int", "is not understood at character", "one SQL expression"),
        ("n foo", "'foo' is not understood at character 3", "one SQL expression"),
        ("n +", "not SQL", "one SQL expression"),
        ("LN(n", "Expecting )", "one SQL expression"),
        ("CAST(n AS int64", "missing parenthesis; write CAST(x AS type)", ""),
        ("CAST(n, int64)", "CAST is written CAST(x AS type)", ""),
        ("EXTRACT(hour, t)", "EXTRACT is written EXTRACT(part FROM x)", ""),
        ("EXTRACT(quarter FROM t)", "no part QUARTER", ""),
        ("'unclosed", "not SQL", ""),
        ("", "an empty expression", "write a name alone"),
        ("n = NULL", "NULL has no type here", "IS NULL"),
        ("CASE WHEN flag THEN NULL END", "always null", "CAST(NULL AS type)"),
        ("CASE WHEN n THEN 1 END", "CASE WHEN takes conditions, and n is int64", "n <> 0"),
        ("NOT country", "NOT takes conditions", "country IS NOT NULL"),
        ("flag + 1", "flag is bool", "CASE WHEN condition THEN 1 ELSE 0 END"),
        ("country + 1", "country is string", "numeric type in its source"),
        ("flag > flag", "bool has no order", "= or <>"),
        ("raw < raw", "bytes has no order", "= or <>"),
        ("flag = 1", "bool and int64 do not go together", "CASE WHEN"),
        ("t > '2018-04-01'", "timestamp and string do not go together", "TIMESTAMP '"),
        ("t > DATE '2018-04-01'", "timestamp and date do not go together", "CAST(x AS date)"),
        ("d = '2018-04-01'", "date and string do not go together", "DATE '"),
        ("n = country", "int64 and string do not go together", "CAST(x AS int64)"),
        ("LOWER(n)", "LOWER takes strings, and n is int64", "CAST(x AS string)"),
        ("HOUR(d)", "HOUR takes a timestamp, and d is date", ""),
        ("x % 2", "x is float64", "CAST(x AS int64)"),
        ("wide * wide", "needs a decimal of 77 digits, and 38 is the most", "CAST an operand"),
        ("ABS(wide)", "at most 34 digits", "CAST it to a decimal"),
        ("wide > n * 1e0 AND n = wide * 1", "digits", "CAST"),
        ("SUBSTRING(country, 0)", "start 0", "from 1 to 1000000"),
        ("SUBSTRING(country, n)", "start is n", "whole number"),
        ("ROUND(x, -1)", "digits -1", "from 0 to 15"),
        ("CAST(country AS int64)", "no conversion of string to int64", "in its source"),
        ("CAST(n AS bool)", "no conversion of int64 to bool", "x <> 0"),
        ("CAST(x AS string)", "no conversion of float64 to string", "decimal first"),
        ("CAST(n AS bigint)", "'bigint' is not a type", "write int64"),
        ("CAST(n AS decimal(40,2))", "precision goes from 1 to 38", ""),
        ("9223372036854775808", "beyond int64", "9223372036854775808.0"),
        ("1e400", "beyond float64", ""),
        ("1.", "ends in a point", "1.0"),
        ("DATE '2018-02-30'", "'2018-02-30' is no day", "DATE '2024-01-31'"),
        ("TIMESTAMP '2018-04-01 00:00:00+02:00'", "is no instant", "in UTC"),
        ("(" * 500 + "n" + ")" * 500, "nested too deeply", "split it"),
        ("n + " * 1500 + "n", "", ""),
        ("n" * 20_000, "an expression of 20000 characters", "10000"),
    ],
)
def test_what_has_no_single_meaning_is_refused(text: str, what: str, fix: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text, COLUMNS)
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert isinstance(caught.value, SpecError)


def test_a_long_list_of_conditions_is_fine() -> None:
    text = " AND ".join(f"n <> {i}" for i in range(60))
    assert parse_expression(text, COLUMNS).text == text
