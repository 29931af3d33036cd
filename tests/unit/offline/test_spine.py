"""Reading spines: every form of time and key that is taken, and each that is refused."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.errors import DataError
from millrace.plan import EntityPlan
from millrace.types import BOOL, DATE, FLOAT64, INT32, INT64, STRING, TIMESTAMP, DataType, decimal
from offline.training.spine import read_spine

NOON_MS = 1_522_584_000_000  # 2018-04-01T12:00:00Z
NOON = datetime(2018, 4, 1, 12, tzinfo=UTC)
TIMES = pa.array([NOON_MS, NOON_MS + 1])


def parquet_spine(folder: Path, **columns: pa.Array) -> Path:
    path = folder / "spine.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def csv_spine(folder: Path, text: str) -> Path:
    path = folder / "spine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def keys_of(path: Path, declared: DataType) -> list[Any]:
    keys = read_spine(path).keys([EntityPlan("thing", "k", declared)])
    values: list[Any] = keys.column("k").to_pylist()
    return values


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_spine(path)
    return str(caught.value)


def key_refusal(path: Path, declared: DataType) -> str:
    with pytest.raises(DataError) as caught:
        keys_of(path, declared)
    return str(caught.value)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([NOON_MS], pa.timestamp("ms")), NOON_MS),
        (pa.array([NOON_MS // 1000], pa.timestamp("s", "Europe/Berlin")), NOON_MS),
        (pa.array([NOON_MS * 1000 + 999], pa.timestamp("us", "UTC")), NOON_MS),
        (pa.array([-1], pa.timestamp("ns")), -1),
        (pa.array([date(2018, 4, 1)]), NOON_MS - 43_200_000),
        (pa.array([NOON_MS]), NOON_MS),
        (pa.array([86_400], pa.int32()), 86_400),
        (pa.array(["2018-04-01T12:00:00"]), NOON_MS),
        (pa.array(["2018-04-01 12:00:00.0009"]), NOON_MS),
        (pa.array(["2018-04-01T14:00:00+02:00"]), NOON_MS),
        (pa.array(["2018-04-01T12:00Z"]).dictionary_encode(), NOON_MS),
        (pa.array(["2018-04-01"], pa.large_string()), NOON_MS - 43_200_000),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_each_form_of_time_is_an_instant_in_utc(
    tmp_path: Path, times: pa.Array, expected: int
) -> None:
    spine = read_spine(parquet_spine(tmp_path, event_timestamp=times))
    assert spine.query_ms.to_pylist() == [expected]


def test_text_with_and_without_a_zone_may_be_mixed(tmp_path: Path) -> None:
    text = "event_timestamp\n2018-04-01T12:00:00Z\n2018-04-01\n2018-04-01 12:00:00.001\n"
    spine = read_spine(csv_spine(tmp_path, text))
    assert spine.query_ms.to_pylist() == [NOON_MS, NOON_MS - 43_200_000, NOON_MS + 1]


def test_digits_in_a_csv_are_epoch_milliseconds(tmp_path: Path) -> None:
    spine = read_spine(csv_spine(tmp_path, f"event_timestamp\n{NOON_MS}\n-5\n"))
    assert spine.query_ms.to_pylist() == [NOON_MS, -5]


def test_a_spine_without_rows_is_a_spine(tmp_path: Path) -> None:
    spine = read_spine(csv_spine(tmp_path, "k,event_timestamp\n"))
    assert len(spine) == 0
    assert spine.keys([EntityPlan("thing", "k", INT64)]).schema.field("k").type == pa.int64()


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    parquet_spine(tmp_path, event_timestamp=TIMES)
    message = refusal(tmp_path / "spin.parquet")
    assert "there is no such file" in message
    assert "did you mean 'spine.parquet'?" in message


def test_another_ending_is_refused(tmp_path: Path) -> None:
    assert "a spine is a .parquet or a .csv file" in refusal(tmp_path / "spine.xlsx")


@pytest.mark.parametrize("name", ["spine.parquet", "spine.csv"])
def test_an_unreadable_file_says_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    message = refusal(path)
    assert f"cannot be read as {path.suffix[1:]}" in message
    assert str(path) in message


def test_a_missing_time_column_names_the_nearest(tmp_path: Path) -> None:
    message = refusal(parquet_spine(tmp_path, k=TIMES, event_timestmp=TIMES))
    assert "no column 'event_timestamp'" in message
    assert "did you mean 'event_timestmp'?" in message


def test_a_column_named_twice_is_refused(tmp_path: Path) -> None:
    path = csv_spine(tmp_path, "k,k,event_timestamp\n1,2,2018-04-01\n")
    assert "the column 'k' stands more than once" in refusal(path)


def test_rows_without_a_time_are_named_at_most_five(tmp_path: Path) -> None:
    times = pa.array([None, NOON_MS, *[None] * 6])
    message = refusal(parquet_spine(tmp_path, event_timestamp=times))
    assert "7 of 8 rows have no event_timestamp" in message
    assert "rows 1, 3, 4, 5, 6, …" in message


def test_text_that_is_no_time_is_shown_with_its_row(tmp_path: Path) -> None:
    path = csv_spine(tmp_path, "event_timestamp\n2018-04-01T00:00Z\nyesterday\n")
    message = refusal(path)
    assert "'yesterday' is not understood as a time: row 2" in message
    assert "2018-04-01T12:00:00Z" in message


def test_a_number_with_a_fraction_is_no_time(tmp_path: Path) -> None:
    assert "event_timestamp is double, which is no time" in refusal(
        parquet_spine(tmp_path, event_timestamp=pa.array([1.5]))
    )


def test_microseconds_taken_for_milliseconds_are_refused(tmp_path: Path) -> None:
    message = refusal(parquet_spine(tmp_path, event_timestamp=pa.array([NOON_MS * 1000])))
    assert "outside the years 1 to 9999" in message
    assert "divide micro- or nanoseconds" in message


@pytest.mark.parametrize(
    ("found", "declared", "expected"),
    [
        (pa.array([1, None], pa.int32()), INT64, [1, None]),
        (pa.array([1, 2], pa.uint64()), INT32, [1, 2]),
        (pa.array([1.0, float("nan")]), INT64, [1, None]),
        (pa.array([7.0, float("inf")], pa.float32()), INT64, [7, None]),
        (pa.array([7.0, None], pa.float16()), INT32, [7, None]),
        (pa.array([NOON_MS * 1000 + 999], pa.timestamp("us")), TIMESTAMP, [NOON]),
        (pa.array([NOON_MS * 10**6 + 1], pa.timestamp("ns", "UTC")), TIMESTAMP, [NOON]),
        (pa.array([1, 2], pa.decimal128(5, 0)), INT64, [1, 2]),
        (pa.array([1, 2]), FLOAT64, [1.0, 2.0]),
        (pa.array(["a", None]).dictionary_encode(), STRING, ["a", None]),
        (pa.array(["a", "b"], pa.large_string()), STRING, ["a", "b"]),
        (pa.array([None, None]), STRING, [None, None]),
        (pa.array([True, None]), BOOL, [True, None]),
        (pa.array([date(2018, 4, 1), None]), DATE, [date(2018, 4, 1), None]),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_keys_are_cast_where_nothing_is_lost(
    tmp_path: Path, found: pa.Array, declared: DataType, expected: list[object]
) -> None:
    path = parquet_spine(tmp_path, k=found, event_timestamp=TIMES.slice(0, len(found)))
    assert keys_of(path, declared) == expected


@pytest.mark.parametrize(
    ("found", "declared", "shown"),
    [
        (pa.array([1.0, 1.5]), INT64, "declared int64, which '1.5' (double) is not"),
        (pa.array([1, 2**40]), INT32, "declared int32, which '1099511627776' (int64) is not"),
        (pa.array(["1", "2"]), INT64, "declared int64, which '1' (string) is not"),
        (pa.array([1, 2]), STRING, "declared string, which '1' (int64) is not"),
        (pa.array([1.5, 2.5]), decimal(5, 1), "declared decimal(5,1), which '1.5' (double)"),
        (pa.array([2**53 + 1, 1]), FLOAT64, "declared float64, which '9007199254740993'"),
        (pa.array([b"a", b"b"]), STRING, "(binary) is not"),
        (pa.array([1, 2]), TIMESTAMP, "declared timestamp, which '1' (int64) is not"),
        (pa.array([2**60, 1], pa.timestamp("ms")), TIMESTAMP, f"which '{2**60}' (timestamp"),
    ],
    ids=lambda value: str(getattr(value, "type", value)),
)
def test_a_key_of_a_wrong_type_shows_a_value(
    tmp_path: Path, found: pa.Array, declared: DataType, shown: str
) -> None:
    message = key_refusal(parquet_spine(tmp_path, k=found, event_timestamp=TIMES), declared)
    assert shown in message
    assert f"cast the column to {declared}" in message


def test_no_key_goes_through_a_double(tmp_path: Path) -> None:
    """2^53 + 1 is the first integer that has no double of its own."""
    odd = 2**53 + 1
    path = csv_spine(tmp_path, f"k,event_timestamp\n{odd}.0,2018-04-01\n{odd}e0,2018-04-01\n")
    assert keys_of(path, INT64) == [odd, odd]
    largest = parquet_spine(tmp_path, k=pa.array([2.0**53, None]), event_timestamp=TIMES)
    assert keys_of(largest, INT64) == [2**53, None]
    lost = parquet_spine(tmp_path, k=pa.array([float(odd + 1), 1.0]), event_timestamp=TIMES)
    message = key_refusal(lost, INT64)
    assert "9007199254740994.0 is a double beyond 2^53" in message
    assert "keep the column int64" in message


@pytest.mark.parametrize(
    "cell", ["NA", "null", "nan", "None", "007", "7.5", "1e400", f"1e{10**20}", "0x7"]
)
def test_only_an_empty_cell_of_a_csv_is_no_key(tmp_path: Path, cell: str) -> None:
    path = csv_spine(tmp_path, f"k,event_timestamp\n{cell},2018-04-01\n")
    assert f"declared int64, which {cell!r} (string) is not" in key_refusal(path, INT64)
    assert keys_of(path, STRING) == [cell]


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (NOON_MS // 1000, "looks like epoch seconds, 2018-04-01T12:00:00Z"),
        (17622, "looks like epoch days, 2018-04-01T00:00:00Z"),
        (20180401, "looks like a date without hyphens: write 2018-04-01"),
        (NOON_MS * 1000, "looks like epoch microseconds, 2018-04-01T12:00:00Z"),
        (NOON_MS * 1_000_000, "looks like epoch nanoseconds, 2018-04-01T12:00:00Z"),
    ],
)
def test_times_of_another_unit_are_refused_by_their_name(
    tmp_path: Path, number: int, told: str
) -> None:
    for path in (
        parquet_spine(tmp_path, event_timestamp=pa.array([NOON_MS, number])),
        csv_spine(tmp_path, f"event_timestamp\n{NOON_MS}\n{number}\n"),
    ):
        message = refusal(path)
        assert told in message
        assert "row 2" in message


@pytest.mark.parametrize("text", ["10:00:00", "2018-02-30", "10000-01-01", "1.5"])
def test_text_is_no_time_in_a_spine_either(tmp_path: Path, text: str) -> None:
    path = csv_spine(tmp_path, f"event_timestamp\n{text}\n")
    assert f"{text!r} is not understood as a time: row 1" in refusal(path)


def test_the_largest_integer_is_a_time_beyond_the_calendar(tmp_path: Path) -> None:
    path = parquet_spine(tmp_path, event_timestamp=pa.array([2**64 - 1], pa.uint64()))
    assert "lies outside the years 1 to 9999: row 1" in refusal(path)


def test_the_last_day_of_the_calendar_is_a_time(tmp_path: Path) -> None:
    spine = read_spine(
        csv_spine(tmp_path, "event_timestamp\n9999-12-31T23:59:59.999Z\n0001-01-01\n")
    )
    assert spine.query_ms.to_pylist() == [253_402_300_799_999, -62_135_596_800_000]


def test_keys_of_a_csv_are_parsed(tmp_path: Path) -> None:
    text = "k,event_timestamp\n7,2018-04-01\n,2018-04-01\n8.0,2018-04-01\n"
    path = csv_spine(tmp_path, text)
    assert keys_of(path, INT64) == [7, None, 8]
    assert keys_of(path, STRING) == ["7", None, "8.0"]


def test_a_key_of_a_csv_that_does_not_parse_is_shown(tmp_path: Path) -> None:
    path = csv_spine(tmp_path, "k,event_timestamp\n7,2018-04-01\nseven,2018-04-01\n")
    assert "declared int64, which 'seven' (string) is not" in key_refusal(path, INT64)


def test_a_missing_key_column_names_the_nearest(tmp_path: Path) -> None:
    path = parquet_spine(tmp_path, kk=TIMES, event_timestamp=TIMES)
    message = key_refusal(path, INT64)
    assert "no column 'k' (entity thing)" in message
    assert "kk" in message


def test_a_column_named_like_a_feature_is_refused(tmp_path: Path) -> None:
    spine = read_spine(parquet_spine(tmp_path, n_1h=TIMES, event_timestamp=TIMES))
    with pytest.raises(DataError) as caught:
        spine.refuse_columns(["n_1d", "n_1h"])
    assert "the spine already has the column 'n_1h'" in str(caught.value)
    spine.refuse_columns(["n_1d"])


def test_a_csv_stays_text_in_a_csv_and_gets_types_in_a_parquet(tmp_path: Path) -> None:
    header = "k,event_timestamp,code,label,ratio,flag,note,big"
    first = "5,2018-04-01T12:00:00Z,007,1,1.50,True,,12345678901234567890"
    second = "6,2018-04-01T12:00:00.001Z,8,,2e3,False,x,1"
    spine = read_spine(csv_spine(tmp_path, f"{header}\n{first}\n{second}\n"))
    assert spine.columns_for(Path("out.csv")) is spine.table
    typed = spine.columns_for(Path("out.parquet"))
    assert typed.column_names == header.split(",")
    assert [str(t) for t in typed.schema.types] == [
        "int64",
        "timestamp[ms, tz=UTC]",
        "string",
        "int64",
        "double",
        "bool",
        "string",
        "string",
    ]
    assert typed.column("label").to_pylist() == [1, None]
    assert typed.column("note").to_pylist() == ["", "x"]


def test_times_finer_than_a_millisecond_stay_text(tmp_path: Path) -> None:
    spine = read_spine(csv_spine(tmp_path, "event_timestamp\n2018-04-01T12:00:00.0001Z\n"))
    typed = spine.columns_for(Path("out.parquet"))
    assert typed.column("event_timestamp").to_pylist() == ["2018-04-01T12:00:00.0001Z"]
