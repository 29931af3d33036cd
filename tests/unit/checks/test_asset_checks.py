"""Checks of built days: what runs tell Dagster about each day, and what is held back."""

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy.exc import OperationalError

from checks.quality import evaluation_log, evaluations
from feature_assets.reporting import step_name
from jobs.definitions import build_definitions
from millrace.errors import EngineError
from resources.settings import settings_from_env
from tests.support.fake_offline import FakeOffline, plan_in

EVENTS, TILES, FEATURES = (
    dg.AssetKey(path)
    for path in (("events", "payments_events"), ("tiles", "spend_tiles"), ("features", "spend"))
)
ROWS = dg.AssetCheckKey(EVENTS, "rows")
SPOILT = {"events/payments": {date(2020, 1, 4): "0; expected at least 1"}}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Run:
    """One run over a range of days or a single one, and the evaluations it stored."""

    def __init__(
        self,
        folder: Path,
        instance: dg.DagsterInstance,
        offline: FakeOffline,
        *days: str,
        config: dict[str, Any] | None = None,
        assets: Sequence[dg.AssetKey] = (EVENTS, TILES, FEATURES),
    ) -> None:
        defs = build_definitions(plan_in(folder), settings_from_env({}), offline=offline)
        first, last = days[0], days[-1]
        self.graph = defs.resolve_asset_graph()
        self.partitions: Any = self.graph.get(EVENTS).partitions_def
        self.instance = instance
        self.result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=list(assets),
            partition_key=first if len(days) == 1 else None,
            tags={}
            if len(days) == 1
            else {
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            },
            run_config={"ops": {step_name(key): {"config": config} for key in (EVENTS, FEATURES)}}
            if config
            else None,
            raise_on_error=False,
        )

    def evaluations(self, key: dg.AssetCheckKey) -> dict[str | None, dg.AssetCheckEvaluation]:
        told = stored_evaluations(self.instance, self.result)
        return {e.partition: e for e in told if e.asset_check_key == key}

    def checks(self, *assets: dg.AssetKey) -> list[dg.AssetCheckKey]:
        return [key for key in self.graph.asset_check_keys if key.asset_key in assets]

    def statuses(self, key: dg.AssetCheckKey) -> dict[str, list[int]]:
        """The status of each day as the UI shows it."""
        storage = self.instance.event_log_storage
        state = storage.get_asset_check_state([(key, self.partitions)])[key]
        return {
            status.value: [
                int(day[-2:]) for day in sorted(subset.subset_value.get_partition_keys())
            ]
            for status, subset in state.subsets.items()
            if not subset.is_empty
        }

    @property
    def failure(self) -> str:
        told: list[Any] = [
            e.step_failure_data.user_failure_data
            for e in self.result.all_events
            if e.is_step_failure
        ]
        return "\n".join(str(one.description) for one in told)


def test_each_day_of_a_range_has_its_own_status_in_the_ui(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(spoilt=SPOILT), "2020-01-02", "2020-01-06")
    assert run.statuses(ROWS) == {"FAILED": [4], "SUCCEEDED": [2, 3, 5, 6]}
    of_features = dg.AssetCheckKey(FEATURES, "volume")
    assert "FAILED" not in run.statuses(of_features)


def test_a_day_that_could_not_be_built_leaves_its_checks_as_they_were(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    Run(tmp_path, instance, FakeOffline(), "2020-01-02")
    broken = {"events/payments": {date(2020, 1, day): "cannot be read" for day in (2, 4)}}
    run = Run(tmp_path, instance, FakeOffline(bad=broken), "2020-01-02", "2020-01-06")
    assert not run.result.success
    assert run.statuses(ROWS) == {"SUCCEEDED": [2, 3, 5, 6]}
    for check in run.checks(EVENTS, FEATURES):
        assert "EXECUTION_FAILED" not in run.statuses(check), check


def test_a_single_day_that_could_not_be_built_fails_no_check(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    broken = {"events/payments": {date(2020, 1, 4): "cannot be read"}}
    run = Run(tmp_path, instance, FakeOffline(bad=broken), "2020-01-04")
    assert not run.result.success
    assert all(run.statuses(check) == {} for check in run.checks(EVENTS, FEATURES))


def test_a_database_that_takes_nothing_back_does_not_hide_why_the_step_failed(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OperationalError("DELETE", {}, Exception("database is locked"))

    monkeypatch.setattr(evaluation_log, "_withdraw_planned", refuse)
    broken = {"events/payments": {date(2020, 1, 4): "cannot be read"}}
    run = Run(tmp_path, instance, FakeOffline(bad=broken), "2020-01-04")
    assert "cannot be read" in run.failure


def test_a_step_that_breaks_fails_no_check(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-03")
    broken = FakeOffline(crashes={"events/payments": [RuntimeError("of ours")]})
    run = Run(tmp_path, instance, broken, "2020-01-03")
    assert not run.result.success
    assert run.statuses(ROWS) == {"SUCCEEDED": [2, 3]}


def test_the_check_as_a_whole_names_the_bad_days_after_a_range(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(spoilt=SPOILT), "2020-01-02", "2020-01-06")
    together = run.evaluations(ROWS)[None]
    assert not together.passed
    assert together.severity is dg.AssetCheckSeverity.ERROR
    assert together.description == (
        "1 of 5 days are bad.\n2020-01-04: rows: 0; expected at least 1"
    )
    assert together.metadata["bad_days"].value == 1
    assert "| error | 1 |" in str(together.metadata["by_rule"].value)


def test_a_day_that_a_blocking_check_fails_is_held_back_in_every_table(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(spoilt=SPOILT), "2020-01-02", "2020-01-06")
    assert not run.result.success
    held = "2020-01-04: held back: rows: 0; expected at least 1"
    assert f"events/payments_events: {held}" in run.failure
    assert "features/spend: 2020-01-04: events/payments_events failed: held back" in run.failure
    newest = instance.event_log_storage.get_latest_storage_id_by_partition(
        EVENTS, dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    assert sorted(newest) == ["2020-01-02", "2020-01-03", "2020-01-05", "2020-01-06"]
    judged = run.evaluations(dg.AssetCheckKey(EVENTS, "rows"))["2020-01-04"]
    unseen = "do not see 2020-01-04 of events/payments: it is held back"
    assert judged.metadata["readers"].value == unseen


def test_a_bad_day_says_what_was_found_who_owns_it_and_what_to_do(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    spoilt = {"features/spend": {date(2020, 1, 4): "0; expected at least 1"}}
    run = Run(tmp_path, instance, FakeOffline(spoilt=spoilt), "2020-01-02", "2020-01-06")
    evaluations = run.evaluations(dg.AssetCheckKey(FEATURES, "rows"))
    found = evaluations["2020-01-04"]
    assert found.metadata["owner"].value == "payments@example.com"
    assert "runbooks" in str(found.metadata["runbook"].value)
    unseen = "do not see 2020-01-04 of features/spend/v1: it is held back"
    assert found.metadata["readers"].value == unseen
    listed: Any = found.metadata["findings"].value
    [finding] = listed
    assert finding["actual"] == "14"
    assert str(found.metadata["over_time"].value).startswith(
        "![rows by day](data:image/png;base64,"
    )
    assert "over_time" in evaluations[None].metadata
    assert "over_time" not in evaluations["2020-01-03"].metadata


def test_of_checks_that_pass_only_those_that_people_watch_are_pictured(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    run = Run(tmp_path, instance, FakeOffline(), "2020-01-02", "2020-01-06")
    pictured = {
        name: "over_time" in run.evaluations(dg.AssetCheckKey(FEATURES, name))[None].metadata
        for name in ("rows", "volume")
    }
    assert pictured == {"rows": False, "volume": True}


def test_a_run_over_many_tables_pictures_bad_days_alone(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluations, "_MOST_TABLES_PICTURED", 2)
    spoilt = {"features/spend": {date(2020, 1, 4): "0; expected at least 1"}}
    run = Run(tmp_path, instance, FakeOffline(spoilt=spoilt), "2020-01-02", "2020-01-06")
    pictured = {
        name: "over_time" in run.evaluations(dg.AssetCheckKey(FEATURES, name))[None].metadata
        for name in ("rows", "volume")
    }
    assert pictured == {"rows": True, "volume": False}


@pytest.mark.parametrize(
    ("days", "judged"),
    [((), {3, 4, 5}), (("2020-01-04",), {4}), (("2020-01-03", "2020-01-04"), {3, 4})],
)
def test_checks_that_are_run_alone_judge_what_is_built(
    tmp_path: Path, instance: dg.DagsterInstance, days: Sequence[str], judged: set[int]
) -> None:
    built = tuple(date(2020, 1, day) for day in (3, 4, 5))
    offline = FakeOffline(judged_before=built, spoilt=SPOILT)
    result = run_checks(tmp_path, instance, offline, days)
    assert result.success
    assert offline.calls == [], "nothing is built"
    told = {e.partition: e.passed for e in stored_evaluations(instance, result)}
    of_days: dict[str | None, bool] = {f"2020-01-0{day}": day != 4 for day in judged}
    assert told == (of_days if len(days) == 1 else {**of_days, None: False})


def test_checks_of_what_was_never_built_fail_and_say_what_to_do(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    result = run_checks(tmp_path, instance, FakeOffline(), ())
    assert not result.success
    [failed] = [e for e in result.all_events if e.is_step_failure]
    assert "nothing of events/payments_events can be judged" in str(failed.step_failure_data.error)


def test_checks_without_anything_to_judge_keep_nothing_else_from_being_built(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    both = dg.AssetSelection.checks(ROWS) | dg.AssetSelection.assets(TILES)
    days = ("2020-01-03", "2020-01-04")
    result = run_checks(tmp_path, instance, FakeOffline(), days, both)
    assert not result.success
    assert instance.get_materialized_partitions(TILES) == set(days)


def run_checks(
    folder: Path,
    instance: dg.DagsterInstance,
    offline: FakeOffline,
    days: Sequence[str],
    selection: dg.AssetSelection | None = None,
) -> dg.ExecuteInProcessResult:
    """Run the check on the rows of events, over a range, a day or all that is built."""
    defs = build_definitions(plan_in(folder), settings_from_env({}), offline=offline)
    job = dg.define_asset_job("checks_only", selection or dg.AssetSelection.checks(ROWS))
    resolved = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("checks_only")
    tags = {"dagster/partition": days[0]} if len(days) == 1 else {}
    if len(days) > 1:
        tags = {
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[-1],
        }
    return resolved.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def stored_evaluations(
    instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult
) -> list[dg.AssetCheckEvaluation]:
    stored = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [e.dagster_event.asset_check_evaluation_data for e in stored if e.dagster_event]


def test_a_run_told_to_publish_materialises_the_day_and_still_shows_it_bad(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(spoilt=SPOILT)
    run = Run(tmp_path, instance, offline, "2020-01-02", "2020-01-06", config={"publish": True})
    assert run.result.success
    assert run.statuses(ROWS) == {"FAILED": [4], "SUCCEEDED": [2, 3, 5, 6]}


def test_a_day_healed_is_well_again_and_the_others_stay_as_they_were(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    Run(tmp_path, instance, FakeOffline(spoilt=SPOILT), "2020-01-02", "2020-01-06")
    run = Run(tmp_path, instance, FakeOffline(), "2020-01-04")
    assert run.result.success
    assert run.statuses(ROWS) == {"SUCCEEDED": [2, 3, 4, 5, 6]}
    assert list(run.evaluations(ROWS)) == ["2020-01-04"], "one evaluation, of the day"


def test_checks_that_could_not_run_fail_and_their_days_are_held_back(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(crashes={"judge events/payments": [EngineError("no memory")]})
    run = Run(tmp_path, instance, offline, "2020-01-02", "2020-01-03")
    assert "its checks could not run: no memory" in run.failure
    together = run.evaluations(ROWS)[None]
    assert not together.passed
    assert "could not run: no memory" in str(together.description)


def test_an_asset_has_one_check_for_each_type_of_rule_whatever_its_columns(tmp_path: Path) -> None:
    defs = build_definitions(plan_in(tmp_path), settings_from_env({}), offline=FakeOffline())
    graph = defs.resolve_asset_graph()
    names = [key.name for key in graph.asset_check_keys if key.asset_key == EVENTS]
    assert len(names) == len(set(names)) <= 13
    assert {"rows", "volume", "null_rate", "drift", "uniqueness", "expectations"} <= set(names)
    assert not [key for key in graph.asset_check_keys if key.asset_key == TILES]


def test_a_check_that_the_run_does_not_ask_for_is_not_reported_but_still_gates(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    offline = FakeOffline(spoilt=SPOILT)
    defs = build_definitions(plan_in(tmp_path), settings_from_env({}), offline=offline)
    selection = dg.AssetSelection.assets(EVENTS).without_checks()
    job = dg.define_asset_job("events_alone", selection)
    whole = dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
    result = whole.resolve_job_def("events_alone").execute_in_process(
        instance=instance, partition_key="2020-01-04", raise_on_error=False
    )
    assert not result.success
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    assert not instance.all_logs(result.run_id, of_type=kind)
