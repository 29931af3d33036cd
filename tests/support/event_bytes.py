"""Events as bytes, good and bad, with the verdict each must get known from how it was made.

Nothing here judges: a value's text is written down beside the value, and a broken event is made by
breaking a good one, so the bytes test every judge alike (the archive's, Flink's). Imports nothing
of ours; types are the language's names (``int64``, ``decimal(12,2)``).
"""

import base64
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random

_DECIMAL = re.compile(r"decimal\((\d+),(\d+)\)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class EventBytes:
    """A record's value and what must be made of it.

    Attributes:
        value: the bytes; None is a tombstone.
        reason: ``malformed``, ``schema``, or None where the value fits every type.
        kind: how it was made, for messages.
        values: by column, where it fits: int, float, str, bool, ``Decimal``, ``date``, bytes;
            timestamps as epoch milliseconds; None for null.
    """

    value: bytes | None
    reason: str | None
    kind: str
    values: Mapping[str, object] | None = None


def fitting(type_: str, rng: Random) -> tuple[str, object]:
    """Return a JSON text that fits the type, and its value."""
    if rng.random() < 0.08:
        return "null", None
    decimal_type = _DECIMAL.fullmatch(type_)
    if decimal_type:
        return _fitting_decimal(int(decimal_type[1]), int(decimal_type[2]), rng)
    return _FITTING[type_](rng)


def misfit(type_: str, rng: Random) -> str:
    """Return a JSON text that is valid JSON and does not fit the type."""
    decimal_type = _DECIMAL.fullmatch(type_)
    if decimal_type:
        precision, scale = int(decimal_type[1]), int(decimal_type[2])
        texts = [
            "true", "[]", "{}", '""', '"x"', '"1_0"', '" 1"', '"+1"', '"0x1"', '"NaN"', '".5"',
            '"1."', "1" + "0" * (precision - scale), f"1e{precision - scale}",
            f"1e-{scale + 1}", '"' + "9" * (precision - scale + 1) + '"',
            "0." + "0" * scale + "1", '"Infinity"', '"\\u0661"',
        ]  # fmt: skip
        return rng.choice(texts)
    return rng.choice(_MISFITS[type_])


def _integer(low: int, high: int) -> Callable[[Random], tuple[str, object]]:
    def fit(rng: Random) -> tuple[str, object]:
        value = rng.choice([0, 1, -1, low, high, rng.randint(low, high), rng.randint(-999, 999)])
        return ("-0" if value == 0 and rng.random() < 0.2 else str(value)), value

    return fit


def _double(rng: Random) -> tuple[str, object]:
    text = rng.choice(
        [
            "0", "1", "-17", "0.1", "1.5", "-2e3", "1E+2", "1e-7", "1.7976931348623157e308",
            "5e-324", "1e-400", "123456789012345678901234567890", "9007199254740993",
            "0.30000000000000004", "2.2250738585072011e-308", repr(rng.uniform(-1e6, 1e6)),
        ]
    )  # fmt: skip
    return text, float(text)


def _fitting_decimal(precision: int, scale: int, rng: Random) -> tuple[str, object]:
    digits = rng.choice([1, precision, rng.randint(1, precision)])
    unscaled = rng.choice([0, 10**digits - 1, rng.randint(0, 10**digits - 1)])
    unscaled *= rng.choice([1, -1])
    value = Decimal((unscaled < 0, tuple(map(int, str(abs(unscaled)))), -scale))
    text = format(value, "f")
    if rng.random() < 0.2 and "." in text:
        text += "000"
    elif rng.random() < 0.2 and unscaled:
        text = f"{unscaled}e-{rng.choice(['', '0', '00000'])}{scale}"
    elif rng.random() < 0.1 and not unscaled:
        text = f"0e{rng.choice(['', '-'])}{rng.choice([99, 99999, 10**12])}"
    elif rng.random() < 0.1 and scale >= 1:
        text, value = "15E-1" if precision - scale >= 1 else "0", Decimal("1.5")
        value = value if precision - scale >= 1 else Decimal(0)
    return (json.dumps(text) if rng.random() < 0.4 else text), value


def _text(rng: Random) -> tuple[str, object]:
    value = rng.choice(
        ["", "a", "Zürich", "日本", "😀", 'quo"te', "back\\slash", "tab\t", "null", "\x7f", "\x00"]
    )
    value += str(rng.randint(0, 9)) if rng.random() < 0.5 else ""
    return json.dumps(value, ensure_ascii=rng.random() < 0.5), value


def _timestamp(rng: Random) -> tuple[str, object]:
    ms = rng.choice([0, -1, 1_709_287_200_123, rng.randint(-(10**12), 4 * 10**12)])
    if rng.random() < 0.3:
        return str(ms), ms
    return _iso(ms, rng)


def _iso(ms: int, rng: Random) -> tuple[str, object]:
    """Spell an instant; a coarser spelling floors it."""
    offset_minutes = rng.choice([0, 0, 0, 60, -330, 14 * 60, -12 * 60])
    step_ms = rng.choice([1, 1, 1000, 60_000, 86_400_000])
    if step_ms == 86_400_000:
        day = ms // step_ms
        zone, ahead_ms = rng.choice([("", 0), ("", 0), ("Z", 0), ("+01:00", 3_600_000)])
        return f'"{(_EPOCH + timedelta(days=day)).date()}{zone}"', day * step_ms - ahead_ms
    ms = ms // step_ms * step_ms
    local = _EPOCH + timedelta(milliseconds=ms) + timedelta(minutes=offset_minutes)
    text = local.strftime("%Y-%m-%d") + rng.choice("T ") + local.strftime("%H:%M")
    if step_ms < 60_000:
        text += local.strftime(":%S")
    if step_ms < 1000:
        text += f".{ms % 1000:03d}" + rng.choice(["", "9", "000", "999999"])
    sign, minutes = ("-" if offset_minutes < 0 else "+"), abs(offset_minutes)
    zone = f"{sign}{minutes // 60:02d}{rng.choice([':', ''])}{minutes % 60:02d}"
    if offset_minutes == 0:
        zone = rng.choice(["", "Z", "+00:00", "-0000"])
    return f'"{text}{zone}"', ms


def _date(rng: Random) -> tuple[str, object]:
    value = rng.choice([date(1970, 1, 1), date(2024, 2, 29), date(1, 1, 1), date(9999, 12, 31)])
    return f'"{value.isoformat()}"', value


def _vector(rng: Random) -> tuple[str, object]:
    """Three numbers, and the nearest floats of 32 bits; beyond these is 3.4028235677973366e38."""
    texts = [
        rng.choice(["3.4028235e38", "1e-45", "1e-50", "16777217", "-0", _double(rng)[0]])
        for _ in range(3)
    ]
    texts = [text if abs(float(text)) < 3.4028235677973366e38 else "2.5" for text in texts]
    value = [struct.unpack("f", struct.pack("f", float(text)))[0] for text in texts]
    return f"[{rng.choice([',', ', ', ' ,']).join(texts)}]", value


def _bytes(rng: Random) -> tuple[str, object]:
    value = rng.choice([b"", b"a", b"ab", b"abc", bytes(range(256)), rng.randbytes(5)])
    return json.dumps(base64.b64encode(value).decode()), value


_FITTING: Mapping[str, Callable[[Random], tuple[str, object]]] = {
    "int32": _integer(-(2**31), 2**31 - 1),
    "int64": _integer(-(2**63), 2**63 - 1),
    "float64": _double,
    "bool": lambda rng: rng.choice([("true", True), ("false", False)]),
    "string": _text,
    "timestamp": _timestamp,
    "date": _date,
    "bytes": _bytes,
    "vector(3)": _vector,
}
_NOT_NUMBERS = ['"1"', "true", "[]", "{}", '""', '"x"', "[1]"]
_MISFITS: Mapping[str, Sequence[str]] = {
    "int32": [*_NOT_NUMBERS, "1.0", "1e2", "2147483648", "-2147483649", "9" * 30, "0.0", "1E0"],
    "int64": [*_NOT_NUMBERS, "1.0", "1e2", str(2**63), str(-(2**63) - 1), "9" * 30, "-0.0"],
    "float64": [*_NOT_NUMBERS, "1e400", "-1e999", "1" * 400],
    "bool": ["0", "1", '"true"', "[]", "{}", '""', "1.0"],
    "string": ["0", "1.5", "true", "[]", "{}", '["a"]'],
    "timestamp": [
        '"x"', '""', "true", "1.5", "1e3", "[]", "{}", '"2024"', '"2024-02-30"', '"2023-02-29"',
        '"2024-13-01"', '"2024-01-01T24:00"', '"2024-01-01T10:60"', '"2024-01-01T10"',
        '"2024-01-01T10:00:00."', '"2024-01-01T10:00:00.1234567890"', '"2024-01-01T10:00:60"',
        '"2024-01-01 Z"', '"2024-01-01T10:00:00+1"', '"2024-01-01+24:00"', '"2024-01-01T"', '"0000-01-01"', '"10000-01-01"',
        '"2024-1-1"', '" 2024-01-01"', '"2024-01-01T10:00:00 Z"', '"1709287200000"',
        '"2024-W01-1"', '"20240101"', '"2024-01-01t10:00:00z"', '"-2024-01-01"',
        '"2024-01-01T10:00:00,5"', '"2024-01-01T10:00+05"', '"\\u0662024-01-01"', "9223372036854775808",
        "9223372036854776", "-9223372036854776", "253402300800000", "-62135596800001",
        '"0001-01-01T00:00:00+00:01"', '"9999-12-31T23:59:00-00:01"',
    ],
    "date": [
        '"x"', '""', "0", "true", '"2023-02-29"', '"2024-13-01"', '"20240101"', "[]",
        '"2024-01-01T00:00:00Z"', '"0000-01-01"', '"2024-1-1"', '" 2024-01-01"', '"2024-W01-1"',
        '"10000-01-01"', '"\\u0662024-01-01"',
    ],
    "vector(3)": [
        *_NOT_NUMBERS, "[1,2]", "[1,2,3,4]", "[1,null,3]", '[1,"2",3]', "[1,true,3]", "[[1,2,3]]", "[1,2,[3]]",
        "[1,2,{}]", '"[1,2,3]"', "[1,2,3.4028236e38]", "[1e39,2,3]", "[1,-1e400,3]", "[null,null,null]",
    ],
    "bytes": ["0", "true", "[]", "{}", '"a"', '"QQ"', '"QQ="', '"_-=="', '"Q Q="', '"QQ==="', '"YWJj="'],
}  # fmt: skip


def _at_end(suffix: bytes) -> Callable[[bytes, Random], bytes | None]:
    return lambda good, rng: good + suffix


def _inside(field: bytes) -> Callable[[bytes, Random], bytes | None]:
    """Add a field that no column is named after, in front of the others."""
    return lambda good, rng: b"{" + field + b"," + good[1:]


MALFORMED: Mapping[str, Callable[[bytes, Random], bytes | None]] = {
    "tombstone": lambda good, rng: None,
    "empty": lambda good, rng: b"",
    "white space": lambda good, rng: b" \n\t",
    "truncated": lambda good, rng: good[: rng.randrange(1, len(good))],
    "trailing text": _at_end(b"xx"),
    "trailing bracket": _at_end(b"}"),
    "two objects": lambda good, rng: good + b" " + good,
    "array": lambda good, rng: b"[" + good + b"]",
    "scalar": lambda good, rng: rng.choice([b"1", b'"text"', b"null", b"true", b"1.5e3"]),
    "plain text": lambda good, rng: b"hello",
    "NaN": _inside(b'"_x":NaN'),
    "Infinity": _inside(b'"_x":Infinity'),
    "-Infinity": _inside(b'"_x":-Infinity'),
    "byte that is no UTF-8": _inside(b'"_x":"\xff"'),
    "UTF-8 cut off": _inside(b'"_x":"\xe2\x82"'),
    "overlong UTF-8": _inside(b'"_x":"\xc0\xaf"'),
    "surrogate in UTF-8": _inside(b'"_x":"\xed\xa0\x80"'),
    "beyond Unicode": _inside(b'"_x":"\xf5\x80\x80\x80"'),
    "no UTF-8 in a name": _inside(b'"_\xff":1'),
    "lone high surrogate": _inside(rb'"_x":"\ud800"'),
    "lone low surrogate": _inside(rb'"_x":"\uDC00a"'),
    "swapped surrogates": _inside(rb'"_x":"\udc00\ud800"'),
    "lone surrogate in a name": _inside(rb'"_\ud83d":1'),
    "byte order mark": lambda good, rng: b"\xef\xbb\xbf" + good,
    "single quotes": _inside(b"'_x':1"),
    "name without quotes": _inside(b"_x:1"),
    "trailing comma": lambda good, rng: good[:-1] + b",}",
    "comma in front": lambda good, rng: b"{," + good[1:],
    "no comma": lambda good, rng: b'{"_x":1 ' + good[1:],
    "no colon": _inside(b'"_x" 1'),
    "name that is a number": _inside(b"1:1"),
    "leading zero": _inside(b'"_x":01'),
    "leading plus": _inside(b'"_x":+1'),
    "number without digits": _inside(b'"_x":-'),
    "number ending in a point": _inside(b'"_x":1.'),
    "number starting with a point": _inside(b'"_x":.5'),
    "exponent without digits": _inside(b'"_x":1e'),
    "hexadecimal": _inside(b'"_x":0x10'),
    "control character in a string": _inside(b'"_x":"a\nb"'),
    "zero byte": _inside(b'"_x":"\x00"'),
    "unknown escape": _inside(rb'"_x":"\x41"'),
    "short escape": _inside(rb'"_x":"\u12"'),
    "comment": lambda good, rng: good[:-1] + b"/* */}",
    "capital literal": _inside(b'"_x":True'),
    "literal cut off": _inside(b'"_x":tru'),
    "broken array in an ignored field": _inside(b'"_x":[1,2'),
    "wrong bracket in an ignored field": _inside(b'"_x":{"a":[1}}'),
    "trailing comma in an ignored array": _inside(b'"_x":[1,]'),
    "form feed": lambda good, rng: b"\x0c" + good,
    "no-break space": lambda good, rng: good + b"\xc2\xa0",
}
"""Ways to break an event; each takes a good one (an object with at least one field)."""

IGNORED: Sequence[str] = (
    '"_x":1',
    '"_x":[1,[2,{"a":null}],"b"]',
    '"_x":{"a":{"b":[]}}',
    '"_x":"\\ud83d\\ude00"',
    '"_x":1e999',
    '"":0',
    '"_x":"😀"',
)
"""Fields that no column is named after; valid JSON."""


def good_event(columns: Mapping[str, str], event_time: str, ms: int, rng: Random) -> EventBytes:
    """Return an event whose every column fits, spelled in some way; null event times do not occur.

    Args:
        columns: name to type, as the language writes it.
        event_time: the column of the event time, a ``timestamp`` or an ``int64``.
        ms: the event time.
        rng: decides values, spellings, order, absent columns and ignored fields.
    """
    texts: list[str] = []
    values: dict[str, object] = {}
    for name, type_ in columns.items():
        text, values[name] = fitting(type_, rng)
        if name == event_time:
            text, values[name] = str(ms), ms
            if type_ == "timestamp" and rng.random() < 0.6:
                moment = _EPOCH + timedelta(milliseconds=ms)
                text = f'"{moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")}"'
        if values[name] is None and rng.random() < 0.5:
            continue
        if rng.random() < 0.05:
            # The last of a repeated name counts, whatever the first was.
            texts.append(f"{json.dumps(name)}:{rng.choice(['[]', 'null', '7', text])}")
        texts.append(f"{_name(name, rng)}:{text}")
    texts = _shuffled(texts, rng)
    if rng.random() < 0.2:
        texts.insert(0, rng.choice(IGNORED))
    space = rng.choice(["", "", " ", "\n\t"])
    body = ("," + space).join(texts)
    return EventBytes(f"{space}{{{body}}}{space}".encode(), None, "good", values)


def _name(name: str, rng: Random) -> str:
    if rng.random() < 0.03:
        return f'"\\u{ord(name[0]):04x}{name[1:]}"'
    return json.dumps(name)


def _shuffled(texts: list[str], rng: Random) -> list[str]:
    """Change the order; repeated names keep theirs, since their last value counts."""
    names = [json.loads(text[: text.index('":') + 1]) for text in texts]
    if len(set(names)) == len(names):
        rng.shuffle(texts)
    return texts


def malformed_event(columns: Mapping[str, str], event_time: str, rng: Random) -> EventBytes:
    """Return an event broken in one of the ways of ``MALFORMED``."""
    good = good_event(columns, event_time, rng.randint(0, 10**12), rng).value or b""
    kind = rng.choice(list(MALFORMED))
    return EventBytes(MALFORMED[kind](good.strip(), rng), "malformed", kind)


def misfit_event(columns: Mapping[str, str], event_time: str, rng: Random) -> EventBytes:
    """Return an event with one value that does not fit, or without an event time."""
    event = good_event(columns, event_time, rng.randint(0, 10**12), rng)
    assert event.value is not None
    name = rng.choice(list(columns))
    text = misfit(columns[name], rng)
    if name == event_time and rng.random() < 0.5:
        text = "null"
    body = event.value.rstrip()[:-1] + f",{json.dumps(name)}:{text}}}".encode()
    return EventBytes(body, "schema", f"{name} {columns[name]} = {text}")


def any_event(
    columns: Mapping[str, str], event_time: str, ms: int, rng: Random, bad: float = 0.3
) -> EventBytes:
    """Return a good event, or with probability ``bad`` one that is malformed or does not fit."""
    if rng.random() >= bad:
        return good_event(columns, event_time, ms, rng)
    make = malformed_event if rng.random() < 0.5 else misfit_event
    return make(columns, event_time, rng)
