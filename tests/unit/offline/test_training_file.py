"""Result files: whole or not at all, and text that keeps its meaning."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from millrace.errors import DataError
from offline.training.dataset_file import (
    check_ending,
    check_place,
    column_names,
    read_table_file,
    typed_text,
    write_table_file,
)

TABLE = pa.table({"k": [1, 2], "note": ["a", None]})


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "OUT.CSV"])
def test_a_table_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_table_file(TABLE, path)
    assert read_table_file(path).num_rows == 2
    assert os.listdir(path.parent) == [name]


def test_names_of_columns_are_read_without_rows(tmp_path: Path) -> None:
    for name in ("out.parquet", "out.csv"):
        write_table_file(TABLE, tmp_path / name)
        assert column_names(tmp_path / name) == ("k", "note")
    (tmp_path / "text.parquet").write_text("no Parquet")
    assert column_names(tmp_path / "text.parquet") == ()
    assert column_names(tmp_path / "absent.csv") == ()


def test_a_folder_that_is_not_there_is_refused_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.csv"
    with pytest.raises(DataError, match="there is no folder") as refused:
        check_place(path, "a training set")
    assert f"mkdir -p '{path.parent}'" in refused.value.fix
    assert not path.parent.exists()
    check_place(tmp_path / "out.csv", "a training set")


def test_a_csv_is_quoted_only_where_its_text_needs_it(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_table_file(TABLE, path)
    assert path.read_text() == "k,note\n1,a\n2,\n"
    quoted = pa.table({"k": [1, 2], "note": ['say "a", b', "c\nd"]})
    write_table_file(quoted, path)
    assert pc.read_csv(path, parse_options=pc.ParseOptions(newlines_in_values=True)).equals(quoted)


@pytest.mark.parametrize(
    "type_", [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.int64(), 2)]
)
def test_lists_of_any_layout_are_json_in_a_csv(type_: pa.DataType, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_table_file(pa.table({"k": pa.array([[1, 2], None], type_), "n": [1, 2]}), path)
    assert path.read_text() == 'k,n\n"[1, 2]",1\n,2\n'


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write_table_file(TABLE, path)
    before = path.read_bytes()
    with pytest.raises(DataError) as caught:
        write_table_file(pa.table({"k": [{"a": 1}, {"a": 2}]}), path)
    assert "the file cannot be written" in str(caught.value)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["out.csv"]


def test_a_place_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.parquet").mkdir()
    with pytest.raises(DataError) as caught:
        write_table_file(TABLE, tmp_path / "out.parquet")
    assert "the file cannot be written" in str(caught.value)
    assert os.listdir(tmp_path) == ["out.parquet"]


def test_another_ending_is_refused_with_a_name_that_would_do() -> None:
    with pytest.raises(DataError) as caught:
        check_ending(Path("set.json"), "a training set")
    assert "a training set is a .parquet or a .csv file, not 'set.json'" in str(caught.value)
    assert "set.parquet" in str(caught.value)


def test_the_folder_of_a_parquet_file_adds_no_columns(tmp_path: Path) -> None:
    path = tmp_path / "day=2024-01-01" / "spine.parquet"
    path.parent.mkdir()
    pq.write_table(TABLE, path)
    assert read_table_file(path).column_names == ["k", "note"]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-20", ""], pa.int64()),
        (["9223372036854775807"], pa.int64()),
        (["9223372036854775808"], pa.string()),
        (["0.1", "2", "1e5", ""], pa.float64()),
        (["007"], pa.string()),
        (["-0"], pa.float64()),
        (["1e400"], pa.string()),
        (["0.1234567890123456789"], pa.string()),
        (["True", "false"], pa.bool_()),
        (["", ""], pa.string()),
        (["nan"], pa.string()),
    ],
    ids=str,
)
def test_text_gets_a_type_only_where_no_cell_loses_anything(
    cells: list[str], expected: pa.DataType
) -> None:
    assert typed_text(pa.chunked_array([cells])).type == expected


@pytest.mark.parametrize(
    ("text", "rows"),
    [("k,note", 0), ("\ufeffk,note", 0), ('k,"no\nte"', 0), ("k,note\r\n1,a", 1), ("k,note\r", 0)],
)
def test_a_last_line_need_not_be_ended(tmp_path: Path, text: str, rows: int) -> None:
    path = tmp_path / "spine.csv"
    path.write_bytes(text.encode())
    table = read_table_file(path)
    assert table.num_rows == rows
    assert [name.replace("\n", "") for name in table.column_names] == ["k", "note"]
    assert column_names(path) == tuple(table.column_names)
