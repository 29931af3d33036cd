"""A source whose declaration changes under tables that are there: they follow, and lose nothing."""

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.errors import EngineUnavailable, PlanError
from millrace.plan import BatchPlan, Column, SourcePlan, StreamPlan
from millrace.types import INT32, INT64, STRING, TIMESTAMP, decimal
from offline.tables.partition_log import read_partition_log
from offline.tables.source_tables import follow_declaration
from resources.lake.reports import BuildReport
from resources.settings import Settings
from streaming.archive.arrivals import Arrivals
from streaming.archive.batch import Batch, BatchClassifier, duplicate_columns, event_columns
from streaming.archive.intake import Record
from streaming.archive.tables import SourceTables
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 1)
DAY_MS, HOUR_MS = 86_400_000, 3_600_000
START_MS = (FIRST - date(1970, 1, 1)).days * DAY_MS

BEFORE = source_plan(
    (
        Column("id", INT64),
        Column("at", TIMESTAMP),
        Column("who", INT32),
        Column("amt", decimal(12, 2)),
        Column("note", STRING),
    ),
    name="payments",
    event_id="id",
    dedup_horizon_ms=DAY_MS,
    batch=BatchPlan("parquet", "${MILLRACE_DATA}"),
    stream=StreamPlan("payments", "json"),
    fingerprint="b" * 16,
)
AFTER = replace(
    BEFORE,
    columns=(
        Column("id", INT64),
        Column("at", TIMESTAMP),
        Column("who", INT64),
        Column("amount", decimal(14, 2), "amt"),
        Column("shop", STRING),
    ),
    fingerprint="a" * 16,
)


def columns(**types: Any) -> tuple[Column, ...]:
    """Return the columns of ``BEFORE`` with other types."""
    return tuple(replace(c, type=types.get(c.name, c.type)) for c in BEFORE.columns)


def write_file(settings: Settings, *, who: int = 7) -> None:
    """Write an event a day at 01:00 for three days, as a file with columns of either declaration."""
    assert settings.data is not None
    folder = Path(settings.data)
    folder.mkdir(parents=True, exist_ok=True)
    instants = [(START_MS + day * DAY_MS + HOUR_MS) * 1000 for day in range(3)]
    table = {
        "id": pa.array([1, 2, 3], pa.int64()),
        "at": pa.array(instants, pa.timestamp("us", tz="UTC")),
        "who": pa.array([who, 8, 9], pa.int64()),
        "amt": pa.array([Decimal("1.25")] * 3, pa.decimal128(12, 2)),
        "note": pa.array(["n"] * 3),
        "shop": pa.array(["s"] * 3),
        "amount": pa.array([Decimal("1.25")] * 3, pa.decimal128(12, 2)),
    }
    pq.write_table(pa.table(table), folder / "all.parquet")


def archive(
    settings: Settings, plan: SourcePlan, offset: int, tables: SourceTables | None = None
) -> None:
    """Append event 100 + ``offset``, of the second day, and a copy of it, as the archive does."""
    at = START_MS + DAY_MS + 2 * HOUR_MS
    value = f'{{"id":{100 + offset},"at":{at},"who":5,"amt":"3.50","amount":"3.50"}}'.encode()
    batch = Batch()
    records = [Record(at + 5, 0, offset, value), Record(at + 9, 0, offset + 1, value)]
    BatchClassifier(plan, Arrivals(plan.dedup_horizon_ms), {}).add(records, batch)
    tables = tables or SourceTables.of(settings, plan)
    before = {"millrace-archive/payments/0": offset} if offset else {}
    after = {"millrace-archive/payments/0": offset + 2}
    tables.events.append(event_columns(plan, batch.events), before, after)
    assert tables.duplicates is not None
    tables.duplicates.append(duplicate_columns(plan, batch.duplicates), {}, {})


def build(settings: Settings, plan: SourcePlan, start: int, end: int) -> BuildReport:
    days = Days(FIRST + timedelta(days=start), FIRST + timedelta(days=end))
    return LakeBuilds(settings).build_events(plan, (), days, progress=lambda _: None)


def opened(settings: Settings, table: str = "events/payments") -> DeltaTable:
    return DeltaTable(f"{settings.lake}/{table}")


def types_of(table: DeltaTable) -> dict[str, str]:
    return {f.name: str(getattr(f.type, "type", f.type)) for f in table.schema().fields}


def values(settings: Settings, *names: str) -> list[tuple[Any, ...]]:
    rows = opened(settings).to_pyarrow_table().sort_by("id").to_pylist()
    return [tuple(row[name] for name in names) for row in rows]


def test_tables_follow_columns_that_are_widened_renamed_added_and_removed(
    settings: Settings,
) -> None:
    write_file(settings)
    archive(settings, BEFORE, 0)
    build(settings, BEFORE, 0, 3)
    stale = SourceTables.of(settings, BEFORE)
    stale.events.refresh()

    build(settings, AFTER, 0, 1)
    found = types_of(opened(settings))
    assert found["who"] == "long"
    assert found["amount"] == "decimal(14,2)"
    assert "amt" not in found
    assert values(settings, "id", "who", "amount", "note", "shop", "_offset") == [
        (1, 7, Decimal("1.25"), None, "s", None),
        (2, 8, Decimal("1.25"), "n", None, None),
        (3, 9, Decimal("1.25"), "n", None, None),
        (100, 5, Decimal("3.50"), None, None, 0),
    ]
    log = read_partition_log(settings, "events/payments")
    assert [log[FIRST + timedelta(days=i)].fingerprint[0] for i in range(3)] == ["a", "b", "b"]
    table = opened(settings)
    assert (table.protocol().min_reader_version, table.protocol().min_writer_version) == (1, 2)
    assert table.metadata().configuration["delta.checkpointInterval"] == "50"
    assert table.transaction_version("millrace-archive/payments/0") == 2

    with pytest.raises(EngineUnavailable, match="columns are those of another declaration"):
        archive(settings, BEFORE, 2, stale)
    archive(settings, AFTER, 2)
    build(settings, AFTER, 0, 3)
    assert [row[1:] for row in values(settings, "id", "note", "shop", "amount")] == [
        (None, "s", Decimal("1.25")),
        (None, "s", Decimal("1.25")),
        (None, "s", Decimal("1.25")),
        (None, None, Decimal("3.50")),
        (None, None, Decimal("3.50")),
    ]


def test_a_type_that_stored_values_have_no_place_in_is_refused_unless_they_are_replaced(
    settings: Settings,
) -> None:
    wide = replace(BEFORE, columns=columns(who=INT64), stream=None)
    write_file(settings, who=5_000_000_000)
    build(settings, wide, 0, 3)
    stands = opened(settings).version()
    with pytest.raises(PlanError, match=r"who int64 becomes int32: stored values .*int32") as told:
        build(settings, replace(BEFORE, stream=None), 1, 2)
    assert "keep `who: int64`" in str(told.value)
    with pytest.raises(PlanError, match=r"1 stored value\(s\), such as '1.25'"):
        build(settings, replace(BEFORE, columns=columns(who=INT64, amt=INT64)), 0, 2)
    assert opened(settings).version() == stands

    write_file(settings, who=6)
    build(settings, replace(BEFORE, stream=None), 0, 1)
    assert values(settings, "who") == [(6,), (8,), (9,)]
    # A join key of another type: numbers become text, and texts that are numbers come back.
    build(settings, replace(BEFORE, columns=columns(who=STRING), stream=None), 0, 1)
    assert values(settings, "who") == [("6",), ("8",), ("9",)]
    build(settings, replace(BEFORE, stream=None), 2, 3)
    assert values(settings, "who") == [(6,), (8,), (9,)]


def test_a_source_that_is_a_stream_alone_follows_and_forgets_ids_of_another_column(
    settings: Settings, spark: "SparkSession"
) -> None:
    streamed = replace(BEFORE, batch=None)
    archive(settings, streamed, 0)
    build(settings, streamed, 1, 2)
    text = replace(streamed, columns=columns(id=STRING), fingerprint="c" * 16)
    build(settings, text, 1, 2)
    assert values(settings, "id", "who") == [("100", 5)]
    (copy,) = opened(settings, "duplicates/payments").to_pyarrow_table().to_pylist()
    assert (copy["event_id"], copy["offset"]) == ("100", 1)

    other = replace(text, event_id="note", fingerprint="d" * 16)
    follow_declaration(settings, other, lambda: spark)
    (copy,) = opened(settings, "duplicates/payments").to_pyarrow_table().to_pylist()
    assert (copy["event_id"], copy["offset"]) == (None, 1)
    # What stands as declared is left alone.
    follow_declaration(settings, other, lambda: pytest.fail("nothing is to be written again"))
