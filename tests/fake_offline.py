"""Offline tables that compute nothing, and the declarations that Dagster tests are about."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from feature_assets.offline import Progress
from millrace.errors import PlatformError
from millrace.plan import Plan, SourcePlan, ViewPlan
from resources.declarations import plan_of
from resources.reports import BuildReport, Days, PartitionOutcome, parse_day

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
        crashes: table name to the errors that its next builds raise, first one first.
        beyond: days that a build of events adds to those asked for.
    """

    bad: Mapping[str, Mapping[date, str]] = field(default_factory=dict)
    crashes: dict[str, list[PlatformError]] = field(default_factory=dict)
    beyond: tuple[date, ...] = ()
    calls: list[tuple[str, Days, tuple[str, ...]]] = field(default_factory=list)

    def build_events(
        self, source: SourcePlan, views: Sequence[ViewPlan], days: Days, *, progress: Progress
    ) -> BuildReport:
        """Report one row per day, two dead letters, and the days beyond."""
        names = tuple(view.name for view in views)
        return self._build(
            f"events/{source.name}", None, (*self.beyond, *days), days, names, progress
        )

    def build_tiles(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Report one row per day."""
        return self._build(f"tiles/{view.name}", "v1", tuple(days), days, (), progress)

    def build_features(self, view: ViewPlan, days: Days, *, progress: Progress) -> BuildReport:
        """Report one row per day."""
        return self._build(f"features/{view.name}", "v1", tuple(days), days, (), progress)

    def _build(
        self,
        table: str,
        version: str | None,
        built: tuple[date, ...],
        days: Days,
        views: tuple[str, ...],
        progress: Progress,
    ) -> BuildReport:
        self.calls.append((table, days, views))
        progress(f"building {table}")
        if self.crashes.get(table):
            raise self.crashes[table].pop(0)
        bad = self.bad.get(table, {})
        return BuildReport(
            table=f"{table}/{version}" if version else table,
            version=version,
            delta_version=len(self.calls),
            outcomes=tuple(_outcome(day, bad.get(day)) for day in built),
            input_versions={"events/payments": 1} if version else {},
            seconds=1.5,
        )


def _outcome(day: date, error: str | None) -> PartitionOutcome:
    if error is not None:
        return PartitionOutcome(day, error=error)
    return PartitionOutcome(
        day,
        rows=10 + day.day,
        bytes=1000,
        null_keys=2,
        duplicates=1,
        dead_letters={"late": 1, "schema": 1},
    )


class FileOffline(FakeOffline):
    """The same in another process: the bad days are read from a JSON file at each build."""

    def _build(
        self,
        table: str,
        version: str | None,
        built: tuple[date, ...],
        days: Days,
        views: tuple[str, ...],
        progress: Progress,
    ) -> BuildReport:
        raw = json.loads(Path(os.environ["MILLRACE_TEST_BAD_DAYS"]).read_text(encoding="utf-8"))
        self.bad = {t: {parse_day(d): why for d, why in days_.items()} for t, days_ in raw.items()}
        return super()._build(table, version, built, days, views, progress)
