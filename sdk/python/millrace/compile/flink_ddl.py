"""Flink's statements as trees: tables with connectors, views and functions.

``millrace.compile.dialects`` speaks Flink's expressions and queries; a job's script needs these
besides. Everything printed here parses back and prints the same again.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlglot import TokenType, exp

from millrace.compile.dialects import MillraceFlink
from millrace.compile.trees import identifier, table


class FlinkStatements(MillraceFlink):
    """Flink's SQL with the statements that a job's script is made of."""

    class Tokenizer(MillraceFlink.Tokenizer):
        """Adds the row type."""

        KEYWORDS: ClassVar = {**MillraceFlink.Tokenizer.KEYWORDS, "ROW": TokenType.STRUCT}

    class Generator(MillraceFlink.Generator):
        """Prints what the parser above reads."""

        TYPE_MAPPING: ClassVar = {
            **MillraceFlink.Generator.TYPE_MAPPING,
            exp.DataType.Type.STRUCT: "ROW",
        }

        def property_sql(self, expression: exp.Property) -> str:
            return f"{self.sql(expression, 'this')} = {self.sql(expression, 'value')}"


def built_type(text: str) -> exp.DataType:
    """Return the tree of a type in Flink's spelling."""
    return exp.DataType.build(text, dialect=FlinkStatements)


def table_column(name: str, type_: str) -> exp.ColumnDef:
    """Return ``name type``."""
    return exp.ColumnDef(this=identifier(name), kind=built_type(type_))


def computed_column(name: str, value: exp.Expression) -> exp.ColumnDef:
    """Return ``name AS value``."""
    kind = exp.ComputedColumnConstraint(this=value)
    return exp.ColumnDef(this=identifier(name), constraints=[exp.ColumnConstraint(kind=kind)])


def primary_key(names: Sequence[str]) -> exp.Expression:
    """Return ``PRIMARY KEY (…) NOT ENFORCED``, the only kind Flink has."""
    return exp.PrimaryKey(
        expressions=[identifier(name) for name in names], options=["NOT ENFORCED"]
    )


def create_table(
    name: str, columns: Sequence[exp.Expression], options: Mapping[str, str]
) -> exp.Create:
    """Return ``CREATE TEMPORARY TABLE name (…) WITH (…)``; without columns, the connector knows."""
    properties: list[exp.Expression] = [
        exp.Property(this=exp.Literal.string(key), value=exp.Literal.string(value))
        for key, value in options.items()
    ]
    this = exp.Schema(this=table(name), expressions=list(columns)) if columns else table(name)
    return _temporary("TABLE", this, None, properties)


def create_view(name: str, query: exp.Select) -> exp.Create:
    """Return ``CREATE TEMPORARY VIEW name AS query``."""
    return _temporary("VIEW", table(name), query)


def create_function(name: str, java_class: str) -> exp.Create:
    """Return ``CREATE TEMPORARY FUNCTION name AS 'class'``."""
    return _temporary("FUNCTION", table(name), exp.Literal.string(java_class))


def _temporary(
    kind: str,
    this: exp.Expression,
    expression: exp.Expression | None,
    properties: Sequence[exp.Expression] = (),
) -> exp.Create:
    arguments: dict[str, Any] = {"this": this, "kind": kind}
    if expression is not None:
        arguments["expression"] = expression
    all_properties = [exp.TemporaryProperty(), *properties]
    return exp.Create(**arguments, properties=exp.Properties(expressions=all_properties))


def printed(statement: exp.Expression) -> str:
    """Return a statement's text, without a terminator."""
    return statement.sql(FlinkStatements, pretty=True)
