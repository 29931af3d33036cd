"""Instants at the ends of the calendar and beyond it, through real Spark and Delta."""

from collections import Counter
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from millrace.calendar import FIRST_DAY, FIRST_MS, LAST_DAY, LAST_MS, day_of
from millrace.days import Days
from offline.training.sets import build_training_set
from resources.lake.delta import open_dataset
from resources.lake.reports import BuildReport
from resources.settings import Settings
from tests.support.far_cases import (
    INSTANTS,
    as_ms,
    far_plan,
    far_rows,
    far_spine,
    far_value,
    write_far_lake,
)
from tests.support.lake_builds import LakeBuilds

pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

BOTH_ENDS = (
    Days.through(FIRST_DAY, date(1, 1, 2)),
    Days.through(date(9999, 12, 30), LAST_DAY),
)


def write_raw(folder: Path) -> int:
    """Write the instants, and beside them rows that no calendar has; return how many of these."""
    folder.mkdir(parents=True)
    good = far_rows()
    pq.write_table(good, folder / "good.parquet", row_group_size=7)
    some = pa.concat_tables([good.slice(0, 3), good.slice(0, 2)])  # of the days that are built
    beyond = [FIRST_MS - 1, LAST_MS + 1, 2**63 // 1000 - 1, -(2**63) // 1000 + 1, 10**15]
    micros = pa.array([at * 1000 for at in beyond], pa.timestamp("us", "UTC"))
    dates = pa.array([-719_163, 2_932_897, 2**31 - 1, -(2**31), 19_795 * 1000], pa.int32())
    bad = {
        "at": some.set_column(0, "at", micros),
        "seen": some.set_column(3, "seen", micros),
        "due": some.set_column(4, "due", dates.cast(pa.date32())),
        "millis": some.set_column(0, "at", pa.array([2**63 - 1, -(2**63)] * 2 + [10**18], pa.timestamp("ms"))),
        "nanos_as_int": some.set_column(0, "at", pa.array([1_709_287_200 * 10**9] * 5, pa.int64())),
    }  # fmt: skip
    for name, table in bad.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return sum(map(len, bad.values()))


def rows_of(settings: Settings, table: str) -> pa.Table:
    return open_dataset(DeltaTable(f"{settings.lake}/{table}")).to_table()


def test_both_ends_are_built_beside_rows_that_no_calendar_has(
    settings: Settings, tmp_path: Path
) -> None:
    plan, folder = far_plan(tmp_path / "views"), Path(settings.data or "")
    dead = write_raw(folder)
    source, view, store = plan.sources["orders"], plan.views["buyers"], LakeBuilds(settings)
    reports: list[BuildReport] = []
    for days in BOTH_ENDS:
        reports += [
            store.build_events(source, [], days, progress=print),
            store.build_tiles(view, days, progress=print),
            store.build_features(view, days, progress=print),
        ]
    assert [r.failed for r in reports] == [()] * 6
    held = sorted(at for at in INSTANTS if any(day_of(at) in days for days in BOTH_ENDS))
    assert sorted(rows_of(settings, "events/orders")["_event_ms"].to_pylist()) == held

    features = rows_of(settings, "features/buyers/v1").sort_by("event_time")
    assert as_ms(features["event_time"]) == held
    assert features["event_date"].to_pylist() == [day_of(at) for at in held]
    for feature in view.features:
        expected = [far_value(view, feature, at) for at in held]
        assert as_ms(features[feature.name]) == expected, feature.name
    tiles = rows_of(settings, "tiles/buyers/v1")
    hop = view.tile_hop_ms
    assert sorted(tiles["tile_start_ms"].to_pylist()) == sorted({at // hop * hop for at in held})
    for name in ("events/orders", "features/buyers/v1"):
        for path in Path(settings.lake, name).rglob("*.parquet"):
            assert "INT96" not in str(pq.ParquetFile(path).schema).upper()

    dead_letters = rows_of(settings, "dead_letters/orders")
    assert Counter(dead_letters["reason"].to_pylist()) == {"schema": dead}
    assert dead_letters["detail"].null_count == 0

    # What was written once hinders no build after it, and comes again no second time.
    again = store.build_events(source, [], BOTH_ENDS[1], progress=print)
    assert [o.rows for o in again.built] == [o.rows for o in reports[3].built]
    assert sorted(rows_of(settings, "events/orders")["_event_ms"].to_pylist()) == held
    assert len(rows_of(settings, "dead_letters/orders")) == dead


def test_spark_joins_from_the_first_to_the_last_instant(settings: Settings, tmp_path: Path) -> None:
    plan = far_plan(tmp_path / "views")
    write_far_lake(settings, plan.sources["orders"])
    spine, out = tmp_path / "spine.parquet", tmp_path / "out.parquet"
    pq.write_table(far_spine(), spine)
    build_training_set(settings, plan, spine, ["buyers:*"], out, engine="spark")
    found, view = pq.read_table(out), plan.views["buyers"]
    for feature in view.features:
        expected = [far_value(view, feature, q) for q in as_ms(far_spine()["event_timestamp"])]
        assert as_ms(found[feature.name]) == expected, feature.name
