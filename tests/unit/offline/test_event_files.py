"""A file's rows as events: types, order, and what is refused before anything is sent."""

from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.errors import DataError, NotDeclared
from millrace.plan import Column, Plan
from millrace.types import BOOL, BYTES, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMP, decimal
from resources.settings import settings_from_env
from streaming.archive.classification import Classifier
from streaming.produce.event_files import TIME, read_events
from streaming.produce.producer import Pace, _json_values, _Waiting, produce
from tests.support.archive_cases import payments

COLUMNS = (
    Column("id", STRING),
    Column("at", TIMESTAMP),
    Column("who", INT64),
    Column("amount", decimal(12, 2)),
    Column("x", FLOAT64),
    Column("n", INT32),
    Column("ok", BOOL),
    Column("day", DATE),
    Column("raw", BYTES),
)
SOURCE = payments("pay", columns=COLUMNS)
MS = 1_709_287_200_123


def table() -> pa.Table:
    return pa.table(
        {
            "unknown": [1, 2, 3],
            "id": ["late", "b", "a"],
            "at": pa.array([MS * 1000 + 999, MS * 1000 - 1, MS * 1000 - 1], pa.timestamp("us")),
            "who": pa.array([1, None, 3], pa.int32()),
            "amount": [0.1, 57.16, None],
            "x": [1.5, float("nan"), float("inf")],
            "ok": pa.array([1, 0, None], pa.int8()),
            "day": pa.array([date(2024, 3, 1)] * 3),
            "raw": [b"\x00\xff", b"", None],
        }
    )


def test_rows_come_in_event_time_order_with_the_declared_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(), path)
    found = read_events(path, SOURCE).table
    assert found.column_names == [*(c.name for c in COLUMNS), TIME]
    assert found["id"].to_pylist() == ["b", "a", "late"]
    assert found[TIME].to_pylist() == [MS - 1, MS - 1, MS]
    assert found["amount"].to_pylist() == [Decimal("57.16"), None, Decimal("0.10")]
    assert found["x"].to_pylist() == [None, None, 1.5]
    assert found["ok"].to_pylist() == [False, None, True]
    assert found["n"].null_count == 3


def test_what_is_sent_is_what_the_archive_reads(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(table(), path)
    rows = read_events(path, SOURCE).table
    encode = msgspec.json.Encoder(decimal_format="number").encode
    columns = {c.name: _json_values(rows[c.name]) for c in COLUMNS}
    sent = [encode({name: v[i] for name, v in columns.items()}) for i in range(rows.num_rows)]
    assert b'"at":"2024-03-01T10:00:00.123Z"' in sent[2]
    assert b'"amount":0.10' in sent[2]
    for i, value in enumerate(sent):
        verdict = Classifier(SOURCE).classify(value, MS)
        assert verdict.reason is None, verdict.detail
        assert verdict.event_ms == rows[TIME][i].as_py()
        told = dict(zip([c.name for c in COLUMNS], verdict.values, strict=True))
        assert told["amount"] == rows["amount"][i].as_py()
        assert told["raw"] == rows["raw"][i].as_py()


def test_csv_and_json_lines_give_the_same_rows(tmp_path: Path) -> None:
    small = replace(SOURCE, columns=(COLUMNS[0], COLUMNS[1], COLUMNS[3]))
    csv, lines = tmp_path / "rows.csv", tmp_path / "rows.jsonl"
    csv.write_text("amount,id,at\n1.10,b,2024-03-01T10:00:01Z\n,a,2024-03-01T10:00:00Z\n")
    lines.write_text(
        '{"amount":"1.10","id":"b","at":"2024-03-01T10:00:01Z"}\n\n{"id":"a","at":1709287200000}\n'
    )
    read = read_events(csv, small).table
    assert read.to_pylist() == read_events(lines, small).table.to_pylist()
    assert read["amount"].to_pylist() == [None, Decimal("1.10")]


def test_rows_without_an_event_time_are_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,at\na,\nb,2024-03-01T10:00:00Z\n")
    found = read_events(path, SOURCE)
    assert (found.table["id"].to_pylist(), found.timeless) == (["b"], 1)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("rows.txt", "", r"no known format[\s\S]*\.parquet"),
        ("rows.csv", "id,att\na,2024-03-01\n", r"no column 'at'[\s\S]*did you mean 'att'"),
        (
            "rows.csv",
            "id,at,who\na,2024-03-01T10:00:00Z,x\n",
            r"rows\.csv:2: column 'who': 'x' is no int64",
        ),
        ("rows.jsonl", '{"at":0}\n{"at":0,"who":"x"}\n', r"rows\.jsonl:2: column 'who'"),
        ("rows.parquet", "garbage", "not readable as parquet"),
    ],
)
def test_a_file_that_does_not_hold_the_events_says_where(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=told):
        read_events(path, SOURCE)


def test_a_path_that_is_no_file_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match=r"folder\.csv: this is a folder"):
        read_events(tmp_path / "folder.csv", SOURCE)
    with pytest.raises(DataError, match=r"gone\.csv: there is no such file"):
        read_events(tmp_path / "gone.csv", SOURCE)


def test_what_cannot_be_produced_is_refused_by_name(tmp_path: Path) -> None:
    plan = Plan({"pay": SOURCE, "files": replace(SOURCE, name="files", stream=None)}, {}, {}, {})
    settings = settings_from_env({"MILLRACE_HOME": str(tmp_path)})
    with pytest.raises(NotDeclared, match=r"'pays'[\s\S]*did you mean 'pay'"):
        produce(settings, plan, "pays", tmp_path / "x.csv")
    with pytest.raises(DataError, match=r"files[\s\S]*no stream to send to[\s\S]*stream:"):
        produce(settings, plan, "files", tmp_path / "x.csv")
    with pytest.raises(DataError, match="a rate of 0 rows"):
        Pace(rate=0)


def test_rows_are_due_by_the_rate_or_by_their_own_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.produce.producer.time.monotonic", lambda: 100.0)
    steady = _Waiting(Pace(rate=50), 1_000)
    assert not steady.is_early(0, 9_999)
    assert steady.is_early(1, 1_000)
    real = _Waiting(Pace(shift_to_now=True), 1_000)
    assert not real.is_early(7, 1_000)
    assert real.is_early(0, 1_001)
    assert not _Waiting(Pace(), 1_000).is_early(10**6, 10**12)
