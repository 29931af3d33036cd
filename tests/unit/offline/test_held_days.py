"""The partition log's held days: who sees a day, and logs from before there were checks."""

from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from offline.tables.partition_log import (
    AWAITS_CHECKS,
    append_partition_log,
    built_days,
    published_days,
    quarantined_days,
    read_partition_log,
)
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings, settings_from_env

TABLE, PRINT = "events/orders", "0123456789abcdef"
MONDAY, TUESDAY = date(2024, 3, 4), date(2024, 3, 5)


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    return replace(settings_from_env({}), lake=str(tmp_path))


def log(lake: Settings, held: dict[date, str] | None, *days: date) -> None:
    outcomes = tuple(PartitionOutcome(day, rows=5) for day in days)
    append_partition_log(lake, BuildReport(TABLE, None, 1, outcomes), PRINT, held=held)


def test_a_held_day_is_built_but_not_published(lake: Settings) -> None:
    log(lake, {TUESDAY: AWAITS_CHECKS}, MONDAY, TUESDAY)
    states = read_partition_log(lake, TABLE)
    assert built_days(states, PRINT) == {MONDAY, TUESDAY}
    assert published_days(states, PRINT) == {MONDAY}
    assert quarantined_days(states) == {TUESDAY: AWAITS_CHECKS}


def test_the_newest_entry_releases_or_holds_back(lake: Settings) -> None:
    log(lake, dict.fromkeys((MONDAY, TUESDAY), AWAITS_CHECKS), MONDAY, TUESDAY)
    log(lake, {MONDAY: "rows: 0; expected at least 1"}, MONDAY, TUESDAY)
    assert quarantined_days(read_partition_log(lake, TABLE)) == {
        MONDAY: "rows: 0; expected at least 1"
    }
    log(lake, None, MONDAY)
    assert published_days(read_partition_log(lake, TABLE), PRINT) == {MONDAY, TUESDAY}


def test_a_log_from_before_there_were_checks_holds_nothing_back(lake: Settings) -> None:
    old = {
        "table": [TABLE],
        "day": pa.array([MONDAY], pa.date32()),
        "fingerprint": [PRINT],
        "error": pa.array([None], pa.string()),
        "rows": pa.array([5], pa.int64()),
        "missing_days": ["[]"],
        "built_at_us": pa.array([1], pa.int64()),
    }
    write_deltalake(f"{lake.lake}/partition_log", pa.table(old), partition_by=["table"])
    assert published_days(read_partition_log(lake, TABLE), PRINT) == {MONDAY}
    log(lake, {TUESDAY: AWAITS_CHECKS}, TUESDAY)
    states = read_partition_log(lake, TABLE)
    assert published_days(states, PRINT) == {MONDAY}
    assert quarantined_days(states) == {TUESDAY: AWAITS_CHECKS}
