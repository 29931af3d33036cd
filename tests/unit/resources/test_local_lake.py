"""Tables of a local lake: how their files are read."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.fs.fs_handler import DeltaStorageHandler

from resources.lake.delta import open_dataset, own_files


def test_arrow_reads_the_files_of_a_local_lake_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By way of delta-rs its threads call Python, and abort a command that ends meanwhile."""

    def fail(*_: Any) -> None:
        raise AssertionError("a thread of Arrow called Python")

    path = str(tmp_path / "a lake \u00e9")
    rows = pa.table({"event_date": [date(2024, 3, 1)], "table": ["events/s"], "n": [1]})
    write_deltalake(path, rows, partition_by=["event_date", "table"])
    monkeypatch.setattr(DeltaStorageHandler, "open_input_file", fail)
    table = DeltaTable(path)
    assert open_dataset(table).to_table(columns=rows.column_names) == rows
    filters = [("table", "=", "events/s")]
    found = table.to_pyarrow_table(filters=filters, filesystem=own_files(table))
    assert found.select(rows.column_names) == rows
