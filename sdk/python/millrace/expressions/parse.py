"""From SQL text to a typed tree: parse with sqlglot, then accept what the language has."""

from collections.abc import Callable, Mapping, Sequence

from sqlglot import exp
from sqlglot.errors import ParseError, TokenError

from millrace.errors import nearest
from millrace.expressions.constants import date_literal, number, timestamp_literal
from millrace.expressions.errors import ExpressionError
from millrace.expressions.expression import Expression
from millrace.expressions.foreign import foreign
from millrace.expressions.grammar import ExpressionGrammar
from millrace.expressions.nodes import AS_OF, Call, Case, Column, Literal, Node, walk
from millrace.expressions.rules import call, cast, condition
from millrace.expressions.text import render
from millrace.expressions.unify import unify
from millrace.types import BOOL, KINDS, STRING, DataType, parse_type

MAX_TEXT = 10_000
MAX_NODES = 1_000

_GRAMMAR = ExpressionGrammar()

_BINARY: Mapping[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_CONNECTIVES: Mapping[type[exp.Expr], str] = {exp.And: "AND", exp.Or: "OR"}

# What sqlglot may leave on a node without changing its meaning.
_HARMLESS = frozenset({"safe", "typed", "nested"})

DATE_PARTS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "DAYOFWEEK")


def parse_expression(
    text: str, columns: Mapping[str, DataType], *, of: str = "column"
) -> Expression:
    """Parse one expression over the given columns.

    Names of columns are case-sensitive, the rest is not. Comments and line breaks are allowed.
    Equal meaning in a different layout (spaces, case of keywords, parentheses that change
    nothing, ``!=`` for ``<>``) gives an equal expression.

    Args:
        text: SQL, at most 10,000 characters.
        columns: every column of the source with its type.
        of: what a column is called in messages.

    Raises:
        ExpressionError: the text is no expression of the language, names no column or function
            that exists, or has no single meaning; says what to write instead.

    >>> from millrace.types import decimal
    >>> parsed = parse_expression("case when (amount>100) then 1 end", {"amount": decimal(12, 2)})
    >>> parsed.text, str(parsed.type)
    ('CASE WHEN amount > 100 THEN 1 END', 'int64')
    """
    try:
        tree = _tree(text)
        root = _Reader(text, columns, of, tree).node(tree)
        size = sum(1 for _ in walk(root))
    except RecursionError:
        raise _too_deep() from None
    if size > MAX_NODES:
        raise ExpressionError(
            f"an expression of {size} parts", fix=f"{MAX_NODES} parts are the most"
        )
    return Expression(root)


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of columns in an expression, each once, whether there are such or not.

    Raises:
        ExpressionError: the text is no SQL.
    """
    try:
        return tuple(dict.fromkeys(c.name for c in _tree(text).find_all(exp.Column, bfs=False)))
    except RecursionError:
        raise _too_deep() from None


def _tree(text: str) -> exp.Expr:
    if len(text) > MAX_TEXT:
        raise ExpressionError(
            f"an expression of {len(text)} characters", fix=f"{MAX_TEXT} characters are the most"
        )
    try:
        tree = _GRAMMAR.parse_into(exp.Condition, text)[0]
    except (ParseError, TokenError) as error:
        raise _syntax(text, error) from error
    if tree is None:
        raise ExpressionError(
            "an empty expression", fix="write a name alone, or what is calculated of it"
        )
    return tree


def _too_deep() -> ExpressionError:
    return ExpressionError(
        "the expression is nested too deeply", fix="split it into several features"
    )


def _syntax(text: str, error: ParseError | TokenError) -> ExpressionError:
    details = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    found = str(details.get("highlight") or "")
    where = _position(text, details.get("line"), details.get("col"), found)
    if "Unexpected token" in str(details.get("description")):
        what = f"{found!r} is not understood{where}"
    elif details:
        description = str(details["description"]).split(" for <class")[0]
        what = f"not SQL{where}: {description}"
    else:
        what = f"not SQL: {str(error).splitlines()[0]}"
    return ExpressionError(
        what, fix="write one SQL expression, for example CASE WHEN amount > 100 THEN 1 ELSE 0 END"
    )


def _position(text: str, line: object, column: object, found: str) -> str:
    """Say where a token stands; sqlglot counts columns to the token's end."""
    if not isinstance(line, int) or not isinstance(column, int):
        return ""
    start = max(1, column - len(found) + 1)
    return f" at character {start}" + (f" of line {line}" if "\n" in text else "")


class _Reader:
    """Turns sqlglot nodes into typed ones; one method per form."""

    def __init__(
        self, text: str, columns: Mapping[str, DataType], of: str, whole: exp.Expr
    ) -> None:
        self._whole = whole.unnest()
        self._text = text
        self._columns = columns
        self._of = of
        self._forms: Mapping[type[exp.Expr], Callable[..., Node]] = {
            exp.Column: self._column,
            exp.Literal: self._literal,
            exp.Boolean: lambda n: Literal(bool(n.this), BOOL),
            exp.Null: self._bare_null,
            exp.Paren: lambda n: self.node(n.this),
            exp.Neg: self._negative,
            exp.Not: lambda n: call("NOT", [self.node(n.this)]),
            exp.Is: self._is,
            exp.In: self._in,
            exp.Like: self._like,
            exp.Between: self._between,
            exp.Case: self._case,
            exp.Cast: self._cast,
            exp.Extract: self._extract,
            exp.Anonymous: self._function,
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_CONNECTIVES, self._connective),
        }

    def node(self, tree: exp.Expr) -> Node:
        """Return the typed node of a sqlglot node."""
        form = self._forms.get(type(tree))
        if form is None:
            raise foreign(tree)
        return form(tree)

    def _only(self, tree: exp.Expr, *known: str) -> None:
        """Refuse a node that says more than the language has (``x.y``, ``IN (SELECT …)``)."""
        for key, value in tree.args.items():
            if value and key not in known and key not in _HARMLESS:
                raise foreign(tree)

    def _column(self, tree: exp.Column) -> Node:
        self._only(tree, "this")
        name = tree.this
        if not isinstance(name, exp.Identifier):
            raise foreign(tree)
        kind = self._columns.get(name.name)
        if kind is None:
            raise ExpressionError(
                f"unknown {self._of} {name.name!r}{self._at(name)}",
                fix=nearest(name.name, list(self._columns)),
            )
        if kind.kind not in KINDS and tree is not self._whole:
            raise ExpressionError(
                f"{name.name!r} is a {kind}, and expressions have no functions of it",
                fix=f"aggregate it as it is, column: {name.name}",
            )
        return Column(name.name, kind)

    def _at(self, tree: exp.Expr) -> str:
        line, start = tree.meta.get("line"), tree.meta.get("start")
        if not isinstance(line, int) or not isinstance(start, int):
            return ""
        before = self._text.rfind("\n", 0, start) + 1
        return _position(self._text, line, start - before, "")

    def _literal(self, tree: exp.Literal) -> Node:
        return Literal(tree.this, STRING) if tree.is_string else number(tree.this)

    def _bare_null(self, _: exp.Null) -> Node:
        raise ExpressionError(
            "NULL has no type here",
            fix="write x IS NULL to compare, CAST(NULL AS type) for a value",
        )

    def _negative(self, tree: exp.Neg) -> Node:
        inner = tree.this.unnest()
        if isinstance(inner, exp.Literal) and not inner.is_string:
            return number(f"-{inner.this}")
        operand = self.node(inner)
        if isinstance(operand, Literal) and operand.type.is_numeric:
            text = render(operand)
            return number(text[1:] if text.startswith("-") else f"-{text}")
        return call("NEG", [operand])

    def _binary(self, tree: exp.Binary) -> Node:
        self._only(tree, "this", "expression")
        return call(_BINARY[type(tree)], [self.node(tree.this), self.node(tree.expression)])

    def _like(self, tree: exp.Like) -> Node:
        self._only(tree, "this", "expression", "negate")
        found = call("LIKE", [self.node(tree.this), self.node(tree.expression)])
        return call("NOT", [found]) if tree.args.get("negate") else found

    def _connective(self, tree: exp.Connector) -> Node:
        op = _CONNECTIVES[type(tree)]
        parts: list[Node] = []
        for side in (tree.this, tree.expression):
            part = self.node(side)
            # AND and OR are associative also with nulls, so one flat node stands for a chain.
            nested = isinstance(part, Call) and part.op == op
            parts += part.args if nested and isinstance(part, Call) else [part]
        return call(op, parts)

    def _is(self, tree: exp.Is) -> Node:
        if not isinstance(tree.expression, exp.Null):
            raise foreign(tree)
        return call("IS NULL", [self.node(tree.this)])

    def _in(self, tree: exp.In) -> Node:
        self._only(tree, "this", "expressions")
        values = [self.node(v) for v in tree.expressions]
        for value in values:
            if not isinstance(value, Literal) or value.value is None:
                raise ExpressionError(
                    f"IN takes literals, and {render(value)} is none",
                    fix=f"compare it: {render(self.node(tree.this))} = {render(value)}",
                )
        return call("IN", [self.node(tree.this), *values])

    def _between(self, tree: exp.Between) -> Node:
        self._only(tree, "this", "low", "high")
        return call("BETWEEN", [self.node(tree.args[k]) for k in ("this", "low", "high")])

    def _case(self, tree: exp.Case) -> Node:
        self._only(tree, "this", "ifs", "default")
        subject = None if tree.this is None else self.node(tree.this)
        conditions = []
        for branch in tree.args["ifs"]:
            when = self.node(branch.this)
            if subject is not None:
                when = call("=", [subject, when])
            condition(when, "CASE WHEN")
            conditions.append(when)
        values = [branch.args["true"] for branch in tree.args["ifs"]]
        default = tree.args.get("default")
        kind, nodes = self._values([*values, *([] if default is None else [default])], "CASE")
        last = nodes[len(conditions)] if len(nodes) > len(conditions) else None
        if isinstance(last, Literal) and last.value is None:
            last = None
        return Case(tuple(zip(conditions, nodes, strict=False)), last, kind)

    def _values(self, trees: Sequence[exp.Expr], where: str) -> tuple[DataType, list[Node]]:
        """Read values of one common type; a bare NULL takes the type of the others."""
        read = [None if isinstance(t.unnest(), exp.Null) else self.node(t) for t in trees]
        typed = [n for n in read if n is not None]
        if not typed:
            raise ExpressionError(f"{where} is always null", fix="CAST(NULL AS type) gives a type")
        kind = unify(typed, where)
        return kind, [n or Literal(None, kind) for n in read]

    def _cast(self, tree: exp.Cast) -> Node:
        to = self._type(tree.args["to"])
        inner = tree.this.unnest()
        if isinstance(inner, exp.Null):
            return Literal(None, to)
        if isinstance(inner, exp.Literal) and inner.is_string and to.kind in {"date", "timestamp"}:
            return date_literal(inner.this) if to.kind == "date" else timestamp_literal(inner.this)
        return cast(self.node(inner), to)

    def _type(self, tree: exp.Expr) -> DataType:
        # CAST(x AS t) keeps the text of the type; DATE '…' comes as sqlglot's own type.
        text = (tree.name if isinstance(tree, exp.Var) else tree.sql()).lower()
        try:
            found = parse_type(text)
        except ValueError as error:
            hint = _TYPE_NAMES.get(text.split("(")[0], "")
            raise ExpressionError(str(error), fix=hint and f"write {hint}") from None
        if found.kind not in KINDS:
            raise ExpressionError(f"nothing can be cast to a {found}", fix=", ".join(KINDS))
        return found

    def _extract(self, tree: exp.Extract) -> Node:
        part = tree.name.upper()
        if part not in DATE_PARTS:
            raise ExpressionError(
                f"EXTRACT has no part {part}", fix=nearest(part, list(DATE_PARTS))
            )
        return call(part, [self.node(tree.expression)])

    def _function(self, tree: exp.Anonymous) -> Node:
        name, args = str(tree.name).upper(), tree.expressions
        if name == "AS_OF":
            return self._instant(len(args))
        if name in {"COALESCE", "NULLIF"} and args:
            return call(name, self._values(args, name)[1])
        try:
            return call(name, [self.node(a) for a in args])
        except ExpressionError as error:
            if not error.what.startswith(f"unknown function {name}"):
                raise
            raise ExpressionError(f"{error.what}{self._at(tree)}", fix=error.fix) from None

    def _instant(self, arguments: int) -> Node:
        kind = self._columns.get(AS_OF)
        if kind is None:
            raise ExpressionError(
                f"{AS_OF} is the instant of a query, and an event has none",
                fix="a derived feature may use it: derive: …",
            )
        if arguments:
            raise ExpressionError(f"AS_OF got {arguments} arguments", fix=f"write {AS_OF}")
        return Column(AS_OF, kind)


_TYPE_NAMES: Mapping[str, str] = {
    **dict.fromkeys(["int", "integer", "smallint", "tinyint"], "int32"),
    **dict.fromkeys(["bigint", "long"], "int64"),
    **dict.fromkeys(["double", "float", "real"], "float64"),
    **dict.fromkeys(["numeric", "number"], "decimal(p,s)"),
    **dict.fromkeys(["varchar", "char", "text"], "string"),
    **dict.fromkeys(["binary", "varbinary", "blob"], "bytes"),
    "boolean": "bool",
    "datetime": "timestamp",
}
