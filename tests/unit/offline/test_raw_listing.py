"""Which raw files a path names: names on disk are literal, a declaration alone is a pattern."""

import gzip
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.calendar import day_number
from millrace.errors import DataError
from millrace.plan import BatchPlan, Column, SourcePlan
from millrace.types import INT64, STRING, TIMESTAMP
from offline.raw.files import RawFiles, blamed_days, find_raw_files
from offline.raw.listing import list_files
from offline.raw.parquet import portable_types, rows_of
from offline.raw.splits import Split
from offline.raw.text import text_rows_of
from resources.settings import CHECKOUT, Settings, settings_from_env
from tests.support.source_plans import source_plan

HEADER = "at,who,amount\n"
FIRST = date(2024, 3, 1)
DAY = day_number(FIRST)


def source(path: str, file_format: str = "csv", **changes: Any) -> SourcePlan:
    columns = (Column("at", TIMESTAMP), Column("who", STRING), Column("amount", INT64))
    return source_plan(**{"columns": columns, "batch": BatchPlan(file_format, path), **changes})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(settings_from_env({}), data=str(tmp_path / "[data]"))


@pytest.fixture
def folder(settings: Settings) -> Path:
    path = Path(settings.data or "")
    path.mkdir()
    return path


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEADER)


def names_of(settings: Settings, path: str) -> set[str]:
    found = list_files(source(path), settings).paths
    return {os.path.relpath(one, settings.data) for one in found}


def look(settings: Settings, path: str = "${MILLRACE_DATA}", **changes: Any) -> RawFiles:
    return find_raw_files(source(path, **changes), settings)


def errors_of(found: RawFiles) -> dict[str, str]:
    return {Path(file.path).name: file.error for file in found.files if file.error}


def test_a_name_on_disk_is_literal_and_a_declared_pattern_is_not(
    settings: Settings, folder: Path
) -> None:
    odd = {
        "e[1].csv",
        "e1.csv",
        "{a,b}.csv",
        "b\\.csv",
        "p*.csv",
        "10:00.csv",
        "l\n.csv",
        "%20 .csv",
    }
    write(folder, *odd)
    assert names_of(settings, "${MILLRACE_DATA}") == odd
    for name in odd:
        assert names_of(settings, f"${{MILLRACE_DATA}}/{name}") == {name}
    assert names_of(settings, "${MILLRACE_DATA}/e?.csv") == {"e1.csv"}


def test_endings_count_in_any_case_and_packed(settings: Settings, folder: Path) -> None:
    good = {"A.CSV", "b.txt.GZ", "c.csv.bz2", "d.csv.xz", "e.csv.zst"}
    write(folder, *good, "f.csv.zip", "g.xlsx", "_h.csv", "_SUCCESS", ".git/x.csv")
    listing = list_files(source("${MILLRACE_DATA}"), settings)
    assert {Path(p).name for p in listing.paths} == {*good, "f.csv.zip"}
    assert [*map(os.path.basename, listing.faults)] == ["f.csv.zip"]
    assert [os.path.basename(one) for one in listing.passed_over] == [
        "_h.csv (hidden)",
        "g.xlsx (no csv by its name)",
    ]


def test_links_are_followed_and_a_file_of_two_names_is_read_once(
    settings: Settings, folder: Path, tmp_path: Path
) -> None:
    write(folder, "a.csv")
    write(tmp_path / "elsewhere", "b.csv")
    (folder / "there").symlink_to(tmp_path / "elsewhere")
    (folder / "round").symlink_to(folder)
    (folder / "0.csv").symlink_to(folder / "a.csv")
    (folder / "gone.csv").symlink_to(folder / "nothing")
    listing = list_files(source("${MILLRACE_DATA}"), settings)
    assert names_of(settings, "${MILLRACE_DATA}") == {"a.csv", "there/b.csv", "gone.csv"}
    assert [*map(os.path.basename, listing.faults)] == ["gone.csv"]
    assert "0.csv (another name" in listing.passed_over[0]


@pytest.mark.parametrize(
    "path",
    [
        "${MILLRACE_DATA}/{date}.csv",
        "${MILLRACE_DATA}/*/day={date}",
        "${MILLRACE_DATA}/**/{date}.csv",
    ],
)
def test_a_declared_date_tells_the_days_of_a_file(
    settings: Settings, folder: Path, path: str
) -> None:
    write(
        folder, "2024-03-01.csv", "20240309.csv", "2024-02-31.csv", "x.csv", "a/day=20240301/y.csv"
    )
    found = look(settings, path)
    if not path.endswith("day={date}"):
        told = {Path(one.split(" (")[0]).name for one in found.passed_over}
        assert told >= {"2024-02-31.csv", "x.csv"}
    days = {Path(f.path).name: (f.day, f.days) for f in found.files}
    first = (DAY, (DAY - 2, DAY + 2))
    later = (DAY + 8, (DAY + 6, DAY + 10))
    if path.endswith("day={date}"):
        assert days == {"y.csv": first}
    else:
        assert days == {"2024-03-01.csv": first, "20240309.csv": later}


def test_a_name_alone_never_leaves_a_file_out(settings: Settings, folder: Path) -> None:
    write(folder, "a_20240630.csv", "ingest_date=2030-01-01/b.csv")
    assert all(file.may_hold(FIRST, FIRST) for file in look(settings).files)


def test_what_is_no_file_of_the_source_carries_its_error(settings: Settings, folder: Path) -> None:
    write(folder, "good.csv")
    (folder / "README.txt").write_text("How to read these files\n")
    (folder / "utf16.csv").write_bytes(HEADER.encode("utf-16"))
    (folder / "cut.csv.gz").write_bytes(gzip.compress(os.urandom(9999))[:99])
    (folder / "twice.csv").write_text("at,who,who\n")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "blank.csv").write_bytes(b"\xef\xbb\xbf\n\r\n")
    (folder / "ragged.csv").write_text('\n"at","who",more,amount\r\n1,2,3,4,5,6\n1\n')
    assert errors_of(look(settings)).keys() == {
        "README.txt",
        "utf16.csv",
        "cut.csv.gz",
        "twice.csv",
    }


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("${MILLRACE_DATA}/gone", "set MILLRACE_DATA, or correct the path"),
        ("raw/gone", f"correct the path: a relative one counts from {CHECKOUT}"),
        ("/nowhere/gone*", "correct the path"),
    ],
)
def test_a_path_of_nothing_says_what_decides_where_it_points(
    settings: Settings, path: str, fix: str
) -> None:
    with pytest.raises(DataError, match="gone") as nothing:
        look(settings, path)
    assert nothing.value.fix == fix


def test_columns_count_by_need(settings: Settings, folder: Path) -> None:
    (folder / "old.csv").write_text("at,who\n")
    found = look(settings)
    assert (errors_of(found), found.absent) == ({}, ("amount",))
    (folder / "old.csv").write_text("at,who,Amount\n")
    with pytest.raises(DataError, match=r"'amount' is missing from every file, and 'Amount'") as no:
        look(settings)
    assert no.value.fix == "write `from: Amount`, or correct the name"
    write(folder, "new.csv")
    found = look(settings)
    assert found.absent == ()
    assert errors_of(found) == {"old.csv": "column 'amount' is called 'Amount' here"}


def test_a_damaged_file_costs_the_days_that_no_other_may_hold(
    settings: Settings, folder: Path
) -> None:
    days = [FIRST, date(2024, 3, 2)]
    for name in ("zero.parquet", "2024-03-02.parquet"):
        (folder / name).write_bytes(b"")
    at = pa.array([DAY * 86_400_000_000], pa.timestamp("us"))
    pq.write_table(pa.table({"at": at}), folder / "good.parquet")
    files = {Path(f.path).name: f for f in look(settings, file_format="parquet").files}
    good = [files["good.parquet"]]
    assert blamed_days(files["2024-03-02.parquet"], good, days) == (days[1],)
    assert blamed_days(files["zero.parquet"], good, days) == (days[1],)
    undated = [replace(good[0], days=None)]
    assert blamed_days(files["zero.parquet"], undated, days) == ()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "date", "int64"])
def test_statistics_of_any_unit_tell_the_days(settings: Settings, folder: Path, unit: str) -> None:
    per_day = {"s": 86_400, "us": 86_400_000_000, "ns": 86_400_000_000_000, "date": 1}
    per = per_day.get(unit, 86_400_000)
    kinds = {"date": pa.date32(), "int64": pa.int64()}
    kind = kinds.get(unit) or pa.timestamp(unit)
    at = pa.array([DAY * per, DAY * per + per], pa.int32() if unit == "date" else pa.int64())
    pq.write_table(pa.table({"at": at.cast(kind)}), folder / "x.parquet")
    [file] = look(settings, file_format="parquet").files
    assert file.days == (DAY, DAY + 1)


def test_far_statistics_end_nothing_and_prune_nothing(settings: Settings, folder: Path) -> None:
    far = pa.array([2**62, DAY * 86_400_000])
    pq.write_table(pa.table({"at": pa.array([DAY * 86_400])}), folder / "seconds.parquet")
    pq.write_table(pa.table({"at": far}), folder / "ns.parquet")
    pq.write_table(pa.table({"at": far.cast(pa.timestamp("us"))}), folder / "far.parquet")
    pq.write_table(pa.table({"at": far.slice(0, 0)}), folder / "none.parquet")
    found = look(settings, file_format="parquet")
    assert {Path(f.path).name: f.days for f in found.files} == {
        "ns.parquet": None,
        "seconds.parquet": None,
        "far.parquet": None,
        "none.parquet": (0, -1),
    }


def test_a_parquet_is_looked_at_by_the_declared_columns(settings: Settings, folder: Path) -> None:
    """What is not declared may have any type and any name, a struct's member has its path."""
    at = pa.array([DAY * 86_400_000])
    odd = {"At": at, "a`b": at, "t": pa.array([1], pa.time64("ns")), "l": pa.array([[1]])}
    inner = pa.array([{"who": "x", "n": 1}])
    pq.write_table(pa.table({**odd, "in": inner, "in.n": at, "at": at}), folder / "x.parquet")
    columns = (
        Column("at", TIMESTAMP),
        Column("who", STRING, "in.who"),
        Column("amount", INT64, "in.n"),
    )
    [file] = look(settings, file_format="parquet", columns=columns).files
    assert (file.error, file.days) == (None, (DAY, DAY))
    assert file.columns is not None
    assert (file.columns["in.who"], file.columns["in.n"]) == ("string", "int64")
    pq.write_table(pa.table({"who": ["x"]}), folder / "x.parquet")
    assert "column 'at' is missing" in errors_of(look(settings, file_format="parquet"))["x.parquet"]


def test_extensions_of_arrow_are_what_lies_in_the_file(settings: Settings, folder: Path) -> None:
    """They may hold several columns of Parquet, which the ones behind are numbered after."""
    pair = pa.array([{"a": 1, "b": 2}])
    table = {
        "opaque": pa.ExtensionArray.from_storage(pa.opaque(pair.type, "t", "v"), pair),
        "who": pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(['{"x":1}'])),
        "amount": pa.array([7]),
        "at": pa.array([DAY * 86_400_000]),
    }
    pq.write_table(pa.table(table), folder / "x.parquet")
    plan = source("${MILLRACE_DATA}", "parquet")
    [file] = find_raw_files(plan, settings).files
    assert (file.error, file.days) == (None, (DAY, DAY))
    wanted = portable_types(plan, file.columns or {})
    [batch] = rows_of(wanted, Split(file.path, 0, 1, 0))
    [row] = batch.select(["who", "amount"]).to_pylist()
    assert row == {"who": '{"x":1}', "amount": 7}


def test_each_part_of_a_csv_is_read_by_the_header_that_was_looked_at(
    settings: Settings, folder: Path
) -> None:
    lines = [f'2024-03-01T00:00:0{n}Z,"n,{n}",{n}' for n in range(6)]
    text = '\ufeff\n\n"at",who,"amount"\r\n' + "\n".join(lines)
    (folder / "a.csv").write_text(text, encoding="utf-8")
    (folder / "b.csv").write_text("amount,at\n7,2024-03-01\n", encoding="utf-8")
    plan = source("${MILLRACE_DATA}")
    files = find_raw_files(plan, settings).files
    headers = {file.path: file.header for file in files}
    assert list(headers.values()) == [("at", "who", "amount"), ("amount", "at")]
    size = files[0].size_bytes
    splits = [Split(files[0].path, *edges, 0) for edges in ((0, 60), (60, 61), (61, size))]
    batches = [
        b for s in (*splits, Split(files[1].path, 0, -1, 0)) for b in text_rows_of(plan, headers, s)
    ]
    found = [(row["who"], row["amount"]) for batch in batches for row in batch.to_pylist()]
    assert found == [*((f"n,{n}", n) for n in range(6)), (None, 7)]
