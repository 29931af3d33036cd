"""Days that hold both: rows of files, built by Spark, and rows of the topic, archived beside them."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.plan import BatchPlan, Column, SchedulePlan, SourcePlan, StreamPlan
from millrace.types import INT64, STRING, TIMESTAMP
from resources.lake.reports import BuildReport
from resources.settings import Settings
from streaming.archive.arrivals import Arrivals
from streaming.archive.batch import Batch, BatchClassifier, dead_letter_columns, event_columns
from streaming.archive.intake import Record
from streaming.archive.tables import SourceTables, dead_letters_schema
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 1)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
START_MS = (FIRST - date(1970, 1, 1)).days * DAY_MS


def source(**changes: Any) -> SourcePlan:
    columns = (
        Column("id", STRING),
        Column("at", TIMESTAMP),
        Column("arrived_at", TIMESTAMP),
        Column("who", INT64),
    )
    plan: dict[str, Any] = {
        "name": "payments",
        "event_id": "id",
        "ingest_time": "arrived_at",
        "dedup_horizon_ms": DAY_MS,
        "batch": BatchPlan("parquet", "${MILLRACE_DATA}"),
        "stream": StreamPlan("payments", "json"),
    }
    return source_plan(**{"columns": columns, **plan, **changes})


def write_files(settings: Settings, rows: list[tuple[str | None, int, int]]) -> None:
    """Write rows of (id, event time, ingest time) as the source's only file."""
    assert settings.data is not None
    folder = Path(settings.data)
    folder.mkdir(parents=True, exist_ok=True)
    instants = pa.timestamp("us", tz="UTC")
    table = pa.table(
        {
            "id": pa.array([i for i, _, _ in rows], pa.string()),
            "at": pa.array([at * 1000 for _, at, _ in rows], instants),
            "arrived_at": pa.array([ms * 1000 for _, _, ms in rows], instants),
            "who": pa.array([1] * len(rows), pa.int64()),
        }
    )
    pq.write_table(table, folder / "all.parquet")


def archive(settings: Settings, rows: list[tuple[str | None, int, int]], offset: int = 0) -> None:
    """Append rows of (id, event time, arrival) as the archive does, with its judge."""
    plan = source()
    records = [
        Record(ms, 0, offset + n, _value(event_id, at)) for n, (event_id, at, ms) in enumerate(rows)
    ]
    batch = Batch()
    BatchClassifier(plan, Arrivals(plan.dedup_horizon_ms), {}).add(records, batch)
    tables = SourceTables.of(settings, plan)
    tables.events.append(event_columns(plan, batch.events), {}, {})
    tables.dead_letters.append(dead_letter_columns("payments", batch.dead_letters), {}, {})


def _value(event_id: str | None, at: int) -> bytes:
    quoted = "null" if event_id is None else f'"{event_id}"'
    return f'{{"id":{quoted},"at":{at},"who":2}}'.encode()


def build(settings: Settings, days: int = 3, plan: SourcePlan | None = None) -> BuildReport:
    span = Days(FIRST, FIRST + timedelta(days=days))
    return LakeBuilds(settings).build_events(plan or source(), (), span, progress=lambda _: None)


def found(settings: Settings, table: str = "events/payments") -> list[dict[str, Any]]:
    rows = DeltaTable(f"{settings.lake}/{table}").to_pyarrow_table().to_pylist()
    return sorted(rows, key=str)


def ids(settings: Settings) -> list[tuple[str | None, bool, int]]:
    """Return (id, whether it came out of the topic, arrival) of each row."""
    rows = found(settings)
    known = [(r["id"], r["_offset"] is not None, r["_ingest_ms"] - START_MS) for r in rows]
    return sorted(known, key=str)


def test_a_build_keeps_archived_rows_and_drops_the_copies_that_files_hold_of_them(
    settings: Settings,
) -> None:
    at = START_MS + HOUR_MS
    archive(
        settings,
        [
            ("only in the topic", at, at + 10),
            ("file first", at, at + 1_000),
            ("topic first", at, at + 20),
            ("a day and more apart", at, at + 30),
            (None, at, at + 40),
            ("late in the topic", at, at + 2 * HOUR_MS),
        ],
    )
    write_files(
        settings,
        [
            ("only in a file", at, at),
            ("file first", at, at),
            ("topic first", at, at + 500),
            ("topic first", at, at + 600),
            ("a day and more apart", at + DAY_MS + 31, at + DAY_MS + 31),
            ("twice in a file", at, at),
            ("twice in a file", at, at + 5),
            (None, at, at),
        ],
    )
    report = build(settings)
    kept = ids(settings)
    assert kept == sorted(
        [
            ("only in the topic", True, HOUR_MS + 10),
            ("file first", True, HOUR_MS + 1_000),
            ("topic first", True, HOUR_MS + 20),
            ("a day and more apart", True, HOUR_MS + 30),
            (None, True, HOUR_MS + 40),
            ("only in a file", False, HOUR_MS),
            ("a day and more apart", False, HOUR_MS + DAY_MS + 31),
            ("twice in a file", False, HOUR_MS),
            (None, False, HOUR_MS),
        ],
        key=str,
    )
    first = report.outcomes[0]
    assert first.rows == 8
    assert first.duplicates == 4
    assert first.dead_letters == {"late": 1}

    dead_letters = found(settings, "dead_letters/payments")
    build(settings)
    assert ids(settings) == kept
    assert found(settings, "dead_letters/payments") == dead_letters


def test_rows_archived_after_a_build_displace_their_copies_at_the_next_one(
    settings: Settings,
) -> None:
    at = START_MS + HOUR_MS
    write_files(settings, [("a", at, at), ("b", at, at), ("c", at + DAY_MS, at + DAY_MS)])
    build(settings)
    assert [i for i, _, _ in ids(settings)] == ["a", "b", "c"]
    archive(settings, [("b", at, at + 7), ("d", at, at + 8)])
    build(settings)
    assert [(i, archived) for i, archived, _ in ids(settings)] == [
        ("a", False),
        ("b", True),
        ("c", False),
        ("d", True),
    ]
    day_one = [r for r in found(settings) if r["event_date"] == FIRST]
    assert {r["at"] for r in day_one} == {datetime(2024, 3, 1, 1, tzinfo=UTC)}


def test_days_that_only_the_topic_has_are_counted_and_count_as_built(settings: Settings) -> None:
    at = START_MS + HOUR_MS
    archive(settings, [("a", at, at), ("b", at, at), ("a", at, at + 1), ("c", at, at + 10**7)])
    before = found(settings)
    report = build(settings, plan=source(batch=None))
    assert [(o.rows, o.dead_letters) for o in report.outcomes] == [
        (2, {"late": 1}),
        (0, {}),
        (0, {}),
    ]
    assert report.failed == ()
    assert found(settings) == before
    assert ("d", "events") not in [(r["id"], "") for r in before]

    log = DeltaTable(f"{settings.lake}/partition_log").to_pyarrow_table().to_pylist()
    assert sorted((r["table"], r["day"], r["rows"]) for r in log) == [
        ("events/payments", FIRST + timedelta(days=n), rows) for n, rows in enumerate((2, 0, 0))
    ]


def test_a_table_that_spark_made_before_there_was_an_archive_takes_archived_rows(
    settings: Settings,
) -> None:
    at = START_MS + HOUR_MS
    write_files(settings, [("a", at, at), ("x", at, at + 2 * HOUR_MS)])
    build(settings, plan=source(stream=None))
    archive(settings, [("b", at, at), ("y", at, at + 2 * HOUR_MS)])
    assert [i for i, _, _ in ids(settings)] == ["a", "b"]
    build(settings)
    assert [i for i, _, _ in ids(settings)] == ["a", "b"]
    origins = [(r["reason"], r["offset"]) for r in found(settings, "dead_letters/payments")]
    assert sorted(origins, key=str) == [("late", 1), ("late", None)]


def test_hours_beside_archived_rows_make_the_same_day(settings: Settings) -> None:
    """Also where the tables are older than hours."""
    late = 2 * HOUR_MS
    of_files: list[tuple[str | None, int, int]]
    of_files = [(f"f{n}", START_MS + n * HOUR_MS // 2, 0) for n in range(48)]
    rows = [(i, at, at + (late if n % 5 == 0 else 1)) for n, (i, at, _) in enumerate(of_files)]
    copies = [(i, at, at + 60_000) for i, at, _ in of_files[3::7]]
    refused = [(f"t{n}", START_MS + n * HOUR_MS, START_MS + (n + 3) * HOUR_MS) for n in (1, 5, 20)]
    write_files(settings, rows)
    elsewhere = replace(settings, lake=f"{settings.lake}_whole")
    for lake in (settings, elsewhere):
        DeltaTable.create(
            f"{lake.lake}/dead_letters/payments",
            _without_event_ms(dead_letters_schema()),
            partition_by=["event_date"],
        )
    build(elsewhere, days=1)
    archive(elsewhere, [*copies, *refused])
    build(elsewhere, days=1)

    hours = [Days(FIRST, FIRST + timedelta(days=1), a, b) for a, b in ((0, 6), (6, 24), (4, 9))]
    store, plan = LakeBuilds(settings), source(schedule=SchedulePlan(is_hourly=True))
    store.build_events(plan, (), hours[0], progress=lambda _: None)
    archive(settings, [*copies, *refused])
    for span in (*hours[1:], hours[0]):
        report = store.build_events(plan, (), span, progress=lambda _: None)
    [outcome] = report.built
    assert outcome.dead_letters == {"late": 10 + len(refused)}
    assert sum(outcome.rows_by_hour) == outcome.rows == len(found(settings))
    for table in ("events/payments", "dead_letters/payments"):
        assert found(settings, table) == found(elsewhere, table), table


def _without_event_ms(schema: pa.Schema) -> pa.Schema:
    return schema.remove(schema.get_field_index("event_ms"))
