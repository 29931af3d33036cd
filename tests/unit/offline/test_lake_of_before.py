"""Tables that an earlier version wrote: instants as INT96, days that no calendar has."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.transaction import AddAction

from checks.quality.profiles_table import day_files
from millrace.calendar import FIRST_DAY, FIRST_MS, LAST_DAY, LAST_MS
from offline.tables.archived_days import archived_rows
from resources.lake.delta import open_dataset, partition_stats
from resources.settings import Settings, settings_from_env

EVENTS = "events/orders"
INSTANTS = [FIRST_MS, -9_223_372_036_856, 0, 9_223_372_036_855, LAST_MS]


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    return replace(settings_from_env({}), lake=str(tmp_path))


def add_file(lake: Settings, day: str, instants: Sequence[int]) -> None:
    """Add a file as Spark wrote it before, with a statistic of the column ``_offset``."""
    path = Path(lake.lake) / EVENTS
    table = pa.table(
        {
            "at": pa.array([at * 1000 for at in instants], pa.timestamp("us", "UTC")),
            "_offset": pa.array([None] * len(instants), pa.int64()),
            "event_date": pa.array([FIRST_DAY] * len(instants)),
        }
    )
    if not path.exists():
        write_deltalake(str(path), table.slice(0, 0), partition_by=["event_date"])
    name = f"event_date={day}/part-0.parquet"
    (path / name).parent.mkdir()
    pq.write_table(
        table.select(["at", "_offset"]), path / name, use_deprecated_int96_timestamps=True
    )
    counted = {"numRecords": len(instants), "nullCount": {"_offset": 0}}
    size = (path / name).stat().st_size
    add = AddAction(name, size, {"event_date": day}, 0, data_change=True, stats=json.dumps(counted))
    opened = DeltaTable(str(path))
    opened.create_write_transaction([add], "append", opened.schema(), ["event_date"])


def test_instants_written_as_int96_are_read_as_they_are(lake: Settings) -> None:
    add_file(lake, "0001-01-01", INSTANTS)
    rows = open_dataset(DeltaTable(f"{lake.lake}/{EVENTS}")).to_table()
    assert rows["at"].type == pa.timestamp("us", "UTC")
    assert rows["at"].cast(pa.int64()).to_pylist() == [at * 1000 for at in INSTANTS]


def test_a_day_that_no_calendar_has_hides_no_other(lake: Settings) -> None:
    for day in ("0001-01-01", "9999-12-31", "+10000-01-01"):
        add_file(lake, day, [0, 1])
    assert {d: s.rows for d, s in partition_stats(lake, EVENTS).items()} == {
        FIRST_DAY: 2,
        LAST_DAY: 2,
    }
    assert archived_rows(lake, "orders") == {FIRST_DAY: 2, LAST_DAY: 2}
    assert day_files(lake, EVENTS).keys() == {FIRST_DAY, LAST_DAY}
    days = open_dataset(DeltaTable(f"{lake.lake}/{EVENTS}")).to_table()["event_date"].to_pylist()
    assert set(days) == {date(1, 1, 1), date(9999, 12, 31)}
