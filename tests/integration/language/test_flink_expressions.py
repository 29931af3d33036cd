"""Compiled expressions, run by Flink, give what the reference gives."""

import base64
import json
import math
import random
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from millrace.compile.dialects import MillraceFlink
from millrace.compile.expressions import to_flink
from millrace.compile.flink import FUNCTIONS, STATEMENT_END
from millrace.expressions import Expression, ExpressionError, evaluate, parse_expression
from millrace.types import DataType
from resources.endpoints import flink_url
from resources.flink.rest import FlinkCluster
from resources.settings import Settings
from streaming.runner.build import ensure_runner_jar
from tests.support.expression_cases import COLUMNS, Writer, random_row

pytestmark = pytest.mark.services

EXPRESSIONS_A_JOB = 100
DEADLINE_S = 120

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


def stored(value: object) -> object:
    """Return a value as the text from which the job makes it; NaN has no other way in."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return None if value is None else str(value)


def column(name: str, kind: DataType) -> str:
    if kind.kind == "timestamp":
        return f"TO_TIMESTAMP_LTZ(CAST(`{name}` AS BIGINT), 3) AS `{name}`"
    if kind.kind == "bytes":
        return f"CAST(UNHEX(`{name}`) AS BYTES) AS `{name}`"
    return f"CAST(`{name}` AS {kind.flink}) AS `{name}`"


def script(expressions: list[Expression], inlet: Path, outlet: Path) -> str:
    """Return a job that writes, for each row, each expression's value, and the SQL types once."""
    texts = ", ".join(f"`{name}` STRING" for name in COLUMNS)
    types, values, sinks = [], [], []
    for i, expression in enumerate(expressions):
        tree = to_flink(expression).sql(MillraceFlink)
        is_instant = expression.type.kind == "timestamp"
        types.append(f"TYPEOF({tree})")
        values.append(f"EPOCH_MS({tree})" if is_instant else tree)
        sinks.append(f"`e{i}` {'BIGINT' if is_instant else expression.type.flink}")
    rows = ", ".join(column(name, kind) for name, kind in COLUMNS.items())
    sink = ", ".join(["`row` INT", "`types` STRING", *sinks])
    kept = ", ".join(["`row`", f"CONCAT_WS('|', {', '.join(types)})", *values])
    files = "WITH ('connector' = 'filesystem', 'format' = 'json', 'path' = 'file://"
    plain_decimals = "', 'json.encode.decimal-as-plain-number' = 'true')"
    functions = [
        f"CREATE TEMPORARY FUNCTION `{name}` AS '{FUNCTIONS[name]}'"
        for name in ("epoch_ms", "utc_day")
    ]
    statements = [
        *functions,
        f"CREATE TEMPORARY TABLE `texts` (`row` INT, {texts}) {files}{inlet}')",
        f"CREATE TEMPORARY VIEW `rows` AS SELECT `row`, {rows} FROM `texts`",
        f"CREATE TEMPORARY TABLE `answers` ({sink}) {files}{outlet}{plain_decimals}",
        f"INSERT INTO `answers` SELECT {kept} FROM `rows`",
    ]
    return STATEMENT_END.join(statements) + STATEMENT_END


def answers(
    settings: Settings, expressions: list[Expression], rows: list[dict[str, object]], folder: Path
) -> list[dict[str, Any]]:
    """Run all expressions over the rows as one job; returns its rows in order."""
    inlet, outlet = folder / "rows.json", folder / "answers"
    lines = [
        json.dumps({"row": i, **{name: stored(row[name]) for name in COLUMNS}})
        for i, row in enumerate(rows)
    ]
    inlet.write_text("\n".join(lines) + "\n", encoding="utf-8")
    cluster, job_id = FlinkCluster(flink_url(settings)), uuid4().hex
    jar = cluster.ensure_jar(ensure_runner_jar(settings))
    configuration = {"table.local-time-zone": "UTC", "restart-strategy.type": "none"}
    cluster.run(jar, script(expressions, inlet, outlet), job_id, configuration, 1)
    deadline = time.monotonic() + DEADLINE_S
    while (job := cluster.job(job_id)) is None or job.state != "FINISHED":
        assert job is None or job.state != "FAILED", cluster.exceptions(job_id)
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
    text = "".join(p.read_text(encoding="utf-8") for p in outlet.glob("[!.]*"))
    found = [json.loads(line, parse_float=Decimal) for line in text.splitlines()]
    assert len(found) == len(rows)
    return sorted(found, key=lambda answer: answer["row"])


def plain(value: Any, kind: DataType) -> Any:
    """Read a value of the answers."""
    if value is None:
        return None
    if kind.kind == "decimal":
        return Decimal(value)
    if kind.kind == "float64":
        return float(value)
    if kind.kind == "date":
        return date.fromisoformat(value)
    if kind.kind == "bytes":
        return base64.b64decode(value)
    return value


def some_expressions(rng: random.Random, count: int) -> list[Expression]:
    writer = Writer(rng, smooth=False)
    found: list[Expression] = []
    while len(found) < count:
        try:
            found.append(parse_expression(writer.expression(rng.randint(1, 4)), COLUMNS))
        except ExpressionError:
            continue
    return found


@pytest.mark.parametrize("seed", range(3))
def test_flink_equals_the_reference(live_stack: Settings, seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [random_row(rng) for _ in range(60)]
    expressions = some_expressions(rng, EXPRESSIONS_A_JOB)
    found = answers(live_stack, expressions, rows, tmp_path)
    types = found[0]["types"].split("|")
    for i, expression in enumerate(expressions):
        assert types[i].removesuffix(" NOT NULL") == expression.type.flink, expression.text
        for row, answer in zip(rows, found, strict=True):
            got, want = plain(answer[f"e{i}"], expression.type), evaluate(expression, row)
            used = {name: row[name] for name in expression.columns}
            # Text tells 1 from 1.0 and 1.00 from 1.0; the sign of a double's zero is free.
            assert got == want, f"{expression.text} with {used}"
            assert str(got).lstrip("-") == str(want).lstrip("-"), expression.text


def test_flink_has_the_smooth_functions_to_the_last_digit_but_one(
    live_stack: Settings, tmp_path: Path
) -> None:
    rng = random.Random(11)
    rows = [random_row(rng) for _ in range(200)]
    expressions = [parse_expression(text, COLUMNS) for text in SMOOTH]
    found = answers(live_stack, expressions, rows, tmp_path)
    for i, expression in enumerate(expressions):
        for row, answer in zip(rows, found, strict=True):
            got, want = plain(answer[f"e{i}"], expression.type), evaluate(expression, row)
            if got is None or want is None:
                assert got is want, f"{expression.text} with {row}"
            else:
                assert isinstance(want, float)
                assert math.isclose(got, want, rel_tol=1e-14), f"{expression.text} with {row}"
