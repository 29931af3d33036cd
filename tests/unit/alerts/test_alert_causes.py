"""The graph of causes, as the code location declares it."""

from pathlib import Path

from alerts.causes import CHECK_ORDER
from jobs.alerts.causes import FARTHEST_DAYS, causes_of
from jobs.definitions import build_definitions
from millrace.quality.judge import MEASURES
from resources.dagster.asset_keys import daily_job
from tests.support.fake_offline import plan_in
from tests.support.stream_fakes import fake_engines


def test_causes_run_along_the_graph_windows_reach_back_and_ticks_build(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    engines = fake_engines(tmp_path)
    defs = build_definitions(plan, engines.settings, engines=engines)
    causes = causes_of(defs.get_repository_def(), plan)
    assert {"events/payments_events", "raw/payments_files"} <= set(
        causes.upstream["features/spend"]
    )
    assert "features/spend" not in causes.upstream["events/payments_events"]
    for view in plan.views.values():
        reach_days = causes.reach[f"features/{view.name}"]
        assert 1 <= reach_days <= FARTHEST_DAYS
    assert {"events/payments_events", "features/spend"} <= set(causes.builds[daily_job("payments")])


def test_every_check_has_its_place_among_causes() -> None:
    assert set(CHECK_ORDER) == set(MEASURES)
