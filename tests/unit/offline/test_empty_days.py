"""Days that are declared empty: no check finds fault with them, unless data came all the same."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from checks.quality.gate import JudgedTable, judge_build
from checks.quality.profiles_table import StoredDay, write_profiles
from millrace.quality.profile import DayProfile
from offline.tables.partition_log import append_partition_log, published_days, read_partition_log
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.settings import settings_from_env
from tests.support.fake_offline import DECLARATIONS

FRIDAY, SATURDAY, HOLIDAY = date(2020, 3, 6), date(2020, 3, 7), date(2020, 3, 9)
NOW_MS = int(datetime(2020, 3, 20, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("day", [FRIDAY, SATURDAY, HOLIDAY])
@pytest.mark.parametrize("table", ["events", "features"])
def test_nothing_is_wrong_with_a_day_that_is_declared_empty(
    tmp_path: Path, table: str, day: date
) -> None:
    file = tmp_path / "payments.yaml"
    empty = "lateness: 90m\n    empty_days: [saturday, 2020-03-09]"
    file.write_text(DECLARATIONS.replace("lateness: 90m", empty), encoding="utf-8")
    plan = plan_of([file])
    settings = settings_from_env({"MILLRACE_LAKE": str(tmp_path / "lake")})
    view = plan.views["spend"]
    judged = (
        JudgedTable.of_source(view.source, plan.views_of("payments"))
        if table == "events"
        else JudgedTable.of_view(view, "v1")
    )
    # Enough of a past for every rule to know what is usual.
    past = [DayProfile(judged.name, day - timedelta(days=n), 500) for n in range(1, 40)]
    write_profiles(settings, judged.name, [StoredDay(one, "", ()) for one in past])
    report = BuildReport(judged.name, None, 1, (PartitionOutcome(day),))
    append_partition_log(settings, report, judged.fingerprint)

    found = judge_build(settings, judged, report, lambda _: None, now_ms=NOW_MS)

    alarms = {
        finding.rule.type for one in found.days for finding in one.findings if finding.is_alarm
    }
    assert alarms == ({"rows", "volume"} if day == FRIDAY else set())
    states = read_partition_log(settings, judged.name)
    assert (day in published_days(states, judged.fingerprint)) == (not found.held)
