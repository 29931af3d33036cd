"""Instants at and around every edge that a calendar or an engine has, and what the oracle says."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from millrace.calendar import FIRST_DAY, FIRST_MS, LAST_MS, day_ms, day_of
from millrace.durations import DAY_MS
from millrace.kernel.arrow import arrow_type
from millrace.plan import FeaturePlan, Plan, SourcePlan, ViewPlan
from offline.tables.partition_log import append_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import Settings
from tests import reference
from tests.support.oracle import oracle_feature

DECLARED = """
version: millrace/v1
sources:
  - name: orders
    columns: {at: timestamp, who: string, amount: int64, seen: timestamp, due: date}
    event_time: at
    batch: {format: parquet, path: "${MILLRACE_DATA}"}
entities:
  - {name: buyer, join_key: who, type: string}
feature_views:
  - name: buyers
    entity: buyer
    source: orders
    start: 0001-01-01
    features:
      - {name: n_1h, aggregate: count, window: 1h}
      - {name: n_7d, aggregate: count, window: 7d, hop: 1d}
      - {name: sum_30d, aggregate: sum, column: amount, window: 30d, offset: 1d, hop: 1d}
      - {name: due_7d, aggregate: last, column: due, window: 7d}
      - {name: seen_10y, aggregate: max, column: seen, window: 3650d, hop: 3650d}
"""

EDGES = (
    FIRST_MS,
    day_ms(date(1582, 10, 15)),  # where another calendar has a gap of ten days
    -(2**63) // 1_000_000,  # nanoseconds of 64 bits begin and end
    2**63 // 1_000_000,
    day_ms(date(1900, 3, 1)),  # no leap year, and one
    day_ms(date(2000, 3, 1)),
    0,
    LAST_MS + 1,
)

INSTANTS = sorted(
    {
        at
        for edge in EDGES
        for at in (edge - DAY_MS, edge - 1, edge, edge + 1, edge + DAY_MS)
        if FIRST_MS <= at <= LAST_MS
    }
)


def far_plan(folder: Path) -> Plan:
    """Return the plan of the declarations, written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "far.yaml"
    file.write_text(DECLARED, encoding="utf-8")
    return plan_of([file])


def far_rows(instants: Sequence[int] = INSTANTS) -> pa.Table:
    """Return a row of one buyer for each instant: its number as amount, itself as other times."""
    micros = pa.array([at * 1000 for at in instants], pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "at": micros,
            "who": ["a"] * len(instants),
            "amount": pa.array([INSTANTS.index(at) for at in instants], pa.int64()),
            "seen": micros,
            "due": pa.array([at // DAY_MS for at in instants], pa.int32()).cast(pa.date32()),
        }
    )


def write_far_lake(settings: Settings, source: SourcePlan) -> None:
    """Write ``events/orders`` with all of the instants, and its partition log."""
    rows = far_rows()
    columns = {c.name: rows[c.name].cast(arrow_type(c.type)) for c in source.columns}
    times = pa.array(INSTANTS, pa.int64())
    days = [day_of(at) for at in INSTANTS]
    table = pa.table({**columns, "_event_ms": times, "_ingest_ms": times, "event_date": days})
    path = f"{settings.lake}/events/{source.name}"
    write_deltalake(path, table, partition_by=["event_date"])
    outcomes = tuple(PartitionOutcome(day, rows=days.count(day)) for day in sorted(set(days)))
    report = BuildReport(f"events/{source.name}", None, 0, outcomes)
    append_partition_log(settings, report, source.fingerprint)


def far_value(view: ViewPlan, feature: FeaturePlan, query_ms: int) -> object:
    """Return what the oracle says of the buyer at an instant; instants as epoch milliseconds."""
    column = "" if feature.measure is None else feature.measure.expression.columns[0]
    events = [
        reference.Event("a", at, at, {"amount": i, "seen": at, "due": day_of(at)}.get(column))
        for i, at in enumerate(INSTANTS)
    ]
    asked = oracle_feature(feature)
    return reference.value(events, asked, "a", query_ms, start_ms=view.start_ms)


def as_ms(column: pa.ChunkedArray) -> list[Any]:
    """Return values as plain ones; instants as epoch milliseconds."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms", "UTC")).cast(pa.int64())
    return list(column.to_pylist())


def far_spine() -> pa.Table:
    """Return a row for each instant and for those beside it, as far as there are such."""
    assert day_of(INSTANTS[0]) == FIRST_DAY
    asked = sorted({q for at in INSTANTS for q in (at - 1, at, at + 1) if FIRST_MS <= q <= LAST_MS})
    times = pa.array(asked, pa.timestamp("ms", "UTC"))
    return pa.table({"who": ["a"] * len(asked), "event_timestamp": times})
