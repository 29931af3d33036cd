"""One grammar of values: generated cells, held equal in every reader of files, topics and spines.

What Flink makes of the same records is in ``test_verdicts_agree``. Differences that docs/values.md
names are marked on the cells; there is no other.
"""

import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.errors import DataError
from millrace.plan import BatchPlan, Column, EntityPlan, SourcePlan
from millrace.types import KINDS, parse_type
from millrace.values.arrow import array_of
from millrace.values.scalars import Misfit, Number, converter
from offline.raw.columns import FAULT, PAYLOAD
from offline.raw.files import find_raw_files
from offline.raw.rows import read_rows
from offline.training.spine import read_spine
from resources.settings import Settings
from streaming.archive.classification import Classifier
from streaming.produce.event_files import read_events
from tests.support.archive_cases import payments
from tests.support.value_cells import COLUMNS, Cell, cells

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

CELLS = 6_000
REFUSED = 60
AT_MS = 1_709_251_200_000

Found = list[tuple[bool, Any]]
"""Of each cell whether it fits, and its value."""


def source(batch_format: str, path: Path) -> SourcePlan:
    columns = tuple(
        Column(name, parse_type(text)) for name, text in {"at": "timestamp", **COLUMNS}.items()
    )
    files = BatchPlan(batch_format, str(path))
    return payments("s", columns=columns, event_id=None, batch=files, allowed_lateness_ms=2**62)


def by_backfill(
    spark: "SparkSession", settings: Settings, plan: SourcePlan, key: Callable[[Any], bytes]
) -> dict[bytes, dict[str, Any]]:
    """Return the rows that a backfill reads, by what they stood as in their file."""
    rows = read_rows(spark, plan, find_raw_files(plan, settings).files).drop("_arrival").toArrow()
    return {key(row): row for row in rows.to_pylist()}


def of_cells(rows: dict[bytes, dict[str, Any]], lines: list[bytes], found: list[Cell]) -> Found:
    return [
        (rows[line][FAULT] is None, rows[line][cell.column])
        for line, cell in zip(lines, found, strict=True)
    ]


def by_archive(plan: SourcePlan, found: list[Cell]) -> Found:
    classifier, names = Classifier(plan), [c.name for c in plan.columns]
    told: Found = []
    for cell in found:
        verdict = classifier.classify(cell.json_line.encode(), AT_MS)
        value = None
        if verdict.reason is None:
            place = names.index(cell.column)
            value = array_of([verdict.values[place]], plan.columns[place].type)[0].as_py()
        told.append((verdict.reason is None, value))
    return told


def by_produce(
    plan: SourcePlan, path: Path, header: str, lines: list[str], found: list[Cell], wanted: Found
) -> int:
    """Hold ``produce`` to what a backfill makes of a file; return how many cells were compared."""
    good = [i for i, (fits, _) in enumerate(wanted) if fits]
    path.write_text(header + "".join(lines[i] + "\n" for i in good), encoding="utf-8")
    sent = read_events(path, plan).table
    for row, i in zip(sent.to_pylist(), good, strict=True):
        assert row[found[i].column] == wanted[i][1], found[i]
    bad = [i for i, (fits, _) in enumerate(wanted) if not fits][:REFUSED]
    for i in bad:
        path.write_text(header + lines[i] + "\n", encoding="utf-8")
        with pytest.raises(DataError):
            read_events(path, plan)
    return len(good) + len(bad)


def by_spine(path: Path, plan: SourcePlan, found: list[Cell], wanted: Found) -> int:
    """Hold the keys of spines to what a backfill makes of a file."""
    compared = 0
    for column in plan.columns[1:]:
        if column.type.kind not in KINDS:
            continue  # no entity has such a key
        entity = EntityPlan("e", column.name, column.type)
        mine = [i for i, cell in enumerate(found) if cell.column == column.name]
        good = [i for i in mine if wanted[i][0]]
        header = ",".join(["event_timestamp", *COLUMNS])
        lines = [found[i].csv_line for i in good]
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        keys = read_spine(path).keys([entity])[column.name].to_pylist()
        assert keys == [wanted[i][1] for i in good], column.name
        # An integer may be written as any whole number there.
        bad = [i for i in mine if not wanted[i][0] and not _is_whole(column, found[i])][:20]
        for i in bad:
            path.write_text("\n".join([header, found[i].csv_line]) + "\n", encoding="utf-8")
            with pytest.raises(DataError):
                read_spine(path).keys([entity])
        compared += len(good) + len(bad)
    return compared


def _is_whole(column: Column, cell: Cell) -> bool:
    try:
        number = Decimal(cell.text)
    except ArithmeticError:
        return False
    return column.type.is_integer and number.adjusted() < 20 and number == number.to_integral()


def test_every_reader_makes_the_same_of_each_cell(
    spark: "SparkSession", settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(dict.fromkeys(cells(CELLS, Random(7))))
    csv_lines = [cell.csv_line for cell in found]
    json_lines = [cell.json_line for cell in found]
    header = ",".join(["at", *COLUMNS])
    csv_file, json_file = tmp_path / "cells.csv", tmp_path / "cells.json"
    csv_file.write_text("\n".join([header, *csv_lines]) + "\n", encoding="utf-8")
    json_file.write_text("\n".join(json_lines) + "\n", encoding="utf-8")
    csv_plan, json_plan = source("csv", csv_file), source("json", json_file)

    def line(row: dict[str, Any]) -> bytes:
        return bytes(row[PAYLOAD])

    csv_rows = by_backfill(spark, settings, csv_plan, line)
    json_rows = by_backfill(spark, settings, json_plan, line)
    by_csv = of_cells(csv_rows, [text.encode() for text in csv_lines], found)
    by_json = of_cells(json_rows, [text.encode() for text in json_lines], found)
    archived = by_archive(json_plan, found)
    for cell, one, other, topic in zip(found, by_csv, by_json, archived, strict=True):
        assert other == topic, cell
        assert one == other or (cell.differs and one[0]), cell
    fits = sum(fits for fits, _ in by_json)
    assert len(found) / 4 < fits < len(found) * 3 / 4
    compared = {
        "CSV and JSON": len(found),
        "JSON and topic": len(found),
        "CSV and produce": by_produce(
            csv_plan, tmp_path / "sent.csv", header + "\n", csv_lines, found, by_csv
        ),
        "JSON and produce": by_produce(
            json_plan, tmp_path / "sent.json", "", json_lines, found, by_json
        ),
        "CSV and spine": by_spine(tmp_path / "spine.csv", csv_plan, found, by_csv),
    }
    with capsys.disabled():
        told = ", ".join(f"{pair} {n}" for pair, n in compared.items())
        sys.stdout.write(f"\ncells compared: {told}\n")


def doubles(rng: Random) -> list[float]:
    """Return doubles as dataframes have them: whole ones, money, sums of it, and the far ends."""
    found = [
        0.0,
        -0.0,
        1.0,
        1.5,
        1.1,
        1.005,
        0.1 + 0.2,
        2.0**31,
        2.0**53,
        2.0**53 + 2,
        1e300,
        -1e-300,
    ]
    found += [rng.randint(-(10**6), 10**6) / 100 for _ in range(500)]
    found += [float(rng.randint(-(10**15), 10**15)) for _ in range(200)]
    found += [rng.uniform(-1e9, 1e9) for _ in range(200)]
    return found


def as_text(value: float, type_: str) -> Number:
    """Return the text a double is taken for.

    That is its shortest; of a whole one up to 2^53 for an integer, the integer; for a decimal that of
    its first 15 digits, for behind them lies what arithmetic in binary left.
    """
    if type_.startswith("decimal") and abs(value) < 10**12:
        return Number(f"{value:.15g}")
    is_whole = value.is_integer() and abs(value) <= 2**53 and type_.startswith("int")
    return Number(int(value) if is_whole else repr(value))


def test_typed_columns_become_what_their_text_would(
    spark: "SparkSession", settings: Settings, tmp_path: Path
) -> None:
    """In a backfill of Parquet and in ``produce``, by the grammar of numbers in JSON."""
    values = doubles(Random(7))
    types = [t for t in COLUMNS.values() if t[:3] in {"int", "dec"} or t == "float64"]
    columns = (
        Column("at", parse_type("timestamp")),
        *(Column(_name(t), parse_type(t)) for t in types),
    )
    path = tmp_path / "typed.parquet"
    at = pa.array([AT_MS * 1_000_000 + 1_999_999] * len(values), pa.timestamp("ns"))
    rows, wanted = [], []
    for i, value in enumerate(values):
        for type_ in types:
            rows.append((i, _name(type_), value))
            try:
                wanted.append(converter(parse_type(type_))(as_text(value, type_)))
            except Misfit:
                wanted.append(None)
    table = {
        c.name: pa.array([v if n == c.name else None for _, n, v in rows], pa.float64())
        for c in columns[1:]
    }
    times = pa.array([at[0].value] * len(rows), pa.timestamp("ns"))
    pq.write_table(pa.table({"at": times, **table}), path)
    plan = payments("s", columns=columns, event_id=None, batch=BatchPlan("parquet", str(path)))
    read = (
        read_rows(spark, plan, find_raw_files(plan, settings).files)
        .orderBy("_arrival")
        .drop("_arrival")
    )
    found = read.toArrow().to_pylist()
    for (_, name, value), row, expected in zip(rows, found, wanted, strict=True):
        assert row[name] == expected, (name, value)
        assert (row[FAULT] is None) == (expected is not None), (name, value)
        assert row["at"].timestamp() == (AT_MS + 1) / 1000
    good = [i for i, expected in enumerate(wanted) if expected is not None]
    pq.write_table(pq.read_table(path).take(good), path)
    sent = read_events(path, plan).table.to_pylist()
    assert [row[rows[i][1]] for row, i in zip(sent, good, strict=True)] == [wanted[i] for i in good]


def _name(type_: str) -> str:
    return next(name for name, text in COLUMNS.items() if text == type_)
