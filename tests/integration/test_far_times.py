"""Instants at the ends of the calendar and beyond, through files, tables and training sets.

Both ends of the years 1 to 9999, the edges of nanoseconds, of 1582, of 1970 and of leap days.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.calendar import FIRST_MS, LAST_MS, day_number, day_of, day_ms, to_date
from millrace.durations import DAY_MS
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.archived_days import archived_rows, letters_of_files
from resources.declarations import plan_of
from resources.lake import open_dataset, open_table, partition_stats
from resources.offline import OfflineStore
from resources.reports import BuildReport, Days
from resources.settings import Settings
from tests import reference

pytestmark = pytest.mark.services

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
      - {name: seen_7d, aggregate: max, column: seen, window: 7d}
"""

EDGES = (
    FIRST_MS,
    day_ms(date(1582, 10, 15)),
    -9_223_372_036_855,
    0,
    day_ms(date(2000, 3, 1)),
    9_223_372_036_854,
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
AROUND = [Days.through(day_of(edge - DAY_MS), day_of(edge + DAY_MS)) for edge in EDGES]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    file = tmp_path / "far.yaml"
    file.write_text(DECLARED, encoding="utf-8")
    return plan_of([file])


def rows(instants: Sequence[int]) -> pa.Table:
    micros = pa.array([at * 1000 for at in instants], pa.timestamp("us"))
    return pa.table(
        {
            "at": micros,
            "who": ["a"] * len(instants),
            "amount": pa.array(range(len(instants)), pa.int64()),
            "seen": micros,
            "due": pa.array([at // DAY_MS for at in instants], pa.int32()).cast(pa.date32()),
        }
    )


def test_explore(settings: Settings, plan: Plan) -> None:
    folder = Path(settings.data or "")
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows(INSTANTS), folder / "all.parquet")
    store = OfflineStore(settings)
    source, view = plan.sources["orders"], plan.views["buyers"]
    for days in AROUND:
        import time

        t = time.time()
        for what in ("events", "tiles", "features"):
            try:
                if what == "events":
                    r = store.build_events(source, [view], days, progress=print)
                elif what == "tiles":
                    r = store.build_tiles(view, days, progress=print)
                else:
                    r = store.build_features(view, days, progress=print)
                print(
                    what,
                    days,
                    [(o.day.isoformat(), o.rows, o.error) for o in r.outcomes if o.rows or o.error],
                    len(r.outcomes),
                )
            except Exception as e:
                import traceback

                traceback.print_exc()
        print(time.time() - t)
    t = open_dataset(open_table(settings, "events/orders")).to_table()
    print(sorted(t["_event_ms"].to_pylist()) == INSTANTS, INSTANTS)
    for r in t.sort_by("_event_ms").to_pylist():
        print(r)
    t = open_dataset(open_table(settings, "features/buyers/v1")).to_table()
    for r in t.sort_by("event_time").to_pylist():
        print(r)
    import glob

    print(pq.ParquetFile(glob.glob(f"{settings.lake}/features/buyers/v1/*/*.parquet")[0]).schema)
    assert False
