"""Small SQL trees that the compilers share; every identifier is quoted."""

from sqlglot import exp


def column(name: str, table: str | None = None) -> exp.Column:
    """Return a column, of a table if one is named."""
    return exp.column(name, table, quoted=True)


def identifier(name: str) -> exp.Identifier:
    """Return an identifier."""
    return exp.to_identifier(name, quoted=True)


def table(name: str) -> exp.Table:
    """Return a table."""
    return exp.table_(name, quoted=True)


def named(value: exp.Expression, name: str) -> exp.Expression:
    """Return ``value AS name``; a column that has the name already stays as it is."""
    if isinstance(value, exp.Column) and value.name == name and not value.table:
        return value
    return exp.Alias(this=value, alias=identifier(name))


def call(name: str, *arguments: exp.Expression) -> exp.Expression:
    """Return a call of a function by name."""
    return exp.Anonymous(this=name, expressions=list(arguments))


def is_null(value: exp.Expression) -> exp.Expression:
    """Return ``value IS NULL``."""
    return exp.Is(this=value, expression=exp.Null())


def is_not_null(value: exp.Expression) -> exp.Expression:
    """Return ``NOT value IS NULL``."""
    return exp.Not(this=is_null(value))


def integer(value: int) -> exp.Expression:
    """Return an integer literal; a negative one as a negation, which is how it parses back."""
    literal = exp.Literal.number(abs(value))
    return exp.Neg(this=literal) if value < 0 else literal
