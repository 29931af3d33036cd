"""Generated cells of every type, spelled as CSV and as JSON, for the readers to be held equal on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from tests.support.event_bytes import fitting, misfit

COLUMNS: Mapping[str, str] = {
    "n": "int32",
    "who": "int64",
    "x": "float64",
    "amount": "decimal(12,2)",
    "wide": "decimal(38,3)",
    "ok": "bool",
    "id": "string",
    "other": "timestamp",
    "day": "date",
    "raw": "bytes",
    "taste": "vector(3)",
}
"""Column to type."""

CSV_ONLY = "blank boolean"
"""What docs/values.md lets CSV alone read: blanks around a cell, and more words for booleans."""

_PIECES = "0123456789.eE+-_:TZ /xXnNaA,\"'\t\u0661\ufffd"
_WORDS = (
    "", "NA", "N/A", "null", "None", "nan", "NaN", "inf", "Infinity", "-inf", "true", "false", "True",
    "FALSE", "yes", "NO", "t", "0", "1", "-0", "7", "7.0", "7e0", "007", "+7", "1.", ".5", "1.005", "1.500",
    "15e-1", "1e400", "1e-400", "9007199254740993", "9007199254740993.0", "2147483648",
    "9223372036854775807", "9223372036854775808", "0x10", "1_000", "1,5", " 7", "7 ", "  ", "10:00:00",
    "20240301", "1709287200", "1709287200000", "1709287200000000", "253402300799999", "253402300800000",
    "-62135596800000", "-62135596800001", "2024-03-01", "2024-02-30", "0000-01-01", "0001-01-01",
    "9999-12-31", "10000-01-01", "2024-03-01T10:00", "2024-03-01 10:00:00.1234567", "2024-03-01T10:00Z",
    "2024-03-01T10:00+0530", "2024-03-01T24:00", "0001-01-01T00:00+01:00", "2024-03-01t10:00z", "QQ==", "QQ",
    "_-==", "[]", "{}", "[1,2,3]", " [ 1 , 2.5,\t-0 ] ", "[1,2]", "[1,2,3,]", "[1,2,NaN]", "[1,2,1e39]", "[1,2,+3]", "[0.1,1e-50,16777217]", "[1;2;3]", "1,2,3", 'say "x"', "c:\\", "\U0001f600", "\ufffd",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One cell, all others of its row being null but the event time.

    Attributes:
        text: the cell of CSV.
        token: the same in JSON.
        differs: whether CSV may read it where JSON does not.
    """

    column: str
    text: str
    token: str
    differs: bool

    @property
    def csv_line(self) -> str:
        """The cell's line under the header ``at``, then ``COLUMNS``."""
        quoted = '"' + self.text.replace('"', '""') + '"'
        return ",".join(["2024-03-01", *(quoted if c == self.column else "" for c in COLUMNS)])

    @property
    def json_line(self) -> str:
        """The cell's record."""
        return f'{{"at":"2024-03-01",{json.dumps(self.column)}:{self.token}}}'


def cells(count: int, rng: Random) -> list[Cell]:
    """Return some words for each column, then generated cells: good ones, bad ones, and both changed."""
    found = [_cell(column, word) for column in COLUMNS for word in _WORDS]
    while len(found) < count:
        column = rng.choice(list(COLUMNS))
        type_ = COLUMNS[column]
        written = fitting(type_, rng)[0] if rng.random() < 0.7 else misfit(type_, rng)
        value = json.loads(written, parse_int=str, parse_float=str)
        text = value if isinstance(value, str) else written
        if rng.random() < 0.4:
            place = rng.randrange(len(text) + 1)
            text = text[:place] + rng.choice(_PIECES) + text[place + rng.randrange(2) :]
        if all(c >= " " or c == "\t" for c in text):
            found.append(_cell(column, text))
    return found


def _cell(column: str, text: str) -> Cell:
    kind = COLUMNS[column]
    is_text = kind in {"string", "date", "bytes"}
    token = json.dumps(text) if text else "null"
    if text and not is_text and _is_literal(text, may_be_bool=kind == "bool"):
        token = text
    is_blank = kind != "string" and text != text.strip(" \t")
    words = {"1", "0", "yes", "no", "true", "false"}
    is_word = kind == "bool" and text.lower() in words
    return Cell(column, text, token, is_blank or is_word)


def _is_literal(text: str, *, may_be_bool: bool) -> bool:
    if text != text.strip() or text in {"NaN", "Infinity", "-Infinity"}:
        return False
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if isinstance(value, bool):
        return may_be_bool
    return isinstance(value, int | float | list)
