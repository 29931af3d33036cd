"""``events/<source>`` on real Spark and Delta, against the oracle."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.days import Days
from millrace.errors import DataError
from millrace.plan import BatchPlan, Column, SourcePlan
from millrace.types import BOOL, INT64, STRING, TIMESTAMP, decimal
from offline.raw.arrivals import Arrivals
from offline.tables.partition_log import read_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests import reference
from tests.support.lake_builds import LakeBuilds
from tests.support.source_plans import source_plan

pytestmark = pytest.mark.services

FIRST = date(2024, 3, 1)
DAY_MS = 86_400_000
START_MS = (FIRST - date(1970, 1, 1)).days * DAY_MS
HOUR_MS = 3_600_000


def source(path: str = "${MILLRACE_DATA}", **changes: Any) -> SourcePlan:
    columns = (
        Column("id", STRING),
        Column("at", TIMESTAMP),
        Column("arrived_at", TIMESTAMP),
        Column("who", INT64),
        Column("amount", decimal(12, 2)),
        Column("is_fraud", BOOL),
    )
    roles = {"event_id": "id", "ingest_time": "arrived_at", "dedup_horizon_ms": DAY_MS}
    files = BatchPlan("parquet", path)
    return source_plan(
        **{"columns": columns, "name": "payments", "batch": files, **roles, **changes}
    )


def build(settings: Settings, plan: SourcePlan, start: int, end: int) -> BuildReport:
    days = Days(FIRST + timedelta(days=start), FIRST + timedelta(days=end))
    return LakeBuilds(settings).build_events(plan, (), days, progress=lambda _: None)


def rows_of(settings: Settings, table: str = "events/payments") -> list[dict[str, Any]]:
    found = DeltaTable(f"{settings.lake}/{table}").to_pyarrow_table().to_pylist()
    return sorted(found, key=lambda r: json.dumps(r, default=str))


def instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, tz=UTC)


def write_events(path: Path, events: Sequence[reference.Event]) -> None:
    """Write events as raw rows; the value is whole cents, as a double, as files often have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": pa.array([e.event_id for e in events], pa.string()),
            "at": pa.array(
                [None if e.event_ms is None else e.event_ms * 1000 for e in events],
                pa.timestamp("us"),
            ),
            "arrived_at": pa.array([e.ingest_ms * 1000 for e in events], pa.timestamp("us")),
            "who": pa.array([e.key for e in events], pa.int32()),
            "amount": pa.array([e.value for e in events], pa.float64()),
            "is_fraud": pa.array([(e.ingest_ms // 7) % 2 for e in events], pa.int8()),
        }
    )
    pq.write_table(table, path)


def awkward_events() -> list[reference.Event]:
    """Three days of events: ties, late, future, clamped, duplicates within and across days."""
    events = []
    for i in range(600):
        at = START_MS + i * 431_987
        lag = (0, 0, 3, 900, 59 * 60_000, HOUR_MS, HOUR_MS + 1, -4_000, -5_000, -5_001)[i % 10]
        key = None if i % 37 == 0 else i % 5
        events.append(reference.Event(key, at, at + lag, float(i) / 4, f"e{i}"))
    again = [
        reference.Event(e.key, e.event_ms, e.ingest_ms + 10_000, -1.0, e.event_id)
        for e in events[::11]
    ]
    elsewhere = [
        reference.Event(
            e.key, (e.event_ms or 0) + DAY_MS // 2, e.ingest_ms + DAY_MS // 2, -2.0, e.event_id
        )
        for e in events[::13]
    ]
    undated = [reference.Event(1, None, START_MS + 5, 1.0, "undated")]
    return [*events, *again, *elsewhere, *undated]


def expected(events: Sequence[reference.Event], start: int, end: int) -> list[tuple[Any, ...]]:
    judged = reference.judge(events, allowed_lateness_ms=HOUR_MS, clock_skew_ms=5_000)
    low, high = START_MS + start * DAY_MS, START_MS + end * DAY_MS
    kept = [e for e in reference.accepted(judged) if low <= (e.event_ms or 0) < high]
    return sorted((e.event_id, e.event_ms, e.ingest_ms, str(e.key), e.value) for e in kept)


def found(settings: Settings) -> list[tuple[Any, ...]]:
    return sorted(
        (r["id"], r["_event_ms"], r["_ingest_ms"], str(r["who"]), float(r["amount"]))
        for r in rows_of(settings)
    )


def test_verdicts_are_the_oracles_and_a_day_at_a_time_gives_the_same_as_the_whole_range(
    settings: Settings, tmp_path: Path
) -> None:
    events = awkward_events()
    write_events(tmp_path / "data" / "all.parquet", events)
    report = build(settings, source(), 0, 4)
    whole = rows_of(settings)
    assert found(settings) == expected(events, 0, 4)

    for day in range(4):
        build(settings, source(), day, day + 1)
    assert rows_of(settings) == whole

    judged = reference.judge(events, allowed_lateness_ms=HOUR_MS, clock_skew_ms=5_000)
    verdicts = [v for v, e in judged if e.event_ms is not None]
    assert sum(o.duplicates for o in report.outcomes) == verdicts.count("duplicate")
    for reason in ("late", "future"):
        counted = sum(o.dead_letters.get(reason, 0) for o in report.outcomes)
        assert counted == verdicts.count(reason)


def test_dead_letters_keep_the_raw_row_and_are_not_doubled_by_a_second_run(
    settings: Settings, tmp_path: Path
) -> None:
    events = awkward_events()
    write_events(tmp_path / "data" / "all.parquet", events)
    build(settings, source(), 0, 4)
    dead_letters = rows_of(settings, "dead_letters/payments")
    build(settings, source(), 0, 4)
    assert rows_of(settings, "dead_letters/payments") == dead_letters

    judged = reference.judge(events, allowed_lateness_ms=HOUR_MS, clock_skew_ms=5_000)
    dead = sorted(v for v, _ in judged if v in {"late", "future", "schema"})
    assert sorted(r["reason"] for r in dead_letters) == dead
    undated = next(r for r in dead_letters if r["reason"] == "schema")
    assert json.loads(undated["payload"])["id"] == "undated"


def test_cells_that_do_not_convert_are_dead_letters_and_the_rest_is_kept(
    settings: Settings, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "day.csv").write_text(
        "id,at,arrived_at,who,amount,is_fraud\n"
        "a,2024-03-01T10:00:00Z,2024-03-01T10:00:01Z,1,2.50,true\n"
        "b,2024-03-01T10:00:00Z,2024-03-01T10:00:01Z,one,2.50,true\n"
        "c,1709287200000,1709287201000,2,,false\n"
        "d,yesterday,2024-03-01T10:00:01Z,2,1,false\n"
    )
    plan = source(batch=BatchPlan("csv", "${MILLRACE_DATA}"))
    build(settings, plan, 0, 1)
    rows = {r["id"]: r for r in rows_of(settings)}
    assert set(rows) == {"a", "c"}
    assert rows["a"]["amount"] == Decimal("2.50")
    assert rows["c"]["amount"] is None
    assert rows["c"]["_event_ms"] == 1_709_287_200_000
    assert [r["reason"] for r in rows_of(settings, "dead_letters/payments")] == ["schema"] * 2


def daily_files(folder: Path, days: int) -> None:
    for day in range(days):
        at = START_MS + day * DAY_MS + HOUR_MS
        events = [reference.Event(k, at + k, at + k, 1.0, f"{day}-{k}") for k in range(20)]
        write_events(folder / f"{FIRST + timedelta(days=day)}.parquet", events)


@pytest.mark.parametrize("damage", ["truncated", "garbled pages", "no event id", "text amounts"])
def test_a_broken_file_fails_its_day_by_name_and_the_others_are_committed(
    settings: Settings, tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "data"
    daily_files(folder, 5)
    bad = folder / f"{FIRST + timedelta(days=2)}.parquet"
    healthy = bad.read_bytes()
    if damage == "truncated":
        bad.write_bytes(healthy[: len(healthy) // 2])
    elif damage == "garbled pages":
        bad.write_bytes(
            healthy[:4] + b"\xff" * (len(healthy) // 2) + healthy[4 + len(healthy) // 2 :]
        )
    elif damage == "no event id":
        pq.write_table(pq.read_table(bad).drop_columns(["id"]), bad)
    else:
        table = pq.read_table(bad)
        texts = pa.array(["x"] * table.num_rows)
        pq.write_table(table.set_column(4, "amount", texts), bad)

    report = build(settings, source(), 0, 5)
    (failed,) = report.failed
    assert failed.day == FIRST + timedelta(days=2)
    assert bad.name in (failed.error or "")
    assert {r["event_date"] for r in rows_of(settings)} == {
        FIRST + timedelta(days=d) for d in (0, 1, 3, 4)
    }

    bad.write_bytes(healthy)
    assert build(settings, source(), 2, 3).failed == ()
    assert len(rows_of(settings)) == 100


def test_an_empty_day_is_built_and_empties_what_was_there(
    settings: Settings, tmp_path: Path
) -> None:
    daily_files(tmp_path / "data", 2)
    build(settings, source(), 0, 3)
    (tmp_path / "data" / f"{FIRST}.parquet").unlink()
    report = build(settings, source(), 0, 3)
    assert [o.rows for o in report.outcomes] == [0, 20, 0]
    assert report.failed == ()


def test_days_that_no_file_holds_are_empty_alone_as_among_others(
    settings: Settings, tmp_path: Path
) -> None:
    daily_files(tmp_path / "data", 2)
    report = build(settings, source(), 20, 22)
    assert [(o.rows, o.error) for o in report.outcomes] == [(0, None)] * 2


REACHING = """
version: millrace/v1
sources:
  - name: payments
    columns: {id: string, at: timestamp, arrived_at: timestamp, who: int64, amount: "decimal(12,2)"}
    event_time: at
    event_id: id
    ingest_time: arrived_at
    batch: {format: parquet, path: "${MILLRACE_DATA}/{date}.parquet"}
entities: [{name: payer, join_key: who, type: int64}]
feature_views:
  - name: counts
    entity: payer
    source: payments
    start: 2024-03-01
    features: [{name: n_7d, aggregate: count, window: 7d}]
"""


def test_a_day_in_reach_whose_file_has_not_come_is_left_out_until_it_comes(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "views.yaml").write_text(REACHING, encoding="utf-8")
    plan = plan_of([tmp_path / "views.yaml"])
    payments, views = plan.sources["payments"], plan.views_of("payments")
    daily_files(tmp_path / "data", 3)
    first, late, newest = (FIRST + timedelta(days=n) for n in range(3))
    (tmp_path / "data" / f"{late}.parquet").rename(tmp_path / "late.parquet")

    def build_day(day: date) -> list[tuple[date, int]]:
        days = Days(day, day + timedelta(days=1))
        store = LakeBuilds(settings)
        report = store.build_events(payments, views, days, progress=lambda _: None)
        return [(one.day, one.rows) for one in report.outcomes]

    assert build_day(newest) == [(first, 20), (newest, 20)]
    (tmp_path / "late.parquet").rename(tmp_path / "data" / f"{late}.parquet")
    assert build_day(late) == [(late, 20)]
    log, arrivals = (
        read_partition_log(settings, "events/payments"),
        Arrivals.look(payments, settings),
    )
    built_from = {day: state.files for day, state in log.items()}
    assert built_from == {day: arrivals.signature(day) for day in (first, late, newest)}
    assert all(built_from.values())


def test_a_path_that_is_not_there_says_so(settings: Settings) -> None:
    with pytest.raises(DataError, match=r"does not exist[\s\S]*MILLRACE_DATA"):
        build(settings, source("${MILLRACE_DATA}/nowhere"), 0, 1)
