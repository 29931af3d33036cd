"""The identity of the books: every record of a topic is an event, a duplicate or a dead letter.

The archive's books say what became of each offset; this recounts what they say from the tables
themselves. Counts come from Delta's log wherever it has statistics, so the check costs
milliseconds and can run after every few commits.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from lineage.builds import enclosing
from millrace.errors import EngineError
from millrace.names import events_table
from millrace.plan import Plan, SourcePlan
from offline.tables.archived_days import archived_dead_letters, archived_rows
from resources.dagster.asset_keys import dead_letters_path
from resources.endpoints import kafka_bootstrap
from resources.kafka.client import end_offsets
from resources.lake.delta import open_table
from resources.lake.offset_ledger import OffsetLedger, archived_sources, read_ledger
from resources.settings import Settings, settings_from_env

if TYPE_CHECKING:
    from collections.abc import Mapping


def reconciliation_checks(plan: Plan) -> list[dg.AssetChecksDefinition]:
    """Return one check ``books`` on ``dead_letters/<source>_dead_letters`` for each source with a stream."""
    return [_reconciliation_check(source) for source in archived_sources(plan).values()]


def _reconciliation_check(source: SourcePlan) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(dead_letters_path(source)),
        name="books",
        description="Offsets read = events + duplicates + dead letters + gaps + lost, and the "
        "tables hold exactly the rows that the books count.",
    )
    def books(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        settings = settings_from_env()
        result = examine(settings, source)
        _tell(context, settings, source, result)
        return result

    return books


def _tell(
    context: dg.AssetCheckExecutionContext,
    settings: Settings,
    source: SourcePlan,
    result: dg.AssetCheckResult,
) -> None:
    from lineage.assertions import Assertion, emit_assertions

    verdict = Assertion(
        "books",
        passed=result.passed,
        severity="warn" if result.severity is dg.AssetCheckSeverity.WARN else "error",
        expected="every offset is an event, a duplicate, a dead letter or a gap",
        actual=result.description or "",
    )
    table = events_table(source.name)
    emit_assertions(settings, table, [verdict], part_of=enclosing(context), name="books")


def examine(settings: Settings, source: SourcePlan) -> dg.AssetCheckResult:
    """Compare the books of a source with the offsets they cover and the rows of the tables.

    The archive may commit meanwhile, so a difference is believed only if the books did not move
    while it was found. Records lost to the topic's retention are a failure too: a warning.
    """
    topic = source.stream.topic if source.stream else ""
    while True:
        before = _books(settings, source, topic)
        rows = {
            "events": sum(archived_rows(settings, source.name).values()),
            **archived_dead_letters(settings, source.name, before),
        }
        if _books(settings, source, topic) == before:
            return _result(settings, before, rows)


def _books(settings: Settings, source: SourcePlan, topic: str) -> OffsetLedger:
    return read_ledger(open_table(settings, events_table(source.name)), topic)


def _result(
    settings: Settings, books: OffsetLedger, rows: "Mapping[str, int]"
) -> dg.AssetCheckResult:
    faults = [
        f"the books count {books.counts[name]} {name}, the table holds {found}"
        for name, found in rows.items()
        if books.counts[name] != found
    ]
    if books.span != books.accounted:
        faults.insert(0, f"{books.span} offsets read, {books.accounted} accounted for")
    lost = books.counts["lost"]
    if lost and not faults:
        faults = [f"{lost} records left the topic before they were read"]
        severity = dg.AssetCheckSeverity.WARN
    else:
        severity = dg.AssetCheckSeverity.ERROR
    dead = sum(books.dead_letters.values())
    told = (
        f"{books.span} in = {books.counts['events']} events + {books.counts['duplicates']} "
        f"duplicates + {dead} dead letters"
    )
    metadata: dict[str, Any] = {
        "offsets_read": books.span,
        **dict(books.counts),
        **{f"rows_{name}": found for name, found in rows.items()},
        "topic": books.topic,
    }
    lag = _lag(settings, books)
    if lag is not None:
        metadata["lag_events"] = lag
    return dg.AssetCheckResult(
        passed=not faults,
        severity=severity,
        description="; ".join(faults) or told,
        metadata=metadata,
    )


def _lag(settings: Settings, books: OffsetLedger) -> int | None:
    try:
        ends = end_offsets(kafka_bootstrap(settings), books.topic)
    except EngineError:
        return None
    return sum(max(0, end - books.next.get(p, 0)) for p, end in ends.items())


def check_keys(plan: Plan) -> Sequence[dg.AssetCheckKey]:
    """Return the keys of ``reconciliation_checks``, in the same order."""
    return [
        dg.AssetCheckKey(dg.AssetKey(dead_letters_path(source)), "books")
        for source in archived_sources(plan).values()
    ]
