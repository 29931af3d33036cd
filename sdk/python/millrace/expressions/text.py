"""Canonical SQL of an expression tree."""

import re
from datetime import date
from functools import cache

from millrace.calendar import to_datetime
from millrace.expressions.nodes import AS_OF, Call, Case, Column, Literal, Node

_OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _UNARY, _ATOM = range(1, 9)

_LEVELS = {
    "OR": _OR,
    "AND": _AND,
    "NOT": _NOT,
    **dict.fromkeys(["=", "<>", "<", "<=", ">", ">="], _COMPARISON),
    **dict.fromkeys(["IS NULL", "IN", "BETWEEN", "LIKE"], _COMPARISON),
    **dict.fromkeys(["+", "-"], _SUM),
    **dict.fromkeys(["*", "/", "%"], _PRODUCT),
    "NEG": _UNARY,
}

_SIMPLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def render(node: Node) -> str:
    """Return the SQL of a node, with the fewest parentheses that keep its structure."""
    if isinstance(node, Column):
        return column_text(node.name)
    if isinstance(node, Literal):
        return literal_text(node)
    if isinstance(node, Case):
        whens = " ".join(f"WHEN {render(c)} THEN {render(v)}" for c, v in node.branches)
        default = "" if node.default is None else f" ELSE {render(node.default)}"
        return f"CASE {whens}{default} END"
    return _call(node)


def _call(node: Call) -> str:  # noqa: PLR0911 - one return for each form of the grammar
    op, args = node.op, node.args
    match op:
        case "CAST":
            return f"CAST({render(args[0])} AS {node.type})"
        case "NEG":
            return f"-{_within(args[0], _ATOM)}"
        case "NOT":
            return _negation(args[0])
        case "IS NULL" | "IN" | "BETWEEN" | "LIKE":
            return _predicate(node, "")
        case "AND" | "OR":
            return f" {op} ".join(_within(a, _LEVELS[op] + 1) for a in args)
    level = _LEVELS.get(op)
    if level is None:
        return f"{op}({', '.join(map(render, args))})"
    left = level + 1 if level == _COMPARISON else level
    return f"{_within(args[0], left)} {op} {_within(args[1], level + 1)}"


def _negation(operand: Node) -> str:
    if isinstance(operand, Call) and operand.op in {"IS NULL", "IN", "BETWEEN", "LIKE"}:
        return _predicate(operand, "NOT ")
    return f"NOT {_within(operand, _COMPARISON)}"


def _predicate(node: Call, negated: str) -> str:
    first, *rest = node.args
    subject = _within(first, _SUM)
    if node.op == "IS NULL":
        return f"{subject} IS {negated}NULL"
    if node.op == "IN":
        return f"{subject} {negated}IN ({', '.join(map(render, rest))})"
    words = [_within(r, _SUM) for r in rest]
    return f"{subject} {negated}{node.op} {' AND '.join(words)}"


def _within(node: Node, level: int) -> str:
    text = render(node)
    return text if _level(node) >= level else f"({text})"


def _level(node: Node) -> int:
    if isinstance(node, Literal) and literal_text(node).startswith("-"):
        return _UNARY
    if isinstance(node, Call):
        if node.op == "NOT" and _negation(node.args[0]).startswith("NOT ") is False:
            return _COMPARISON
        return _LEVELS.get(node.op, _ATOM)
    return _ATOM


def literal_text(node: Literal) -> str:  # noqa: PLR0911 - one return for each kind of value
    """Return a literal as it is written in the language."""
    value = node.value
    if value is None:
        return f"CAST(NULL AS {node.type})"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, float):
        return double_text(value)
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if node.type.kind == "timestamp":
        return f"TIMESTAMP '{timestamp_text(int(value))}'"
    return f"{value:f}" if node.type.kind == "decimal" else str(value)


def double_text(value: float) -> str:
    """Return the shortest text of a finite double, with an exponent that marks it as one."""
    text = repr(value)
    return text if "e" in text else f"{text}e0"


def timestamp_text(epoch_ms: int) -> str:
    """Return an instant as ``YYYY-MM-DD HH:MM:SS[.mmm]``, UTC."""
    instant = to_datetime(epoch_ms)
    if instant is None:
        raise ValueError(f"{epoch_ms} ms is no instant of a literal")
    precision = "milliseconds" if epoch_ms % 1000 else "seconds"
    return instant.replace(tzinfo=None).isoformat(" ", precision)


def column_text(name: str) -> str:
    """Return a column's name, quoted where it would not be read as one."""
    if name == AS_OF or (_SIMPLE_NAME.fullmatch(name) and name.upper() not in _reserved()):
        return name
    return '"' + name.replace('"', '""') + '"'


@cache
def _reserved() -> frozenset[str]:
    from sqlglot.tokens import Tokenizer

    words = (word for key in Tokenizer.KEYWORDS for word in key.split())
    return frozenset(w for w in words if _SIMPLE_NAME.fullmatch(w))
