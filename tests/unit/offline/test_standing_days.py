"""Which days a retried run may leave: by the lake's log, and by what has changed since."""

import os
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from millrace.days import Days
from millrace.plan import Plan
from offline.tables.partition_log import append_partition_log
from offline.tables.stages import tables_of
from offline.tables.standing_days import standing_days
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.view_versions import claim_version
from resources.settings import Settings, settings_from_env

VIEWS = """
version: millrace/v1
sources:
  - name: clicks
    columns: {id: int64, at: timestamp, who: int64}
    event_time: at
    event_id: id
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities: [{name: clicker, join_key: who, type: int64}]
feature_views:
  - name: clicker
    entity: clicker
    source: clicks
    start: 2024-03-01
    features: [{name: clicks_1d, aggregate: count, window: 1d}]
"""
WEEK = Days.parse("2024-03-01", "2024-03-08")


class Lake:
    """A file of clicks for each day of a week, and the log of what was built of them."""

    def __init__(self, root: Path) -> None:
        (root / "views.yaml").write_text(VIEWS, encoding="utf-8")
        self.files = root / "data"
        self.files.mkdir()
        for day in WEEK:
            self.write(day)
        environment = {"MILLRACE_HOME": str(root / "home"), "MILLRACE_DATA": str(self.files)}
        self.settings: Settings = settings_from_env(environment)
        self.plan: Plan = plan_of([root / "views.yaml"])
        self.source, self.view = self.plan.sources["clicks"], self.plan.views["clicker"]
        claim_version(self.settings, self.view)
        self.began_ms = self.after_all_files()

    def write(self, day: date) -> None:
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        table = pa.table({"id": [day.day], "at": [at], "who": [1]})
        pq.write_table(table, self.files / f"{day}.parquet")

    def after_all_files(self) -> int:
        """Return an instant behind every change, so that no test waits for the clock."""
        return 1 + max(os.stat(file).st_ctime_ns for file in self.files.iterdir()) // 1_000_000

    def built(
        self,
        table: str,
        *days: date,
        began_ms: int,
        fingerprint: str | None = None,
        held: str | None = None,
        error: str | None = None,
    ) -> None:
        outcomes = tuple(PartitionOutcome(day, rows=1, error=error) for day in days)
        report = BuildReport(table, None, 1, outcomes, began_ms=began_ms)
        known = self.source if table.startswith("events") else self.view
        holds = dict.fromkeys(days, held) if held else None
        append_partition_log(self.settings, report, fingerprint or known.fingerprint, held=holds)

    def events(self, since_ms: int | None = None) -> list[int]:
        since = self.began_ms if since_ms is None else since_ms
        return self.standing("events", since)

    def standing(self, kind: str, since_ms: int = 1) -> list[int]:
        [table] = [t for t in tables_of(self.source, [self.view]) if t.kind == kind]
        return sorted(day.day for day in standing_days(self.settings, table, WEEK, since_ms))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    lake = Lake(tmp_path)
    lake.built("events/clicks", *WEEK, began_ms=lake.began_ms)
    return lake


def test_days_stand_that_were_built_since_the_first_attempt(lake: Lake) -> None:
    assert lake.events() == [1, 2, 3, 4, 5, 6, 7]
    assert lake.events(since_ms=lake.began_ms + 1) == []


def test_a_day_that_failed_is_held_back_or_is_another_definitions_does_not_stand(
    lake: Lake,
) -> None:
    first, second, third = list(WEEK)[:3]
    lake.built("events/clicks", first, began_ms=lake.began_ms, error="cut off")
    lake.built("events/clicks", second, began_ms=lake.began_ms, held="rows: 0")
    lake.built("events/clicks", third, began_ms=lake.began_ms, fingerprint="another")
    assert lake.events() == [4, 5, 6, 7]


def test_a_file_that_changed_asks_for_its_own_day(lake: Lake) -> None:
    while time.time_ns() // 1_000_000 <= lake.began_ms:
        pass
    lake.write(date(2024, 3, 4))
    assert lake.events() == [1, 2, 3, 5, 6, 7]


def test_a_file_that_is_gone_asks_for_the_day_that_it_held(lake: Lake) -> None:
    (lake.files / "2024-03-06.parquet").unlink()
    assert lake.events() == [1, 2, 3, 4, 5, 7]


def test_tiles_of_a_day_whose_events_were_built_after_them_do_not_stand(lake: Lake) -> None:
    later_ms = time.time_ns() // 1_000_000 + 1
    lake.built("tiles/clicker/v1", *WEEK, began_ms=later_ms)
    lake.built("features/clicker/v1", *WEEK, began_ms=later_ms)
    assert lake.standing("tiles") == [1, 2, 3, 4, 5, 6, 7]
    assert lake.standing("features") == [1, 2, 3, 4, 5, 6, 7]
    while time.time_ns() // 1_000_000 <= later_ms:
        pass
    lake.built("events/clicks", date(2024, 3, 4), began_ms=later_ms)
    assert lake.standing("tiles") == [1, 2, 3, 5, 6, 7]
    # A window of a day, and the hop that its tail moves by, reach into the second day after.
    assert lake.standing("features") == [1, 2, 3, 7]
