"""The watcher and its job, over a real instance and real runs, with engines in memory."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from alerts.configuration import VERSION
from alerts.outbox import Outbox
from alerts.state import AlertStore
from jobs.alerts.sensor import JOB, SENSOR, Look
from jobs.definitions import build_definitions
from millrace.errors import EngineUnavailable, SpecError
from streaming.control import deployments
from tests.support import alert_receivers as receivers
from tests.support.alert_receivers import HttpReceiver, serving
from tests.support.stream_fakes import FakeEngines, fake_engines, write_views

FILE = f"""
version: {VERSION}
sinks:
  hook: {{type: webhook, url: "${{HOOK_URL}}"}}
  backup: {{type: webhook, url: "${{BACKUP_URL}}"}}
routes:
  - {{owners: [payments@example.com], sinks: [hook]}}
fallback: [hook]
operators: [hook]
digest: {{above: 100}}
streams: {{hold: 30s, max_lag_events: 10}}
heartbeat: {{every: 365d, sinks: [backup]}}
dagster_url: http://dagster
docs_url: https://docs.example.com/
"""
EVENTS, FEATURES = dg.AssetKey(["events", "payments_events"]), dg.AssetKey(["features", "spend"])
HOUR_MS = 3_600_000
DAYS = dg.DailyPartitionsDefinition("2020-01-01")


class Tables:
    """Assets and checks whose days are as a test says.

    Attributes:
        bad: days that cannot be built.
        spend_bad: days of which the features alone cannot be built.
        nulls: days whose check fails.
        crash: what kills the step before anything is built.
    """

    def __init__(self) -> None:
        self.bad: dict[str, str] = {}
        self.spend_bad: dict[str, str] = {}
        self.nulls: set[str] = set()
        self.crash = ""
        self.severity = dg.AssetCheckSeverity.ERROR
        self.has_books = True

    @property
    def defs(self) -> dg.Definitions:
        @dg.multi_asset(
            specs=[
                dg.AssetSpec(EVENTS, owners=["payments@example.com"], partitions_def=DAYS),
                dg.AssetSpec(FEATURES, deps=[EVENTS], partitions_def=DAYS),
            ],
            check_specs=[
                dg.AssetCheckSpec(
                    "null_rate",
                    asset=EVENTS,
                    metadata={
                        "owner": "quality@example.com, nulls@example.com",
                        "runbook": dg.MetadataValue.md("<docs/runbooks.md#null_rate>"),
                    },
                )
            ],
            backfill_policy=dg.BackfillPolicy.single_run(),
            name="payments",
        )
        def build(context: dg.AssetExecutionContext) -> Iterator[Any]:
            yield from self._build(context)

        @dg.asset_check(asset=EVENTS, name="books", description="Counts add up.")
        def books() -> dg.AssetCheckResult:
            if self.crash:
                raise EngineUnavailable(self.crash)
            return dg.AssetCheckResult(passed=True)

        checks = [books] if self.has_books else []
        return dg.Definitions(assets=[build], asset_checks=checks)

    def _build(self, context: dg.AssetExecutionContext) -> Iterator[Any]:
        if self.crash:
            raise EngineUnavailable(self.crash) from ConnectionError("stream removed")
        days = context.partition_keys
        for day in days:
            self._judge(context, day)
            if day not in self.bad:
                for key in (EVENTS, FEATURES)[: 1 if day in self.spend_bad else 2]:
                    context.log_event(dg.AssetMaterialization(key, partition=day))
        bad = {day: self.bad[day] for day in days if day in self.bad}
        spend_bad = {day: self.spend_bad[day] for day in days if day in self.spend_bad}
        if bad or spend_bad:
            inherited = {day: f"events/payments_events failed: {why}" for day, why in bad.items()}
            told = {"events/payments_events": bad, "features/spend": inherited | spend_bad}
            metadata = {"failures": dg.MetadataValue.json(told)}
            raise dg.Failure("days failed", metadata=metadata, allow_retries=False)
        yield dg.MaterializeResult(EVENTS)
        yield dg.MaterializeResult(FEATURES)
        yield dg.AssetCheckResult(
            asset_key=EVENTS, check_name="null_rate", passed=not self.nulls & set(days)
        )

    def _judge(self, context: dg.AssetExecutionContext, day: str) -> None:
        failed = day in self.nulls
        context.log_event(
            dg.AssetCheckEvaluation(
                EVENTS,
                "null_rate",
                passed=not failed,
                metadata={"null_rate": 0.12, "picture": dg.MetadataValue.md("x" * 5_000)},
                severity=self.severity,
                description="12 % are null" if failed else "all rules hold",
                partition=day,
            )
        )


class House:
    """A code location, its instance, an alerts file and a receiver."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, hook: HttpReceiver) -> None:
        self.views = folder / "views"
        self.plan = write_views(self.views)
        self.instance, self.hook = instance, hook
        fakes = fake_engines(folder, views=[self.views])
        settings = replace(fakes.settings, alerts=folder / "alerts.yaml")
        self.engines: FakeEngines = replace(fakes, settings=settings)
        # The instance stamps runs with the machine's clock; what it stamps is after the first look.
        self.engines.clock[0] = int(time.time() * 1000) - HOUR_MS
        self.tables = Tables()
        alerts = build_definitions(self.plan, self.engines.settings, engines=self.engines)
        self.job = alerts.resolve_job_def(JOB)

    def run(self, first: str, last: str) -> dg.ExecuteInProcessResult:
        job = self.tables.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[EVENTS, FEATURES],
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            },
            raise_on_error=False,
        )

    def judge_books(self) -> None:
        repository = self.tables.defs.get_repository_def()
        selection = dg.AssetSelection.checks(dg.AssetCheckKey(EVENTS, "books"))
        job = dg.define_asset_job("books_job", selection)
        defs = dg.Definitions.merge(self.tables.defs, dg.Definitions(jobs=[job]))
        assert repository.asset_graph
        defs.resolve_job_def("books_job").execute_in_process(
            instance=self.instance, raise_on_error=False
        )

    def tick(self) -> dg.SensorResult:
        self.engines.clock[0] += 15_000
        repository = self.tables.defs.get_repository_def()
        return Look(self.engines, self.instance, repository).tick()

    def deliver(self) -> dg.ExecuteInProcessResult:
        return self.job.execute_in_process(instance=self.instance, raise_on_error=False)

    def tell(self) -> list[str]:
        """Look, deliver if asked to, and return the new titles."""
        before = len(self.hook.bodies)
        if self.tick().run_requests:
            self.deliver()
        return [one["title"] for body in self.hook.bodies[before:] for one in body["messages"]]

    @property
    def last(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.hook.bodies[-1]["messages"][-1]
        return found


@pytest.fixture
def backup() -> Iterator[HttpReceiver]:
    with serving(receivers.webhook()) as receiver:
        yield receiver


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backup: HttpReceiver) -> Iterator[House]:
    with serving(receivers.webhook()) as hook, dg.DagsterInstance.ephemeral() as instance:
        (tmp_path / "alerts.yaml").write_text(FILE, encoding="utf-8")
        monkeypatch.setenv("HOOK_URL", hook.url)
        monkeypatch.setenv("BACKUP_URL", backup.url)
        house = House(tmp_path, instance, hook)
        assert house.tell() == []
        yield house


def test_the_watcher_is_on_by_default_and_runs_one_job(house: House) -> None:
    defs = build_definitions(house.plan, house.engines.settings, engines=house.engines)
    sensor = defs.resolve_sensor_def(SENSOR)
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == JOB
    context = dg.build_sensor_context(instance=house.instance, definitions=defs)
    result = sensor.evaluate_tick(context)
    assert result.skip_message == "0 open, 0 waiting, 0 refused"
    assert json.loads(result.cursor or "")["lag_ms"] == 0


def test_a_sign_of_life_is_sent_once_a_period(house: House, backup: HttpReceiver) -> None:
    house.tell()
    [body] = backup.bodies
    assert body["messages"][0]["status"] == "heartbeat"
    house.engines.clock[0] += 365 * 86_400_000
    house.tell()
    assert len(backup.bodies) == 2


def test_bad_days_are_told_once_by_name_and_resolve_when_they_are_rebuilt(house: House) -> None:
    house.tables.bad = {"2020-01-03": "file is cut off", "2020-01-05": "no such file"}
    house.run("2020-01-01", "2020-01-07")
    assert house.tell() == [
        "FAILED: build of events/payments_events, 2020-01-03",
        "FAILED: build of events/payments_events, 2020-01-05",
    ]
    assert house.last["summary"] == "no such file"
    readers = "do not see 2020-01-05 of events/payments_events until it is built"
    assert house.last["details"]["readers"] == readers
    assert house.last["owners"] == ["payments@example.com"]
    page = "http://dagster/assets/events/payments_events?view=partitions&partition=2020-01-05"
    assert house.last["links"]["partition"] == page
    assert house.tell() == []
    house.tables.bad.pop("2020-01-05")
    house.run("2020-01-05", "2020-01-05")
    assert house.tell() == ["RESOLVED: build of events/payments_events, 2020-01-05"]
    house.tables.bad.clear()
    house.run("2020-01-03", "2020-01-03")
    assert house.tell() == ["RESOLVED: build of events/payments_events, 2020-01-03"]
    assert house.tell() == []


def test_a_check_is_told_for_each_bad_day_and_not_once_more_for_all(house: House) -> None:
    house.tables.nulls = {"2020-01-02"}
    house.run("2020-01-01", "2020-01-03")
    assert house.tell() == ["FAILED: check null_rate of events/payments_events, 2020-01-02"]
    assert house.last["summary"] == "12 % are null"
    assert house.last["details"] == {"null_rate": "0.12"}
    assert house.last["links"]["runbook"] == "https://docs.example.com/runbooks.md#null_rate"
    assert house.last["owners"] == [
        "quality@example.com",
        "nulls@example.com",
        "payments@example.com",
    ]
    house.tables.nulls.clear()
    house.run("2020-01-02", "2020-01-02")
    assert house.tell() == ["RESOLVED: check null_rate of events/payments_events, 2020-01-02"]


def test_a_warning_that_becomes_an_error_is_another_incident(house: House) -> None:
    house.tables.nulls, house.tables.severity = {"2020-01-02"}, dg.AssetCheckSeverity.WARN
    house.run("2020-01-02", "2020-01-02")
    assert len(house.tell()) == 1
    assert house.last["severity"] == "warn"
    house.tables.severity = dg.AssetCheckSeverity.ERROR
    house.run("2020-01-02", "2020-01-02")
    assert sorted(title.split(":")[0] for title in house.tell()) == ["FAILED", "RESOLVED"]


def test_a_day_held_back_for_its_check_is_told_by_the_check_alone(house: House) -> None:
    house.tables.nulls = {"2020-01-02"}
    house.tables.bad = {"2020-01-02": "held back: null_rate"}
    house.run("2020-01-01", "2020-01-03")
    assert house.tell() == ["FAILED: check null_rate of events/payments_events, 2020-01-02"]


def test_features_of_a_bad_day_are_folded_under_it_and_told_if_they_fail_without_it(
    house: House,
) -> None:
    house.tables.nulls = {"2020-01-02"}
    house.tables.spend_bad = {"2020-01-02": "a value does not fit", "2020-01-03": "neither here"}
    house.run("2020-01-01", "2020-01-05")
    # Windows of a day reach into the day before, so the third follows too.
    assert house.tell() == ["FAILED: check null_rate of events/payments_events, 2020-01-02"]
    folded = ["build of features/spend, 2020-01-02", "build of features/spend, 2020-01-03"]
    assert house.last["folded"] == folded
    assert house.last["details"]["folded"] == f"2 more fail because of it: {'; '.join(folded)}"
    assert house.tick().cursor is not None
    told = json.loads(house.tick().cursor or "")
    assert (told["open"], told["folded"]) == (1, 2)
    house.tables.nulls.clear()
    house.tables.spend_bad.pop("2020-01-03")
    house.run("2020-01-02", "2020-01-03")
    assert house.tell() == [
        "RESOLVED: check null_rate of events/payments_events, 2020-01-02",
        "FAILED: build of features/spend, 2020-01-02",
    ]


def test_a_crashed_run_is_told_and_ends_once_other_runs_have_built_its_days(house: House) -> None:
    house.tables.crash = "Spark does not answer"
    house.run("2020-01-01", "2020-01-03")
    assert house.tell() == [
        "FAILED: run of events/payments_events, features/spend, 2020-01-01..2020-01-03"
    ]
    told = str(house.last["details"])
    assert "Spark does not answer" in told
    assert "stream removed" not in told
    assert "millrace.errors" not in told
    house.tables.crash = ""
    house.run("2020-01-01", "2020-01-02")
    assert house.tell() == []
    house.run("2020-01-03", "2020-01-03")
    assert house.tell() == [
        "RESOLVED: run of events/payments_events, features/spend, 2020-01-01..2020-01-03"
    ]


def test_a_check_that_could_not_run_is_told_until_it_is_judged(house: House) -> None:
    house.tables.crash = "Kafka does not answer"
    house.judge_books()
    assert house.tell() == ["FAILED: run of books_job"]
    house.tables.crash = ""
    house.judge_books()
    assert house.tell() == ["RESOLVED: run of books_job"]


def test_a_run_that_dagster_starts_once_more_is_left_to_its_successor(house: House) -> None:
    house.tables.crash = "gone"
    run = house.run("2020-01-01", "2020-01-01")
    house.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert house.tell() == []


def test_a_failed_run_waits_until_it_is_known_whether_it_is_started_once_more(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.tables.crash = "gone"
    run = house.run("2020-01-01", "2020-01-01")
    # As if the process were between storing the failure and noting what follows from it.
    monkeypatch.setattr(dg.DagsterInstance, "run_retries_enabled", True)
    assert house.tell() == []
    house.instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert len(house.tell()) == 1


def test_a_check_reported_outside_of_runs_is_told_too(house: House) -> None:
    def report(*, passed: bool) -> None:
        house.instance.report_runless_asset_event(
            dg.AssetCheckEvaluation(EVENTS, "books", passed=passed, metadata={})
        )

    report(passed=False)
    assert house.tell() == ["FAILED: check books of events/payments_events"]
    assert house.tell() == []
    report(passed=True)
    assert house.tell() == ["RESOLVED: check books of events/payments_events"]


def test_an_alert_of_a_check_that_is_removed_is_closed_with_that_reason(house: House) -> None:
    house.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(EVENTS, "books", passed=False, metadata={})
    )
    house.tell()
    house.tables.has_books = False
    faulty = house.views / "broken.yaml"
    faulty.write_text("version: millrace/v1\nfeature_views: [{name: x}]\n", encoding="utf-8")
    assert house.tell() == []
    faulty.unlink()
    assert house.tell() == ["RESOLVED: check books of events/payments_events"]
    assert house.last["details"]["note"] == "closed: no longer declared"


def deployed(house: House) -> str:
    settings = house.engines.settings
    record = deployments.deploy(
        settings, house.plan, "spend", lambda _: None, engines=house.engines
    )
    house.engines.fake.states[record.job_id] = "RUNNING"
    return record.job_id


def test_a_stream_that_stays_down_is_told_and_resolves_when_it_runs(house: House) -> None:
    job = deployed(house)
    assert house.tell() == []
    house.engines.fake.states[job] = "FAILED"
    assert [house.tell(), house.tell()] == [[], []]
    assert house.tell() == ["FAILED: stream spend not running"]
    house.engines.fake.states[job] = "RUNNING"
    assert house.tell() == ["RESOLVED: stream spend not running"]


def test_a_stream_that_falls_behind_is_told(house: House) -> None:
    deployed(house)
    house.engines.ends["payments"] = {0: 6, 1: 5}
    told = [title for _ in range(4) for title in house.tell()]
    assert told == ["FAILED: stream spend behind"]
    assert house.last["summary"] == "11 events wait, 10 may"


def test_a_version_that_waits_longer_than_it_may_is_told_with_what_it_waits_for(
    house: House,
) -> None:
    deployed(house)
    house.plan = write_views(house.views, least=100)
    house.engines.fake.complete_checkpoint(deployed(house))
    assert house.tell() == []
    house.engines.clock[0] += 1_800_000
    assert house.tell() == ["FAILED: stream spend version waits"]
    assert house.last["summary"] == (
        "v1 serves until v2 is complete: the writer says nothing of it"
    )
    house.plan = write_views(house.views)
    house.engines.fake.complete_checkpoint(deployed(house))
    assert house.tell() == ["RESOLVED: stream spend version waits"]


def test_flink_that_does_not_answer_is_one_alert_and_not_one_per_stream(house: House) -> None:
    deployed(house)
    house.engines.fake.is_away = True
    told = [title for _ in range(4) for title in house.tell()]
    assert told == ["FAILED: stream flink does not answer"]
    house.engines.fake.is_away = False
    assert house.tell() == ["RESOLVED: stream flink does not answer"]


def test_a_sink_that_is_away_is_told_to_the_others_and_loses_nothing(
    house: House, backup: HttpReceiver
) -> None:
    house.tables.bad = {"2020-01-03": "cut off"}
    house.run("2020-01-03", "2020-01-03")
    house.hook.answers = [(503, None)] * 4
    failed = []
    for _ in range(30):
        if house.tick().run_requests:
            failed.append(not house.deliver().success)
        if len(backup.bodies) > 2:
            break
    titles = [one["title"] for body in backup.bodies[1:] for one in body["messages"]]
    assert titles == ["FAILED: alert sink hook", "RESOLVED: alert sink hook"]
    assert failed.count(True) == 4
    hook_titles = [one["title"] for body in house.hook.bodies for one in body["messages"]]
    assert hook_titles == ["FAILED: build of events/payments_events, 2020-01-03"]


def test_the_delivery_itself_is_no_run_that_alerts_are_about(house: House) -> None:
    house.tables.bad = {"2020-01-03": "cut off"}
    house.run("2020-01-03", "2020-01-03")
    house.hook.answers = [(503, None)]
    assert house.tick().run_requests
    assert not house.deliver().success
    assert all("deliver" not in title for _ in range(3) for title in house.tell())


def test_nothing_is_asked_for_while_a_delivery_is_about_to_begin(house: House) -> None:
    house.tables.bad = {"2020-01-03": "cut off"}
    house.run("2020-01-03", "2020-01-03")
    [first] = house.tick().run_requests or ()
    house.instance.create_run_for_job(house.job, status=dg.DagsterRunStatus.STARTING)
    assert not house.tick().run_requests
    house.engines.clock[0] += HOUR_MS + 200_000
    [second] = house.tick().run_requests or ()
    assert first.run_key != second.run_key


def test_a_faulty_alerts_file_fails_the_look_and_loses_nothing(
    house: House, tmp_path: Path
) -> None:
    (tmp_path / "alerts.yaml").write_text("version: 1\nsinks: {a: {}}", encoding="utf-8")
    house.tables.bad = {"2020-01-03": "cut off"}
    house.run("2020-01-03", "2020-01-03")
    with pytest.raises(SpecError, match="2 faults"):
        house.tick()
    (tmp_path / "alerts.yaml").write_text(FILE, encoding="utf-8")
    assert house.tell() == ["FAILED: build of events/payments_events, 2020-01-03"]


def test_more_runs_than_one_look_reads_are_read_by_the_next(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.alerts.sensor._RUNS_A_TICK", 2)
    house.tables.bad = {f"2020-01-0{day}": "cut off" for day in range(1, 8)}
    for day in house.tables.bad:
        house.run(day, day)
    told = [house.tell() for _ in range(6)]
    assert max(len(one) for one in told) == 2
    titles = [title for one in told for title in one]
    assert titles == [f"FAILED: build of events/payments_events, {day}" for day in house.tables.bad]
    with AlertStore.open(house.engines.settings) as store:
        assert len(store.open_conditions()) == 7
        assert Outbox(store.engine).newest_pending() == 0
