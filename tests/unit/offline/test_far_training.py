"""Training sets and parity's recomputation at the ends of the calendar, in process."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from checks.parity.recomputing import Recomputer
from millrace.plan import Plan
from offline.tables.history import find_history, reached_days
from offline.training.sets import build_training_set
from resources.settings import Settings, settings_from_env
from tests.support.far_cases import INSTANTS, as_ms, far_plan, far_spine, far_value, write_far_lake


@pytest.fixture
def lake(tmp_path: Path) -> Settings:
    return replace(settings_from_env({"MILLRACE_LINEAGE": "none"}), lake=str(tmp_path / "lake"))


@pytest.fixture
def plan(lake: Settings, tmp_path: Path) -> Plan:
    plan = far_plan(tmp_path / "views")
    write_far_lake(lake, plan.sources["orders"])
    return plan


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_spine_reaches_from_the_first_to_the_last_instant(
    lake: Settings, plan: Plan, tmp_path: Path, ending: str
) -> None:
    spine, out = tmp_path / f"spine.{ending}", tmp_path / "out.parquet"
    (pq.write_table if ending == "parquet" else pc.write_csv)(far_spine(), spine)
    report = build_training_set(lake, plan, spine, ["buyers:*"], out, engine="local")
    assert report.rows == len(far_spine())
    found, view = pq.read_table(out), plan.views["buyers"]
    asked = as_ms(far_spine()["event_timestamp"])
    assert as_ms(found["event_timestamp"]) == asked
    for feature in view.features:
        expected = [far_value(view, feature, q) for q in asked]
        assert as_ms(found[feature.name]) == expected, feature.name


def test_a_served_answer_is_recomputed_at_any_instant(lake: Settings, plan: Plan) -> None:
    view = plan.views["buyers"]
    recomputer = Recomputer(lake, view, [("a",)], INSTANTS)
    found = recomputer.at([(("a",), at) for at in INSTANTS])
    for at, one in zip(INSTANTS, found, strict=True):
        assert one.values == {f.name: far_value(view, f, at) for f in view.features}


def test_a_window_reaches_no_further_than_the_calendar(lake: Settings, plan: Plan) -> None:
    view = plan.views["buyers"]
    queries = pa.array([INSTANTS[0], INSTANTS[0] + 1, INSTANTS[-1]], pa.int64())
    reached = reached_days(view, queries)
    assert reached[0].start.isoformat() == "0001-01-01"
    assert reached[-1].last.isoformat() == "9999-12-31"
    history = find_history(lake, view, queries)
    [never] = [w for w in history.warnings if w.code == "days_never_built"]
    assert never.days[0].start >= reached[0].start
    assert sum(map(len, never.days)) + len(history.days) == sum(map(len, reached))
    assert never.fix.endswith("--end 9999-12-31")  # what lies behind was built
