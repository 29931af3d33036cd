"""The SQL each engine is told; that it means the same is proven where the engines run."""

import pytest
import sqlglot

from millrace.compile.dialects import SPARK, MillraceFlink
from millrace.compile.expressions import to_flink, to_spark
from millrace.expressions import parse_expression
from millrace.types import BOOL, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMP, decimal

COLUMNS = {
    "amount": decimal(12, 2),
    "v": decimal(17, 5),
    "quantity": INT32,
    "n": INT64,
    "x": FLOAT64,
    "flag": BOOL,
    "s": STRING,
    "t": TIMESTAMP,
    "d": DATE,
    "we`ird": INT64,
}
_X = "CASE WHEN ABS(`x`) <= 1.7976931348623157e308 THEN `x` END"

CASES = [
    ("amount > 100", "`amount` > 100", "`amount` > 100"),
    (
        "CASE WHEN amount > 100 THEN 1 ELSE 0 END",
        "CASE WHEN `amount` > 100 THEN 1L ELSE 0L END",
        "CASE WHEN `amount` > 100 THEN CAST(1 AS BIGINT) ELSE CAST(0 AS BIGINT) END",
    ),
    (
        "quantity * amount",
        "CAST(CAST(`quantity` AS DECIMAL(10, 0)) * `amount` AS DECIMAL(23, 2))",
        "CAST(CAST(`quantity` AS DECIMAL(10, 0)) * `amount` AS DECIMAL(23, 2))",
    ),
    ("quantity + 1", "CAST(`quantity` AS BIGINT) + 1L", None),
    (
        "n + 1",
        "TRY_ADD(`n`, 1L)",
        (
            "TRY_CAST(CAST(CAST(`n` AS DECIMAL(19, 0)) + CAST(CAST(1 AS BIGINT) AS DECIMAL(19, 0))"
            " AS STRING) AS BIGINT)"
        ),
    ),
    ("HOUR(t) * 60", "CAST(HOUR(`t`) AS BIGINT) * 60L", None),
    (
        "amount / n",
        "CAST(`amount` AS DOUBLE) / NULLIF(CAST(`n` AS DOUBLE), 0e0)",
        "CAST(`amount` AS DOUBLE) / NULLIF(CAST(`n` AS DOUBLE), 0e0)",
    ),
    ("n % 7", "MOD(`n`, 7L)", "MOD(`n`, CAST(7 AS BIGINT))"),
    ("n % quantity", "MOD(`n`, NULLIF(CAST(`quantity` AS BIGINT), 0L))", None),
    ("x", _X, _X),
    ("x IS NOT NULL", f"NOT {_X} IS NULL", f"NOT {_X} IS NULL"),
    ("x > n", f"{_X} > CAST(`n` AS DOUBLE)", f"{_X} > CAST(`n` AS DOUBLE)"),
    (
        "x + x > 1",
        "CASE WHEN ABS(`x` + `x`) <= 1.7976931348623157e308 THEN `x` + `x` END > 1.0e0",
        None,
    ),
    (
        "FLOOR(x)",
        (
            "CASE WHEN `x` BETWEEN -9.223372036854775808e18 AND 9.223372036854774784e18"
            " THEN CAST(FLOOR(`x`) AS BIGINT) END"
        ),
        None,
    ),
    ("ROUND(amount, 1)", "CAST(ROUND(`amount`, 1) AS DECIMAL(12, 1))", None),
    ("-n", "-NULLIF(`n`, -9223372036854775808L)", None),
    ("s LIKE 'a%'", "`s` LIKE 'a%'", "`s` LIKE 'a%'"),
    ("s LIKE 'a_b'", "`s` LIKE 'a_b'", r"REGEXP(`s`, '(?s)\Aa.b\z')"),
    ("s = 'it''s'", r"`s` = 'it\'s'", "`s` = 'it''s'"),
    ("COALESCE(s, 'a')", "COALESCE(`s`, 'a')", "COALESCE(`s`, CAST('a' AS STRING))"),
    ("LENGTH(s)", "CAST(LENGTH(`s`) AS BIGINT)", "CAST(CHAR_LENGTH(`s`) AS BIGINT)"),
    (
        "HOUR(t)",
        "CAST(HOUR(`t`) AS BIGINT)",
        (
            "MOD(MOD(EPOCH_MS(`t`), CAST(86400000 AS BIGINT)) + CAST(86400000 AS BIGINT), "
            "CAST(86400000 AS BIGINT)) / CAST(3600000 AS BIGINT)"
        ),
    ),
    ("DAY(t)", "CAST(DAY(`t`) AS BIGINT)", "CAST(DAYOFMONTH(UTC_DAY(`t`)) AS BIGINT)"),
    ("YEAR(d)", "CAST(YEAR(`d`) AS BIGINT)", "CAST(YEAR(`d`) AS BIGINT)"),
    (
        "t >= TIMESTAMP '1970-01-02'",
        "`t` >= TIMESTAMP_MILLIS(86400000)",
        "`t` >= TO_TIMESTAMP_LTZ(86400000, 3)",
    ),
    ("d = DATE '2018-04-01'", "`d` = CAST('2018-04-01' AS DATE)", None),
    (
        "CAST(d AS timestamp)",
        "CAST(`d` AS TIMESTAMP)",
        "CAST(`d` AS TIMESTAMP_LTZ(3))",
    ),
    ("CAST(x AS decimal(9,2))", f"TRY_CAST({_X} AS DECIMAL(9, 2))", None),
    ("CAST(amount AS float64)", "CAST(`amount` AS DOUBLE)", "CAST(`amount` AS DOUBLE)"),
    ("CAST(v AS float64)", "CAST(`v` AS DOUBLE)", "CAST(CAST(`v` AS DECIMAL(38, 5)) AS DOUBLE)"),
    ("LN(x) > 0", None, None),
    ("x IN (1, 2)", f"{_X} = 1.0e0 OR {_X} = 2.0e0", None),
    ("NOT (x IN (1, 2)) AND flag", f"NOT ({_X} = 1.0e0 OR {_X} = 2.0e0) AND `flag`", None),
    ("(flag OR flag) AND n = 1", "(`flag` OR `flag`) AND `n` = 1", None),
    ("amount IN (1, 2.5)", None, None),
    ('"we`ird" = 1', "`we``ird` = 1", "`we``ird` = 1"),
]


@pytest.mark.parametrize(("text", "spark", "flink"), CASES)
def test_an_expression_compiles_to(text: str, spark: str | None, flink: str | None) -> None:
    parsed = parse_expression(text, COLUMNS)
    found = to_spark(parsed).sql(SPARK), to_flink(parsed).sql(MillraceFlink)
    if spark is not None:
        assert found[0] == spark
    if flink is not None:
        assert found[1] == flink


@pytest.mark.parametrize("text", [case[0] for case in CASES])
def test_flinks_text_parses_and_prints_the_same_again(text: str) -> None:
    printed = to_flink(parse_expression(text, COLUMNS)).sql(MillraceFlink)
    assert sqlglot.parse_one(printed, dialect=MillraceFlink).sql(MillraceFlink) == printed


@pytest.mark.parametrize(
    "sql",
    [
        "CAST(`a` AS TIMESTAMP_LTZ(3))",
        "CAST(`a` AS TIMESTAMP(3))",
        "CAST(`a` AS STRING)",
        "CAST(`a` AS BYTES)",
        "TRY_CAST(`a` AS DECIMAL(19, 0))",
        "'back\\slash and it''s'",
        "SELECT `a`, COUNT(*) AS `n` FROM `t` GROUP BY `a`",
        "LOG(`a`, 2)",
    ],
)
def test_the_flink_dialect_keeps_what_it_reads(sql: str) -> None:
    assert sqlglot.parse_one(sql, dialect=MillraceFlink).sql(MillraceFlink) == sql


def test_a_compiled_tree_shares_no_node_with_another_part() -> None:
    tree = to_spark(parse_expression("x + 1 > x", COLUMNS))
    nodes = list(tree.walk())
    assert len({id(node) for node in nodes}) == len(nodes)
