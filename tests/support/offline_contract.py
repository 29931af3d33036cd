"""What the steps of a run rely on, whatever the offline tables are; the fake and the lake keep it."""

from collections.abc import Sequence

from feature_assets.offline import OfflineTables
from millrace.days import Days
from millrace.plan import SourcePlan, ViewPlan
from offline.tables.stages import tables_of


def check_offline_tables(
    offline: OfflineTables, source: SourcePlan, views: Sequence[ViewPlan], days: Days
) -> None:
    """Plan, build and judge all tables; the events of all days must be there to be built."""
    stages = offline.plan(source, views, days)
    assert [stage.table for stage in stages] == list(tables_of(source, views))
    for stage in stages:
        report = offline.build(stage, progress=print)
        assert (report.table, report.version) == (stage.name, stage.version)
        assert sorted(o.day for o in report.built) == sorted(stage.written)
        if stage.table.kind != "tiles":
            judged = offline.judge(stage.table, views, report, publish=True, progress=print)
            assert (judged.table, judged.held) == (report.table, {})
            assert {day.day for day in judged.days} == set(stage.written)
            stands, again = offline.judge_again(stage.table, views, days)
            assert (stands.table.startswith(stage.table.name), stands.outcomes) == (True, ())
            assert {day.day for day in again.days} <= set(days)
        assert offline.standing(stage.table, days, 1) == set(days)
    first = next(iter(days))
    left = {stage.table.name: {first: "cut off"} for stage in stages}
    for before, now in zip(stages, offline.plan(source, views, days, skipped=left), strict=True):
        assert set(now.days or ()) == set(before.days or ()) - {first}
        assert now.skipped == {first: "cut off"}
    [one] = offline.plan(source, views, days, tables=[stages[-1].table.name])
    assert one.table == stages[-1].table
