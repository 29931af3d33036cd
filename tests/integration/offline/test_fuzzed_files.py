"""Folders of files as random as they come, through the real build: nothing lost, nothing added.

Every file says of itself what is to come of it. Each good row must be built, each bad one and each
unreadable file be a dead letter of its file, whatever lies beside them. ``MILLRACE_TEST_MINUTES``
makes it go on for so long with ever new seeds.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.errors import PlatformError
from millrace.plan import BatchPlan, Column, SourcePlan
from millrace.types import BOOL, DATE, FLOAT64, INT64, STRING, TIMESTAMP, decimal
from resources.settings import Settings
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

pytestmark = [pytest.mark.services, pytest.mark.soak]

FIRST = date(2024, 3, 1)
DAYS = Days(FIRST, FIRST + timedelta(days=3))
DAMAGED_DAY = 2
"""The day of files whose pages are damaged behind a healthy footer: it may fail, the others not."""

MIDNIGHT_MS = int(datetime(2024, 3, 1, tzinfo=UTC).timestamp()) * 1000
OPTIONAL = ("n", "price", "score", "flag", "due")
NAMES = (
    "e[1]",
    "{a,b}",
    "b\\s",
    "p*",
    "q?",
    "00:00:00Z",
    "%20",
    " x ",
    "l\nf",
    "ü☂",
    "2031-01-01",
    "#",
)
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".BZ2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


@dataclass
class Expected:
    """What is to come of a folder."""

    good: set[str] = field(default_factory=set)
    dead_letters: Counter[str] = field(default_factory=Counter)
    unreadable: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)


def source(file_format: str, folder: Path) -> SourcePlan:
    columns = (
        Column("at", TIMESTAMP),
        Column("who", STRING),
        Column("n", INT64),
        Column("price", decimal(12, 2)),
        Column("score", FLOAT64),
        Column("flag", BOOL),
        Column("due", DATE),
    )
    return source_plan(columns, batch=BatchPlan(file_format, str(folder)))


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat().replace("+00:00", "Z")


def values(dice: random.Random, who: str, day: int) -> dict[str, Any]:
    """Return a good row, its instant in whole seconds; optional cells may be null."""
    at_ms = MIDNIGHT_MS + day * 86_400_000 + dice.randrange(86_400) * 1000
    row: dict[str, Any] = {
        "n": dice.randrange(-100, 100),
        "price": Decimal(dice.randrange(10_000)) / 100,
        "score": dice.randrange(1000) / 8,
        "flag": dice.random() < 0.5,
        "due": FIRST + timedelta(days=dice.randrange(400)),
    }
    nulled = {name: None if dice.random() < 0.1 else value for name, value in row.items()}
    return {"at": at_ms, "who": who, **nulled}


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    texts = {name: None if value is None else str(value) for name, value in row.items()}
    return {**texts, "at": iso(row["at"]), "flag": (row["flag"] and "true") or "false"}


BAD_CELLS = {"n": "x1", "at": "yesterday", "price": "1.2.3", "due": "2024-13-01", "score": "much"}


def csv_file(dice: random.Random, whos: list[str], good: set[str]) -> bytes:
    names = ["at", "who", *dice.sample(OPTIONAL, dice.randrange(len(OPTIONAL) + 1)), "more", "a`b"]
    dice.shuffle(names)
    quoting = dice.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    lines = [_csv_line(names, quoting)]
    for who in whos:
        row = {**as_text(values(dice, who, dice.randrange(2))), "more": 'x,"y"', "a`b": ""}
        fault = dice.choice([*BAD_CELLS, "long", "short", "bytes"]) if dice.random() < 0.1 else None
        if fault in BAD_CELLS and fault in names:
            row[fault] = BAD_CELLS[fault]
        line = _csv_line([row[name] or "" for name in names], quoting)
        if fault == "long":
            line += b",1"
        elif fault == "short":
            line = line.rpartition(b",")[0]
        elif fault == "bytes":
            line = line.replace(who.encode(), who.encode() + b"\xff")
        elif fault not in names:
            good.add(who)
        lines.append(line)
    ending = dice.choice([b"\n", b"\r\n", b"\r"])
    bom = dice.choice([b"", b"\xef\xbb\xbf"])
    return bom + ending.join(lines) + dice.choice([b"", ending])


def _csv_line(cells: list[str], quoting: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, quoting=quoting, lineterminator="").writerow(cells)
    return out.getvalue().encode()


def json_file(dice: random.Random, whos: list[str], good: set[str]) -> bytes:
    lines = []
    for who in whos:
        row: dict[str, Any] = values(dice, who, dice.randrange(2))
        row |= {"at": dice.choice([row["at"], iso(row["at"])])}
        row |= {"due": row["due"] and str(row["due"]), "price": row["price"] and str(row["price"])}
        row = {name: row[name] for name in dice.sample([*row], len(row))} | {"more": {"a": [1]}}
        for name in dice.sample(OPTIONAL, 2):
            row.pop(name)
        line = json.dumps(row, ensure_ascii=dice.random() < 0.5).encode()
        fault = dice.choice(["cell", "cut", "bytes", "text"]) if dice.random() < 0.1 else None
        if fault == "cell":
            line = json.dumps({**row, "n": "x1"}).encode()
        elif fault == "cut":
            line = line[: len(line) // 2]
        elif fault == "bytes":
            line = line.replace(who.encode(), who.encode() + b"\xff")
        elif fault == "text":
            line = b"no json"
        else:
            good.add(who)
        lines.append(line)
    return b"\n".join(lines) + dice.choice([b"", b"\n", b"\n\n"])


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float64(), pa.decimal128(30, 3)]
INSTANTS = [pa.timestamp(unit, zone) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC")]
TYPES: dict[str, list[pa.DataType]] = {
    "n": [*INTEGERS, pa.float16()],
    "price": [pa.decimal128(12, 2), pa.decimal256(50, 2), pa.decimal128(30, 4)],
    "score": [pa.float16(), pa.float32(), pa.float64()],
    "flag": [pa.bool_()],
    "due": [pa.date32(), pa.date64()],
}
CODECS = ["none", "snappy", "gzip", "brotli", "zstd", "lz4"]


def parquet_file(
    dice: random.Random, whos: list[str], good: set[str], *, day: int | None = None
) -> bytes:
    rows = [values(dice, who, dice.randrange(2) if day is None else day) for who in whos]
    kind = dice.choice([pa.int64(), *INSTANTS])
    stamps: list[int | None] = []
    per_second = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[getattr(kind, "unit", "ms")]
    for who, row in zip(whos, rows, strict=True):
        fault = dice.choice(["null", "far"]) if day is None and dice.random() < 0.1 else None
        can_be_far = kind != pa.timestamp("ns") and kind != pa.timestamp("ns", "UTC")
        stamps.append(row["at"] // 1000 * per_second)
        if fault == "null" or (fault == "far" and not can_be_far):
            stamps[-1] = None
        elif fault == "far":
            stamps[-1] = 10**12 * per_second
        else:
            good.add(who)
    columns = {
        "at": pa.array(stamps, pa.int64()).cast(kind),
        "who": pa.array(whos, dice.choice([pa.string(), pa.large_string()])),
    }
    for name in dice.sample(OPTIONAL, dice.randrange(len(OPTIONAL) + 1)):
        columns[name] = pa.array([row[name] for row in rows]).cast(dice.choice(TYPES[name]))
    count = len(whos)
    columns |= {
        "At": pa.array([1] * count),
        "a`b.c": pa.array([1] * count, pa.time64("ns")),
        "list": pa.array([[{"x": 1}]] * count),
    }
    if dice.random() < 0.3:
        columns["who"] = columns["who"].dictionary_encode()
    names = dice.sample([*columns], len(columns))
    sink = io.BytesIO()
    pq.write_table(
        pa.table({name: columns[name] for name in names}),
        sink,
        compression=dice.choice(CODECS),
        row_group_size=dice.choice([3, 1000]),
        write_statistics=dice.random() < 0.7,
        data_page_version=dice.choice(["1.0", "2.0"]),
        use_dictionary=dice.random() < 0.5,
        store_schema=dice.random() < 0.5,
        # Of 96 bits pyarrow writes what nanoseconds of 64 can say.
        use_deprecated_int96_timestamps=max(one or 0 for one in stamps) < 10**11 * per_second,
    )
    return sink.getvalue()


def flipped(dice: random.Random, data: bytes) -> bytes:
    """Return a Parquet whose pages are damaged and whose footer is not."""
    length = int.from_bytes(data[-8:-4], "little")
    pages = bytearray(data[4 : len(data) - 8 - length])
    for _ in range(dice.randrange(1, 20)):
        pages[dice.randrange(len(pages))] = dice.randrange(256)
    return data[:4] + bytes(pages) + data[len(data) - 8 - length :]


MAKERS = {"csv": csv_file, "json": json_file, "parquet": parquet_file}


def fill(dice: random.Random, folder: Path, file_format: str, count: int) -> Expected:
    """Write files of a format into a folder, and return what is to come of them."""
    expected = Expected()
    for number in range(count):
        whos, good = [f"{number}-{i}" for i in range(dice.randrange(1, 12))], set[str]()
        fate = dice.choice([*FATES, *["good"] * 12])
        is_plain = file_format == "parquet" or fate == "zip"
        packing = "" if is_plain else dice.choice([*PACKINGS])
        if fate == "flipped" and file_format == "parquet":
            data = flipped(dice, parquet_file(dice, [f"f{one}" for one in whos], set(), day=2))
        else:
            data = PACKINGS[packing](MAKERS[file_format](dice, whos, good))
        data, ending = damaged(fate, data, file_format, packing)
        where = folder / dice.choice([".", "sub", "day=2031-01-01"])
        where.mkdir(exist_ok=True)
        suffix = dice.choice([file_format, file_format.upper()])
        path = where / f"{dice.choice(NAMES)}{number}.{suffix}{packing}{ending}"
        path.write_bytes(data)
        if fate == "flipped" and file_format == "parquet":
            expected.undecided.add(str(path))
        elif is_readable(fate, file_format, packing):
            expected.good |= good if data else set()
            expected.dead_letters[str(path)] = len(whos) - len(good) if data else 0
        else:
            expected.unreadable.add(str(path))
    return expected


FATES = ("cut", "empty", "foreign", "zip", "flipped")


def damaged(fate: str, data: bytes, file_format: str, packing: str) -> tuple[bytes, str]:
    """Return the bytes of a file after its fate, and what its name ends with besides."""
    if fate == "cut" and (file_format == "parquet" or packing):
        return data[: len(data) // 2], ""
    if fate == "foreign":
        foreign = "at,who\nthis is,UTF-16\n".encode("utf-16")
        return PACKINGS[packing](foreign), ""
    return (b"" if fate == "empty" else data), ".zip" if fate == "zip" else ""


def is_readable(fate: str, file_format: str, packing: str) -> bool:
    """Text that is cut is text still, and text of no byte has no line."""
    if fate in {"cut", "empty"}:
        return file_format != "parquet" and (fate == "empty" or not packing)
    return fate not in {"foreign", "zip"}


def check(settings: Settings, plan: SourcePlan, expected: Expected) -> Counter[str]:
    """Build the days, and hold what came of it against what was to come; return the totals."""
    report = LakeBuilds(settings).build_events(plan, (), DAYS, progress=lambda _: None)
    damaged_day = FIRST + timedelta(days=DAMAGED_DAY)
    assert {(o.day, o.error) for o in report.failed if o.day != damaged_day} == set()
    rows = DeltaTable(f"{settings.lake}/events/s").to_pyarrow_table(columns=["who"])
    built = Counter(who for who in rows["who"].to_pylist() if not who.startswith("f"))
    assert built == Counter(expected.good)
    dead_letters = DeltaTable(f"{settings.lake}/dead_letters/s").to_pyarrow_table().to_pylist()
    unreadable = {row["origin"] for row in dead_letters if row["reason"] == "unreadable"}
    assert unreadable - expected.undecided == expected.unreadable
    of_rows = Counter(row["origin"] for row in dead_letters if row["reason"] != "unreadable")
    assert {o: n for o, n in of_rows.items() if o not in expected.undecided} == {
        origin: count for origin, count in expected.dead_letters.items() if count
    }
    return Counter(
        files=len(expected.dead_letters) + len(expected.unreadable) + len(expected.undecided),
        unreadable=len(unreadable),
        good=len(expected.good),
        bad=expected.dead_letters.total(),
    )


def test_whatever_lies_in_a_folder_each_good_row_is_built_and_each_bad_one_named(
    settings: Settings, tmp_path: Path
) -> None:
    until = time.monotonic() + 60 * float(os.environ.get("MILLRACE_TEST_MINUTES", "0"))
    files = int(os.environ.get("MILLRACE_TEST_FILES", "40"))
    totals, seed = Counter[str](), 0
    while seed < len(MAKERS) or time.monotonic() < until:
        file_format = [*MAKERS][seed % len(MAKERS)]
        folder, there = tmp_path / f"data{seed}", replace(settings, lake=str(tmp_path / f"{seed}"))
        folder.mkdir()
        expected = fill(random.Random(seed), folder, file_format, files)
        try:
            totals += check(there, source(file_format, folder), expected)
        except (AssertionError, PlatformError) as error:
            raise AssertionError(f"seed {seed}, {file_format}: {error}") from error
        shutil.rmtree(folder)
        shutil.rmtree(there.lake)
        seed += 1
    sys.stdout.write(f"{seed} folders: {dict(totals)}\n")
    assert totals["good"] > totals["bad"] > 0
