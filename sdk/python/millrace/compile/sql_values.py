"""Types, constants and small forms of SQL trees, as one engine spells them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import ClassVar

from sqlglot import exp

from millrace.expressions.nodes import Literal
from millrace.expressions.text import double_text
from millrace.types import STRING, DataType

_BINARY: Mapping[str, type[exp.Expression]] = {
    "+": exp.Add,
    "-": exp.Sub,
    "*": exp.Mul,
    "=": exp.EQ,
    "<>": exp.NEQ,
    "<": exp.LT,
    "<=": exp.LTE,
    ">": exp.GT,
    ">=": exp.GTE,
}


def operand(tree: exp.Expression) -> exp.Expression:
    """Return a tree that can stand beside an operator."""
    if isinstance(tree, exp.Binary | exp.Not | exp.In | exp.Between | exp.Is):
        return exp.paren(tree, copy=False)
    if isinstance(tree, exp.Neg) and not isinstance(tree.this, exp.Literal):
        return exp.paren(tree, copy=False)
    return tree


def condition(tree: exp.Expression) -> exp.Expression:
    """Return a tree that can stand beside AND, OR and NOT."""
    return exp.paren(tree, copy=False) if isinstance(tree, exp.Connector) else tree


def binary(op: str, left: exp.Expression, right: exp.Expression) -> exp.Expression:
    """Return ``left op right``."""
    return _BINARY[op](this=operand(left), expression=operand(right))


def when(condition: exp.Expression, value: exp.Expression) -> exp.Expression:
    """Return ``CASE WHEN condition THEN value END``."""
    return exp.Case(ifs=[exp.If(this=condition, true=value)])


def between(tree: exp.Expression, low: str, high: str) -> exp.Expression:
    """Return ``tree BETWEEN low AND high`` for numbers given as text."""
    return exp.Between(this=operand(tree), low=number(low), high=number(high))


def number(text: str) -> exp.Expression:
    """Return a numeric literal; a negative one as a negation, which is how it parses back."""
    if text.startswith("-"):
        return exp.Neg(this=exp.Literal.number(text[1:]))
    return exp.Literal.number(text)


class SqlValues(ABC):
    """Writes types and constants of one engine."""

    dialect: ClassVar[str | type]

    def cast(self, tree: exp.Expression, to: DataType) -> exp.Expression:
        """Return ``CAST(tree AS to)``."""
        return exp.Cast(this=tree, to=self.type(to))

    def try_cast(self, tree: exp.Expression, to: DataType) -> exp.Expression:
        """Return ``TRY_CAST(tree AS to)``, null where the value does not fit."""
        # Without `safe` sqlglot prints a plain CAST for Spark.
        return exp.TryCast(this=tree, to=self.type(to), safe=True)

    def type(self, kind: DataType) -> exp.DataType:
        """Return the engine's type."""
        return exp.DataType.build(self.spelled(kind), dialect=self.dialect)

    @abstractmethod
    def spelled(self, kind: DataType) -> str:
        """Return a type as the engine spells it."""

    # -- literals -------------------------------------------------------------------------------

    def literal(self, node: Literal) -> exp.Expression:
        """Return a constant with exactly its SQL type."""
        value, kind = node.value, node.type
        if value is None:
            return self.cast(exp.Null(), kind)
        if kind.kind == "timestamp":
            return self.at(int(value))  # type: ignore[arg-type]
        if kind == STRING:
            return self.string(str(value))
        if kind.is_integer:
            return self.integer(int(value), kind)  # type: ignore[arg-type]
        if kind.kind == "decimal":
            return self.cast(self.bare(value), kind)
        return self.bare(value)

    def bare(self, value: object) -> exp.Expression:
        """Return a constant as it is written, with whatever type the engine gives it."""
        if isinstance(value, bool):
            return exp.Boolean(this=value)
        if isinstance(value, str):
            return exp.Literal.string(value)
        if isinstance(value, float):
            return number(double_text(value))
        if isinstance(value, date):
            return self.cast(exp.Literal.string(value.isoformat()), DataType("date"))
        return number(f"{value:f}" if isinstance(value, Decimal) else str(value))

    def string(self, value: str) -> exp.Expression:
        """Return a string constant."""
        return exp.Literal.string(value)

    def integer(self, value: int, kind: DataType) -> exp.Expression:
        """Return an integer constant of exactly one type."""
        return self.cast(number(str(value)), kind)

    @abstractmethod
    def at(self, epoch_ms: int) -> exp.Expression:
        """Return an instant."""
