"""Which days of a view can be built from the events there are, and what each one lacks."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING
from uuid import uuid4

from millrace.compile.dialects import SPARK
from millrace.compile.expressions import to_spark
from millrace.days import ALL_HOURS, Days, Hours
from millrace.names import events_table
from millrace.plan import ViewPlan
from offline.tables.partition_log import (
    AWAITS_CHECKS,
    PartitionState,
    append_partition_log,
    expected_days,
    published_days,
    quarantined_days,
    read_partition_log,
    readable_days,
)
from offline.tables.stages import Stage, history_start
from resources.lake.delta import (
    PartitionStats,
    partition_stats,
    rows_by_hour,
    table_path,
    table_version,
)
from resources.lake.reports import BuildReport, PartitionOutcome
from resources.lake.writing import Slices, day_predicate
from resources.settings import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class DayLedger:
    """The days of a build, sorted into those with events and those without.

    Attributes:
        good: days whose events stand, ascending; of those in ``hours`` the events of these.
        hours: the hours of days that are not built as a whole.
        failed: day to reason.
        missing: day to the earlier days its windows reach into that have no events.
        held: days whose events are held back, and so may not be read.
        events_version: Delta version of ``events/<source>`` that is read.
    """

    good: tuple[date, ...]
    failed: Mapping[date, str]
    missing: Mapping[date, tuple[date, ...]]
    held: frozenset[date]
    events_version: int
    hours: Mapping[date, Hours] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        settings: Settings,
        view: ViewPlan,
        stage: Stage,
    ) -> "DayLedger":
        """Sort the days that a stage writes by what the partition log says of the view's source."""
        table, days, hours = events_table(view.source.name), stage.written, stage.hours
        log = read_partition_log(settings, table)
        fingerprint = view.source.fingerprint
        published = {
            day
            for day in readable_days(log, fingerprint)
            if not log[day].lacks(hours.get(day, ALL_HOURS))
        }
        good = tuple(sorted(d for d in set(days) if d in published))
        absent: tuple[date, ...] = ()
        if good:
            absent = _absent_days(log, fingerprint, history_start(view, good[0]), good[-1])
        return cls(
            good=good,
            failed={d: _reason(log.get(d), table, d) for d in days if d not in published},
            missing={d: tuple(a for a in absent if history_start(view, d) <= a < d) for d in good},
            held=frozenset(quarantined_days(log)),
            events_version=table_version(settings, table),
            hours=hours,
        )


def _absent_days(
    log: dict[date, PartitionState], fingerprint: str, start: date, end: date
) -> tuple[date, ...]:
    """Return the days of ``[start, end)`` whose events are not there to be read, not all of them.

    Of the days of which anything can be expected; see ``expected_days``.
    """
    published = published_days(log, fingerprint)
    return tuple(d for d in expected_days(log, start, end) if d < end and d not in published)


def _reason(state: PartitionState | None, table: str, day: date) -> str:
    if state is not None and state.error is not None:
        return f"{table} {day} failed: {state.error}"
    if state is not None and state.held is not None:
        return f"{table} {day} is held back: {state.held}"
    if state is not None and not state.is_whole:
        return f"{table} {day} has only {len(state.by_hour)} of its hours; materialize them first"
    return f"{table} has no partition {day}; materialize it first"


def read_events(spark: "SparkSession", settings: Settings, view: ViewPlan, slices: Slices) -> str:
    """Make these slices of the view's events a temporary view; return its name."""
    name = f"events_{uuid4().hex}"
    path = table_path(settings, events_table(view.source.name))
    frame = spark.read.format("delta").load(path)
    frame = frame.filter(slices.predicate("_event_ms"))
    frame.createOrReplaceTempView(name)
    return name


def null_keys_by_day(
    spark: "SparkSession", settings: Settings, view: ViewPlan, days: tuple[date, ...]
) -> dict[date, int]:
    """Count the view's events that have no key, by day; days without any are absent.

    The transaction log says whether there are nulls at all, so clean data costs no job.
    """
    from pyspark.sql import functions as F

    stats = partition_stats(settings, events_table(view.source.name))
    suspect = tuple(
        d for d in days if d in stats and any(stats[d].null_counts.get(k) for k in view.join_keys)
    )
    if not suspect:
        return {}
    path = table_path(settings, events_table(view.source.name))
    frame = spark.read.format("delta").load(path).filter(day_predicate(suspect))
    keyless = F.expr("false")
    for key in view.join_keys:
        keyless = keyless | F.col(f"`{key}`").isNull()
    frame = frame.filter(keyless & (F.col("_event_ms") >= view.start_ms))
    if view.filter is not None:
        frame = frame.filter(F.expr(to_spark(view.filter).sql(SPARK)))
    return {
        row["event_date"]: row["count"] for row in frame.groupBy("event_date").count().collect()
    }


def outcomes_of(
    ledger: DayLedger,
    stats: Mapping[date, PartitionStats],
    null_keys: Mapping[date, int],
    by_hour: Mapping[date, tuple[int, ...]],
) -> tuple[PartitionOutcome, ...]:
    """Return one outcome per day of the ledger, ascending; ``by_hour`` are the rows of each hour."""
    outcomes = [
        PartitionOutcome(day, ledger.hours.get(day, ALL_HOURS), error=reason)
        for day, reason in ledger.failed.items()
    ]
    for day in ledger.good:
        found = stats.get(day)
        outcomes.append(
            PartitionOutcome(
                day,
                ledger.hours.get(day, ALL_HOURS),
                rows=found.rows if found else 0,
                rows_by_hour=by_hour.get(day, ()),
                bytes=found.bytes if found else 0,
                null_keys=null_keys.get(day, 0),
                missing_days=ledger.missing[day],
            )
        )
    return tuple(sorted(outcomes, key=lambda o: o.day))


def report_build(
    settings: Settings,
    view: ViewPlan,
    table: str,
    version: str,
    ledger: DayLedger,
    null_keys: Mapping[date, int],
    began: float,
    *,
    time_column: str,
    gated: bool = False,
) -> BuildReport:
    """Say how each day of a view's table ended, and write it into the partition log.

    ``table`` is its name under the lake, ``began`` the ``time.monotonic()`` of the build's start,
    ``time_column`` the one that says in which hour of the day a row lies.
    With ``gated`` the days are held back until their checks release them.
    """
    by_hour = {}
    if view.source.schedule.is_hourly:
        by_hour = rows_by_hour(settings, table, ledger.good, time_column)
    report = BuildReport(
        table=table,
        version=version,
        delta_version=table_version(settings, table),
        outcomes=outcomes_of(ledger, partition_stats(settings, table), null_keys, by_hour),
        input_versions={events_table(view.source.name): ledger.events_version},
        seconds=time.monotonic() - began,
        began_ms=int((time.time() - (time.monotonic() - began)) * 1000),
    )
    held = {o.day: AWAITS_CHECKS for o in report.built} if gated else None
    append_partition_log(settings, report, view.fingerprint, held=held)
    return report


def events_rows(settings: Settings, view: ViewPlan, span: Days) -> int:
    """Return how many events the log counts in a span of days."""
    stats = partition_stats(settings, events_table(view.source.name))
    return sum(s.rows for day, s in stats.items() if day in span)
