"""Compiled text is reviewed text: it equals the golden files, and parses."""

import json
from pathlib import Path

import pytest
from sqlglot import exp, parse, parse_one

from millrace.aggregates import AGGREGATES
from millrace.compile.dialects import SPARK
from millrace.compile.flink import STATEMENT_END
from millrace.compile.flink_ddl import FlinkStatements
from tests.golden.rewrite import GOLDEN, golden_files, golden_plan

FILES = golden_files(golden_plan())


def on_disk() -> set[str]:
    found = (p.relative_to(GOLDEN) for p in GOLDEN.glob("*/*") if p.suffix in {".sql", ".json"})
    return {str(path) for path in found}


def test_every_golden_file_belongs_to_a_view() -> None:
    assert on_disk() == set(FILES), "run `make golden` and review the difference"


@pytest.mark.parametrize("path", FILES)
def test_compiled_text_is_the_golden_text(path: str) -> None:
    golden = (GOLDEN / path).read_text(encoding="utf-8")
    assert FILES[path] == golden, "run `make golden` and review the difference"


@pytest.mark.parametrize("path", [p for p in FILES if p.startswith("spark/")])
def test_spark_text_parses_and_prints_the_same(path: str) -> None:
    statements = [s for s in parse(FILES[path], dialect=SPARK) if s is not None]
    assert len(statements) == 2
    for statement in statements:
        text = statement.sql(SPARK)
        assert parse_one(text, dialect=SPARK).sql(SPARK) == text
        assert all(name.args["quoted"] for name in statement.find_all(exp.Identifier))


@pytest.mark.parametrize("path", [p for p in FILES if p.startswith("flink/")])
def test_flink_text_parses_and_prints_the_same(path: str) -> None:
    statements = [s for s in FILES[path].split(STATEMENT_END) if not s.startswith("SET ")]
    assert statements.pop() == ""
    assert statements[-1].startswith("INSERT INTO")
    for statement in statements:
        assert parse_one(statement, dialect=FlinkStatements).sql(FlinkStatements, pretty=True) == (
            statement
        )


@pytest.mark.parametrize("path", [p for p in FILES if Path(p).suffix == ".json"])
def test_documents_are_json(path: str) -> None:
    assert json.loads(FILES[path])


def test_every_registered_aggregate_has_goldens() -> None:
    view = golden_plan().view("every_aggregate")
    assert {f.aggregate.name for f in view.features} == set(AGGREGATES)
