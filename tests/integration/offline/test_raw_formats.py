"""Raw files of every format, at every kind of place, on real Spark: always the same events."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from millrace.days import Days
from millrace.errors import DataError, PlatformError
from millrace.plan import BatchPlan, Column, SourcePlan
from millrace.types import BOOL, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMP, decimal
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

pytestmark = pytest.mark.services

FIRST, COUNT = date(2024, 3, 1), 3
FORMATS = ("parquet", "csv", "json", "delta")
COLUMNS = (
    Column("id", INT64),
    Column("at", TIMESTAMP),
    Column("who", STRING),
    Column("amount", decimal(12, 2)),
    Column("score", FLOAT64),
    Column("size", INT32),
    Column("is_new", BOOL),
    Column("due", DATE),
)

Write = Callable[[pa.Table, Path], None]


def events(day: int) -> pa.Table:
    """A day of events, with what formats differ in: quotes, commas, backslashes and null."""
    midnight = datetime(2024, 3, 1, tzinfo=UTC) + timedelta(days=day)
    names = ["a,b", 'say "x"', "Zoë ☂", "c:\\", "-1", "null", " padded ", None]
    rows = [
        {
            "id": day * 100 + i,
            "at": midnight + timedelta(hours=i, milliseconds=i),
            "who": who,
            "amount": None if i == 2 else Decimal(i * 1_000_003) / 100,
            "score": None if i == 3 else i / 7,
            "size": -i,
            "is_new": None if i == 4 else i % 2 == 0,
            "due": None if i == 5 else FIRST - timedelta(days=i),
        }
        for i, who in enumerate(names)
    ]
    types = {
        "id": pa.int64(),
        "at": pa.timestamp("ms", "UTC"),
        "who": pa.string(),
        "amount": pa.decimal128(12, 2),
        "score": pa.float64(),
        "size": pa.int32(),
        "is_new": pa.bool_(),
        "due": pa.date32(),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def write_json(table: pa.Table, path: Path) -> None:
    lines = [json.dumps(row, default=_text) + "\n" for row in table.to_pylist()]
    path.write_text("".join(lines))


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value.isoformat()


def write_delta(table: pa.Table, path: Path) -> None:
    write_deltalake(str(path), table, mode="append")


WRITE: dict[str, Write] = {
    "parquet": pq.write_table,
    "csv": pc.write_csv,
    "json": write_json,
    "delta": write_delta,
}


def source(batch_format: str, path: Path | str) -> SourcePlan:
    files = BatchPlan(batch_format, str(path))
    return source_plan(COLUMNS, name="visits", event_id="id", batch=files)


def build(settings: Settings, plan: SourcePlan) -> BuildReport:
    days = Days(FIRST, FIRST + timedelta(days=COUNT))
    return LakeBuilds(settings).build_events(plan, (), days, progress=lambda _: None)


def rows_of(settings: Settings) -> list[dict[str, Any]]:
    table = DeltaTable(f"{settings.lake}/events/visits").to_pyarrow_table()
    names = [column.name for column in COLUMNS]
    return sorted(table.select(names).to_pylist(), key=lambda row: row["id"])


def wanted(*days: int) -> list[dict[str, Any]]:
    return [row for day in days for row in events(day).to_pylist()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


@pytest.mark.parametrize("place", ["file or table", "URL"])
@pytest.mark.parametrize("batch_format", FORMATS)
def test_one_file_or_table(settings: Settings, folder: Path, batch_format: str, place: str) -> None:
    path = folder / f"visits.{batch_format}"
    WRITE[batch_format](pa.concat_tables(map(events, range(COUNT))), path)
    report = build(settings, source(batch_format, path.as_uri() if place == "URL" else path))
    assert report.failed == ()
    assert rows_of(settings) == wanted(*range(COUNT))


def test_a_variable_may_hold_a_url(settings: Settings, folder: Path) -> None:
    pq.write_table(events(0), folder / "visits.parquet")
    there = replace(settings, data=folder.as_uri())
    assert build(there, source("parquet", "${MILLRACE_DATA}/visits.*")).failed == ()
    assert rows_of(settings) == wanted(0)


@pytest.mark.parametrize("place", ["folder", "URL", "pattern"])
@pytest.mark.parametrize("batch_format", ["parquet", "csv", "json"])
def test_many_files(settings: Settings, folder: Path, batch_format: str, place: str) -> None:
    """Of a pattern only what matches is read."""
    days = range(COUNT)
    for day in days:
        WRITE[batch_format](events(day), folder / f"visits-{day}.{batch_format}")
    places: dict[str, Path | str] = {
        "folder": folder,
        "URL": folder.as_uri(),
        "pattern": folder / f"visits-[01].{batch_format}",
    }
    assert build(settings, source(batch_format, places[place])).failed == ()
    assert rows_of(settings) == wanted(*(days[:2] if place == "pattern" else days))


@pytest.mark.parametrize("batch_format", ["csv", "json"])
def test_compressed_files(settings: Settings, folder: Path, batch_format: str) -> None:
    plain = folder / "plain"
    WRITE[batch_format](events(0), plain)
    (folder / f"visits.{batch_format}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert build(settings, source(batch_format, folder)).failed == ()
    assert rows_of(settings) == wanted(0)


@pytest.mark.parametrize("place", ["file or table", "URL"])
@pytest.mark.parametrize("batch_format", ["parquet", "csv", "delta"])
def test_a_column_that_is_not_there_is_named(
    settings: Settings, folder: Path, batch_format: str, place: str
) -> None:
    path = folder / f"visits.{batch_format}"
    table = events(0)
    renamed = table.rename_columns(["scores" if n == "score" else n for n in table.column_names])
    WRITE[batch_format](renamed, path)
    plan = source(batch_format, path.as_uri() if place == "URL" else path)
    try:
        told = " ".join(str(one.error) for one in build(settings, plan).failed)
    except PlatformError as error:
        told = str(error)
    assert "column 'score' is missing" in told
    assert "'scores'" in told


def test_csv_as_others_write_it(settings: Settings, folder: Path) -> None:
    """With a byte order mark, Windows' line ends, another order, more columns, or no rows at all."""
    pc.write_csv(events(0), folder / "visits.csv")
    windows = (folder / "visits.csv").read_bytes().replace(b"\n", b"\r\n")
    (folder / "visits.csv").write_bytes(b"\xef\xbb\xbf" + windows)
    names = [column.name for column in COLUMNS]
    turned = events(1).select(names[::-1]).append_column("more", pa.array(range(8)))
    pc.write_csv(turned, folder / "turned.csv")
    pc.write_csv(events(2).slice(0, 0), folder / "header.csv")
    (folder / "nothing.csv").write_bytes(b"")
    assert build(settings, source("csv", folder)).failed == ()
    assert rows_of(settings) == wanted(0, 1)


@pytest.mark.parametrize("batch_format", ["csv", "json"])
def test_rows_that_are_no_utf_8_are_dead_letters(
    settings: Settings, folder: Path, batch_format: str
) -> None:
    path = folder / f"visits.{batch_format}"
    who = pa.array(["Zo?", *events(0)["who"].to_pylist()[1:]])
    WRITE[batch_format](events(0).set_column(2, "who", who), path)
    path.write_bytes(path.read_bytes().replace(b"Zo?", b"Zo\xeb"))
    assert build(settings, source(batch_format, folder)).failed == ()
    assert rows_of(settings) == wanted(0)[1:]


def test_an_empty_cell_of_csv_is_null_quoted_or_not(settings: Settings, folder: Path) -> None:
    cells = ",".join(column.name for column in COLUMNS)
    lines = [cells, '"1","2024-03-01","","","","","",""', "2,2024-03-01,,,,,,"]
    (folder / "visits.csv").write_text("\n".join(lines))
    build(settings, source("csv", folder))
    assert [[*row.values()][2:] for row in rows_of(settings)] == [[None] * 6] * 2


def test_a_value_of_two_lines_is_two_dead_letters_and_costs_its_neighbours_nothing(
    settings: Settings, folder: Path
) -> None:
    table = events(0)
    who = pa.array(["two\nlines", *table["who"].to_pylist()[1:]])
    pc.write_csv(table.set_column(2, "who", who), folder / "visits.csv")
    [first, *_] = build(settings, source("csv", folder)).outcomes
    assert first.rows == 7
    assert rows_of(settings) == wanted(0)[1:]
    dead_letters = DeltaTable(f"{settings.lake}/dead_letters/visits").to_pyarrow_table()
    assert dead_letters["reason"].to_pylist() == ["malformed"] * 2
    assert sorted(dead_letters["payload"].to_pylist())[1].startswith(b'lines"')


@pytest.mark.parametrize("place", ["a file", "a folder", "URL", "pattern", "table"])
def test_dead_letters_without_a_day_are_replaced_with_the_files_they_came_from(
    settings: Settings, folder: Path, place: str
) -> None:
    """An event without a time belongs to no day, only to its file; that may have any name."""
    batch_format = "delta" if place == "table" else "json"
    path = folder / "100% of _a 'day'.json"
    WRITE[batch_format](events(0).set_column(1, "at", pa.nulls(8, pa.timestamp("ms", "UTC"))), path)
    places: dict[str, Path | str] = {
        "a folder": folder,
        "URL": folder.as_uri(),
        "pattern": str(folder / "*day*"),
    }
    plan = source(batch_format, places.get(place, path))
    for _ in range(2):
        assert build(settings, plan).failed == ()
        dead_letters = DeltaTable(f"{settings.lake}/dead_letters/visits").to_pyarrow_table()
        assert dead_letters.num_rows == 8


def test_a_pattern_that_matches_nothing_says_so(settings: Settings, folder: Path) -> None:
    with pytest.raises(DataError, match=r"matches no csv file"):
        build(settings, source("csv", folder / "visits-*.csv"))
