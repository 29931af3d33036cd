"""Lines of CSV as rows of declared columns.

A line holds a whole row. A cell is text: what JSON would write for the value, without the quotes
that JSON puts around text.
"""

import re
from collections.abc import Callable, Collection, Sequence

from millrace.plan import Column, SourcePlan
from millrace.rows.json_rows import Values, clock_columns, converted
from millrace.types import DataType
from millrace.values.documents import MalformedError
from millrace.values.scalars import (
    Convert,
    Misfit,
    Number,
    clock_converter,
    converter,
    is_integer,
    is_number,
)

BLANKS = " \t"
"""White space that counts for nothing around a cell, unless its column is text."""

_CELL = re.compile(r'(?:"((?:[^"]|"")*)"|([^",]*))(,|\Z)')

BOOLEANS = {
    **{
        spelling: True
        for word in ("true", "yes")
        for spelling in (word, word.title(), word.upper())
    },
    **{
        spelling: False
        for word in ("false", "no")
        for spelling in (word, word.title(), word.upper())
    },
    "1": True,
    "0": False,
}
"""CSV has no booleans of its own: these are what programs write for them."""


class CsvRows:
    """Reads lines of CSV files of one header as rows of a source; see ``JsonRows`` for the values.

    Args:
        columns: what comes out, in this order.
        clock: the columns that time events.
        header: names of the cells of a line; a column whose origin is not among them is null.
    """

    def __init__(
        self, columns: Sequence[Column], clock: Collection[str], header: Sequence[str]
    ) -> None:
        self.columns = columns
        self.clock = clock
        self.header = header
        names = {name: i for i, name in enumerate(header)}
        self.places = [names.get(c.origin) for c in columns]
        self._converters = [cell_converter(c.type, is_clock=c.name in clock) for c in columns]

    @classmethod
    def of_files(cls, source: SourcePlan, header: Sequence[str]) -> "CsvRows":
        """Return the reader of the lines below a header."""
        return cls(source.columns, clock_columns(source), header)

    def read(self, line: bytes) -> Values:
        """Return the values of the columns.

        Raises:
            MalformedError: the line is no row of the header's.
            UnfitRow: a cell does not fit its column's type.
        """
        cells = split_line(line)
        if len(cells) != len(self.header):
            raise MalformedError(f"{len(cells)} cells, the header has {len(self.header)}")
        found = [None if i is None else cells[i] or None for i in self.places]
        return converted(self.columns, self._converters, found)


def split_line(line: bytes) -> list[str]:
    """Return the cells of a line, quotes removed, by RFC 4180.

    Raises:
        MalformedError: it is not UTF-8, or its quotes do not enclose whole cells.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"byte {error.start} is not UTF-8") from None
    if '"' not in text:
        return text.split(",")
    cells, at = [], 0
    while True:
        match = _CELL.match(text, at)
        if match is None:
            place = text.index('"', at)
            raise MalformedError(f"the quote at character {place} does not enclose a cell")
        quoted, plain, end = match.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        if not end:
            return cells
        at = match.end()


def cell_converter(type_: DataType, *, is_clock: bool = False) -> Convert:
    """Return the function from a cell that is not empty to what the column holds.

    It returns None for a cell of blanks alone, unless the column is text, and raises ``Misfit``
    where the cell does not fit.
    """
    if type_.kind == "string":
        return converter(type_)
    convert = clock_converter(type_, is_strict=True) if is_clock else converter(type_)
    spelled = _SPELLED.get(type_.kind, str)

    def convert_cell(cell: object) -> object:
        text = str(cell).strip(BLANKS)
        return convert(spelled(text)) if text else None

    return convert_cell


def _number(text: str) -> Number:
    if not is_number(text):
        raise Misfit
    return Number(text)


def _boolean(text: str) -> bool:
    found = BOOLEANS.get(text)
    if found is None:
        raise Misfit
    return found


def _numbers(text: str) -> list[Number]:
    if not (text.startswith("[") and text.endswith("]")):
        raise Misfit
    return [_number(part.strip(BLANKS)) for part in text[1:-1].split(",")]


def _time(text: str) -> str:
    return Number(text) if is_integer(text) else text


_SPELLED: dict[str, Callable[[str], object]] = {
    "int32": _number,
    "int64": _number,
    "float64": _number,
    "decimal": _number,
    "bool": _boolean,
    "timestamp": _time,
    "vector": _numbers,
}
