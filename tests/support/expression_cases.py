"""Random expressions and rows for the tests that compare engines with the reference."""

import math
import random
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal

from millrace.types import (
    BOOL,
    BYTES,
    DATE,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    DataType,
    decimal,
)

COLUMNS: Mapping[str, DataType] = {
    "i": INT32,
    "n": INT64,
    "m": INT64,
    "x": FLOAT64,
    "y": FLOAT64,
    "p": decimal(12, 2),
    "q": decimal(9, 4),
    "w": decimal(38, 3),
    "v": decimal(17, 5),
    "b": BOOL,
    "s": STRING,
    "u": STRING,
    "t": TIMESTAMP,
    "d": DATE,
    "raw": BYTES,
}

_INTS = [0, 1, -1, 2, 3, 7, -5, 100, 86_400]
_EDGE_INT64 = [2**63 - 1, -(2**63), 2**53 + 1, 2**62, 3_037_000_500, -(2**31) - 1]
_EDGE_INT32 = [2**31 - 1, -(2**31)]
_DOUBLES = [
    0.0, -0.0, 0.5, -0.5, 1.5, 2.5, 2.675, -2.675, 1e-7, 123456.789, 1e15 + 0.5, 4.5e15,
    9.2233720368547758e18, -9.2233720368547758e18, 1e19, 1e300, -1e300, 1.7976931348623157e308,
    5e-324, math.nan, math.inf, -math.inf, 2147483647.5, -2147483648.5, 0.005, 1.005, 1e22,
    0.1, 0.2, 0.3, 1e37, 1e38, 99999999.995,
]  # fmt: skip
_STRINGS = [
    "", "a", "A", "abc", "Germany", "GERMANY", "it's", "a_b", "a%b", "100%", "\\", "a\\nb", "x\ny",
    "ÖSTERREICH", "straße", "ΟΔΟΣ", "İstanbul", "ǅ", "日本語", "🎈 party", "  pad ", "a.b*c[d]", '"q"',
]  # fmt: skip
_TEXTS = [t for t in _STRINGS if "\\" not in t]
_PATTERNS = ["%", "_", "a%", "%a", "%a%", "a_b", "a%b", "_%", "__", "%_b%", "", "abc", "%.%", "x_y"]
_PARTS = ["YEAR", "MONTH", "DAY", "DAYOFWEEK"]
_TIMES = ["HOUR", "MINUTE", "SECOND"]


def random_row(rng: random.Random) -> dict[str, object]:
    """Return a row with a value, often an extreme one, or null in every column."""
    values: dict[str, Callable[[], object]] = {
        "i": lambda: rng.choice([*_INTS, *_EDGE_INT32, rng.randint(-(2**31), 2**31 - 1)]),
        "n": lambda: _int64(rng),
        "m": lambda: _int64(rng),
        "x": lambda: _double(rng),
        "y": lambda: _double(rng),
        "p": lambda: _decimal(rng, COLUMNS["p"]),
        "q": lambda: _decimal(rng, COLUMNS["q"]),
        "w": lambda: _decimal(rng, COLUMNS["w"]),
        "v": lambda: _decimal(rng, COLUMNS["v"]),
        "b": lambda: rng.random() < 0.5,
        "s": lambda: rng.choice(_STRINGS),
        "u": lambda: rng.choice(_STRINGS),
        "t": lambda: _instant(rng),
        "d": lambda: date(1970, 1, 1) + timedelta(days=rng.randint(-40_000, 40_000)),
        "raw": lambda: rng.choice([b"", b"\x00\xff", b"abc"]),
    }
    return {name: None if rng.random() < 0.12 else value() for name, value in values.items()}


def _int64(rng: random.Random) -> int:
    return rng.choice([*_INTS, *_EDGE_INT64, rng.randint(-1000, 1000), rng.getrandbits(63)])


def _double(rng: random.Random) -> float:
    return rng.choice([*_DOUBLES, rng.uniform(-100, 100), round(rng.uniform(-100, 100), 2)])


def _decimal(rng: random.Random, kind: DataType) -> Decimal:
    digits = rng.choice([1, 2, kind.scale, kind.scale + 1, kind.precision])
    limit = 10**digits - 1
    unscaled = rng.choice([0, limit, -limit, rng.randint(-limit, limit)])
    sign, text = ("-" if unscaled < 0 else ""), str(abs(unscaled)).zfill(kind.scale + 1)
    return Decimal(f"{sign}{text[: -kind.scale]}.{text[-kind.scale :]}")


def _instant(rng: random.Random) -> int:
    near = rng.randint(-4_000_000_000_000, 4_000_000_000_000)
    return rng.choice([0, -1, 86_399_999, -86_400_000, 1_522_540_800_000, near])


class Writer:
    """Writes random expressions; those a type rule refuses are the caller's to skip.

    Args:
        rng: source of all choices.
        smooth: also write LN, EXP, SQRT and POWER, whose last digit differs between engines.
    """

    def __init__(self, rng: random.Random, *, smooth: bool) -> None:
        self._rng = rng
        self._smooth = smooth
        self._kinds: Mapping[str, Callable[[int], str]] = {
            "int": self._int,
            "double": self._double,
            "decimal": self._decimal,
            "bool": self._bool,
            "string": self._string,
            "date": self._date,
            "timestamp": self._timestamp,
        }

    def expression(self, depth: int) -> str:
        """Return an expression of any type."""
        return self.of(self._rng.choice(list(self._kinds)), depth)

    def of(self, kind: str, depth: int) -> str:
        """Return an expression of one kind, at most ``depth`` operations deep."""
        if depth <= 0:
            return self._leaf(kind)
        if kind not in {"date", "timestamp"} and self._rng.random() < 0.15:
            return self._choice(kind, depth - 1)
        return self._kinds[kind](depth - 1)

    def _leaf(self, kind: str) -> str:
        choices = {
            "int": ["i", "n", "m", *map(str, _INTS), "9223372036854775807", "-9223372036854775808"],
            "double": ["x", "y", "0e0", "1e0", "2.5e0", "1e-3", "1e300"],
            "decimal": ["p", "q", "v", "w", "0.05", "1.50", "-2.5", "100.00"],
            "bool": ["b", "TRUE", "FALSE", "b"],
            "string": ["s", "u", *("'" + t.replace("'", "''") + "'" for t in _TEXTS)],
            "date": ["d", "DATE '2018-04-01'", "DATE '1969-12-31'"],
            "timestamp": ["t", "TIMESTAMP '2018-04-01 12:30:00.5'", "TIMESTAMP '1970-01-01'"],
        }
        return self._rng.choice(choices[kind])

    def _number(self, depth: int) -> str:
        return self.of(self._rng.choice(["int", "double", "decimal"]), depth)

    def _choice(self, kind: str, depth: int) -> str:
        first, second = self.of(kind, depth), self.of(kind, depth)
        forms = [
            f"COALESCE({first}, {second})",
            f"NULLIF({first}, {second})",
            f"CASE WHEN {self.of('bool', depth)} THEN {first} ELSE {second} END",
            f"CASE WHEN {self.of('bool', depth)} THEN {first} END",
            f"CASE {first} WHEN {second} THEN {first} ELSE {second} END",
        ]
        return self._rng.choice(forms)

    def _int(self, depth: int) -> str:
        def one() -> str:
            return f"({self.of('int', depth)})"

        forms: list[Callable[[], str]] = [
            lambda: f"{one()} {self._rng.choice('+-*%')} {one()}",
            lambda: f"{one()} {self._rng.choice('+-*%')} {one()}",
            lambda: f"-{one()}",
            lambda: f"ABS({one()})",
            lambda: f"{self._rng.choice(['FLOOR', 'CEIL'])}({self.of('double', depth)})",
            lambda: f"{self._rng.choice(['FLOOR', 'CEIL', 'ROUND'])}({one()})",
            lambda: f"LENGTH({self.of('string', depth)})",
            lambda: f"{self._rng.choice(_PARTS)}({self.of('date', depth)})",
            lambda: f"{self._rng.choice(_PARTS + _TIMES)}({self.of('timestamp', depth)})",
            lambda: f"CAST({self._number(depth)} AS {self._rng.choice(['int32', 'int64'])})",
            lambda: f"CAST({self.of('bool', depth)} AS int64)",
        ]
        return self._rng.choice(forms)()

    def _double(self, depth: int) -> str:
        def one() -> str:
            return f"({self.of('double', depth)})"

        forms: list[Callable[[], str]] = [
            lambda: f"{one()} {self._rng.choice('+-*/')} {one()}",
            lambda: f"{one()} {self._rng.choice('+-*/')} ({self._number(depth)})",
            lambda: f"({self._number(depth)}) / ({self._number(depth)})",
            lambda: f"-{one()}",
            lambda: f"ABS({one()})",
            lambda: f"ROUND({one()}, {self._rng.randint(0, 4)})",
            lambda: f"CAST({self._number(depth)} AS float64)",
        ]
        if self._smooth:
            name = self._rng.choice(["LN", "EXP", "SQRT"])
            forms += [lambda: f"{name}({one()})", lambda: f"POWER({one()}, {one()})"] * 2
        return self._rng.choice(forms)()

    def _decimal(self, depth: int) -> str:
        def one() -> str:
            return f"({self.of('decimal', depth)})"

        target = self._rng.choice(
            ["decimal(12,2)", "decimal(5,5)", "decimal(20,0)", "decimal(9,1)"]
        )
        forms: list[Callable[[], str]] = [
            lambda: f"{one()} {self._rng.choice('+-*%')} {one()}",
            lambda: f"{one()} {self._rng.choice('+-*%')} ({self.of('int', depth)})",
            lambda: f"-{one()}",
            lambda: f"ABS({one()})",
            lambda: f"{self._rng.choice(['FLOOR', 'CEIL', 'ROUND'])}({one()})",
            lambda: f"ROUND({one()}, {self._rng.randint(0, 4)})",
            lambda: f"CAST({self._number(depth)} AS {target})",
        ]
        return self._rng.choice(forms)()

    def _bool(self, depth: int) -> str:
        def one() -> str:
            return f"({self.of('bool', depth)})"

        text = self._rng.choice(_PATTERNS)
        kind = self._rng.choice(["int", "double", "decimal", "string", "date", "timestamp"])
        order = self._rng.choice(["=", "<>", "<", "<=", ">", ">="])
        forms: list[Callable[[], str]] = [
            lambda: f"({self.of(kind, depth)}) {order} ({self.of(kind, depth)})",
            lambda: f"({self._number(depth)}) {order} ({self._number(depth)})",
            lambda: (
                f"({self._number(depth)}) BETWEEN ({self._number(depth)}) AND {self._leaf('int')}"
            ),
            lambda: f"({self.of(kind, depth)}) IN ({self._list(kind)})",
            lambda: f"({self.of('string', depth)}) LIKE '{text}'",
            lambda: f"{one()} {self._rng.choice(['AND', 'OR'])} {one()}",
            lambda: f"{one()} {self._rng.choice(['AND', 'OR'])} {one()}",
            lambda: f"NOT {one()}",
            lambda: f"({self.of(kind, depth)}) IS {self._rng.choice(['', 'NOT '])}NULL",
            lambda: f"{one()} {self._rng.choice(['=', '<>'])} {one()}",
            lambda: f"raw {self._rng.choice(['=', '<>'])} raw",
        ]
        return self._rng.choice(forms)()

    def _list(self, kind: str) -> str:
        leaves = (self._leaf(kind) for _ in range(12))
        literals = [leaf for leaf in leaves if leaf not in COLUMNS]
        return ", ".join(literals[:3] or [self._literal(kind)])

    def _literal(self, kind: str) -> str:
        while (leaf := self._leaf(kind)) in COLUMNS:
            pass
        return leaf

    def _string(self, depth: int) -> str:
        def one() -> str:
            return self.of("string", depth)

        start, length = self._rng.randint(1, 4), self._rng.randint(0, 3)
        forms: list[Callable[[], str]] = [
            lambda: f"{self._rng.choice(['LOWER', 'UPPER'])}({one()})",
            lambda: f"CONCAT({one()}, {one()})",
            lambda: f"SUBSTRING({one()}, {start}, {length})",
            lambda: f"SUBSTRING({one()}, {start})",
            lambda: f"CAST({self.of('int', depth)} AS string)",
            lambda: f"CAST({self.of('date', depth)} AS string)",
            lambda: f"CAST({self.of('decimal', depth)} AS string)",
        ]
        return self._rng.choice(forms)()

    def _date(self, depth: int) -> str:
        return f"CAST({self.of('timestamp', depth - 1)} AS date)"

    def _timestamp(self, depth: int) -> str:
        return f"CAST({self.of('date', depth - 1)} AS timestamp)"
