"""``events/<source>``: raw rows judged, deduplicated and laid out by event day.

One Spark job reads each raw file once and replaces whole days. Days whose files are broken fail
by name; the others are committed.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING

from millrace.calendar import days_after
from millrace.days import ALL_HOURS, Days, Hours
from millrace.durations import DAY_MS
from millrace.errors import DataError, EngineError
from millrace.names import events_table
from millrace.plan import SourcePlan
from offline.raw.arrivals import Arrivals
from offline.raw.files import Looks, RawFile, RawFiles, blamed_days, diagnose, find_raw_files
from offline.raw.rows import read_rows
from offline.tables.archived_days import (
    archived_outcomes,
    archived_rows,
    replaced_by_files,
)
from offline.tables.classification import VERDICT, classify_beside_archived, classify_rows, pad_ms
from offline.tables.dead_letters import DeadLetters
from offline.tables.file_days import condemn_strays
from offline.tables.partition_log import AWAITS_CHECKS, append_partition_log
from offline.tables.source_tables import follow_declaration, replace_events
from offline.tables.stages import Stage
from resources.lake.delta import partition_stats, rows_by_hour, table_version
from resources.lake.lock import locked
from resources.lake.reports import BuildReport, FilesRead, PartitionOutcome
from resources.lake.writing import Slices
from resources.progress import Progress
from resources.settings import Settings
from resources.spark.session import connect, engine_errors

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass
class _Attempt:
    """What is still wanted and what is known to be broken, as a build learns of it.

    Of the days in ``parts`` some hours are wanted only.
    """

    stage: Stage
    found: RawFiles = field(default_factory=lambda: RawFiles(()))
    arrivals: Arrivals | None = None
    failed: dict[date, str] = field(default_factory=dict)
    undated: int = 0
    unreadable: dict[str, RawFile] = field(default_factory=dict)
    read: tuple[RawFile, ...] = ()

    @property
    def wanted(self) -> tuple[date, ...]:
        return self.stage.written

    @property
    def parts(self) -> Mapping[date, Hours]:
        return self.stage.hours

    @property
    def files(self) -> tuple[RawFile, ...]:
        """The files that are not known to be broken."""
        return tuple(f for f in self.found.files if f.path not in self.unreadable)

    def blame(self, broken: Sequence[RawFile]) -> None:
        self.unreadable |= {file.path: file for file in broken}
        for file in broken:
            for day in blamed_days(file, self.files, self.wanted):
                self.failed.setdefault(day, f"{file.path}: {file.error}")

    @property
    def good_days(self) -> tuple[date, ...]:
        return tuple(d for d in self.wanted if d not in self.failed)

    @property
    def slices(self) -> Slices:
        """What of the table is replaced."""
        return Slices.of_hours(self.good_days, self.parts)

    def hours(self, day: date) -> Hours:
        return self.parts.get(day, ALL_HOURS)

    def signature(self, day: date) -> str | None:
        """Return the digest of the files that hold a day; see ``Arrivals``."""
        return None if self.arrivals is None else self.arrivals.signature(day)


def build_events(
    spark: "SparkSession",
    settings: Settings,
    stage: Stage,
    progress: Progress,
    *,
    gated: bool = False,
    known: Looks | None = None,
) -> BuildReport:
    """Replace the days of ``events/<source>`` that a stage names, the earlier ones among them.

    Idempotent: the same files give the same rows. Rows that the archive
    appended from the source's topic stay; days for which there are only such rows are counted.
    With ``gated`` the days are held back until their checks release them. ``known`` are looks into
    files of before, which are added to.

    Raises:
        DataError: there is no file at all.
        EngineError: Spark failed for a reason that is no broken file.
    """
    began = time.monotonic()
    source, attempt = stage.table.source, _Attempt(stage)
    try:
        attempt.found = find_raw_files(source, settings, known=known)
        attempt.arrivals = Arrivals.of(source, settings, attempt.found)
        attempt.blame([f for f in attempt.files if f.error])
        for note in _files_read(attempt).notes():
            progress(f"events/{source.name}: {note}")
        counts = _write_good_days(spark, settings, source, attempt, progress)
    except (DataError, EngineError) as error:
        if not error.retryable:
            _record_failure(settings, source, attempt, str(error))
        raise
    finally:
        if attempt.found.files:
            dead_letters = DeadLetters(settings, source.name)
            dead_letters.replace_unreadable(attempt.unreadable.values(), attempt.read)
    return _reported(settings, source, attempt, counts, began, gated=gated)


def _files_read(attempt: _Attempt) -> FilesRead:
    found, read = attempt.found, {file.path for file in attempt.read}
    return FilesRead(
        read=len(attempt.read),
        of_other_days=sum(f.holds_rows and f.path not in read for f in attempt.files),
        unreadable={path: str(file.error) for path, file in sorted(attempt.unreadable.items())},
        passed_over=found.passed_over,
        absent_columns=found.absent,
    )


def _record_failure(settings: Settings, source: SourcePlan, attempt: _Attempt, error: str) -> None:
    """Log the days of a build that came to nothing; what stood of them stands."""
    failed = [
        PartitionOutcome(day, attempt.hours(day), error=error, files=attempt.signature(day))
        for day in attempt.stage.days or ()
    ]
    table = events_table(source.name)
    report = BuildReport(table, None, table_version(settings, table), tuple(failed))
    append_partition_log(settings, report, source.fingerprint)


def count_archived_events(settings: Settings, stage: Stage, *, gated: bool = False) -> BuildReport:
    """Take the archived days of a source without files as they stand, and log them as built.

    No engine is needed, unless the declaration has changed so that stored values must be written
    again. A day that is not over yet counts as built too; building it again later
    counts again.
    """
    began, source = time.monotonic(), stage.table.source
    follow_declaration(settings, source, lambda: connect(settings))
    return _reported(settings, source, _Attempt(stage), {}, began, gated=gated)


def _reported(
    settings: Settings,
    source: SourcePlan,
    attempt: _Attempt,
    counts: dict[date, PartitionOutcome],
    began: float,
    *,
    gated: bool,
) -> BuildReport:
    table = events_table(source.name)
    if source.stream is not None:
        counts = _added(counts, archived_outcomes(settings, source.name, attempt.wanted))
    report = BuildReport(
        table=table,
        version=None,
        delta_version=table_version(settings, table),
        outcomes=_outcomes(settings, source, attempt, counts),
        seconds=time.monotonic() - began,
        began_ms=int((time.time() - (time.monotonic() - began)) * 1000),
        undated=attempt.undated,
        files=_files_read(attempt) if attempt.found.looked_at else None,
    )
    held = {o.day: AWAITS_CHECKS for o in report.built} if gated else None
    append_partition_log(settings, report, source.fingerprint, held=held)
    return report


def _added(
    one: dict[date, PartitionOutcome], other: dict[date, PartitionOutcome]
) -> dict[date, PartitionOutcome]:
    """Add up duplicates and dead letters by day."""
    return {
        day: PartitionOutcome(
            day,
            duplicates=sum(o.duplicates for o in found),
            dead_letters=dict(sum((Counter(o.dead_letters) for o in found), Counter())),
        )
        for day in one.keys() | other.keys()
        if (found := [counts[day] for counts in (one, other) if day in counts])
    }


def _write_good_days(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    attempt: _Attempt,
    progress: Progress,
) -> dict[date, PartitionOutcome]:
    while attempt.good_days:
        if not attempt.files:
            reason = _no_file(source, attempt)
            attempt.failed |= dict.fromkeys(attempt.good_days, reason)
            break
        try:
            return _write(spark, settings, source, attempt, progress)
        except EngineError:
            broken = diagnose(attempt.read, source)
            if not broken:
                raise
            progress(f"{len(broken)} broken file(s), first {broken[0].path}: {broken[0].error}")
            attempt.blame(broken)
    return {}


def _no_file(source: SourcePlan, attempt: _Attempt) -> str:
    told = [f"{file.path}: {file.error}" for file in attempt.unreadable.values()]
    return f"no file of {source.name} can be read: {'; '.join(told[:3])}"


def _write(
    spark: "SparkSession",
    settings: Settings,
    source: SourcePlan,
    attempt: _Attempt,
    progress: Progress,
) -> dict[date, PartitionOutcome]:
    from pyspark.sql import functions as F

    good = attempt.good_days
    span = Days.covering(good)
    pad_days = 1 + -(-pad_ms(source) // DAY_MS)
    read = Days.through(days_after(span.start, -pad_days), days_after(span.last, pad_days))
    files = [f for f in attempt.files if f.may_hold(read.start, read.last)]
    if not files and source.stream is not None and not _has_file_rows(settings, source, good):
        follow_declaration(settings, source, lambda: spark)
        return {}
    # Where no file holds these days they are empty; any file tells Spark the columns.
    files = files or [replace(attempt.files[0], group_bytes=(), size_bytes=0)]
    attempt.read = tuple(files)
    megabytes = sum(f.size_bytes for f in files) / 1e6
    what = f"{len(files)} file(s), {megabytes:.1f} MB"
    progress(
        f"events/{source.name}: reading {what if files[0].was_looked_at else source.files.path}, "
        f"for {len(good)} day(s) from {span.start} to {span.last}"
    )
    with engine_errors(events_table(source.name)):
        rows = condemn_strays(spark, read_rows(spark, source, files), source, files)
        # The archive may not commit between the look at its rows and the write beside them.
        with locked(settings, events_table(source.name)):
            archived = archived_rows(settings, source.name) if source.stream else {}
            judged = classify_rows(rows, source, read)
            if archived and source.event_id is not None:
                judged = classify_beside_archived(spark, settings, judged, source, read)
            found = _replace(spark, judged, settings, source, attempt.slices, archived)
        dead_letters = DeadLetters(settings, source.name)
        had_dead_letters = dead_letters.of_rows() > 0
        if not found["dead"] and not found["duplicate"] and not had_dead_letters:
            return {}
        attempt.undated = found["undated"]
        told = f"events/{source.name}: {found['duplicate']} duplicate, {found['dead']} dead"
        progress(told + (f", {attempt.undated} of them of no day" if attempt.undated else ""))
        # The second read of the raw files happens only here, where something is wrong with them.
        wanted = F.expr(attempt.slices.predicate("_event_ms"))
        wrong = judged.filter(F.col(VERDICT).isin("dead", "duplicate")).filter(
            wanted | F.col("event_date").isNull()
        )
        kept = wrong.persist() if found["dead"] or found["duplicate"] else wrong.filter("false")
        if found["dead"] or had_dead_letters:
            with locked(settings, dead_letters.name):
                dead_letters.replace(kept, attempt.slices, files)
        counted = _count_by_day(kept)
        kept.unpersist()
        return _with_other_hours(settings, source, counted, good, attempt.parts)


def _with_other_hours(
    settings: Settings,
    source: SourcePlan,
    counted: dict[date, PartitionOutcome],
    good: Sequence[date],
    parts: Mapping[date, Hours],
) -> dict[date, PartitionOutcome]:
    """Count the dead letters of a whole day where some hours of it were built: it is judged whole."""
    partly = [day for day in good if day in parts]
    dead_letters = DeadLetters(settings, source.name).by_day(partly) if partly else {}
    of_days = {
        day: replace(
            counted.get(day, PartitionOutcome(day)), dead_letters=dead_letters.get(day, {})
        )
        for day in partly
    }
    return {**counted, **of_days}


def _has_file_rows(settings: Settings, source: SourcePlan, days: Sequence[date]) -> bool:
    stats = partition_stats(settings, events_table(source.name))
    archived = archived_rows(settings, source.name)
    return any(stats[day].rows > archived.get(day, 0) for day in days if day in stats)


def _replace(
    spark: "SparkSession",
    judged: "DataFrame",
    settings: Settings,
    source: SourcePlan,
    slices: Slices,
    archived: dict[date, int],
) -> dict[str, int]:
    """Write the accepted rows; return how many of these slices are ``dead`` and ``duplicate``.

    Dead ones of no day are among them, and ``undated`` says how many.
    """
    from pyspark.sql import Observation
    from pyspark.sql import functions as F

    wanted = F.expr(slices.predicate("_event_ms"))
    books = Observation(f"books_{source.name}")
    kinds = [F.count_if(F.col(VERDICT) == F.lit(k)).alias(k) for k in ("dead", "duplicate")]
    is_undated = (F.col(VERDICT) == "dead") & F.col("event_date").isNull()
    kinds.append(F.count_if(is_undated).alias("undated"))
    watched = judged.filter(wanted | F.col("event_date").isNull()).observe(books, *kinds)
    accepted = watched.filter((F.col(VERDICT) == "accepted") & wanted)
    columns = [F.col(f"`{c.name}`") for c in source.columns]
    from_files = [F.lit(None).cast("int").alias("_partition")]
    from_files.append(F.lit(None).cast("bigint").alias("_offset"))
    replace_events(
        spark,
        settings,
        source,
        slices,
        accepted.select(*columns, "_event_ms", "_ingest_ms", *from_files, "event_date"),
        replaced_by_files(slices, archived),
        sort=("_event_ms", *(c for c in (source.event_id,) if c)),
    )
    found: dict[str, int] = books.get
    return found


def _count_by_day(wrong: "DataFrame") -> dict[date, PartitionOutcome]:
    from pyspark.sql import functions as F

    dated = wrong.filter(F.col("event_date").isNotNull())
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
    source: SourcePlan,
    attempt: _Attempt,
    counts: dict[date, PartitionOutcome],
) -> tuple[PartitionOutcome, ...]:
    table = events_table(source.name)
    stats = partition_stats(settings, table)
    by_hour = {}
    if source.schedule.is_hourly:
        by_hour = rows_by_hour(settings, table, attempt.good_days, "_event_ms")
    outcomes = []
    for day in attempt.wanted:
        if day in attempt.failed:
            # A broken day that nobody asked for is told by those that miss it.
            if day not in attempt.stage.earlier:
                hours = attempt.hours(day)
                error, files = attempt.failed[day], attempt.signature(day)
                outcomes.append(PartitionOutcome(day, hours, error=error, files=files))
            continue
        found, count = stats.get(day), counts.get(day, PartitionOutcome(day))
        outcomes.append(
            PartitionOutcome(
                day,
                attempt.hours(day),
                rows=found.rows if found else 0,
                rows_by_hour=by_hour.get(day, ()),
                bytes=found.bytes if found else 0,
                duplicates=count.duplicates,
                dead_letters=count.dead_letters,
                files=attempt.signature(day),
            )
        )
    return tuple(outcomes)
