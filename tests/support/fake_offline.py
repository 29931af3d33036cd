"""Offline tables that compute nothing, and the declarations that Dagster tests are about."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from checks.quality.judgement import JudgedDay, Judgement, quarantine_reason
from millrace.compile.checks import Rule, check_rules, source_rules
from millrace.days import ALL_HOURS, Days, Hours, parse_day
from millrace.plan import Plan, SourcePlan, ViewPlan
from millrace.quality.finding import Finding
from millrace.quality.profile import DayProfile
from offline.tables.stages import LakeState, Stage, Table, plan_build
from resources.declarations import plan_of
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.progress import Progress

DECLARATIONS = """
version: millrace/v1
sources:
  - name: payments
    description: Card payments.
    columns: {payment_id: int64, paid_at: timestamp, customer_id: int64, amount: "decimal(12,2)"}
    event_time: paid_at
    event_id: payment_id
    allowed_lateness: 90m
    batch: {format: parquet, path: "${MILLRACE_DATA}/payments.parquet"}
entities:
  - {name: customer, join_key: customer_id, type: int64, description: A card holder.}
feature_views:
  - name: spend
    entity: customer
    source: payments
    start: 2020-01-01
    filter: "amount > 0"
    owner: payments@example.com
    tags: {domain: payments, "purpose of use": "fraud & risk"}
    description: What a customer spends.
    features:
      - {name: payments_1h, aggregate: count, window: 1h}
      - {name: amount_7d, aggregate: sum, column: amount, window: 7d, description: Money out.}
  - name: habits
    entity: customer
    source: payments
    start: 2020-01-05
    owner: nobody in particular
    features:
      - {name: last_amount, aggregate: last, column: amount, window: lifetime}
"""


def payments_there(folder: Path) -> Path:
    """Write a file of payments that does not tell its days, and that came behind all of them."""
    path = folder / "payments.parquet"
    names = ("payment_id", "paid_at", "customer_id", "amount")
    row = pa.table({name: pa.array([1], pa.int64()) for name in names})
    pq.write_table(row, path, write_statistics=False)
    os.utime(path, (_BEHIND_S, _BEHIND_S))
    return path


_BEHIND_S = int(datetime(2040, 1, 1, tzinfo=UTC).timestamp())


def plan_in(folder: Path) -> Plan:
    """Return the plan of the declarations above, written into a folder."""
    file = folder / "payments.yaml"
    file.write_text(DECLARATIONS, encoding="utf-8")
    return plan_of([file])


@dataclass
class FakeOffline:
    """Commits every day that is not said to be bad, and remembers what it was asked for.

    Attributes:
        bad: table name to day to reason, such as ``{"events/payments": {day: "broken"}}``.
        spoilt: table name to day to reason: days that are built and that the rule on rows, made
            a blocking one, then finds bad.
        crashes: table name to the errors that its next builds raise, first one first; of a table
            ``judge <name>``, its next judgements.
        beyond: days that a build of events adds to those asked for.
        changed: table name to days that do not stand as they were built, whatever Dagster knows.
        judged_before: days that were built before, and can be judged again.
    """

    bad: Mapping[str, Mapping[date, str]] = field(default_factory=dict)
    spoilt: Mapping[str, Mapping[date, str]] = field(default_factory=dict)
    crashes: dict[str, list[BaseException]] = field(default_factory=dict)
    beyond: tuple[date, ...] = ()
    changed: Mapping[str, frozenset[date]] = field(default_factory=dict)
    judged_before: tuple[date, ...] = ()
    calls: list[tuple[str, Days, tuple[str, ...]]] = field(default_factory=list)
    built: list[Stage] = field(default_factory=list)
    served: tuple[str, ...] = ()

    def plan(
        self,
        source: SourcePlan,
        views: Sequence[ViewPlan],
        days: Days,
        *,
        tables: Collection[str] | None = None,
        skipped: Mapping[str, Mapping[date, str]] | None = None,
    ) -> tuple[Stage, ...]:
        """Plan over a lake in which all stands but the days beyond."""
        self.served = tuple(view.name for view in views)
        lake = LakeState(
            versions={view.name: "v1" for view in views},
            features={view.name: {} for view in views},
            is_absent=lambda _: True,
        )
        stages = plan_build(lake, source, views, days, tables=tables, skipped=skipped)
        return tuple(
            replace(s, earlier=self.beyond) if s.table.kind == "events" and s.days else s
            for s in stages
        )

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Report one row per day, and two dead letters."""
        table, name = stage.table, stage.table.name
        assert stage.days is not None
        self.calls.append((name, stage.days, self.served if table.view is None else ()))
        self.built.append(stage)
        progress(f"building {name}")
        if self.crashes.get(name):
            raise self.crashes[name].pop(0)
        bad, hours = self.bad.get(name, {}), stage.days.parts
        return BuildReport(
            table=stage.name,
            version=stage.version,
            delta_version=len(self.calls),
            outcomes=tuple(
                _outcome(day, hours.get(day, ALL_HOURS), bad.get(day)) for day in stage.written
            ),
            input_versions={"events/payments": 1} if table.view else {},
            seconds=1.5,
        )

    def standing(self, table: Table, days: Days, since_ms: int) -> frozenset[date]:
        """Say that all stand but those that changed."""
        assert since_ms > 0
        return frozenset(days) - self.changed.get(table.name, frozenset())

    def judge(
        self,
        table: Table,
        views: Sequence[ViewPlan],
        report: BuildReport,
        *,
        publish: bool,
        progress: Progress,
    ) -> Judgement:
        """Find every rule met, but on spoilt days."""
        progress(f"judging {report.table}")
        return self._judged(table, views, report, publish=publish)

    def judge_again(
        self, table: Table, views: Sequence[ViewPlan], days: Days | None
    ) -> tuple[BuildReport, Judgement]:
        """Judge ``judged_before``, or those of them that are asked for."""
        chosen = [day for day in self.judged_before if days is None or day in days]
        outcomes = tuple(_outcome(day, ALL_HOURS, None) for day in chosen)
        report = BuildReport(table.name, None, 1, outcomes)
        judged = self._judged(table, views, report, publish=False)
        return replace(report, outcomes=()), judged

    def _judged(
        self, table: Table, views: Sequence[ViewPlan], report: BuildReport, *, publish: bool
    ) -> Judgement:
        if self.crashes.get(f"judge {table.name}"):
            raise self.crashes[f"judge {table.name}"].pop(0)
        spoilt = self.spoilt.get(table.name, {})
        rules = check_rules(table.view) if table.view else source_rules(table.source, views)
        days = []
        for outcome in report.built:
            if outcome.hours != ALL_HOURS:
                continue
            findings = tuple(_finding(rule, outcome, spoilt.get(outcome.day)) for rule in rules)
            held = None if publish else quarantine_reason(findings)
            profile = DayProfile(report.table, outcome.day, outcome.rows)
            days.append(JudgedDay(profile, findings, held))
        return Judgement(report.table, tuple(days), seconds=0.1)


def _outcome(day: date, hours: Hours, error: str | None) -> PartitionOutcome:
    if error is not None:
        return PartitionOutcome(day, hours, error=error)
    return PartitionOutcome(
        day,
        hours,
        rows=10 + day.day,
        rows_by_hour=(10 + day.day, *(0,) * 23),
        bytes=1000,
        null_keys=2,
        duplicates=1,
        dead_letters={"late": 1, "schema": 1},
    )


def _finding(rule: Rule, outcome: PartitionOutcome, reason: str | None) -> Finding:
    is_spoilt = reason is not None and rule.type == "rows"
    return Finding(
        rule=replace(rule, severity="error", is_blocking=True) if is_spoilt else rule,
        verdict="failed" if is_spoilt else "passed",
        value=float(outcome.rows),
        low=1.0,
        high=None,
        n=outcome.rows,
        expected="expected at least 1",
        actual=str(outcome.rows),
        reason=reason or "" if is_spoilt else "",
    )


class FileOffline(FakeOffline):
    """The same in another process: the bad days are read from a JSON file at each build.

    The days of a table ``judge <name>`` are the spoilt ones.
    """

    def build(self, stage: Stage, *, progress: Progress) -> BuildReport:
        """Read the bad days, and report."""
        raw = json.loads(Path(os.environ["MILLRACE_TEST_BAD_DAYS"]).read_text(encoding="utf-8"))
        self.bad = {t: {parse_day(d): why for d, why in days_.items()} for t, days_ in raw.items()}
        self.spoilt = {
            t.removeprefix("judge "): d for t, d in self.bad.items() if t.startswith("judge ")
        }
        return super().build(stage, progress=progress)
