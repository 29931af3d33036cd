"""SQL that the language does not have, and what to write instead."""

from collections.abc import Mapping

from sqlglot import exp

from millrace.expressions.errors import ExpressionError

_ONE_EVENT = "an expression sees the columns of one event; put the rest into the feature's fields"

_INSTEAD: Mapping[type[exp.Expr], str] = {
    exp.DPipe: "write CONCAT(a, b)",
    exp.Concat: "write CONCAT(a, b)",
    exp.NullSafeEQ: "write a = b OR (a IS NULL AND b IS NULL)",
    exp.NullSafeNEQ: "write NOT (a = b OR (a IS NULL AND b IS NULL))",
    exp.ILike: "write LOWER(x) LIKE 'pattern'",
    exp.RegexpLike: "write x LIKE 'pattern', with % and _",
    exp.SimilarTo: "write x LIKE 'pattern', with % and _",
    exp.Escape: "write LIKE without ESCAPE; _ stands for any one character",
    exp.IntDiv: "write FLOOR(a / b)",
    exp.Is: "a bool is a condition itself: write x, or COALESCE(x, FALSE)",
    exp.In: "IN takes a list of literals: x IN (1, 2)",
    exp.Between: "write x BETWEEN low AND high",
    exp.Tuple: "write one value; a list stands after IN only",
    exp.Interval: "compare date parts, for example HOUR(t) < 6",
    exp.AtTimeZone: "timestamps are UTC; take parts with HOUR(t) and so on",
    exp.Collate: "strings compare by code point; write LOWER(x) on both sides",
    exp.Column: "write the column's name alone",
    exp.Placeholder: "write the value as a literal",
    exp.Parameter: "write the value as a literal",
    exp.Bracket: "columns are plain values; declare what you need as a column of the source",
    exp.Star: "name a column",
    **dict.fromkeys([exp.Select, exp.Subquery, exp.Exists, exp.Window, exp.Distinct], _ONE_EVENT),
    **dict.fromkeys(
        [exp.BitwiseAnd, exp.BitwiseOr, exp.BitwiseXor, exp.BitwiseNot],
        "there is no bit arithmetic; write POWER(x, y) for a power, AND and OR for conditions",
    ),
}

_KNOWN = "the language has + - * / %, comparisons, AND OR NOT, CASE, IN, BETWEEN, LIKE, CAST"


def foreign(tree: exp.Expr) -> ExpressionError:
    """Return the error for a form that is no part of the language."""
    text = tree.sql()
    shown = text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - one line of a message
    return ExpressionError(
        f"{shown} is not part of the language", fix=_INSTEAD.get(type(tree), _KNOWN)
    )
