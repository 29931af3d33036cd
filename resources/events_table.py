"""``events/<source>``: raw rows judged, deduplicated and laid out by event day.

One Spark job reads each raw file once and replaces whole days. Days whose files are broken fail
by name; the others are committed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING

from millrace.durations import DAY_MS
from millrace.errors import DataError, EngineError
from millrace.plan import SourcePlan, ViewPlan
from resources.lake import partition_stats, table_path, table_version
from resources.partition_log import PartitionState, append_partition_log, built_days
from resources.partition_log import read_partition_log as read_log
from resources.raw_files import RawFile, blamed_days, diagnose, find_raw_files
from resources.raw_rows import ARRIVAL, BROKEN, FILE, PAYLOAD, read_rows
from resources.reports import BuildReport, Days, PartitionOutcome
from resources.settings import Settings
from resources.spark import engine_errors
from resources.writing import day_predicate, replace_days

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

Progress = Callable[[str], None]

VERDICT = "_verdict"
_SYSTEM = ("_event_ms", "_ingest_ms", "event_date")


def events_table(source: str) -> str:
    """Return the table's name under the lake."""
    return f"events/{source}"


def dead_letters_table(source: str) -> str:
    """Return the name of the table of refused events."""
    return f"dead_letters/{source}"


@dataclass
class _Attempt:
    """What is still wanted and what is known to be broken, as a build learns of it."""

    files: tuple[RawFile, ...]
    wanted: tuple[date, ...]
    failed: dict[date, str] = field(default_factory=dict)

    def blame(self, broken: Sequence[RawFile], source: SourcePlan) -> None:
        paths = {file.path for file in broken}
        self.files = tuple(f for f in self.files if f.path not in paths)
        for file in broken:
            for day in blamed_days(file, self.files, self.wanted):
                self.failed.setdefault(day, f"{file.path}: {file.error}")

    @property
    def good_days(self) -> tuple[date, ...]:
        return tuple(d for d in self.wanted if d not in self.failed)


def build_events(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    views: Sequence[ViewPlan],
    days: Days,
    progress: Progress,
) -> BuildReport:
    """Replace the days of ``events/<source>``, and add earlier ones its views reach back to.

    Idempotent: the same files give the same rows. An earlier day that the windows of ``views``
    need and that was never built is built too and reported like the others.

    Raises:
        DataError: there is no file at all.
        EngineError: Spark failed for a reason that is no broken file.
    """
    began = time.monotonic()
    table = events_table(source.name)
    log = read_log(settings, table)
    wanted = _wanted_days(source, views, days, built_days(log, source.fingerprint))
    attempt = _Attempt(_files(source, settings), wanted)
    attempt.blame([f for f in attempt.files if f.error], source)
    counts = _write_good_days(spark, settings, source, attempt, progress)
    report = BuildReport(
        table=table,
        version=None,
        delta_version=table_version(settings, table),
        outcomes=_outcomes(settings, table, attempt, counts, days),
        seconds=time.monotonic() - began,
    )
    append_partition_log(settings, report, source.fingerprint)
    return report


def _wanted_days(
    source: SourcePlan, views: Sequence[ViewPlan], days: Days, built: frozenset[date]
) -> tuple[date, ...]:
    earliest = min((history_start(view, days.start) for view in views), default=days.start)
    before = (days.start - earliest).days
    missing = [earliest + timedelta(days=i) for i in range(before)]
    return (*(d for d in missing if d not in built), *days)


def history_start(view: ViewPlan, day: date) -> date:
    """Return the first day whose events can enter a value on ``day``."""
    if view.reach_ms is None:
        return min(view.start, day)
    reach_days = -(-view.reach_ms // DAY_MS)
    return min(max(view.start, day - timedelta(days=reach_days)), day)


def _files(source: SourcePlan, settings: Settings) -> tuple[RawFile, ...]:
    if _is_delta(source):
        return (RawFile(settings.expand(source.files.path), 0),)
    return find_raw_files(source, settings)


def _write_good_days(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    attempt: _Attempt,
    progress: Progress,
) -> dict[date, PartitionOutcome]:
    while attempt.good_days:
        try:
            return _write(spark, settings, source, attempt, progress)
        except EngineError:
            broken = () if _is_delta(source) else diagnose(attempt.files, source)
            if not broken:
                raise
            progress(f"{len(broken)} broken file(s), first {broken[0].path}: {broken[0].error}")
            attempt.blame(broken, source)
    return {}


def _is_delta(source: SourcePlan) -> bool:
    return source.files.format == "delta"


def _write(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    attempt: _Attempt,
    progress: Progress,
) -> dict[date, PartitionOutcome]:
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    good = attempt.good_days
    span = Days.covering(good)
    pad = timedelta(milliseconds=_pad_ms(source))
    low, high = span.start - pad - timedelta(days=1), span.end + pad + timedelta(days=1)
    files = [f for f in attempt.files if f.may_hold(low, high)]
    if not files:
        raise DataError(
            f"no file of {source.name} can be read",
            where=f"source {source.name}",
            fix="; ".join(sorted(set(attempt.failed.values()))[:3]),
        )
    megabytes = sum(f.size_bytes for f in files) / 1e6
    progress(
        f"events/{source.name}: reading {len(files)} file(s), {megabytes:.1f} MB, "
        f"for {len(good)} day(s) from {span.start} to {span.last}"
    )
    with engine_errors(f"events/{source.name}"):
        rows = read_rows(spark, source, files, settings)
        judged = _judge(rows, source, Days(low, high))
        wanted = F.expr(day_predicate(good))
        books = Observation(f"books_{source.name}")
        kinds = [F.count_if(F.col(VERDICT) == F.lit(k)) for k in ("dead", "duplicate")]
        watched = judged.filter(wanted | F.col("event_date").isNull()).observe(
            books, *(k.alias(n) for k, n in zip(kinds, ("dead", "duplicate"), strict=True))
        )
        accepted = watched.filter((F.col(VERDICT) == "accepted") & wanted)
        columns = [c.name for c in source.columns]
        sort_key = [c for c in (source.event_id,) if c]
        replace_days(
            accepted.select(*columns, *_SYSTEM),
            table_path(settings, events_table(source.name)),
            good,
            sort=("_event_ms", *sort_key),
        )
        found = books.get
        had_letters = table_version(settings, dead_letters_table(source.name)) >= 0
        if not found["dead"] and not found["duplicate"] and not had_letters:
            return {}
        progress(f"events/{source.name}: {found['duplicate']} duplicate, {found['dead']} dead")
        # The second read of the raw files happens only here, where something is wrong with them.
        wrong = judged.filter(F.col(VERDICT) != "accepted").filter(
            wanted | F.col("event_date").isNull()
        )
        kept = wrong.persist() if found["dead"] or found["duplicate"] else wrong.filter("false")
        if found["dead"] or had_letters:
            _keep_dead_letters(kept, settings, source, good, files)
        counted = _count_by_day(kept, good)
        kept.unpersist()
        return counted


def _pad_ms(source: SourcePlan) -> int:
    """How far outside its days a build must look to know a day's duplicates."""
    if source.event_id is None:
        return 0
    return source.dedup_horizon_ms + source.allowed_lateness_ms + source.clock_skew_ms


def _judge(rows: "DataFrame", source: SourcePlan, read: Days) -> "DataFrame":
    """Add ``_event_ms _ingest_ms event_date _verdict``; the order of rules is the contract's."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    stamped = _epoch_ms(source, source.event_time)
    ingest = _epoch_ms(source, source.ingest_time) if source.ingest_time else stamped
    near = (stamped >= read.start_ms) & (stamped < read.end_ms)
    told = rows.filter(near | stamped.isNull() | F.col(BROKEN)).select(
        "*", stamped.alias("_stamped_ms"), F.coalesce(ingest, stamped).alias("_ingest_ms")
    )
    ahead = F.col("_stamped_ms") - F.col("_ingest_ms")
    event_ms = F.when(ahead > 0, F.col("_ingest_ms")).otherwise(F.col("_stamped_ms"))
    reason = (
        F.when(F.col(BROKEN) | F.col("_stamped_ms").isNull(), "schema")
        .when(ahead > source.clock_skew_ms, "future")
        .when(-ahead > source.allowed_lateness_ms, "late")
    )
    dated = told.select("*", event_ms.alias("_event_ms"), reason.alias("_reason")).withColumn(
        "event_date", F.to_date(F.timestamp_millis(F.col("_event_ms")))
    )
    verdict = F.when(F.col("_reason").isNotNull(), "dead")
    if source.event_id is not None:
        same_id = Window.partitionBy(
            F.col("_reason").isNull(), F.col(f"`{source.event_id}`")
        ).orderBy("_ingest_ms", ARRIVAL)
        gap = F.col("_ingest_ms") - F.lag("_ingest_ms").over(same_id)
        known_id = F.col(f"`{source.event_id}`").isNotNull()
        verdict = verdict.when(known_id & (gap <= source.dedup_horizon_ms), "duplicate")
    return dated.withColumn(VERDICT, verdict.otherwise("accepted"))


def _epoch_ms(source: SourcePlan, name: str) -> "Column":
    from pyspark.sql import functions as F

    column, kind = F.col(f"`{name}`"), source.column(name).type.kind
    if kind == "timestamp":
        return F.unix_millis(column)
    if kind == "date":
        return F.unix_date(column).cast("bigint") * DAY_MS
    return column.cast("bigint")


def _keep_dead_letters(
    wrong: "DataFrame",
    settings: Settings,
    source: SourcePlan,
    good: tuple[date, ...],
    files: Sequence[RawFile],
) -> None:
    """Replace the dead letters of these days; those without a day, of these files."""
    from pyspark.sql import functions as F

    dead = wrong.filter(F.col(VERDICT) == "dead")
    arrival = F.coalesce(
        F.to_date(F.timestamp_millis(F.col("_ingest_ms"))), F.lit(date(1970, 1, 1))
    )
    letters = dead.select(
        F.col("_reason").alias("reason"),
        F.col(PAYLOAD).cast("binary").alias("payload"),
        F.col(FILE).alias("origin"),
        F.col("event_date").alias("event_day"),
        F.col("_ingest_ms").alias("arrived_ms"),
        arrival.alias("event_date"),
    )
    names = [f.path for f in files]
    origin = " OR ".join("origin LIKE '%" + n.replace("'", "''") + "'" for n in names[:1000])
    days = day_predicate(good).replace("event_date", "event_day")
    letters.coalesce(1).write.format("delta").mode("overwrite").partitionBy("event_date").option(
        "replaceWhere", f"({days}) OR (event_day IS NULL AND ({origin}))"
    ).save(table_path(settings, dead_letters_table(source.name)))


def _count_by_day(wrong: "DataFrame", good: tuple[date, ...]) -> dict[date, PartitionOutcome]:
    from pyspark.sql import functions as F

    dated = wrong.filter(F.expr(day_predicate(good)))
    counted = dated.groupBy("event_date", VERDICT, "_reason").count().collect()
    outcomes: dict[date, PartitionOutcome] = {}
    for row in counted:
        before = outcomes.get(row["event_date"], PartitionOutcome(row["event_date"]))
        dead = dict(before.dead_letters)
        duplicates = before.duplicates
        if row["_reason"] is None:
            duplicates += row["count"]
        else:
            dead[row["_reason"]] = dead.get(row["_reason"], 0) + row["count"]
        outcomes[row["event_date"]] = PartitionOutcome(
            row["event_date"], duplicates=duplicates, dead_letters=dead
        )
    return outcomes


def _outcomes(
    settings: Settings,
    table: str,
    attempt: _Attempt,
    counts: dict[date, PartitionOutcome],
    asked: Days,
) -> tuple[PartitionOutcome, ...]:
    stats = partition_stats(settings, table)
    outcomes = []
    for day in attempt.wanted:
        if day in attempt.failed:
            # A broken day that nobody asked for is told by those that miss it.
            if day in asked:
                outcomes.append(PartitionOutcome(day, error=attempt.failed[day]))
            continue
        found, count = stats.get(day), counts.get(day, PartitionOutcome(day))
        outcomes.append(
            PartitionOutcome(
                day,
                rows=found.rows if found else 0,
                bytes=found.bytes if found else 0,
                duplicates=count.duplicates,
                dead_letters=count.dead_letters,
            )
        )
    return tuple(outcomes)


def absent_days(
    log: dict[date, PartitionState], fingerprint: str, start: date, end: date
) -> tuple[date, ...]:
    """Return the days of ``[start, end)`` without a standing events partition."""
    built = built_days(log, fingerprint)
    span = [start + timedelta(days=i) for i in range((end - start).days)]
    return tuple(d for d in span if d not in built)
