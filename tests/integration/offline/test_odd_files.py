"""Folders as people have them, built on real Spark: what is good is built, the rest is named."""

import gzip
import os
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.errors import DataError
from millrace.names import events_table
from millrace.plan import BatchPlan, Column, SourcePlan
from millrace.types import BYTES, FLOAT64, INT64, STRING, TIMESTAMP, decimal
from offline.tables.partition_log import read_partition_log
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 1)
DAYS = Days(FIRST, FIRST + timedelta(days=3))


def source(file_format: str, path: str, *more: Column) -> SourcePlan:
    columns = (Column("at", TIMESTAMP), Column("who", STRING), *more)
    return source_plan(columns, batch=BatchPlan(file_format, path))


def build(settings: Settings, plan: SourcePlan) -> BuildReport:
    return LakeBuilds(settings).build_events(plan, (), DAYS, progress=lambda _: None)


def rows_of(settings: Settings) -> dict[str, dict[str, Any]]:
    table = DeltaTable(f"{settings.lake}/events/s").to_pyarrow_table().to_pylist()
    assert len({row["who"] for row in table}) == len(table)
    return {row["who"]: row for row in table}


def dead_letters_of(settings: Settings) -> list[tuple[str, str]]:
    table = DeltaTable(f"{settings.lake}/dead_letters/s").to_pyarrow_table().to_pylist()
    return sorted((row["reason"], os.path.basename(row["origin"])) for row in table)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path


def test_every_good_row_of_a_folder_is_built_and_every_bad_file_named(
    settings: Settings, folder: Path
) -> None:
    """Each file has one event of its first day, by its own name; names are nothing but names."""
    names = ["e[1].csv", "e1.csv", "{a}.csv", "b\\.csv", "p*.csv", "p2.csv", "T00:00:00Z.csv"]
    names += ["[2]:x.csv", "%20 .csv", "a_20240630.csv", "b_20240630.CSV.GZ", "day=20300101/c.csv"]
    for name in names:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        text = f"at,who\n{FIRST}T10:00:00Z,{name}\n".encode()
        path.write_bytes(gzip.compress(text) if name.lower().endswith(".gz") else text)
    (folder / "README.txt").write_text("Read me\n")
    (folder / "x.csv.zip").write_bytes(b"PK")
    lines = b"".join(f"{FIRST},{i}\n".encode() for i in range(200_000))
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"at,who\n" + lines)[:-50_000])
    (folder / "notes.xlsx").write_bytes(b"")

    report = build(settings, source("csv", str(folder)))
    assert report.failed == ()
    assert rows_of(settings).keys() == {*names}
    bad = [("unreadable", name) for name in ("README.txt", "cut.csv.gz", "x.csv.zip")]
    assert dead_letters_of(settings) == bad
    assert report.files is not None
    assert {os.path.basename(path) for path in report.files.unreadable} == {name for _, name in bad}
    assert [*map(os.path.basename, report.files.passed_over)] == ["notes.xlsx (no csv by its name)"]

    (folder / "cut.csv.gz").write_bytes(gzip.compress(f"at,who\n{FIRST},healed\n".encode()))
    (folder / "README.txt").unlink()
    assert build(settings, source("csv", str(folder))).failed == ()
    assert rows_of(settings).keys() == {*names, "healed"}
    assert dead_letters_of(settings) == bad[2:]


def test_rows_in_a_file_of_another_day_are_dead_letters_of_the_file(
    settings: Settings, folder: Path
) -> None:
    """Files of declared days that lie elsewhere are not opened: this one would not be readable."""
    text = f"at,who\n{FIRST},own\n2024-02-29,before\n2024-03-20,stray\n"
    (folder / "2024-03-01.csv").write_text(text)
    (folder / "20240320.csv").write_text("at,who\n2024-03-20,later\n")
    report = build(settings, source("csv", f"{folder}/{{date}}.csv"))
    assert rows_of(settings).keys() == {"own"}
    assert dead_letters_of(settings) == [("schema", "2024-03-01.csv")]
    assert report.files is not None
    assert (report.files.read, report.files.of_other_days) == (1, 1)


def test_a_build_without_a_readable_file_fails_by_name_and_leaves_its_days_in_the_log(
    settings: Settings, folder: Path
) -> None:
    (folder / "zero.parquet").write_bytes(b"")
    failed = build(settings, source("parquet", str(folder))).failed
    assert {(o.day, "zero.parquet" in (o.error or "")) for o in failed} == {(d, True) for d in DAYS}
    assert dead_letters_of(settings) == [("unreadable", "zero.parquet")]
    with pytest.raises(DataError, match="does not exist"):
        build(settings, source("parquet", f"{folder}/gone.parquet"))
    log = read_partition_log(settings, events_table("s"))
    assert {day: "does not exist" in (state.error or "") for day, state in log.items()} == (
        dict.fromkeys(DAYS, True)
    )


def test_parquet_as_anybody_writes_it(settings: Settings, folder: Path) -> None:
    """Each file holds one event, at 10:00:00.000999999 where it can say so, with amount 1."""
    stamp = 1_709_287_200_000_999_999
    ns = pa.array([stamp], pa.timestamp("ns"))
    us = pa.array([stamp // 1_000], pa.timestamp("us", "Europe/Berlin"))
    one = pa.array([1])
    instants: dict[str, pa.Array] = {
        "ns": ns,
        "us": us,
        "s": pa.array([stamp // 10**9], pa.timestamp("s")),
        "ms": pa.array([stamp // 10**6]),
    }
    amounts: dict[str, pa.Array] = {
        "uint64": one.cast(pa.uint64()),
        "half": one.cast(pa.float16()),
        "decimal256": pa.array([Decimal(1)], pa.decimal256(50, 2)),
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0]), one),
        "null": pa.nulls(1),
    }
    undeclared = {
        "At": us,
        "a`b.c": one,
        "t": pa.array([1], pa.time64("ns")),
        "half": one.cast(pa.float16()),
        "wide": pa.array([Decimal(1)], pa.decimal256(60, 2)),
        "list": pa.array([[{"a": 1}]]),
    }
    first, options = instants["us"], {"brotli": "brotli", "lz4": "lz4", "zstd": "zstd"}
    files = {name: (pa.table({"at": at, "amount": one}), "snappy") for name, at in instants.items()}
    files |= {n: (pa.table({"at": first, "amount": a}), "snappy") for n, a in amounts.items()}
    files |= {n: (pa.table({"at": first, "amount": one}), c) for n, c in options.items()}
    files["undeclared"] = (pa.table({**undeclared, "at": first, "amount": one}), "snappy")
    files["old"] = (pa.table({"at": first}), "snappy")
    inner = pa.array([{"note": b"in", "score": 0.5}])
    files["nested"] = (pa.table({"in": inner, "at": first, "amount": one}), "snappy")
    for name, (table, codec) in files.items():
        who = pa.array([name]).dictionary_encode() if name == "ms" else pa.array([name])
        pq.write_table(
            table.append_column("who", who), folder / f"{name}.parquet", compression=codec
        )
    far = pa.table({"at": pa.array([2**62, -(2**62)]), "who": ["far", "before"]})
    pq.write_table(far, folder / "far.parquet")
    # Its footer does not tell its day, which would fail with it.
    wrong = pa.table({"at": us, "who": [[1]]})
    pq.write_table(wrong, folder / "wrong.parquet", write_statistics=False)
    pq.write_table(
        pa.table({"at": ns, "who": ["int96"], "amount": one}),
        folder / "int96.parquet",
        use_deprecated_int96_timestamps=True,
    )

    more = (
        Column("amount", decimal(12, 2)),
        Column("note", BYTES, "in.note"),
        Column("score", FLOAT64, "in.score"),
    )
    report = build(settings, source("parquet", str(folder), *more))
    rows = rows_of(settings)
    assert report.failed == ()
    assert rows.keys() == {*files, "int96"}
    assert {row["_event_ms"] for row in rows.values()} == {stamp // 10**6}
    assert {n: row["amount"] for n, row in rows.items() if row["amount"] != 1} == {
        "old": None,
        "null": None,
    }
    assert (rows["nested"]["note"], rows["nested"]["score"]) == (b"in", 0.5)
    dead_letters = [("schema", "far.parquet")] * 2 + [("unreadable", "wrong.parquet")]
    assert dead_letters_of(settings) == dead_letters


def test_a_delta_table_with_partitions_and_structs(settings: Settings, folder: Path) -> None:
    from deltalake import write_deltalake

    at = pa.array([1_709_287_200_000_000] * 2, pa.timestamp("us", "UTC"))
    inner = pa.array([{"Amount": 1}, {"Amount": 2}])
    table = pa.table({"at": at, "WHO": ["a", "b"], "in": inner})
    path = str(folder / "t x")
    write_deltalake(path, table, partition_by=["WHO"])
    columns = (Column("at", TIMESTAMP), Column("who", STRING, "WHO"))
    plan = source("delta", path, Column("amount", INT64, "in.Amount"))
    renamed = replace(plan, columns=(*columns, plan.columns[-1]))
    assert build(settings, renamed).failed == ()
    assert {who: row["amount"] for who, row in rows_of(settings).items()} == {"a": 1, "b": 2}
