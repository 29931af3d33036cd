"""Type rules: what each operator and function takes, and what it gives.

One rule per operation, most of them shared, so that a question of meaning has one answer for
all engines. Numbers of different kinds meet like this:

* integers calculate as int64;
* an integer beside a decimal becomes a decimal of as many digits as it can have (a literal: as
  it does have), and the result has every digit it needs, or the expression is refused;
* anything beside a float64 becomes a float64.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from millrace.errors import nearest
from millrace.expressions.casts import cast_signature
from millrace.expressions.errors import ExpressionError
from millrace.expressions.nodes import Call, Literal, Node
from millrace.expressions.signature import Signature
from millrace.expressions.text import render
from millrace.expressions.unify import as_decimal, decimal_type, unify
from millrace.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, DataType

MAX_ROUND_DIGITS = 15
MAX_SUBSTRING = 1_000_000
# Spark negates decimals by way of 34 digits, and rounds longer ones.
MAX_SIGN_PRECISION = 34

Args = tuple[Node, ...]
Rule = Callable[[str, Args], Signature]


@dataclass(frozen=True)
class Function:
    """A function of the language.

    Attributes:
        arguments: the fewest and the most it takes.
        form: how it is written, for messages and documentation.
    """

    arguments: tuple[int, int]
    form: str
    rule: Rule


def call(op: str, args: Sequence[Node]) -> Call:
    """Return an operator or function applied to arguments, typed.

    Raises:
        ExpressionError: an argument has a type or a value that the operation does not take.
    """
    arguments = tuple(args)
    rule = OPERATORS.get(op) or function(op, len(arguments)).rule
    signature = rule(op, arguments)
    return Call(op, arguments, signature.takes, signature.type)


def cast(arg: Node, to: DataType) -> Node:
    """Return the argument converted on request; itself where it has the type already.

    Raises:
        ExpressionError: the conversion has no single meaning.
    """
    if arg.type == to:
        return arg
    signature = cast_signature(arg, to)
    return Call("CAST", (arg,), signature.takes, signature.type)


def function(name: str, count: int) -> Function:
    """Return the function of that name, called with ``count`` arguments.

    Raises:
        ExpressionError: there is none, or it takes another number of arguments.
    """
    found = FUNCTIONS.get(name)
    if found is None:
        hint = INSTEAD.get(name) or nearest(name, list(FUNCTIONS))
        raise ExpressionError(f"unknown function {name}", fix=hint)
    fewest, most = found.arguments
    if not fewest <= count <= most:
        raise ExpressionError(f"{name} got {count} arguments", fix=f"write {found.form}")
    return found


def _refuse(op: str, arg: Node, wanted: str, fix: str = "") -> ExpressionError:
    return ExpressionError(f"{op} takes {wanted}, and {render(arg)} is {arg.type}", fix=fix)


def _numeric(op: str, args: Args) -> None:
    for arg in args:
        if not arg.type.is_numeric:
            raise _refuse(op, arg, "numbers", _TO_NUMBER.get(arg.type.kind, ""))


_TO_NUMBER: Mapping[str, str] = {
    "bool": "write CASE WHEN condition THEN 1 ELSE 0 END",
    "string": "declare the column with a numeric type in its source",
    "timestamp": "take a part of it, for example HOUR(x)",
    "date": "take a part of it, for example DAY(x)",
}


def _arithmetic(op: str, args: Args) -> Signature:
    _numeric(op, args)
    left, right = args
    if FLOAT64 in (left.type, right.type):
        return Signature((FLOAT64, FLOAT64), FLOAT64)
    if left.type.is_integer and right.type.is_integer:
        return Signature((INT64, INT64), INT64)
    a, b = as_decimal(left), as_decimal(right)
    if op == "*":
        precision, scale = a.precision + b.precision + 1, a.scale + b.scale
    else:
        scale = max(a.scale, b.scale)
        precision = max(a.precision - a.scale, b.precision - b.scale) + scale + 1
    result = decimal_type(precision, scale, f"{render(left)} {op} {render(right)}")
    return Signature((a, b), result)


def _divide(op: str, args: Args) -> Signature:
    _numeric(op, args)
    return Signature((FLOAT64, FLOAT64), FLOAT64)


def _remainder(op: str, args: Args) -> Signature:
    _numeric(op, args)
    for arg in args:
        if arg.type == FLOAT64:
            raise _refuse(op, arg, "integers and decimals", "CAST(x AS int64) or a decimal type")
    left, right = args
    if left.type.is_integer and right.type.is_integer:
        return Signature((INT64, INT64), INT64)
    a, b = as_decimal(left), as_decimal(right)
    # The quotient, too, must fit: engines calculate it on the way to the remainder.
    text = f"{render(left)} % {render(right)}"
    scale = max(a.scale, b.scale)
    decimal_type(a.precision - a.scale + scale, scale, text)
    whole = min(a.precision - a.scale, b.precision - b.scale)
    return Signature((a, b), decimal_type(max(whole + scale, 1), scale, text))


def _sign(op: str, args: Args) -> Signature:
    """Unary minus and ABS: integers become int64, the rest stay what they are."""
    name = "unary minus" if op == "NEG" else op
    _numeric(name, args)
    kind = INT64 if args[0].type.is_integer else args[0].type
    if kind.precision > MAX_SIGN_PRECISION:
        fix = f"CAST it to a decimal of at most {MAX_SIGN_PRECISION} digits"
        raise _refuse(name, args[0], f"at most {MAX_SIGN_PRECISION} digits", fix)
    return Signature((kind,), kind)


def _whole(op: str, args: Args) -> Signature:
    _numeric(op, args)
    kind = args[0].type
    if kind.is_integer:
        return Signature((kind,), kind)
    if kind == FLOAT64:
        return Signature((kind,), INT64)
    return Signature((kind,), decimal_type(kind.precision - kind.scale + 1, 0, render(args[0])))


def _round(op: str, args: Args) -> Signature:
    _numeric(op, args[:1])
    digits = 0
    if len(args) == 2:  # noqa: PLR2004 - ROUND(x, digits)
        digits = _constant(op, args[1], "digits", 0, MAX_ROUND_DIGITS)
    kind = args[0].type
    if kind.kind == "decimal" and digits < kind.scale:
        precision = kind.precision - kind.scale + digits + 1
        result = decimal_type(precision, digits, render(args[0]))
    else:
        result = kind
    return Signature((kind, INT64)[: len(args)], result)


def _constant(op: str, arg: Node, what: str, low: int, high: int) -> int:
    if isinstance(arg, Literal) and arg.type == INT64 and isinstance(arg.value, int):
        if low <= arg.value <= high:
            return arg.value
        raise ExpressionError(f"{op}: {what} {arg.value}", fix=f"{what} goes from {low} to {high}")
    raise ExpressionError(f"{op}: {what} is {render(arg)}", fix=f"write {what} as a whole number")


def _double(op: str, args: Args) -> Signature:
    _numeric(op, args)
    return Signature((FLOAT64,) * len(args), FLOAT64)


def _text(op: str, args: Args) -> None:
    for arg in args:
        if arg.type != STRING:
            raise _refuse(op, arg, "strings", _TO_STRING.get(arg.type.kind, ""))


_TO_STRING: Mapping[str, str] = {
    **dict.fromkeys(["int32", "int64", "decimal", "date"], "CAST(x AS string)"),
    "bool": "write CASE WHEN x THEN 'yes' WHEN NOT x THEN 'no' END",
}


def _string_to(result: DataType) -> Rule:
    def rule(op: str, args: Args) -> Signature:
        _text(op, args)
        return Signature((STRING,) * len(args), result)

    return rule


def _substring(op: str, args: Args) -> Signature:
    _text(op, args[:1])
    for position, arg in enumerate(args[1:]):
        what = ("start", "length")[position]
        _constant(op, arg, what, 1 - position, MAX_SUBSTRING)
    return Signature((STRING, INT64, INT64)[: len(args)], STRING)


def _like(op: str, args: Args) -> Signature:
    _text(op, args)
    pattern = args[1]
    if not isinstance(pattern, Literal) or not isinstance(pattern.value, str):
        raise ExpressionError(
            f"LIKE: the pattern is {render(pattern)}", fix="write the pattern as a string literal"
        )
    if "\\" in pattern.value:
        raise ExpressionError(
            f"LIKE: backslash in the pattern {render(pattern)}; engines disagree on escapes",
            fix="use _ for one character of any kind",
        )
    return Signature((STRING, STRING), BOOL)


def _date_part(op: str, args: Args) -> Signature:
    kind = args[0].type
    if kind == TIMESTAMP or (kind == DATE and op not in {"HOUR", "MINUTE", "SECOND"}):
        return Signature((kind,), INT64)
    wanted = "a timestamp" if op in {"HOUR", "MINUTE", "SECOND"} else "a timestamp or a date"
    raise _refuse(op, args[0], wanted)


def _truth(op: str, args: Args) -> Signature:
    for arg in args:
        condition(arg, op)
    return Signature((BOOL,) * len(args), BOOL)


def condition(arg: Node, where: str) -> None:
    """Check that a node can stand where a condition is asked.

    Raises:
        ExpressionError: it is not a bool.
    """
    if arg.type != BOOL:
        fix = f"compare it, for example {render(arg)} <> 0" if arg.type.is_numeric else ""
        raise _refuse(where, arg, "conditions", fix or f"write {render(arg)} IS NOT NULL")


def _comparison(op: str, args: Args) -> Signature:
    takes = compared(op, args)
    ordered = op not in {"=", "<>", "IN"}
    if ordered and takes[0].kind in {"bool", "bytes"}:
        raise ExpressionError(
            f"{takes[0]} has no order: {render(args[0])} {op} {render(args[1])}",
            fix="compare with = or <>",
        )
    return Signature(takes, BOOL)


def compared(op: str, args: Args) -> tuple[DataType, ...]:
    """Return what each argument is taken as where values are compared.

    Integers and decimals keep their own type and compare by value; beside a float64 all are
    float64.
    """
    common = unify(args, f"{render(args[0])} {op} {render(args[1])}")
    if common.kind == "decimal":
        return tuple(as_decimal(a) for a in args)
    return tuple(a.type for a in args) if common.is_integer else (common,) * len(args)


def _is_null(_: str, args: Args) -> Signature:
    return Signature((args[0].type,), BOOL)


def _common(op: str, args: Args) -> Signature:
    kind = unify(args, f"{op}({', '.join(map(render, args))})")
    return Signature((kind,) * len(args), kind)


OPERATORS: Mapping[str, Rule] = {
    **dict.fromkeys(["+", "-", "*"], _arithmetic),
    "/": _divide,
    "%": _remainder,
    "NEG": _sign,
    **dict.fromkeys(["=", "<>", "<", "<=", ">", ">=", "IN", "BETWEEN"], _comparison),
    **dict.fromkeys(["AND", "OR", "NOT"], _truth),
    "IS NULL": _is_null,
    "LIKE": _like,
}

_PARTS = ("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "DAYOFWEEK")
_MANY = 100

FUNCTIONS: Mapping[str, Function] = {
    "COALESCE": Function((1, _MANY), "COALESCE(x, y, …)", _common),
    "NULLIF": Function((2, 2), "NULLIF(x, y)", _common),
    "ABS": Function((1, 1), "ABS(x)", _sign),
    "FLOOR": Function((1, 1), "FLOOR(x)", _whole),
    "CEIL": Function((1, 1), "CEIL(x)", _whole),
    "ROUND": Function((1, 2), "ROUND(x) or ROUND(x, digits)", _round),
    "LN": Function((1, 1), "LN(x)", _double),
    "EXP": Function((1, 1), "EXP(x)", _double),
    "SQRT": Function((1, 1), "SQRT(x)", _double),
    "POWER": Function((2, 2), "POWER(x, y)", _double),
    "LOWER": Function((1, 1), "LOWER(s)", _string_to(STRING)),
    "UPPER": Function((1, 1), "UPPER(s)", _string_to(STRING)),
    "LENGTH": Function((1, 1), "LENGTH(s)", _string_to(INT64)),
    "CONCAT": Function((2, _MANY), "CONCAT(s, t, …)", _string_to(STRING)),
    "SUBSTRING": Function((2, 3), "SUBSTRING(s, start) or SUBSTRING(s, start, length)", _substring),
    **{part: Function((1, 1), f"{part}(t)", _date_part) for part in _PARTS},
}

# What the author probably means, where spelling alone would not tell.
INSTEAD: Mapping[str, str] = {
    **dict.fromkeys(["IFNULL", "NVL", "ISNULL"], "write COALESCE(x, y) or x IS NULL"),
    **dict.fromkeys(["IF", "IIF", "DECODE"], "write CASE WHEN condition THEN x ELSE y END"),
    **dict.fromkeys(["MOD", "FMOD"], "write x % y"),
    **dict.fromkeys(["DIV", "INTDIV"], "write FLOOR(x / y)"),
    "POW": "write POWER(x, y)",
    "CEILING": "write CEIL(x)",
    **dict.fromkeys(["LOG", "LOG10", "LOG2"], "write LN(x), divided by LN(base)"),
    **dict.fromkeys(["SUBSTR", "MID"], "write SUBSTRING(s, start, length)"),
    "LEFT": "write SUBSTRING(s, 1, length)",
    **dict.fromkeys(["LEN", "CHAR_LENGTH", "CHARACTER_LENGTH"], "write LENGTH(s)"),
    **dict.fromkeys(["GREATEST", "LEAST"], "write CASE WHEN x > y THEN x ELSE y END"),
    **dict.fromkeys(["DATE", "TO_DATE", "DATE_TRUNC", "TRUNC"], "write CAST(t AS date)"),
    **dict.fromkeys(["DAYOFMONTH"], "write DAY(t)"),
    **dict.fromkeys(["WEEKDAY", "DOW"], "write DAYOFWEEK(t), which is 1 on Sundays"),
    **dict.fromkeys(
        ["SUM", "COUNT", "AVG", "MIN", "MAX", "STDDEV", "VARIANCE", "FIRST", "LAST"],
        "an expression sees one event; name the aggregate in `aggregate:` of the feature",
    ),
    **dict.fromkeys(
        ["NOW", "CURRENT_DATE", "CURRENT_TIMESTAMP", "RAND", "RANDOM", "UUID"],
        "an expression may use the event's columns only, so that it can be calculated again",
    ),
}
