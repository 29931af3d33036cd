"""The grammar of values in CSV and JSON lines: what fits, what does not, and what is said of it."""

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from millrace.plan import Column
from millrace.rows.csv_rows import CsvRows
from millrace.rows.json_rows import JsonRows, UnfitRow
from millrace.rows.lines import read_csv_lines, read_json_lines
from millrace.types import INT64, STRING, TIMESTAMP, parse_type
from millrace.values.documents import MalformedError
from millrace.values.units import unit_hint

AT = datetime(2024, 3, 1, 10, tzinfo=UTC)
AT_MS = 1_709_287_200_000


def of_csv(type_: str, cell: str, *, is_clock: bool = False) -> object:
    """Read a cell both ways, and return what both say."""
    column = Column("c", parse_type(type_))
    reader = CsvRows([column, Column("z", STRING)], {"c"} if is_clock else set(), ["c", "z"])
    line = f"{cell},z".encode()
    rows = read_csv_lines(reader, pa.array([line, b",z"], pa.binary()))
    at_once = rows.detail[0].as_py() or rows.columns[0][0].as_py()
    try:
        alone: object = reader.read(line)[0]
    except UnfitRow as error:
        alone = str(error)
    if type_ == "timestamp" and isinstance(alone, int):
        assert int(at_once.timestamp() * 1000) == alone
    else:
        assert at_once == alone
    return at_once


@pytest.mark.parametrize(
    ("type_", "cell", "value"),
    [
        ("int64", "9007199254740993", 9007199254740993),
        ("int64", " 7\t", 7),
        ("int64", "-9223372036854775808", -(2**63)),
        ("int64", '""', None),
        ("int64", "  ", None),
        ("int32", "2147483647", 2**31 - 1),
        ("float64", "0.1", 0.1),
        ("float64", "1e-400", 0.0),
        ("float64", "123456789012345678901234567890", 123456789012345678901234567890.0),
        ("decimal(12,2)", "1.500", Decimal("1.50")),
        ("decimal(12,2)", "15e-1", Decimal("1.50")),
        ("decimal(2,2)", "0.5", Decimal("0.50")),
        ("bool", "TRUE", True),
        ("bool", "no", False),
        ("bool", "0", False),
        ("string", "NA", "NA"),
        ("string", " null ", " null "),
        ("string", '"say ""x"", then"', 'say "x", then'),
        ("string", "�", "�"),
        ("timestamp", "2024-03-01T10:00:00.0009Z", AT),
        ("timestamp", "2024-03-01 12:00+02:00", AT),
        ("timestamp", "1709287200000", AT),
        ("timestamp", "9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
        ("date", "0001-01-01", date(1, 1, 1)),
        ("bytes", "AP8=", b"\x00\xff"),
    ],
)
def test_cells_that_fit(type_: str, cell: str, value: object) -> None:
    assert of_csv(type_, cell) == value


@pytest.mark.parametrize(
    ("type_", "cell"),
    [
        *(
            (t, c)
            for t in ("int64", "float64", "decimal(12,2)")
            for c in ("NA", "nan", "null", "x")
        ),
        *((t, c) for t in ("int64", "float64") for c in ("007", "+7", "0x10", "1_000", "\u0661")),
        ("int64", "7.0"),
        ("int64", "1e2"),
        ("int64", "9223372036854775808"),
        ("int32", "2147483648"),
        ("float64", "1e400"),
        ("float64", ".5"),
        ("decimal(12,2)", "1.005"),
        ("decimal(12,2)", "12345678901"),
        ("bool", "t"),
        ("timestamp", "10:00:00"),
        ("timestamp", "2024-02-30"),
        ("timestamp", "10000-01-01"),
        ("timestamp", "0000-03-01T10:00:00Z"),
        ("date", "0000-03-01"),
        ("timestamp", "253402300800000"),
        ("timestamp", "1709287200.5"),
        ("date", "20240301"),
        ("date", "2024-03-01T00:00:00"),
        ("date", "19795"),
        ("bytes", "QQ"),
    ],
)
def test_cells_that_do_not_fit_are_told_with_their_column_and_type(type_: str, cell: str) -> None:
    told = of_csv(type_, cell)
    assert isinstance(told, str)
    assert told.startswith("column 'c': ")
    assert cell in told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (1709287200, "epoch seconds, 2024-03-01T10:00:00Z: multiply by 1000"),
        (19783, "epoch days, 2024-03-01T00:00:00Z: multiply by 86400000"),
        (20240301, "a date without hyphens: write 2024-03-01"),
        (20240301100000, "a date without hyphens: write 2024-03-01T10:00:00Z"),
        (AT_MS * 1_000, "epoch microseconds, 2024-03-01T10:00:00Z: divide by 1000"),
        (AT_MS * 1_000_000, "epoch nanoseconds, 2024-03-01T10:00:00Z: divide by 1000000"),
    ],
)
@pytest.mark.parametrize("type_", ["timestamp", "int64"])
def test_an_event_time_of_another_unit_names_it(number: int, told: str, type_: str) -> None:
    assert of_csv(type_, str(number), is_clock=True) == f"column 'c': {number} looks like {told}"
    reader = JsonRows([Column("c", parse_type(type_))], {"c"}, is_strict=True)
    with pytest.raises(UnfitRow, match=told):
        reader.read(f'{{"c":{number}}}'.encode())


@pytest.mark.parametrize("ms", [0, AT_MS, 10**11, -(10**11), 253_402_300_799_999])
def test_milliseconds_are_no_other_unit(ms: int) -> None:
    assert unit_hint(ms) == ""


COLUMNS = (Column("at", TIMESTAMP), Column("n", INT64), Column("s", STRING))


def faults(lines: Sequence[bytes]) -> list[tuple[str | None, str | None]]:
    reader = CsvRows(COLUMNS, {"at"}, ["s", "at", "n", "more"])
    rows = read_csv_lines(reader, pa.array(lines, pa.binary()))
    return list(zip(rows.reason.to_pylist(), rows.detail.to_pylist(), strict=True))


def test_a_line_that_is_no_row_costs_itself() -> None:
    good = b"a,2024-03-01,1,"
    bad = [
        b"a,2024-03-01,1",
        b"a,b,2024-03-01,1,",
        b'"a,2024-03-01,1,',
        b'a"b,2024-03-01,1,',
        b"\xff,,,",
    ]
    assert faults([good, *bad, good]) == [
        (None, None),
        ("malformed", "3 cells, the header has 4"),
        ("malformed", "5 cells, the header has 4"),
        ("malformed", "the quote at character 0 does not enclose a cell"),
        ("malformed", "the quote at character 1 does not enclose a cell"),
        ("malformed", "byte 0 is not UTF-8"),
        (None, None),
    ]


def test_a_row_that_does_not_fit_keeps_the_cells_that_do() -> None:
    reader = CsvRows(COLUMNS, {"at"}, ["more", "at", "n", "s"])
    rows = read_csv_lines(reader, pa.array([b",2024-03-01T10:00Z,x,y"], pa.binary()))
    assert [column.to_pylist() for column in rows.columns] == [[AT], [None], ["y"]]
    assert rows.detail.to_pylist() == ["column 'n': 'x' is no int64"]


def test_lines_of_json_have_the_verdicts_of_a_topic() -> None:
    lines = {
        b'{"at":0,"n":1}': None,
        b'{"at":0}{"at":0}': "malformed",
        b'{"at":0} x': "malformed",
        b'[{"at":0}]': "malformed",
        b'{"n":NaN}': "malformed",
        b"{'n':1}": "malformed",
        rb'{"s":"\ud800"}': "malformed",
        b'{"s":{}}': "schema",
        b'{"s":[]}': "schema",
        b'{"n":1.0}': "schema",
        b'{"n":"1"}': "schema",
    }
    reader = JsonRows(COLUMNS, {"at"}, is_strict=True)
    rows = read_json_lines(reader, COLUMNS, pa.array(list(lines), pa.binary()))
    assert rows.reason.to_pylist() == list(lines.values())


def test_a_broken_header_is_malformed_too() -> None:
    with pytest.raises(MalformedError, match="not UTF-8"):
        CsvRows(COLUMNS, set(), ["at"]).read(b"\xfe")


def test_workers_that_read_files_need_arrow_and_numpy_alone() -> None:
    """Those of a cluster of the user's are sent our code, and nothing that it would import."""
    code = "import sys, offline.raw.text, offline.raw.typed, millrace.rows.lines; "
    code += (
        "print(*sorted({'sqlglot', 'yaml', 'pyspark', 'deltalake', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
