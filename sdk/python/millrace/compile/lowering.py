"""The part of compiling expressions that all SQL engines share.

What engines do alike is data here; what one does otherwise is a method that its class replaces,
with the reason. Every identifier is quoted, every operand that needs it is parenthesised.

Doubles that are not finite count as null. Arithmetic lets them pass, because they survive it;
only where one could be seen or get lost (comparisons, divisors, results) is it guarded, which
``finite`` asks for. That keeps the SQL short: a guard has to name its operand twice.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import ClassVar

from sqlglot import exp

from millrace.compile.sql_values import SqlValues, between, binary, condition, number, operand, when
from millrace.compile.trees import call, column, is_null
from millrace.expressions.meaning import widened
from millrace.expressions.nodes import Call, Case, Column, Literal, Node
from millrace.expressions.ranges import can_overflow
from millrace.types import FLOAT64, INT64, STRING, TIMESTAMP, DataType

_LARGEST_DOUBLE = "1.7976931348623157e308"

# The least double that int64 holds, and the greatest below 2^63; the same for what int32 holds
# once the fraction is cut off.
_DOUBLE_BOUNDS: Mapping[str, tuple[str, str]] = {
    "int64": ("-9.223372036854775808e18", "9.223372036854774784e18"),
    "int32": ("-2.1474836489999995e9", "2.1474836479999995e9"),
}
INTEGER_BITS: Mapping[str, int] = {"int32": 31, "int64": 63}
_INTEGER_DIGITS: Mapping[str, int] = {"int32": 10, "int64": 19}

_COMPARISONS = frozenset({"=", "<>", "<", "<=", ">", ">="})
_PARTS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "DAYOFWEEK"})


class Lowering(SqlValues):
    """Turns typed trees into SQL trees of one engine."""

    names: ClassVar[Mapping[str, str]] = {}
    """Functions the engine calls by another name."""

    def __init__(self) -> None:
        # Forms whose double may be left for a later guard, and all others.
        self._guardable: Mapping[str, Callable[..., exp.Expression]] = {
            **dict.fromkeys(["+", "-", "*"], self._arithmetic),
            "/": self._quotient,
            **dict.fromkeys(["NEG", "ABS"], self._sign),
            **dict.fromkeys(["LN", "EXP", "SQRT", "POWER"], self._smooth),
            **dict.fromkeys(["COALESCE", "NULLIF"], self._choice),
        }
        self._plain: Mapping[str, Callable[[Call], exp.Expression]] = {
            **dict.fromkeys(_COMPARISONS, self._comparison),
            **dict.fromkeys(["AND", "OR"], self._connective),
            **dict.fromkeys(["FLOOR", "CEIL", "ROUND"], self._rounding),
            "%": self._remainder,
            "CAST": self._cast,
            "NOT": self._not,
            "IS NULL": self._is_null,
            "IN": self._in,
            "BETWEEN": self._between,
            "LIKE": self.like,
        }

    def node(self, node: Node, *, finite: bool) -> exp.Expression:
        """Return the tree of a node.

        Args:
            node: what to compile.
            finite: whether a double that is not finite must be null already.
        """
        if isinstance(node, Column):
            return self._guarded(column(node.name), node.type, finite=finite)
        if isinstance(node, Literal):
            return self.literal(node)
        if isinstance(node, Case):
            return self._case(node, finite=finite)
        return self._call(node, finite=finite)

    def taken(self, node: Node, kind: DataType, *, finite: bool = False) -> exp.Expression:
        """Return the tree of a node converted to a wider type, with exactly that SQL type."""
        if isinstance(node, Literal):
            value = node.value
            if value is not None and node.type != kind:
                value = widened(value, kind)
            return self.literal(Literal(value, kind))
        tree = self.node(node, finite=finite)
        return tree if node.type == kind else self.widen(tree, node.type, kind)

    def _call(self, node: Call, *, finite: bool) -> exp.Expression:
        guardable = self._guardable.get(node.op)
        if guardable is not None:
            return guardable(node, finite=finite)
        return self._plain.get(node.op, self._named)(node)

    # -- doubles --------------------------------------------------------------------------------

    def _guarded(self, tree: exp.Expression, kind: DataType, *, finite: bool) -> exp.Expression:
        if not finite or kind != FLOAT64:
            return tree
        return when(exp.LTE(this=call("ABS", tree), expression=number(_LARGEST_DOUBLE)), tree)

    def _smooth(self, node: Call, *, finite: bool) -> exp.Expression:
        return self._guarded(self.transcendental(node), FLOAT64, finite=finite)

    def transcendental(self, node: Call) -> exp.Expression:
        """Return LN, EXP, SQRT or POWER of doubles; what has no value is null or not finite."""
        # EXP(-inf) is 0 and POWER(NaN, 0) is 1: these two would lose what is not finite.
        finite = node.op in {"EXP", "POWER"}
        return call(node.op, *(self.taken(a, FLOAT64, finite=finite) for a in node.args))

    # -- numbers --------------------------------------------------------------------------------

    def _arithmetic(self, node: Call, *, finite: bool) -> exp.Expression:
        left, right = (self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True))
        if node.type.is_integer and can_overflow(node):
            return self.checked(node.op, left, right)
        result = binary(node.op, left, right)
        if node.type.kind == "decimal":
            return self.cast(result, node.type)
        return self._guarded(result, node.type, finite=finite)

    def _quotient(self, node: Call, *, finite: bool) -> exp.Expression:
        left = self.taken(node.args[0], FLOAT64)
        right = self.taken(node.args[1], FLOAT64, finite=True)
        if not _is_nonzero(node.args[1]):
            right = call("NULLIF", right, number("0e0"))
        quotient = exp.Div(this=operand(left), expression=operand(right))
        # Integers and decimals lie between 1e-38 and 1e38: no quotient of them is infinite.
        unlimited = any(a.type == FLOAT64 for a in node.args)
        return self._guarded(quotient, FLOAT64, finite=finite and unlimited)

    def _sign(self, node: Call, *, finite: bool) -> exp.Expression:
        tree = self.taken(node.args[0], node.type, finite=finite)
        if node.type.is_integer and can_overflow(node):
            # The least int64 has no counterpart.
            least = self.literal(Literal(-(2**63), INT64))
            tree = call("NULLIF", tree, least)
        if node.op == "ABS":
            return call("ABS", tree)
        return exp.Neg(this=operand(tree))

    def _remainder(self, node: Call) -> exp.Expression:
        left, right = (self.taken(a, t) for a, t in zip(node.args, node.takes, strict=True))
        if not _is_nonzero(node.args[1]):
            right = call("NULLIF", right, self.literal(Literal(_zero(node), node.takes[1])))
        result = call("MOD", left, right)
        return self.cast(result, node.type) if node.type.kind == "decimal" else result

    def _rounding(self, node: Call) -> exp.Expression:
        kind = node.args[0].type
        if kind.is_integer:
            return self.node(node.args[0], finite=True)
        if node.op == "ROUND":
            digits = node.args[1].value if len(node.args) > 1 else 0  # type: ignore[union-attr]
            # Flink raises on NaN here.
            tree = call("ROUND", self.node(node.args[0], finite=True), number(str(digits)))
            return tree if kind == FLOAT64 else self.cast(tree, node.type)
        tree = self.node(node.args[0], finite=False)
        whole = self.cast(call(node.op, tree), node.type)
        return whole if kind != FLOAT64 else when(between(tree, *_DOUBLE_BOUNDS["int64"]), whole)

    # -- conditions and choices -----------------------------------------------------------------

    def _compared(self, node: Call) -> list[exp.Expression]:
        """Return operands that compare by value; literals need no type of their own."""
        trees = []
        for arg, kind in zip(node.args, node.takes, strict=True):
            if isinstance(arg, Literal) and arg.value is not None and kind != TIMESTAMP:
                value = widened(arg.value, kind) if arg.type.is_numeric else arg.value
                trees.append(self.bare(value))
            else:
                trees.append(self.taken(arg, kind, finite=True))
        return trees

    def _comparison(self, node: Call) -> exp.Expression:
        return binary(node.op, *self._compared(node))

    def _between(self, node: Call) -> exp.Expression:
        value, low, high = (operand(t) for t in self._compared(node))
        return exp.Between(this=value, low=low, high=high)

    def _is_null(self, node: Call) -> exp.Expression:
        return is_null(operand(self.node(node.args[0], finite=True)))

    def _not(self, node: Call) -> exp.Expression:
        return exp.Not(this=condition(self.node(node.args[0], finite=True)))

    def _connective(self, node: Call) -> exp.Expression:
        parts = [condition(self.node(arg, finite=True)) for arg in node.args]
        return _joined(exp.And if node.op == "AND" else exp.Or, parts)

    def _in(self, node: Call) -> exp.Expression:
        value, *choices = node.args
        kind = node.takes[0]
        if FLOAT64 in node.takes:
            # Engines look doubles up in hash sets, where 0.0 and -0.0 differ.
            tree = self.taken(value, FLOAT64, finite=True)
            equal = [binary("=", tree, self.taken(c, FLOAT64)) for c in choices]
            return _joined(exp.Or, equal)
        if kind.kind == "decimal":
            kind = _holding(node.takes)
            literals = [self.taken(c, kind) for c in choices]
        elif kind.is_integer or kind == STRING:
            # Flink converts the choices to the type of the value, and wraps what is beyond it.
            kind = _widest(node.takes) if kind.is_integer else kind
            literals = [self._untyped(c) for c in choices]
        else:
            literals = [self.taken(c, kind) for c in choices]
        subject = self.taken(value, kind, finite=True)
        return exp.In(this=operand(subject), expressions=literals)

    def like(self, node: Call) -> exp.Expression:
        """Return LIKE; the pattern is a literal without a backslash."""
        text, pattern = node.args
        return exp.Like(
            this=operand(self.node(text, finite=True)), expression=self.bare(_text(pattern))
        )

    def _case(self, node: Case, *, finite: bool) -> exp.Expression:
        ifs = [
            exp.If(this=self.node(c, finite=True), true=self.taken(v, node.type, finite=finite))
            for c, v in node.branches
        ]
        default = node.default
        otherwise = None if default is None else self.taken(default, node.type, finite=finite)
        return exp.Case(ifs=ifs, default=otherwise)

    def _choice(self, node: Call, *, finite: bool) -> exp.Expression:
        last = len(node.args) - 1
        trees = []
        for i, (arg, kind) in enumerate(zip(node.args, node.takes, strict=True)):
            # COALESCE sees whether a value is null in all arguments but the last.
            sees = node.op == "COALESCE" and i < last
            trees.append(self.taken(arg, kind, finite=finite or sees))
        return call(node.op, *trees) if len(trees) > 1 else trees[0]

    # -- strings, instants, conversions ---------------------------------------------------------

    def _named(self, node: Call) -> exp.Expression:
        name = self.names.get(node.op, node.op)
        if node.op in _PARTS:
            return self.part(name, node.args[0])
        if node.op == "SUBSTRING":
            text, *numbers = node.args
            return call(name, self.node(text, finite=True), *(self._untyped(n) for n in numbers))
        tree = call(name, *(self.taken(a, STRING) for a in node.args))
        return self.cast(tree, INT64) if node.op == "LENGTH" else tree

    def _untyped(self, node: Node) -> exp.Expression:
        return self.bare(node.value) if isinstance(node, Literal) else self.node(node, finite=True)

    def part(self, name: str, node: Node) -> exp.Expression:
        """Return a part of a timestamp or date, an int64."""
        return self.cast(call(name, self.node(node, finite=True)), INT64)

    def _cast(self, node: Call) -> exp.Expression:
        arg, to = node.args[0], node.type
        if arg.type == FLOAT64:
            return self._cast_double(arg, to)
        tree = self.taken(arg, arg.type)
        if to == FLOAT64:
            return self.widen(tree, arg.type, to)
        if to.kind == "decimal":
            fits = _whole_digits(arg.type) <= to.precision - to.scale
            return self.cast(tree, to) if fits else self.try_cast(tree, to)
        if to.is_integer and arg.type.kind == "decimal":
            return self._decimal_to_integer(tree, arg.type, to)
        if to.kind == "int32" and arg.type.is_integer:
            return when(between(tree, str(-(2**31)), str(2**31 - 1)), self.cast(tree, to))
        return self.cast(tree, to)

    def _cast_double(self, arg: Node, to: DataType) -> exp.Expression:
        if not to.is_integer:
            return self.try_cast(self.node(arg, finite=True), to)
        tree = self.node(arg, finite=False)
        return when(between(tree, *_DOUBLE_BOUNDS[to.kind]), self.cast(tree, to))

    def _decimal_to_integer(
        self, tree: exp.Expression, source: DataType, to: DataType
    ) -> exp.Expression:
        if source.precision - source.scale < _INTEGER_DIGITS[to.kind]:
            return self.cast(tree, to)
        beyond = 2 ** INTEGER_BITS[to.kind]
        above = exp.GT(this=operand(tree), expression=self.bare(Decimal(f"{-beyond - 1}.0")))
        below = exp.LT(this=operand(tree), expression=self.bare(Decimal(f"{beyond}.0")))
        return when(exp.And(this=above, expression=below), self.cast(tree, to))

    # -- what only an engine knows --------------------------------------------------------------

    def widen(self, tree: exp.Expression, source: DataType, to: DataType) -> exp.Expression:
        """Return a number as a wider type; float64 is the nearest double."""
        del source
        return self.cast(tree, to)

    @abstractmethod
    def checked(self, op: str, left: exp.Expression, right: exp.Expression) -> exp.Expression:
        """Return ``+ - *`` of int64, null where the result leaves it."""


def _joined(kind: type[exp.And | exp.Or], parts: Sequence[exp.Expression]) -> exp.Expression:
    first, *rest = parts
    for part in rest:
        first = kind(this=first, expression=part)
    return first


def _zero(node: Call) -> int | Decimal:
    return 0 if node.takes[1].is_integer else Decimal(0).scaleb(-node.takes[1].scale)


def _is_nonzero(node: Node) -> bool:
    return isinstance(node, Literal) and bool(node.value)


def _text(node: Node) -> str:
    return str(node.value) if isinstance(node, Literal) else ""


def _whole_digits(kind: DataType) -> int:
    if kind.kind == "decimal":
        # Rounding away digits can carry into one more.
        return kind.precision - kind.scale + (1 if kind.scale else 0)
    return _INTEGER_DIGITS[kind.kind]


def _widest(kinds: Sequence[DataType]) -> DataType:
    return INT64 if INT64 in kinds else kinds[0]


def _holding(kinds: Sequence[DataType]) -> DataType:
    scale = max(k.scale for k in kinds)
    return DataType("decimal", max(k.precision - k.scale for k in kinds) + scale, scale)
